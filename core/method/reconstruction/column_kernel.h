#pragma once
#include <cstdint>

namespace qb {

// A slab of a transposed weight: `columns` input features by `rows` output features, all arrays [column][row].
struct ColumnSlab {
  int64_t columns = 0, rows = 0;
  int64_t row_stride = 0;         // from a column to the next, of weight, error and codes
  float* weight = nullptr;        // in: the weight as updated so far; out: what each column was when it was rounded
  float* error = nullptr;         // out: (w − ŵ) / U[j][j]; with `value`, how much ŵ grew
  float* value = nullptr;         // null, or ŵ, improved from what it is: no division by U[j][j] then
  int8_t* codes = nullptr;        // out
  const float* factor = nullptr;  // U [columns][factor_stride], upper triangular
  int64_t factor_stride = 0;
  // The grid of column j: scale + unit[j] · unit_stride; zero may be null (symmetric).
  const float *scale = nullptr, *zero = nullptr;
  const int64_t* unit = nullptr;
  int64_t unit_stride = 0;
  float lowest = 0, highest = 0;  // codes
  const int* levels = nullptr;    // the sixteen codes that there are, ascending; null: all between the two
  const bool* kept = nullptr;     // false: zero is rounded in the weight's place; null: all are kept
};

// GPTQ's inner loop (Frantar et al. 2022, algorithm 1): rounds column after column and moves each one's error onto the
// columns still to come. Returns Σ error².
double round_columns(const ColumnSlab& slab);

}  // namespace qb
