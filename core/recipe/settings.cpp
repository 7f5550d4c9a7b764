#include "core/recipe/settings.h"

#include <fmt/format.h>

#include <charconv>

#include "core/base/error.h"
#include "core/recipe/recipe_read.h"

namespace qb {
namespace {

constexpr const char* kOrigin = "--set";

[[noreturn]] void fail(const std::string& key, const std::string& what) { throw RecipeError(kOrigin, 0, 0, key, what); }

// One step of a dotted key: a name, or a place in a list.
struct Step {
  std::string name;
  size_t index = 0;
  bool is_index = false;
};

std::vector<Step> steps(const std::string& key) {
  std::vector<Step> path;
  size_t at = 0;
  while (at < key.size()) {
    if (key[at] == '[') {
      Step step{"", 0, true};
      const size_t close = key.find(']', at);
      if (close == std::string::npos) fail(key, "has a [ without ]");
      const auto [end, error] = std::from_chars(key.data() + at + 1, key.data() + close, step.index);
      if (error != std::errc() || end != key.data() + close) fail(key, fmt::format("expected a number in [], found \"{}\"", key.substr(at + 1, close - at - 1)));
      path.push_back(step);
      at = close + 1;
      if (at < key.size() && key[at] == '.') ++at;
      continue;
    }
    const size_t end = std::min(key.find_first_of(".[", at), key.size());
    if (end == at) fail(key, "has an empty part");
    path.push_back({key.substr(at, end - at)});
    at = end < key.size() && key[end] == '.' ? end + 1 : end;
  }
  return path;
}

YAML::Node child(YAML::Node& node, const Step& step, const std::string& key) {
  if (step.is_index) {
    if (node.IsDefined() && !node.IsNull() && !node.IsSequence()) fail(key, fmt::format("[{}] stands after something that is no list", step.index));
    if (step.index > node.size()) fail(key, fmt::format("[{}] is past the end of a list of {}", step.index, node.size()));
    return node[step.index];
  }
  if (node.IsDefined() && !node.IsNull() && !node.IsMap()) fail(key, fmt::format("\"{}\" stands after something that has no keys", step.name));
  return node[step.name];
}

}  // namespace

Recipe with_settings(const Recipe& recipe, const std::vector<std::string>& settings, const std::filesystem::path& base) {
  if (settings.empty()) return recipe;
  YAML::Node root = YAML::Load(to_yaml(recipe));
  for (const std::string& setting : settings) {
    const size_t cut = setting.find('=');
    if (cut == std::string::npos || cut == 0) fail("", fmt::format("expected key=value, found \"{}\"", setting));
    std::string key = setting.substr(0, cut);
    if (key == "model") key = "model.path";  // the short form would put the dtype back too
    const std::string text = setting.substr(cut + 1);
    YAML::Node value;  // empty: null
    // A shell's word is a text as it stands ("name=second: try", "name=#1"); lists, mappings and quoted texts are YAML.
    if (!text.empty() && text.find_first_of("[{\"'") != 0) value = text;
    else if (!text.empty()) try {
      value = YAML::Load(text);
    } catch (const YAML::Exception& e) {
      fail(key, "not valid YAML: " + e.msg);
    }
    YAML::Node at = root;
    for (const Step& step : steps(key)) at.reset(child(at, step, key));
    at = value;
  }
  try {
    return parse_recipe(YAML::Dump(root), kOrigin, base);
  } catch (const RecipeError& e) {
    throw RecipeError(kOrigin, 0, 0, e.key(), e.detail());  // its line would be of a text that nobody has seen
  }
}

}  // namespace qb
