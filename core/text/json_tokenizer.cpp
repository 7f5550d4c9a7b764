#include "core/text/json_tokenizer.h"

#include <fmt/format.h>

#include <unordered_map>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/text/bpe.h"
#include "core/text/model_files.h"
#include "core/text/unigram.h"

namespace qb {
namespace {

const nlohmann::json nothing;

JsonField field_or_null(const JsonField& f, const char* key) {
  return f.has(key) ? f.at(key) : JsonField(nothing, f.origin(), key);
}

Vocabulary read_vocabulary(const JsonField& f) {
  Vocabulary vocabulary;
  const std::string where = f.object().where();
  for (const auto& [token, id] : f.value().items()) {
    if (!id.is_number_integer()) f.at(token).fail_type("an integer");
    vocabulary.add(token, id.is_number_unsigned() && id.get<uint64_t>() > INT64_MAX ? INT64_MAX : id.get<int64_t>(), where);
  }
  return vocabulary;
}

// "a b" or ["a", "b"]; ranks by position.
MergeTable read_merges(const JsonField& f, const Vocabulary& vocabulary, const std::string& prefix) {
  const auto& list = f.array().value();
  MergeTable merges(list.size());
  uint32_t rank = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    const auto& item = list[i];
    std::string left, right;
    if (item.is_string()) {
      const auto& line = item.get_ref<const std::string&>();
      if (line.starts_with("#version")) continue;
      const size_t at = line.find(' ');
      if (at == std::string::npos || line.find(' ', at + 1) != std::string::npos)
        f.at(i).fail(fmt::format("expected two tokens with a space between, found '{}'", line));
      left = line.substr(0, at);
      right = line.substr(at + 1);
    } else if (item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string()) {
      left = item[0].get<std::string>();
      right = item[1].get<std::string>();
    } else {
      f.at(i).fail("expected two tokens");
    }
    auto id = [&](const std::string& token) {
      const auto found = vocabulary.find(token);
      if (!found) f.at(i).fail(fmt::format("the token '{}' is not in the vocabulary", token));
      return *found;
    };
    const int32_t a = id(left), b = id(right);
    if (right.size() < prefix.size()) f.at(i).fail(fmt::format("'{}' lacks the continuing_subword_prefix '{}'", right, prefix));
    merges.set(a, b, {rank++, id(left + right.substr(prefix.size()))});
  }
  return merges;
}

std::unique_ptr<TokenModel> read_bpe(const JsonField& f, bool byte_level) {
  BpeOptions options;
  options.unknown = f.optional_text("unk_token");
  options.continuing_prefix = f.text_or("continuing_subword_prefix", "");
  options.end_suffix = f.text_or("end_of_word_suffix", "");
  options.fuse_unknown = f.boolean_or("fuse_unk", false);
  options.byte_fallback = f.boolean_or("byte_fallback", false);
  options.ignore_merges = f.boolean_or("ignore_merges", false);
  options.byte_level = byte_level;
  Vocabulary vocabulary = read_vocabulary(f.at("vocab"));
  MergeTable merges = read_merges(f.at("merges"), vocabulary, options.continuing_prefix);
  return std::make_unique<Bpe>(std::move(vocabulary), std::move(merges), std::move(options), f.origin());
}

std::unique_ptr<TokenModel> read_unigram(const JsonField& f) {
  const JsonField list = f.at("vocab").array();
  Vocabulary vocabulary;
  std::vector<double> scores;
  for (size_t i = 0; i < list.size(); ++i) {
    const auto& item = list.value()[i];
    if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_number())
      list.at(i).fail("expected a token and its score");
    vocabulary.add(item[0].get<std::string>(), static_cast<int64_t>(i), list.where(), true);
    scores.push_back(item[1].get<double>());
  }
  std::optional<int32_t> unknown;
  if (f.has("unk_id")) unknown = static_cast<int32_t>(f.at("unk_id").integer(0, static_cast<int64_t>(list.size()) - 1));
  return std::make_unique<Unigram>(std::move(vocabulary), std::move(scores), unknown, f.boolean_or("byte_fallback", false), f.origin());
}

std::unique_ptr<TokenModel> read_model(const JsonField& f, bool byte_level) {
  const std::string type = f.object().text_or("type", f.has("merges") ? "BPE" : "");
  if (type == "BPE") return read_bpe(f, byte_level);
  if (type == "Unigram") {
    if (byte_level) f.fail("a Unigram model behind a ByteLevel pre-tokenizer is not supported");
    return read_unigram(f);
  }
  f.at("type").fail(fmt::format("expected BPE or Unigram, found '{}'", type));
}

// tokenizers numbers added tokens itself: a token of the vocabulary keeps its id, others follow its end. A file that
// disagrees would get other ids there than it says.
AddedTokens read_added(const JsonField& f, const Vocabulary& vocabulary, const std::vector<std::unique_ptr<Normalizer>>& normalizers) {
  std::vector<AddedToken> tokens;
  if (f.value().is_null()) return AddedTokens(tokens, normalizers);
  const JsonField list = f.array();
  auto next = static_cast<int32_t>(vocabulary.count());
  std::unordered_map<std::string, size_t> places;
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonField item = list.at(i).object();
    AddedToken t;
    t.id = static_cast<int32_t>(item.at("id").integer(0, Vocabulary::highest_id));
    t.content = item.at("content").text();
    t.single_word = item.at("single_word").boolean();
    t.lstrip = item.at("lstrip").boolean();
    t.rstrip = item.at("rstrip").boolean();
    t.normalized = item.at("normalized").boolean();
    t.special = item.at("special").boolean();
    if (t.content.empty()) continue;
    const auto same = places.find(t.content);
    const auto known = vocabulary.find(t.content);
    const int32_t expected = same != places.end() ? tokens[same->second].id : known ? *known : next;
    if (t.id != expected) {
      item.at("id").fail(known ? fmt::format("'{}' has the id {}, but {} in model.vocab", t.content, t.id, expected)
                               : fmt::format("'{}' has the id {}, expected {} (ids of added tokens follow the vocabulary's without holes)",
                                             t.content, t.id, expected));
    }
    if (same != places.end()) {
      tokens[same->second] = t;
    } else {
      if (!known) {
        if (vocabulary.has(t.id)) item.at("id").fail(fmt::format("{} is also the id of '{}' in model.vocab", t.id, vocabulary.token(t.id)));
        ++next;
      }
      places[t.content] = tokens.size();
      tokens.push_back(std::move(t));
    }
  }
  return AddedTokens(std::move(tokens), normalizers);
}

std::optional<std::string> token_name(const JsonField& config, const char* key) {
  if (!config.has(key)) return std::nullopt;
  const JsonField f = config.at(key);
  return f.value().is_object() ? f.at("content").text() : f.text();
}

}  // namespace

PipelineTokenizer::Parts read_tokenizer_json(std::string_view text, const std::string& origin) { return read_tokenizer_document(JsonField::parse(text, origin), origin); }

PipelineTokenizer::Parts read_tokenizer_document(const nlohmann::json& document, const std::string& origin) {
  const JsonField root(document, origin);
  if (root.object().has("version") && root.at("version").text() != "1.0")
    root.at("version").fail("expected '1.0', found '" + root.at("version").text() + "'");
  PipelineTokenizer::Parts parts;
  parts.normalizers = make_normalizers(field_or_null(root, "normalizer"));
  parts.pre_tokenization = make_pre_tokenization(field_or_null(root, "pre_tokenizer"));
  parts.model = read_model(root.at("model"), parts.pre_tokenization.byte_level);
  parts.added = read_added(field_or_null(root, "added_tokens"), parts.model->vocabulary(), parts.normalizers);
  parts.frame = make_special_frame(field_or_null(root, "post_processor"));
  parts.decoder = make_decoder(field_or_null(root, "decoder"));
  if (!parts.frame.before.empty()) parts.bos = parts.frame.before.front();
  if (!parts.frame.after.empty()) parts.eos = parts.frame.after.back();
  return parts;
}

void read_special_names(const std::filesystem::path& folder, PipelineTokenizer::Parts& parts) {
  auto id_of = [&](const std::string& name) -> std::optional<int32_t> {
    if (const auto* added = parts.added.by_content(name)) return added->id;
    return parts.model->vocabulary().find(name);
  };
  for (const char* file : {"special_tokens_map.json", "tokenizer_config.json"}) {
    const auto names = folder / file;
    if (!std::filesystem::exists(names)) continue;
    const nlohmann::json document = read_json(names);
    const JsonField config = JsonField(document, names.string()).object();
    if (auto name = token_name(config, "bos_token")) parts.bos = id_of(*name);
    if (auto name = token_name(config, "eos_token")) parts.eos = id_of(*name);
  }
  const auto model = folder / "config.json";
  if ((parts.bos && parts.eos) || !std::filesystem::exists(model)) return;
  const nlohmann::json document = JsonField::parse(read_text(model, uint64_t{64} << 20), model.string());
  const JsonField config = JsonField(document, model.string()).object();
  auto numbered = [&](const char* key, std::optional<int32_t>& id) {
    if (id || !config.has(key)) return;
    JsonField f = config.at(key);
    if (f.value().is_array() && f.size() > 0) f = f.at(size_t{0});  // several ends: the first
    id = static_cast<int32_t>(f.integer(0, Vocabulary::highest_id));
  };
  numbered("bos_token_id", parts.bos);
  numbered("eos_token_id", parts.eos);
}

}  // namespace qb
