// core/method's GPTQ on the tensors of a file: gptq_tensor IN OUT name=value …
// IN: weight [out, in], gram [in, in], optional kept (uint8), low and high (a clipping stage's range). OUT: codes, scale, zero, value,
// loss. Names: symmetric group type act_order static_groups damping block_size sweeps fit_scales shrinkage. On QBENCH_DEVICE, or
// the CPU.
#include <iostream>
#include <map>

#include "core/base/error.h"
#include "core/format/safetensors.h"
#include "core/method/reconstruction/gptq_solver.h"
#include "core/method/reconstruction/refinement.h"
#include "tests/tools/device.h"

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
    spec.type = qb::NumberType::parse(given.contains("type") ? given["type"] : "int4").value();
    spec.symmetric = number("symmetric", 1) != 0;
    spec.scale_type = qb::ScaleType::f32;
    spec.group_size = static_cast<int64_t>(number("group", 0));
    spec.granularity = spec.group_size > 0 ? qb::Granularity::group : qb::Granularity::channel;
    qb::GptqOptions options;
    options.act_order = number("act_order", 1) != 0;
    options.static_groups = number("static_groups", 1) != 0;
    options.damping = number("damping", 0.01);
    options.block_size = static_cast<int64_t>(number("block_size", 128));
    options.shrinkage = number("shrinkage", 0);
    const at::Tensor gram = read("gram");
    const auto factor = qb::gptq_factor(gram, options, spec.group_size);
    if (!factor) {
      std::cout << "indefinite\n";
      return 0;
    }
    std::optional<qb::Range> range;
    if (source->contains("low")) range = qb::Range{read("low"), read("high")};
    const at::Tensor kept = source->contains("kept") ? read("kept").to(at::kBool) : at::Tensor();
    qb::GptqResult result = qb::gptq(read("weight"), *factor, spec, range, kept, options, {});
    refine(result.weight, read("weight"), gram, kept, {static_cast<int64_t>(number("sweeps", 0)), number("fit_scales", 0) != 0, options.shrinkage}, {});
    std::vector<std::pair<std::string, at::Tensor>> out = {{"codes", result.weight.codes.to(at::kFloat)}, {"scale", result.weight.grid.scale},
                                                           {"value", result.weight.dequantize()}, {"order", factor->order},
                                                           {"loss", at::tensor({result.loss}, at::kDouble)}};
    if (result.weight.grid.zero.defined()) out.emplace_back("zero", result.weight.grid.zero);
    qb::write_safetensors(argv[2], out);
    std::cout << "damping " << factor->damping << " attempts " << factor->attempts << " dead " << factor->dead << "\n";
  } catch (const qb::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
