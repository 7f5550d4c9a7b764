#include "core/format/tensor_info.h"

#include <array>

#include "core/base/error.h"

namespace qb {
namespace {

struct Row {
  DType dtype;
  std::string_view name;
  int64_t elements;
  int64_t bytes;
};

// Block sizes: ggml-common.h (every block format also checked against gguf-py in the conformance tests).
constexpr std::array<Row, 34> kRows = {{
    {DType::f64, "F64", 1, 8},        {DType::f32, "F32", 1, 4},         {DType::f16, "F16", 1, 2},
    {DType::bf16, "BF16", 1, 2},      {DType::f8_e4m3, "F8_E4M3", 1, 1}, {DType::f8_e5m2, "F8_E5M2", 1, 1},
    {DType::i64, "I64", 1, 8},        {DType::i32, "I32", 1, 4},         {DType::i16, "I16", 1, 2},
    {DType::i8, "I8", 1, 1},          {DType::u8, "U8", 1, 1},           {DType::boolean, "BOOL", 1, 1},
    {DType::u64, "U64", 1, 8},        {DType::u32, "U32", 1, 4},         {DType::u16, "U16", 1, 2},
    {DType::c64, "C64", 1, 8},        {DType::f8_e8m0, "F8_E8M0", 1, 1}, {DType::f8_e4m3fnuz, "F8_E4M3FNUZ", 1, 1},
    {DType::f8_e5m2fnuz, "F8_E5M2FNUZ", 1, 1},
    {DType::q4_0, "Q4_0", 32, 18},    {DType::q4_1, "Q4_1", 32, 20},     {DType::q5_0, "Q5_0", 32, 22},
    {DType::q5_1, "Q5_1", 32, 24},    {DType::q8_0, "Q8_0", 32, 34},     {DType::q2_k, "Q2_K", 256, 84},
    {DType::q3_k, "Q3_K", 256, 110},  {DType::q4_k, "Q4_K", 256, 144},   {DType::q5_k, "Q5_K", 256, 176},
    {DType::q6_k, "Q6_K", 256, 210},  {DType::mxfp4, "MXFP4", 32, 17},
    {DType::iq4_nl, "IQ4_NL", 32, 18}, {DType::iq4_xs, "IQ4_XS", 256, 136},  {DType::tq1_0, "TQ1_0", 256, 54},
    {DType::tq2_0, "TQ2_0", 256, 66},
}};

constexpr const Row& row(DType dtype) { return kRows[static_cast<size_t>(dtype)]; }

constexpr bool in_enum_order() {
  for (size_t i = 0; i < kRows.size(); ++i)
    if (static_cast<size_t>(kRows[i].dtype) != i) return false;
  return true;
}
static_assert(in_enum_order(), "kRows is indexed by DType");

}  // namespace

std::string_view name_of(DType dtype) { return row(dtype).name; }
bool is_block_quantized(DType dtype) { return row(dtype).elements > 1; }
int64_t block_elements(DType dtype) { return row(dtype).elements; }
int64_t block_bytes(DType dtype) { return row(dtype).bytes; }
double bits_per_element(DType dtype) { return 8.0 * static_cast<double>(row(dtype).bytes) / static_cast<double>(row(dtype).elements); }

std::optional<int64_t> element_count(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  bool empty = false;
  for (int64_t d : shape) {
    if (d < 0 || (d > 0 && __builtin_mul_overflow(n, d, &n))) return std::nullopt;
    empty = empty || d == 0;
  }
  return empty ? 0 : n;
}

}  // namespace qb
