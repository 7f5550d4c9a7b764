#include <fmt/format.h>

#include "core/base/error.h"
#include "core/model/model.h"
#include "core/text/tokenizer.h"

namespace qb {

ModelInfo inspect_model(const std::filesystem::path& path) {
  ModelInfo info = Model::open(path)->info;
  try {
    info.tokenizer = Tokenizer::load(path)->description();
  } catch (const Error& error) {
    info.tokenizer = fmt::format("none: {}", error.what());
  }
  return info;
}

}  // namespace qb
