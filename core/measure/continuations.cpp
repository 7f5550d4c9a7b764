#include "core/measure/continuations.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <numeric>

#include "core/base/error.h"
#include "core/base/memory.h"
#include "core/measure/shared_prefixes.h"
#include "core/model/rotary.h"

namespace qb {
namespace {

using Clock = std::chrono::steady_clock;

// What one pass through a block computes: pieces of a tree, or one whole sequence.
struct Row {
  int first = 0, count = 0;
  int64_t tokens = 0;
  at::Tensor ids, positions, hidden;
  std::vector<int64_t> asked_rows, asked_targets;
  std::vector<size_t> asked_of;  // the continuation that each belongs to
};

bool length_changes_rope(const Architecture& a, int64_t longest) {
  if (a.position != PositionKind::rotary) return false;
  for (const RopeSpec& rope : a.ropes)
    if ((rope.kind == RopeSpec::Kind::dynamic || rope.kind == RopeSpec::Kind::longrope) && rotary_frequencies(rope, 1) != rotary_frequencies(rope, longest)) return true;
  return false;
}

bool may_share(const Architecture& a, const ContinuationSpec& spec, int64_t longest) {
  return spec.by_token && !length_changes_rope(a, longest) && std::all_of(a.layers.begin(), a.layers.end(), sees_by_attention);
}

// All of one chunk of continuations, from tokens to sums.
class Pass {
 public:
  Pass(Decoder& decoder, const std::vector<Continuation>& wanted, const std::vector<size_t>& chunk, const ContinuationSpec& spec, bool share)
      : decoder_(decoder), wanted_(wanted), chunk_(chunk), spec_(spec), share_(share), tree_(share ? inputs() : std::vector<std::vector<int32_t>>()) {
    share_ ? cut_tree() : one_row_each();
  }

  size_t rows() const { return rows_.size(); }

  void run(std::vector<double>& sums, const Control& control, const std::function<void(int block)>& advance) {
    for (Row& row : rows_) row.hidden = share_ ? decoder_.embed(row.ids, pieces_of(row)) : decoder_.embed(row.ids);
    for (int b = 0; b < decoder_.blocks(); ++b) {
      control.checkpoint();
      const Block block = decoder_.load_block(b);
      for (Row& row : rows_) {
        control.checkpoint();
        ForwardContext context{.at_linear = spec_.tap, .at_cache = spec_.cache_tap};
        const PackedPieces pieces = pieces_of(row);
        if (share_) context.pieces = &pieces;
        row.hidden = decoder_.forward(block, row.hidden, context);
        advance(b);
      }
      cache_.clear();
    }
    for (Row& row : rows_) {
      control.checkpoint();
      add_sums(row, sums);
      row.hidden.reset();
      advance(-1);
    }
  }

 private:
  // The last token predicts nothing that is asked for.
  std::vector<std::vector<int32_t>> inputs() const {
    std::vector<std::vector<int32_t>> all;
    for (size_t c : chunk_) all.emplace_back(wanted_[c].tokens.begin(), wanted_[c].tokens.end() - 1);
    return all;
  }

  PackedPieces pieces_of(const Row& row) { return {tree_.pieces(), row.first, row.count, row.positions, longest_, &cache_}; }

  void cut_tree() {
    std::vector<Piece>& pieces = tree_.pieces();
    std::vector<size_t> row_of(pieces.size());
    std::vector<int64_t> begin_of(pieces.size());
    for (size_t p = 0; p < pieces.size(); ++p) {
      if (rows_.empty() || rows_.back().tokens + pieces[p].tokens > spec_.row_tokens) rows_.push_back({.first = static_cast<int>(p)});
      row_of[p] = rows_.size() - 1;
      begin_of[p] = rows_.back().tokens;
      rows_.back().tokens += pieces[p].tokens;
      ++rows_.back().count;
      longest_ = std::max(longest_, pieces[p].position + pieces[p].tokens);
      for (int parent = pieces[p].parent; parent >= 0; parent = pieces[static_cast<size_t>(parent)].parent)
        if (row_of[static_cast<size_t>(parent)] != row_of[p]) pieces[static_cast<size_t>(parent)].kept = true;
    }
    for (Row& row : rows_) {
      row.ids = at::empty({1, row.tokens}, at::kLong);
      std::copy_n(tree_.tokens(row.first), row.tokens, row.ids.mutable_data_ptr<int64_t>());
      row.positions = positions_of(pieces, row.first, row.count).to(decoder_.device());
    }
    for (size_t i = 0; i < chunk_.size(); ++i)
      ask(i, [&](int64_t token) {
        const auto [piece, offset] = tree_.place(i, token);
        return std::pair(row_of[static_cast<size_t>(piece)], begin_of[static_cast<size_t>(piece)] + offset);
      });
  }

  void one_row_each() {
    for (size_t i = 0; i < chunk_.size(); ++i) {
      const std::vector<int32_t>& tokens = wanted_[chunk_[i]].tokens;
      Row& row = rows_.emplace_back();
      row.tokens = static_cast<int64_t>(tokens.size()) - 1;
      row.ids = at::empty({1, row.tokens}, at::kLong);
      std::copy_n(tokens.begin(), row.tokens, row.ids.mutable_data_ptr<int64_t>());
      ask(i, [&](int64_t token) { return std::pair(i, token); });
    }
  }

  // place: an input token of the chunk's i-th sequence → its row and where it stands there.
  void ask(size_t i, const std::function<std::pair<size_t, int64_t>(int64_t token)>& place) {
    const Continuation& c = wanted_[chunk_[i]];
    const auto size = static_cast<int64_t>(c.tokens.size());
    for (int64_t t = size - c.asked; t < size; ++t) {
      const auto [row, at] = place(t - 1);
      rows_[row].asked_rows.push_back(at);
      rows_[row].asked_targets.push_back(c.tokens[static_cast<size_t>(t)]);
      rows_[row].asked_of.push_back(chunk_[i]);
    }
  }

  void add_sums(const Row& row, std::vector<double>& sums) {
    if (row.asked_rows.empty()) return;
    std::vector<int64_t> distinct = row.asked_rows, index;
    std::sort(distinct.begin(), distinct.end());
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    for (int64_t at : row.asked_rows) index.push_back(std::lower_bound(distinct.begin(), distinct.end(), at) - distinct.begin());
    auto on_device = [&](const std::vector<int64_t>& values) { return at::tensor(values, at::kLong).to(decoder_.device()); };
    const at::Tensor hidden = row.hidden.select(0, 0).index_select(0, on_device(distinct));
    const at::Tensor nll = decoder_.negative_log_likelihood(hidden, on_device(index), on_device(row.asked_targets)).to(at::kCPU).contiguous();
    const float* values = nll.const_data_ptr<float>();
    for (size_t i = 0; i < row.asked_of.size(); ++i) sums[row.asked_of[i]] -= values[i];
  }

  Decoder& decoder_;
  const std::vector<Continuation>& wanted_;
  const std::vector<size_t>& chunk_;
  const ContinuationSpec& spec_;
  const bool share_;
  SharedPrefixes tree_;
  PieceCache cache_;
  int64_t longest_ = 0;
  std::vector<Row> rows_;
};

// Neighbours in order share most; each chunk holds about held_tokens of their tree.
std::vector<std::vector<size_t>> chunks_of(const std::vector<Continuation>& wanted, int64_t held_tokens, bool share) {
  std::vector<size_t> order(wanted.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (share) std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return wanted[a].tokens < wanted[b].tokens; });
  std::vector<std::vector<size_t>> chunks;
  int64_t held = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const std::vector<int32_t>& tokens = wanted[order[i]].tokens;
    auto added = static_cast<int64_t>(tokens.size());
    if (share && i > 0 && !chunks.empty()) {
      const std::vector<int32_t>& last = wanted[order[i - 1]].tokens;
      added -= std::mismatch(tokens.begin(), tokens.end(), last.begin(), last.end()).first - tokens.begin();
    }
    if (chunks.empty() || held + added > held_tokens) {
      chunks.emplace_back();
      held = 0;
      added = static_cast<int64_t>(tokens.size());
    }
    chunks.back().push_back(order[i]);
    held += added;
  }
  return chunks;
}

}  // namespace

std::vector<double> log_probabilities(std::shared_ptr<const Model> model, TensorSourcePtr source, const std::vector<Continuation>& wanted,
                                      const ContinuationSpec& spec, const Control& control) {
  const auto start = Clock::now();
  std::vector<double> sums(wanted.size());
  int64_t longest = 0;
  for (const Continuation& c : wanted) {
    if (c.asked < 1 || c.asked >= static_cast<int64_t>(c.tokens.size())) throw InternalError(fmt::format("{} of {} tokens asked for", c.asked, c.tokens.size()));
    longest = std::max(longest, static_cast<int64_t>(c.tokens.size()) - 1);
  }
  Decoder decoder(model, std::move(source), spec.dtype, spec.device);
  const bool share = may_share(model->architecture, spec, longest);
  const std::vector<std::vector<size_t>> chunks = chunks_of(wanted, spec.held_tokens, share);
  for (size_t i = 0; i < chunks.size(); ++i) {
    Pass pass(decoder, wanted, chunks[i], spec, share);
    const double steps = static_cast<double>(pass.rows()) * (decoder.blocks() + 1);
    double done = 0;
    pass.run(sums, control, [&](int block) {
      Progress progress;
      progress.phase = "evaluate";
      progress.stage = spec.stage;
      progress.block = block;
      progress.blocks = decoder.blocks();
      progress.fraction = (static_cast<double>(i) + ++done / steps) / static_cast<double>(chunks.size());
      progress.elapsed_s = std::chrono::duration<double>(Clock::now() - start).count();
      progress.eta_s = progress.elapsed_s * (1 - progress.fraction) / progress.fraction;
      progress.rss_bytes = resident_bytes();
      progress.peak_rss_bytes = peak_resident_bytes();
      control.report(progress);
    });
    release_freed_memory();
  }
  for (size_t i = 0; i < sums.size(); ++i)
    if (!std::isfinite(sums[i])) throw InputError(fmt::format("{}: a log-probability is not a number: weights that are none, or activations that overflow in {}", model->path.string(), at::toString(spec.dtype)));
  return sums;
}

}  // namespace qb
