#pragma once
#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace qb {

// An importance matrix as llama.cpp keeps it since 2025, in a GGUF file: for each weight the sums of its input channels' squares
// over all tokens it was multiplied with.
struct ImportanceMatrix {
  struct Entry {
    at::Tensor sums;    // float32 [matrices, in]: one matrix, or one an expert
    at::Tensor counts;  // float32 [matrices]: tokens that went into them; 0 for an expert that none reached
  };
  std::map<std::string, Entry> entries;  // by the weight's GGUF name, "blk.0.attn_q.weight"
  std::vector<std::string> datasets;     // the texts' names
  int64_t chunk_count = 0, chunk_size = 0;  // windows, and tokens of one
};

// What llama.cpp trips over: counts must be there for every in_sum2, [matrices, 1] of F32; a quantizer that finds a weight without an
// entry goes on without a word, so names must be the model's; chunk_count and chunk_size are u32; general.type must be "imatrix".
// Throws InternalError for entries of other shapes, ResourceError naming the path where the disk refuses.
void write_imatrix(const std::filesystem::path& path, const ImportanceMatrix& matrix);

// Also reads the form that llama.cpp wrote before, whose values are mean squares times windows and whose experts lie in one row.
// Throws InputError naming the file and the tensor or key: no importance matrix, a sum without a count or the other way round, shapes
// that do not fit, values that are negative or no numbers.
ImportanceMatrix read_imatrix(const std::filesystem::path& path);

}  // namespace qb
