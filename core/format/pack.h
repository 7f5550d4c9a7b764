#pragma once
#include <ATen/ATen.h>

namespace qb {

// Dense bit packing along rows, as compressed-tensors' pack-quantized and GPTQ's words have it: code i of a row occupies
// bits [i·bits, i·bits + bits) of the row's bit stream, little-endian inside each 32-bit word; a code may straddle two
// words, and unused bits are 0. Formats that pack along the other axis pack the transpose.

// Unsigned codes [rows, n] of any integer type, each below 2^bits → int32 [rows, ceil(n·bits/32)]. bits 1…8.
// Throws InternalError for another shape or type, or a code that does not fit.
at::Tensor pack_codes(const at::Tensor& codes, int bits);

// The inverse: int32 [rows, ceil(n·bits/32)] → uint8 [rows, n]. Throws InternalError where the words are not n codes.
at::Tensor unpack_codes(const at::Tensor& words, int bits, int64_t n);

}  // namespace qb
