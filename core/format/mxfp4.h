#pragma once
#include <cmath>
#include <cstdint>

// Microscaling's 4-bit floats (OCP MX 1.0): 32 E2M1 codes and the power of two that multiplies them.
namespace qb {

inline constexpr float kTwiceFp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
inline float half_power_of_two(uint8_t e8m0) { return std::ldexp(1.f, e8m0 - 128); }

}  // namespace qb
