#include "core/model/model_files.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/format/model_place.h"
#include "core/model/model_info.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

// exists(), but an error where a folder on the way may not be looked into.
bool is_there(const fs::path& path) {
  std::error_code error;
  const bool found = fs::exists(path, error);
  if (error && error != std::errc::no_such_file_or_directory && error != std::errc::not_a_directory) throw InputError(fmt::format("{}: cannot be looked at: {}", path.string(), error.message()));
  return found;
}

// The index that lists this file, or the file itself.
fs::path weights_of_part(const fs::path& file, const fs::path& folder) {
  const std::string name = file.filename().string();
  if (name == "config.json") return folder;
  if (name.ends_with(".index.json")) return file;
  const fs::path index = folder / (name.ends_with(".bin") ? "pytorch_model.bin.index.json" : "model.safetensors.index.json");
  if (is_there(index) && read_text(index, uint64_t{1} << 28).find('"' + name + '"') != std::string::npos) return index;
  return file;
}

// "…/models--org--name/snapshots/0a1b…" → "org/name", as the Hub's cache keeps it.
std::string hub_name(const fs::path& folder) {
  const fs::path snapshots = folder.parent_path();
  const std::string name = snapshots.parent_path().filename().string();
  constexpr std::string_view start = "models--";
  if (snapshots.filename() != "snapshots" || !name.starts_with(start) || name.size() == start.size()) return {};
  std::string result;
  for (size_t i = start.size(); i < name.size(); ++i) {
    const bool slash = name.compare(i, 2, "--") == 0;
    result += slash ? '/' : name[i];
    i += slash;
  }
  return result;
}

fs::path without_slash(fs::path path) { return path.has_filename() ? path : path.parent_path(); }

}  // namespace

std::vector<std::string> notes_of(const ModelInfo& info) {
  std::vector<std::string> notes;
  for (const auto& [name, value] : info.facts)
    if (name == kNote) notes.push_back(value);
  return notes;
}

ModelFiles locate_model(const fs::path& path) {
  ModelFiles files;
  std::error_code ignored;
  if (!is_there(path)) throw InputError(fmt::format("{}: no such file or folder", path.string()));
  files.folder = path;
  files.weights = path;
  if (!fs::is_directory(path, ignored)) {
    files.folder = folder_of_part(path);
    if (files.folder.empty()) {
      if (!is_gguf(path)) throw InputError(fmt::format("{}: not a GGUF file; expected a .gguf file or a Hugging Face folder with config.json", path.string()));
      files.gguf = true;
      return files;
    }
    files.weights = weights_of_part(path, files.folder);
  }
  files.config = files.folder / "config.json";
  if (!is_there(files.config)) throw InputError(fmt::format("{}: no config.json in it; expected a Hugging Face folder or a .gguf file", files.folder.string()));
  return files;
}

std::string name_of_model(const fs::path& path, const ModelFiles& files) {
  std::error_code ignored;
  if (files.gguf) {
    // The link's own name: what it points to may be called by its hash.
    const std::string name = path.filename().string();
    if (path.extension() != ".gguf") return name;
    std::string stem = path.stem().string();
    // "…-00002-of-00003"
    if (const size_t at = stem.size() < 15 ? std::string::npos : stem.size() - 15;
        at != std::string::npos && at > 0 && stem[at] == '-' && stem.compare(at + 6, 4, "-of-") == 0 && stem.find_first_not_of("0123456789", at + 1) == at + 6 &&
        stem.find_first_not_of("0123456789", at + 10) == std::string::npos)
      stem.resize(at);
    return stem;
  }
  const fs::path given = without_slash(fs::absolute(files.folder, ignored).lexically_normal()), whole = without_slash(fs::weakly_canonical(files.folder, ignored));
  for (const fs::path& folder : {given, whole})
    if (std::string name = hub_name(folder); !name.empty()) return name;
  return whole.filename().string();
}

}  // namespace qb
