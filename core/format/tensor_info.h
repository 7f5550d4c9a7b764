#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qb {

// Element types as stored on disk, safetensors' and ggml's together.
enum class DType {
  f64, f32, f16, bf16, f8_e4m3, f8_e5m2, i64, i32, i16, i8, u8, boolean,
  u64, u32, u16, c64, f8_e8m0, f8_e4m3fnuz, f8_e5m2fnuz,
  q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, mxfp4, iq4_nl,
  iq4_xs, tq1_0, tq2_0,
};

std::string_view name_of(DType dtype);       // "BF16", "Q4_1", as the formats spell it
bool is_block_quantized(DType dtype);        // ggml's block formats; MXFP4 in safetensors is two tensors of bytes
// Bytes of `elements` values along rows of a multiple of the block length; blocks of 32 or 256 for ggml types.
int64_t block_elements(DType dtype);         // 1 for plain types
int64_t block_bytes(DType dtype);            // bytes of one such block
double bits_per_element(DType dtype);

// One tensor of a model file. Shape is torch's order (slowest first) for every format.
struct TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  int file = 0;            // index into TensorSource::files()
  uint64_t offset = 0;     // of its first byte in that file
  uint64_t bytes = 0;
  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};

// Product of the dimensions; nullopt for a negative dimension or a product above 2^63. Dimensions of 0 are left out of
// that bound, since strides are products of the others.
std::optional<int64_t> element_count(const std::vector<int64_t>& shape);

}  // namespace qb
