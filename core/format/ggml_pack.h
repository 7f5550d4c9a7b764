#pragma once
#include <ATen/ATen.h>

#include "core/format/tensor_info.h"

namespace qb {

// What the bytes of a matrix in one of ggml's block formats say, each part as a tensor of its own. A type has a part or not:
// what it does not have is undefined. Columns are `in`, blocks are 32 or 256 of them in a row, sub-blocks 16 or 32 of a block.
//   x = d · code                    Q4_0 (code −8…7), Q5_0 (−16…15), Q8_0 (−128…127)
//   x = d · code + m                Q4_1 (0…15), Q5_1 (0…31)
//   x = d · value(code)             IQ4_NL (kIq4Levels), MXFP4 (E2M1: 0, ½, 1, 1½, 2, 3, 4, 6, then negative); code 0…15
//   x = d · scale · code            Q3_K (−4…3; scale −32…31, 16 sub-blocks), Q6_K (−32…31; scale −128…127, 16 sub-blocks)
//   x = d · scale · code − m · min  Q2_K (0…3; scale, min 0…15, 16 sub-blocks), Q4_K (0…15), Q5_K (0…31) (0…63, 8 sub-blocks)
struct GgmlParts {
  at::Tensor codes;         // int8 [rows, columns]
  at::Tensor d, m;          // float32 [rows, blocks], values of a half float each; MXFP4's d a power of two, 2^−127…2^127, or infinity
  at::Tensor scales, mins;  // int8 [rows, sub-blocks of the row]
};

// Which parts a type has, and the range of each. Zeros: it does not have it.
struct GgmlLayout {
  int64_t block = 0, sub_block = 0;  // values; sub_block 0: no sub-blocks
  int lowest = 0, highest = 0;       // codes
  int lowest_scale = 0, highest_scale = 0, highest_min = 0;
  bool m = false;
};
// Throws InternalError for a type that is no block format.
GgmlLayout ggml_layout(DType dtype);

// Parts → bytes, uint8 [rows, bytes of a row]. Throws InternalError naming the type for a part that is missing, of another
// shape or type, out of its range, or a d or m that is no half float (MXFP4: no power of two).
at::Tensor pack_ggml(DType dtype, const GgmlParts& parts);

// The inverse. bytes: uint8 [rows, bytes of a row], contiguous.
GgmlParts unpack_ggml(DType dtype, const at::Tensor& bytes);

// Values [rows, columns] as F32, F16 or BF16 (rounded to the nearest, ties to even) → uint8 [rows, bytes of a row].
at::Tensor pack_ggml_floats(DType dtype, const at::Tensor& values);

}  // namespace qb
