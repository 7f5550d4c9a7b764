#include "core/text/sentencepiece_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/text/added_tokens.h"
#include "core/text/json_field.h"
#include "core/text/model_files.h"
#include "core/text/post_processor.h"
#include "core/text/utf8.h"
#include "core/text/vocabulary.h"

namespace qb {
namespace {

using sentencepiece::SentencePieceProcessor;

class SentencePieceTokenizer final : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(const std::filesystem::path& path) : origin_(path.string()) {
    const std::string model = read_text(path, uint64_t{1} << 30);
    check(spaced_.LoadFromSerializedProto(model), "not a SentencePiece model");
    // A message appended to a serialized one is merged into it: normalizer_spec (3) with add_dummy_prefix (3) off.
    check(plain_.LoadFromSerializedProto(model + std::string("\x1A\x02\x18\x00", 4)), "not a SentencePiece model");
    pieces_ = spaced_.GetPieceSize();
    size_ = pieces_;
    if (spaced_.bos_id() >= 0) bos_ = spaced_.bos_id();
    if (spaced_.eos_id() >= 0) eos_ = spaced_.eos_id();
    read_config(path.parent_path() / "tokenizer_config.json");
  }

  std::vector<int32_t> encode(std::string_view text, bool add_special) const override {
    std::string repaired;
    if (!utf8::valid(text)) text = repaired = utf8::replace_invalid(text);
    std::vector<int32_t> ids;
    std::vector<int> part;
    for (const auto& f : added_.find(text, AddedTokens::Stage::raw)) {
      if (f.id) {
        ids.push_back(*f.id);
        continue;
      }
      const auto segment = text.substr(f.begin, f.end - f.begin);
      part.clear();
      const auto& processor = legacy_ || f.begin == 0 ? spaced_ : plain_;
      check(processor.Encode({segment.data(), segment.size()}, &part), "cannot encode");
      ids.insert(ids.end(), part.begin(), part.end());
    }
    return add_special ? frame_.around(std::move(ids)) : ids;
  }

  std::string decode(std::span<const int32_t> ids, bool skip_special) const override {
    std::string out;
    std::vector<int> part;
    auto flush = [&] {
      std::string text;
      check(spaced_.Decode(part, &text), "cannot decode");
      out += text;
      part.clear();
    };
    for (int32_t id : ids) {
      if (const AddedToken* token = added_.by_id(id)) {
        flush();
        if (!(token->special && skip_special)) out += token->content;
      } else if (id >= 0 && id < pieces_) {
        part.push_back(id);
      }
    }
    flush();
    return out;
  }

  std::string token(int32_t id) const override {
    if (const AddedToken* added = added_.by_id(id)) return added->content;
    return id >= 0 && id < pieces_ ? spaced_.IdToPiece(id) : "";
  }

  std::optional<int32_t> id_of(std::string_view token) const override {
    if (const AddedToken* added = added_.by_content(token)) return added->id;
    const int id = spaced_.PieceToId({token.data(), token.size()});
    if (id < 0 || id >= pieces_ || spaced_.IdToPiece(id) != token) return std::nullopt;
    return id;
  }

  int64_t vocabulary_size() const override { return size_; }
  std::optional<int32_t> bos() const override { return bos_; }
  std::optional<int32_t> eos() const override { return eos_; }
  std::string description() const override { return fmt::format("SentencePiece, {} tokens", size_); }

 private:
  void check(const sentencepiece::util::Status& status, const char* what) const {
    if (!status.ok()) throw InputError(fmt::format("{}: {}: {}", origin_, what, status.ToString()));
  }

  void read_config(const std::filesystem::path& path) {
    std::vector<AddedToken> tokens;
    for (int id = 0; id < pieces_; ++id)
      if (spaced_.IsControl(id) || spaced_.IsUnknown(id)) tokens.push_back({.id = id, .content = spaced_.IdToPiece(id), .special = true});
    nlohmann::json document = nlohmann::json::object();
    if (std::filesystem::exists(path)) document = JsonField::parse(read_text(path, uint64_t{64} << 20), path.string());
    const JsonField config = JsonField(document, path.string()).object();
    if (config.has("added_tokens_decoder")) {
      const JsonField list = config.at("added_tokens_decoder").object();
      for (const auto& [key, value] : list.value().items()) {
        const JsonField f = list.at(key).object();
        if (key.empty() || key.size() > 8 || key.find_first_not_of("0123456789") != std::string::npos) f.fail("expected a token id as key");
        AddedToken t{.id = std::stoi(key), .content = f.at("content").text()};
        t.single_word = f.boolean_or("single_word", false);
        t.lstrip = f.boolean_or("lstrip", false);
        t.rstrip = f.boolean_or("rstrip", false);
        t.special = f.boolean_or("special", false);
        if (t.id < pieces_ && spaced_.IdToPiece(t.id) != t.content)
          f.fail(fmt::format("'{}' stands at the id of '{}' in the model", t.content, spaced_.IdToPiece(t.id)));
        std::erase_if(tokens, [&](const AddedToken& o) { return o.id == t.id; });
        size_ = std::max<int64_t>(size_, t.id + int64_t{1});
        tokens.push_back(std::move(t));
      }
    } else if (const auto older = path.parent_path() / "added_tokens.json"; std::filesystem::exists(older)) {
      const nlohmann::json list = read_json(older);
      const JsonField root = JsonField(list, older.string()).object();
      for (const auto& [text, value] : list.items()) {
        AddedToken t{.id = static_cast<int32_t>(root.at(text).integer(0, Vocabulary::highest_id)), .content = text};
        std::erase_if(tokens, [&](const AddedToken& o) { return o.id == t.id; });
        size_ = std::max<int64_t>(size_, t.id + int64_t{1});
        tokens.push_back(std::move(t));
      }
    }
    added_ = AddedTokens(std::move(tokens), {});
    auto name = [&](const char* key, std::optional<int32_t>& id) {
      if (!config.has(key)) return;
      const JsonField f = config.at(key);
      id = id_of(f.value().is_object() ? f.at("content").text() : f.text());
    };
    name("bos_token", bos_);
    name("eos_token", eos_);
    legacy_ = config.boolean_or("legacy", true);
    if (config.boolean_or("add_bos_token", true) && bos_) frame_.before = {*bos_};
    if (config.boolean_or("add_eos_token", false) && eos_) frame_.after = {*eos_};
  }

  std::string origin_;
  SentencePieceProcessor spaced_, plain_;  // with and without the model's own leading space
  AddedTokens added_;
  SpecialFrame frame_;
  std::optional<int32_t> bos_, eos_;
  int pieces_ = 0;
  int64_t size_ = 0;
  bool legacy_ = true;
};

}  // namespace

std::shared_ptr<const Tokenizer> load_sentencepiece(const std::filesystem::path& path) { return std::make_shared<SentencePieceTokenizer>(path); }

}  // namespace qb
