#include "core/model/attention.h"

#include <cmath>
#include <limits>

#include "core/model/packed_pieces.h"

namespace qb {
namespace {

// Scores bias of keys begin … end: [heads, 1, keys] float32.
at::Tensor alibi_bias(const AttentionSpec& spec, int64_t begin, int64_t end, int64_t dim) {
  const at::Tensor positions = at::arange(begin, end, at::TensorOptions().dtype(at::kFloat).device(spec.alibi.device()));
  if (!spec.round_alibi) return spec.alibi.reshape({-1, 1, 1}) * positions;
  const at::Tensor rounded = spec.alibi.to(at::kBFloat16).reshape({-1, 1, 1}) * positions.to(at::kLong);
  return rounded.to(at::kFloat) / std::sqrt(static_cast<double>(dim));
}

}  // namespace

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionSpec& spec) {
  const int64_t batch = q.size(0), seq = q.size(1), heads = q.size(2), dim = q.size(3), kv_heads = k.size(2), group = heads / kv_heads, out_dim = v.size(3);
  const int64_t total = k.size(1), before = total - seq;  // keys of tokens before the first query
  const bool plain = spec.softcap == 0 && !spec.alibi.defined() && !spec.sinks.defined() && (spec.chunk == 0 || spec.chunk >= total) && (spec.window == 0 || spec.window >= total);
  if (plain) {
    at::Tensor kk = k.transpose(1, 2), vv = v.transpose(1, 2);
    std::optional<at::Tensor> seen;
    if (before > 0 && seq > 1) seen = at::ones({seq, total}, q.options().dtype(at::kBool)).tril_(before);
    const at::Tensor o = at::scaled_dot_product_attention(q.transpose(1, 2), kk, vv, seen, 0.0, before == 0, spec.scale, group > 1);
    return o.transpose(1, 2).reshape({batch, seq, heads * out_dim});
  }
  at::Tensor out = at::empty({batch, seq, heads * out_dim}, q.options());
  // Blocks of queries against the keys they may see; scores of one block are all that is held.
  constexpr int64_t kRows = 128;
  for (int64_t begin = 0; begin < seq; begin += kRows) {
    const int64_t rows = std::min(kRows, seq - begin), from = before + begin, to = from + rows;  // positions of these queries
    const int64_t first = spec.window > 0 ? std::max<int64_t>(0, from - spec.window + 1) : 0, keys = to - first;
    // [batch, kv_heads, group · rows, dim]
    const at::Tensor queries = q.narrow(1, begin, rows).reshape({batch, rows, kv_heads, group, dim}).permute({0, 2, 3, 1, 4}).reshape({batch, kv_heads, group * rows, dim});
    const at::Tensor kk = k.narrow(1, first, keys).permute({0, 2, 3, 1});
    at::Tensor scores = at::matmul(queries, kk).to(at::kFloat).mul_(spec.scale);
    if (spec.softcap > 0) scores = at::tanh(scores / spec.softcap) * spec.softcap;
    scores = scores.reshape({batch, heads, rows, keys});
    if (spec.alibi.defined()) scores.add_(alibi_bias(spec, first, to, dim));
    const auto positions = at::TensorOptions().dtype(at::kLong).device(q.device());
    const at::Tensor distance = at::arange(from, to, positions).unsqueeze(1) - at::arange(first, to, positions).unsqueeze(0);
    at::Tensor hidden = distance < 0;
    if (spec.window > 0) hidden = hidden.logical_or(distance >= spec.window);
    if (spec.chunk > 0) {
      auto chunk_of = [&](int64_t begin_at, int64_t end_at) { return at::arange(begin_at, end_at, positions).div(spec.chunk, "floor"); };
      hidden = hidden.logical_or(chunk_of(from, to).unsqueeze(1) != chunk_of(first, to).unsqueeze(0));
    }
    scores.masked_fill_(hidden, -std::numeric_limits<float>::infinity());
    at::Tensor shares;
    if (spec.sinks.defined()) {
      const at::Tensor sink = spec.sinks.to(at::kFloat).reshape({1, heads, 1, 1}).expand({batch, heads, rows, 1});
      shares = at::softmax(at::cat({scores, sink}, -1), -1).narrow(-1, 0, keys);
    } else {
      shares = at::softmax(scores, -1);
    }
    const at::Tensor weights = shares.to(q.scalar_type()).reshape({batch, kv_heads, group * rows, keys});
    const at::Tensor o = at::matmul(weights, v.narrow(1, first, keys).transpose(1, 2));
    out.narrow(1, begin, rows).copy_(o.reshape({batch, kv_heads, group, rows, out_dim}).permute({0, 3, 1, 2, 4}).reshape({batch, rows, heads * out_dim}));
  }
  return out;
}

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionSpec& spec, const PackedPieces& pieces) {
  at::Tensor out = at::empty({1, q.size(1), q.size(2) * v.size(3)}, q.options());
  std::vector<int64_t> begins;  // of the row's pieces
  int64_t begin = 0;
  for (int p = pieces.first; p < pieces.first + pieces.count; ++p) {
    const Piece& piece = pieces.all[static_cast<size_t>(p)];
    begins.push_back(begin);
    std::vector<at::Tensor> keys = {k.narrow(1, begin, piece.tokens)}, values = {v.narrow(1, begin, piece.tokens)};
    if (piece.kept) pieces.cache->keep(p, keys.front(), values.front());
    for (int parent = piece.parent; parent >= 0; parent = pieces.all[static_cast<size_t>(parent)].parent) {
      if (parent >= pieces.first) {
        const int64_t at = begins[static_cast<size_t>(parent - pieces.first)], tokens = pieces.all[static_cast<size_t>(parent)].tokens;
        keys.push_back(k.narrow(1, at, tokens));
        values.push_back(v.narrow(1, at, tokens));
      } else {
        keys.push_back(pieces.cache->at(parent).first);
        values.push_back(pieces.cache->at(parent).second);
      }
    }
    std::reverse(keys.begin(), keys.end());
    std::reverse(values.begin(), values.end());
    const bool alone = keys.size() == 1;
    out.narrow(1, begin, piece.tokens).copy_(attention(q.narrow(1, begin, piece.tokens), alone ? keys[0] : at::cat(keys, 1), alone ? values[0] : at::cat(values, 1), spec));
    begin += piece.tokens;
  }
  return out;
}

at::Tensor alibi_slopes(int64_t heads) {
  const int64_t power = int64_t{1} << static_cast<int64_t>(std::floor(std::log2(static_cast<double>(heads))));
  at::Tensor slopes = at::empty({heads}, at::kFloat);
  float* s = slopes.data_ptr<float>();
  auto base = [](int64_t n) { return std::pow(2.0, -std::pow(2.0, -(std::log2(static_cast<double>(n)) - 3))); };
  for (int64_t h = 0; h < power; ++h) s[h] = static_cast<float>(std::pow(base(power), static_cast<double>(h + 1)));
  for (int64_t h = power; h < heads; ++h) s[h] = static_cast<float>(std::pow(base(2 * power), static_cast<double>(2 * (h - power) + 1)));
  return slopes;
}

}  // namespace qb
