#include <algorithm>
#include <cmath>

#include "core/quant/quantizer.h"

namespace qb {

double float_max(const NumberType& type) {
  const int e = type.exponent_bits, m = type.mantissa_bits;
  const int bias = (1 << (e - 1)) - 1;
  if (e == 4 && m == 3) return 448;  // its top mantissa is NaN
  const int top = (1 << e) - (e >= 5 ? 2 : 1);
  return std::ldexp(2.0 - std::ldexp(1.0, -m), top - bias);
}

at::Tensor round_to_float(const at::Tensor& x, const NumberType& type) {
  const int bias = (1 << (type.exponent_bits - 1)) - 1;
  const double limit = float_max(type);
  const at::Tensor value = x.to(at::kFloat).contiguous();
  // The step between neighbours is 2^(exponent − mantissa_bits), below the smallest normal number that of the subnormals.
  // It is made from float32's own exponent field: shifted left again, an exponent is a power of two, exactly. The floor
  // at float32's smallest normal number only concerns e8mY.
  const int smallest = std::max(1 - bias - type.mantissa_bits + 127, 1);
  const at::Tensor exponent = value.view(at::kInt).bitwise_right_shift(23).bitwise_and_(0xff).sub_(type.mantissa_bits);
  const at::Tensor step = exponent.clamp_min_(smallest).bitwise_left_shift_(23).view(at::kFloat);
  return value.div(step).round_().mul_(step).clamp_(-limit, limit);
}

}  // namespace qb
