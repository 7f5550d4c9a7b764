#include "core/measure/task_objects.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/python_json.h"
#include "core/base/utf8.h"

namespace qb {
namespace {

nlohmann::ordered_json parsed(const std::string& text, const std::string& where) {
  try {
    return parse_ordered_python_json(text);
  } catch (const nlohmann::json::exception& e) {
    throw InputError(fmt::format("{}: not JSON: {}", where, printable(e.what())));
  }
}

}  // namespace

std::vector<PlacedObject> read_objects(const std::filesystem::path& path) {
  const std::string text = read_text(path);
  std::vector<PlacedObject> objects;
  if (const size_t start = text.find_first_not_of(" \t\r\n"); start != std::string::npos && text[start] == '[') {
    nlohmann::ordered_json document = parsed(text, path.string());
    for (auto& value : document) objects.push_back({std::move(value), fmt::format("{}: item {}", path.string(), objects.size() + 1)});
  } else {
    size_t begin = 0;
    for (int64_t line = 1; begin < text.size(); ++line) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      const std::string one = text.substr(begin, end - begin), where = fmt::format("{}:{}", path.string(), line);
      begin = end + 1;
      if (one.find_first_not_of(" \t\r") == std::string::npos) continue;
      objects.push_back({parsed(one, where), where});
    }
  }
  for (const PlacedObject& object : objects)
    if (!object.value.is_object()) throw InputError(fmt::format("{}: expected an object, found {}", object.where, object.value.type_name()));
  if (objects.empty()) throw InputError(fmt::format("{}: no items in it", path.string()));
  return objects;
}

int64_t characters_of(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

}  // namespace qb
