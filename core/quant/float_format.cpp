#include <cmath>

#include "core/quant/quantizer.h"

namespace qb {

double float_max(const NumberType& type) {
  const int e = type.exponent_bits, m = type.mantissa_bits;
  const int bias = (1 << (e - 1)) - 1;
  // OCP's e4m3 gives its top mantissa to NaN, e5m2 its top exponent to infinities; the others represent everything.
  if (e == 4 && m == 3) return 448;
  if (e == 5 && m == 2) return 57344;
  return std::ldexp(2.0 - std::ldexp(1.0, -m), (1 << e) - 1 - bias);
}

at::Tensor round_to_float(const at::Tensor& x, const NumberType& type) {
  const int bias = (1 << (type.exponent_bits - 1)) - 1;
  const double limit = float_max(type);
  const at::Tensor value = x.to(at::kFloat);
  // frexp gives |x| = f·2^e with f in [½, 1); below the smallest normal exponent the step stays that of the subnormals.
  at::Tensor exponent = std::get<1>(at::frexp(value)).sub(1).clamp_min(1 - bias).sub_(type.mantissa_bits);
  const at::Tensor step = at::ldexp(at::ones({}, value.options()), exponent);
  return value.div(step).round_().mul_(step).clamp_(-limit, limit);
}

}  // namespace qb
