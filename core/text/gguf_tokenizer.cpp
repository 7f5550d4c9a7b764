#include "core/text/gguf_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/format/gguf.h"
#include "core/text/bpe.h"
#include "core/text/gguf_pre_tokenizers.h"
#include "core/text/score_merges.h"
#include "core/text/utf8.h"

namespace qb {
namespace {

// ggml's token types.
enum TokenType : int64_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

class Reader {
 public:
  explicit Reader(const GgufFile& file) : file_(file), origin_(file.files().front().string()) {}

  PipelineTokenizer::Parts read() {
    const auto model = file_.text("tokenizer.ggml.model");
    if (!model) throw InputError(origin_ + ": tokenizer.ggml.model is missing: no tokenizer in this file");
    tokens_ = file_.texts("tokenizer.ggml.tokens");
    if (!tokens_) throw InputError(origin_ + ": tokenizer.ggml.tokens is missing");
    types_ = file_.integers("tokenizer.ggml.token_type");
    if (types_ && types_->size() != tokens_->size())
      throw InputError(fmt::format("{}: tokenizer.ggml.token_type has {} entries, expected one a token ({})", origin_, types_->size(), tokens_->size()));
    const std::string where = origin_ + ": tokenizer.ggml.tokens";
    for (size_t i = 0; i < tokens_->size(); ++i) {
      if (!utf8::valid((*tokens_)[i])) throw InputError(fmt::format("{}[{}]: not valid UTF-8", where, i));
      vocabulary_.add((*tokens_)[i], static_cast<int64_t>(i), where, true);
    }
    parts_.bos = id("tokenizer.ggml.bos_token_id");
    parts_.eos = id("tokenizer.ggml.eos_token_id");
    if (*model == "gpt2") {
      byte_level();
    } else if (*model == "llama") {
      scored();
    } else {
      throw InputError(fmt::format("{}: tokenizer.ggml.model is '{}', expected gpt2 or llama", origin_, *model));
    }
    return std::move(parts_);
  }

 private:
  int64_t type(size_t i) const { return types_ ? (*types_)[i] : normal; }

  std::optional<int32_t> id(const std::string& key) const {
    const auto value = file_.integer(key);
    if (!value || *value == 0xFFFFFFFF || *value == -1) return std::nullopt;  // "none", as some converters write it
    if (*value < 0 || static_cast<size_t>(*value) >= tokens_->size())
      throw InputError(fmt::format("{}: {} is {}, outside the {} tokens", origin_, key, *value, tokens_->size()));
    return static_cast<int32_t>(*value);
  }

  void frame(bool bos_by_default) {
    if (file_.boolean("tokenizer.ggml.add_bos_token").value_or(bos_by_default) && parts_.bos) parts_.frame.before = {*parts_.bos};
    if (file_.boolean("tokenizer.ggml.add_eos_token").value_or(false) && parts_.eos) parts_.frame.after = {*parts_.eos};
  }

  // Control and user-defined tokens are found in the text itself, before anything else.
  void added() {
    std::vector<AddedToken> added;
    for (size_t i = 0; i < tokens_->size(); ++i) {
      const int64_t t = type(i);
      if ((t == control || t == user_defined || t == unknown) && !(*tokens_)[i].empty())
        added.push_back({.id = static_cast<int32_t>(i), .content = (*tokens_)[i], .special = t != user_defined});
    }
    parts_.added = AddedTokens(std::move(added), {});
  }

  template <class Json>
  JsonField as_field(const Json& json, const char* key) const {
    return JsonField(json, origin_, key);
  }

  void byte_level() {
    // A file from before this key: GPT-2's rule, as transformers has it, though its own tokenizer may have been another.
    const std::string name = file_.text("tokenizer.ggml.pre").value_or("gpt-2");
    if (!file_.text("tokenizer.ggml.pre"))
      parts_.notes.push_back(fmt::format("{}: tokenizer.ggml.pre is missing: text is cut by GPT-2's rule; a file converted anew says how its model was trained", origin_));
    const auto pre = gguf_pre_tokenizer(name);
    if (!pre)
      throw InputError(fmt::format("{}: tokenizer.ggml.pre is '{}', which is not known (known: {})", origin_, name, known_gguf_pre_tokenizers()));
    parts_.pre_tokenization = make_pre_tokenization(as_field(pre->description, "tokenizer.ggml.pre"));
    const auto* lines = file_.texts("tokenizer.ggml.merges");
    if (!lines) throw InputError(origin_ + ": tokenizer.ggml.merges is missing");
    MergeTable merges(lines->size());
    for (size_t i = 0; i < lines->size(); ++i) {
      const std::string& line = (*lines)[i];
      const size_t at = line.find(' ', 1);
      auto look_up = [&](const std::string& token) {
        const auto found = vocabulary_.find(token);
        if (!found) throw InputError(fmt::format("{}: tokenizer.ggml.merges[{}]: the token '{}' is not in the vocabulary", origin_, i, token));
        return *found;
      };
      if (at == std::string::npos) throw InputError(fmt::format("{}: tokenizer.ggml.merges[{}]: expected two tokens, found '{}'", origin_, i, line));
      const std::string left = line.substr(0, at), right = line.substr(at + 1);
      merges.set(look_up(left), look_up(right), {static_cast<uint32_t>(i), look_up(left + right)});
    }
    added();
    frame(pre->add_bos);
    const nlohmann::json decoder = {{"type", "ByteLevel"}};
    parts_.decoder = make_decoder(as_field(decoder, "decoder"));
    BpeOptions options;
    options.byte_level = true;
    options.ignore_merges = pre->ignore_merges;
    parts_.model = std::make_unique<Bpe>(std::move(vocabulary_), std::move(merges), std::move(options), origin_);
  }

  void scored() {
    const auto* scores = file_.reals("tokenizer.ggml.scores");
    if (!scores || scores->size() != tokens_->size())
      throw InputError(fmt::format("{}: tokenizer.ggml.scores has {} entries, expected one a token ({})", origin_, scores ? scores->size() : 0,
                                   tokens_->size()));
    std::vector<bool> mergeable(tokens_->size());
    for (size_t i = 0; i < tokens_->size(); ++i) mergeable[i] = type(i) == normal;
    MergeTable merges = merges_from_scores(vocabulary_, *scores, mergeable);
    added();
    frame(true);
    const bool prefix = file_.boolean("tokenizer.ggml.add_space_prefix").value_or(true);
    nlohmann::json normalizers = nlohmann::json::array();
    if (prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", "▁"}});
    normalizers.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}});
    const nlohmann::json sequence = {{"type", "Sequence"}, {"normalizers", normalizers}};
    parts_.normalizers = make_normalizers(as_field(sequence, "normalizer"));
    nlohmann::json decoders = {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}}, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
    if (prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    const nlohmann::json decoder = {{"type", "Sequence"}, {"decoders", decoders}};
    parts_.decoder = make_decoder(as_field(decoder, "decoder"));
    BpeOptions options;
    options.byte_fallback = true;
    options.fuse_unknown = true;
    if (const auto u = id("tokenizer.ggml.unknown_token_id")) options.unknown = (*tokens_)[static_cast<size_t>(*u)];
    parts_.model = std::make_unique<Bpe>(std::move(vocabulary_), std::move(merges), std::move(options), origin_);
  }

  const GgufFile& file_;
  std::string origin_;
  const std::vector<std::string>* tokens_ = nullptr;
  const std::vector<int64_t>* types_ = nullptr;
  Vocabulary vocabulary_;
  PipelineTokenizer::Parts parts_;
};

}  // namespace

PipelineTokenizer::Parts read_gguf_tokenizer(const GgufFile& file) { return Reader(file).read(); }

}  // namespace qb
