#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace qb {

// A pattern in Oniguruma's syntax, run by PCRE2 with its just-in-time compiler. Immutable, thread-safe.
class Regex {
 public:
  // Throws InputError naming `origin` and the place in the pattern.
  Regex(std::string_view oniguruma_pattern, const std::string& origin);
  ~Regex();

  // Calls on_match(begin, end) for the successive matches in `text` (valid UTF-8), left to right. An empty match right
  // after another match does not count, as in Oniguruma's iteration.
  template <class F>
  void each_match(std::string_view text, F&& on_match) const {
    size_t from = 0, last_end = std::string_view::npos, begin = 0, end = 0;
    while (from <= text.size() && find(text, from, begin, end)) {
      if (begin == end && end == last_end) {
        from = next_character(text, end);
        continue;
      }
      last_end = end;
      on_match(begin, end);
      from = begin == end ? next_character(text, end) : end;
    }
  }

 private:
  bool find(std::string_view text, size_t from, size_t& begin, size_t& end) const;
  static size_t next_character(std::string_view text, size_t at);
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace qb
