#include <memory>
#include <unordered_map>

#include "core/base/error.h"
#include "core/engine/engine.h"
#include "core/engine/module_name.h"

namespace qb {
namespace {

struct Rounding {
  QuantSpec spec;
  std::optional<InputGrid> grid;  // static
  bool operator==(const Rounding&) const = default;
};

LinearTap tap_of(std::function<std::optional<Rounding>(const std::string& module)> rounding_of) {
  // q, k and v share an input: it is fake-quantized once.
  struct Memory {
    std::unordered_map<std::string, std::optional<Rounding>> roundings;
    at::Tensor input, result;
    Rounding rounding;
  };
  auto memory = std::make_shared<Memory>();
  return [rounding_of = std::move(rounding_of), memory](const Linear& linear, const at::Tensor& x) {
    auto [it, fresh] = memory->roundings.try_emplace(linear.info.tensor);
    if (fresh) it->second = rounding_of(module_of(linear.info));
    if (!it->second) return x;
    const Rounding& rounding = *it->second;
    if (memory->input.defined() && memory->input.is_same(x) && memory->rounding == rounding) return memory->result;
    memory->input = x;
    memory->rounding = rounding;
    memory->result = rounding.grid ? fake_quantize(x, rounding.spec, *rounding.grid) : fake_quantize(x, rounding.spec);
    return memory->result;
  };
}

LinearTap tap_of(std::unordered_map<std::string, Rounding> roundings) {
  if (roundings.empty()) return {};
  return tap_of([roundings = std::move(roundings)](const std::string& module) {
    const auto it = roundings.find(module);
    return it == roundings.end() ? std::nullopt : std::optional(it->second);
  });
}

}  // namespace

LinearTap activation_tap(const Scheme& scheme) {
  if (!scheme.activations) return {};
  if (scheme.has_static_activations()) throw InternalError("static activation ranges are a quantized model's to say, not a scheme's");
  return tap_of([scheme](const std::string& module) -> std::optional<Rounding> {
    if (const auto spec = scheme.activations_of(module)) return Rounding{*spec, {}};
    return std::nullopt;
  });
}

LinearTap activation_tap(const QuantizedModel& model) {
  std::unordered_map<std::string, Rounding> roundings;
  for (const QuantizedLinear& linear : model.linears)
    if (linear.activations) roundings.emplace(linear.module, Rounding{*linear.activations, linear.input_grid});
  return tap_of(std::move(roundings));
}

LinearTap activation_tap(const BlockWork& work) {
  std::unordered_map<std::string, Rounding> roundings;
  for (const LinearWork& linear : work.linears)
    if (linear.activations && (linear.activations->dynamic || linear.input_grid)) roundings.emplace(linear.module, Rounding{*linear.activations, linear.input_grid});
  return tap_of(std::move(roundings));
}

}  // namespace qb
