#include "core/model/decoder.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <functional>
#include <mutex>
#include <numbers>

#include "core/base/cpu.h"
#include "core/base/error.h"
#include "core/model/attention.h"
#include "core/model/block_forward.h"
#include "core/model/head.h"
#include "core/model/hidden_streams.h"
#include "core/model/kernels.h"
#include "core/model/output_gradient.h"

namespace qb {
namespace {

at::ScalarType held_dtype(at::ScalarType dtype, at::Device device) {
  if (!device.is_cpu() || dtype == at::kFloat) return dtype;
  return dtype == at::kBFloat16 && cpu_multiplies_bfloat16() ? dtype : at::kFloat;
}

}  // namespace

Linear* Block::find(const std::string& name) {
  for (Linear& linear : linears)
    if (linear.info.name == name) return &linear;
  return nullptr;
}

int64_t KeyValueCache::tokens(int block) const {
  const auto it = blocks_.find(block);
  return it == blocks_.end() ? 0 : it->second.tokens;
}

std::pair<at::Tensor, at::Tensor> KeyValueCache::append(int block, const at::Tensor& keys, const at::Tensor& values) {
  Entry& e = blocks_[block];
  const int64_t added = keys.size(1), total = e.tokens + added;
  auto grow = [&](at::Tensor& all, const at::Tensor& fresh) {
    if (!all.defined() || all.size(1) < total) {
      at::Tensor wider = at::empty({fresh.size(0), std::max(total, 2 * e.tokens), fresh.size(2), fresh.size(3)}, fresh.options());
      if (e.tokens > 0) wider.narrow(1, 0, e.tokens).copy_(all.narrow(1, 0, e.tokens));
      all = std::move(wider);
    }
    all.narrow(1, e.tokens, added).copy_(fresh);
  };
  grow(e.keys, keys);
  grow(e.values, values);
  e.tokens = total;
  return {e.keys.narrow(1, 0, total), e.values.narrow(1, 0, total)};
}

namespace {

// What a model has outside of its blocks.
struct Globals {
  std::shared_ptr<const Model> model;
  TensorSourcePtr source;
  at::ScalarType dtype, held;
  at::Device device;
  std::map<std::string, at::Tensor> globals;           // small ones, held dtype
  at::Tensor embedding, head;                          // rows in the stored dtype where that is plain, on the device
  at::Tensor token_table;                              // of token_input, as stored
  TokenInputs token_inputs;
  mutable RotaryCache rotary;
  at::Tensor alibi;

  const Architecture& a() const { return model->architecture; }

  at::Tensor read(const std::string& name, const std::vector<int64_t>& shape) const {
    at::Tensor value = source->read(name);
    if (value.sizes() != at::IntArrayRef(shape))
      throw InputError(fmt::format("{}: tensor \"{}\" has shape {}, expected {}", model->path.string(), name,
                                   fmt::format("[{}]", fmt::join(value.sizes(), ", ")), fmt::format("[{}]", fmt::join(shape, ", "))));
    return value;
  }

  // Rounded to dtype, then held; always a copy, as files are mapped read-only.
  at::Tensor load(const std::string& name, const std::vector<int64_t>& shape) const {
    at::Tensor value = read(name, shape);
    if (held != dtype && value.scalar_type() != dtype) value = value.to(dtype);
    return value.to(at::TensorOptions().dtype(held).device(device), false, true, at::MemoryFormat::Contiguous);
  }

  at::Tensor load_optional(const std::string& name, const std::vector<int64_t>& shape) const {
    return source->contains(name) ? load(name, shape) : at::Tensor();
  }

  // A vocabulary matrix stays as stored (mapped) where it can: it is widened a slice at a time.
  at::Tensor load_vocabulary(const std::string& name, int64_t rows) const {
    const TensorInfo* info = source->find(name);
    if (!info) throw InputError(fmt::format("{}: tensor \"{}\" is missing", model->path.string(), name));
    at::Tensor value = read(name, {rows, a().embedding_size});
    if (device.is_cpu() && value.scalar_type() == dtype) return value;
    return value.to(at::TensorOptions().dtype(dtype).device(device));
  }

  const at::Tensor& global(const std::string& name, const std::vector<int64_t>& shape) {
    auto it = globals.find(name);
    if (it == globals.end()) it = globals.emplace(name, load(name, shape)).first;
    return it->second;
  }

  at::Tensor norm(const std::string& name, const at::Tensor& x) {
    at::Tensor weight, bias;
    if (a().norm_affine) {
      weight = global(name + ".weight", {a().hidden_size});
      if (is_layer_norm(a().norm) && a().norm_bias) bias = global(name + ".bias", {a().hidden_size});
    }
    return normalise(x, a().norm, a().norm_eps, weight, bias);
  }

  // The factor is rounded like a weight: Gemma was trained with it in bfloat16.
  double rounded(double factor) const { return at::scalar_tensor(factor, at::TensorOptions().dtype(dtype)).to(held).item<double>(); }

  // What stands for tokens [n] before anything is known of their positions: [n, hidden], held dtype.
  at::Tensor embedded(const at::Tensor& ids) {
    at::Tensor x = embedding_rows().index_select(0, ids).to(held);
    if (a().embedding_scale != 1) x = x * rounded(a().embedding_scale);
    if (a().embedding_size != a().hidden_size) x = at::linear(x, global(a().names.project_in + ".weight", {a().hidden_size, a().embedding_size}));
    if (!a().names.embedding_norm.empty()) x = norm(a().names.embedding_norm, x);
    return x;
  }

  const at::Tensor& stream_matrix(const std::string& names, int64_t stream) {
    return global(fmt::format("{}.{}.weight", names, stream - 1), {a().hidden_size, a().hidden_size});
  }

  // x [n, hidden] → what the first block is given.
  at::Tensor carried(const at::Tensor& x, const at::Tensor& ids) {
    const StreamSpec& spec = a().streams;
    if (spec.count == 1) return x;
    std::vector<at::Tensor> parts = {x};
    for (int64_t j = 1; j < spec.count; ++j) parts.push_back(as_large_as(at::linear(x, stream_matrix(a().names.streams_in, j)), x));
    parts.push_back(token_digits(ids, held));
    const int64_t unmade = a().carried_width() - a().hidden_width() - kTokenDigits;
    if (unmade > 0) parts.push_back(at::zeros({x.size(0), unmade}, x.options()));
    return at::cat(parts, 1);
  }

  // TokenInputOp's: of a layer's own table of tokens, and of the first embedding.
  at::Tensor token_input(const at::Tensor& ids, int64_t layer) {
    const StreamSpec& spec = a().streams;
    const int64_t all = spec.token_layers * spec.token_width;
    if (!token_table.defined()) token_table = read(a().names.token_inputs + ".weight", {spec.token_rows, all});  // as stored: it may be the largest tensor of all
    const at::Tensor known = at::where(ids < spec.token_rows, ids, 0).to(at::kCPU);
    at::Tensor own = token_table.narrow(1, layer * spec.token_width, spec.token_width).index_select(0, known).to(dtype).to(at::TensorOptions().dtype(held).device(device));
    own = own * rounded(std::sqrt(static_cast<double>(spec.token_width)));
    const at::Tensor projection = global(a().names.token_projection + ".weight", {all, a().hidden_size}).narrow(0, layer * spec.token_width, spec.token_width);
    const at::Tensor projected = at::linear(embedded(ids), projection) / std::sqrt(static_cast<double>(a().hidden_size));
    return (normalise(projected, a().norm, a().norm_eps, global(a().names.token_norm + ".weight", {spec.token_width}), {}) + own) * (std::numbers::sqrt2 / 2);
  }

  // Hidden states → what the head multiplies: [tokens, embedding_size], held dtype.
  at::Tensor before_head(const at::Tensor& hidden) {
    at::Tensor x = hidden.reshape({-1, a().carried_width()}).to(held);
    if (const int64_t count = a().streams.count; count > 1) {
      const at::Tensor first = x.narrow(1, 0, a().hidden_size);
      at::Tensor sum = first;
      for (int64_t j = 1; j < count; ++j)
        sum = sum + as_large_as(at::linear(x.narrow(1, j * a().hidden_size, a().hidden_size), stream_matrix(a().names.streams_out, j)), first);
      x = sum / static_cast<double>(count);
    }
    if (a().final_norm) x = norm(a().names.final_norm, x);
    if (a().embedding_size != a().hidden_size) x = at::linear(x, global(a().names.project_out + ".weight", {a().embedding_size, a().hidden_size}));
    return x;
  }

  const at::Tensor& head_rows() {
    if (!head.defined()) {
      if (a().tied_embeddings) {
        head = embedding_rows();
      } else {
        head = load_vocabulary(a().names.head + ".weight", a().vocabulary);
      }
      if (a().normalise_head) {
        const at::Tensor wide = head.to(at::kFloat);  // may be the mapped file's memory
        head = (wide / wide.norm(2, 1, true).clamp_min(1e-12)).to(head.scalar_type());
      }
    }
    return head;
  }

  HeadSpec head_spec() {
    HeadSpec spec{head_rows(), {}, a().logit_scale, a().logit_softcap};
    if (a().head_bias) spec.bias = global(a().names.head + ".bias", {a().vocabulary});
    return spec;
  }

  // Takes a gradient by the head's input back to the hidden states.
  at::Tensor behind_head(const at::Tensor& hidden, const std::function<at::Tensor(const at::Tensor& x, const HeadSpec& spec)>& gradient) {
    const HeadSpec spec = head_spec();
    at::AutoGradMode gradients(true);
    const at::Tensor leaf = hidden.detach().to(held).requires_grad_(true), x = before_head(leaf);
    at::Tensor by_x;
    {
      const at::NoGradGuard no_grad;
      by_x = gradient(x.detach(), spec);
    }
    x.backward(by_x);
    return leaf.grad();
  }

  const at::Tensor& embedding_rows() {
    if (!embedding.defined()) embedding = load_vocabulary(a().names.embedding + ".weight", a().embedding_rows > 0 ? a().embedding_rows : a().vocabulary);
    return embedding;
  }
};

Globals make_globals(std::shared_ptr<const Model> model, TensorSourcePtr source, at::ScalarType dtype, at::Device device) {
  if (dtype != at::kFloat && dtype != at::kBFloat16 && dtype != at::kHalf)
    throw InputError(fmt::format("compute type {}, expected float32, bfloat16 or float16", at::toString(dtype)));
  if (!source) source = model->source;
  return {std::move(model), std::move(source), dtype, held_dtype(dtype, device), device, {}, {}, {}, {}, {}, {}, {}};
}

}  // namespace

struct Decoder::State : Globals {};
struct OutputGradient::State : Globals {};

Decoder::Decoder(std::shared_ptr<const Model> model, TensorSourcePtr source, at::ScalarType dtype, at::Device device)
    : state_(new State{make_globals(std::move(model), std::move(source), dtype, device)}) {
  state_->token_inputs = [s = state_.get()](const at::Tensor& ids, int64_t layer) { return s->token_input(ids, layer); };
  const PositionKind position = architecture().position;
  if (position == PositionKind::alibi || position == PositionKind::alibi_scaled) state_->alibi = alibi_slopes(architecture().heads).to(device);
}

Decoder::~Decoder() = default;

const Architecture& Decoder::architecture() const { return state_->a(); }
at::ScalarType Decoder::dtype() const { return state_->dtype; }
at::ScalarType Decoder::weight_dtype() const { return state_->held; }
at::Device Decoder::device() const { return state_->device; }
int Decoder::blocks() const { return static_cast<int>(state_->a().blocks); }

at::Tensor Decoder::embed(const at::Tensor& ids, int64_t first) {
  at::NoGradGuard no_grad;
  State& s = *state_;
  const Architecture& a = s.a();
  const int64_t batch = ids.size(0), seq = ids.size(1);
  if (a.position == PositionKind::learned && first + seq > a.context_length)
    throw InputError(fmt::format("{}: a sequence of {} tokens, but the model has learned positions for {}", s.model->path.string(), first + seq, a.context_length));
  const at::Tensor flat = ids.reshape({-1}).to(at::kLong).to(s.device);
  if (flat.numel() > 0) {
    const int64_t low = flat.min().item<int64_t>(), high = flat.max().item<int64_t>();
    if (low < 0 || high >= a.vocabulary)
      throw InputError(fmt::format("{}: token id {}, but the model's vocabulary has ids 0 to {} (another model's tokenizer?)",
                                   s.model->path.string(), low < 0 ? low : high, a.vocabulary - 1));
  }
  at::Tensor x = s.carried(s.embedded(flat), flat).reshape({batch, seq, a.carried_width()});
  if (a.position == PositionKind::learned)
    x = x + s.global(a.names.positions + ".weight", {a.context_length + a.position_offset, a.hidden_size}).narrow(0, a.position_offset + first, seq);
  return x.to(s.dtype);
}

Block Decoder::load_block(int index) const {
  at::NoGradGuard no_grad;
  const State& s = *state_;
  const Architecture& a = s.a();
  if (index < 0 || index >= blocks()) throw InternalError(fmt::format("block {}, but the model has {}", index, blocks()));
  const LayerSpec& layer = a.layers[index];
  const std::string prefix = a.block_prefix(index);
  Block block;
  block.index = index;
  for (size_t i = 0; i < layer.linears.size(); ++i) {
    const LinearSpec& spec = layer.linears[i];
    Linear linear;
    linear.info = s.model->info.blocks[index].linears[i];
    linear.weight = s.load(linear.info.tensor, {spec.out, spec.in});
    // A quantized model may add a bias where the float one has none.
    const std::string bias = prefix + spec.name + ".bias";
    if (spec.bias || s.source->contains(bias)) linear.bias = s.load(bias, {spec.out});
    block.linears.push_back(std::move(linear));
  }
  for (const TensorSpec& other : layer.others) block.others.emplace(other.name, s.load(prefix + other.name, other.shape));
  // Norm biases and the like that an overlay adds are found under the norm's name.
  return block;
}

at::Tensor Decoder::hidden_part(const at::Tensor& carried) const {
  return carried.size(-1) == architecture().hidden_width() ? carried : carried.narrow(-1, 0, architecture().hidden_width());
}

const LayerGraph& Decoder::graph(int index) const { return architecture().layers[static_cast<size_t>(index)].graph; }

at::Tensor Decoder::forward(const Block& block, const at::Tensor& hidden, const ForwardContext& context) const {
  at::NoGradGuard no_grad;
  const State& s = *state_;
  const at::Tensor out = BlockForward{s.a(), block, context, s.rotary, s.alibi, s.token_inputs, s.held}.run(hidden);
  return context.stop_at || context.taps_only ? out : out.to(s.dtype);
}

at::Tensor Decoder::forward_learning(const Block& block, const at::Tensor& hidden, const ForwardContext& context) const {
  at::AutoGradMode gradients(true);
  const State& s = *state_;
  return BlockForward{s.a(), block, context, s.rotary, s.alibi, s.token_inputs, s.held}.run(hidden);
}

at::Tensor Decoder::before_head(const at::Tensor& hidden) {
  at::NoGradGuard no_grad;
  return state_->before_head(hidden);
}

at::Tensor Decoder::logits(const at::Tensor& hidden) {
  at::NoGradGuard no_grad;
  State& s = *state_;
  const at::Tensor x = s.before_head(hidden);
  const HeadSpec spec = s.head_spec();
  return head_logits(x, spec).reshape({hidden.size(0), hidden.size(1), s.a().vocabulary});
}

std::pair<double, at::Tensor> Decoder::divergence(const at::Tensor& hidden, const at::Tensor& teacher, Decoder* of) {
  State& s = *state_;
  Decoder& its = of ? *of : *this;
  const HeadSpec spec = s.head_spec(), teacher_spec = its.state_->head_spec();
  const at::Tensor target = its.before_head(teacher);
  at::AutoGradMode gradients(true);
  const at::Tensor leaf = hidden.detach().to(s.held).requires_grad_(true), x = s.before_head(leaf);
  Divergence found;
  {
    const at::NoGradGuard no_grad;
    found = head_divergence(x.detach(), spec, target, teacher_spec);
  }
  x.backward(found.gradient);
  return {found.sum, leaf.grad()};
}

at::Tensor Decoder::negative_log_likelihood(const at::Tensor& hidden, const at::Tensor& ids) {
  at::NoGradGuard no_grad;
  State& s = *state_;
  const int64_t batch = hidden.size(0), seq = hidden.size(1);
  // The last position predicts nothing that is known.
  const at::Tensor x = s.before_head(hidden.narrow(1, 0, seq - 1));
  const at::Tensor targets = ids.to(at::kLong).to(s.device).narrow(1, 1, seq - 1).reshape({-1});
  const HeadSpec spec = s.head_spec();
  return head_negative_log_likelihood(x, targets, spec).reshape({batch, seq - 1});
}

OutputGradient::OutputGradient(std::shared_ptr<const Model> model, TensorSourcePtr source, at::ScalarType dtype, at::Device device)
    : state_(new State{make_globals(std::move(model), std::move(source), dtype, device)}) {}

OutputGradient::~OutputGradient() = default;

at::Tensor OutputGradient::divergence_probe(const at::Tensor& hidden, uint64_t seed) {
  return state_->behind_head(hidden, [&](const at::Tensor& x, const HeadSpec& spec) { return head_divergence_probe(x, spec, seed); });
}

at::Tensor OutputGradient::cross_entropy(const at::Tensor& hidden, const at::Tensor& ids) {
  const at::Tensor targets = at::full_like(ids, -1, at::kLong);
  targets.narrow(1, 0, ids.size(1) - 1).copy_(ids.narrow(1, 1, ids.size(1) - 1));
  return state_->behind_head(hidden, [&](const at::Tensor& x, const HeadSpec& spec) { return head_cross_entropy_gradient(x, targets.reshape({-1}).to(state_->device), spec); });
}

}  // namespace qb
