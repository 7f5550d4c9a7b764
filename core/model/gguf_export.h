#pragma once
#include <ATen/ATen.h>

#include <optional>
#include <string>
#include <vector>

#include "core/format/gguf_write.h"
#include "core/model/model.h"

// What llama.cpp trips over, beside gguf_write.h's list:
// - It refuses a file with a tensor that its architecture does not ask for: no output matrix for Gemma 1 and 2 and Cohere, no rope_freqs
//   where nothing scales.
// - context_length is asked for by every architecture, also those with ALiBi; vocab_size counts only where there are no tokens.
// - tokenizer.ggml.tokens must have as many entries as token_embd has rows.
// - Norms, biases, routers, convolutions, decays and rotary divisors must be F32.
// - Mistral's sliding window has no key: such a file says a context_length within which the window changes nothing.
// - It has a window of no use in Phi-3, StarCoder2 and Mistral 3: likewise. It rounds YaRN's range outwards also in gpt-oss, whose
//   configuration says that it is not: its logits there are slightly others than transformers'. gguf_limits.h has what it cannot do.
// - Gemma 3n's layers that take keys and values of earlier ones must have matrices of their own too, which nothing reads, and its table
//   of what each layer gets of a token a row for every token.
// - A key/value matrix of latent attention is stored as two, the keys' transposed: [heads, kv_rank, nope].
namespace qb {

// Rows of a canonical tensor, as they lie in a GGUF tensor.
struct GgufPart {
  std::string source;            // canonical name
  std::vector<int64_t> rows;     // row r is the canonical tensor's rows[r]; empty: all, as they are
  std::vector<int64_t> columns;  // the same of columns
};

enum class GgufRole { embedding, head, linear, other };  // other: norms, biases, routers and the like, stored as F32

// One tensor of a GGUF file: its parts one after the other along rows; of a stack of experts one after the other.
struct GgufTensor {
  std::string name;
  std::vector<int64_t> shape;    // torch's order
  GgufRole role = GgufRole::other;
  std::vector<GgufPart> parts;
  float add = 0;                 // 1 where 1 + weight is stored
  bool minus_exponential = false;  // −exp(value) is stored
  bool unit_rows = false;        // each row is stored with length 1: Baichuan 2's output, which llama.cpp takes as it is
  int64_t transposed_heads = 0;  // > 0: of so many heads each part's rows are stored as columns: codes along rows do not carry over
  at::Tensor values;             // of a tensor that no canonical one is (rotary divisors, what llama.cpp asks for and does not read); else undefined
};

struct GgufPlan {
  std::string architecture;      // general.architecture
  GgufMetadata metadata;         // all but general.file_type, which the types of the tensors decide
  std::vector<GgufTensor> tensors;
};

enum class GgufReader { llama_cpp, any };  // any: what the format can say, whether llama.cpp has it or not

// How a model lies in a GGUF file: its metadata with the tokenizer, and its tensors.
// What is planned is read back as a file, and refused where that would compute anything else than the model does within the
// context_length that it says. Throws InputError naming the model, the family, the difference or llama.cpp's limit.
GgufPlan plan_gguf(const Model& model, GgufReader reader = GgufReader::llama_cpp);

// Values of one part as the file stores them, float32, its rows in the file's order.
at::Tensor gguf_values(const TensorSource& canonical, const GgufTensor& tensor, size_t part);

// A tensor that has a row for each of the source's (codes [out, in], scales [out, groups]), in the file's order.
at::Tensor gguf_rows(const at::Tensor& of_source, const GgufPart& part);

// Which block of so many columns of the source each of the file's is; empty: the same. nullopt: a permutation of the columns tears
// blocks apart, so that codes made along them do not carry over.
std::optional<std::vector<int64_t>> gguf_blocks(const GgufPart& part, int64_t block);

// The model in floats: matrices as F32, F16 or BF16, all else F32. Streams; memory is that of one part.
void write_gguf_floats(const Model& model, const std::filesystem::path& path, DType matrices, GgufReader reader = GgufReader::llama_cpp);

}  // namespace qb
