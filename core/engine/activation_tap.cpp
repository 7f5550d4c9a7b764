#include <memory>
#include <unordered_map>

#include "core/engine/engine.h"
#include "core/engine/module_name.h"

namespace qb {

LinearTap activation_tap(const Scheme& scheme) {
  if (!scheme.activations) return {};
  // q, k and v share an input: it is fake-quantized once.
  struct Memory {
    std::unordered_map<std::string, std::optional<QuantSpec>> specs;
    at::Tensor input, result;
    QuantSpec spec;
  };
  auto memory = std::make_shared<Memory>();
  return [scheme, memory](const Linear& linear, const at::Tensor& x) {
    auto [it, fresh] = memory->specs.try_emplace(linear.info.tensor);
    if (fresh) it->second = scheme.activations_of(module_of(linear.info));
    if (!it->second) return x;
    if (memory->input.defined() && memory->input.is_same(x) && memory->spec == *it->second)
      return memory->result;
    memory->input = x;
    memory->spec = *it->second;
    memory->result = fake_quantize(x, *it->second);
    return memory->result;
  };
}

}  // namespace qb
