#include "core/recipe/sweep_lists.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/recipe/yaml_map.h"

namespace qb {
namespace {

constexpr size_t kMostVariants = 10'000;
constexpr size_t kMostText = 64 << 20;  // of all variants together: aliases let a few lines stand for billions of nodes
constexpr int kDeepest = 32;

// A key without the places in lists: "pipeline[0].percdamp" is "pipeline.percdamp".
std::string without_places(const std::string& key) {
  std::string out;
  int depth = 0;
  for (const char c : key) {
    if (c == '[') ++depth;
    if (depth == 0) out += c;
    if (c == ']') --depth;
  }
  return out;
}

enum class Kind { one, list, text };
// What a recipe has at a key: one value, several of them, or a text that is told and decides nothing.
Kind kind_of(const std::string& key) {
  static const std::set<std::string> lists = {"pipeline", "evaluation", "scheme.ignore", "scheme.overrides"}, texts = {"name", "description"};
  const std::string plain = without_places(key);
  return lists.contains(plain) && key.back() != ']' ? Kind::list : texts.contains(plain) ? Kind::text : Kind::one;
}

// Whether the list is one of alternatives.
bool is_swept(const YAML::Node& node, const std::string& key, const std::string& list) {
  const Kind kind = key.empty() ? Kind::text : kind_of(key);
  if (kind == Kind::text) return false;
  if (kind == Kind::one) {
    if (node.size() == 0) fail_at(list, "an empty list: expected at least one value");
    for (const auto& value : node)
      if (value.IsSequence()) fail_at(list, "expected one value, or a list of values; found a list in a list");
    return true;
  }
  const auto inner = static_cast<size_t>(std::count_if(node.begin(), node.end(), [](const YAML::Node& value) { return value.IsSequence(); }));
  if (inner == 0) return false;
  if (inner < node.size()) fail_at(list, fmt::format("{} of {} entries are lists; expected one list, or a list of lists to try one after the other", inner, node.size()));
  return true;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      (out += '\\') += c;
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      out += c;
  }
  return out + '"';
}

class Combiner {
 public:
  explicit Combiner(const std::set<std::string>& settled) : settled_(settled) {}

  // key: in the recipe; list: in the file.
  std::vector<SweepVariant> of(const YAML::Node& node, const std::string& key, const std::string& list, int depth) {
    if (depth > kDeepest) fail_at(list, fmt::format("nested more than {} deep", kDeepest));
    if (node.IsMap()) return of_map(node, key, list, depth);
    if (node.IsSequence()) return is_swept(node, key, list) ? alternatives(node, key, list, depth) : of_list(node, key, list, depth);
    return counted({{node.IsScalar() ? quoted(node.Scalar()) : "null", {}}}, list);
  }

 private:
  std::vector<SweepVariant> alternatives(const YAML::Node& node, const std::string& key, const std::string& list, int depth) {
    std::vector<SweepVariant> all;
    for (size_t i = 0; i < (settled_.contains(key) ? 1 : node.size()); ++i) {
      const std::string place = fmt::format("{}[{}]", list, i);
      // What stands in the list is no list of alternatives again, but may hold some.
      const YAML::Node value = node[i];
      for (SweepVariant& variant : value.IsSequence() ? of_list(value, key, place, depth + 1) : of(value, key, place, depth + 1)) {
        variant.choices.insert(variant.choices.begin(), SweepChoice{list, key, i, value});
        all.push_back(std::move(variant));
      }
    }
    return counted(std::move(all), list);
  }

  std::vector<SweepVariant> of_list(const YAML::Node& node, const std::string& key, const std::string& list, int depth) {
    std::vector<SweepVariant> all = {{"[", {}}};
    for (size_t i = 0; i < node.size(); ++i) {
      const std::string place = fmt::format("[{}]", i);
      all = product(all, i == 0 ? "" : ", ", of(node[i], key + place, list + place, depth + 1), list);
    }
    for (SweepVariant& variant : all) variant.yaml += "]";
    return all;
  }

  std::vector<SweepVariant> of_map(const YAML::Node& node, const std::string& key, const std::string& list, int depth) {
    std::vector<SweepVariant> all = {{"{", {}}};
    bool first = true;
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) fail_at(list, "has a key that is no text");
      const std::string name = entry.first.Scalar();
      if (key.empty() && name == "sweep") continue;
      const auto below = [&](const std::string& parent) { return parent.empty() ? name : parent + "." + name; };
      all = product(all, fmt::format("{}{}: ", first ? "" : ", ", quoted(name)), of(entry.second, below(key), below(list), depth + 1), list);
      first = false;
    }
    for (SweepVariant& variant : all) variant.yaml += "}";
    return all;
  }

  std::vector<SweepVariant> product(const std::vector<SweepVariant>& before, const std::string& between, const std::vector<SweepVariant>& behind, const std::string& list) {
    if (before.size() * behind.size() > kMostVariants) fail_at(list, fmt::format("{} recipes, expected at most {}", before.size() * behind.size(), kMostVariants));
    std::vector<SweepVariant> all;
    for (const SweepVariant& first : before)
      for (const SweepVariant& second : behind) {
        SweepVariant both = first;
        both.yaml += between + second.yaml;
        both.choices.insert(both.choices.end(), second.choices.begin(), second.choices.end());
        all.push_back(std::move(both));
      }
    return counted(std::move(all), list);
  }

  static std::vector<SweepVariant> counted(std::vector<SweepVariant> variants, const std::string& list) {
    size_t text = 0;
    for (const SweepVariant& variant : variants) text += variant.yaml.size();
    if (variants.size() > kMostVariants) fail_at(list, fmt::format("{} recipes, expected at most {}", variants.size(), kMostVariants));
    if (text > kMostText) fail_at(list, fmt::format("{} bytes of recipes, expected at most {}", text, kMostText));
    return variants;
  }

  const std::set<std::string>& settled_;
};

bool any_list(const YAML::Node& node, const std::string& key, int depth) {
  if (depth > kDeepest) return false;
  if (node.IsMap())
    for (const auto& entry : node)
      if (entry.first.IsScalar() && any_list(entry.second, key.empty() ? entry.first.Scalar() : key + "." + entry.first.Scalar(), depth + 1)) return true;
  if (!node.IsSequence()) return false;
  try {
    if (is_swept(node, key, key)) return true;
  } catch (const RecipeError&) {
    return true;  // a sweep's mistake
  }
  for (size_t i = 0; i < node.size(); ++i)
    if (any_list(node[i], fmt::format("{}[{}]", key, i), depth + 1)) return true;
  return false;
}

}  // namespace

std::vector<SweepVariant> sweep_variants(const YAML::Node& root, const std::set<std::string>& settled) {
  if (!root.IsMap()) fail_at("", "expected a mapping");
  return Combiner(settled).of(root, "", "", 0);
}

bool has_sweep_lists(const YAML::Node& root) { return root.IsMap() && any_list(root, "", 0); }

std::string key_in_file(const SweepVariant& variant, const std::string& key) {
  std::string place = key;
  for (const SweepChoice& choice : variant.choices)  // outer lists come before those inside of them
    if (place.compare(0, choice.list.size(), choice.list) == 0 && (place.size() == choice.list.size() || place[choice.list.size()] == '.' || place[choice.list.size()] == '['))
      place.insert(choice.list.size(), fmt::format("[{}]", choice.index));
  return place;
}

std::string flow_text(const YAML::Node& node) {
  if (node.IsScalar()) return node.Scalar();
  std::string out;
  if (node.IsSequence()) {
    for (const auto& value : node) out += (out.empty() ? "" : ", ") + flow_text(value);
    return "[" + out + "]";
  }
  if (!node.IsMap()) return "null";
  for (const auto& entry : node) out += fmt::format("{}{}: {}", out.empty() ? "" : ", ", flow_text(entry.first), flow_text(entry.second));
  return "{" + out + "}";
}

}  // namespace qb
