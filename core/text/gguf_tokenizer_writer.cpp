#include "core/text/gguf_tokenizer_writer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/format/model_place.h"
#include "core/text/folder_tokenizer.h"
#include "core/text/gguf_pre_tokenizers.h"
#include "core/text/json_tokenizer.h"
#include "core/text/tokenizer.h"

namespace qb {
namespace {

namespace fs = std::filesystem;
enum TokenType : int64_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

// What tells pre-tokenizers and their models apart: cases, contractions, digits, marks, spaces, line ends, scripts, code, emoji.
constexpr const char* kSample =
    "Hello, world! I'M sure you'll say it's 1234567 or 12,345.67 (3½ × 10⁵)…  two  spaces\tand\ttabs.\n\n\n  Indented line\r\n    deeper "
    "camelCaseWords HTMLParser snake_case __init__ == != <= -> :: /* c */ // x\n\"quotes\" 'single' `tick` ~tilde~ ^caret $9.99 50% a@b.c #tag\n"
    "Größe naïve Łódź résumé ПРИВЕТ мир Ελληνικά שלום مرحبا हिन्दी ภาษาไทย 한국어 日本語テキスト 中文字符,標點。 nº 1ª ﬁn Ⅷ ２０２４ ٣٤٥ ½\n"
    "don't DON'T we'Ve they'RE\u00a0nbsp\u2003em 😀👍🏽 👩‍💻 ---- **** !!! ??? ... . . .\n\n \n end ";

class Pieces final : public PieceSink {
 public:
  void take(std::string_view piece, bool) override { all.emplace_back(piece); }
  std::vector<std::string> all;
};

// plain: only its ASCII characters.
std::string sample(bool plain) {
  std::string text = kSample;
  if (plain) std::erase_if(text, [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
  return text;
}

std::vector<std::string> cut(const PreTokenization& steps) {
  Pieces pieces;
  steps.split(kSample, true, pieces);
  return pieces.all;
}

// Whether a pre-tokenizer spells bytes in GPT-2's alphabet, in its last step or before (Falcon's).
bool spells_bytes(const nlohmann::json& document) {
  if (!document.contains("pre_tokenizer") || !document["pre_tokenizer"].is_object()) return false;
  const nlohmann::json& pre = document["pre_tokenizer"];
  const auto is = [](const nlohmann::json& step) { return step.value("type", "") == "ByteLevel"; };
  return is(pre) || (pre.contains("pretokenizers") && std::any_of(pre["pretokenizers"].begin(), pre["pretokenizers"].end(), is));
}

// llama.cpp's name for a way to cut text: one that cuts the sample alike and merges whole pieces alike.
std::string pre_tokenizer_name(const PreTokenization& steps, bool ignore_merges, const std::string& origin) {
  // Falcon alone looks for digits in spelled bytes, where letters beyond ASCII have some ("ü" is "Ã¼"); llama.cpp's falcon cuts other
  // pieces, of which its vocabulary makes the same tokens in ASCII.
  if (!steps.byte_level) return "falcon";
  const std::vector<std::string> wanted = cut(steps);
  std::string near;
  for (const char* name : {"gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "qwen35", "tekken", "gpt-4o", "deepseek-v3", "falcon", "bloom", "default"}) {
    const auto pre = gguf_pre_tokenizer(name);
    if (cut(make_pre_tokenization(JsonField(pre->description, name))) != wanted) continue;
    if (pre->ignore_merges == ignore_merges) return name;
    near = name;
  }
  if (!near.empty())
    throw InputError(fmt::format("{}: model.ignore_merges is {}, expected {}, as llama.cpp's pre-tokenizer {} has it, which cuts text alike", origin, ignore_merges, !ignore_merges, near));
  throw InputError(fmt::format("{}: pre_tokenizer cuts text as none of llama.cpp's pre-tokenizers does", origin));
}

nlohmann::json parse_if_there(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored) ? JsonField::parse(read_text(path, uint64_t{64} << 20), path.string()) : nlohmann::json::object();
}

// One vocabulary on its way into the file.
class Writer {
 public:
  Writer(int64_t rows, std::string origin, GgufMetadata& out) : rows_(rows), origin_(std::move(origin)), out_(out) {}

  void from_folder(const fs::path& folder, const FolderTokenizer& files) {
    const nlohmann::json& document = files.document;
    auto parts = read_tokenizer_document(document, origin_);
    read_special_names(folder, parts);
    const nlohmann::json& model = document.at("model");
    const bool byte_level = spells_bytes(document), byte_fallback = !byte_level && model.value("byte_fallback", false);
    if (!model.contains("merges") || (!byte_level && !byte_fallback))
      throw InputError(fmt::format("{}: model is {}, expected byte-level BPE or BPE with byte_fallback, which GGUF holds", origin_, parts.model->kind()));
    const Vocabulary& vocabulary = parts.model->vocabulary();
    for (int32_t id = 0; id < vocabulary.end(); ++id)
      if (vocabulary.has(id)) place(id, vocabulary.token(id), byte_fallback && is_byte(vocabulary.token(id)) ? byte : normal);
    if (byte_fallback)
      if (const auto id = model.contains("unk_token") && model["unk_token"].is_string() ? vocabulary.find(model["unk_token"].get<std::string>()) : std::nullopt) {
        types_[static_cast<size_t>(*id)] = unknown;
        ids_["unknown"] = *id;
      }
    // What only a configuration names may lie beyond the embedding, as padding often does: the model has no use for it.
    size_t number = 0;
    for (const AddedToken& added : parts.added.all())
      if (number++ >= files.own_tokens && added.id >= rows_)
        continue;
      else if (!(added.id < static_cast<int32_t>(types_.size()) && types_[static_cast<size_t>(added.id)] == unknown)) place(added.id, added.content, added.special ? control : user_defined);
    fill();

    std::vector<std::string> merges;
    for (const auto& item : model.at("merges")) {
      if (item.is_array()) {
        merges.push_back(item[0].get<std::string>() + " " + item[1].get<std::string>());
      } else if (!item.get_ref<const std::string&>().starts_with("#version")) {
        merges.push_back(item.get<std::string>());
      }
    }
    out_.text("tokenizer.ggml.model", byte_level ? "gpt2" : "llama");
    out_.text("tokenizer.ggml.pre", byte_level ? pre_tokenizer_name(parts.pre_tokenization, model.value("ignore_merges", false), origin_) : "default");
    put_tokens();
    if (byte_level) {
      out_.texts("tokenizer.ggml.merges", merges);
    } else {
      out_.f32s("tokenizer.ggml.scores", scores_of(merges, vocabulary));
      out_.boolean("tokenizer.ggml.add_space_prefix", prefixes_space(document));
    }
    const auto around = [](const std::vector<int32_t>& tokens, const std::optional<int32_t>& id) { return id && tokens == std::vector<int32_t>{*id}; };
    put_ids(folder, parts.bos, parts.eos, around(parts.frame.before, parts.bos), around(parts.frame.after, parts.eos),
            [&](const std::string& name) { return parts.added.by_content(name) ? std::optional(parts.added.by_content(name)->id) : vocabulary.find(name); });
    check(folder, byte_level && !parts.pre_tokenization.byte_level);
  }

  void from_sentencepiece(const fs::path& path) {
    sentencepiece::SentencePieceProcessor model;
    if (const auto status = model.Load(path.string()); !status.ok()) throw InputError(fmt::format("{}: not a SentencePiece model: {}", origin_, status.ToString()));
    const auto tokenizer = Tokenizer::load(path);
    std::vector<double> scores;
    for (int id = 0; id < model.GetPieceSize(); ++id) {
      const bool plain = !model.IsControl(id) && !model.IsUnknown(id) && !model.IsByte(id) && !model.IsUnused(id);
      // BPE's scores are ranks of merges; others are a Unigram's logarithms.
      const double score = model.GetScore(id);
      if (plain && std::floor(score) != score) throw InputError(fmt::format("{}: piece {} has the score {}, expected a whole number: a BPE model, which GGUF holds", origin_, id, score));
      place(id, model.IdToPiece(id), model.IsControl(id) ? control : model.IsUnknown(id) ? unknown : model.IsByte(id) ? byte : model.IsUnused(id) ? unused : normal);
      scores.push_back(score);
    }
    const nlohmann::json config = parse_if_there(path.parent_path() / "tokenizer_config.json");
    if (config.contains("added_tokens_decoder"))
      for (const auto& [key, added] : config["added_tokens_decoder"].items())
        if (const int id = std::stoi(key); id != model.unk_id()) place(id, added.at("content").get<std::string>(), added.value("special", false) ? control : user_defined);
    fill();
    scores.resize(tokens_.size(), -1e6);
    out_.text("tokenizer.ggml.model", "llama");
    out_.text("tokenizer.ggml.pre", "default");
    put_tokens();
    out_.f32s("tokenizer.ggml.scores", scores);
    if (model.unk_id() >= 0) ids_["unknown"] = model.unk_id();
    // With a space put before the text the first piece has one more.
    out_.boolean("tokenizer.ggml.add_space_prefix", model.EncodeAsPieces("a").front().starts_with("▁"));
    put_ids(path.parent_path(), tokenizer->bos(), tokenizer->eos(), config.value("add_bos_token", true) && tokenizer->bos(), config.value("add_eos_token", false) && tokenizer->eos(),
            [&](const std::string& name) { return tokenizer->id_of(name); });
    check(path, false);
  }

 private:
  static bool is_byte(const std::string& token) {
    return token.size() == 6 && token.starts_with("<0x") && token[5] == '>' && std::isxdigit(static_cast<unsigned char>(token[3])) && std::isxdigit(static_cast<unsigned char>(token[4]));
  }

  void place(int32_t id, std::string token, TokenType type) {
    if (id >= rows_) throw InputError(fmt::format("{}: token '{}' has the id {}, but the model's embedding has {} rows", origin_, token, id, rows_));
    if (static_cast<size_t>(id) >= tokens_.size()) {
      tokens_.resize(static_cast<size_t>(id) + 1);
      types_.resize(static_cast<size_t>(id) + 1, unused);
    }
    tokens_[static_cast<size_t>(id)] = std::move(token);
    types_[static_cast<size_t>(id)] = type;
  }

  // Rows without a token, and holes between tokens.
  void fill() {
    tokens_.resize(static_cast<size_t>(rows_));
    types_.resize(static_cast<size_t>(rows_), unused);
    for (size_t id = 0; id < tokens_.size(); ++id)
      if (types_[id] == unused && tokens_[id].empty()) tokens_[id] = fmt::format("[PAD{}]", id);
  }

  void put_tokens() {
    out_.texts("tokenizer.ggml.tokens", tokens_);
    out_.i32s("tokenizer.ggml.token_type", types_);
  }

  // A token is as good as the first merge that makes it is early: the order in which both kinds of tokenizer merge.
  std::vector<double> scores_of(const std::vector<std::string>& merges, const Vocabulary& vocabulary) const {
    std::vector<double> scores(tokens_.size(), -1e6);
    for (size_t rank = merges.size(); rank-- > 0;) {
      std::string made = merges[rank];
      made.erase(made.find(' ', 1), 1);
      if (const auto id = vocabulary.find(made)) scores[static_cast<size_t>(*id)] = -static_cast<double>(rank);
    }
    return scores;
  }

  static bool prefixes_space(const nlohmann::json& document) {
    const auto step = [](const nlohmann::json& field, const std::string& type, const auto& found) {
      if (!field.is_object()) return false;
      const std::string kind = field.value("type", "");
      if (kind == type) return found(field);
      for (const char* list : {"normalizers", "pretokenizers"})
        if (field.contains(list))
          for (const auto& item : field[list])
            if (item.value("type", "") == type && found(item)) return true;
      return false;
    };
    return step(document.value("normalizer", nlohmann::json()), "Prepend", [](const nlohmann::json&) { return true; }) ||
           step(document.value("pre_tokenizer", nlohmann::json()), "Metaspace",
                [](const nlohmann::json& f) { return f.contains("prepend_scheme") ? f["prepend_scheme"] != "never" : f.value("add_prefix_space", true); });
  }

  void put_ids(const fs::path& folder, std::optional<int32_t> bos, std::optional<int32_t> eos, bool add_bos, bool add_eos,
               const std::function<std::optional<int32_t>(const std::string&)>& id_of) {
    const fs::path config_path = folder / "tokenizer_config.json";
    const nlohmann::json config = parse_if_there(config_path);
    if (bos) ids_["bos"] = *bos;
    if (eos) ids_["eos"] = *eos;
    for (const auto& [key, name] : std::initializer_list<std::pair<const char*, const char*>>{{"unk_token", "unknown"}, {"pad_token", "padding"}, {"sep_token", "seperator"}, {"mask_token", "mask"}}) {
      if (!config.contains(key) || config[key].is_null()) continue;
      const std::string token = config[key].is_object() ? config[key].value("content", "") : config[key].is_string() ? config[key].get<std::string>() : "";
      if (const auto id = id_of(token)) ids_[name] = *id;
    }
    for (const char* name : {"bos", "eos", "unknown", "seperator", "padding", "mask"})  // "seperator" is the format's spelling
      if (const auto id = ids_.find(name); id != ids_.end()) out_.u32(fmt::format("tokenizer.ggml.{}_token_id", name), id->second);
    out_.boolean("tokenizer.ggml.add_bos_token", add_bos);
    out_.boolean("tokenizer.ggml.add_eos_token", add_eos);
    put_templates(folder, config);
  }

  void put_templates(const fs::path& folder, const nlohmann::json& config) {
    std::error_code ignored;
    if (fs::is_regular_file(folder / "chat_template.jinja", ignored)) return out_.text("tokenizer.chat_template", read_text(folder / "chat_template.jinja", uint64_t{16} << 20));
    if (!config.contains("chat_template")) return;
    const nlohmann::json& given = config["chat_template"];
    if (given.is_string()) return out_.text("tokenizer.chat_template", given.get<std::string>());
    if (!given.is_array()) return;
    std::vector<std::string> names;
    for (const auto& item : given) {
      if (!item.is_object() || !item.contains("name") || !item.contains("template")) continue;
      const std::string name = item["name"].get<std::string>(), text = item["template"].get<std::string>();
      if (name == "default") {
        out_.text("tokenizer.chat_template", text);
      } else {
        names.push_back(name);
        out_.text("tokenizer.chat_template." + name, text);
      }
    }
    if (!names.empty()) out_.texts("tokenizer.chat_templates", names);
  }

  void check(const fs::path& path, bool plain) const {
    std::map<std::string, GgufValue> metadata;
    for (const auto& [key, value] : out_.all()) metadata.emplace(key, value);
    const auto written = Tokenizer::from_gguf(*GgufFile::imagined(path, std::move(metadata), {}, {})), original = Tokenizer::load(path);
    const auto a = original->encode(sample(plain), false), b = written->encode(sample(plain), false);
    const auto at = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
    if (at.first == a.end() && at.second == b.end()) return;
    const auto name = [](const Tokenizer& tokenizer, const std::vector<int32_t>& ids, auto place) { return place == ids.end() ? std::string() : tokenizer.token(*place); };
    throw InputError(fmt::format("{}: as a GGUF file's tokenizer it would cut a sample text otherwise: token {} is '{}', there '{}'", origin_, at.first - a.begin(), name(*original, a, at.first),
                                 name(*written, b, at.second)));
  }

  int64_t rows_;
  std::string origin_;
  GgufMetadata& out_;
  std::vector<std::string> tokens_;
  std::vector<int64_t> types_;
  std::unordered_map<std::string, int32_t> ids_;
};

}  // namespace

void describe_tokenizer(const fs::path& path, int64_t rows, GgufMetadata& out) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    if (const fs::path folder = folder_of_part(path); !folder.empty()) return describe_tokenizer(folder, rows, out);
    const auto file = GgufFile::open(path);
    for (const auto& [key, value] : file->metadata())
      if (key.starts_with("tokenizer.")) out.add(key, value);
    if (!out.find("tokenizer.ggml.model")) out.text("tokenizer.ggml.model", "none");
    return;
  }
  if (const fs::path pieces = sentencepiece_file(path); !fs::exists(path / "tokenizer.json", ignored) && !pieces.empty())
    return Writer(rows, pieces.string(), out).from_sentencepiece(pieces);
  if (const auto files = FolderTokenizer::read(path)) return Writer(rows, files->origin, out).from_folder(path, *files);
  out.text("tokenizer.ggml.model", "none");
}

}  // namespace qb
