// Value and gradients of a learned rounding: learned_rounding IN OUT bits symmetric group
// IN: weight [out, in], low_share and high_share [units, 1], shift [units, group], direction [out, in]. OUT: value, and the
// gradients of Σ value·direction towards low_share, high_share, shift and weight.
#include <iostream>

#include "core/base/error.h"
#include "core/format/safetensors.h"
#include "core/method/reconstruction/block_learning.h"

int main(int argc, char** argv) {
  if (argc < 6) return 2;
  try {
    const auto source = qb::open_safetensors(argv[1]);
    qb::LinearWork linear;
    linear.weight = source->read("weight").clone();
    linear.spec = qb::QuantSpec{};
    linear.spec->type.bits = std::stoi(argv[3]);
    linear.spec->symmetric = std::stoi(argv[4]) != 0;
    linear.spec->group_size = std::stoll(argv[5]);
    linear.spec->scale_type = qb::ScaleType::f32;
    qb::LearnedRounding r = qb::learned_rounding(linear);
    r.low_share = source->read("low_share").clone().requires_grad_(true);
    r.high_share = source->read("high_share").clone().requires_grad_(true);
    r.shift = source->read("shift").clone().requires_grad_(true);
    r.weight = linear.weight.requires_grad_(true);
    const at::Tensor value = r.value();
    (value * source->read("direction")).sum().backward();
    qb::write_safetensors(argv[2], {{"value", value.detach()},
                                    {"rounded", r.quantized().dequantize()},
                                    {"low_share", r.low_share.grad().defined() ? r.low_share.grad() : at::zeros_like(r.low_share)},
                                    {"high_share", r.high_share.grad()},
                                    {"shift", r.shift.grad()},
                                    {"weight", r.weight.grad()}});
  } catch (const qb::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
