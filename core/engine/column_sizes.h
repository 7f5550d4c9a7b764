#pragma once
#include <ATen/ATen.h>

namespace qb {

// What the columns of x [tokens, in] hold, each [in], float32: the largest |x|, the sums of |x| and of x².
struct ColumnSizes {
  at::Tensor abs_max, abs_sum, square_sum;
};

// One pass over x (float32, bfloat16 or float16); sums do not depend on the number of threads.
ColumnSizes column_sizes(const at::Tensor& x);

}  // namespace qb
