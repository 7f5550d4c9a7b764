#include "core/recipe/bit_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>

#include "core/base/error.h"
#include "core/engine/module_name.h"
#include "core/recipe/linear_kinds.h"

namespace qb {
namespace {

constexpr double kFloatBits = 16;

std::string alternatives(const std::vector<std::string>& texts) {
  return texts.size() == 1 ? texts.front() : fmt::format("({})", fmt::join(texts, "|"));
}

// "model.layers." of "model.layers.3.mlp.up_proj" in block 3.
std::string before_number(const PlannedLinear& l) {
  const std::string prefix = l.module.substr(0, l.module.size() - l.name.size()), number = fmt::format("{}.", l.block);
  return prefix.ends_with(number) ? prefix.substr(0, prefix.size() - number.size()) : prefix;
}

double bits_of(const PlannedLinear& l) { return l.weights ? bits_per_weight(*l.weights, l.out_features, l.in_features) : kFloatBits; }

double cost_of(const CandidateSensitivity& c, const std::string& cost) {
  return cost == "gram" ? c.relative_error : cost == "fisher" ? c.fisher : cost == "guided" ? c.guided : c.measured;
}

// Different weights of a plan, numbered: specs have no order.
struct Palette {
  std::vector<std::optional<QuantSpec>> specs;
  size_t index(const std::optional<QuantSpec>& spec) {
    const auto it = std::find(specs.begin(), specs.end(), spec);
    if (it != specs.end()) return static_cast<size_t>(it - specs.begin());
    specs.push_back(spec);
    return specs.size() - 1;
  }
};

size_t most(const std::map<size_t, int64_t>& counts) {
  return std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
}

}  // namespace

BitPlan bit_plan(const ModelInfo& model, const Scheme& scheme) {
  BitPlan plan;
  std::map<std::tuple<int, int, int>, size_t> ties;
  for (const BlockInfo& block : model.blocks) {
    for (const OtherTensor& other : block.others) plan.other_bytes += static_cast<int64_t>(other.bytes);
    for (const LinearInfo& linear : block.linears) {
      PlannedLinear l{block.index, linear.name, module_of(linear), kind_of_linear(linear.name), linear.out_features, linear.in_features, 0, {}};
      const bool expert = l.kind.find(".*.") != std::string::npos;
      const auto [it, fresh] = ties.try_emplace(expert ? std::tuple(block.index, 1, 0) : std::tuple(block.index, 2, linear.input), plan.ties.size());
      if (fresh) plan.ties.emplace_back();
      l.tie = it->second;
      plan.ties[l.tie].push_back(plan.linears.size());
      l.weights = scheme.weights_of(l.module);
      l.ignored = std::any_of(scheme.ignore.begin(), scheme.ignore.end(), [&](const std::string& pattern) { return matches(pattern, l.module); });
      plan.linears.push_back(std::move(l));
    }
  }
  for (const auto* list : {&model.before, &model.after})
    for (const OtherTensor& other : *list) plan.other_bytes += static_cast<int64_t>(other.bytes);
  return plan;
}

std::string candidate_text(const QuantSpec& spec) {
  if (spec.storage != Storage::none) return type_text(spec);
  const std::string symmetric = spec.symmetric && spec.type.kind == NumberType::Kind::integer ? "s" : "";
  switch (spec.granularity) {
    case Granularity::group: return fmt::format("{}g{}{}", spec.type.text(), spec.group_size, symmetric);
    case Granularity::channel: return spec.type.text() + "c" + symmetric;
    case Granularity::tensor: return spec.type.text() + "t" + symmetric;
    default: return {};
  }
}

std::optional<QuantSpec> with_bits(const QuantSpec& spec, int bits) {
  if (spec.storage != Storage::none) {
    const bool super = info_of(spec.storage).super > 0;
    switch (bits) {
      case 2: return spec_of(Storage::q2_k);
      case 3: return spec_of(Storage::q3_k);
      case 4: return spec_of(super ? Storage::q4_k : Storage::q4_0);
      case 5: return spec_of(super ? Storage::q5_k : Storage::q5_0);
      case 6: return spec_of(Storage::q6_k);
      case 8: return spec_of(Storage::q8_0);
      default: return std::nullopt;
    }
  }
  QuantSpec wanted = spec;
  const auto type = NumberType::parse(spec.type.kind == NumberType::Kind::floating ? (bits == 8 ? "e4m3" : bits == 6 ? "e2m3" : bits == 4 ? "e2m1" : "") : fmt::format("int{}", bits));
  if (!type) return std::nullopt;
  wanted.type = *type;
  return wanted;
}

std::vector<std::string> candidates_beside(const QuantSpec& spec) {
  std::vector<std::string> candidates;
  for (const int bits : {2, 3, 4, 5, 6, 8})
    if (const auto other = with_bits(spec, bits))
      if (const std::string text = candidate_text(*other); !text.empty() && parse_candidate(text)) candidates.push_back(text);
  return candidates;
}

QuantSpec with_candidate(const std::optional<QuantSpec>& base, const QuantSpec& candidate) {
  if (!base || base->storage != Storage::none || candidate.storage != Storage::none || base->type.kind != candidate.type.kind) return candidate;
  QuantSpec spec = *base;
  spec.type = candidate.type;
  spec.symmetric = candidate.symmetric;
  spec.granularity = candidate.granularity;
  if (candidate.granularity == Granularity::group) spec.group_size = candidate.group_size;
  return spec;
}

std::vector<size_t> give(BitPlan& plan, size_t linear, const std::optional<QuantSpec>& weights) {
  const std::vector<size_t>& tied = plan.ties.at(plan.linears.at(linear).tie);
  std::vector<size_t> changed;
  for (const size_t i : tied) {
    const PlannedLinear& l = plan.linears[i];
    if (l.ignored) throw InputError(fmt::format("{} is in the recipe's list of what is ignored: take it off there first", l.module));
    if (!weights) continue;
    if (const std::string why = misfit(*weights, l.out_features, l.in_features); !why.empty()) throw InputError(fmt::format("{} for {}: {}", describe(*weights), l.module, why));
  }
  for (const size_t i : tied)
    if (plan.linears[i].weights != weights) {
      plan.linears[i].weights = weights;
      changed.push_back(i);
    }
  return changed;
}

PlanTotal total_of(const BitPlan& plan, const Sensitivity* survey, const std::string& cost) {
  PlanTotal total;
  double bits = 0, weights = 0;
  std::unordered_map<std::string, const LinearSensitivity*> by_module;
  if (survey)
    for (const LinearSensitivity& l : survey->linears) by_module[l.module] = &l;
  for (const PlannedLinear& l : plan.linears) {
    const double count = static_cast<double>(l.out_features) * static_cast<double>(l.in_features);
    weights += count;
    bits += bits_of(l) * count;
    if (!l.weights) continue;  // float costs nothing
    const auto it = by_module.find(l.module);
    const CandidateSensitivity* found = it == by_module.end() ? nullptr : it->second->find(candidate_text(*l.weights));
    const double value = found ? cost_of(*found, cost) : kUnknown;
    if (std::isfinite(value))
      total.predicted += std::max(value, 0.0);
    else
      ++total.unknown;
  }
  if (total.unknown > 0 || !survey) total.predicted = kUnknown;
  total.bits_per_weight = weights > 0 ? bits / weights : 0;
  total.bytes = plan.other_bytes + static_cast<int64_t>(std::ceil(bits / 8));
  return total;
}

Scheme planned_scheme(const BitPlan& plan, Scheme scheme) {
  struct Kind {
    std::map<int, std::set<size_t>> of_block;
    std::map<size_t, int64_t> count;
    std::vector<size_t> linears;
    std::string before;
    size_t usual = 0;
  };
  Palette palette;
  std::map<size_t, int64_t> weights;
  std::vector<std::string> order;
  std::map<std::string, Kind> kinds;
  std::vector<size_t> wanted(plan.linears.size());
  for (size_t i = 0; i < plan.linears.size(); ++i) {
    const PlannedLinear& l = plan.linears[i];
    if (l.ignored) continue;
    wanted[i] = palette.index(l.weights);
    if (l.weights) weights[wanted[i]] += l.out_features * l.in_features;
    auto [it, fresh] = kinds.try_emplace(l.kind);
    if (fresh) order.push_back(l.kind);
    it->second.of_block[l.block].insert(wanted[i]);
    ++it->second.count[wanted[i]];
    it->second.linears.push_back(i);
    it->second.before = before_number(l);
  }
  if (weights.empty()) throw InputError("all linears are kept in float: there is nothing to quantize");
  const size_t base = most(weights);

  // Blocks that differ from their kind's usual weights come first; kinds that agree in blocks and weights share a pattern.
  std::map<std::pair<size_t, std::vector<int>>, std::vector<std::string>> shared;
  std::vector<SchemeOverride> overrides;
  for (const std::string& name : order) {
    Kind& kind = kinds[name];
    kind.usual = most(kind.count);
    std::map<size_t, std::vector<int>> blocks;
    for (const auto& [block, found] : kind.of_block)
      if (found.size() == 1 && *found.begin() != kind.usual) blocks[*found.begin()].push_back(block);
    for (const auto& [spec, list] : blocks) shared[{spec, list}].push_back(name);
    for (const size_t i : kind.linears)  // experts that do not agree
      if (kind.of_block.at(plan.linears[i].block).size() > 1 && wanted[i] != kind.usual) overrides.push_back({plan.linears[i].module, palette.specs[wanted[i]]});
  }
  for (const auto& [key, names] : shared) {
    std::vector<std::string> tails, numbers;
    for (const std::string& name : names) tails.push_back(pattern_text(name));
    for (const int block : key.second) numbers.push_back(std::to_string(block));
    overrides.push_back({fmt::format("re:{}{}\\.{}", pattern_text(kinds[names.front()].before), alternatives(numbers), alternatives(tails)), palette.specs[key.first]});
  }
  for (const std::string& name : order)
    if (kinds[name].usual != base) overrides.push_back({"*." + name, palette.specs[kinds[name].usual]});

  scheme.weights = palette.specs[base];
  scheme.mix.clear();
  scheme.overrides = std::move(overrides);
  for (const PlannedLinear& l : plan.linears)
    if (!l.ignored && scheme.weights_of(l.module) != l.weights) throw InternalError(fmt::format("{} did not get its weights", l.module));
  return scheme;
}

Scheme with_override(const ModelInfo& model, Scheme scheme, const std::string& module, const std::optional<QuantSpec>& weights) {
  BitPlan plan = bit_plan(model, scheme);
  const auto it = std::find_if(plan.linears.begin(), plan.linears.end(), [&](const PlannedLinear& l) { return l.module == module; });
  if (it == plan.linears.end()) throw InputError(fmt::format("{} has no linear {}", model.name, module));
  give(plan, static_cast<size_t>(it - plan.linears.begin()), weights);
  std::vector<std::string> names;
  for (const size_t i : plan.ties[it->tie])
    if (const std::string name = pattern_text(plan.linears[i].kind); std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  const std::string pattern = plan.ties[it->tie].size() == 1 ? module : fmt::format("re:{}{}\\.{}", pattern_text(before_number(*it)), it->block, alternatives(names));
  std::erase_if(scheme.overrides, [&](const SchemeOverride& entry) { return entry.match == pattern; });
  if (scheme.mix.empty() && std::all_of(plan.ties[it->tie].begin(), plan.ties[it->tie].end(), [&](size_t i) { return scheme.weights_of(plan.linears[i].module) == weights; })) return scheme;
  scheme.overrides.insert(scheme.overrides.begin(), {pattern, weights});
  return scheme;
}

}  // namespace qb
