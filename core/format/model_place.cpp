#include "core/format/model_place.h"

#include <cstring>

#include "core/base/files.h"

namespace qb {

bool is_gguf(const std::filesystem::path& file) {
  const auto map = MappedFile::open(file);
  return map->size() >= 4 && std::memcmp(map->bytes().data(), "GGUF", 4) == 0;
}

std::filesystem::path folder_of_part(const std::filesystem::path& file) {
  const std::string name = file.filename().string();
  if (name != "config.json" && !name.ends_with(".safetensors") && !name.ends_with(".bin") && !name.ends_with(".index.json")) return {};
  if (name.ends_with(".bin") && is_gguf(file)) return {};
  return file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
}

}  // namespace qb
