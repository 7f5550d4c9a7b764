#include "core/recipe/sweep_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

namespace qb {
namespace {

namespace fs = std::filesystem;

std::string last_part(const std::string& key) {
  const size_t dot = key.rfind('.');
  const std::string leaf = dot == std::string::npos ? key : key.substr(dot + 1);
  return leaf.substr(0, leaf.find('['));
}

std::string file_name(const std::string& path, bool ending) {
  fs::path name = fs::path(path).lexically_normal();
  if (name.filename().empty()) name = name.parent_path();
  return ending ? name.filename().string() : name.stem().string();
}

// With the knobs where methods alone do not tell two pipelines apart.
std::string stage_text(const YAML::Node& stage, bool knobs) {
  if (!stage.IsMap()) return flow_text(stage);
  std::string method = "?", rest;
  for (const auto& entry : stage) {
    if (flow_text(entry.first) == "method")
      method = flow_text(entry.second);
    else if (!entry.second.IsSequence())  // a list of the knob's values has names of its own
      rest += (rest.empty() ? "" : ", ") + flow_text(entry.first) + " " + flow_text(entry.second);
  }
  return knobs && !rest.empty() ? method + "(" + rest + ")" : method;
}

std::string pipeline_text(const YAML::Node& pipeline, bool knobs) {
  std::string out;
  for (const auto& stage : pipeline) out += (out.empty() ? "" : "+") + stage_text(stage, knobs);
  return out.empty() ? "no stages" : out;
}

// What stands before a value that is not of the weights: "A int8", "KV int8", "head int4".
std::string role_of(const std::string& key) {
  static const std::vector<std::pair<std::string, std::string>> roles = {{"scheme.activations", "A "}, {"scheme.kv_cache", "KV "}, {"scheme.embedding", "embedding "}, {"scheme.head", "head "}};
  for (const auto& [place, role] : roles)
    if (key == place || key.compare(0, place.size() + 1, place + ".") == 0) return role;
  return "";
}

std::string mapping_text(const YAML::Node& node) {
  std::string out;
  for (const auto& entry : node) out += (out.empty() ? "" : " ") + flow_text(entry.first) + " " + flow_text(entry.second);
  return out;
}

// A scheme's part as a recipe has it; empty: it is none.
std::string part_text(const std::string& key, const Recipe& recipe) {
  const Scheme& scheme = recipe.scheme;
  if (key == "scheme") return describe(scheme);
  for (const auto& [place, spec] : {std::pair{"scheme.weights", &scheme.weights}, {"scheme.activations", &scheme.activations}, {"scheme.kv_cache", &scheme.kv_cache},
                                    {"scheme.embedding", &scheme.embedding}, {"scheme.head", &scheme.head}})
    if (key == place) return role_of(key) + (*spec ? describe(**spec) : "float");
  return "";
}

std::string token(const SweepChoice& choice, const Recipe* recipe, bool knobs) {
  const YAML::Node& value = choice.value;
  const std::string& key = choice.key;
  if (key == "pipeline") return pipeline_text(value, knobs);
  if (!value.IsScalar() && recipe)
    if (const std::string part = part_text(key, *recipe); !part.empty()) return part;
  if (key == "calibration" && value.IsMap() && value["corpus"] && value["corpus"].IsScalar()) return file_name(value["corpus"].Scalar(), false);
  if (value.IsMap()) return key == "model" && value["path"] && value["path"].IsScalar() ? file_name(value["path"].Scalar(), true) : mapping_text(value);
  const std::string text = flow_text(value), leaf = last_part(key), role = role_of(key);
  if (key == "model" || key == "model.path" || key == "checkpoint") return file_name(text, true);
  if (leaf == "corpus" || leaf == "importance") return file_name(text, false);
  if (key == "calibration.seed") return "sampling seed " + text;
  if (key.compare(0, 7, "scheme.") != 0 || key.find('[') != std::string::npos) return leaf + " " + text;
  if (leaf == "type" || leaf == "granularity" || leaf == "mix") return role + text;
  if (leaf == "range") return role + text;
  if (leaf == "group_size") return role + "g" + text;
  if (leaf == "symmetric") return role + (text == "true" || text == "True" ? "symmetric" : "asymmetric");
  if (text == "float" || text == "null") return role + "float";
  return role + leaf + " " + text;
}

// A name reads model, scheme, pipeline, calibration, others, seed, whatever the file's order.
int rank(const std::string& key) {
  static const std::vector<std::string> order = {"model", "checkpoint", "scheme", "pipeline", "calibration"};
  const std::string top = key.substr(0, key.find_first_of(".["));
  const auto found = std::find(order.begin(), order.end(), top);
  return top == "seed" ? 99 : static_cast<int>(found - order.begin());
}

}  // namespace

std::vector<std::string> sweep_names(const std::vector<SweepVariant>& variants, const std::vector<const Recipe*>& recipes, const std::vector<std::vector<size_t>>& told, const std::string& fallback) {
  // Which lists of pipelines have two with the same methods.
  std::map<std::string, std::map<std::string, std::set<size_t>>> short_texts;
  for (const SweepVariant& variant : variants)
    for (const SweepChoice& choice : variant.choices)
      if (choice.key == "pipeline") short_texts[choice.list][pipeline_text(choice.value, false)].insert(choice.index);
  std::vector<std::string> names;
  std::map<std::string, int> used;
  for (size_t i = 0; i < variants.size(); ++i) {
    std::vector<const SweepChoice*> choices;
    for (size_t place : told[i]) choices.push_back(&variants[i].choices[place]);
    std::stable_sort(choices.begin(), choices.end(), [](auto* a, auto* b) { return rank(a->key) < rank(b->key); });
    std::string name;
    for (const SweepChoice* choice : choices) {
      const bool knobs = choice->key == "pipeline" && short_texts[choice->list][pipeline_text(choice->value, false)].size() > 1;
      name += (name.empty() ? "" : " ") + token(*choice, recipes[i], knobs);
    }
    if (name.empty()) name = fallback;
    names.push_back(name);
    ++used[name];
  }
  // Values that are told the same way (files of one name in two folders) have a number.
  std::set<std::string> taken(names.begin(), names.end());
  std::map<std::string, int> next;
  for (std::string& name : names) {
    if (used[name] == 1) continue;
    int& n = next[name];
    if (++n == 1) continue;  // the first keeps it
    std::string numbered;
    do numbered = fmt::format("{} ({})", name, n);
    while (!taken.insert(numbered).second && ++n);
    name = numbered;
  }
  return names;
}

}  // namespace qb
