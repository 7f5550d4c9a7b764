#include "core/base/knob.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>

#include "core/base/error.h"

namespace qb {

std::string to_text(const KnobValue& value) {
  if (const bool* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* integer = std::get_if<int64_t>(&value)) return std::to_string(*integer);
  if (const double* real = std::get_if<double>(&value)) return fmt::format("{}", *real);
  return std::get<std::string>(value);
}

namespace {

// Damerau–Levenshtein distance with adjacent transpositions, case ignored.
size_t distance(const std::string& a, const std::string& b) {
  auto same = [](char x, char y) { return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y)); };
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i)
    for (size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (same(a[i - 1], b[j - 1]) ? 0 : 1)});
      if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1])) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

std::string bounds(const KnobInfo& knob) { return fmt::format("{} to {}", knob.minimum, knob.maximum); }

}  // namespace

std::vector<std::string> similar_names(const std::string& wrong, const std::vector<std::string>& names) {
  std::vector<std::pair<size_t, std::string>> ranked;
  const std::string bounded = wrong.substr(0, 64);  // a typo is short; a pasted text is no typo
  for (const auto& name : names) {
    const size_t d = distance(bounded, name);
    if (d <= std::max<size_t>(2, name.size() / 3)) ranked.emplace_back(d, name);
  }
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> result;
  for (auto& [d, name] : ranked) result.push_back(std::move(name));
  return result;
}

std::string knob_problem(const KnobInfo& knob, const KnobValue& value) {
  switch (knob.type) {
    case KnobType::boolean:
      return std::holds_alternative<bool>(value) ? "" : fmt::format("expected true or false, found {}", to_text(value));
    case KnobType::integer: {
      const auto* integer = std::get_if<int64_t>(&value);
      if (!integer) return fmt::format("expected an integer, found {}", to_text(value));
      const auto number = static_cast<double>(*integer);
      return number >= knob.minimum && number <= knob.maximum ? "" : fmt::format("expected {}, found {}", bounds(knob), *integer);
    }
    case KnobType::real: {
      double number = 0;
      if (const double* real = std::get_if<double>(&value))
        number = *real;
      else if (const auto* integer = std::get_if<int64_t>(&value))
        number = static_cast<double>(*integer);
      else
        return fmt::format("expected a number, found {}", to_text(value));
      return number >= knob.minimum && number <= knob.maximum ? "" : fmt::format("expected {}, found {}", bounds(knob), number);
    }
    case KnobType::choice: {
      const auto* text = std::get_if<std::string>(&value);
      if (text && std::find(knob.choices.begin(), knob.choices.end(), *text) != knob.choices.end()) return "";
      return fmt::format("expected one of {}, found {}", fmt::join(knob.choices, ", "), to_text(value));
    }
  }
  throw InternalError("unknown knob type");
}

std::string range_text(const KnobInfo& knob) {
  switch (knob.type) {
    case KnobType::boolean: return "true or false";
    case KnobType::choice: return fmt::format("{}", fmt::join(knob.choices, " | "));
    default: return fmt::format("{} … {}{}", knob.minimum, knob.maximum, knob.unit.empty() ? "" : " " + knob.unit);
  }
}

}  // namespace qb
