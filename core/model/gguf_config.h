#pragma once
#include <string>

#include "core/format/gguf.h"
#include "core/model/config_fields.h"

namespace qb {

// GGUF metadata as the config.json of the same model would say it; messages name the GGUF keys.
// Throws InputError: unknown general.architecture, mistyped keys.
ConfigFields config_from_gguf(const GgufFile& file, const std::string& origin);

}  // namespace qb
