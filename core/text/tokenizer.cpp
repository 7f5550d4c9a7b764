#include "core/text/tokenizer.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/format/gguf.h"
#include "core/format/model_place.h"
#include "core/text/folder_tokenizer.h"
#include "core/text/gguf_tokenizer.h"
#include "core/text/json_tokenizer.h"
#include "core/text/model_files.h"
#include "core/text/sentencepiece_tokenizer.h"

namespace qb {
namespace fs = std::filesystem;

std::shared_ptr<const Tokenizer> Tokenizer::from_json_text(std::string_view json, const std::string& origin) {
  return std::make_shared<PipelineTokenizer>(read_tokenizer_json(json, origin));
}

std::shared_ptr<const Tokenizer> Tokenizer::from_gguf(const GgufFile& file) {
  return std::make_shared<PipelineTokenizer>(read_gguf_tokenizer(file));
}

namespace {

// All files of a folder as one tokenizer.
std::shared_ptr<const Tokenizer> load_folder(const fs::path& folder) {
  const auto files = FolderTokenizer::read(folder);
  if (!files) {
    if (const fs::path model = sentencepiece_file(folder); !model.empty()) return load_sentencepiece(model);
    throw InputError(fmt::format("{}: no tokenizer.json, no vocab.json with merges.txt, and no tokenizer.model or spiece.model in this folder", folder.string()));
  }
  auto parts = read_tokenizer_document(files->document, files->origin);
  auto id_of = [&](const std::optional<std::string>& name) -> std::optional<int32_t> {
    if (!name) return std::nullopt;
    if (const auto* added = parts.added.by_content(*name)) return added->id;
    return parts.model->vocabulary().find(*name);
  };
  if (files->bos) parts.bos = id_of(files->bos);
  if (files->eos) parts.eos = id_of(files->eos);
  read_special_names(folder, parts);
  return std::make_shared<PipelineTokenizer>(std::move(parts));
}

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::load(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return load_folder(path);
  if (const fs::path folder = folder_of_part(path); !folder.empty()) return load_folder(folder);
  if (path.extension() == ".gguf" || is_gguf(path)) return from_gguf(*GgufFile::open(path));
  if (path.extension() == ".model") return load_sentencepiece(path);
  if (path.extension() != ".json" || path.filename() == "config.json") return load_folder(path.parent_path());  // another file of a model's folder
  const std::string text = read_text(path, uint64_t{1} << 30);
  auto parts = read_tokenizer_json(text, path.string());
  read_special_names(path.parent_path(), parts);
  return std::make_shared<PipelineTokenizer>(std::move(parts));
}

}  // namespace qb
