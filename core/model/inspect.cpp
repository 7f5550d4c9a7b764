#include <fmt/format.h>

#include "core/base/error.h"
#include "core/model/model.h"
#include "core/text/tokenizer.h"

namespace qb {

ModelInfo inspect_model(const std::filesystem::path& path) {
  ModelInfo info = Model::open(path)->info;
  try {
    const auto tokenizer = Tokenizer::load(path);
    info.tokenizer = tokenizer->description();
    for (const std::string& note : tokenizer->notes()) info.tokenizer += fmt::format(" ({})", note);
  } catch (const Error& error) {
    info.tokenizer = fmt::format("none: {}", error.what());
  }
  return info;
}

}  // namespace qb
