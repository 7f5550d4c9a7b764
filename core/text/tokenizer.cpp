#include "core/text/tokenizer.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/format/gguf.h"
#include "core/format/model_place.h"
#include "core/text/gguf_tokenizer.h"
#include "core/text/json_tokenizer.h"
#include "core/text/sentencepiece_tokenizer.h"

namespace qb {
namespace fs = std::filesystem;

std::shared_ptr<const Tokenizer> Tokenizer::from_json_text(std::string_view json, const std::string& origin) {
  return std::make_shared<PipelineTokenizer>(read_tokenizer_json(json, origin));
}

std::shared_ptr<const Tokenizer> Tokenizer::from_gguf(const GgufFile& file) {
  return std::make_shared<PipelineTokenizer>(read_gguf_tokenizer(file));
}

std::shared_ptr<const Tokenizer> Tokenizer::load(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    for (const char* name : {"tokenizer.json", "tokenizer.model"})
      if (fs::exists(path / name, ignored)) return load(path / name);
    throw InputError(fmt::format("{}: no tokenizer.json and no tokenizer.model in this folder", path.string()));
  }
  if (const fs::path folder = folder_of_part(path); !folder.empty()) return load(folder);
  if (path.extension() == ".gguf" || is_gguf(path)) return from_gguf(*GgufFile::open(path));
  if (path.extension() == ".model") return load_sentencepiece(path);
  const std::string text = read_text(path, uint64_t{1} << 30);
  auto parts = read_tokenizer_json(text, path.string());
  read_special_names(path.parent_path(), parts);
  return std::make_shared<PipelineTokenizer>(std::move(parts));
}

}  // namespace qb
