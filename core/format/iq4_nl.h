#pragma once

// IQ4_NL's numbers: what its codes 0 … 15 stand for, ascending (ggml-common.h's kvalues_iq4nl).
namespace qb {

inline constexpr int kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

}  // namespace qb
