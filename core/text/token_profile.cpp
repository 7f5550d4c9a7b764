#include "core/text/token_profile.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <unordered_set>

namespace qb {
namespace {

using Sequences = std::vector<std::vector<int32_t>>;
using Counts = std::map<int32_t, int64_t>;

Counts count(const Sequences& sequences) {
  Counts counts;
  for (const auto& sequence : sequences)
    for (int32_t id : sequence) ++counts[id];
  return counts;
}

double total(const Counts& counts) {
  double sum = 0;
  for (const auto& [id, n] : counts) sum += static_cast<double>(n);
  return sum;
}

// FNV-1a of the ids; two of 10⁷ passages are alike by chance once in 10⁵ texts.
uint64_t passage_hash(const std::vector<int32_t>& sequence, size_t first) {
  uint64_t hash = 14695981039346656037ull;
  for (size_t i = first; i < first + kPassage; ++i)
    for (int shift = 0; shift < 32; shift += 8) hash = (hash ^ (static_cast<uint32_t>(sequence[i]) >> shift & 255)) * 1099511628211ull;
  return hash;
}

template <class Each>
void each_passage(const Sequences& sequences, Each each) {
  for (const auto& sequence : sequences)
    for (size_t first = 0; first + kPassage <= sequence.size(); ++first) each(passage_hash(sequence, first));
}

// p·log₂(p/m), 0 where there is no p.
double term(double p, double m) { return p > 0 ? p * std::log2(p / m) : 0; }

}  // namespace

TokenProfile token_profile(std::string name, const Sequences& sequences) {
  TokenProfile profile;
  profile.name = std::move(name);
  const Counts counts = count(sequences);
  const double all = total(counts);
  profile.tokens = static_cast<int64_t>(all);
  profile.distinct = static_cast<int64_t>(counts.size());
  profile.counts.assign(counts.begin(), counts.end());
  for (const auto& [id, n] : counts) profile.entropy -= term(static_cast<double>(n) / all, 1);
  for (const auto& sequence : sequences) profile.lengths.push_back(static_cast<int64_t>(sequence.size()));
  std::sort(profile.lengths.begin(), profile.lengths.end());
  return profile;
}

TokenComparison compare_tokens(const Sequences& a, const Sequences& b) {
  TokenComparison found;
  const Counts in_a = count(a), in_b = count(b);
  const double all_a = total(in_a), all_b = total(in_b);
  if (all_a == 0 || all_b == 0) return found;
  Counts either = in_a;
  either.insert(in_b.begin(), in_b.end());
  const auto of = [](const Counts& counts, int32_t id) {
    const auto at = counts.find(id);
    return at == counts.end() ? 0.0 : static_cast<double>(at->second);
  };
  const double smooth = 0.5 * static_cast<double>(either.size());
  double covered = 0, known = 0;
  std::vector<std::pair<double, TokenComparison::Shift>> missing, surplus;
  for (const auto& [id, _] : either) {
    const double n_a = of(in_a, id), n_b = of(in_b, id), p_a = n_a / all_a, p_b = n_b / all_b, middle = (p_a + p_b) / 2;
    if (n_a > 0) covered += n_b;
    if (n_a > 0 && n_b > 0) known += 1;
    const double adds = (term(p_a, middle) + term(p_b, middle)) / 2;
    found.jensen_shannon += adds;
    found.divergence += term((n_b + 0.5) / (all_b + smooth), (n_a + 0.5) / (all_a + smooth));
    if (p_a != p_b) (p_b > p_a ? missing : surplus).push_back({adds, {id, p_a, p_b}});
  }
  found.coverage = covered / all_b;
  found.distinct_coverage = known / static_cast<double>(in_b.size());
  for (auto [from, to] : {std::pair{&missing, &found.missing}, std::pair{&surplus, &found.surplus}}) {
    std::stable_sort(from->begin(), from->end(), [](const auto& x, const auto& y) { return x.first > y.first; });
    for (size_t i = 0; i < std::min<size_t>(20, from->size()); ++i) to->push_back((*from)[i].second);
  }
  std::unordered_set<uint64_t> passages;
  each_passage(a, [&](uint64_t hash) { passages.insert(hash); });
  int64_t shared = 0, runs = 0;
  each_passage(b, [&](uint64_t hash) {
    ++runs;
    shared += passages.contains(hash);
  });
  found.shared_passages = runs > 0 ? static_cast<double>(shared) / static_cast<double>(runs) : 0;
  return found;
}

std::vector<SharedRun> shared_runs(const Sequences& a, const Sequences& b, size_t most) {
  std::unordered_set<uint64_t> passages;
  each_passage(a, [&](uint64_t hash) { passages.insert(hash); });
  std::vector<SharedRun> runs;
  for (size_t s = 0; s < b.size(); ++s) {
    std::optional<SharedRun> run;
    for (size_t first = 0; first + kPassage <= b[s].size(); ++first) {
      if (!passages.contains(passage_hash(b[s], first))) continue;
      if (run && first <= run->first + run->tokens) {
        run->tokens = first + kPassage - run->first;
        continue;
      }
      if (run) runs.push_back(*run);
      run = SharedRun{s, first, static_cast<size_t>(kPassage)};
    }
    if (run) runs.push_back(*run);
  }
  std::stable_sort(runs.begin(), runs.end(), [](const SharedRun& x, const SharedRun& y) { return x.tokens > y.tokens; });
  if (runs.size() > most) runs.resize(most);
  return runs;
}

}  // namespace qb
