#include "core/format/file_tensors.h"

#include <fmt/format.h>

#include <set>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "core/format/safetensors_index.h"

namespace qb {

void FileTensors::add_file(std::shared_ptr<const MappedFile> map, std::vector<TensorInfo> tensors) {
  for (TensorInfo& info : tensors) {
    info.file = static_cast<int>(files_.size());
    if (const TensorInfo* other = find(info.name))
      throw InputError(fmt::format("{}: tensor {} stands in {} too", map->path().string(), qb::quoted(info.name), files_[static_cast<size_t>(other->file)].string()));
    add(std::move(info));
  }
  files_.push_back(map->path());
  maps_.push_back(std::move(map));
}

const TensorInfo& FileTensors::require(const std::string& name) const {
  if (const TensorInfo* info = find(name)) return *info;
  const auto place = files_.size() == 1 ? files_.front() : files_.front().parent_path();
  throw InputError(fmt::format("{}: no tensor {}", place.string(), qb::quoted(name)));
}

void open_shards(const TensorSource& source, const std::filesystem::path& index, const std::function<void(const std::filesystem::path&)>& open_file) {
  const std::string index_file = index.string();
  const auto weight_map = parse_safetensors_index(read_text(index, 100'000'000), index_file);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : weight_map) shards.insert(shard);
  for (const auto& shard : shards) open_file(index.parent_path() / shard);
  for (const auto& [tensor, shard] : weight_map) {
    const TensorInfo* info = source.find(tensor);
    if (!info) throw InputError(fmt::format("{}: tensor {} is not in {}", index_file, qb::quoted(tensor), shard));
    const auto found = source.files()[static_cast<size_t>(info->file)].filename().string();
    if (found != shard) throw InputError(fmt::format("{}: tensor {} is in {}, expected in {}", index_file, qb::quoted(tensor), found, shard));
  }
}

}  // namespace qb
