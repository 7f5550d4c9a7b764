#include "core/text/pre_tokenizer.h"

#include <fmt/format.h>

#include <optional>

#include "core/text/byte_alphabet.h"
#include "core/text/regex.h"
#include "core/text/regex_syntax.h"
#include "core/text/split_behavior.h"
#include "core/text/unicode.h"
#include "core/text/utf8.h"
#include "core/text/word_scanner.h"

namespace qb {
namespace {

class SplitStep final : public PreTokenizer {
 public:
  explicit SplitStep(const JsonField& f) : behavior_(read_split_behavior(f.at("behavior"))), invert_(f.at("invert").boolean()) {
    const JsonField pattern = f.at("pattern").object();
    if (pattern.has("String")) {
      literal_ = pattern.at("String").text();
      if (literal_.empty()) regex_.emplace("", pattern.where());
      return;
    }
    const std::string text = pattern.at("Regex").text();
    // Where the pattern covers every text, removing what it does not match changes nothing.
    const bool whole = (behavior_ == SplitBehavior::isolated) || (behavior_ == SplitBehavior::removed && invert_);
    if (whole) known_ = known_pattern(text);
    if (!known_) regex_.emplace(text, pattern.where());
  }

  void split(std::string_view piece, bool at_start, PieceSink& next) const override {
    if (known_) {
      scan_words(*known_, piece, next, at_start);
      return;
    }
    std::vector<Span> spans;
    size_t done = 0;
    auto matched = [&](size_t begin, size_t end) {
      if (begin != done) spans.push_back({done, begin, invert_});
      spans.push_back({begin, end, !invert_});
      done = end;
    };
    if (regex_) {
      regex_->each_match(piece, matched);
    } else {
      for (size_t at = piece.find(literal_); at != std::string_view::npos; at = piece.find(literal_, done)) matched(at, at + literal_.size());
    }
    if (done != piece.size()) spans.push_back({done, piece.size(), invert_});
    emit_spans(piece, spans, behavior_, at_start, next);
  }

 private:
  SplitBehavior behavior_;
  bool invert_;
  std::string literal_;
  std::optional<WordPattern> known_;
  std::optional<Regex> regex_;
};

// Splits at single characters of a kind.
template <bool (*is_delimiter)(uint32_t)>
class CharacterStep final : public PreTokenizer {
 public:
  explicit CharacterStep(SplitBehavior behavior) : behavior_(behavior) {}
  void split(std::string_view piece, bool at_start, PieceSink& next) const override {
    const char *begin = piece.data(), *end = begin + piece.size();
    if (behavior_ == SplitBehavior::isolated || behavior_ == SplitBehavior::removed) {
      const char* from = begin;
      auto pass = [&](const char* a, const char* b) {
        if (a != b) next.take({a, static_cast<size_t>(b - a)}, at_start && a == begin);
      };
      for (const char* p = begin; p < end;) {
        const auto [c, n] = utf8::decode(p);
        if (is_delimiter(c)) {
          pass(from, p);
          if (behavior_ == SplitBehavior::isolated) pass(p, p + n);
          from = p + n;
        }
        p += n;
      }
      pass(from, end);
      return;
    }
    std::vector<Span> spans;
    size_t done = 0;
    for (const char* p = begin; p < end;) {
      const auto [c, n] = utf8::decode(p);
      if (is_delimiter(c)) {
        const auto at = static_cast<size_t>(p - begin);
        if (done < at) spans.push_back({done, at, false});
        done = at + static_cast<size_t>(n);
        spans.push_back({at, done, true});
      }
      p += n;
    }
    if (done < piece.size()) spans.push_back({done, piece.size(), false});
    emit_spans(piece, spans, behavior_, at_start, next);
  }

 private:
  SplitBehavior behavior_;
};

class DelimiterStep final : public PreTokenizer {
 public:
  explicit DelimiterStep(std::string delimiter) : delimiter_(std::move(delimiter)) {}
  void split(std::string_view piece, bool at_start, PieceSink& next) const override {
    for (size_t from = 0; from <= piece.size();) {
      const size_t at = std::min(piece.find(delimiter_, from), piece.size());
      if (at > from) next.take(piece.substr(from, at - from), at_start && from == 0);
      from = at + delimiter_.size();
    }
  }

 private:
  std::string delimiter_;
};

// \w+|[^\w\s]+ with Rust's \w; what lies between is dropped.
class WhitespaceStep final : public PreTokenizer {
 public:
  void split(std::string_view piece, bool at_start, PieceSink& next) const override {
    enum Kind { none, word, other };
    const char *begin = piece.data(), *end = begin + piece.size(), *from = begin;
    Kind running = none;
    for (const char* p = begin; p <= end;) {
      const auto [c, n] = p < end ? utf8::decode(p) : utf8::Decoded{0, 1};
      const Kind kind = p == end ? none : unicode::is_rust_word(c) ? word : unicode::is_space(c) ? none : other;
      if (kind != running) {
        if (running != none) next.take({from, static_cast<size_t>(p - from)}, at_start && from == begin);
        running = kind;
        from = p;
      }
      p += n;
    }
  }
};

class FixedLengthStep final : public PreTokenizer {
 public:
  explicit FixedLengthStep(int64_t length) : length_(length) {}
  void split(std::string_view piece, bool at_start, PieceSink& next) const override {
    const char *begin = piece.data(), *end = begin + piece.size(), *from = begin;
    int64_t held = 0;
    for (const char* p = begin; p < end;) {
      p += utf8::length(*p);
      if (++held == length_ || p == end) {
        next.take({from, static_cast<size_t>(p - from)}, at_start && from == begin);
        from = p;
        held = 0;
      }
    }
  }

 private:
  int64_t length_;
};

class MetaspaceStep final : public PreTokenizer {
 public:
  explicit MetaspaceStep(const JsonField& f) : replacement_(f.at("replacement").text()), split_(f.boolean_or("split", true)) {
    if (replacement_.empty() || static_cast<size_t>(utf8::length(replacement_[0])) != replacement_.size())
      f.at("replacement").fail("expected one character, found '" + replacement_ + "'");
    const std::string scheme = f.text_or("prepend_scheme", "always");
    if (scheme != "always" && scheme != "first" && scheme != "never")
      f.at("prepend_scheme").fail("expected always, first or never, found '" + scheme + "'");
    always_ = scheme == "always";
    first_ = scheme == "first";
    if (!f.boolean_or("add_prefix_space", true) && scheme != "never") f.at("add_prefix_space").fail("contradicts prepend_scheme");
  }

  void split(std::string_view piece, bool at_start, PieceSink& next) const override {
    std::string text;
    text.reserve(piece.size() + piece.size() / 2 + 3);
    for (char c : piece) {
      if (c == ' ') {
        text += replacement_;
      } else {
        text += c;
      }
    }
    if ((always_ || (first_ && at_start)) && !text.empty() && !text.starts_with(replacement_)) text.insert(0, replacement_);
    const std::string_view all = text;
    if (!split_) {
      if (!all.empty()) next.take(all, at_start);
      return;
    }
    for (size_t from = 0; from < all.size();) {
      const size_t at = std::min(all.find(replacement_, from + 1), all.size());
      next.take(all.substr(from, at - from), at_start && from == 0);
      from = at;
    }
  }

 private:
  std::string replacement_;
  bool split_, always_ = false, first_ = false;
};

class ByteLevelStep final : public PreTokenizer {
 public:
  explicit ByteLevelStep(const JsonField& f)
      : prefix_space_(f.at("add_prefix_space").boolean()), use_regex_(f.boolean_or("use_regex", true)) {}
  // Nothing follows: leave the spelling to the model.
  void set_last() { spell_ = false; }
  bool trivial() const { return !spell_ && !prefix_space_ && !use_regex_; }

  void split(std::string_view piece, bool at_start, PieceSink& next) const override {
    std::string prefixed;
    if (prefix_space_ && !piece.starts_with(' ')) {
      prefixed = " " + std::string(piece);
      piece = prefixed;
    }
    Speller speller(next);
    PieceSink& sink = spell_ ? speller : next;
    if (use_regex_) {
      scan_words({}, piece, sink, at_start);
    } else {
      sink.take(piece, at_start);
    }
  }

 private:
  struct Speller final : PieceSink {
    explicit Speller(PieceSink& n) : next(n) {}
    void take(std::string_view piece, bool at_start) override { next.take(ByteAlphabet::get().spell(piece), at_start); }
    PieceSink& next;
  };
  bool prefix_space_, use_regex_, spell_ = true;
};

void add(const JsonField& f, PreTokenization& out) {
  auto& steps = out.steps;
  const std::string type = f.object().at("type").text();
  if (type == "Sequence") {
    const JsonField list = f.at("pretokenizers").array();
    for (size_t i = 0; i < list.size(); ++i) add(list.at(i), out);
  } else if (type == "Split") {
    steps.push_back(std::make_unique<SplitStep>(f));
  } else if (type == "ByteLevel") {
    steps.push_back(std::make_unique<ByteLevelStep>(f));
  } else if (type == "Digits") {
    const bool individual = f.at("individual_digits").boolean();
    steps.push_back(std::make_unique<CharacterStep<unicode::is_numeric>>(individual ? SplitBehavior::isolated : SplitBehavior::contiguous));
  } else if (type == "Punctuation") {
    const auto behavior = f.has("behavior") ? read_split_behavior(f.at("behavior")) : SplitBehavior::isolated;
    steps.push_back(std::make_unique<CharacterStep<unicode::is_punctuation>>(behavior));
  } else if (type == "WhitespaceSplit") {
    steps.push_back(std::make_unique<CharacterStep<unicode::is_space>>(SplitBehavior::removed));
  } else if (type == "BertPreTokenizer") {
    steps.push_back(std::make_unique<CharacterStep<unicode::is_space>>(SplitBehavior::removed));
    steps.push_back(std::make_unique<CharacterStep<unicode::is_punctuation>>(SplitBehavior::isolated));
  } else if (type == "Whitespace") {
    steps.push_back(std::make_unique<WhitespaceStep>());
  } else if (type == "Metaspace") {
    steps.push_back(std::make_unique<MetaspaceStep>(f));
  } else if (type == "CharDelimiterSplit" || type == "Delimiter") {
    const std::string delimiter = f.at("delimiter").text();
    if (delimiter.empty()) f.at("delimiter").fail("expected a character, found nothing");
    steps.push_back(std::make_unique<DelimiterStep>(delimiter));
  } else if (type == "FixedLength") {
    steps.push_back(std::make_unique<FixedLengthStep>(f.has("length") ? f.at("length").integer(1, 1 << 20) : 5));
  } else {
    f.at("type").fail(fmt::format("the pre-tokenizer '{}' is not supported", type));
  }
}

// Passes pieces on from one step to the next.
struct Link final : PieceSink {
  const PreTokenizer* step = nullptr;
  PieceSink* next = nullptr;
  void take(std::string_view piece, bool at_start) override { step->split(piece, at_start, *next); }
};

}  // namespace

void PreTokenization::split(std::string_view text, bool at_start, PieceSink& end) const {
  if (text.empty()) return;
  std::vector<Link> links(steps.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    links[i].step = steps[i].get();
    links[i].next = i + 1 < steps.size() ? static_cast<PieceSink*>(&links[i + 1]) : &end;
  }
  if (links.empty()) {
    end.take(text, at_start);
  } else {
    links[0].take(text, at_start);
  }
}

PreTokenization make_pre_tokenization(const JsonField& description) {
  PreTokenization out;
  if (description.value().is_null()) return out;
  add(description, out);
  if (out.steps.empty()) return out;
  if (auto* last = dynamic_cast<ByteLevelStep*>(out.steps.back().get())) {
    last->set_last();
    out.byte_level = true;
    if (last->trivial()) out.steps.pop_back();
  }
  return out;
}

}  // namespace qb
