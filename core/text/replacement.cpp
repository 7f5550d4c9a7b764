#include "core/text/replacement.h"

namespace qb {

Replacement::Replacement(const JsonField& f) : content_(f.at("content").text()) {
  const JsonField pattern = f.at("pattern").object();
  if (pattern.has("String")) {
    literal_ = pattern.at("String").text();
    if (literal_.empty()) pattern.at("String").fail("an empty pattern");
  } else {
    regex_ = std::make_unique<Regex>(pattern.at("Regex").text(), pattern.where());
  }
}

std::string Replacement::apply(std::string_view text) const {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  size_t done = 0;
  auto replace = [&](size_t begin, size_t end) {
    out += text.substr(done, begin - done);
    out += content_;
    done = end;
  };
  if (regex_) {
    regex_->each_match(text, replace);
  } else {
    for (size_t at = text.find(literal_); at != std::string_view::npos; at = text.find(literal_, done)) replace(at, at + literal_.size());
  }
  out += text.substr(done);
  return out;
}

}  // namespace qb
