#include <fmt/format.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/model/canonical_source.h"

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

// Where the rows of a linear lie in GGUF: its values one after the other; and where the file is for llama.cpp's NORM rotation,
// the two halves of a head interleaved: stored row 2i + p is Hugging Face's row p·dim/2 + i. Empty: as they are.
std::vector<int64_t> stored_rows(const LayerGraph& graph, int linear, int64_t out, bool permuted) {
  const Operation& operation = graph.linear(linear);
  const auto& outputs = std::get<LinearOp>(operation.kind).outputs;
  std::vector<int64_t> order(static_cast<size_t>(out));
  int64_t before = 0;
  for (size_t o = 0; o < outputs.size(); ++o) {
    const int64_t width = outputs[o].width();
    int64_t heads = 1;
    const bool interleave = permuted && pairs_lie_apart(graph, operation.outputs[o], heads);
    const int64_t dim = width / heads;
    for (int64_t c = 0; c < width; ++c) {
      const int64_t r = c % dim;
      order[static_cast<size_t>(outputs[o].of(c))] = before + (interleave ? c - r + 2 * (r % (dim / 2)) + r / (dim / 2) : c);
    }
    before += width;
  }
  for (int64_t r = 0; r < out; ++r)
    if (order[static_cast<size_t>(r)] != r) return order;
  return {};
}

class GgufNames {
 public:
  GgufNames(const TensorSource& base, const Architecture& a, bool permuted, const std::string& origin)
      : base_(base), a_(a), origin_(origin), permuted_(permuted) {}

  std::vector<CanonicalTensor> all() {
    for (const TensorSpec& spec : a_.globals) plain(spec, spec, "");
    for (int64_t i = 0; i < a_.blocks; ++i) {
      const LayerSpec& layer = a_.layers[static_cast<size_t>(i)];
      const std::string prefix = a_.block_prefix(i), stored = a_.gguf.block + std::to_string(i) + ".";
      for (size_t l = 0; l < layer.linears.size(); ++l) {
        const LinearSpec& linear = layer.linears[l];
        const std::vector<int64_t> order = stored_rows(layer.graph, static_cast<int>(l), linear.out, permuted_);
        matrix(layer, l, {prefix + linear.name + ".weight", {linear.out, linear.in}}, stored, ".weight", order);
        if (linear.bias) matrix(layer, l, {prefix + linear.name + ".bias", {linear.out}}, stored, ".bias", order);
      }
      for (const TensorSpec& other : layer.others) plain({prefix + other.name, other.shape}, other, stored);
    }
    return std::move(entries_);
  }

 private:
  void add(const TensorSpec& spec, CanonicalTensor entry, const std::vector<std::vector<int64_t>>& stored_shapes) {
    check_stored(base_, origin_, spec, entry, stored_shapes);
    entries_.push_back(std::move(entry));
  }

  // canonical: full name and shape; spec: what is known of the tensor in GGUF.
  void plain(const TensorSpec& canonical, const TensorSpec& spec, const std::string& prefix) {
    if (spec.gguf.empty()) throw InternalError(fmt::format("no GGUF name for {}", canonical.name));
    CanonicalTensor entry;
    entry.stored = {prefix + spec.gguf};
    if (spec.plus_one) entry.add = -1;
    std::vector<int64_t> shape = spec.shape;
    if (spec.gguf_rows > 0) {
      entry.order = {spec.gguf_row};
      shape.insert(shape.begin(), spec.gguf_rows);
    }
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
    const std::string whole = prefix + linear.gguf + suffix;
    if (linear.expert >= 0) {
      // Files of early 2024 hold one tensor an expert: "ffn_gate.3" for "ffn_gate_exps".
      const std::string stem = linear.gguf.ends_with("_exps") ? linear.gguf.substr(0, linear.gguf.size() - 5) : linear.gguf;
      const std::string single = fmt::format("{}{}.{}{}", prefix, stem, linear.expert, suffix);
      std::vector<int64_t> shape = spec.shape;
      if (!base_.contains(whole) && base_.contains(single)) {
        entry.stored = {single};
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
        entry.stored.push_back(prefix + linear.gguf_parts[o] + suffix);
        shapes.push_back(spec.shape);
        shapes.back()[0] = layer.graph.value(outputs[o]).width;
      }
      return add(spec, std::move(entry), shapes);
    }
    std::vector<int64_t> shape = spec.shape;
    entry.stored = {whole};
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
  bool permuted_;
  std::vector<CanonicalTensor> entries_;
};

}  // namespace

TensorSourcePtr canonical_gguf(TensorSourcePtr base, const Architecture& a, bool permuted, const std::string& origin) {
  std::vector<CanonicalTensor> entries = GgufNames(*base, a, permuted, origin).all();
  return std::make_shared<CanonicalSource>(std::move(base), std::move(entries));
}

}  // namespace qb
