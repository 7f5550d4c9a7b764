#include "core/recipe/sweep_filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>

#include "core/recipe/sweep_lists.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

std::vector<SweepFilter> read_filters(YamlMap& map, const std::string& key) {
  const YAML::Node node = map.node(key);
  std::vector<SweepFilter> filters;
  if (!node.IsDefined() || node.IsNull()) return filters;
  if (!node.IsMap() && !node.IsSequence()) map.fail(key, "expected a list of mappings such as {pipeline: [rtn], scheme.weights.type: int2}");
  for (size_t i = 0; i < (node.IsMap() ? 1 : node.size()); ++i) {
    const YAML::Node entry = node.IsMap() ? node : node[i];
    SweepFilter filter{node.IsMap() ? map.place(key) : fmt::format("{}[{}]", map.place(key), i), {}};
    for (const std::string& name : YamlMap(entry, filter.place).keys()) filter.keys.push_back({name, entry[name]});
    if (filter.keys.empty()) fail_at(filter.place, "has no keys; expected which recipes it is of, such as {pipeline: [rtn]}");
    filters.push_back(std::move(filter));
  }
  return filters;
}

bool is_file_key(const std::string& key) { return key == "model" || key == "model.path" || key == "checkpoint" || key == "calibration.importance" || key.ends_with("corpus"); }

std::optional<double> number(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty() ? std::optional(value) : std::nullopt;
}

bool same_text(const std::string& wanted, const std::string& found, bool file) {
  if (wanted == found) return true;
  if (const auto a = number(wanted), b = number(found); a && b) return *a == *b;
  const auto truth = [](const std::string& text) { return text == "True" ? "true" : text == "False" ? "false" : text; };
  if (truth(wanted) == truth(found)) return true;
  const fs::path path = fs::path(found).lexically_normal();
  return file && (wanted == path.filename() || wanted == path.stem());
}

// A text stands for itself, a method for a stage of it with any knobs, a mapping for what has its keys, a list for a list of as many.
bool same_value(const YAML::Node& wanted, const YAML::Node& found, bool file) {
  if (!found.IsDefined() || found.IsNull()) return !wanted.IsDefined() || wanted.IsNull() || (wanted.IsScalar() && wanted.Scalar() == "float");
  if (wanted.IsScalar()) {
    const YAML::Node text = found.IsMap() ? (found["method"] ? found["method"] : found["path"]) : found;
    return text.IsDefined() && text.IsScalar() && same_text(wanted.Scalar(), text.Scalar(), file);
  }
  if (wanted.IsMap()) {
    if (found.IsScalar() && wanted["method"] && wanted.size() == 1) return same_value(wanted["method"], found, false);
    for (const auto& entry : wanted)
      if (!found.IsMap() || !found[entry.first.Scalar()] || !same_value(entry.second, found[entry.first.Scalar()], false)) return false;
    return true;
  }
  if (!wanted.IsSequence()) return false;
  if (!found.IsSequence() || found.size() != wanted.size()) return false;
  for (size_t i = 0; i < wanted.size(); ++i)
    if (!same_value(wanted[i], found[i], false)) return false;
  return true;
}

bool any_value(const SweepFilter::Key& wanted, const YAML::Node& found) {
  const YAML::Node& value = wanted.value;
  const bool several = value.IsSequence() && (!is_list_key(wanted.key) || (value.size() > 0 && value[0].IsSequence()));
  if (!several) return same_value(value, found, is_file_key(wanted.key));
  for (const auto& each : value)
    if (same_value(each, found, is_file_key(wanted.key))) return true;
  return false;
}

}  // namespace

SweepBlock read_sweep_block(YamlMap& root) {
  SweepBlock block;
  auto map = root.map("sweep");
  if (!map) return block;
  block.name = map->text("name").value_or("");
  block.strict = map->boolean("strict").value_or(false);
  block.only = read_filters(*map, "only");
  block.exclude = read_filters(*map, "exclude");
  map->finish();
  return block;
}

YAML::Node node_at(YAML::Node node, const std::string& key) {
  for (size_t at = 0; at < key.size() && node.IsDefined();) {
    if (key[at] == '[') {
      const size_t close = std::min(key.find(']', at), key.size());
      size_t index = 0;
      const auto [end, error] = std::from_chars(key.data() + at + 1, key.data() + close, index);
      if (error != std::errc() || end != key.data() + close || !node.IsSequence() || index >= node.size()) return YAML::Node(YAML::NodeType::Undefined);
      node.reset(node[index]);
      at = close + 1 + (close + 1 < key.size() && key[close + 1] == '.' ? 1 : 0);
      continue;
    }
    const size_t end = std::min(key.find_first_of(".[", at), key.size());
    const std::string name = key.substr(at, end - at);
    if (name == "path" && node.IsScalar() && key.compare(0, 6, "model.") == 0) return node;  // the short form of a model
    if (!node.IsMap()) return YAML::Node(YAML::NodeType::Undefined);
    const YAML::Node below = static_cast<const YAML::Node&>(node)[name];
    if (!below.IsDefined()) return YAML::Node(YAML::NodeType::Undefined);
    node.reset(below);
    at = end < key.size() && key[end] == '.' ? end + 1 : end;
  }
  return node;
}

bool is_list_key(const std::string& key) { return key == "pipeline" || key == "evaluation" || key == "scheme.ignore" || key == "scheme.overrides"; }

bool matches(const SweepFilter& filter, const YAML::Node& recipe, const YAML::Node& canonical) {
  return std::all_of(filter.keys.begin(), filter.keys.end(), [&](const SweepFilter::Key& key) {
    YAML::Node found = node_at(recipe, key.key);
    if (!found.IsDefined()) found.reset(node_at(canonical, key.key));
    return any_value(key, found);
  });
}

std::string filter_text(const SweepFilter& filter) {
  std::string out;
  for (const SweepFilter::Key& key : filter.keys) out += (out.empty() ? "" : ", ") + key.key + ": " + flow_text(key.value);
  return filter.place + " {" + out + "}";
}

}  // namespace qb
