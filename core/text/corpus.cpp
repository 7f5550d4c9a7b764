#include "core/text/corpus.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/text/json_field.h"
#include "core/text/tokenizer.h"

namespace qb {
namespace {
namespace fs = std::filesystem;

bool blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos; }

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view spaces = " \t\r\n\v\f";
  const size_t first = text.find_first_not_of(spaces);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(spaces) - first + 1);
}

// Calls on_line(line, number) for every line, numbers from 1.
template <class F>
void each_line(std::string_view text, F&& on_line) {
  int64_t number = 1;
  for (size_t from = 0; from < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', from), text.size());
    on_line(text.substr(from, end - from), number);
    from = end + 1;
  }
}

std::string with_plain_line_ends(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t from = 0; from < text.size();) {
    const size_t end = std::min(text.find('\r', from), text.size());
    out.append(text, from, end - from);
    if (end == text.size()) break;
    out += '\n';
    from = end + (text.substr(end, 2) == "\r\n" ? 2 : 1);
  }
  return out;
}

void add_jsonl(const fs::path& path, std::string_view text, const std::string& field, Corpus& corpus) {
  each_line(text, [&](std::string_view line, int64_t number) {
    if (blank(line)) return;
    const std::string where = fmt::format("{}:{}", path.string(), number);
    const nlohmann::json object = JsonField::parse(line, where);
    const JsonField value = JsonField(object, where).object().at(field);
    corpus.documents.push_back(value.text());
    corpus.whole_file.push_back(false);
  });
}

void add_file(const fs::path& path, const std::string& field, Corpus& corpus, Hasher& hasher) {
  const std::string extension = path.extension().string();
  if (extension == ".json" || extension == ".parquet" || extension == ".arrow" || extension == ".gz" || extension == ".zst")
    throw InputError(fmt::format("{}: expected a text file or .jsonl (one object a line), found {}", path.string(), extension));
  const auto file = MappedFile::open(path);
  const std::string_view text(reinterpret_cast<const char*>(file->bytes().data()), file->size());
  hasher.update(text);
  if (extension == ".jsonl") {
    hasher.update(field);
    add_jsonl(path, text, field, corpus);
  } else if (!blank(text)) {
    corpus.documents.push_back(with_plain_line_ends(text));
    corpus.whole_file.push_back(true);
  }
}

std::vector<fs::path> files_of(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    const bool counts = extension == ".jsonl" || extension == ".txt" || extension == ".text" || extension == ".md" || extension == ".raw";
    if (entry.is_regular_file() && counts && !entry.path().filename().string().starts_with('.')) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) throw InputError(fmt::format("{}: no .jsonl, .txt, .text, .md or .raw file in this folder", folder.string()));
  return files;
}

}  // namespace

Corpus load_corpus(const CorpusSpec& spec) {
  if (!fs::exists(spec.path)) throw InputError(fmt::format("{}: no such file or folder (calibration or evaluation text)", spec.path.string()));
  Corpus corpus;
  corpus.name = !spec.name.empty() ? spec.name : (spec.path.has_filename() ? spec.path : spec.path.parent_path()).filename().string();
  Hasher hasher;
  if (fs::is_directory(spec.path)) {
    for (const auto& file : files_of(spec.path)) add_file(file, spec.field, corpus, hasher);
  } else {
    add_file(spec.path, spec.field, corpus, hasher);
  }
  if (std::all_of(corpus.documents.begin(), corpus.documents.end(), [](const std::string& d) { return blank(d); }))
    throw InputError(fmt::format("{}: no text in it", spec.path.string()));
  corpus.hash = hasher.hex();
  return corpus;
}

std::vector<std::string> sampling_documents(const Corpus& corpus) {
  std::vector<std::string> out;
  for (size_t i = 0; i < corpus.documents.size(); ++i) {
    const std::string& document = corpus.documents[i];
    if (i < corpus.whole_file.size() && corpus.whole_file[i]) {
      each_line(document, [&](std::string_view line, int64_t) {
        if (!blank(line)) out.emplace_back(trimmed(line));
      });
    } else if (!blank(document)) {
      out.push_back(document);
    }
  }
  return out;
}

std::vector<int32_t> tokenize_corpus(const Corpus& corpus, const Tokenizer& tokenizer, const std::string& joiner) {
  if (corpus.documents.size() == 1) return tokenizer.encode(corpus.documents[0]);
  std::string text;
  for (size_t i = 0; i < corpus.documents.size(); ++i) {
    if (i > 0) text += joiner;
    text += corpus.documents[i];
  }
  return tokenizer.encode(text);
}

}  // namespace qb
