#pragma once
#include "core/format/listed_tensors.h"

namespace qb {

// The tensors of a model that was changed as a whole; how they come from those of its files is up to read().
class ChangedSource : public ListedTensors {
 public:
  const std::vector<std::filesystem::path>& files() const override { return base_->files(); }

 protected:
  explicit ChangedSource(TensorSourcePtr base) : base_(std::move(base)) {}
  TensorSourcePtr base_;
};

}  // namespace qb
