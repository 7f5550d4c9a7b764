#include <fmt/format.h>

#include "core/base/error.h"
#include "core/model/canonical_source.h"

namespace qb {
namespace {

// Rows of a stored matrix in Hugging Face's order. Stored heads of rotary-NORM families interleave the two halves of a
// head: stored row 2i + p is Hugging Face's row p·dim/2 + i (inverse of the conversion's permutation).
std::vector<int64_t> unpermuted(int64_t heads, int64_t dim, int64_t first = 0) {
  std::vector<int64_t> order(heads * dim);
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t r = 0; r < dim; ++r) order[h * dim + r] = first + h * dim + 2 * (r % (dim / 2)) + r / (dim / 2);
  return order;
}

std::vector<int64_t> as_stored(int64_t rows, int64_t first) {
  std::vector<int64_t> order(rows);
  for (int64_t r = 0; r < rows; ++r) order[r] = first + r;
  return order;
}

// Stored [all q; all k; all v] → per key/value head its queries, its key, its value.
std::vector<int64_t> grouped(const Architecture& a, bool permuted) {
  const int64_t d = a.head_dim, group = a.heads / a.kv_heads, q_rows = a.heads * d, kv_rows = a.kv_heads * d;
  const auto q = permuted ? unpermuted(a.heads, d) : as_stored(q_rows, 0);
  const auto k = permuted ? unpermuted(a.kv_heads, d, q_rows) : as_stored(kv_rows, q_rows);
  const auto v = as_stored(kv_rows, q_rows + kv_rows);
  std::vector<int64_t> order;
  order.reserve(q.size() + k.size() + v.size());
  for (int64_t g = 0; g < a.kv_heads; ++g) {
    order.insert(order.end(), q.begin() + g * group * d, q.begin() + (g + 1) * group * d);
    order.insert(order.end(), k.begin() + g * d, k.begin() + (g + 1) * d);
    order.insert(order.end(), v.begin() + g * d, v.begin() + (g + 1) * d);
  }
  return order;
}

std::string role_name(LinearRole role) {
  switch (role) {
    case LinearRole::q: return "attn_q";
    case LinearRole::k: return "attn_k";
    case LinearRole::v: return "attn_v";
    case LinearRole::qkv: return "attn_qkv";
    case LinearRole::o: return "attn_output";
    case LinearRole::gate: return "ffn_gate";
    case LinearRole::up: return "ffn_up";
    case LinearRole::gate_up: return "ffn_up";
    case LinearRole::down: return "ffn_down";
    case LinearRole::expert_gate: return "ffn_gate_exps";
    case LinearRole::expert_up: return "ffn_up_exps";
    case LinearRole::expert_down: return "ffn_down_exps";
    case LinearRole::shared_gate: return "ffn_gate_shexp";
    case LinearRole::shared_up: return "ffn_up_shexp";
    case LinearRole::shared_down: return "ffn_down_shexp";
  }
  return "?";
}

class GgufNames {
 public:
  GgufNames(const TensorSource& base, const Architecture& a, const std::string& arch, const std::string& origin)
      : base_(base), a_(a), origin_(origin), permuted_(arch == "llama" || arch == "mistral" || arch == "mixtral" || arch == "granite" || arch == "internlm2") {}

  std::vector<CanonicalTensor> all() {
    for (const TensorSpec& spec : a_.globals) global(spec);
    for (int64_t i = 0; i < a_.blocks; ++i) {
      for (const LinearSpec& linear : a_.layers[i].linears) {
        weight(i, linear);
        if (linear.bias) bias(i, linear);
      }
      std::vector<std::string> done;
      for (const TensorSpec& other : a_.layers[i].others) block_other(i, other);
    }
    return std::move(entries_);
  }

 private:
  void add(const TensorSpec& spec, CanonicalTensor entry, const std::vector<std::vector<int64_t>>& stored_shapes) {
    check_stored(base_, origin_, spec, entry, stored_shapes);
    entries_.push_back(std::move(entry));
  }

  void plain(const TensorSpec& spec, const std::string& stored, bool norm = false) {
    CanonicalTensor entry;
    entry.stored = {stored};
    if (norm && a_.norm == NormKind::rms_plus_one) entry.add = -1;
    add(spec, std::move(entry), {spec.shape});
  }

  static std::pair<std::string, std::string> split_suffix(const std::string& name) {
    const size_t dot = name.rfind('.');
    return {name.substr(0, dot), name.substr(dot)};
  }

  void global(const TensorSpec& spec) {
    const auto [name, suffix] = split_suffix(spec.name);
    if (name == a_.names.embedding) return plain(spec, "token_embd" + suffix);
    if (name == a_.names.final_norm) return plain(spec, "output_norm" + suffix, true);
    if (name == a_.names.head) return plain(spec, "output" + suffix);
    if (name == a_.names.embedding_norm) return plain(spec, "token_embd_norm" + suffix);
    throw InternalError(fmt::format("no GGUF name for {}", spec.name));
  }

  std::vector<int64_t> row_order(LinearRole role) const {
    if (role == LinearRole::qkv && a_.qkv == QkvLayout::grouped) return grouped(a_, permuted_);
    if (!permuted_ || role == LinearRole::v) return {};
    if (role == LinearRole::q) return unpermuted(a_.heads, a_.head_dim);
    if (role == LinearRole::k) return unpermuted(a_.kv_heads, a_.head_dim);
    return {};
  }

  void weight(int64_t block, const LinearSpec& linear) { matrix(block, linear, ".weight", {linear.out, linear.in}); }
  void bias(int64_t block, const LinearSpec& linear) { matrix(block, linear, ".bias", {linear.out}); }

  void matrix(int64_t block, const LinearSpec& linear, const std::string& suffix, const std::vector<int64_t>& shape) {
    const TensorSpec spec = {a_.block_prefix(block) + linear.name + suffix, shape};
    const std::string prefix = fmt::format("blk.{}.", block);
    CanonicalTensor entry;
    entry.order = row_order(linear.role);
    auto rows = [&](int64_t count) {
      std::vector<int64_t> part = shape;
      part[0] = count;
      return part;
    };
    // Some converters split what Hugging Face fuses (InternLM2's wqkv).
    if (linear.role == LinearRole::qkv && !base_.contains(prefix + "attn_qkv" + suffix) && base_.contains(prefix + "attn_q" + suffix)) {
      entry.stored = {prefix + "attn_q" + suffix, prefix + "attn_k" + suffix, prefix + "attn_v" + suffix};
      const int64_t kv = a_.kv_heads * a_.head_dim;
      return add(spec, std::move(entry), {rows(a_.heads * a_.head_dim), rows(kv), rows(kv)});
    }
    if (linear.expert >= 0) {
      const std::string merged = prefix + role_name(linear.role) + suffix;
      // Files of early 2024 hold one tensor an expert.
      const std::string single = fmt::format("{}{}.{}{}", prefix, role_name(linear.role).substr(0, role_name(linear.role).size() - 5), linear.expert, suffix);
      if (!base_.contains(merged) && base_.contains(single)) return plain(spec, single);
      entry.stored = {merged};
      entry.slice = linear.expert;
      return add(spec, std::move(entry), {{a_.experts, linear.out, linear.in}});
    }
    entry.stored = {prefix + role_name(linear.role) + suffix};
    add(spec, std::move(entry), {shape});
  }

  void block_other(int64_t block, const TensorSpec& other) {
    const auto [name, suffix] = split_suffix(other.name);
    const NameTable& n = a_.names;
    const TensorSpec spec = {a_.block_prefix(block) + other.name, other.shape};
    const std::string prefix = fmt::format("blk.{}.", block);
    if (a_.head_norm_per_head && (name.rfind(n.q_norm + ".norms.", 0) == 0 || name.rfind(n.k_norm + ".norms.", 0) == 0)) {
      const bool q = name.rfind(n.q_norm + ".norms.", 0) == 0;
      CanonicalTensor entry;
      entry.stored = {prefix + (q ? "attn_q_norm" : "attn_k_norm") + suffix};
      const int64_t head = std::stoll(name.substr(name.rfind('.') + 1)), heads = q ? a_.heads : a_.kv_heads;
      entry.order = {head};
      return add(spec, std::move(entry), {{heads, a_.head_dim}});
    }
    if (name == n.q_norm) return plain(spec, prefix + "attn_q_norm" + suffix, true);
    if (name == n.k_norm) return plain(spec, prefix + "attn_k_norm" + suffix, true);
    if (name == n.router) return plain(spec, prefix + "ffn_gate_inp" + suffix);
    if (name == n.shared_router) {
      // Stored as a vector.
      CanonicalTensor entry;
      entry.stored = {prefix + "ffn_gate_inp_shexp" + suffix};
      const TensorInfo* stored = base_.find(entry.stored.front());
      return add(spec, std::move(entry), {stored && stored->shape.size() == 1 ? std::vector<int64_t>{a_.hidden_size} : spec.shape});
    }
    // Falcon-40B: llama.cpp calls the MLP's norm attn_norm and the attention's attn_norm_2.
    if (n.input_norm == "ln_attn" && name == n.input_norm) return plain(spec, prefix + "attn_norm_2" + suffix, true);
    if (n.mlp_norm == "ln_mlp" && name == n.mlp_norm) return plain(spec, prefix + "attn_norm" + suffix, true);
    if (name == n.input_norm) return plain(spec, prefix + "attn_norm" + suffix, true);
    if (name == n.post_attention_norm) return plain(spec, prefix + "post_attention_norm" + suffix, true);
    if (name == n.post_mlp_norm) return plain(spec, prefix + "post_ffw_norm" + suffix, true);
    if (name == n.mlp_norm) return plain(spec, prefix + "ffn_norm" + suffix, true);
    throw InternalError(fmt::format("no GGUF name for {}", spec.name));
  }

  const TensorSource& base_;
  const Architecture& a_;
  std::string origin_;
  bool permuted_;
  std::vector<CanonicalTensor> entries_;
};

}  // namespace

TensorSourcePtr canonical_gguf(TensorSourcePtr base, const Architecture& a, const std::string& arch, const std::string& origin) {
  std::vector<CanonicalTensor> entries = GgufNames(*base, a, arch, origin).all();
  return std::make_shared<CanonicalSource>(std::move(base), std::move(entries));
}

}  // namespace qb
