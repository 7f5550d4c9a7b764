#include "core/exporting/ggml_grid.h"

#include <fmt/format.h>

#include <array>

#include "core/base/error.h"
#include "core/format/iq4_nl.h"
#include "core/format/mxfp4.h"
#include "core/quant/stored_spec.h"

namespace qb {
namespace {

constexpr std::array<std::pair<Storage, DType>, 12> kTypes = {{{Storage::q4_0, DType::q4_0}, {Storage::q4_1, DType::q4_1}, {Storage::q5_0, DType::q5_0}, {Storage::q5_1, DType::q5_1},
                                                               {Storage::q8_0, DType::q8_0}, {Storage::q2_k, DType::q2_k}, {Storage::q3_k, DType::q3_k}, {Storage::q4_k, DType::q4_k},
                                                               {Storage::q5_k, DType::q5_k}, {Storage::q6_k, DType::q6_k}, {Storage::iq4_nl, DType::iq4_nl}, {Storage::mxfp4, DType::mxfp4}}};
constexpr int64_t kBlock = 32;

Storage storage_of(DType type) {
  for (const auto& [storage, dtype] : kTypes)
    if (dtype == type) return storage;
  throw InternalError(fmt::format("{} is no type of ggml that schemes know", name_of(type)));
}

// Integers times a float16 of their super-block: 0 where that is 0.
at::Tensor integers(const at::Tensor& values, const at::Tensor& super) {
  const at::Tensor wide = super.repeat_interleave(values.size(1) / super.size(1), 1);
  return at::where(wide == 0, at::zeros_like(values), values / wide).round().to(at::kChar);
}

at::Tensor as_levels(const at::Tensor& codes, bool back) {
  at::Tensor table = at::full({256}, -1, at::kChar);
  for (int i = 0; i < 16; ++i) table[back ? i : kIq4Levels[i] + 128] = back ? kIq4Levels[i] : i;
  const at::Tensor made = table.index_select(0, (back ? codes.to(at::kInt) : codes.to(at::kInt).add(128)).flatten()).reshape(codes.sizes());
  if (!back && made.lt(0).any().item<bool>()) throw InternalError("a code is no level of iq4_nl");
  return made;
}

}  // namespace

at::Tensor fp4_value(const at::Tensor& index) {
  at::Tensor table = at::empty({16}, at::kFloat);
  for (int i = 0; i < 16; ++i) table[i] = kTwiceFp4[i] / 2;
  return table.index_select(0, index.to(at::kInt).flatten()).reshape(index.sizes());
}

at::Tensor fp4_index(const at::Tensor& values) {
  at::Tensor table = at::full({13}, -1, at::kChar);  // by twice a magnitude: 0 1 2 3 4 6 8 12
  for (int i = 0; i < 8; ++i) table[static_cast<int>(kTwiceFp4[i])] = i;
  const at::Tensor made = table.index_select(0, values.abs().mul(2).to(at::kInt).flatten()).reshape(values.sizes());
  return made + values.lt(0).to(at::kChar) * 8;
}

std::optional<DType> ggml_type(const QuantSpec& spec) {
  for (const auto& [storage, type] : kTypes)
    if (spec.storage == storage) return type;
  const bool plain = spec.storage == Storage::none && spec.type.kind == NumberType::Kind::integer && spec.symmetric && spec.granularity == Granularity::group && spec.group_size % kBlock == 0 &&
                     spec.scale_type == ScaleType::f16;
  if (!plain) return std::nullopt;
  switch (spec.type.bits) {
    case 4: return DType::q4_0;
    case 5: return DType::q5_0;
    case 8: return DType::q8_0;
    default: return std::nullopt;
  }
}

std::optional<QuantSpec> spec_of_ggml(DType type) {
  for (const auto& [storage, dtype] : kTypes)
    if (dtype == type) return meaning_of(spec_of(storage));
  return std::nullopt;
}

GgmlParts parts_of(const QuantizedWeight& weight, DType type) {
  const ScaleZero& grid = weight.grid;
  const GgmlLayout layout = ggml_layout(type);
  GgmlParts parts;
  if (weight.spec.storage == Storage::none) {  // plain groups of a multiple of 32
    parts.codes = weight.codes.to(at::kChar);
    parts.d = grid.scale.repeat_interleave(weight.spec.group_size / kBlock, 1).contiguous();
    return parts;
  }
  const Storage storage = weight.spec.storage;
  parts.codes = storage == Storage::mxfp4 ? fp4_index(weight.codes) : storage == Storage::iq4_nl ? as_levels(weight.codes, false) : weight.codes.to(at::kChar);
  if (layout.lowest == 0 && layout.m) parts.codes = parts.codes.add(1 << (weight.spec.type.bits - 1)).to(at::kChar);
  parts.codes = parts.codes.contiguous();
  if (layout.sub_block == 0) {
    parts.d = grid.scale.contiguous();
    if (layout.m) parts.m = grid.minimum.contiguous();
    return parts;
  }
  parts.d = grid.super.contiguous();
  parts.scales = integers(grid.scale, grid.super).contiguous();
  if (layout.m) {
    parts.m = grid.super_minimum.contiguous();
    parts.mins = integers(grid.minimum.neg(), grid.super_minimum).contiguous();
  }
  return parts;
}

QuantizedWeight weight_of(DType type, const GgmlParts& parts) {
  const GgmlLayout layout = ggml_layout(type);
  QuantizedWeight weight;
  weight.spec = meaning_of(spec_of(storage_of(type)));
  weight.codes = type == DType::mxfp4 ? fp4_value(parts.codes) : type == DType::iq4_nl ? as_levels(parts.codes, true) : parts.codes;
  if (layout.lowest == 0 && layout.m) weight.codes = weight.codes.sub(1 << (weight.spec.type.bits - 1)).to(at::kChar);
  ScaleZero& grid = weight.grid;
  if (layout.sub_block == 0) {
    grid.scale = parts.d;
    if (layout.m) grid.minimum = parts.m;
  } else {
    const int64_t per = parts.scales.size(1) / parts.d.size(1);
    grid.super = parts.d;
    grid.scale = parts.scales.to(at::kFloat) * parts.d.repeat_interleave(per, 1);
    if (layout.m) {
      grid.super_minimum = parts.m;
      grid.minimum = parts.mins.to(at::kFloat).neg() * parts.m.repeat_interleave(per, 1);
    }
  }
  derive_zero(grid, weight.spec);
  return weight;
}

}  // namespace qb
