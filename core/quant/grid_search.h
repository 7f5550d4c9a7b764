#pragma once
#include <cstdint>

#include "core/quant/scheme.h"

namespace qb {

// Grids of a storage type for `rows` rows of `columns` weights, all arrays in main memory. What comes out can be stored as it is.
struct GridSearch {
  int64_t rows = 0, columns = 0;
  const float* weight = nullptr;      // [rows, columns], finite
  const float* importance = nullptr;  // [columns] ≥ 0, what a squared error counts; null: unknown
  double factor = 1;                  // NVFP4's float32 of the whole tensor
  float* scale = nullptr;             // out [rows, columns / group]
  float* minimum = nullptr;           // out, the same, of types that have one
  float* super = nullptr;             // out [rows, columns / super-block] float16: scale = super · integer
  float* super_minimum = nullptr;     // out, the same: minimum = −super_minimum · integer
};

// Least Σ importance · (w − ŵ)²: in each unit over many starts, codes given the scale and the scale given the codes in turn; in a
// super-block over its two float16, too, and the integers beside those that are nearest.
void search_grids(const GridSearch& search, Storage storage);

// The nearest that can be stored, in place: scales (not zero) and minima [rows, units] as wanted. Same arrays as above but weight.
void nearest_grids(const GridSearch& wanted, Storage storage);

}  // namespace qb
