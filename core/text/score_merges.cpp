#include "core/text/score_merges.h"

#include <algorithm>
#include <functional>

#include "core/text/utf8.h"

namespace qb {

MergeTable merges_from_scores(const Vocabulary& vocabulary, const std::vector<double>& scores, const std::vector<bool>& mergeable) {
  std::vector<double> levels;
  for (size_t i = 0; i < scores.size(); ++i)
    if (mergeable[i]) levels.push_back(scores[i]);
  std::sort(levels.begin(), levels.end(), std::greater<>());
  levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
  MergeTable merges;
  for (int32_t id = 0; id < vocabulary.end(); ++id) {
    const std::string& token = vocabulary.token(id);
    if (!mergeable[static_cast<size_t>(id)] || token.empty() || vocabulary.find(token) != id) continue;
    const auto level = std::lower_bound(levels.begin(), levels.end(), scores[static_cast<size_t>(id)], std::greater<>());
    const auto rank = static_cast<uint32_t>(level - levels.begin());
    for (size_t at = static_cast<size_t>(utf8::length(token[0])); at < token.size(); at += static_cast<size_t>(utf8::length(token[at]))) {
      const auto left = vocabulary.find(std::string_view(token).substr(0, at)), right = vocabulary.find(std::string_view(token).substr(at));
      if (left && right && mergeable[static_cast<size_t>(*left)] && mergeable[static_cast<size_t>(*right)]) merges.set(*left, *right, {rank, id});
    }
  }
  return merges;
}

}  // namespace qb
