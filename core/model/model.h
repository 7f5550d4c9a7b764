#pragma once
#include <functional>
#include <memory>

#include "core/format/tensor_source.h"
#include "core/model/architecture.h"
#include "core/model/model_info.h"

namespace qb {

class CanonicalSource;

// An opened model: its architecture table and its tensors under canonical (Hugging Face) names, whatever the format.
// GGUF tensors are renamed and, for rotary-NORM families, q/k rows are put back into Hugging Face's order on reading.
struct Model {
  std::filesystem::path path;
  Architecture architecture;
  TensorSourcePtr source;
  std::shared_ptr<const CanonicalSource> files;  // how the tensors lie on disk; `source` where nothing was changed
  ModelInfo info;

  // Throws InputError (unknown architecture, missing tensor, wrong shape, damaged file).
  static std::shared_ptr<const Model> open(const std::filesystem::path& path);
  // The same of a Hugging Face folder whose weights are codes: `decode` gives its tensors as numbers, under the files' names.
  using Decode = std::function<TensorSourcePtr(const TensorSourcePtr& stored)>;
  static std::shared_ptr<const Model> open(const std::filesystem::path& path, const Decode& decode);
};

// Tokens that one sequence may have at most; 0: any number. Dynamic ropes stretch beyond the context they were trained on.
int64_t longest_sequence(const Architecture& architecture);

// `over`'s tensors hide `base`'s of the same name: a quantized model is a float one under such an overlay.
TensorSourcePtr overlay(TensorSourcePtr base, TensorSourcePtr over);

}  // namespace qb
