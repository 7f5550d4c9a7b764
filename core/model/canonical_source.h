#pragma once
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/format/tensor_source.h"
#include "core/model/architecture.h"

namespace qb {

struct GgufForm;

// How one canonical (Hugging Face) tensor is made of what a file stores.
struct CanonicalTensor {
  // One stored tensor, as it is or transposed.
  bool plain() const { return stored.size() == 1 && slice < 0 && !part && order.empty() && columns.empty() && add == 0 && !minus_exponential && scale.empty() && !joined; }
  TensorInfo info;                  // canonical name and shape; dtype, place and bytes of the stored parts
  std::vector<std::string> stored;  // concatenated along rows
  int64_t slice = -1;               // this expert of a stored [experts, rows, columns]
  int64_t first_row = 0;            // of the slice, for [gate; up] fused in one tensor; the canonical shape says how many
  int64_t row_step = 1;             // between them
  bool part = false;                // first_row on, of a stored matrix that holds more
  bool transposed = false;          // stored [columns, rows], the slice too
  std::vector<int64_t> order;       // canonical row r is stored row order[r]; empty: as stored
  std::vector<int64_t> columns;     // the same of columns
  float add = 0;                    // GGUF stores Gemma's norms as 1 + weight
  bool minus_exponential = false;   // stored −exp(value)
  std::string scale;                // of F8 weights: a tensor that multiplies them, per tensor, row or block
  bool mxfp4 = false;               // a slice of 4-bit codes [experts, rows, columns / 32, 16]; `scale` holds the powers of two
  bool joined = false;              // stored [heads, columns, n] and [heads, m, columns]: of each head n rows, then m
  std::vector<int64_t> scale_block; // rows and columns that share one value of `scale`
};

// A source whose names, shapes and row order are Hugging Face's, over any stored one.
// Plain tensors are zero-copy views; whatever needs arithmetic is read as float32.
class CanonicalSource final : public TensorSource {
 public:
  // Throws InputError naming a stored tensor inside a block, or beside one that is read, that nothing reads and that is not
  // among `unread`, which files may hold.
  CanonicalSource(TensorSourcePtr base, std::vector<CanonicalTensor> tensors, const std::vector<std::string>& unread = {});
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const std::vector<std::filesystem::path>& files() const override { return base_->files(); }
  const TensorInfo* find(const std::string& name) const override;
  at::Tensor read(const std::string& name) const override;

  const TensorSourcePtr& stored() const { return base_; }                // names and shapes as in the files
  const CanonicalTensor* entry(const std::string& name) const;           // nullptr when absent
  const std::vector<CanonicalTensor>& entries() const { return tensors_; }
  // What a canonical tensor is called in these files, or would be called if they had it as it is.
  std::string stored_name(const std::string& name) const;

 private:
  at::Tensor read_slice(const CanonicalTensor& entry) const;
  at::Tensor read_mxfp4(const CanonicalTensor& entry) const;
  void require_all_read(const std::vector<std::string>& unread) const;
  TensorSourcePtr base_;
  std::vector<CanonicalTensor> tensors_;
  std::vector<TensorInfo> infos_;
  std::unordered_map<std::string, size_t> index_;
};

// A head that is stored although the configuration ties it to the embedding: where it differs, it is the model's, as in transformers 5.
// Then the architecture has a head of its own, and what to tell the user is returned.
std::string settle_head(const TensorSource& base, Architecture& architecture);

// Finds every required tensor in a Hugging Face checkpoint, whatever prefix it was saved under, experts one by one or
// fused. block_size: quantization_config.weight_block_size of F8 checkpoints, else empty.
// Throws InputError on a missing tensor, a wrong shape or a dtype that holds no weights.
std::shared_ptr<const CanonicalSource> canonical_safetensors(TensorSourcePtr base, const Architecture& architecture, const std::string& origin,
                                      const std::vector<int64_t>& block_size);

// The same for GGUF's names and row orders.
std::shared_ptr<const CanonicalSource> canonical_gguf(TensorSourcePtr base, const Architecture& architecture, const GgufForm& form, const std::string& origin);

// What canonical_gguf reads by: how each canonical tensor is made of those of a GGUF file.
std::vector<CanonicalTensor> gguf_entries(const TensorSource& base, const Architecture& architecture, const GgufForm& form, const std::string& origin);

// The tensors of a GGUF file of this model as llama.cpp wants them, name and shape: what gguf_entries reads.
std::vector<TensorInfo> gguf_tensors(const Architecture& architecture, const GgufForm& form);

// Shared by both: completes entry.info from the stored tensors and checks them against `spec`.
// stored_shape: what one stored part must look like.
void check_stored(const TensorSource& base, const std::string& origin, const TensorSpec& spec, CanonicalTensor& entry,
                  const std::vector<std::vector<int64_t>>& stored_shapes);

std::string shape_text(const std::vector<int64_t>& shape);  // "[576, 1536]"

}  // namespace qb
