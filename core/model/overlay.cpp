#include <unordered_map>

#include "core/model/model.h"

namespace qb {
namespace {

class Overlay final : public TensorSource {
 public:
  Overlay(TensorSourcePtr base, TensorSourcePtr over) : base_(std::move(base)), over_(std::move(over)) {
    files_ = base_->files();
    const int shift = static_cast<int>(files_.size());
    files_.insert(files_.end(), over_->files().begin(), over_->files().end());
    auto shifted = [&](TensorInfo info) {
      info.file += shift;
      return info;
    };
    for (const TensorInfo& info : base_->tensors()) {
      const TensorInfo* replaced = over_->find(info.name);
      tensors_.push_back(replaced ? shifted(*replaced) : info);
    }
    for (const TensorInfo& info : over_->tensors())
      if (!base_->contains(info.name)) tensors_.push_back(shifted(info));
    for (size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
  }

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const std::vector<std::filesystem::path>& files() const override { return files_; }
  const TensorInfo* find(const std::string& name) const override {
    auto it = index_.find(name);
    return it == index_.end() ? nullptr : &tensors_[it->second];
  }
  at::Tensor read(const std::string& name) const override { return over_->contains(name) ? over_->read(name) : base_->read(name); }

 private:
  TensorSourcePtr base_, over_;
  std::vector<std::filesystem::path> files_;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace

TensorSourcePtr overlay(TensorSourcePtr base, TensorSourcePtr over) {
  if (!over) return base;
  return std::make_shared<Overlay>(std::move(base), std::move(over));
}

}  // namespace qb
