#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "core/base/error.h"
#include "core/model/canonical_source.h"
#include "core/model/families.h"

namespace qb {
namespace {

// Whether a value is made for the scores of attention, with rotated pairs half a head apart (or none: converters do not look).
bool pairs_lie_apart(const LayerGraph& graph, ValueId id, int64_t& heads) {
  for (int reader : graph.value(id).readers) {
    const Operation& operation = graph.operations()[static_cast<size_t>(reader)];
    if (const auto* rotary = std::get_if<RotaryOp>(&operation.kind)) {
      heads = rotary->heads;
      return !rotary->interleaved;
    }
    if (const auto* attention = std::get_if<AttentionOp>(&operation.kind)) {
      heads = operation.inputs[0] == id ? attention->heads : attention->kv_heads;
      return operation.inputs[2] != id;
    }
    const bool passes = std::holds_alternative<NormOp>(operation.kind) || std::holds_alternative<ClampOp>(operation.kind) || std::holds_alternative<PositionScaleOp>(operation.kind);
    if (passes && pairs_lie_apart(graph, operation.outputs.front(), heads)) return true;
  }
  return false;
}

// How channels of a value lie among a delta rule's heads: head after head of `width` channels, `ratio` heads for each key head.
struct ValueHeads {
  int64_t key_heads = 0, ratio = 1, width = 1;
  // Where they lie by turns of the key heads.
  int64_t tiled(int64_t channel) const {
    if (key_heads == 0) return channel;
    const int64_t head = channel / width;
    return (head % ratio * key_heads + head / ratio) * width + channel % width;
  }
};

ValueHeads heads_of(const DeltaRuleOp& rule, int64_t width) { return {rule.key_heads, rule.value_heads / rule.key_heads, width / rule.value_heads}; }

// Of what a delta rule made, also behind its norm and its gate.
ValueHeads heads_behind_rule(const LayerGraph& graph, ValueId id) {
  const Operation* made = graph.producer(id);
  if (!made) return {};
  if (const auto* rule = std::get_if<DeltaRuleOp>(&made->kind)) return heads_of(*rule, graph.value(id).width);
  if (std::holds_alternative<NormOp>(made->kind)) return heads_behind_rule(graph, made->inputs[0]);
  if (std::holds_alternative<GatedOp>(made->kind)) return heads_behind_rule(graph, made->inputs[1]);
  return {};
}

// Of a value that a delta rule reads, through the convolution of several at once, or that gates what it makes. part: which
// of the values that were put one after the other.
ValueHeads heads_before_rule(const LayerGraph& graph, ValueId id, size_t part = 0) {
  for (int reader : graph.value(id).readers) {
    const Operation& operation = graph.operations()[static_cast<size_t>(reader)];
    const auto place = static_cast<size_t>(std::find(operation.inputs.begin(), operation.inputs.end(), id) - operation.inputs.begin());
    if (const auto* rule = std::get_if<DeltaRuleOp>(&operation.kind)) return place >= 2 ? heads_of(*rule, graph.value(id).width) : ValueHeads{};
    if (std::holds_alternative<GatedOp>(operation.kind)) return place == 0 ? heads_behind_rule(graph, operation.inputs[1]) : ValueHeads{};
    if (std::holds_alternative<SplitOp>(operation.kind)) return heads_before_rule(graph, operation.outputs[part]);
    if (std::holds_alternative<ConcatenateOp>(operation.kind)) part = place;
    if (std::holds_alternative<ConcatenateOp>(operation.kind) || std::holds_alternative<ConvolutionOp>(operation.kind) || std::holds_alternative<ActivationOp>(operation.kind))
      return heads_before_rule(graph, operation.outputs.front(), part);
  }
  return {};
}

bool in_order(const std::vector<int64_t>& order) {
  for (size_t r = 0; r < order.size(); ++r)
    if (order[r] != static_cast<int64_t>(r)) return false;
  return true;
}

// Where the rows of a linear lie in GGUF: where it is made of parts, its values one after the other; where the file is for
// llama.cpp's NORM rotation, the two halves of a head interleaved: stored row 2i + p is Hugging Face's row p·dim/2 + i; and
// where it has value heads by turns, those. Empty: as they are.
std::vector<int64_t> stored_rows(const LayerGraph& graph, int linear, const LinearSpec& spec, const GgufForm& form) {
  const Operation& operation = graph.linear(linear);
  const auto& outputs = std::get<LinearOp>(operation.kind).outputs;
  std::vector<int64_t> order(static_cast<size_t>(spec.out));
  int64_t before = 0;
  for (size_t o = 0; o < outputs.size(); ++o) {
    const int64_t width = outputs[o].width();
    int64_t heads = 1;
    const bool interleave = form.permuted && pairs_lie_apart(graph, operation.outputs[o], heads);
    const ValueHeads values = form.tiled_heads ? heads_before_rule(graph, operation.outputs[o]) : ValueHeads{};
    const int64_t dim = width / heads;
    for (int64_t c = 0; c < width; ++c) {
      const int64_t r = c % dim, place = interleave ? c - r + 2 * (r % (dim / 2)) + r / (dim / 2) : values.tiled(c);
      order[static_cast<size_t>(outputs[o].of(c))] = spec.gguf_parts.empty() ? outputs[o].of(place) : before + place;
    }
    before += width;
  }
  return in_order(order) ? std::vector<int64_t>() : order;
}

// The order of columns of a linear behind a delta rule.
std::vector<int64_t> stored_columns(const LayerGraph& graph, ValueId input, const GgufForm& form) {
  const ValueHeads values = form.tiled_heads ? heads_behind_rule(graph, input) : ValueHeads{};
  std::vector<int64_t> order(static_cast<size_t>(graph.value(input).width));
  for (size_t c = 0; c < order.size(); ++c) order[c] = values.tiled(static_cast<int64_t>(c));
  return in_order(order) ? std::vector<int64_t>() : order;
}

// The order of a convolution's channels, or of a delta rule's decays and steps.
std::vector<int64_t> stored_channels(const LayerGraph& graph, const std::string& tensor, const GgufForm& form) {
  std::vector<int64_t> order;
  for (const Operation& operation : graph.operations()) {
    if (const auto* rule = std::get_if<DeltaRuleOp>(&operation.kind); rule && (tensor == rule->decay || tensor == rule->step)) {
      const ValueHeads values = heads_of(*rule, rule->value_heads);
      for (int64_t h = 0; h < rule->value_heads; ++h) order.push_back(values.tiled(h));
    } else if (const auto* convolution = std::get_if<ConvolutionOp>(&operation.kind); convolution && tensor.rfind(convolution->tensor + ".", 0) == 0) {
      const Operation* made = graph.producer(operation.inputs[0]);
      if (!made || !std::holds_alternative<ConcatenateOp>(made->kind)) continue;
      for (ValueId id : made->inputs) {
        const ValueHeads values = heads_before_rule(graph, id);
        const auto before = static_cast<int64_t>(order.size());
        for (int64_t c = 0; c < graph.value(id).width; ++c) order.push_back(before + values.tiled(c));
      }
    }
  }
  return !form.tiled_heads || in_order(order) ? std::vector<int64_t>() : order;
}

bool is_decay(const LayerGraph& graph, const std::string& tensor) {
  return std::any_of(graph.operations().begin(), graph.operations().end(), [&](const Operation& operation) {
    const auto* rule = std::get_if<DeltaRuleOp>(&operation.kind);
    return rule && rule->decay == tensor;
  });
}

class GgufNames {
 public:
  GgufNames(const TensorSource& base, const Architecture& a, const GgufForm& form, const std::string& origin)
      : base_(base), a_(a), origin_(origin), form_(form) {}

  std::vector<CanonicalTensor> all() {
    for (const TensorSpec& spec : a_.globals) plain(spec, spec, "", {});
    for (int64_t i = 0; i < a_.blocks; ++i) {
      const LayerSpec& layer = a_.layers[static_cast<size_t>(i)];
      const std::string prefix = a_.block_prefix(i), stored = a_.gguf.block + std::to_string(i) + ".";
      for (size_t l = 0; l < layer.linears.size(); ++l) {
        const LinearSpec& linear = layer.linears[l];
        const std::vector<int64_t> order = stored_rows(layer.graph, static_cast<int>(l), linear, form_);
        matrix(layer, l, {prefix + linear.name + ".weight", {linear.out, linear.in}}, stored, ".weight", order);
        if (linear.bias) matrix(layer, l, {prefix + linear.name + ".bias", {linear.out}}, stored, ".bias", order);
      }
      for (const TensorSpec& other : layer.others) {
        CanonicalTensor entry;
        entry.order = stored_channels(layer.graph, other.name, form_);
        entry.minus_exponential = is_decay(layer.graph, other.name);
        plain({prefix + other.name, other.shape}, other, stored, std::move(entry));
      }
    }
    return std::move(entries_);
  }

 private:
  void add(const TensorSpec& spec, CanonicalTensor entry, const std::vector<std::vector<int64_t>>& stored_shapes) {
    check_stored(base_, origin_, spec, entry, stored_shapes);
    entries_.push_back(std::move(entry));
  }

  // canonical: full name and shape; spec: what is known of the tensor in GGUF; entry: how its values lie there.
  void plain(const TensorSpec& canonical, const TensorSpec& spec, const std::string& prefix, CanonicalTensor entry) {
    if (spec.gguf.empty()) throw InternalError(fmt::format("no GGUF name for {}", canonical.name));
    entry.stored = {prefix + spec.gguf};
    if (spec.plus_one) entry.add = -1;
    std::vector<int64_t> shape = spec.shape;
    if (spec.gguf_rows > 0) {
      entry.order = {spec.gguf_row};
      shape.insert(shape.begin(), spec.gguf_rows);
    }
    if (shape.size() == 3 && shape[1] == 1) shape.erase(shape.begin() + 1);  // a convolution of single channels
    // A matrix of one row may be stored as a vector.
    const TensorInfo* stored = base_.find(entry.stored.front());
    if (stored && stored->shape.size() == 1 && shape.size() == 2 && shape[0] == 1) shape.erase(shape.begin());
    add(canonical, std::move(entry), {shape});
  }

  void matrix(const LayerSpec& layer, size_t index, const TensorSpec& spec, const std::string& prefix, const std::string& suffix,
              const std::vector<int64_t>& order) {
    const LinearSpec& linear = layer.linears[index];
    CanonicalTensor entry;
    entry.order = order;
    if (suffix == ".weight") entry.columns = stored_columns(layer.graph, linear.input, form_);
    const std::string whole = prefix + linear.gguf + suffix;
    if (linear.expert >= 0) {
      // Files of early 2024 hold one tensor an expert: "ffn_gate.3" for "ffn_gate_exps".
      const std::string stem = linear.gguf.ends_with("_exps") ? linear.gguf.substr(0, linear.gguf.size() - 5) : linear.gguf;
      const std::string single = fmt::format("{}{}.{}{}", prefix, stem, linear.expert, suffix);
      std::vector<int64_t> shape = spec.shape;
      // Newer converters can put all gates before all up sides into one tensor.
      const std::string both = prefix + "ffn_gate_up_exps" + suffix;
      const bool gate = linear.gguf == a_.gguf.expert_gate;
      if (!base_.contains(whole) && base_.contains(single)) {
        entry.stored = {single};
      } else if (!base_.contains(whole) && base_.contains(both) && (gate || linear.gguf == a_.gguf.expert_up)) {
        entry.stored = {both};
        entry.slice = linear.expert;
        entry.first_row = gate ? 0 : linear.out;
        shape[0] *= 2;
        shape.insert(shape.begin(), a_.experts);
      } else {
        entry.stored = {whole};
        entry.slice = linear.expert;
        shape.insert(shape.begin(), a_.experts);
      }
      return add(spec, std::move(entry), {shape});
    }
    // Some converters split what Hugging Face fuses (InternLM2's wqkv).
    if (!linear.gguf_parts.empty() && !base_.contains(whole) && base_.contains(prefix + linear.gguf_parts.front() + suffix)) {
      const auto& outputs = layer.graph.linear(static_cast<int>(index)).outputs;
      std::vector<std::vector<int64_t>> shapes;
      for (size_t o = 0; o < outputs.size(); ++o) {
        const int64_t rows = layer.graph.value(outputs[o]).width;
        // No stem of its own: in the one before.
        if (linear.gguf_parts[o].empty()) {
          shapes.back()[0] += rows;
          continue;
        }
        entry.stored.push_back(prefix + linear.gguf_parts[o] + suffix);
        shapes.push_back(spec.shape);
        shapes.back()[0] = rows;
      }
      return add(spec, std::move(entry), shapes);
    }
    // Latent attention's last matrix lies as in Hugging Face, its keys and values head by head. Files since April 2025 keep the two apart, the keys' transposed.
    const LatentSpec& l = a_.latent;
    const bool last = linear.gguf == a_.gguf.kv_b;
    if (last) entry.order.clear();
    if (const std::string keys = prefix + "attn_k_b" + suffix; last && !base_.contains(whole) && base_.contains(keys)) {
      entry.stored = {keys, prefix + "attn_v_b" + suffix};
      entry.joined = true;
      return add(spec, std::move(entry), {{a_.heads, l.kv_rank, l.nope_dim}, {a_.heads, l.value_dim, l.kv_rank}});
    }
    std::vector<int64_t> shape = spec.shape;
    entry.stored = {whole};
    // The whole of what is split otherwise: rows of a delta rule's key heads keep their places, others are values one after the other.
    const auto& made = layer.graph.linear(static_cast<int>(index)).outputs;
    if (!form_.tiled_heads && std::any_of(made.begin(), made.end(), [&](ValueId id) { return heads_before_rule(layer.graph, id).key_heads > 0; })) entry.order.clear();
    // Others fuse queries, keys and values of any family.
    const std::string fused = prefix + a_.gguf.qkv + suffix;
    const std::vector<std::string> parts = {a_.gguf.q, a_.gguf.k, a_.gguf.v};
    if (!base_.contains(whole) && base_.contains(fused) && std::find(parts.begin(), parts.end(), linear.gguf) != parts.end()) {
      entry.stored = {fused};
      entry.part = true;
      shape[0] = 0;
      for (const std::string& part : parts) {
        for (const LinearSpec& other : layer.linears)
          if (other.gguf == part) shape[0] += other.out;
        if (part == linear.gguf) entry.first_row = shape[0] - linear.out;
      }
    }
    add(spec, std::move(entry), {shape});
  }

  const TensorSource& base_;
  const Architecture& a_;
  std::string origin_;
  const GgufForm& form_;
  std::vector<CanonicalTensor> entries_;
};

}  // namespace

std::shared_ptr<const CanonicalSource> canonical_gguf(TensorSourcePtr base, const Architecture& a, const GgufForm& form, const std::string& origin) {
  std::vector<CanonicalTensor> entries = GgufNames(*base, a, form, origin).all();
  std::vector<std::string> unread;
  for (int64_t i = 0; i < a.blocks; ++i)
    for (const std::string& name : a.layers[static_cast<size_t>(i)].gguf_unread) unread.push_back(fmt::format("{}{}.{}", a.gguf.block, i, name));
  return std::make_shared<CanonicalSource>(std::move(base), std::move(entries), unread);
}

std::vector<CanonicalTensor> gguf_entries(const TensorSource& base, const Architecture& a, const GgufForm& form, const std::string& origin) {
  return GgufNames(base, a, form, origin).all();
}

std::vector<TensorInfo> gguf_tensors(const Architecture& a, const GgufForm& form) {
  std::vector<TensorInfo> all;
  std::unordered_set<std::string> names;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    if (names.insert(name).second) all.push_back({name, DType::f32, std::move(shape)});
  };
  const auto plain = [&](const TensorSpec& spec, const std::string& prefix) {
    if (spec.gguf.empty()) throw InputError(fmt::format("GGUF has no name for the tensor \"{}\" of {}", spec.name, a.family));
    std::vector<int64_t> shape = spec.shape;
    if (spec.gguf_rows > 0) shape.insert(shape.begin(), spec.gguf_rows);
    if (shape.size() == 3 && shape[1] == 1) shape.erase(shape.begin() + 1);  // a convolution of single channels
    if (shape.size() == 2 && shape[0] == 1) shape.erase(shape.begin());
    add(prefix + spec.gguf, std::move(shape));
  };
  for (const TensorSpec& spec : a.globals) plain(spec, "");
  for (int64_t i = 0; i < a.blocks; ++i) {
    const LayerSpec& layer = a.layers[static_cast<size_t>(i)];
    const std::string prefix = a.gguf.block + std::to_string(i) + ".";
    for (const TensorSpec& other : layer.others) plain(other, prefix);
    for (size_t l = 0; l < layer.linears.size(); ++l) {
      const LinearSpec& linear = layer.linears[l];
      const auto& outputs = layer.graph.linear(static_cast<int>(l)).outputs;
      // What has no name of its own for the whole, or one that llama.cpp does not know there, is split.
      const bool split = !linear.gguf_parts.empty() && (linear.gguf == a.gguf.shared_gate_up || linear.gguf == a.gguf.delta_qkvz || (form.split_qkv && linear.gguf == a.gguf.qkv));
      for (const bool bias : {false, true}) {
        if (bias && !linear.bias) continue;
        const char* suffix = bias ? ".bias" : ".weight";
        const auto shape = [&](int64_t rows) { return bias ? std::vector<int64_t>{rows} : std::vector<int64_t>{rows, linear.in}; };
        if (linear.expert >= 0) {
          std::vector<int64_t> stack = shape(linear.out);
          stack.insert(stack.begin(), a.experts);
          add(prefix + linear.gguf + suffix, std::move(stack));
        } else if (linear.gguf == a.gguf.kv_b && !bias) {
          const LatentSpec& s = a.latent;
          add(prefix + "attn_k_b.weight", {a.heads, s.kv_rank, s.nope_dim});
          add(prefix + "attn_v_b.weight", {a.heads, s.value_dim, s.kv_rank});
        } else if (split) {
          for (size_t o = 0; o < outputs.size(); ++o) {
            const int64_t rows = layer.graph.value(outputs[o]).width;
            if (linear.gguf_parts[o].empty()) {
              all.back().shape[0] += rows;  // no stem of its own: in the one before
            } else {
              add(prefix + linear.gguf_parts[o] + suffix, shape(rows));
            }
          }
        } else {
          add(prefix + linear.gguf + suffix, shape(linear.out));
        }
      }
    }
  }
  return all;
}

}  // namespace qb
