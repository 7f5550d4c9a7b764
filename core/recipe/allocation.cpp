#include "core/recipe/allocation.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "core/base/error.h"
#include "core/recipe/linear_kinds.h"

namespace qb {
namespace {

// The choices that no other one beats, smallest first, with the steps between those on the lower convex hull.
struct Front {
  std::vector<size_t> choices;  // ascending size, descending cost
};

struct Step {  // on a hull: so much more size, so much less cost
  size_t group;
  int64_t size;
  double gain;
  double rate() const { return gain / static_cast<double>(size); }
};

Front front_of(const std::vector<BudgetChoice>& choices) {
  std::vector<size_t> order(choices.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return std::tie(choices[a].size, choices[a].cost, a) < std::tie(choices[b].size, choices[b].cost, b); });
  Front front;
  for (size_t i : order)
    if (front.choices.empty() || choices[i].cost < choices[front.choices.back()].cost) front.choices.push_back(i);
  return front;
}

std::vector<Step> hull_steps(const std::vector<BudgetChoice>& choices, const Front& front, size_t group) {
  std::vector<size_t> hull;
  auto rate = [&](size_t a, size_t b) { return (choices[a].cost - choices[b].cost) / static_cast<double>(choices[b].size - choices[a].size); };
  for (size_t i : front.choices) {
    while (hull.size() >= 2 && rate(hull[hull.size() - 2], hull.back()) <= rate(hull.back(), i)) hull.pop_back();
    hull.push_back(i);
  }
  std::vector<Step> steps;
  for (size_t k = 1; k < hull.size(); ++k) steps.push_back({group, choices[hull[k]].size - choices[hull[k - 1]].size, choices[hull[k - 1]].cost - choices[hull[k]].cost});
  return steps;
}

// A way through the groups so far: `choice` of the last one, behind state `before` of the groups before it.
struct State {
  int64_t size;
  double cost;
  uint32_t before;
  uint32_t choice;
};

}  // namespace

std::optional<std::vector<size_t>> best_choices(const std::vector<std::vector<BudgetChoice>>& groups, int64_t budget) {
  const size_t n = groups.size();
  std::vector<Front> fronts;
  std::vector<Step> steps;
  int64_t least = 0;
  for (size_t g = 0; g < n; ++g) {
    if (groups[g].empty()) throw InternalError(fmt::format("group {} has nothing to choose from", g));
    for (const BudgetChoice& c : groups[g])
      if (!(c.cost >= 0) || !std::isfinite(c.cost) || c.size < 0) throw InternalError(fmt::format("group {}: size {}, cost {}, expected none below zero", g, c.size, c.cost));
    fronts.push_back(front_of(groups[g]));
    least += groups[g][fronts[g].choices.front()].size;
    for (const Step& step : hull_steps(groups[g], fronts[g], g)) steps.push_back(step);
  }
  if (least > budget) return std::nullopt;
  // The best steps first, as the relaxation takes them; within a group their rates fall, so they stay in order.
  std::stable_sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) { return a.rate() > b.rate(); });

  // Of groups from g on: their smallest sizes and the costs of these.
  std::vector<int64_t> rest_size(n + 1, 0);
  std::vector<double> rest_cost(n + 1, 0);
  for (size_t g = n; g-- > 0;) {
    const BudgetChoice& smallest = groups[g][fronts[g].choices.front()];
    rest_size[g] = rest_size[g + 1] + smallest.size;
    rest_cost[g] = rest_cost[g + 1] + smallest.cost;
  }

  std::vector<std::vector<State>> states(n + 1);
  states[0] = {{0, 0, 0, 0}};
  double best = std::numeric_limits<double>::infinity();  // cost of a whole assignment that is known to fit
  for (size_t g = 0; g <= n; ++g) {
    // Steps of the groups still to come, as running sums of size and gain.
    std::vector<int64_t> sizes = {0};
    std::vector<double> gains = {0}, rates;
    for (const Step& step : steps)
      if (step.group >= g) {
        sizes.push_back(sizes.back() + step.size);
        gains.push_back(gains.back() + step.gain);
        rates.push_back(step.rate());
      }
    // States by size, each cheaper than all smaller ones; those go that cannot become better than the best.
    std::vector<State>& now = states[g];
    std::vector<double> bounds;
    size_t kept = 0;
    for (size_t i = 0; i < now.size(); ++i) {
      const State s = now[i];
      const int64_t room = budget - s.size - rest_size[g];
      if (room < 0) break;
      const size_t whole = static_cast<size_t>(std::upper_bound(sizes.begin(), sizes.end(), room) - sizes.begin()) - 1;
      // Taking whole steps alone is an assignment, since a group's steps come in order.
      const double reached = s.cost + rest_cost[g] - gains[whole];
      const double bound = whole < rates.size() ? reached - rates[whole] * static_cast<double>(room - sizes[whole]) : reached;
      best = std::min(best, reached);
      bounds.push_back(bound);
      now[kept++] = s;
    }
    now.resize(kept);
    if (g == n) break;
    const double slack = 1e-12 * std::max(rest_cost[0], 1e-300);  // what rounding of the sums may take off
    size_t left = 0;
    for (size_t i = 0; i < now.size(); ++i)
      if (bounds[i] <= best + slack) now[left++] = now[i];
    now.resize(left);

    // Each front choice gives a list in order of size already: merged, and the beaten ones left out.
    struct Cursor {
      size_t choice, at;
    };
    std::vector<Cursor> cursors;
    for (size_t c : fronts[g].choices) cursors.push_back({c, 0});
    std::vector<State>& next = states[g + 1];
    while (true) {
      const Cursor* first = nullptr;
      int64_t size = 0;
      double cost = 0;
      for (const Cursor& cursor : cursors) {
        if (cursor.at == now.size()) continue;
        const int64_t s = now[cursor.at].size + groups[g][cursor.choice].size;
        const double c = now[cursor.at].cost + groups[g][cursor.choice].cost;
        if (!first || s < size || (s == size && c < cost)) first = &cursor, size = s, cost = c;
      }
      if (!first) break;
      if (size + rest_size[g + 1] <= budget && (next.empty() || cost < next.back().cost))
        next.push_back({size, cost, static_cast<uint32_t>(first->at), static_cast<uint32_t>(first->choice)});
      ++cursors[static_cast<size_t>(first - cursors.data())].at;
    }
  }
  if (states[n].empty()) throw InternalError("an assignment that fits was lost");
  std::vector<size_t> chosen(n);
  size_t at = states[n].size() - 1;  // the cheapest
  for (size_t g = n; g-- > 0;) {
    const State& s = states[g + 1][at];
    chosen[g] = s.choice;
    at = s.before;
  }
  return chosen;
}

const std::vector<std::string>& allocation_costs() {
  static const std::vector<std::string> names = {"gram", "fisher", "guided", "measured"};
  return names;
}

namespace {

double cost_of(const CandidateSensitivity& c, const std::string& cost) {
  return cost == "gram" ? c.relative_error : cost == "fisher" ? c.fisher : cost == "guided" ? c.guided : c.measured;
}

struct Sizes {
  int64_t bits = 0, read_bits = 0, weights = 0;
};

}  // namespace

Allocation allocate(const Sensitivity& s, const AllocationOptions& options, const Scheme* scheme) {
  const Budget& budget = options.budget;
  const int kinds = (budget.bits > 0) + (budget.gib > 0) + (budget.tokens_per_second > 0);
  if (kinds != 1) throw InputError("allocation: expected one budget above zero: bits a weight, GiB, or tokens a second");
  if (budget.tokens_per_second > 0 && !(budget.bandwidth > 0)) throw InputError("allocation: tokens a second need the memory's bandwidth in bytes a second");
  if (std::find(allocation_costs().begin(), allocation_costs().end(), options.cost) == allocation_costs().end())
    throw InputError(fmt::format("allocation: cost \"{}\", expected one of {}", options.cost, fmt::join(allocation_costs(), ", ")));
  for (const std::string& candidate : options.candidates)
    if (std::find(s.candidates.begin(), s.candidates.end(), candidate) == s.candidates.end())
      throw InputError(fmt::format("allocation: candidate \"{}\" is not among those of the sensitivity: {}", candidate, fmt::join(s.candidates, ", ")));
  const std::vector<std::string>& candidates = options.candidates.empty() ? s.candidates : options.candidates;

  // Of a routed expert a token reads a share.
  auto read = [&](const LinearSensitivity& l, int64_t bits) {
    if (!l.expert || s.experts <= 0 || s.experts_per_token <= 0) return bits;
    return (bits * s.experts_per_token + s.experts - 1) / s.experts;
  };
  std::map<std::tuple<int, int, int>, std::vector<size_t>> members;  // block, kind of tie, number
  int64_t fixed_bits = 8 * s.other_bytes, fixed_read = 8 * s.other_read_bytes, weights = 0;
  Allocation result;
  std::vector<size_t> at(s.linears.size(), 0);
  for (size_t i = 0; i < s.linears.size(); ++i) {
    const LinearSensitivity& l = s.linears[i];
    if (scheme && !scheme->weights_of(l.module)) {
      const int64_t bits = 16 * l.out_features * l.in_features;
      fixed_bits += bits;
      fixed_read += read(l, bits);
      continue;
    }
    at[i] = result.modules.size();
    result.modules.push_back(l.module);
    result.candidates.emplace_back();
    weights += l.out_features * l.in_features;
    if (!options.tied)
      members[{l.block, 0, static_cast<int>(i)}].push_back(i);
    else if (l.expert)  // engines compute all experts of a layer by one kernel
      members[{l.block, 1, 0}].push_back(i);
    else
      members[{l.block, 2, l.input}].push_back(i);
  }
  if (result.modules.empty()) throw InputError("allocation: the scheme keeps all linears in float");

  std::vector<std::vector<BudgetChoice>> groups;
  std::vector<std::vector<std::string>> names;
  std::vector<std::vector<size_t>> linears;
  const bool by_reading = budget.tokens_per_second > 0;
  for (const auto& [place, list] : members) {
    groups.emplace_back();
    names.emplace_back();
    linears.push_back(list);
    for (const std::string& candidate : candidates) {
      BudgetChoice choice;
      bool fits = true;
      for (size_t i : list) {
        const LinearSensitivity& l = s.linears[i];
        const CandidateSensitivity* c = l.find(candidate);
        if (!c) {
          fits = false;
          break;
        }
        const double cost = cost_of(*c, options.cost);
        if (!std::isfinite(cost)) throw InputError(fmt::format("allocation: of {} under {} no cost \"{}\" is known; it was not measured", l.module, candidate, options.cost));
        choice.cost += std::max(cost, 0.0);  // a measured one may be a little below
        choice.size += by_reading ? read(l, c->bits) : c->bits;
      }
      if (!fits) continue;
      groups.back().push_back(choice);
      names.back().push_back(candidate);
    }
    if (groups.back().empty())
      throw InputError(fmt::format("allocation: no candidate fits {}{}", s.linears[list.front()].module, list.size() > 1 ? " and what engines join with it" : ""));
  }

  auto total = [&](const std::string& name, const std::vector<size_t>& chosen) {
    AllocationTotal t;
    t.name = name;
    int64_t bits = 0, read_bits = fixed_read;
    for (size_t g = 0; g < groups.size(); ++g) {
      t.predicted += groups[g][chosen[g]].cost;
      for (size_t i : linears[g]) {
        const int64_t own = s.linears[i].find(names[g][chosen[g]])->bits;
        bits += own;
        read_bits += read(s.linears[i], own);
      }
    }
    t.bits_per_weight = static_cast<double>(bits) / static_cast<double>(weights);
    t.bytes = (bits + fixed_bits + 7) / 8;
    t.read_bytes = (read_bits + 7) / 8;
    if (budget.bandwidth > 0) t.tokens_per_second = budget.bandwidth / static_cast<double>(t.read_bytes);
    return t;
  };

  double limit = 0;
  if (budget.bits > 0) limit = budget.bits * static_cast<double>(weights);
  if (budget.gib > 0) limit = budget.gib * 8 * 1073741824.0 - static_cast<double>(fixed_bits);
  if (by_reading) limit = 8 * budget.bandwidth / budget.tokens_per_second - static_cast<double>(fixed_read);
  const auto chosen = best_choices(groups, static_cast<int64_t>(std::floor(std::clamp(limit, -1.0, 9e18) * (1 + 1e-12))));
  if (!chosen) {
    std::vector<size_t> smallest;
    for (const auto& group : groups)
      smallest.push_back(static_cast<size_t>(std::min_element(group.begin(), group.end(), [](const auto& a, const auto& b) { return a.size < b.size; }) - group.begin()));
    const AllocationTotal least = total("", smallest);
    if (budget.bits > 0) throw InputError(fmt::format("allocation: {} bits a weight are not enough: the smallest candidates come to {:.4f}", budget.bits, least.bits_per_weight));
    if (budget.gib > 0) throw InputError(fmt::format("allocation: {} GiB are not enough: with the smallest candidates the model has {:.4f}", budget.gib, static_cast<double>(least.bytes) / 1073741824.0));
    throw InputError(fmt::format("allocation: {} tokens a second are out of reach: the smallest candidates allow {:.1f}", budget.tokens_per_second, least.tokens_per_second));
  }
  for (size_t g = 0; g < groups.size(); ++g)
    for (size_t i : linears[g]) result.candidates[at[i]] = names[g][(*chosen)[g]];
  result.total = total("allocated", *chosen);
  for (const std::string& candidate : candidates) {
    std::vector<size_t> same;
    for (size_t g = 0; g < groups.size(); ++g) {
      const auto it = std::find(names[g].begin(), names[g].end(), candidate);
      if (it != names[g].end()) same.push_back(static_cast<size_t>(it - names[g].begin()));
    }
    if (same.size() == groups.size()) result.uniform.push_back(total(candidate, same));
  }
  return result;
}

Scheme allocated_scheme(const Allocation& allocation, const Sensitivity& s, Scheme scheme) {
  std::map<std::string, const LinearSensitivity*> by_module;
  for (const LinearSensitivity& l : s.linears) by_module[l.module] = &l;
  std::map<std::string, int64_t> weights;  // under each candidate
  struct Kind {
    std::map<int, std::set<std::string>> of_block;           // candidates of its linears there
    std::map<std::string, int64_t> count;
    std::vector<std::pair<std::string, std::string>> linears;  // module, candidate
    std::string before, behind;                              // of the block's number in modules' names
    std::string usual;
  };
  std::vector<std::string> order;
  std::map<std::string, Kind> kinds;
  for (size_t i = 0; i < allocation.modules.size(); ++i) {
    const LinearSensitivity& l = *by_module.at(allocation.modules[i]);
    const std::string& candidate = allocation.candidates[i];
    weights[candidate] += l.out_features * l.in_features;
    const std::string name = kind_of_linear(l.name);
    auto [it, fresh] = kinds.try_emplace(name);
    if (fresh) order.push_back(name);
    Kind& kind = it->second;
    kind.of_block[l.block].insert(candidate);
    ++kind.count[candidate];
    kind.linears.emplace_back(l.module, candidate);
    const std::string prefix = l.module.substr(0, l.module.size() - l.name.size()), number = fmt::format("{}.", l.block);  // "model.layers.3."
    if (prefix.ends_with(number)) kind.before = prefix.substr(0, prefix.size() - number.size());
  }
  auto most = [](const std::map<std::string, int64_t>& counts) {
    return std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
  };
  const std::string base = most(weights);

  // Those blocks first that differ from their kind's usual candidate; kinds that agree in blocks and candidate share a pattern.
  std::map<std::pair<std::string, std::vector<int>>, std::vector<std::string>> shared;
  std::vector<SchemeOverride> overrides;
  for (const std::string& name : order) {
    Kind& kind = kinds[name];
    kind.usual = most(kind.count);
    std::map<std::string, std::vector<int>> blocks;
    for (const auto& [block, candidates] : kind.of_block)
      if (candidates.size() == 1 && *candidates.begin() != kind.usual) blocks[*candidates.begin()].push_back(block);
    for (auto& [candidate, list] : blocks) shared[{candidate, list}].push_back(name);
    for (const auto& [module, candidate] : kind.linears)  // experts that do not agree
      if (kind.of_block.at(by_module.at(module)->block).size() > 1 && candidate != kind.usual) overrides.push_back({module, parse_candidate(candidate)});
  }
  for (const auto& [key, names] : shared) {
    const auto& [candidate, blocks] = key;
    std::vector<std::string> alternatives;
    for (const std::string& name : names) alternatives.push_back(pattern_text(name));
    const std::string tail = alternatives.size() == 1 ? alternatives.front() : fmt::format("({})", fmt::join(alternatives, "|"));
    const std::string numbers = blocks.size() == 1 ? fmt::format("{}", blocks.front()) : fmt::format("({})", fmt::join(blocks, "|"));
    overrides.push_back({fmt::format("re:{}{}\\.{}", pattern_text(kinds[names.front()].before), numbers, tail), parse_candidate(candidate)});
  }
  for (const std::string& name : order)
    if (kinds[name].usual != base) overrides.push_back({"*." + name, parse_candidate(kinds[name].usual)});

  scheme.weights = parse_candidate(base);
  scheme.mix.clear();
  scheme.overrides = std::move(overrides);
  for (size_t i = 0; i < allocation.modules.size(); ++i)
    if (scheme.weights_of(allocation.modules[i]) != parse_candidate(allocation.candidates[i]))
      throw InternalError(fmt::format("{} did not get {}", allocation.modules[i], allocation.candidates[i]));
  return scheme;
}

}  // namespace qb
