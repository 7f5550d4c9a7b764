#include "core/text/model_files.h"

#include "core/base/files.h"
#include "core/text/json_field.h"

namespace qb {

nlohmann::json read_json(const std::filesystem::path& path) { return JsonField::parse(read_text(path, uint64_t{64} << 20), path.string()); }

}  // namespace qb
