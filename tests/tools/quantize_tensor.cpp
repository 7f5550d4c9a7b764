// core/quant on the tensors of files. Each line of standard input is a job, answered by "ok" or an error message:
// MODE IN.safetensors OUT.safetensors [name=value …]
// MODE weight: for every tensor T [out, in] writes T.codes, T.scale, T.zero, T.value (dequantized after packing and unpacking); of a
//      storage type also T.minimum, T.super, T.super_minimum where it has them. A tensor "importance" [in] weighs its columns' errors.
//      activation: T fake-quantized. round: T rounded to the float type.
#include <iostream>
#include <map>
#include <sstream>

#include "core/base/error.h"
#include "core/format/safetensors.h"
#include "core/quant/packing.h"
#include "core/quant/quantizer.h"

namespace {

qb::QuantSpec spec_from(std::istream& words) {
  std::map<std::string, std::string> given;
  for (std::string pair; words >> pair;) given[pair.substr(0, pair.find('='))] = pair.substr(pair.find('=') + 1);
  qb::QuantSpec spec;
  spec.scale_type = qb::ScaleType::f32;
  for (const auto& [name, value] : given) {
    if (name == "type" && qb::parse_storage(value)) spec = qb::spec_of(*qb::parse_storage(value));
    else if (name == "type") spec.type = qb::NumberType::parse(value).value();
    else if (name == "symmetric") spec.symmetric = value == "1";
    else if (name == "granularity") spec.granularity = qb::parse_granularity(value).value();
    else if (name == "group_size") spec.group_size = std::stoll(value);
    else if (name == "block_rows") spec.block_rows = std::stoll(value);
    else if (name == "block_cols") spec.block_cols = std::stoll(value);
    else if (name == "heads") spec.heads = std::stoll(value);
    else if (name == "round_zero_point") spec.round_zero_point = value == "1";
    else if (name == "narrow_range") spec.narrow_range = value == "1";
    else if (name == "full_scale") spec.full_scale = value == "1";
    else if (name == "scale_type") spec.scale_type = qb::parse_scale_type(value).value();
    else if (name == "range") spec.range = qb::parse_range_method(value).value();
    else throw qb::InputError("unknown setting " + name);
  }
  return spec;
}

void carry_out(std::istream& words) {
  std::string mode, in_file, out_file;
  words >> mode >> in_file >> out_file;
  const auto source = qb::open_safetensors(in_file);
  const qb::QuantSpec spec = spec_from(words);
  std::vector<std::pair<std::string, at::Tensor>> out;
  const at::Tensor importance = source->contains("importance") ? source->read("importance") : at::Tensor();
  for (const qb::TensorInfo& info : source->tensors()) {
    if (info.name == "importance") continue;
    const at::Tensor x = source->read(info.name);
    if (mode == "round") {
      out.emplace_back(info.name, qb::round_to_float(x, spec.type));
    } else if (mode == "activation") {
      if (auto problem = qb::activation_misfit(spec, x.size(1)); !problem.empty()) throw qb::InputError(info.name + ": " + problem);
      out.emplace_back(info.name, qb::fake_quantize(x, spec));
    } else {
      if (auto problem = qb::misfit(spec, x.size(0), x.size(1)); !problem.empty()) throw qb::InputError(info.name + ": " + problem);
      qb::QuantizedWeight q = qb::quantize(x, spec, {}, {importance, {}});
      out.emplace_back(info.name + ".codes", q.codes.to(at::kFloat));
      out.emplace_back(info.name + ".scale", q.grid.scale);
      if (q.grid.zero.defined()) out.emplace_back(info.name + ".zero", q.grid.zero);
      if (q.grid.minimum.defined()) out.emplace_back(info.name + ".minimum", q.grid.minimum);
      if (q.grid.super.defined()) out.emplace_back(info.name + ".super", q.grid.super);
      if (q.grid.super_minimum.defined()) out.emplace_back(info.name + ".super_minimum", q.grid.super_minimum);
      q.codes = qb::unpack_codes(qb::pack_codes(q.codes, spec.type), spec.type, x.size(0), x.size(1));
      out.emplace_back(info.name + ".value", q.dequantize());
    }
  }
  qb::write_safetensors(out_file, out);
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    try {
      std::istringstream words(line);
      carry_out(words);
      std::cout << "ok" << std::endl;
    } catch (const std::exception& error) {
      std::cout << error.what() << std::endl;
    }
  }
  return 0;
}
