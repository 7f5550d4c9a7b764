#include "core/text/unigram.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/base/error.h"
#include "core/text/utf8.h"
#include "core/text/word_cache.h"

namespace qb {
namespace {
constexpr double unknown_penalty = 10.0;  // SentencePiece's kUnkPenalty
}

struct Unigram::Work final : TokenModel::Scratch {
  struct Node {
    double score = 0;
    int64_t begin = -1;  // where the last token of the best path to here starts; -1: not reached
    int32_t id = 0;
  };
  WordCache cache;
  std::vector<Node> best;
  std::vector<std::pair<size_t, size_t>> spans;
};

Unigram::Unigram(Vocabulary vocabulary, std::vector<double> scores, std::optional<int32_t> unknown, bool byte_fallback, std::string origin)
    : vocabulary_(std::move(vocabulary)), scores_(std::move(scores)), unknown_(unknown), byte_fallback_(byte_fallback), origin_(std::move(origin)) {
  double lowest = std::numeric_limits<double>::infinity();
  for (double s : scores_) lowest = std::min(lowest, s);
  unknown_score_ = lowest - unknown_penalty;
  for (int32_t id = 0; id < vocabulary_.end(); ++id) {
    const std::string& token = vocabulary_.token(id);
    if (!token.empty()) trie_.add(token, *vocabulary_.find(token));
  }
  for (int b = 0; b < 256; ++b) fallback_ids_[b] = vocabulary_.find(fmt::format("<0x{:02X}>", b)).value_or(-1);
}

std::unique_ptr<TokenModel::Scratch> Unigram::make_scratch() const { return std::make_unique<Work>(); }

void Unigram::tokenize(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  auto& work = static_cast<Work&>(scratch);
  if (work.cache.find(piece, ids)) return;
  auto& best = work.best;
  best.assign(piece.size() + 1, {});
  for (size_t at = 0; at < piece.size();) {
    const double so_far = best[at].score;
    const auto n = static_cast<size_t>(utf8::length(piece[at]));
    auto reach = [&](size_t end, double score, int32_t id) {
      auto& node = best[end];
      if (node.begin >= 0 && score <= node.score) return;
      node = {score, static_cast<int64_t>(at), id};
    };
    bool single = false;
    trie_.each_prefix(piece.substr(at), [&](size_t length, int32_t id) {
      reach(at + length, so_far + scores_[static_cast<size_t>(id)], id);
      single |= length == n;
    });
    if (!single) {
      if (!unknown_)
        throw InputError(fmt::format("{}: '{}' is not in the vocabulary and model.unk_id is missing", origin_, piece.substr(at, n)));
      reach(at + n, so_far + unknown_score_, *unknown_);
    }
    at += n;
  }
  auto& spans = work.spans;
  spans.clear();
  bool fusing = false;
  for (size_t end = piece.size(); end > 0;) {
    const auto begin = static_cast<size_t>(best[end].begin);
    const bool is_unknown = unknown_ && best[end].id == *unknown_;
    if (is_unknown && fusing) {
      spans.back().first = begin;
    } else {
      spans.emplace_back(begin, end);
    }
    fusing = is_unknown;
    end = begin;
  }
  const size_t before = ids.size();
  for (auto it = spans.rbegin(); it != spans.rend(); ++it) add_span(piece.substr(it->first, it->second - it->first), ids);
  work.cache.put(piece, std::span(ids).subspan(before));
}

void Unigram::add_span(std::string_view span, std::vector<int32_t>& ids) const {
  if (const auto id = vocabulary_.find(span)) {
    ids.push_back(*id);
    return;
  }
  if (byte_fallback_ && std::all_of(span.begin(), span.end(), [&](char b) { return fallback_ids_[static_cast<uint8_t>(b)] >= 0; })) {
    for (char b : span) ids.push_back(fallback_ids_[static_cast<uint8_t>(b)]);
    return;
  }
  ids.push_back(*unknown_);
}

}  // namespace qb
