#include "core/text/corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/text/chat_template.h"
#include "core/text/json_field.h"
#include "core/text/text_file.h"
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

// Texts of JSON: strings, and objects whose field is a text or a conversation.
class JsonTexts {
 public:
  JsonTexts(const std::string& field, const ChatTemplate* chat, Corpus& corpus) : field_(field), chat_(chat), corpus_(corpus) {}

  // `ordered` parses the same value with its keys in their order, as chat templates may print them.
  void add(const nlohmann::json& value, const std::string& where, const std::function<nlohmann::ordered_json()>& ordered) {
    if (value.is_string()) return text(value.get<std::string>(), false);
    const JsonField object = JsonField(value, where).object();
    const std::string key = !object.has(field_.c_str()) && object.has("messages") ? "messages" : field_;
    const JsonField f = object.at(key);
    if (f.value().is_array())
      conversation(f, ordered().at(key));
    else
      text(f.text(), false);
  }

 private:
  void text(std::string content, bool templated) {
    corpus_.documents.push_back(std::move(content));
    corpus_.whole_file.push_back(false);
    corpus_.templated.push_back(templated);
  }

  void conversation(const JsonField& f, const nlohmann::ordered_json& messages) {
    std::string plain;
    for (size_t i = 0; i < f.size(); ++i) {
      const JsonField message = f.at(i).object();
      message.at("role").text();
      if (chat_) continue;
      if (message.has("content")) plain += (plain.empty() ? "" : "\n") + message.at("content").text();
    }
    if (!chat_) {
      if (std::exchange(without_template_, true) == false)
        corpus_.notes.push_back(fmt::format("{}: the model has no chat template: conversations are their messages' plain text", f.origin()));
      return text(std::move(plain), false);
    }
    try {
      text(chat_->render(messages), true);
    } catch (const InputError& e) {
      throw InputError(fmt::format("{}: {}", f.where(), e.what()));
    }
  }

  const std::string& field_;
  const ChatTemplate* chat_;
  Corpus& corpus_;
  bool without_template_ = false;
};

std::string lower_extension(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return extension;
}

void add_file(const fs::path& path, const CorpusSpec& spec, const ChatTemplate* chat, Corpus& corpus, Hasher& hasher) {
  const std::string extension = lower_extension(path);
  const auto file = MappedFile::open(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file->bytes().data()), file->size());
  hasher.update(bytes);
  const std::string text = decode_text(bytes, path);
  JsonTexts texts(spec.field, chat, corpus);
  if (extension == ".jsonl" || extension == ".ndjson") {
    hasher.update(spec.field);
    each_line(text, [&](std::string_view line, int64_t number) {
      if (blank(line)) return;
      const std::string where = fmt::format("{}:{}", path.string(), number);
      const nlohmann::json value = JsonField::parse(line, where);
      JsonField(value, where).object();
      texts.add(value, where, [&] { return nlohmann::ordered_json::parse(line); });
    });
  } else if (extension == ".json") {
    hasher.update(spec.field);
    const nlohmann::json document = JsonField::parse(text, path.string());
    if (!document.is_array()) JsonField(document, path.string()).fail("expected an array of texts or of objects (or .jsonl: one object a line)");
    std::optional<nlohmann::ordered_json> ordered;
    for (size_t i = 0; i < document.size(); ++i)
      texts.add(document[i], fmt::format("{}: [{}]", path.string(), i), [&] {
        if (!ordered) ordered = nlohmann::ordered_json::parse(text);
        return ordered->at(i);
      });
  } else if (!blank(text)) {
    corpus.documents.push_back(with_plain_line_ends(text));
    corpus.whole_file.push_back(true);
    corpus.templated.push_back(false);
  }
}

std::vector<fs::path> files_of(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string extension = lower_extension(entry.path());
    const bool counts = extension == ".jsonl" || extension == ".ndjson" || extension == ".json" || extension == ".txt" || extension == ".text" ||
                        extension == ".md" || extension == ".raw";
    if (entry.is_regular_file() && counts && !entry.path().filename().string().starts_with('.')) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) throw InputError(fmt::format("{}: no .jsonl, .json, .txt, .text, .md or .raw file in this folder", folder.string()));
  return files;
}

// A template's text has its special tokens in it.
bool adds_special(const Corpus& corpus, size_t document) { return document >= corpus.templated.size() || !corpus.templated[document]; }

}  // namespace

Corpus load_corpus(const CorpusSpec& spec, const ChatTemplate* chat) {
  if (!fs::exists(spec.path)) throw InputError(fmt::format("{}: no such file or folder (calibration or evaluation text)", spec.path.string()));
  Corpus corpus;
  corpus.name = !spec.name.empty() ? spec.name : (spec.path.has_filename() ? spec.path : spec.path.parent_path()).filename().string();
  Hasher hasher;
  if (fs::is_directory(spec.path)) {
    for (const auto& file : files_of(spec.path)) add_file(file, spec, chat, corpus, hasher);
  } else {
    add_file(spec.path, spec, chat, corpus, hasher);
  }
  if (std::all_of(corpus.documents.begin(), corpus.documents.end(), [](const std::string& d) { return blank(d); }))
    throw InputError(fmt::format("{}: no text in it", spec.path.string()));
  if (std::find(corpus.templated.begin(), corpus.templated.end(), true) != corpus.templated.end()) hasher.update(chat->source());
  corpus.hash = hasher.hex();
  return corpus;
}

std::string to_text(Bos bos) {
  switch (bos) {
    case Bos::tokenizer: return "tokenizer";
    case Bos::every_window: return "every_window";
    case Bos::none: return "none";
  }
  throw InternalError("unknown place of BOS");
}

std::optional<Bos> parse_bos(const std::string& text) {
  for (Bos bos : {Bos::tokenizer, Bos::every_window, Bos::none})
    if (to_text(bos) == text) return bos;
  return std::nullopt;
}

// Gemma models were never trained on a sequence without BOS, and without it they predict nothing.
Bos default_bos(const std::string& family) { return family.starts_with("gemma") ? Bos::every_window : Bos::tokenizer; }

Bos bos_of(const std::optional<Bos>& wish, const std::string& family, const Tokenizer& tokenizer) {
  if (wish == Bos::every_window && !tokenizer.bos()) throw InputError("bos: every_window needs a tokenizer with a beginning-of-sequence token; this model's has none");
  if (wish) return *wish;
  return tokenizer.bos() ? default_bos(family) : Bos::tokenizer;
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

std::vector<int32_t> tokenize_corpus(const Corpus& corpus, const Tokenizer& tokenizer, const std::string& joiner, bool special) {
  special = special && adds_special(corpus, 0);
  if (corpus.documents.size() == 1) return tokenizer.encode(corpus.documents[0], special);
  std::string text;
  for (size_t i = 0; i < corpus.documents.size(); ++i) {
    if (i > 0) text += joiner;
    text += corpus.documents[i];
  }
  return tokenizer.encode(text, special);
}

std::vector<int32_t> evaluation_tokens(const Corpus& corpus, const Tokenizer& tokenizer, Bos bos, int64_t seq_len) {
  std::vector<int32_t> text = tokenize_corpus(corpus, tokenizer, "\n\n", bos == Bos::tokenizer);
  if (bos != Bos::every_window) return text;
  const int32_t first = tokenizer.bos().value();
  const auto body = static_cast<size_t>(seq_len - 1);
  std::vector<int32_t> ids;
  ids.reserve(text.size() + text.size() / body + 1);
  for (size_t at = 0; at < text.size(); at += body) {
    ids.push_back(first);
    ids.insert(ids.end(), text.begin() + static_cast<ptrdiff_t>(at), text.begin() + static_cast<ptrdiff_t>(std::min(at + body, text.size())));
  }
  return ids;
}

}  // namespace qb
