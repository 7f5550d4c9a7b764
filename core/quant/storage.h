#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qb {

// Number types of file formats that fix a weight's whole grid: ggml's blocks (ggml-common.h) and microscaling floats
// (OCP MX 1.0; NVFP4 of compressed-tensors). none: the scheme says each part of the grid by itself.
enum class Storage { none, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, mxfp4, mxfp8, nvfp4 };

// What such a type is made of. A unit is a group of weights along the inputs with a scale of its own:
// value = code · scale, or (code + 2^(bits−1)) · scale + minimum.
struct StorageInfo {
  Storage storage;
  const char* name;          // as ggml spells it: "q4_K"
  const char* number;        // NumberType's text: the codes; of iq4_nl int8, which its sixteen levels are among
  int64_t group;             // weights a unit
  int64_t super = 0;         // weights a super-block, whose units' scales are integers times one float16; 0: there is none
  bool minimum = false;      // units have one too: float16, or in super-blocks an integer times a second float16, taken off
  int scale_low = 0, scale_high = 0, minimum_high = 0;  // those integers
  double bits = 0;           // a weight, all included but NVFP4's one float32 a tensor
  const char* fallback = ""; // what llama.cpp takes for a row that super-blocks do not divide
};

const std::vector<StorageInfo>& storage_types();
// Throws InternalError for none.
const StorageInfo& info_of(Storage storage);
// In any case: "Q4_K", "q4_k". nullopt: no storage type.
std::optional<Storage> parse_storage(const std::string& text);

}  // namespace qb
