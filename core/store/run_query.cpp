// Which runs of a table are wanted.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/base/error.h"
#include "core/store/run_table.h"

namespace qb {
namespace {

std::string small(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Words as a shell would split them; quotes hold together what has spaces.
std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words;
  std::string word;
  bool inside = false;
  char quote = 0;
  for (const char c : text) {
    if (quote ? c == quote : c == '"' || c == '\'') {
      quote = quote ? 0 : c;
      inside = true;
    } else if (!quote && (c == ' ' || c == '\t' || c == '\n')) {
      if (inside) words.push_back(word);
      word.clear();
      inside = false;
    } else {
      word += c;
      inside = true;
    }
  }
  if (inside) words.push_back(word);
  return words;
}

}  // namespace

bool RunQuery::read_condition(const std::string& text, Condition& condition) {
  const size_t at = text.find_first_of("=!<>~");
  if (at == 0 || at == std::string::npos) return false;
  const std::string key = text.substr(0, at);
  if (!std::all_of(key.begin(), key.end(), [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; })) return false;
  static const std::pair<const char*, Comparison> operators[] = {{"!=", Comparison::differs}, {"!~", Comparison::lacks}, {"<=", Comparison::at_most}, {">=", Comparison::at_least},
                                                                 {"=", Comparison::equal},    {"<", Comparison::less},  {">", Comparison::more},     {"~", Comparison::contains}};
  for (const auto& [sign, comparison] : operators) {
    if (text.compare(at, std::string_view(sign).size(), sign) != 0) continue;
    condition.column = &run_column(key);
    condition.comparison = comparison;
    const std::string value = text.substr(at + std::string_view(sign).size());
    condition.text = small(value);
    const bool inside = comparison == Comparison::contains || comparison == Comparison::lacks, equality = comparison == Comparison::equal || comparison == Comparison::differs;
    if (condition.column->kind == RunColumnKind::text && !inside && !equality)
      throw InputError(fmt::format("{}: {} is a text, which = != ~ and !~ compare, {} does not", text, key, sign));
    if (value.empty() && !equality) throw InputError(fmt::format("{}: expected a value behind {}", text, sign));
    if (condition.column->kind == RunColumnKind::figure && !value.empty()) {
      if (inside) throw InputError(fmt::format("{}: {} is a figure, which = != < <= > and >= compare, {} does not", text, key, sign));
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), condition.figure);
      if (error != std::errc() || end != value.data() + value.size()) throw InputError(fmt::format("{}: \"{}\" is no number, and {} is a figure", text, value, key));
    }
    return true;
  }
  return false;
}

bool RunQuery::holds(const Condition& condition, const RunValue& value) {
  const double* figure = std::get_if<double>(&value);
  const bool nothing = std::holds_alternative<std::monostate>(value) || (figure && std::isnan(*figure));
  if (condition.text.empty()) return nothing == (condition.comparison == Comparison::equal);
  if (nothing) return condition.comparison == Comparison::differs || condition.comparison == Comparison::lacks;
  const std::string text = figure ? std::string() : small(std::get<std::string>(value));
  // A time is compared as far as it was given: started<=2026-11-28 has that whole day.
  const int order = figure ? (*figure < condition.figure ? -1 : *figure > condition.figure) : text.compare(0, condition.column->kind == RunColumnKind::time ? condition.text.size() : std::string::npos, condition.text);
  switch (condition.comparison) {
    case Comparison::equal: return order == 0;
    case Comparison::differs: return order != 0;
    case Comparison::less: return order < 0;
    case Comparison::at_most: return order <= 0;
    case Comparison::more: return order > 0;
    case Comparison::at_least: return order >= 0;
    case Comparison::contains: return contains(text, condition.text);
    case Comparison::lacks: return !contains(text, condition.text);
  }
  throw InternalError("unknown comparison");
}

RunQuery RunQuery::parse(const std::string& text) {
  RunQuery query;
  for (const std::string& part : split(text)) {
    Condition condition{};
    if (read_condition(part, condition))
      query.conditions_.push_back(condition);
    else
      query.words_.push_back(small(part));
  }
  return query;
}

void RunQuery::add_words(const std::string& text) {
  for (const std::string& word : split(text)) words_.push_back(small(word));
}

void RunQuery::add_condition(const std::string& text) {
  Condition condition{};
  if (!read_condition(text, condition)) throw InputError(fmt::format("\"{}\" is no condition on a column; expected KEY=VALUE, or != < <= > >= ~ !~ in place of =", text));
  conditions_.push_back(condition);
}

bool RunQuery::accepts(const RunReport& run, const RunReport* baseline) const {
  for (const Condition& condition : conditions_)
    if (!holds(condition, condition.column->value(run, baseline))) return false;
  if (words_.empty()) return true;
  std::string all;
  for (const std::string* text : {&run.name, &run.id, &run.model_name, &run.scheme, &run.pipeline, &run.sweep, &run.notes}) all += *text + '\n';
  for (const std::string& tag : run.tags) all += tag + '\n';
  all = small(all + to_text(run.status));
  return std::all_of(words_.begin(), words_.end(), [&](const std::string& word) { return contains(all, word); });
}

}  // namespace qb
