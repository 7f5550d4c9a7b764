#include "core/text/decoder_chain.h"

#include <fmt/format.h>

#include <charconv>

#include "core/text/byte_alphabet.h"
#include "core/text/replacement.h"
#include "core/text/utf8.h"

namespace qb {
namespace {

std::string joined(const std::vector<std::string>& tokens) {
  std::string out;
  for (const auto& t : tokens) out += t;
  return out;
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) text.replace(at, from.size(), to);
}

class ByteLevelDecoder final : public DecoderStep {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::string bytes;
    for (const auto& t : tokens) bytes += ByteAlphabet::get().read(t).value_or(t);
    tokens = {utf8::replace_invalid(bytes)};
  }
};

class ReplaceDecoder final : public DecoderStep {
 public:
  explicit ReplaceDecoder(const JsonField& f) : replacement_(f) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (auto& t : tokens) t = replacement_.apply(t);
  }

 private:
  Replacement replacement_;
};

class ByteFallbackDecoder final : public DecoderStep {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::vector<std::string> out;
    std::string bytes;
    auto flush = [&] {
      if (utf8::valid(bytes)) {
        if (!bytes.empty()) out.push_back(bytes);
      } else {
        out.insert(out.end(), bytes.size(), "\xEF\xBF\xBD");
      }
      bytes.clear();
    };
    for (auto& t : tokens) {
      unsigned value = 0;
      bool is_byte = t.size() == 6 && t.starts_with("<0x") && t.back() == '>';
      if (is_byte) {
        // Rust reads a leading plus sign too.
        const char* first = t.data() + (t[3] == '+' ? 4 : 3);
        const auto r = std::from_chars(first, t.data() + 5, value, 16);
        is_byte = r.ec == std::errc() && r.ptr == t.data() + 5;
      }
      if (is_byte) {
        bytes += static_cast<char>(value);
      } else {
        flush();
        out.push_back(std::move(t));
      }
    }
    flush();
    tokens = std::move(out);
  }
};

class FuseDecoder final : public DecoderStep {
 public:
  void apply(std::vector<std::string>& tokens) const override { tokens = {joined(tokens)}; }
};

class StripDecoder final : public DecoderStep {
 public:
  explicit StripDecoder(const JsonField& f)
      : content_(f.at("content").text()), start_(f.at("start").integer(0, 1 << 30)), stop_(f.at("stop").integer(0, 1 << 30)) {
    if (content_.empty()) f.at("content").fail("expected a character, found nothing");
  }
  void apply(std::vector<std::string>& tokens) const override {
    for (auto& t : tokens) {
      std::string_view rest = t;
      for (int64_t i = 0; i < start_ && rest.starts_with(content_); ++i) rest.remove_prefix(content_.size());
      for (int64_t i = 0; i < stop_ && rest.ends_with(content_); ++i) rest.remove_suffix(content_.size());
      t = std::string(rest);
    }
  }

 private:
  std::string content_;
  int64_t start_, stop_;
};

class MetaspaceDecoder final : public DecoderStep {
 public:
  explicit MetaspaceDecoder(const JsonField& f)
      : replacement_(f.at("replacement").text()), drops_first_(f.text_or("prepend_scheme", "always") != "never") {
    if (replacement_.empty()) f.at("replacement").fail("expected a character, found nothing");
    if (f.has("add_prefix_space") && !f.at("add_prefix_space").boolean()) drops_first_ = false;
  }
  void apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) replace_all(tokens[i], replacement_, i == 0 && drops_first_ ? "" : " ");
  }

 private:
  std::string replacement_;
  bool drops_first_;
};

class WordPieceDecoder final : public DecoderStep {
 public:
  explicit WordPieceDecoder(const JsonField& f) : prefix_(f.at("prefix").text()), cleanup_(f.at("cleanup").boolean()) {}
  void apply(std::vector<std::string>& tokens) const override {
    static const std::pair<const char*, const char*> cleanups[] = {{" .", "."},     {" ?", "?"},   {" !", "!"},           {" ,", ","},
                                                                   {" ' ", "'"},    {" n't", "n't"}, {" 'm", "'m"},       {" do not", " don't"},
                                                                   {" 's", "'s"},   {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::string& t = tokens[i];
      if (i > 0) t = t.starts_with(prefix_) ? t.substr(prefix_.size()) : " " + t;
      if (!cleanup_) continue;
      for (const auto& [from, to] : cleanups) replace_all(t, from, to);
    }
  }

 private:
  std::string prefix_;
  bool cleanup_;
};

class BpeDecoder final : public DecoderStep {
 public:
  explicit BpeDecoder(const JsonField& f) : suffix_(f.at("suffix").text()) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) replace_all(tokens[i], suffix_, i + 1 == tokens.size() ? "" : " ");
  }

 private:
  std::string suffix_;
};

void add(const JsonField& f, std::vector<std::unique_ptr<DecoderStep>>& out) {
  const std::string type = f.object().at("type").text();
  if (type == "Sequence") {
    const JsonField list = f.at("decoders").array();
    for (size_t i = 0; i < list.size(); ++i) add(list.at(i), out);
  } else if (type == "ByteLevel") {
    out.push_back(std::make_unique<ByteLevelDecoder>());
  } else if (type == "Replace") {
    out.push_back(std::make_unique<ReplaceDecoder>(f));
  } else if (type == "ByteFallback") {
    out.push_back(std::make_unique<ByteFallbackDecoder>());
  } else if (type == "Fuse") {
    out.push_back(std::make_unique<FuseDecoder>());
  } else if (type == "Strip") {
    out.push_back(std::make_unique<StripDecoder>(f));
  } else if (type == "Metaspace") {
    out.push_back(std::make_unique<MetaspaceDecoder>(f));
  } else if (type == "WordPiece") {
    out.push_back(std::make_unique<WordPieceDecoder>(f));
  } else if (type == "BPEDecoder") {
    out.push_back(std::make_unique<BpeDecoder>(f));
  } else {
    f.at("type").fail(fmt::format("the decoder '{}' is not supported", type));
  }
}

}  // namespace

std::vector<std::unique_ptr<DecoderStep>> make_decoder(const JsonField& description) {
  std::vector<std::unique_ptr<DecoderStep>> out;
  if (!description.value().is_null()) add(description, out);
  return out;
}

}  // namespace qb
