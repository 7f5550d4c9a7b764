#pragma once
#include <unordered_map>

#include "core/format/tensor_source.h"

namespace qb {

// A source with a list of its tensors; where they come from is up to read() and files().
class ListedTensors : public TensorSource {
 public:
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const TensorInfo* find(const std::string& name) const override {
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : &tensors_[it->second];
  }

 protected:
  // In the place of the one of that name, if there is one.
  void add(TensorInfo info) {
    const auto [at, fresh] = index_.try_emplace(info.name, tensors_.size());
    if (fresh) tensors_.emplace_back();
    tensors_[at->second] = std::move(info);
  }

 private:
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace qb
