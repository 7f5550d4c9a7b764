#include "core/text/normalizer.h"

#include <fmt/format.h>

#include "core/text/byte_alphabet.h"
#include "core/text/precompiled.h"
#include "core/text/regex.h"
#include "core/text/replacement.h"
#include "core/text/unicode.h"
#include "core/text/utf8.h"

namespace qb {
namespace {

class FormNormalizer final : public Normalizer {
 public:
  explicit FormNormalizer(unicode::Form form) : form_(form) {}
  void apply(std::string& text) const override { text = unicode::normalize(text, form_); }

 private:
  unicode::Form form_;
};

class PrependNormalizer final : public Normalizer {
 public:
  explicit PrependNormalizer(std::string prefix) : prefix_(std::move(prefix)) {}
  void apply(std::string& text) const override {
    if (!text.empty()) text.insert(0, prefix_);
  }

 private:
  std::string prefix_;
};

class ReplaceNormalizer final : public Normalizer {
 public:
  explicit ReplaceNormalizer(const JsonField& f) : replacement_(f) {}
  void apply(std::string& text) const override { text = replacement_.apply(text); }

 private:
  Replacement replacement_;
};

class StripNormalizer final : public Normalizer {
 public:
  StripNormalizer(bool left, bool right) : left_(left), right_(right) {}
  void apply(std::string& text) const override {
    const char *begin = text.data(), *end = begin + text.size();
    while (left_ && begin < end) {
      const auto [c, n] = utf8::decode(begin);
      if (!unicode::is_space(c)) break;
      begin += n;
    }
    while (right_ && begin < end) {
      const char* last = utf8::previous(end);
      if (!unicode::is_space(utf8::decode(last).code_point)) break;
      end = last;
    }
    text = std::string(begin, end);
  }

 private:
  bool left_, right_;
};

class LowercaseNormalizer final : public Normalizer {
 public:
  void apply(std::string& text) const override { text = unicode::lowercase(text); }
};

class StripAccentsNormalizer final : public Normalizer {
 public:
  void apply(std::string& text) const override { text = unicode::strip_accents(text); }
};

class ByteLevelNormalizer final : public Normalizer {
 public:
  void apply(std::string& text) const override { text = ByteAlphabet::get().spell(text); }
};

// SentencePiece's own clean-up of control characters and odd spaces.
class NmtNormalizer final : public Normalizer {
 public:
  void apply(std::string& text) const override {
    std::string out;
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
      const auto [c, n] = utf8::decode(p);
      const bool dropped = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
      const bool blank = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) || c == 0x2028 ||
                         c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
      if (blank) {
        out += ' ';
      } else if (!dropped) {
        out.append(p, static_cast<size_t>(n));
      }
      p += n;
    }
    text = std::move(out);
  }
};

class PrecompiledNormalizer final : public Normalizer {
 public:
  explicit PrecompiledNormalizer(const JsonField& f) : map_(f.at("precompiled_charsmap").text(), f.where()) {}
  void apply(std::string& text) const override { text = map_.apply(text); }

 private:
  PrecompiledMap map_;
};

void add(const JsonField& f, std::vector<std::unique_ptr<Normalizer>>& out) {
  const std::string type = f.object().at("type").text();
  if (type == "Sequence") {
    const JsonField list = f.at("normalizers").array();
    for (size_t i = 0; i < list.size(); ++i) add(list.at(i), out);
  } else if (type == "NFC") {
    out.push_back(std::make_unique<FormNormalizer>(unicode::Form::nfc));
  } else if (type == "NFD") {
    out.push_back(std::make_unique<FormNormalizer>(unicode::Form::nfd));
  } else if (type == "NFKC") {
    out.push_back(std::make_unique<FormNormalizer>(unicode::Form::nfkc));
  } else if (type == "NFKD") {
    out.push_back(std::make_unique<FormNormalizer>(unicode::Form::nfkd));
  } else if (type == "Prepend") {
    out.push_back(std::make_unique<PrependNormalizer>(f.at("prepend").text()));
  } else if (type == "Replace") {
    out.push_back(std::make_unique<ReplaceNormalizer>(f));
  } else if (type == "Strip") {
    out.push_back(std::make_unique<StripNormalizer>(f.at("strip_left").boolean(), f.at("strip_right").boolean()));
  } else if (type == "Lowercase") {
    out.push_back(std::make_unique<LowercaseNormalizer>());
  } else if (type == "StripAccents") {
    out.push_back(std::make_unique<StripAccentsNormalizer>());
  } else if (type == "ByteLevel") {
    out.push_back(std::make_unique<ByteLevelNormalizer>());
  } else if (type == "Nmt") {
    out.push_back(std::make_unique<NmtNormalizer>());
  } else if (type == "Precompiled") {
    out.push_back(std::make_unique<PrecompiledNormalizer>(f));
  } else {
    f.at("type").fail(fmt::format("the normalizer '{}' is not supported", type));
  }
}

}  // namespace

std::vector<std::unique_ptr<Normalizer>> make_normalizers(const JsonField& description) {
  std::vector<std::unique_ptr<Normalizer>> out;
  if (!description.value().is_null()) add(description, out);
  return out;
}

}  // namespace qb
