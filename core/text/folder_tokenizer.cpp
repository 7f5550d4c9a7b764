#include "core/text/folder_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/text/json_field.h"
#include "core/text/model_files.h"
#include "core/text/sentencepiece_model.h"
#include "core/text/utf8.h"

namespace qb {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kNamed[] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Json json_if_there(const fs::path& path) { return fs::exists(path) ? read_json(path) : Json::object(); }

// An added token as tokenizer.json has it, without its id. A bare text is a special token.
Json added_token(const Json& given, const std::string& where, bool special_text = true, bool always_special = false) {
  if (given.is_string()) {
    return {{"content", given}, {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", !special_text}, {"special", special_text}};
  }
  const JsonField f = JsonField(given, where).object();
  const bool special = always_special || f.boolean_or("special", false);
  return {{"content", f.at("content").text()}, {"single_word", f.boolean_or("single_word", false)}, {"lstrip", f.boolean_or("lstrip", false)},
          {"rstrip", f.boolean_or("rstrip", false)}, {"normalized", f.boolean_or("normalized", !special)}, {"special", special}};
}

// tokenizer_config.json with what older files beside it say where it has no added_tokens_decoder of its own.
class Configuration {
 public:
  explicit Configuration(const fs::path& folder) : folder_(folder), config_(json_if_there(folder / "tokenizer_config.json")) {
    JsonField(config_, where()).object();
    has_decoder_ = config_.contains("added_tokens_decoder") && config_["added_tokens_decoder"].is_object();
    if (!has_decoder_)
      if (const Json map = json_if_there(folder / "special_tokens_map.json"); map.is_object())
        for (const auto& [key, value] : map.items()) config_[key] = value;
    if (config_.contains("additional_special_tokens") && !config_.contains("extra_special_tokens")) config_["extra_special_tokens"] = config_["additional_special_tokens"];
  }

  std::string where() const { return (folder_ / "tokenizer_config.json").string(); }
  const Json& json() const { return config_; }
  bool has_decoder() const { return has_decoder_; }
  bool flag(const char* key, bool otherwise) const { return JsonField(config_, where()).boolean_or(key, otherwise); }

  // Of the class that reads the files, without its "Fast".
  std::string tokenizer_class() const {
    const Json model = json_if_there(folder_ / "config.json");
    std::string name;
    for (const Json* source : {&config_, &model})
      if (name.empty() && source->is_object() && source->contains("tokenizer_class") && (*source)["tokenizer_class"].is_string()) name = (*source)["tokenizer_class"];
    if (name.ends_with("Fast")) name.resize(name.size() - 4);
    if (!name.empty() || !model.is_object()) return name;
    const std::string type = model.contains("model_type") && model["model_type"].is_string() ? model["model_type"].get<std::string>() : "";
    static const std::pair<const char*, const char*> classes[] = {
        {"gpt_neox", "GPTNeoXTokenizer"}, {"olmo", "GPTNeoXTokenizer"}, {"mpt", "GPTNeoXTokenizer"}, {"gpt2", "GPT2Tokenizer"}, {"gptj", "GPT2Tokenizer"},
        {"gpt_neo", "GPT2Tokenizer"}, {"opt", "GPT2Tokenizer"}, {"phi", "GPT2Tokenizer"}, {"starcoder2", "GPT2Tokenizer"}, {"codegen", "GPT2Tokenizer"},
        {"qwen3_5", "Qwen3_5Tokenizer"}, {"qwen2", "Qwen2Tokenizer"}, {"qwen3", "Qwen2Tokenizer"}, {"gemma", "GemmaTokenizer"}, {"cohere", "CohereTokenizer"},
        {"llama", "LlamaTokenizer"}, {"mistral", "LlamaTokenizer"}, {"mixtral", "LlamaTokenizer"}, {"t5", "T5Tokenizer"}};
    for (const auto& [start, found] : classes)
      if (type == start || type.starts_with(std::string(start) + "_") || (std::string_view(start) == "gemma" && type.starts_with("gemma")) ||
          (std::string_view(start) == "cohere" && type.starts_with("cohere")))
        return found;
    return "";
  }

  // Id → token, as the configuration numbers them.
  std::map<int64_t, Json> numbered() const {
    std::map<int64_t, Json> tokens;
    if (has_decoder_) {
      const JsonField list(config_["added_tokens_decoder"], where(), "added_tokens_decoder");
      for (const auto& [key, value] : list.value().items()) {
        if (key.empty() || key.size() > 8 || key.find_first_not_of("0123456789") != std::string::npos) list.at(key).fail("expected a token id as key");
        tokens[std::stoll(key)] = added_token(value, list.at(key).where(), false);
      }
      return tokens;
    }
    const fs::path file = folder_ / "added_tokens.json";
    const Json list = json_if_there(file);
    std::set<std::string> special;
    for (const auto& token : specials()) special.insert(token["content"].get<std::string>());
    for (const auto& [text, id] : JsonField(list, file.string()).object().value().items()) {
      if (!id.is_number_integer()) JsonField(list, file.string()).at(text).fail("expected a token id");
      tokens[id.get<int64_t>()] = added_token(text, file.string(), special.contains(text));
    }
    return tokens;
  }

  // The named special tokens (those of the class where the configuration is silent), then the extra ones.
  std::vector<Json> specials() const {
    std::vector<Json> tokens;
    auto add = [&](const Json& given, const std::string& key) {
      if (given.is_string() && given.get_ref<const std::string&>().empty()) return;
      tokens.push_back(added_token(given, where() + ": " + key, true, true));
    };
    auto named = [&](const std::string& key) {
      if (config_.contains(key)) {
        if (config_[key].is_string() || config_[key].is_object()) add(config_[key], key);
      } else if (const auto d = defaults_.find(key); d != defaults_.end()) {
        add(d->second, key);
      }
    };
    for (const char* key : kNamed) named(key);
    for (const auto& [key, value] : config_.items())
      if (key.ends_with("_token") && value.is_string() && std::find(std::begin(kNamed), std::end(kNamed), key) == std::end(kNamed)) add(value, key);
    if (config_.contains("extra_special_tokens")) {
      const Json& extra = config_["extra_special_tokens"];
      if (extra.is_array() || extra.is_object())
        for (const auto& token : extra) add(token, "extra_special_tokens");
    } else {
      for (const auto& token : extra_) tokens.push_back(token);
    }
    return tokens;
  }

  void set_defaults(std::map<std::string, std::string> named, std::vector<Json> extra = {}) {
    defaults_ = std::move(named);
    extra_ = std::move(extra);
  }
  // What a named special token is called, or nothing.
  std::optional<std::string> name(const char* key) const {
    if (!config_.contains(key)) {
      const auto d = defaults_.find(key);
      return d == defaults_.end() ? std::nullopt : std::optional(d->second);
    }
    if (config_[key].is_string()) return config_[key].get<std::string>();
    if (config_[key].is_object() && config_[key].contains("content") && config_[key]["content"].is_string()) return config_[key]["content"].get<std::string>();
    return std::nullopt;
  }

 private:
  fs::path folder_;
  Json config_;
  bool has_decoder_ = false;
  std::map<std::string, std::string> defaults_;
  std::vector<Json> extra_;
};

// The ids of a model's own vocabulary.
class Ids {
 public:
  explicit Ids(const Json& model) : vocabulary_(model.contains("vocab") ? model["vocab"] : nothing_) {
    if (!vocabulary_.is_array()) return;
    for (size_t i = 0; i < vocabulary_.size(); ++i)
      if (vocabulary_[i].is_array() && !vocabulary_[i].empty() && vocabulary_[i][0].is_string()) places_.emplace(vocabulary_[i][0].get<std::string>(), static_cast<int64_t>(i));
  }
  int64_t count() const { return static_cast<int64_t>(vocabulary_.size()); }
  std::optional<int64_t> find(const std::string& token) const {
    if (vocabulary_.is_object()) {
      const auto it = vocabulary_.find(token);
      return it != vocabulary_.end() && it->is_number_integer() ? std::optional(it->get<int64_t>()) : std::nullopt;
    }
    const auto it = places_.find(token);
    return it == places_.end() ? std::nullopt : std::optional(it->second);
  }

 private:
  const Json nothing_ = Json::object();
  const Json& vocabulary_;
  std::unordered_map<std::string, int64_t> places_;
};

bool same_token(Json a, const Json& b) {
  a.erase("id");
  return a == b;
}

// Adds a configuration's tokens to a tokenizer.json's, with the ids that tokenizers gives them.
void add_tokens(const Configuration& config, Json& document) {
  const Ids ids(document.at("model"));
  Json& list = document["added_tokens"];
  if (!list.is_array()) list = Json::array();
  std::unordered_map<std::string, size_t> places;
  int64_t highest = -1;
  for (size_t i = 0; i < list.size(); ++i) {
    if (!list[i].is_object() || !list[i].contains("content") || !list[i].contains("id") || !list[i]["content"].is_string() || !list[i]["id"].is_number_integer()) return;  // the reader says so
    places[list[i]["content"].get<std::string>()] = i;
    highest = std::max(highest, list[i]["id"].get<int64_t>());
  }
  auto put = [&](const Json& token, std::optional<int64_t> wanted) {
    const std::string content = token["content"];
    if (content.empty()) return;
    const auto same = places.find(content);
    const auto known = ids.find(content);
    const int64_t id = same != places.end() ? list[same->second]["id"].get<int64_t>() : known ? *known : std::max(ids.count(), highest + 1);
    if (wanted && *wanted != id)
      throw InputError(fmt::format("{}: added token '{}' has the id {}, but {} {}", config.where(), content, *wanted, id,
                                   known || same != places.end() ? "in the vocabulary" : "is the next free one, which tokenizers gives it"));
    Json entry = token;
    entry["id"] = id;
    if (same != places.end()) {
      list[same->second] = std::move(entry);
      return;
    }
    highest = std::max(highest, id);
    places[content] = list.size();
    list.push_back(std::move(entry));
  };
  const std::vector<Json> specials = config.specials();
  std::set<std::string> named;
  for (const auto& token : specials) named.insert(token["content"].get<std::string>());
  for (auto& [id, token] : config.numbered()) {
    Json wanted = token;
    if (const auto own = places.find(token["content"].get<std::string>()); own != places.end() && (!config.has_decoder() || same_token(list[own->second], wanted))) continue;
    if (named.contains(token["content"].get<std::string>())) wanted["special"] = true;
    put(wanted, id);
  }
  for (const auto& token : specials)
    if (!places.contains(token["content"].get<std::string>())) put(token, std::nullopt);
}

Json byte_level(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

Json merges_of(const fs::path& path) {
  Json merges = Json::array();
  const std::string text = read_text(path, uint64_t{1} << 30);
  for (size_t from = 0; from < text.size();) {
    const size_t end = std::min(text.find('\n', from), text.size());
    std::string line = text.substr(from, end - from);
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty() && !line.starts_with("#version")) merges.push_back(std::move(line));
    from = end + 1;
  }
  return merges;
}

// Byte-level BPE of vocab.json and merges.txt.
Json of_merges(const fs::path& folder, const std::string& kind, Configuration& config) {
  const bool space = config.flag("add_prefix_space", false);
  const std::string end = "<|endoftext|>";
  Json pre, normalizer;
  if (kind == "GPT2Tokenizer" || kind == "CodeGenTokenizer") {
    pre = byte_level(space, true);
    config.set_defaults({{"unk_token", end}, {"bos_token", end}, {"eos_token", end}});
  } else if (kind == "GPTNeoXTokenizer") {
    normalizer = {{"type", "NFC"}};
    pre = byte_level(space, true);
    config.set_defaults({{"unk_token", end}, {"bos_token", end}, {"eos_token", end}, {"pad_token", "<|padding|>"}});
  } else if (kind == "Qwen2Tokenizer") {
    normalizer = {{"type", "NFC"}};
    const Json split = {{"type", "Split"}, {"pattern", {{"Regex", kQwen2}}}, {"behavior", "Isolated"}, {"invert", false}};
    pre = {{"type", "Sequence"}, {"pretokenizers", {split, byte_level(space, false)}}};
    config.set_defaults({{"unk_token", end}, {"eos_token", end}, {"pad_token", end}});
  } else if (kind == "CohereTokenizer") {
    normalizer = {{"type", "NFC"}};
    pre = {{"type", "Sequence"}, {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}}, byte_level(space, true)}}};
    config.set_defaults({{"unk_token", "<UNK>"}, {"bos_token", "<BOS_TOKEN>"}, {"eos_token", "<|END_OF_TURN_TOKEN|>"}, {"pad_token", "<PAD>"}, {"cls_token", "<CLS>"},
                         {"sep_token", "<SEP>"}, {"mask_token", "<MASK_TOKEN>"}});
  } else {
    throw InputError(fmt::format("{}: vocab.json and merges.txt of a {}; expected a tokenizer.json, or one of GPT2Tokenizer, GPTNeoXTokenizer, Qwen2Tokenizer, "
                                 "CohereTokenizer as tokenizer_class of tokenizer_config.json",
                                 folder.string(), kind.empty() ? "tokenizer whose class no file names" : kind));
  }
  const Json model = {{"type", "BPE"}, {"vocab", read_json(folder / "vocab.json")}, {"merges", merges_of(folder / "merges.txt")}};
  return {{"version", "1.0"}, {"added_tokens", Json::array()}, {"normalizer", normalizer}, {"pre_tokenizer", pre}, {"model", model}, {"decoder", byte_level(true, true)}};
}

// Every cut of a piece into two pieces is a merge, in the order of the merged pieces.
Json merges_of(const std::unordered_map<std::string, int64_t>& ids, const std::vector<SentencePieceModel::Piece>& pieces) {
  Json merges = Json::array();
  struct Cut {
    size_t left_length, right_length;
    int64_t left_id, right_id;
    std::string left, right;
  };
  for (size_t id = 0; id < pieces.size(); ++id) {
    const std::string& whole = pieces[id].text;
    if (ids.at(whole) != static_cast<int64_t>(id)) continue;
    std::vector<Cut> cuts;
    std::vector<size_t> ends;  // of characters
    for (size_t at = 0; at < whole.size();) ends.push_back(at += static_cast<size_t>(utf8::length(whole[at])));
    for (size_t i = 0; i + 1 < ends.size(); ++i) {
      Cut cut{i + 1, ends.size() - i - 1, 0, 0, whole.substr(0, ends[i]), whole.substr(ends[i])};
      const auto left = ids.find(cut.left), right = ids.find(cut.right);
      if (left == ids.end() || right == ids.end()) continue;
      cut.left_id = left->second;
      cut.right_id = right->second;
      cuts.push_back(std::move(cut));
    }
    std::sort(cuts.begin(), cuts.end(), [](const Cut& a, const Cut& b) {
      return std::tie(a.left_length, a.right_length, a.left_id, a.right_id) < std::tie(b.left_length, b.right_length, b.left_id, b.right_id);
    });
    for (const Cut& cut : cuts) merges.push_back({cut.left, cut.right});
  }
  return merges;
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - at);
    uint32_t bits = 0;
    for (size_t i = 0; i < 3; ++i) bits = bits << 8 | (i < count ? static_cast<unsigned char>(bytes[at + i]) : 0);
    for (size_t i = 0; i < 4; ++i) out += i <= count ? letters[bits >> (18 - 6 * i) & 63] : '=';
  }
  return out;
}

bool reads_sentencepiece(const std::string& kind) {
  return kind == "LlamaTokenizer" || kind == "GemmaTokenizer" || kind == "T5Tokenizer" || kind == "PreTrainedTokenizer" || kind == "TokenizersBackend";
}

Json of_sentencepiece(const fs::path& path, const std::string& kind, Configuration& config) {
  const SentencePieceModel model = SentencePieceModel::read(path);
  std::unordered_map<std::string, int64_t> ids;
  std::vector<Json> extra;
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    const auto& piece = model.pieces[i];
    ids[piece.text] = static_cast<int64_t>(i);
    if (piece.type == SentencePieceModel::control || piece.type == SentencePieceModel::user_defined) {
      const bool special = piece.type == SentencePieceModel::control;
      extra.push_back({{"content", piece.text}, {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", false}, {"special", special}});
    }
  }
  const bool own_class = kind == "LlamaTokenizer" || kind == "GemmaTokenizer" || kind == "T5Tokenizer";
  const bool unigram = own_class ? kind == "T5Tokenizer" : model.unigram;
  if (own_class && unigram != model.unigram)
    throw InputError(fmt::format("{}: a {} model, but tokenizer_config.json's {} reads {}", path.string(), model.unigram ? "Unigram" : "BPE", kind, unigram ? "Unigram" : "BPE"));
  Json made, normalizer, pre, decoder, frame;
  if (unigram) {
    Json pieces = Json::array();
    for (const auto& piece : model.pieces) pieces.push_back({piece.text, piece.score});
    made = {{"type", "Unigram"}, {"vocab", pieces}, {"unk_id", kind == "T5Tokenizer" ? 2 : model.unknown_id}, {"byte_fallback", kind != "T5Tokenizer" && model.byte_fallback}};
  } else {
    made = {{"type", "BPE"}, {"vocab", ids}, {"merges", merges_of(ids, model.pieces)}, {"fuse_unk", true}, {"byte_fallback", own_class || model.byte_fallback}};
  }
  const Json to_space = {{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}}, fuse = {{"type", "Fuse"}}, bytes = {{"type", "ByteFallback"}};
  const Json to_mark = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
  const Json precompiled = {{"type", "Precompiled"}, {"precompiled_charsmap", base64(model.precompiled_map)}};
  if (kind == "LlamaTokenizer") {
    const bool space = config.flag("add_prefix_space", true);
    pre = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", !space ? "never" : config.flag("legacy", false) ? "always" : "first"}, {"split", false}};
    Json steps = Json::array({to_space, bytes, fuse});
    if (space) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    decoder = {{"type", "Sequence"}, {"decoders", steps}};
    config.set_defaults({{"unk_token", "<unk>"}, {"bos_token", "<s>"}, {"eos_token", "</s>"}}, extra);
  } else if (kind == "GemmaTokenizer") {
    normalizer = to_mark;
    pre = {{"type", "Split"}, {"pattern", {{"String", " "}}}, {"behavior", "MergedWithPrevious"}, {"invert", false}};
    decoder = {{"type", "Sequence"}, {"decoders", {to_space, bytes, fuse}}};
    config.set_defaults({{"unk_token", "<unk>"}, {"bos_token", "<bos>"}, {"eos_token", "<eos>"}, {"pad_token", "<pad>"}, {"mask_token", "<mask>"}}, extra);
    made["unk_token"] = config.name("unk_token").value_or("<unk>");
  } else if (kind == "T5Tokenizer") {
    if (!model.precompiled_map.empty()) normalizer = precompiled;
    const Json metaspace = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}, {"split", true}};
    pre = {{"type", "Sequence"}, {"pretokenizers", {{{"type", "WhitespaceSplit"}}, metaspace}}};
    decoder = metaspace;
    const int64_t sentinels = config.json().contains("extra_ids") ? JsonField(config.json(), config.where()).at("extra_ids").integer(0, 100000) : 100;
    for (int64_t i = sentinels; i-- > 0;) {  // the vocabulary's last ids, counted down
      const std::string sentinel = fmt::format("<extra_id_{}>", i);
      made["vocab"].push_back({sentinel, 0.0});
      extra.push_back(added_token(sentinel, path.string()));
    }
    config.set_defaults({{"unk_token", "<unk>"}, {"eos_token", "</s>"}, {"pad_token", "<pad>"}}, extra);
    if (const auto end = ids.find("</s>"); end != ids.end())
      frame = {{"type", "TemplateProcessing"}, {"single", {{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, {{"SpecialToken", {{"id", "</s>"}, {"type_id", 0}}}}}},
               {"special_tokens", {{"</s>", {{"id", "</s>"}, {"ids", Json::array({end->second})}, {"tokens", Json::array({"</s>"})}}}}}};
  } else {
    Json steps = Json::array();
    if (!model.precompiled_map.empty()) steps.push_back(precompiled);
    steps.push_back(to_mark);
    normalizer = {{"type", "Sequence"}, {"normalizers", steps}};
    Json back = Json::array({to_space});
    if (model.byte_fallback) back = Json::array({to_space, bytes, fuse});
    decoder = {{"type", "Sequence"}, {"decoders", back}};
    if (!unigram) made["unk_token"] = model.unknown_piece;
    config.set_defaults({{"unk_token", model.unknown_piece}, {"bos_token", "<s>"}, {"eos_token", "</s>"}}, extra);
  }
  return {{"version", "1.0"}, {"added_tokens", Json::array()}, {"normalizer", normalizer}, {"pre_tokenizer", pre}, {"model", made}, {"post_processor", frame}, {"decoder", decoder}};
}

// BOS and EOS as the configuration of a slow tokenizer wants them around a text.
void frame(const Configuration& config, Json& document) {
  if (document.contains("post_processor") && !document["post_processor"].is_null()) return;
  Json single = Json::array(), tokens = Json::object();
  const Ids ids(document["model"]);
  auto add = [&](const char* flag, const char* name) {
    const auto token = config.name(name);
    if (!config.flag(flag, false) || !token) return;
    std::optional<int64_t> id = ids.find(*token);
    for (const auto& added : document["added_tokens"])
      if (added["content"] == *token) id = added["id"].get<int64_t>();
    if (!id) return;
    single.push_back({{"SpecialToken", {{"id", *token}, {"type_id", 0}}}});
    tokens[*token] = {{"id", *token}, {"ids", Json::array({*id})}, {"tokens", Json::array({*token})}};
  };
  add("add_bos_token", "bos_token");
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  add("add_eos_token", "eos_token");
  document["post_processor"] = {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", tokens}};
}

}  // namespace

fs::path sentencepiece_file(const fs::path& folder) {
  for (const char* name : {"spiece.model", "tokenizer.model"})
    if (fs::exists(folder / name)) return folder / name;
  return {};
}

std::optional<FolderTokenizer> FolderTokenizer::read(const fs::path& folder) {
  FolderTokenizer made;
  if (const auto file = folder / "tokenizer.json"; fs::exists(file)) {
    made.origin = file.string();
    made.document = JsonField::parse(read_text(file, uint64_t{1} << 30), made.origin);
    if (!made.document.is_object() || !made.document.contains("model")) return made;  // its reader says what is wrong
    if (made.document.contains("added_tokens") && made.document["added_tokens"].is_array()) made.own_tokens = made.document["added_tokens"].size();
    add_tokens(Configuration(folder), made.document);
    return made;
  }
  const bool merges = fs::exists(folder / "vocab.json") && fs::exists(folder / "merges.txt");
  const fs::path pieces = sentencepiece_file(folder);
  if (!merges && pieces.empty()) return std::nullopt;
  Configuration config(folder);
  const std::string kind = config.tokenizer_class();
  if (!pieces.empty() && (!merges || reads_sentencepiece(kind))) {
    if (!reads_sentencepiece(kind)) return std::nullopt;
    made.document = of_sentencepiece(pieces, kind, config);
    made.origin = pieces.string();
  } else {
    made.document = of_merges(folder, kind, config);
    made.origin = (folder / "vocab.json").string();
  }
  add_tokens(config, made.document);
  frame(config, made.document);
  made.bos = config.name("bos_token");
  made.eos = config.name("eos_token");
  return made;
}

}  // namespace qb
