#include "core/engine/model_tuning.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <numbers>
#include <numeric>
#include <random>

#include "core/base/error.h"
#include "core/base/memory.h"
#include "core/engine/block_store.h"
#include "core/engine/hidden_states.h"
#include "core/engine/module_name.h"
#include "core/engine/run_state.h"
#include "core/format/checked_safetensors.h"
#include "core/method/reconstruction/block_learning.h"
#include "core/quant/units.h"

namespace qb {
namespace {

using Clock = std::chrono::steady_clock;

std::filesystem::path checkpoint_path(const std::filesystem::path& folder) { return folder / "tuning.safetensors"; }

// What a learned factor belongs to: value = start · exp(factor), for Gemma's norms (1 + start) · exp(factor) − 1.
struct Parameter {
  at::Tensor start;            // float32
  at::Tensor factor;           // a view of all factors, same shape
  int64_t offset = 0;          // among them
  ScaleType type = ScaleType::f32;  // scales: what they are stored in
  double plus = 0;
  at::Tensor value() const { return (start + plus) * factor.exp() - plus; }
};

// Of super-blocks their two numbers are learned, from which the units' scales and minima follow.
struct TunedLinear {
  size_t index;                // in Block::linears
  Parameter scale;
  std::optional<Parameter> minimum;
};

struct TunedNorm {
  std::string name;            // in Block::others
  Parameter weight;
};

struct TunedBlock {
  Block frame;                 // with the linears' weights left out: they are read when the block's turn comes
  BlockFile stored;
  std::vector<TunedLinear> linears;
  std::vector<size_t> untuned; // other linears, in Block::linears
  std::vector<TunedNorm> norms;
};

// A block at work: the only one whose weights are in memory.
struct Working {
  Block block;
  std::vector<QuantizedWeight> codes;  // of TunedBlock::linears, with the scales learned so far
};

// Units' values that are integers times their super-block's, after that has become another.
at::Tensor following(const at::Tensor& units, const at::Tensor& super, const at::Tensor& changed) {
  const int64_t each = units.size(1) / super.size(1);
  const at::Tensor before = super.repeat_interleave(each, 1), integers = (units / before).round_();
  return at::where(before == 0, units, integers.mul_(changed.repeat_interleave(each, 1)));
}

// A grid with what has been learned, as it will be stored.
ScaleZero learned_grid(ScaleZero grid, const TunedLinear& linear, const QuantSpec& spec) {
  const at::Tensor scale = stored_through(linear.scale.value(), linear.scale.type), minimum = linear.minimum ? stored_through(linear.minimum->value(), linear.minimum->type) : at::Tensor();
  if (!grid.super.defined()) {
    grid.scale = scale;
    if (minimum.defined()) grid.minimum = minimum;
  } else {
    grid.scale = following(grid.scale, grid.super, scale);
    grid.super = scale;
    if (minimum.defined()) grid.minimum = following(grid.minimum, grid.super_minimum, minimum), grid.super_minimum = minimum;
  }
  derive_zero(grid, spec);
  return grid;
}

TokenSet first_samples(const TokenSet& all, int64_t samples) {
  TokenSet some = all;
  if (samples > 0 && samples < static_cast<int64_t>(all.samples.size())) some.samples.resize(static_cast<size_t>(samples));
  return some;
}

class Tuning {
 public:
  Tuning(const EngineJob& job, const TuningOptions& options, const Control& control)
      : job_(job), options_(options), control_(control), source_(quantized_source(job.model, job.folder)), decoder_(job.model, source_, job.dtype, job.device),
        teacher_(job.model, job.model->source, job.dtype, job.device), states_(first_samples(job.calibration, options.samples), job.model->architecture.carried_width(), job.dtype, job.resident_bytes, job.folder, options.batch_tokens) {
    for (int i = 0; i < decoder_.blocks(); ++i) open(i);
    all_ = at::zeros({count_}, at::kFloat);
    mean_ = at::zeros_like(all_);
    square_ = at::zeros_like(all_);
    int64_t at = 0;
    for (TunedBlock& block : blocks_) {
      auto give = [&](Parameter& p) {
        const int64_t n = p.start.numel();
        p.offset = at;
        p.factor = at_place(all_, p);
        at += n;
      };
      for (TunedLinear& linear : block.linears) {
        give(linear.scale);
        if (linear.minimum) give(*linear.minimum);
      }
      for (TunedNorm& norm : block.norms) give(norm.weight);
    }
    const bool of_run = job.scheme.has_static_activations() || job.scheme.has_static_cache();
    const LinearTap quantizing = of_run ? activation_tap(quantized_model(job.model, job.folder)) : activation_tap(job.scheme);
    cache_tap_ = of_run ? cache_tap(quantized_model(job.model, job.folder)) : cache_tap(job.scheme);
    if (cache_tap_) learning_cache_tap_ = straight_through(cache_tap_);
    tap_ = [this, quantizing](const Linear& linear, const at::Tensor& x) {
      control_.checkpoint();
      return quantizing ? quantizing(linear, x) : x;
    };
    learning_tap_ = straight_through(tap_);
  }

  void run() {
    teach();
    const auto batches = static_cast<int64_t>(states_.batches());
    const int64_t steps = options_.epochs * batches;
    int64_t step = restore();
    Clock::time_point saved;  // long ago: the first step is kept at once
    double epoch_loss = 0, epoch_tokens = 0;
    for (; step < steps; ++step) {
      const int64_t epoch = step / batches;
      if (step % batches == 0) epoch_loss = epoch_tokens = 0;
      const auto batch = static_cast<size_t>(order(epoch)[static_cast<size_t>(step % batches)]);
      const double loss = learn(batch, step, steps);
      epoch_loss += loss;
      epoch_tokens += static_cast<double>(states_.ids(batch).numel());
      Progress p;
      p.fraction = teaching_ + (1 - teaching_) * static_cast<double>(step + 1) / static_cast<double>(steps);
      if ((step + 1) % batches == 0 || step == 0) p.message = fmt::format("epoch {} of {}: divergence {:.4f} nats a token", epoch + 1, options_.epochs, epoch_loss / epoch_tokens);
      report(p);
      if (control_.stop_soon.stop_requested() || Clock::now() - saved > std::chrono::seconds(30)) {
        save(step + 1);
        saved = Clock::now();
        control_.milestone();
      }
    }
    write();
    std::error_code ignored;
    std::filesystem::remove(checkpoint_path(job_.folder), ignored);
  }

 private:
  void open(int index) {
    TunedBlock tuned{decoder_.load_block(index), BlockFile(block_path(job_.folder, index)), {}, {}, {}};
    Block& block = tuned.frame;
    for (size_t i = 0; i < block.linears.size(); ++i) {
      const LinearInfo& info = block.linears[i].info;
      block.linears[i].weight.reset();
      if (!tuned.stored.linears().contains(info.tensor)) {
        tuned.untuned.push_back(i);
        continue;
      }
      const ScaleZero grid = tuned.stored.read_grid(info.tensor);
      auto parameter = [&](const at::Tensor& start) {
        Parameter p;
        p.start = start.clone();
        p.type = tuned.stored.linears().at(info.tensor).weights.scale_type;
        count_ += p.start.numel();
        return p;
      };
      TunedLinear linear{i, parameter(grid.super.defined() ? grid.super : grid.scale), {}};
      if (grid.minimum.defined()) linear.minimum = parameter(grid.super.defined() ? grid.super_minimum : grid.minimum);
      tuned.linears.push_back(std::move(linear));
    }
    if (options_.norms)
      for (const auto& [name, plus_one] : norm_tensors(block, decoder_.graph(index))) {
        if (!name.ends_with(".weight")) continue;
        tuned.norms.push_back({name, {}});
        Parameter& p = tuned.norms.back().weight;
        p.start = block.others.at(name).to(at::kCPU, at::kFloat);
        p.plus = plus_one ? 1 : 0;
        count_ += p.start.numel();
      }
    blocks_.push_back(std::move(tuned));
  }

  // The float model's hidden states behind its last block.
  void teach() {
    Decoder& teacher = teacher_;
    ForwardContext seen;
    seen.at_value = [this](const GraphValue&, const at::Tensor& x) {
      control_.checkpoint();
      return x;
    };
    for (size_t b = 0; b < states_.batches(); ++b) states_[b].copy_(teacher.embed(states_.ids(b).to(job_.device)));
    for (int i = 0; i < teacher.blocks(); ++i) {
      const Block block = teacher.load_block(i);
      for (size_t b = 0; b < states_.batches(); ++b) states_[b].copy_(teacher.forward(block, states_[b].to(job_.device), seen));
      Progress p;
      p.message = "predictions of the float model";
      p.fraction = teaching_ * (i + 1) / teacher.blocks();
      report(p);
    }
  }

  // A block with what has been learned so far, as a checkpoint would hold it.
  Working current(const TunedBlock& tuned) const {
    Working now{tuned.frame, {}};
    auto held = [&](const at::Tensor& weight) { return weight.to(job_.dtype).to(job_.device, decoder_.weight_dtype()); };
    for (const TunedLinear& linear : tuned.linears) {
      Linear& of_block = now.block.linears[linear.index];
      QuantizedWeight weight = tuned.stored.read(of_block.info.tensor);
      weight.grid = learned_grid(std::move(weight.grid), linear, weight.spec);
      of_block.weight = held(weight.dequantize());
      now.codes.push_back(std::move(weight));
    }
    for (size_t i : tuned.untuned) now.block.linears[i].weight = held(source_->read(now.block.linears[i].info.tensor));
    for (const TunedNorm& norm : tuned.norms) {
      at::Tensor& of_block = now.block.others.at(norm.name);
      of_block = norm.weight.value().to(job_.dtype).to(of_block.options());
    }
    return now;
  }

  // One step on a batch; returns its summed divergence in nats.
  double learn(size_t batch, int64_t step, int64_t steps) {
    // Only what enters each block is kept: a block is run again when its gradients' turn comes.
    std::vector<at::Tensor> inputs;
    at::Tensor hidden = decoder_.embed(states_.ids(batch).to(job_.device));
    for (const TunedBlock& tuned : blocks_) {
      inputs.push_back(hidden);
      hidden = decoder_.forward(current(tuned).block, hidden, {.at_linear = tap_, .at_cache = cache_tap_});
    }
    auto [loss, gradient] = decoder_.divergence(hidden, states_[batch].to(job_.device), job_.scheme.has_vocabulary() ? &teacher_ : nullptr);
    release_freed_memory();  // the logits are the largest tensors of all
    gradient = gradient / static_cast<double>(states_.ids(batch).numel());
    const at::Tensor towards = at::zeros_like(all_);
    for (size_t i = blocks_.size(); i-- > 0;) {
      const TunedBlock& tuned = blocks_[i];
      Working now = current(tuned);
      Block& block = now.block;
      for (const TunedLinear& linear : tuned.linears) block.linears[linear.index].weight.requires_grad_(true);
      for (const TunedNorm& norm : tuned.norms) block.others.at(norm.name).requires_grad_(true);
      {
        at::AutoGradMode gradients(true);
        const at::Tensor leaf = inputs[i].to(decoder_.weight_dtype(), false, true).requires_grad_(true);
        decoder_.forward_learning(block, leaf, {.at_linear = learning_tap_, .at_cache = learning_cache_tap_}).backward(gradient);
        gradient = leaf.grad();
      }
      inputs.pop_back();
      for (size_t k = 0; k < tuned.linears.size(); ++k) {
        const TunedLinear& linear = tuned.linears[k];
        const at::Tensor by_weight = block.linears[linear.index].weight.grad();
        block.linears[linear.index].weight.reset();
        if (by_weight.defined()) {
          const at::Tensor wide = by_weight.to(at::kCPU, at::kFloat);
          const ScaleZero& grid = now.codes[k].grid;
          auto add = [&](const Parameter& p, const at::Tensor& by_log) {  // of a super-block, the sum over its units
            const at::Tensor place = at_place(towards, p);
            place.copy_(place.size(1) == by_log.size(1) ? by_log : by_log.view({place.size(0), place.size(1), -1}).sum(2));
          };
          add(linear.scale, by_scale(now.codes[k], wide) * grid.scale);
          if (linear.minimum) add(*linear.minimum, sum_of_units(wide, now.codes[k].spec) * grid.minimum);
        }
        now.codes[k] = {};
      }
      for (const TunedNorm& norm : tuned.norms) {
        const at::Tensor by_norm = block.others.at(norm.name).grad();
        if (by_norm.defined()) at_place(towards, norm.weight).copy_(by_norm.to(at::kCPU, at::kFloat) * (norm.weight.value() + norm.weight.plus));
      }
    }
    adam(towards, step, steps);
    return loss;
  }

  static at::Tensor at_place(const at::Tensor& all, const Parameter& p) { return all.narrow(0, p.offset, p.start.numel()).view(p.start.sizes()); }

  // Σ over each unit of gradient · (code − zero), which is what the scale multiplies.
  static at::Tensor by_scale(QuantizedWeight unit, const at::Tensor& by_weight) {
    // With scales of one, and nothing where float16 values replace the codes.
    unit.grid.scale = at::ones_like(unit.grid.scale);
    if (unit.grid.minimum.defined()) unit.grid.minimum = at::zeros_like(unit.grid.minimum);
    if (unit.columns.defined()) unit.column_values = at::zeros_like(unit.column_values);
    if (unit.outliers.defined()) unit.outlier_values = at::zeros_like(unit.outlier_values);
    return sum_of_units(unit.dequantize().mul_(by_weight), unit.spec);
  }

  static at::Tensor sum_of_units(const at::Tensor& weights, const QuantSpec& spec) {
    return unit_grid(to_units(weights, spec).sum(1, true), spec, weights.size(0), weights.size(1));
  }

  // Kingma & Ba 2014 (arXiv 1412.6980), algorithm 1, with a step that falls along half a cosine.
  void adam(const at::Tensor& gradient, int64_t step, int64_t steps) {
    constexpr double kMean = 0.9, kSquare = 0.99, kSmall = 1e-12;
    mean_.mul_(kMean).add_(gradient, 1 - kMean);
    square_.mul_(kSquare).addcmul_(gradient, gradient, 1 - kSquare);
    const auto n = static_cast<double>(step + 1);
    const double rate = options_.rate * 0.5 * (1 + std::cos(std::numbers::pi * static_cast<double>(step) / static_cast<double>(steps)));
    const at::Tensor size = (square_ / (1 - std::pow(kSquare, n))).sqrt_().add_(kSmall);
    all_.addcdiv_(mean_, size, -rate / (1 - std::pow(kMean, n)));
  }

  // Batches of an epoch, shuffled the same way on every machine and in every session.
  std::vector<int64_t> order(int64_t epoch) const {
    std::vector<int64_t> batches(states_.batches());
    std::iota(batches.begin(), batches.end(), 0);
    std::mt19937_64 random(job_.seed + static_cast<uint64_t>(epoch));
    for (size_t i = batches.size(); i > 1; --i) std::swap(batches[i - 1], batches[random() % i]);
    return batches;
  }

  void save(int64_t step) const {
    write_checked_safetensors(checkpoint_path(job_.folder), {{"factors", all_}, {"mean", mean_}, {"square", square_}, {"step", at::tensor({step}, at::kLong)}});
  }

  // Steps that an earlier session made.
  int64_t restore() {
    const auto path = checkpoint_path(job_.folder);
    if (!std::filesystem::exists(path)) return 0;
    if (const std::string damage = damage_of(path); !damage.empty()) {
      Progress p;
      p.message = damage + "; tuning begins anew";
      report(p);
      return 0;
    }
    const auto stored = open_checked_safetensors(path).tensors;
    for (const auto& [name, into] : {std::pair{"factors", &all_}, {"mean", &mean_}, {"square", &square_}}) {
      const at::Tensor value = stored->read(name);
      if (value.scalar_type() != at::kFloat || value.sizes() != into->sizes())
        throw InputError(fmt::format("{}: tensor \"{}\" is not float32 [{}]; delete the file to learn from the start", path.string(), name, count_));
      into->copy_(value);
    }
    return stored->read("step").item<int64_t>();
  }

  void write() const {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (size_t i = 0; i < blocks_.size(); ++i) {
      const std::string prefix = decoder_.architecture().block_prefix(static_cast<int64_t>(i));
      for (const TunedLinear& linear : blocks_[i].linears) {
        const std::string& name = blocks_[i].frame.linears[linear.index].info.tensor;
        const ScaleZero grid = learned_grid(blocks_[i].stored.read_grid(name), linear, blocks_[i].stored.linears().at(name).weights);
        for (auto& part : scale_tensors(name, grid)) tensors.push_back(std::move(part));
      }
      for (const TunedNorm& norm : blocks_[i].norms) tensors.emplace_back(prefix + norm.name, norm.weight.value().to(job_.dtype));
    }
    write_checked_safetensors(tuned_path(job_.folder), tensors);
  }

  void report(Progress& p) {
    p.phase = "quantize";
    p.stage = "e2e_tuning";
    control_.report(p);
  }

  const EngineJob& job_;
  const TuningOptions& options_;
  const Control& control_;
  TensorSourcePtr source_;
  Decoder decoder_, teacher_;
  HiddenStates states_;        // first the calibration tokens' on their way through the float model, then its last
  std::vector<TunedBlock> blocks_;
  LinearTap tap_, learning_tap_;
  CacheTap cache_tap_, learning_cache_tap_;
  int64_t count_ = 0;
  double teaching_ = 1 / tuning_passes(options_, 0);  // the float model's share of the work
  at::Tensor all_, mean_, square_;  // factors of all parameters, and Adam's moments
};

}  // namespace

std::filesystem::path tuned_path(const std::filesystem::path& folder) { return folder / "tuned.safetensors"; }

void tune_model(const EngineJob& job, const TuningOptions& options, const Control& control) {
  if (const auto path = tuned_path(job.folder); std::filesystem::exists(path) && damage_of(path).empty()) return;
  const at::NoGradGuard no_grad;
  Tuning(job, options, control).run();
}

void forget_tuning(const std::filesystem::path& folder) {
  std::error_code ignored;
  for (const auto& path : {tuned_path(folder), checkpoint_path(folder)}) std::filesystem::remove(path, ignored);
}

}  // namespace qb
