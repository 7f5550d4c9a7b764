#include "core/measure/report_head.h"

#include <fmt/format.h>

#include <array>
#include <string_view>

#include "core/base/error.h"

namespace qb {
namespace {

constexpr std::array<bool, 256> marks(const char* characters) {
  std::array<bool, 256> table{};
  for (; *characters; ++characters) table[static_cast<unsigned char>(*characters)] = true;
  return table;
}
constexpr auto kSpace = marks(" \t\r\n");
constexpr auto kNesting = marks("\"[]{}");
constexpr auto kEndOfScalar = marks(",]} \t\r\n");

class Skimmer {
 public:
  Skimmer(const std::string& text, const std::string& origin) : text_(text), origin_(origin) {}

  std::string head() {
    std::string out = "{";
    out.reserve(8192);
    expect('{');
    for (bool first = true; peek() != '}'; first = false) {
      if (!first) expect(',');
      peek();
      const size_t from = at_;
      skip_string();
      const std::string_view key(text_.data() + from, at_ - from);
      expect(':');
      peek();
      const size_t value = at_;
      skip_value();
      const bool bulk = key == "\"blocks\"" || key == "\"vocabulary\"";
      if (out.size() > 1) out += ',';
      out.append(key).append(":").append(bulk ? std::string_view("[]") : std::string_view(text_.data() + value, at_ - value));
    }
    ++at_;
    while (at_ < text_.size() && kSpace[byte()]) ++at_;
    if (at_ != text_.size()) fail("has text behind its end");
    return out + '}';
  }

 private:
  [[noreturn]] void fail(const char* what) const { throw InputError(fmt::format("{}: not valid JSON: {} (byte {} of {})", origin_, what, at_, text_.size())); }
  unsigned char byte() const { return static_cast<unsigned char>(text_[at_]); }
  char peek() {
    while (at_ < text_.size() && kSpace[byte()]) ++at_;
    if (at_ == text_.size()) fail("ends too early");
    return text_[at_];
  }
  void expect(char c) {
    if (peek() != c) fail(c == ':' ? "expected ':'" : c == ',' ? "expected ','" : "expected an object");
    ++at_;
  }
  void skip_string() {
    if (peek() != '"') fail("expected a text");
    for (++at_;; ++at_) {
      at_ = text_.find_first_of("\"\\", at_);
      if (at_ == std::string::npos) {
        at_ = text_.size();
        fail("ends too early");
      }
      if (text_[at_] == '"') break;
      ++at_;  // whatever is escaped
    }
    ++at_;
  }
  void skip_value() {
    if (peek() == '"') return skip_string();
    if (text_[at_] != '{' && text_[at_] != '[') {
      const size_t from = at_;
      while (at_ < text_.size() && !kEndOfScalar[byte()]) ++at_;
      if (at_ == from) fail("expected a value");
      return;
    }
    std::string open;  // brackets to be closed
    do {
      while (at_ < text_.size() && !kNesting[byte()]) ++at_;
      if (at_ == text_.size()) fail("ends too early");
      const char c = text_[at_];
      if (c == '"') {
        skip_string();
        continue;
      }
      ++at_;
      if (c == '{' || c == '[') {
        open += c;
      } else {
        if (open.back() != (c == '}' ? '{' : '[')) fail("has brackets that do not match");
        open.pop_back();
      }
    } while (!open.empty());
  }

  const std::string& text_;
  const std::string& origin_;
  size_t at_ = 0;
};

}  // namespace

std::string report_head(const std::string& json, const std::string& origin) { return Skimmer(json, origin).head(); }

}  // namespace qb
