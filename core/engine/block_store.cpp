#include "core/engine/block_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_map>

#include "core/base/error.h"
#include "core/format/safetensors.h"
#include "core/quant/packing.h"
#include "core/quant/units.h"

namespace qb {
namespace {

constexpr const char *kCodes = ".codes", *kScale = ".scale", *kZero = ".zero", *kLayout = ".layout";
constexpr const char *kColumns = ".columns", *kColumnValues = ".column_values", *kOutliers = ".outliers", *kOutlierValues = ".outlier_values";
constexpr std::array kParts = {kScale, kZero, kLayout, kColumns, kColumnValues, kOutliers, kOutlierValues};
constexpr int64_t kLayoutFields = 11;

// What dequantization needs of a spec, as numbers beside the codes: a block file stands for itself.
at::Tensor layout_of(const QuantizedWeight& weight) {
  const QuantSpec& spec = weight.spec;
  return at::tensor({static_cast<int64_t>(spec.type.kind), static_cast<int64_t>(spec.type.bits), static_cast<int64_t>(spec.type.exponent_bits),
                     static_cast<int64_t>(spec.type.mantissa_bits), static_cast<int64_t>(spec.granularity), spec.group_size, spec.block_rows,
                     spec.block_cols, spec.heads, weight.codes.size(0), weight.codes.size(1)},
                    at::kLong);
}

struct Layout {
  QuantSpec spec;
  int64_t out_features = 0, in_features = 0;
};

// Everything is checked: a damaged file must not become a shape.
Layout read_layout(const at::Tensor& stored, bool symmetric, const std::string& what) {
  auto damaged = [&] { return InputError(fmt::format("{}: not a layout that a run writes", what)); };
  if (stored.scalar_type() != at::kLong || stored.numel() != kLayoutFields) throw damaged();
  const auto* field = stored.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < kLayoutFields; ++i)
    if (field[i] < 0 || field[i] > (int64_t{1} << 40)) throw damaged();
  if (field[0] > 1 || field[4] > static_cast<int64_t>(Granularity::head)) throw damaged();
  Layout layout;
  QuantSpec& spec = layout.spec;
  spec.type = {static_cast<NumberType::Kind>(field[0]), static_cast<int>(field[1]), static_cast<int>(field[2]), static_cast<int>(field[3])};
  if (NumberType::parse(spec.type.text()) != spec.type) throw damaged();
  spec.granularity = static_cast<Granularity>(field[4]);
  spec.group_size = field[5];
  spec.block_rows = field[6];
  spec.block_cols = field[7];
  spec.heads = field[8];
  spec.symmetric = symmetric;
  layout.out_features = field[9];
  layout.in_features = field[10];
  if (const std::string problem = misfit(spec, layout.out_features, layout.in_features); !problem.empty())
    throw InputError(fmt::format("{}: {}", what, problem));
  return layout;
}

// Positions index memory: they are checked like everything else.
void read_exceptions(const TensorSource& source, const std::string& name, QuantizedWeight& weight) {
  const int64_t out = weight.codes.size(0), in = weight.codes.size(1);
  auto read = [&](const char* where, const char* what, int64_t bound, at::Tensor& at, at::Tensor& values, bool columns) {
    if (!source.contains(name + where)) return;
    at = source.read(name + where);
    values = source.contains(name + what) ? source.read(name + what) : at::Tensor();
    const bool sound = at.scalar_type() == at::kLong && at.dim() == 1 && values.defined() && values.scalar_type() == at::kHalf &&
                       values.sizes() == (columns ? at::IntArrayRef{out, at.numel()} : at::IntArrayRef{at.numel()}) &&
                       (at.numel() == 0 || (at.min().item<int64_t>() >= 0 && at.max().item<int64_t>() < bound));
    if (!sound) throw InputError(fmt::format("\"{}\" are not positions in [{}, {}] with float16 values", where, out, in));
    values = values.to(at::kFloat);
  };
  read(kColumns, kColumnValues, in, weight.columns, weight.column_values, true);
  read(kOutliers, kOutlierValues, out * in, weight.outliers, weight.outlier_values, false);
}

std::string place(const std::filesystem::path& file, const std::string& tensor) {
  return fmt::format("{}: tensor \"{}\"", file.string(), tensor);
}

class BlockSource final : public TensorSource {
 public:
  BlockSource(std::vector<std::filesystem::path> paths, const std::filesystem::path& tuned) {
    if (!tuned.empty()) {
      tuned_ = open_safetensors(tuned);
      paths.push_back(tuned);  // last: what it replaces was there before
    }
    for (const auto& path : paths) {
      auto stored = open_safetensors(path);
      for (const TensorInfo& info : stored->tensors()) {
        if (std::any_of(kParts.begin(), kParts.end(), [&](const char* part) { return info.name.ends_with(part); })) continue;
        TensorInfo seen = info;
        const bool coded = info.name.ends_with(kCodes);
        if (coded) {
          seen.name = info.name.substr(0, info.name.size() - std::string(kCodes).size());
          for (const char* part : {kScale, kLayout})
            if (!stored->contains(seen.name + part)) throw InputError(fmt::format("{}: tensor \"{}{}\" is missing", path.string(), seen.name, part));
          const Layout layout = read_layout(stored->read(seen.name + kLayout), !stored->contains(seen.name + kZero), place(path, seen.name));
          seen.dtype = DType::f32;
          seen.shape = {layout.out_features, layout.in_features};
        }
        seen.file = static_cast<int>(files_.size());
        const auto [place, fresh] = index_.try_emplace(seen.name);
        const size_t at = fresh ? tensors_.size() : place->second.tensor;
        place->second = {at, sources_.size(), coded};
        if (fresh) tensors_.emplace_back();
        tensors_[at] = std::move(seen);
      }
      files_.push_back(path);
      sources_.push_back(std::move(stored));
    }
  }

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const std::vector<std::filesystem::path>& files() const override { return files_; }
  const TensorInfo* find(const std::string& name) const override {
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : &tensors_[it->second.tensor];
  }
  at::Tensor read(const std::string& name) const override {
    const auto it = index_.find(name);
    if (it == index_.end()) throw InputError(fmt::format("no tensor \"{}\" among the quantized blocks", name));
    const TensorSource& source = *sources_[it->second.source];
    if (!it->second.coded) return source.read(name);
    QuantizedWeight weight = *read_rounded(source, name);
    if (tuned_ && tuned_->contains(name + kScale)) {
      const at::Tensor scale = tuned_->read(name + kScale);
      if (scale.scalar_type() != at::kFloat || scale.sizes() != weight.grid.scale.sizes())
        throw InputError(fmt::format("{}: scales are not float32 like those of {}", place(tuned_->files().front(), name), source.files().front().string()));
      weight.grid.scale = scale;
    }
    return weight.dequantize();
  }

 private:
  struct Place {
    size_t tensor, source;
    bool coded;
  };
  std::vector<TensorInfo> tensors_;
  std::vector<std::filesystem::path> files_;
  std::vector<TensorSourcePtr> sources_;
  TensorSourcePtr tuned_;
  std::unordered_map<std::string, Place> index_;
};

}  // namespace

void write_block(const std::filesystem::path& path, const BlockWork& work, const Block& loaded) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  auto add = [&](const std::string& name, const at::Tensor& tensor) { tensors.emplace_back(name, tensor.to(at::kCPU)); };
  for (size_t i = 0; i < work.linears.size(); ++i) {
    const LinearWork& linear = work.linears[i];
    const std::string& name = linear.info.tensor;
    if (linear.quantized) {
      const QuantizedWeight& q = *linear.quantized;
      add(name + kCodes, pack_codes(q.codes, q.spec.type));
      add(name + kScale, q.grid.scale);
      if (q.grid.zero.defined()) add(name + kZero, q.grid.zero);
      add(name + kLayout, layout_of(q));
      if (q.columns.defined()) {
        add(name + kColumns, q.columns);
        add(name + kColumnValues, q.column_values.to(at::kHalf));
      }
      if (q.outliers.defined()) {
        add(name + kOutliers, q.outliers);
        add(name + kOutlierValues, q.outlier_values.to(at::kHalf));
      }
    } else if (!linear.original.defined() || !linear.weight.is_same(linear.original)) {
      add(name, linear.weight);
    }
    const at::Tensor& bias = work.block.linears[i].bias;
    if (bias.defined() && !bias.is_same(loaded.linears[i].bias)) add(linear.module + ".bias", bias);
  }
  const std::string prefix = work.decoder.architecture().block_prefix(work.block.index);
  for (const auto& [name, tensor] : work.block.others)
    if (const auto it = loaded.others.find(name); it == loaded.others.end() || !tensor.is_same(it->second)) add(prefix + name, tensor);
  write_safetensors(path, tensors);
}

TensorSourcePtr open_blocks(const std::vector<std::filesystem::path>& paths, const std::filesystem::path& tuned) {
  return std::make_shared<BlockSource>(paths, tuned);
}

std::optional<QuantizedWeight> read_rounded(const TensorSource& source, const std::string& name) {
  if (!source.contains(name + kCodes)) return std::nullopt;
  const bool has_zero = source.contains(name + kZero);
  const std::string what = place(source.files().front(), name);
  for (const char* part : {kScale, kLayout})
    if (!source.contains(name + part)) throw InputError(fmt::format("{}: \"{}\" is missing", what, part));
  const auto [spec, out, in] = read_layout(source.read(name + kLayout), !has_zero, what);
  const at::Tensor scale = source.read(name + kScale), zero = has_zero ? source.read(name + kZero) : at::Tensor();
  const auto units = unit_shape(spec, out, in);
  for (const at::Tensor& part : {scale, zero})
    if (part.defined() && (part.scalar_type() != at::kFloat || part.sizes() != at::IntArrayRef{units.first, units.second}))
      throw InputError(fmt::format("{}: scales or zero points are not float32 [{}, {}]", what, units.first, units.second));
  try {
    QuantizedWeight weight{spec, unpack_codes(source.read(name + kCodes), spec.type, out, in), {scale, zero}};
    read_exceptions(source, name, weight);
    return weight;
  } catch (const InputError& e) {
    throw InputError(fmt::format("{}: {}", what, e.what()));
  }
}

}  // namespace qb
