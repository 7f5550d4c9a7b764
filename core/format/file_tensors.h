#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "core/base/files.h"
#include "core/format/listed_tensors.h"

namespace qb {

// The tensors of one or several mapped files.
class FileTensors : public ListedTensors {
 public:
  const std::vector<std::filesystem::path>& files() const override { return files_; }

 protected:
  // Throws InputError naming a tensor that another of the files holds too.
  void add_file(std::shared_ptr<const MappedFile> map, std::vector<TensorInfo> tensors);
  // Throws InputError where there is no such tensor.
  const TensorInfo& require(const std::string& name) const;
  const std::shared_ptr<const MappedFile>& map_of(const TensorInfo& info) const { return maps_[static_cast<size_t>(info.file)]; }

 private:
  std::vector<std::filesystem::path> files_;
  std::vector<std::shared_ptr<const MappedFile>> maps_;
};

// Opens the files that a *.index.json names, then checks that each tensor is where it says.
void open_shards(const TensorSource& source, const std::filesystem::path& index, const std::function<void(const std::filesystem::path&)>& open_file);

}  // namespace qb
