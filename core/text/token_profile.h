#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace qb {

// Which tokens a text is made of, and how long its pieces are. Torch-free.
struct TokenProfile {
  std::string name;
  int64_t tokens = 0, distinct = 0;
  double entropy = 0;                              // of the distribution of single tokens, in bits
  std::vector<int64_t> lengths;                    // of documents, samples or windows, shortest first
  std::vector<std::pair<int32_t, int64_t>> counts; // of each token that occurs, by id
};
TokenProfile token_profile(std::string name, const std::vector<std::vector<int32_t>>& sequences);

// Of how many tokens in a row it is that both texts share a passage (Brown et al. 2020 took 13 words).
inline constexpr int kPassage = 13;

// How like a text `a`, which calibrates, is to `b`, which the model is for. Torch-free.
struct TokenComparison {
  double coverage = 0;            // share of b's tokens whose id occurs in a
  double distinct_coverage = 0;   // share of b's different ids that do
  double jensen_shannon = 0;      // between the two distributions of single tokens: 0 the same, 1 bit nothing in common
  double divergence = 0;          // KL(b ‖ a) in bits, half a count added to every id that occurs in either
  double shared_passages = 0;     // share of b's runs of 13 tokens that stand in a too: where b evaluates, it should be 0
  struct Shift {
    int32_t id = 0;
    double in_a = 0, in_b = 0;    // shares
  };
  std::vector<Shift> missing, surplus;  // what a has too little of for b, and too much: what adds most to jensen_shannon first, at most 20
};
TokenComparison compare_tokens(const std::vector<std::vector<int32_t>>& a, const std::vector<std::vector<int32_t>>& b);

// Tokens of one of b's sequences, each of which is in a passage that stands in a too.
struct SharedRun {
  size_t sequence = 0, first = 0, tokens = 0;
  bool operator==(const SharedRun&) const = default;
};
// The longest, longest first, those in front first where they are alike; at most so many.
std::vector<SharedRun> shared_runs(const std::vector<std::vector<int32_t>>& a, const std::vector<std::vector<int32_t>>& b, size_t most);

}  // namespace qb
