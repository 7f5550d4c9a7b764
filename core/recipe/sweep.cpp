#include "core/recipe/sweep.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/knob.h"
#include "core/recipe/preset.h"
#include "core/recipe/recipe_read.h"
#include "core/recipe/settings.h"
#include "core/recipe/sweep_filters.h"
#include "core/recipe/sweep_lists.h"
#include "core/recipe/sweep_names.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

// --- variants and what becomes of them
struct Candidate {
  SweepVariant variant;
  YAML::Node node;                     // its text
  std::optional<Recipe> recipe;
  std::vector<RecipeError> mistakes;   // else
  std::optional<std::string> filtered; // why
};

void apply_filters(SweepBlock& block, std::vector<Candidate>& candidates) {
  std::set<const SweepFilter::Key*> known;
  for (Candidate& candidate : candidates) {
    const YAML::Node canonical = candidate.recipe && (!block.only.empty() || !block.exclude.empty()) ? YAML::Load(to_yaml(*candidate.recipe)) : YAML::Node();
    bool wanted = block.only.empty();
    for (std::vector<SweepFilter>* filters : {&block.only, &block.exclude})
      for (SweepFilter& filter : *filters) {
        for (const SweepFilter::Key& key : filter.keys)
          if (node_at(candidate.node, key.key).IsDefined() || node_at(canonical, key.key).IsDefined()) known.insert(&key);
        if (!matches(filter, candidate.node, canonical)) continue;
        filter.matched = true;
        if (filters == &block.only)
          wanted = true;
        else if (!candidate.filtered)
          candidate.filtered = filter_text(filter);
      }
    if (!wanted && !candidate.filtered) candidate.filtered = "sweep.only has no entry that it matches";
  }
  std::set<std::string> keys;
  for (const Candidate& candidate : candidates)
    for (const SweepChoice& choice : candidate.variant.choices) keys.insert(choice.key);
  for (const std::vector<SweepFilter>* filters : {&block.only, &block.exclude})
    for (const SweepFilter& filter : *filters)
      for (const SweepFilter::Key& key : filter.keys)
        if (!known.contains(&key) && !is_list_key(key.key) && !key.value.IsNull()) {
          const auto near = similar_names(key.key, {keys.begin(), keys.end()});
          fail_at(filter.place, fmt::format("no recipe of the sweep has a key \"{}\"{}", key.key, near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near.front())));
        }
}

std::string reason_of(const RecipeError& mistake) { return mistake.key().empty() ? mistake.detail() : mistake.key() + ": " + mistake.detail(); }

// A mistake where it stands in the file, told by the value that was taken there.
[[noreturn]] void fail_in_file(const Candidate& candidate, const std::string& why) {
  const RecipeError& mistake = candidate.mistakes.front();
  throw RecipeError(mistake.file(), mistake.line(), mistake.column(), key_in_file(candidate.variant, mistake.key()), mistake.detail() + why);
}

// A value that no recipe takes, though recipes with it are asked for, is a mistake rather than a pair that makes no sense.
void refuse_useless_values(const std::vector<Candidate>& candidates) {
  struct Fate {
    const Candidate* refused = nullptr;
    bool taken = false;
  };
  std::map<std::pair<std::string, size_t>, Fate> fates;
  const Candidate* refused = nullptr;
  bool any = false;
  for (const Candidate& candidate : candidates) {
    if (candidate.filtered) continue;
    any = any || candidate.recipe;
    if (!candidate.recipe && !refused) refused = &candidate;
    for (const SweepChoice& choice : candidate.variant.choices) {
      Fate& fate = fates[{choice.list, choice.index}];
      if (candidate.recipe)
        fate.taken = true;
      else if (!fate.refused)
        fate.refused = &candidate;
    }
  }
  if (!any && refused) fail_in_file(*refused, "");
  for (const auto& [place, fate] : fates)
    if (!fate.taken && fate.refused) fail_in_file(*fate.refused, fmt::format(" (so in every recipe with {}[{}])", place.first, place.second));
}

// --- order

PresetCost cost_of_pipeline(const Recipe& recipe) { return cost_of(Preset{{}, {}, {}, recipe.scheme, recipe.pipeline}); }

// What calibration passes have in common: recipes of one text stand together.
std::string data_text(const Recipe& recipe) {
  Recipe data;
  data.model = recipe.model;
  data.dtype = recipe.dtype;
  data.dequantize = recipe.dequantize;
  data.checkpoint = recipe.checkpoint;
  data.calibration = recipe.calibration;
  data.importance = recipe.importance;
  data.propagate_quantized = recipe.propagate_quantized;
  data.seed = recipe.seed;
  return to_yaml(data);
}

std::string stage_key(const StageSpec& stage) {
  std::string text = stage.method;
  for (const KnobInfo& info : find_method(stage.method)->knobs) text += " " + to_text(knob(stage, info.name));
  return text;
}

// Recipes with the same stages at the front stand together, groups by their cheapest.
void by_pipeline(std::vector<SweepRecipe>& recipes, size_t from, size_t to, size_t depth) {
  const auto stage_at = [&](const SweepRecipe& entry) { return depth < entry.recipe.pipeline.size() ? stage_key(entry.recipe.pipeline[depth]) : std::string(); };
  if (to - from < 2) return;
  std::map<std::string, std::pair<PresetCost, size_t>> groups;  // cost, then place in the file
  bool deeper = false;
  for (size_t i = from; i < to; ++i) {
    const std::pair mine(cost_of_pipeline(recipes[i].recipe), recipes[i].product_index);
    const auto [it, fresh] = groups.try_emplace(stage_at(recipes[i]), mine);
    if (!fresh) it->second = std::min(it->second, mine);
    deeper = deeper || depth < recipes[i].recipe.pipeline.size();
  }
  if (!deeper) return;
  std::stable_sort(recipes.begin() + static_cast<std::ptrdiff_t>(from), recipes.begin() + static_cast<std::ptrdiff_t>(to),
                   [&](const SweepRecipe& a, const SweepRecipe& b) { return groups.at(stage_at(a)) < groups.at(stage_at(b)); });
  for (size_t i = from; i < to;) {
    size_t end = i + 1;
    while (end < to && stage_at(recipes[end]) == stage_at(recipes[i])) ++end;
    by_pipeline(recipes, i, end, depth + 1);
    i = end;
  }
}

void put_in_order(std::vector<SweepRecipe>& recipes) {
  std::map<std::string, size_t> first;
  std::map<size_t, size_t> data_of;  // by place in the product
  for (const SweepRecipe& entry : recipes) data_of[entry.product_index] = first.try_emplace(data_text(entry.recipe), entry.product_index).first->second;
  const auto data = [&](const SweepRecipe& entry) { return data_of.at(entry.product_index); };
  std::stable_sort(recipes.begin(), recipes.end(), [&](const SweepRecipe& a, const SweepRecipe& b) { return data(a) < data(b); });
  for (size_t i = 0; i < recipes.size();) {
    size_t end = i + 1;
    while (end < recipes.size() && data(recipes[end]) == data(recipes[i])) ++end;
    by_pipeline(recipes, i, end, 0);
    i = end;
  }
}

// --- the whole

// The keys that settings set, and with them all below: "scheme" settles "scheme.weights.type".
std::set<std::string> settled_lists(const std::vector<SweepVariant>& variants, const std::vector<std::string>& settings) {
  std::set<std::string> settled;
  for (const std::string& setting : settings) {
    const std::string key = setting.substr(0, setting.find('='));
    for (const SweepVariant& variant : variants)
      for (const SweepChoice& choice : variant.choices)
        if (choice.key == key || choice.key.compare(0, key.size() + 1, key + ".") == 0 || choice.key.compare(0, key.size() + 1, key + "[") == 0 ||
            ((key == "model" || key == "model.path") && (choice.key == "model" || choice.key == "model.path")))
          settled.insert(choice.key);
  }
  return settled;
}

Candidate candidate_of(SweepVariant variant, const std::string& origin, const fs::path& base, const std::vector<std::string>& settings, const fs::path& settings_base) {
  Candidate candidate{std::move(variant), {}, {}, {}, {}};
  try {
    candidate.node = load_document(candidate.variant.yaml, origin);
    Mistakes mistakes;
    Recipe recipe = read_whole(YamlMap(candidate.node, ""), base, mistakes);
    candidate.mistakes = mistakes.all();
    if (mistakes.empty()) candidate.recipe = with_settings(recipe, settings, settings_base);
  } catch (const RecipeError& e) {
    candidate.mistakes.push_back(e);
  }
  return candidate;
}

// For each candidate the places of its choices whose list has several values among those that are `counted`.
std::vector<std::vector<size_t>> differing(const std::vector<Candidate>& candidates, const std::vector<bool>& counted, const std::set<std::string>& settled) {
  std::map<std::string, std::set<size_t>> values;  // of a list; SIZE_MAX: a recipe that it is no part of
  std::set<std::string> lists;
  for (const Candidate& candidate : candidates)
    for (const SweepChoice& choice : candidate.variant.choices) lists.insert(choice.list);
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!counted[i]) continue;
    std::set<std::string> here;
    for (const SweepChoice& choice : candidates[i].variant.choices) {
      values[choice.list].insert(choice.index);
      here.insert(choice.list);
    }
    for (const std::string& list : lists)
      if (!here.contains(list)) values[list].insert(SIZE_MAX);
  }
  std::vector<std::vector<size_t>> places(candidates.size());
  for (size_t i = 0; i < candidates.size(); ++i)
    for (size_t c = 0; c < candidates[i].variant.choices.size(); ++c) {
      const SweepChoice& choice = candidates[i].variant.choices[c];
      // A knob that the pipelines beside it lack differs only where it has several values itself.
      std::set<size_t> mine = values[choice.list];
      mine.erase(SIZE_MAX);
      if (!settled.contains(choice.key) && (mine.size() > 1 || (mine.size() == 1 && !mine.contains(choice.index)))) places[i].push_back(c);
    }
  return places;
}

// Of those that are counted, in their order.
std::vector<std::string> names_of(const std::vector<Candidate>& candidates, const std::vector<bool>& counted, const std::vector<std::vector<size_t>>& told, const std::string& fallback) {
  std::vector<SweepVariant> variants;
  std::vector<const Recipe*> recipes;
  std::vector<std::vector<size_t>> places;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!counted[i]) continue;
    variants.push_back(candidates[i].variant);
    recipes.push_back(candidates[i].recipe ? &*candidates[i].recipe : nullptr);
    places.push_back(told[i]);
  }
  return sweep_names(variants, recipes, places, fallback);
}

Sweep combine(const std::string& yaml, const std::string& origin, const fs::path& base, const std::vector<std::string>& settings, const fs::path& settings_base) {
  const YAML::Node root = load_document(yaml, origin);
  YamlMap map(root, "");
  SweepBlock block = read_sweep_block(map);
  Sweep sweep;
  sweep.name = !block.name.empty() ? block.name : map.text("name").value_or("");
  std::vector<SweepVariant> variants = sweep_variants(root, {});
  const std::set<std::string> settled = settled_lists(variants, settings);
  if (!settled.empty()) variants = sweep_variants(root, settled);

  std::vector<Candidate> candidates;
  for (SweepVariant& variant : variants) candidates.push_back(candidate_of(std::move(variant), origin, base, settings, settings_base));
  apply_filters(block, candidates);
  if (block.strict)
    for (const Candidate& candidate : candidates)
      if (!candidate.filtered && !candidate.recipe) fail_in_file(candidate, " (sweep.strict refuses what a sweep else leaves out)");
  refuse_useless_values(candidates);
  for (const std::vector<SweepFilter>* filters : {&block.only, &block.exclude})
    for (const SweepFilter& filter : *filters)
      if (!filter.matched) sweep.notes.push_back(filter_text(filter) + " matches no recipe");

  // Which of them are recipes of the sweep: each once.
  std::vector<bool> taken(candidates.size());
  std::map<std::string, size_t> by_hash;
  std::map<size_t, size_t> twin_of;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].filtered || !candidates[i].recipe) continue;
    const auto [first, fresh] = by_hash.try_emplace(recipe_hash(*candidates[i].recipe), i);
    taken[i] = fresh;
    if (!fresh) twin_of[i] = first->second;
  }
  const auto values_of = [&](size_t i, const std::vector<std::vector<size_t>>& told) {
    std::vector<SweepValue> values;
    for (size_t place : told[i]) {
      const SweepChoice& choice = candidates[i].variant.choices[place];
      const YAML::Node own = node_at(candidates[i].node, choice.key);  // with what was taken of the lists inside of it
      values.push_back({choice.key, flow_text(own.IsDefined() ? own : choice.value)});
    }
    return values;
  };
  // What is left out may differ in more than what is left.
  const auto told = differing(candidates, taken, settled), told_of_all = differing(candidates, std::vector<bool>(candidates.size(), true), settled);
  const std::string fallback = sweep.name.empty() ? "recipe" : sweep.name;
  const std::vector<std::string> all_names = names_of(candidates, std::vector<bool>(candidates.size(), true), told_of_all, fallback), names = names_of(candidates, taken, told, fallback);
  std::map<size_t, std::string> name_of;
  for (size_t i = 0, n = 0; i < candidates.size(); ++i) {
    if (!taken[i]) continue;
    SweepRecipe entry{*candidates[i].recipe, values_of(i, told), i};
    entry.recipe.name = name_of[i] = names[n++];
    sweep.recipes.push_back(std::move(entry));
  }
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (taken[i]) continue;
    const Candidate& candidate = candidates[i];
    const std::string reason = candidate.filtered ? *candidate.filtered : candidate.recipe ? fmt::format("is the same recipe as \"{}\"", name_of.at(twin_of.at(i))) : reason_of(candidate.mistakes.front());
    sweep.omitted.push_back({all_names[i], reason, values_of(i, told_of_all), candidate.filtered.has_value()});
  }
  if (sweep.recipes.empty()) fail_at("sweep", "the filters leave no recipe");
  put_in_order(sweep.recipes);
  return sweep;
}

}  // namespace

Sweep parse_sweep(const std::string& yaml, const std::string& origin, const fs::path& base, const std::vector<std::string>& settings, const fs::path& settings_base) {
  try {
    return combine(yaml, origin, base, settings, settings_base);
  } catch (const RecipeError& e) {
    if (!e.file().empty()) throw;
    const Position at = position_of(yaml, e.key());
    throw RecipeError(origin, at.line, at.column, e.key(), e.detail());
  }
}

Sweep load_sweep(const fs::path& path, const std::vector<std::string>& settings, const fs::path& settings_base) {
  Sweep sweep = parse_sweep(read_text(path, 4 << 20), path.string(), fs::absolute(path).parent_path(), settings, settings_base);
  if (sweep.name.empty()) sweep.name = path.stem().string();
  if (sweep.recipes.size() == 1 && sweep.recipes.front().differing.empty()) sweep.recipes.front().recipe.name = sweep.name;
  return sweep;
}

bool is_sweep(const std::string& yaml) {
  try {
    const YAML::Node root = load_document(yaml, "");
    return root.IsMap() && (root["sweep"].IsDefined() || has_sweep_lists(root));
  } catch (const RecipeError&) {
    return false;
  }
}

}  // namespace qb
