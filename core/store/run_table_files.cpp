// The table of runs as CSV, JSON and Markdown.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/store/run_table.h"

namespace qb {
namespace {

std::string quoted(const std::string& text) {
  if (text.find_first_of("\",\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + '"';
}

std::string one_line(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '|' ? std::string("\\|") : std::string(1, c == '\n' || c == '\r' ? ' ' : c);
  return out;
}

}  // namespace

std::string runs_as_csv(const std::vector<const RunReport*>& runs, const RunColumns& columns, const RunReport* baseline) {
  std::string out;
  const auto line = [&](auto cell) {
    for (size_t c = 0; c < columns.size(); ++c) out += (c > 0 ? "," : "") + quoted(cell(*columns[c]));
    out += "\r\n";
  };
  line([](const RunColumn& column) { return column.key; });
  for (const RunReport* run : runs)
    line([&](const RunColumn& column) {
      const RunValue value = column.value(*run, baseline);
      if (const double* number = std::get_if<double>(&value)) return std::isnan(*number) ? std::string() : fmt::format("{}", *number);
      const std::string* words = std::get_if<std::string>(&value);
      return words ? *words : std::string();
    });
  return out;
}

std::string runs_as_json(const std::vector<const RunReport*>& runs, const RunColumns& columns, const RunReport* baseline) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const RunReport* run : runs) {
    nlohmann::ordered_json row = nlohmann::ordered_json::object();
    for (const RunColumn* column : columns) {
      const RunValue value = column->value(*run, baseline);
      const double* number = std::get_if<double>(&value);
      if (column->key == "tags")
        row[column->key] = run->tags;
      else if (number && std::isinf(*number))
        row[column->key] = *number > 0 ? "inf" : "-inf";
      else if (number && !std::isnan(*number))
        row[column->key] = *number;
      else if (const auto* words = std::get_if<std::string>(&value))
        row[column->key] = *words;
      else
        row[column->key] = nullptr;
    }
    list.push_back(std::move(row));
  }
  return list.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string runs_as_markdown(const std::vector<const RunReport*>& runs, const RunColumns& columns, const RunReport* baseline) {
  std::string out = "|";
  for (const RunColumn* column : columns) out += " " + one_line(column_heading(*column)) + " |";
  out += "\n|";
  for (const RunColumn* column : columns) out += column->kind == RunColumnKind::figure ? "---:|" : "---|";
  out += '\n';
  for (const RunReport* run : runs) {
    out += '|';
    for (const RunColumn* column : columns) out += " " + one_line(cell_text(*column, column->value(*run, baseline))) + " |";
    out += '\n';
  }
  return out;
}

}  // namespace qb
