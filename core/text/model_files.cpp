#include "core/text/model_files.h"

#include <fstream>
#include <string_view>

#include "core/base/files.h"
#include "core/text/json_field.h"

namespace qb {

bool is_gguf(const std::filesystem::path& path) {
  if (path.extension() == ".gguf") return true;
  char magic[4] = {};
  return std::filesystem::is_regular_file(path) && std::ifstream(path, std::ios::binary).read(magic, 4) && std::string_view(magic, 4) == "GGUF";
}

nlohmann::json read_json(const std::filesystem::path& path) { return JsonField::parse(read_text(path, uint64_t{64} << 20), path.string()); }

}  // namespace qb
