#include "core/format/listed_tensors.h"
#include "core/model/model.h"

namespace qb {
namespace {

class Overlay final : public ListedTensors {
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
      add(replaced ? shifted(*replaced) : info);
    }
    for (const TensorInfo& info : over_->tensors())
      if (!base_->contains(info.name)) add(shifted(info));
  }

  const std::vector<std::filesystem::path>& files() const override { return files_; }
  at::Tensor read(const std::string& name) const override { return over_->contains(name) ? over_->read(name) : base_->read(name); }

 private:
  TensorSourcePtr base_, over_;
  std::vector<std::filesystem::path> files_;
};

}  // namespace

TensorSourcePtr overlay(TensorSourcePtr base, TensorSourcePtr over) {
  if (!over) return base;
  return std::make_shared<Overlay>(std::move(base), std::move(over));
}

}  // namespace qb
