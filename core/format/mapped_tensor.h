#pragma once
#include <ATen/ATen.h>

#include <memory>
#include <span>

#include "core/base/files.h"
#include "core/format/tensor_info.h"

namespace qb {

// A tensor that looks straight into the mapped file and keeps the map alive; copied first where the file stores it
// unaligned. Plain dtypes only.
at::Tensor view_mapped(std::shared_ptr<const MappedFile> file, const TensorInfo& info);

}  // namespace qb
