#include "core/base/python_json.h"

#include <cmath>
#include <limits>
#include <utility>

namespace qb {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// A control character stands in no text of a JSON file as it is.
const std::pair<std::string, double> kNumbers[] = {{"-Infinity", -kInfinity}, {"Infinity", kInfinity}, {"NaN", std::numeric_limits<double>::quiet_NaN()}};
const std::string kMark = "\\u0001", kRead = "\x01";

// The three words outside of texts as texts that begin with the mark.
std::string with_texts(const std::string& text) {
  std::string result;
  bool inside = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (inside && c == '\\' && i + 1 < text.size()) {
      result += text.substr(i++, 2);
      continue;
    }
    if (c == '"') inside = !inside;
    if (!inside && (c == '-' || c == 'I' || c == 'N')) {
      bool found = false;
      for (const auto& [word, value] : kNumbers)
        if (!found && text.compare(i, word.size(), word) == 0) {
          result += '"' + kMark + word + '"';
          i += word.size() - 1;
          found = true;
        }
      if (found) continue;
    }
    result += c;
  }
  return result;
}

template <class Json>
void to_numbers(Json& json) {
  if (json.is_string()) {
    const std::string& text = json.template get_ref<const std::string&>();
    if (text.starts_with(kRead))
      for (const auto& [word, value] : kNumbers)
        if (text.substr(kRead.size()) == word) {
          json = value;
          return;
        }
  } else if (json.is_structured()) {
    for (auto& item : json) to_numbers(item);
  }
}

void to_texts(nlohmann::ordered_json& json, bool& any) {
  if (json.is_number_float() && !std::isfinite(json.get<double>())) {
    const double value = json.get<double>();
    json = kRead + (std::isnan(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity");
    any = true;
  } else if (json.is_structured()) {
    for (auto& item : json) to_texts(item, any);
  }
}

template <class Json>
Json parse(const std::string& text) {
  if (text.find("Infinity") == std::string::npos && text.find("NaN") == std::string::npos) return Json::parse(text);
  Json json = Json::parse(with_texts(text));
  to_numbers(json);
  return json;
}

}  // namespace

nlohmann::json parse_python_json(const std::string& text) { return parse<nlohmann::json>(text); }
nlohmann::ordered_json parse_ordered_python_json(const std::string& text) { return parse<nlohmann::ordered_json>(text); }

std::string dump_python_json(const nlohmann::ordered_json& json, int indent) {
  nlohmann::ordered_json copy = json;
  bool any = false;
  to_texts(copy, any);
  std::string text = copy.dump(indent);
  if (!any) return text;
  for (const auto& [word, value] : kNumbers) {
    const std::string marked = '"' + kMark + word + '"';
    for (size_t at = text.find(marked); at != std::string::npos; at = text.find(marked, at)) text.replace(at, marked.size(), word);
  }
  return text;
}

}  // namespace qb
