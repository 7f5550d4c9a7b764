#pragma once
#include <unordered_map>

#include "core/format/tensor_source.h"

namespace qb {

// The tensors of a model that was changed as a whole; how they come from those of its files is up to read().
class ChangedSource : public TensorSource {
 public:
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const std::vector<std::filesystem::path>& files() const override { return base_->files(); }
  const TensorInfo* find(const std::string& name) const override {
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : &tensors_[it->second];
  }

 protected:
  explicit ChangedSource(TensorSourcePtr base) : base_(std::move(base)) {}
  void add(TensorInfo info) {
    index_.emplace(info.name, tensors_.size());
    tensors_.push_back(std::move(info));
  }
  TensorSourcePtr base_;

 private:
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace qb
