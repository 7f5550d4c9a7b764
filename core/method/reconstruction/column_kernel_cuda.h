#pragma once
#include "core/method/reconstruction/column_kernel.h"

namespace qb {

// Columns of a slab that fit a device's shared memory.
constexpr int64_t kCudaColumns = 256;

// round_columns() on the calling thread's CUDA device, all arrays in its memory; at most kCudaColumns columns. Does not wait for
// the result and does not sum the errors. false where the device cannot: nothing is changed then.
bool round_columns_on_cuda(const ColumnSlab& slab);

}  // namespace qb
