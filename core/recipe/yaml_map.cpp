#include "core/recipe/yaml_map.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>

#include "core/base/knob.h"

namespace qb {

void fail_at(const std::string& key, const std::string& what) { throw RecipeError("", 0, 0, key, what); }

namespace {

std::string kind_of(const YAML::Node& node) {
  if (node.IsMap()) return "a mapping";
  if (node.IsSequence()) return "a list";
  if (node.IsScalar()) return fmt::format("\"{}\"", node.Scalar().substr(0, 60));
  return "nothing";
}

}  // namespace

YamlMap::YamlMap(const YAML::Node& node, std::string place) : node_(node), place_(std::move(place)) {
  if (!node.IsMap()) fail_at(place_, "expected a mapping, found " + kind_of(node));
  std::set<std::string> seen;
  for (const auto& entry : node) {
    if (!entry.first.IsScalar()) fail_at(place_, "has a key that is " + kind_of(entry.first));
    if (!seen.insert(entry.first.Scalar()).second) fail_at(this->place(entry.first.Scalar()), "stands twice");
  }
}

std::string YamlMap::place(const std::string& key) const { return place_.empty() ? key : place_ + "." + key; }

void YamlMap::fail(const std::string& key, const std::string& what) const { fail_at(place(key), what); }

bool YamlMap::has(const std::string& key) const {
  const YAML::Node found = static_cast<const YAML::Node&>(node_)[key];
  return found.IsDefined() && !found.IsNull();
}

YAML::Node YamlMap::node(const std::string& key) {
  known_.insert(key);
  // The const operator[] does not create the key.
  return static_cast<const YAML::Node&>(node_)[key];
}

std::optional<std::string> YamlMap::scalar(const std::string& key, const char* expected) {
  const YAML::Node found = node(key);
  if (!found.IsDefined() || found.IsNull()) return std::nullopt;
  if (!found.IsScalar()) fail(key, fmt::format("expected {}, found {}", expected, kind_of(found)));
  return found.Scalar();
}

std::optional<std::string> YamlMap::text(const std::string& key) { return scalar(key, "a text"); }

std::optional<bool> YamlMap::boolean(const std::string& key) {
  const auto value = scalar(key, "true or false");
  if (!value) return std::nullopt;
  if (*value == "true" || *value == "True") return true;
  if (*value == "false" || *value == "False") return false;
  fail(key, fmt::format("expected true or false, found \"{}\"", *value));
}

namespace {

template <class T>
std::optional<T> whole(const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<int64_t> YamlMap::integer(const std::string& key, int64_t low, int64_t high) {
  const auto value = scalar(key, "an integer");
  if (!value) return std::nullopt;
  const auto number = whole<int64_t>(*value);
  if (!number) fail(key, fmt::format("expected an integer, found \"{}\"", *value));
  if (*number < low || *number > high) fail(key, fmt::format("expected {} to {}, found {}", low, high, *number));
  return number;
}

std::optional<uint64_t> YamlMap::unsigned_integer(const std::string& key) {
  const auto value = scalar(key, "an integer of 0 or more");
  if (!value) return std::nullopt;
  const auto number = whole<uint64_t>(*value);
  if (!number) fail(key, fmt::format("expected an integer of 0 or more, found \"{}\"", *value));
  return number;
}

std::optional<double> YamlMap::real(const std::string& key, double low, double high) {
  const auto value = scalar(key, "a number");
  if (!value) return std::nullopt;
  const auto number = whole<double>(*value);
  if (!number || !std::isfinite(*number)) fail(key, fmt::format("expected a number, found \"{}\"", *value));
  if (*number < low || *number > high) fail(key, fmt::format("expected {} to {}, found {}", low, high, *number));
  return number;
}

std::optional<YamlMap> YamlMap::map(const std::string& key) {
  const YAML::Node found = node(key);
  if (!found.IsDefined() || found.IsNull()) return std::nullopt;
  return YamlMap(found, place(key));
}

std::vector<YAML::Node> YamlMap::list(const std::string& key) {
  const YAML::Node found = node(key);
  if (!found.IsDefined() || found.IsNull()) return {};
  if (!found.IsSequence()) fail(key, "expected a list, found " + kind_of(found));
  return {found.begin(), found.end()};
}

std::vector<std::string> YamlMap::keys() const {
  std::vector<std::string> names;
  for (const auto& entry : node_) names.push_back(entry.first.Scalar());
  return names;
}

std::vector<std::string> YamlMap::unread() const {
  std::vector<std::string> names;
  for (const auto& entry : node_)
    if (!known_.count(entry.first.Scalar())) names.push_back(entry.first.Scalar());
  return names;
}

std::vector<RecipeError> YamlMap::unknown() const {
  const std::vector<std::string> known(known_.begin(), known_.end());
  std::vector<RecipeError> errors;
  for (const std::string& key : unread()) {
    const auto similar = similar_names(key, known);
    errors.emplace_back("", 0, 0, place(key), similar.empty() ? fmt::format("unknown key; known are {}", fmt::join(known, ", ")) : fmt::format("unknown key; did you mean \"{}\"?", similar.front()));
  }
  return errors;
}

void YamlMap::finish() const {
  if (const auto errors = unknown(); !errors.empty()) throw errors.front();
}

}  // namespace qb
