#include "core/model/gguf_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <vector>

#include "core/model/rotary.h"

namespace qb {
namespace {

// What an operation computes, on one line. A window or chunk as long as any text is none.
struct Describe {
  int64_t context;
  int64_t within(int64_t size) const { return size >= context ? 0 : size; }
  std::string operator()(const NormOp& o) const { return fmt::format("norm of kind {}, epsilon {:.5g}, {} heads, {}, {}", static_cast<int>(o.kind), o.eps, o.heads, o.tensor, o.own_tensors); }
  std::string operator()(const LinearOp& o) const {
    std::string text = fmt::format("linear {}", o.linear);
    for (const Rows& rows : o.outputs) text += fmt::format(", rows {} of {} from {}, {} each", rows.groups, rows.stride, rows.first, rows.count);
    return text;
  }
  std::string operator()(const RotaryOp& o) const { return fmt::format("rotation {} of {} heads from {}, {}", o.rope, o.heads, o.first, o.interleaved ? "neighbours" : "halves"); }
  std::string operator()(const AttentionOp& o) const {
    return fmt::format("attention of {} heads on {}, scale {:.5g}, soft cap {:.5g}, window {}, chunk {}, ALiBi {} {}, sinks {}", o.heads, o.kv_heads, o.scale, o.softcap, within(o.window), within(o.chunk),
                       o.alibi, o.round_alibi, o.sinks);
  }
  std::string operator()(const PositionScaleOp& o) const { return fmt::format("growth by position {:.5g} after {} + {}", o.beta, o.context, o.offset); }
  std::string operator()(const ClampOp& o) const { return fmt::format("clamp {:.5g}", o.limit); }
  std::string operator()(const JoinOp& o) const { return fmt::format("join of {} heads", o.heads); }
  std::string operator()(const ConcatenateOp&) const { return "concatenation"; }
  std::string operator()(const SplitOp&) const { return "split"; }
  std::string operator()(const ConvolutionOp& o) const { return fmt::format("convolution of {} by {}", o.kernel, o.tensor); }
  std::string operator()(const MultiplyOp&) const { return "product"; }
  std::string operator()(const ScaleOp& o) const { return fmt::format("times {:.5g}", o.factor); }
  std::string operator()(const ChannelScaleOp& o) const { return fmt::format("times {}", o.tensor); }
  std::string operator()(const StreamRouterOp& o) const { return fmt::format("streams by {} and {}, scale {:.5g}", o.router, o.coefficients, o.scale); }
  std::string operator()(const PredictOp&) const { return "prediction of streams"; }
  std::string operator()(const CorrectOp&) const { return "correction of streams"; }
  std::string operator()(const TokenInputOp& o) const { return fmt::format("input {} of the token", o.layer); }
  std::string operator()(const SparseGateOp& o) const { return fmt::format("what is above {:.5g} deviations", o.deviations); }
  std::string operator()(const SigmoidGateOp&) const { return "sigmoid gate"; }
  std::string operator()(const DeltaRuleOp& o) const { return fmt::format("delta rule of {} and {} heads, {}, {}", o.key_heads, o.value_heads, o.decay, o.step); }
  std::string operator()(const ActivationOp& o) const { return fmt::format("activation {}", name_of(o.kind)); }
  std::string operator()(const GatedOp& o) const { return fmt::format("gated {}", name_of(o.kind)); }
  std::string operator()(const AddOp& o) const { return fmt::format("sum, scale {:.5g}", o.scale); }
  std::string operator()(const RouterOp& o) const {
    // Without groups nothing is grouped by anything.
    return fmt::format("router {} of {} experts, {} a token, score {}, wide {}, bias {}, groups {} of {}{}, normalised {} {:.2g}, scale {:.5g}, jitter {:.5g}", o.tensor, o.experts, o.per_token,
                       static_cast<int>(o.score), o.wide, o.choice_bias, o.used_groups, o.groups, o.groups > 1 && o.group_by_two ? " by two" : "", o.normalise, o.normalise ? o.normalise_eps : 0.0, o.scale, o.jitter);
  }
  std::string operator()(const DispatchOp& o) const { return fmt::format("dispatch to {} {}", o.expert, o.weigh); }
  std::string operator()(const ZeroOp&) const { return "zeros"; }
  std::string operator()(const CombineOp& o) const { return fmt::format("combination {}", o.weigh); }
  std::string operator()(const ShareOp& o) const { return fmt::format("share by {}", o.tensor); }
};

std::vector<std::string> lines_of(const LayerSpec& layer, int64_t context) {
  std::vector<std::string> lines;
  for (const Operation& operation : layer.graph.operations())
    lines.push_back(fmt::format("{}, {} to {}", std::visit(Describe{context}, operation.kind), fmt::join(operation.inputs, " "), fmt::join(operation.outputs, " ")));
  for (const LinearSpec& linear : layer.linears) lines.push_back(fmt::format("{} [{}, {}]{}{}", linear.name, linear.out, linear.in, linear.bias ? " with bias" : "", linear.expert >= 0 ? ", an expert" : ""));
  for (const TensorSpec& other : layer.others) lines.push_back(fmt::format("{} [{}]", other.name, fmt::join(other.shape, ", ")));
  return lines;
}

std::vector<std::string> lines_of(const Architecture& a) {
  std::vector<std::string> lines = {
      fmt::format("{} blocks, {} wide, {} words", a.blocks, a.hidden_size, a.vocabulary),
      fmt::format("positions of kind {}, {} ahead", static_cast<int>(a.position), a.position == PositionKind::learned ? a.position_offset : 0),
      fmt::format("embeddings times {:.5g}, logits times {:.5g}, soft cap {:.5g}, rows of length 1: {}", a.embedding_scale, a.logit_scale, a.logit_softcap, a.normalise_head),
      fmt::format("last norm of kind {}, epsilon {:.5g}, {}, {}", static_cast<int>(a.norm), a.norm_eps, a.norm_affine, a.final_norm),
  };
  for (const TensorSpec& spec : a.globals) lines.push_back(fmt::format("{} [{}]", spec.name, fmt::join(spec.shape, ", ")));
  return lines;
}

std::string first_difference(const std::string& where, const std::vector<std::string>& wanted, const std::vector<std::string>& found) {
  for (size_t i = 0; i < std::max(wanted.size(), found.size()); ++i) {
    const std::string &a = i < wanted.size() ? wanted[i] : "nothing", &b = i < found.size() ? found[i] : "nothing";
    if (a != b) return fmt::format("{} the model has \"{}\", the file \"{}\"", where, a, b);
  }
  return "";
}

bool close(double a, double b) { return std::abs(a - b) <= 2e-6 * std::max(std::abs(a), std::abs(b)); }

std::string rope_difference(const RopeSpec& wanted, const RopeSpec& found, int64_t context) {
  if (wanted.dim != found.dim) return fmt::format("{} of a head's dimensions are rotated, in the file {}", wanted.dim, found.dim);
  for (const int64_t length : {int64_t{1}, context}) {
    const auto a = rotary_frequencies(wanted, length), b = rotary_frequencies(found, length);
    for (size_t i = 0; i < a.size(); ++i)
      if (!close(a[i], b[i]))
        return fmt::format("the frequency of pair {} of a head is {:.6g} in texts of {} tokens ({} rotary scaling), in the file {:.6g}", i, a[i], length, name_of(wanted.kind), b[i]);
    const double x = rotary_magnitude(wanted, length), y = rotary_magnitude(found, length);
    if (!close(x, y)) return fmt::format("cosines and sines are {:.6g} times as large in texts of {} tokens, in the file {:.6g}", x, length, y);
  }
  return "";
}

}  // namespace

std::string difference(const Architecture& wanted, const Architecture& found, int64_t context) {
  if (const std::string text = first_difference("as a whole", lines_of(wanted), lines_of(found)); !text.empty()) return text;
  for (size_t i = 0; i < wanted.layers.size(); ++i)
    if (const std::string text = first_difference(fmt::format("in block {}", i), lines_of(wanted.layers[i], context), lines_of(found.layers[i], context)); !text.empty()) return text;
  if (wanted.position != PositionKind::rotary) return "";
  for (size_t r = 0; r < wanted.ropes.size(); ++r) {
    const bool used = std::any_of(wanted.layers.begin(), wanted.layers.end(), [&](const LayerSpec& layer) {
      return std::any_of(layer.graph.operations().begin(), layer.graph.operations().end(), [&](const Operation& operation) {
        const auto* rotary = std::get_if<RotaryOp>(&operation.kind);
        return rotary && rotary->rope == static_cast<int>(r);
      });
    });
    if (!used) continue;
    if (r >= found.ropes.size()) return fmt::format("the model has {} kinds of rotation, the file {}", wanted.ropes.size(), found.ropes.size());
    if (const std::string text = rope_difference(wanted.ropes[r], found.ropes[r], context); !text.empty()) return text;
  }
  return "";
}

}  // namespace qb
