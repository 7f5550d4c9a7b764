// core/method's GPTQ on the tensors of a file: gptq_tensor IN OUT name=value …
// IN: weight [out, in], gram [in, in], optional kept (uint8), low and high (a clipping stage's range). OUT: codes, scale, zero, value,
// loss, and minimum, super and super_minimum of a storage type. Names: symmetric group type, and GPTQ's knobs, which have its table's defaults. On QBENCH_DEVICE, or the CPU.
#include <iostream>
#include <map>

#include "core/base/error.h"
#include "core/format/safetensors.h"
#include "core/method/reconstruction/gptq.h"
#include "tests/tools/device.h"
#include "tests/tools/stage.h"

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  try {
    std::map<std::string, std::string> given;
    for (int i = 3; i < argc; ++i) {
      const std::string pair = argv[i];
      given[pair.substr(0, pair.find('='))] = pair.substr(pair.find('=') + 1);
    }
    auto number = [&](const std::string& name, double otherwise) { return given.contains(name) ? std::stod(given[name]) : otherwise; };
    const at::Device device = wanted_device();
    const auto source = qb::open_safetensors(argv[1]);
    auto read = [&](const char* name) { return source->read(name).to(device); };
    qb::QuantSpec spec;
    if (const auto storage = qb::parse_storage(given["type"])) {
      spec = qb::spec_of(*storage);
    } else {
      spec.type = qb::NumberType::parse(given["type"].empty() ? "int4" : given["type"]).value();
      spec.symmetric = number("symmetric", 1) != 0;
      spec.scale_type = qb::ScaleType::f32;
      spec.group_size = static_cast<int64_t>(number("group", 0));
      spec.granularity = spec.group_size > 0 ? qb::Granularity::group : qb::Granularity::channel;
    }
    for (const char* name : {"symmetric", "group", "type"}) given.erase(name);
    const qb::StageSpec stage = stage_of("gptq", given);
    const qb::GptqOptions options = qb::gptq_options(stage);
    const at::Tensor gram = read("gram");
    const bool groups = spec.granularity == qb::Granularity::group;
    const auto factor = qb::gptq_factor(gram, options, groups ? qb::grid_width(spec, gram.size(0)) : 0);
    if (!factor) {
      std::cout << "indefinite\n";
      return 0;
    }
    std::optional<qb::Range> range;
    if (source->contains("low")) range = qb::Range{read("low"), read("high")};
    const at::Tensor kept = source->contains("kept") ? read("kept").to(at::kBool) : at::Tensor();
    qb::GptqResult result = qb::gptq(read("weight"), *factor, spec, range, kept, options, {});
    refine(result.weight, read("weight"), gram, kept, qb::refine_options(stage), {});
    std::vector<std::pair<std::string, at::Tensor>> out = {{"codes", result.weight.codes.to(at::kFloat)}, {"scale", result.weight.grid.scale},
                                                           {"value", result.weight.dequantize()}, {"order", factor->order},
                                                           {"loss", at::tensor({result.loss}, at::kDouble)}};
    const qb::ScaleZero& grid = result.weight.grid;
    for (const auto& [name, part] : {std::pair{"minimum", grid.minimum}, {"super", grid.super}, {"super_minimum", grid.super_minimum}})
      if (part.defined()) out.emplace_back(name, part);
    if (result.weight.grid.zero.defined()) out.emplace_back("zero", result.weight.grid.zero);
    qb::write_safetensors(argv[2], out);
    std::cout << "damping " << factor->damping << " attempts " << factor->attempts << " dead " << factor->dead << "\n";
  } catch (const qb::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
