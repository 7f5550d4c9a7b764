#include "core/measure/measure_sensitivity.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numbers>
#include <set>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/memory.h"
#include "core/engine/collector.h"
#include "core/engine/finite.h"
#include "core/engine/gram.h"
#include "core/engine/hidden_states.h"
#include "core/engine/module_name.h"
#include "core/engine/statistics_cache.h"
#include "core/format/checked_safetensors.h"
#include "core/measure/window_pass.h"
#include "core/method/contracts.h"
#include "core/method/method.h"
#include "core/model/output_gradient.h"

namespace qb {

std::string to_text(SensitivityLoss loss) { return loss == SensitivityLoss::kl ? "kl" : loss == SensitivityLoss::cross_entropy ? "cross_entropy" : "none"; }

std::optional<SensitivityLoss> parse_sensitivity_loss(const std::string& text) {
  for (SensitivityLoss loss : {SensitivityLoss::none, SensitivityLoss::kl, SensitivityLoss::cross_entropy})
    if (to_text(loss) == text) return loss;
  return std::nullopt;
}

namespace {

using Clock = std::chrono::steady_clock;
using Path = std::filesystem::path;

// In small batches what passes between two linears stays in a CPU's caches.
constexpr int64_t kBatchTokens = 2048, kRows = 256;

// What the gradients of one linear's output tell.
struct OutputGradients {
  at::Tensor squares;  // [out] Σ over tokens of (∂L/∂y_o)², float64
  at::Tensor gram;     // Σ over tokens of (Σ_o (∂L/∂y_o)²) · xxᵀ [in, in] float32
};

// Squares of gradients of a linear's values, rows of the matrix that made them.
struct LinearValue {
  size_t linear;
  Rows rows;
};

class Survey {
 public:
  Survey(const std::shared_ptr<const Model>& model, const TokenSet& tokens, const SensitivityOptions& options, const Control& control)
      : model_(model), tokens_(tokens), options_(options), control_(control), specs_(parse_candidates(options.candidates)),
        decoder_(model, model->source, options.dtype, options.device), blocks_(decoder_.blocks()), stages_(complete_pipeline(options.rounding)) {
    check();
    folder_ = options.folder / key();
    std::filesystem::create_directories(folder_);
  }

  Sensitivity run() {
    const auto start = Clock::now();
    choose();
    const bool described = all_described();
    const bool to_measure = !missing_measurements().empty();
    steps_ = static_cast<double>(blocks_) * ((!described || to_measure ? 1 : 0) + (!described && with_gradients() ? 3 : 0) + (to_measure ? static_cast<double>(missing_measurements().size()) : 0));
    if (!described || to_measure) walk_forward();
    if (!described && with_gradients()) walk_backward();
    for (size_t i : missing_measurements()) measure(i);
    Sensitivity result = gathered();
    remove_states();
    result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    return result;
  }

 private:
  struct LinearPlace {
    int block;
    size_t linear;
  };

  bool with_gradients() const { return options_.loss != SensitivityLoss::none; }

  void check() {
    if (tokens_.samples.empty()) throw InputError("sensitivity: there is no calibration text");
    if (options_.measured_windows < 1) throw InputError(fmt::format("sensitivity: {} measured windows, expected at least 1", options_.measured_windows));
    Scheme scheme;
    scheme.weights = specs_.front();
    for (const StageSpec& stage : stages_)
      if (const std::string problem = stage_problem(stage); !problem.empty()) throw InputError("sensitivity: " + problem);
    if (const auto problem = pipeline_problem(stages_, scheme)) throw InputError("sensitivity: " + problem->what);
    for (const StageSpec& stage : stages_) {
      const Contract& contract = find_method(stage.method)->contract;
      const auto method = make_method(stage);
      constexpr auto kMore = static_cast<Statistics>(Statistic::block_io) | static_cast<Statistics>(Statistic::again) | static_cast<Statistics>(Statistic::float_path);
      if (contract.place != qb::Place::blocks || contract.leaves.has(Trace::transforms) || (method->needs() & kMore) != 0)
        throw InputError(fmt::format("sensitivity: {} cannot round for it: it needs hidden states or changes more than one block; statistics alone serve rtn, clip, gptq, awq …", stage.method));
      wanted_ |= method->needs();
    }
    wanted_ |= static_cast<Statistics>(Statistic::gram);
    for (const std::string& candidate : options_.measured_candidates)
      if (std::find(options_.candidates.begin(), options_.candidates.end(), candidate) == options_.candidates.end())
        throw InputError(fmt::format("sensitivity: \"{}\" shall be measured, but is no candidate", candidate));
    for (size_t c = 0; c < specs_.size(); ++c) {
      std::string why;
      bool fits = false;
      for (const BlockInfo& block : model_->info.blocks)
        for (const LinearInfo& linear : block.linears) {
          const std::string problem = problem_of(linear, specs_[c]);
          fits = fits || problem.empty();
          if (why.empty() && !problem.empty()) why = module_of(linear) + ": " + problem;
        }
      if (!fits) throw InputError(fmt::format("candidate {} fits no linear of the model: {}", options_.candidates[c], why));
    }
  }

  std::string problem_of(const LinearInfo& linear, const QuantSpec& spec) const {
    if (std::string problem = misfit(spec, linear.out_features, linear.in_features); !problem.empty()) return problem;
    for (const StageSpec& stage : stages_)
      if (std::string problem = make_method(stage)->problem(linear, spec); !problem.empty()) return problem;
    return {};
  }

  std::string key() const {
    Hasher hasher;
    hasher.update(model_hash(model_->path));
    hasher.update(tokens_.hash);
    for (const std::string& candidate : options_.candidates) hasher.update(candidate + ",");
    for (const StageSpec& stage : stages_) hasher.update(whole_text(stage));
    hasher.update(fmt::format("; {} seed {} {} {} 1", to_text(options_.loss), options_.seed, at::toString(options_.dtype), options_.device.str()));
    return hasher.hex();
  }

  Path block_path(int block) const { return folder_ / fmt::format("block-{:04}.json", block); }
  Path states_path(int block) const { return folder_ / fmt::format("states-{:04}.safetensors", block); }
  Path gradient_path(int block) const { return folder_ / fmt::format("gradient-{:04}.safetensors", block); }
  Path measured_path(const LinearInfo& linear) const { return folder_ / fmt::format("measured-{}-{}.json", options_.measured_windows, module_of(linear)); }
  const LinearInfo& info(const LinearPlace& place) const { return model_->info.blocks[static_cast<size_t>(place.block)].linears[place.linear]; }

  bool all_described() const {
    for (int i = 0; i < blocks_; ++i)
      if (!std::filesystem::exists(block_path(i))) return false;
    return true;
  }

  // Spread by the golden ratio: whatever number is wanted, it comes from all depths, and not of one kind.
  void choose() {
    std::vector<LinearPlace> all;
    for (int b = 0; b < blocks_; ++b)
      for (size_t i = 0; i < model_->info.blocks[static_cast<size_t>(b)].linears.size(); ++i) all.push_back({b, i});
    std::set<size_t> chosen;
    const size_t wanted = std::min(static_cast<size_t>(options_.measured), all.size());
    for (size_t k = 1; chosen.size() < wanted; ++k) {
      const double turn = static_cast<double>(k) * (std::numbers::phi - 1);
      chosen.insert(static_cast<size_t>((turn - std::floor(turn)) * static_cast<double>(all.size())));
    }
    for (const std::string& pattern : options_.measured_modules) {
      bool any = false;
      for (size_t i = 0; i < all.size(); ++i)
        if (matches(pattern, module_of(info(all[i])))) chosen.insert(i), any = true;
      if (!any) throw InputError(fmt::format("sensitivity: no linear of {} matches \"{}\"", model_->info.name, pattern));
    }
    for (size_t i : chosen) chosen_.push_back(all[i]);
  }

  std::vector<std::string> measured_candidates(const LinearInfo& linear) const {
    std::vector<std::string> result;
    for (size_t c = 0; c < specs_.size(); ++c) {
      const std::string& text = options_.candidates[c];
      const bool wanted = options_.measured_candidates.empty() || std::find(options_.measured_candidates.begin(), options_.measured_candidates.end(), text) != options_.measured_candidates.end();
      if (wanted && problem_of(linear, specs_[c]).empty()) result.push_back(text);
    }
    return result;
  }

  nlohmann::json measured_so_far(const LinearInfo& linear) const {
    const Path path = measured_path(linear);
    if (!std::filesystem::exists(path)) return nlohmann::json::object();
    nlohmann::json found = nlohmann::json::parse(read_text(path), nullptr, false);
    return found.is_object() ? found : nlohmann::json::object();
  }

  std::vector<size_t> missing_measurements() const {
    std::vector<size_t> missing;
    for (size_t i = 0; i < chosen_.size(); ++i) {
      const auto found = measured_so_far(info(chosen_[i]));
      for (const std::string& candidate : measured_candidates(info(chosen_[i])))
        if (!found.contains(candidate)) {
          missing.push_back(i);
          break;
        }
    }
    return missing;
  }

  std::unique_ptr<HiddenStates> states() const {
    return std::make_unique<HiddenStates>(tokens_, model_->architecture.carried_width(), options_.dtype, options_.resident_bytes, folder_, kBatchTokens);
  }

  static void save(const HiddenStates& states, const Path& path) {
    std::vector<std::pair<std::string, at::Tensor>> all;
    for (size_t b = 0; b < states.batches(); ++b) all.emplace_back(fmt::format("{}", b), states[b]);
    write_checked_safetensors(path, all);
  }

  static bool load(HiddenStates& states, const Path& path) {
    if (!std::filesystem::exists(path) || !damage_of(path).empty()) return false;
    const auto stored = open_checked_safetensors(path).tensors;
    for (size_t b = 0; b < states.batches(); ++b) states[b].copy_(stored->read(fmt::format("{}", b)));
    return true;
  }

  // Hidden states in front of every block and behind the last, each in its file.
  void walk_forward() {
    auto hidden = states();
    int first = blocks_;
    while (first > 0 && !load(*hidden, states_path(first))) --first;
    if (first == 0)
      for (size_t b = 0; b < hidden->batches(); ++b) {
        control_.checkpoint();
        (*hidden)[b].copy_(decoder_.embed(hidden->ids(b).to(options_.device)));
      }
    if (first == 0) save(*hidden, states_path(0));
    int held = first;  // the block that they enter
    for (int i = 0; i < blocks_; ++i) {
      const bool describes = !with_gradients() && !std::filesystem::exists(block_path(i));
      if (i < first && !describes) {
        advance(i, "forward");
        continue;
      }
      if (held != i && !load(*hidden, states_path(i))) throw InputError(fmt::format("{}: {}; delete the folder to begin anew", states_path(i).string(), damage_of(states_path(i))));
      const Block block = decoder_.load_block(i);
      Collector collector(wanted_, kRows, hidden->tokens());
      ForwardContext context;
      context.at_value = describes ? collector.tap(control_, {}) : [this](const GraphValue&, const at::Tensor& x) {
        control_.checkpoint();
        return x;
      };
      for (size_t b = 0; b < hidden->batches(); ++b) (*hidden)[b].copy_(decoder_.forward(block, (*hidden)[b].to(options_.device), context));
      held = i + 1;
      if (held > first) save(*hidden, states_path(held));
      if (describes) describe(i, collector.take(), {});
      release_freed_memory();
      advance(i, "forward");
      control_.milestone();
    }
  }

  void walk_backward() {
    auto inputs = states(), gradient = states();
    std::optional<int> resumed;  // the block whose output the gradient on disk is of
    for (int i = 0; i < blocks_ && !resumed; ++i)
      if (std::filesystem::exists(block_path(i)) && load(*gradient, gradient_path(i))) resumed = i - 1;
    const int next = resumed ? *resumed : begin_gradient(*inputs, *gradient);
    for (int i = blocks_ - 1; i > next; --i) advance(i, "backward", 3);
    for (int i = next; i >= 0; --i) {
      if (!load(*inputs, states_path(i))) throw InputError(fmt::format("{}: {}; delete the folder to begin anew", states_path(i).string(), damage_of(states_path(i))));
      backward(i, *inputs, *gradient);
      advance(i, "backward", 3);
      control_.milestone();
    }
  }

  int begin_gradient(HiddenStates& last, HiddenStates& gradient) {
    if (!load(last, states_path(blocks_))) throw InputError(fmt::format("{}: {}; delete the folder to begin anew", states_path(blocks_).string(), damage_of(states_path(blocks_))));
    OutputGradient output(model_, model_->source, options_.dtype, options_.device);
    for (size_t b = 0; b < last.batches(); ++b) {
      control_.checkpoint();
      const at::Tensor hidden = last[b].to(options_.device);
      gradient[b].copy_(options_.loss == SensitivityLoss::kl ? output.divergence_probe(hidden, options_.seed + b) : output.cross_entropy(hidden, last.ids(b)));
    }
    release_freed_memory();
    return blocks_ - 1;
  }

  // Predictions that the loss is a sum over.
  double predictions() const {
    double count = 0;
    for (const auto& sample : tokens_.samples) count += static_cast<double>(sample.size()) - (options_.loss == SensitivityLoss::cross_entropy ? 1 : 0);
    return count;
  }

  // The block once more, with gradients: statistics of its linears, then the gradient by its input in place of that by its output.
  void backward(int index, const HiddenStates& inputs, HiddenStates& gradient) {
    const Block block = decoder_.load_block(index);
    std::map<ValueId, LinearValue> made;
    for (size_t i = 0; i < block.linears.size(); ++i) {
      const Operation& step = decoder_.graph(index).linear(static_cast<int>(i));
      const auto& op = std::get<LinearOp>(step.kind);
      for (size_t o = 0; o < step.outputs.size(); ++o) made[step.outputs[o]] = {i, op.outputs[o]};
    }
    Collector collector(wanted_, kRows, inputs.tokens());
    const ValueTap collect = collector.tap(control_, {});
    std::vector<OutputGradients> found(block.linears.size());
    for (size_t b = 0; b < inputs.batches(); ++b) {
      std::map<ValueId, at::Tensor> read, added;  // what linears read; zeros that were added to what they made, for their gradients
      ForwardContext context;
      context.at_value = [&](const GraphValue& value, const at::Tensor& x) {
        if (value.tapped) collect(value, read[value.id] = x.detach().reshape({x.size(0), -1}));
        if (!made.contains(value.id)) return x;
        return x + (added[value.id] = at::zeros_like(x).requires_grad_(true));
      };
      at::Tensor by_input;
      {
        at::AutoGradMode gradients(true);
        const at::Tensor leaf = inputs[b].to(options_.device, decoder_.weight_dtype(), false, true).requires_grad_(true);
        decoder_.forward_learning(block, leaf, context).backward(gradient[b].to(options_.device, decoder_.weight_dtype()));
        by_input = leaf.grad();
      }
      std::vector<at::Tensor> of_tokens(block.linears.size());  // Σ_o (∂L/∂y_o)² [tokens]
      for (auto& [id, zeros] : added) {
        const LinearValue& value = made.at(id);
        if (!zeros.grad().defined()) continue;
        const at::Tensor squares = zeros.grad().reshape({zeros.size(0), -1}).to(at::kFloat).square();
        OutputGradients& sums = found[value.linear];
        if (!sums.squares.defined()) sums.squares = at::zeros({block.linears[value.linear].info.out_features}, at::TensorOptions().dtype(at::kDouble).device(squares.device()));
        const at::Tensor by_output = squares.sum(0, false, at::kDouble);
        if (value.rows.groups == 1) {
          sums.squares.narrow(0, value.rows.first, value.rows.count) += by_output;
        } else {
          sums.squares.view({value.rows.groups, value.rows.stride}).narrow(1, value.rows.first, value.rows.count) += by_output.view({value.rows.groups, value.rows.count});
        }
        at::Tensor& tokens = of_tokens[value.linear];
        tokens = tokens.defined() ? tokens + squares.sum(1) : squares.sum(1);
      }
      for (size_t i = 0; i < block.linears.size(); ++i) {
        if (!of_tokens[i].defined()) continue;
        control_.checkpoint();
        const at::Tensor x = read.at(block.linears[i].info.input).to(at::kFloat);
        if (!found[i].gram.defined()) found[i].gram = at::zeros({x.size(1), x.size(1)}, x.options());
        add_upper_gram(found[i].gram, x * of_tokens[i].sqrt().unsqueeze(1));
      }
      gradient[b].copy_(by_input);
    }
    for (OutputGradients& sums : found)
      if (sums.gram.defined()) sums.gram = complete_gram(sums.gram);
    describe(index, collector.take(), found);
    save(gradient, gradient_path(index));
    std::error_code ignored;
    std::filesystem::remove(gradient_path(index + 1), ignored);
    release_freed_memory();
  }

  // What rounding does to linears of a block under a candidate, in the coordinates of the stored weights [out, in] float32; nothing
  // where it does not fit.
  std::vector<std::optional<at::Tensor>> rounding_errors(int index, const QuantSpec& spec, const BlockStatistics& statistics, std::optional<size_t> only = {}) {
    Block block = decoder_.load_block(index);
    std::vector<LinearWork> linears;
    for (size_t i = 0; i < block.linears.size(); ++i) {
      LinearWork work;
      work.info = block.linears[i].info;
      work.module = module_of(work.info);
      if (problem_of(work.info, spec).empty()) work.spec = spec;
      // By itself a linear needs no others, unless a scaling is shared with them.
      if (only && *only != i && !scales()) work.spec = {};
      work.original = model_->source->read(work.info.tensor).to(options_.device, at::kFloat);
      require_finite(work.original, *model_, work.info.tensor);
      work.reference = work.weight = work.original;
      linears.push_back(std::move(work));
    }
    BlockWork work{block, std::move(linears), {}, decoder_, options_.seed, control_, {}};
    for (const auto& [value, s] : statistics) {
      ValueStatistics copy = s;  // scalings change them
      if (scales())
        for (at::Tensor ValueStatistics::*t : {&ValueStatistics::gram, &ValueStatistics::abs_max, &ValueStatistics::mean_abs, &ValueStatistics::sum_squares, &ValueStatistics::rows})
          if ((copy.*t).defined()) copy.*t = (copy.*t).clone();
      work.statistics[value] = std::move(copy);
    }
    for (const StageSpec& stage : stages_) make_method(stage)->apply(work);
    std::vector<std::optional<at::Tensor>> errors;
    for (const LinearWork& linear : work.linears) {
      errors.emplace_back();
      if (!linear.quantized) continue;
      at::Tensor error = linear.quantized->dequantize() - linear.reference;
      if (linear.output_scale.defined()) error.mul_(linear.output_scale.to(at::kFloat).unsqueeze(1));
      if (linear.input_scale.defined()) error.div_(linear.input_scale.to(at::kFloat).unsqueeze(0));
      errors.back() = error;
    }
    return errors;
  }

  bool scales() const {
    for (const StageSpec& stage : stages_)
      if (find_method(stage.method)->contract.leaves.has(Trace::scaled)) return true;
    return false;
  }

  // Rows of d·G·dᵀ [out] float64.
  static at::Tensor row_errors(const at::Tensor& d, const at::Tensor& gram) { return at::matmul(d, gram).mul_(d).sum(1, false, at::kDouble); }

  // A block's linears under all candidates, written down.
  void describe(int index, const BlockStatistics& statistics, const std::vector<OutputGradients>& gradients) {
    const auto& infos = model_->info.blocks[static_cast<size_t>(index)].linears;
    const auto& specs = model_->architecture.layers[static_cast<size_t>(index)].linears;
    const double count = predictions();
    std::vector<LinearSensitivity> linears;
    std::vector<double> energy;
    for (size_t i = 0; i < infos.size(); ++i) {
      const LinearInfo& info = infos[i];
      LinearSensitivity l{index, info.name, module_of(info), info.input, specs[i].expert >= 0, info.out_features, info.in_features, 0, {}};
      const auto it = statistics.find(info.input);
      if (it != statistics.end()) l.tokens = it->second.tokens;
      energy.push_back(l.tokens > 0 ? row_errors(model_->source->read(info.tensor).to(options_.device, at::kFloat), it->second.gram).sum().item<double>() : 0);
      linears.push_back(std::move(l));
    }
    for (size_t c = 0; c < specs_.size(); ++c) {
      control_.checkpoint();
      const auto errors = rounding_errors(index, specs_[c], statistics);
      for (size_t i = 0; i < infos.size(); ++i) {
        if (!errors[i]) continue;
        LinearSensitivity& l = linears[i];
        CandidateSensitivity entry;
        entry.candidate = options_.candidates[c];
        entry.bits = static_cast<int64_t>(std::llround(bits_per_weight(specs_[c], l.out_features, l.in_features) * static_cast<double>(l.out_features) * static_cast<double>(l.in_features)));
        if (with_gradients()) entry.fisher = entry.guided = 0;
        if (l.tokens > 0) {
          const at::Tensor rows = row_errors(*errors[i], statistics.at(infos[i].input).gram);
          const double error = rows.sum().item<double>();
          entry.output_error = error / static_cast<double>(l.tokens);
          entry.relative_error = energy[i] > 0 ? error / energy[i] : 0;
          if (with_gradients() && gradients[i].gram.defined()) {
            const at::Tensor& squares = gradients[i].squares;
            entry.fisher = (squares * rows).sum().item<double>() / (2 * count * static_cast<double>(l.tokens));
            if (const double all = squares.sum().item<double>(); all > 0) entry.guided = (squares * row_errors(*errors[i], gradients[i].gram)).sum().item<double>() / (2 * count * all);
          }
          for (double value : {entry.output_error, with_gradients() ? entry.fisher : 0.0, with_gradients() ? entry.guided : 0.0})
            if (!std::isfinite(value)) throw InputError(fmt::format("sensitivity: {} under {} is not a number: activations or gradients overflow", l.module, entry.candidate));
        }
        l.candidates.push_back(std::move(entry));
      }
    }
    std::string lines;
    for (const LinearSensitivity& l : linears) lines += to_json(l) + "\n";
    write_atomically(block_path(index), lines);
  }

  // KL divergence of the model with this linear alone rounded, by each candidate: the blocks behind are computed for all of them together.
  void measure(size_t which) {
    const LinearPlace place = chosen_[which];
    const LinearInfo& linear = info(place);
    nlohmann::json found = measured_so_far(linear);
    std::vector<std::string> wanted;
    for (const std::string& candidate : measured_candidates(linear))
      if (!found.contains(candidate)) wanted.push_back(candidate);

    auto before = states();
    if (!load(*before, states_path(place.block))) throw InputError(fmt::format("{}: damaged; delete the folder to begin anew", states_path(place.block).string()));
    Block block = decoder_.load_block(place.block);
    Collector collector(wanted_, kRows, before->tokens());
    ForwardContext context;
    context.at_value = collector.tap(control_, {});
    context.taps_only = true;
    for (size_t b = 0; b < before->batches(); ++b) decoder_.forward(block, (*before)[b].to(options_.device), context);
    const BlockStatistics statistics = collector.take();

    std::vector<at::Tensor> windows;  // [1, seq, width]
    for (size_t b = 0; b < before->batches(); ++b)
      for (const at::Tensor& window : (*before)[b].split(1))
        if (static_cast<int64_t>(windows.size()) < options_.measured_windows) windows.push_back(window.to(options_.device));
    std::vector<std::vector<at::Tensor>> variants;
    const at::Tensor original = block.linears[place.linear].weight;
    for (const std::string& candidate : wanted) {
      const auto errors = rounding_errors(place.block, *parse_candidate(candidate), statistics, place.linear);
      const at::Tensor wide = model_->source->read(linear.tensor).to(options_.device, at::kFloat) + *errors[place.linear];
      block.linears[place.linear].weight = wide.to(options_.dtype).to(original.scalar_type());
      variants.emplace_back();
      for (const at::Tensor& window : windows) {
        control_.checkpoint();
        variants.back().push_back(decoder_.forward(block, window));
      }
    }
    for (int i = place.block + 1; i < blocks_; ++i) {
      block = decoder_.load_block(i);
      for (auto& variant : variants)
        for (at::Tensor& hidden : variant) {
          control_.checkpoint();
          hidden = decoder_.forward(block, hidden);
        }
    }
    if (!load(*before, states_path(blocks_))) throw InputError(fmt::format("{}: damaged; delete the folder to begin anew", states_path(blocks_).string()));
    std::vector<std::vector<double>> values(variants.size());
    size_t w = 0;
    for (size_t b = 0; b < before->batches(); ++b)
      for (const at::Tensor& last : (*before)[b].split(1)) {
        if (w == windows.size()) break;
        std::vector<double> sums(variants.size(), 0);
        for (int64_t first = 0; first < last.size(1); first += 128) {
          control_.checkpoint();
          auto log_probabilities = [&](const at::Tensor& hidden) { return at::log_softmax(decoder_.logits(hidden.narrow(1, first, std::min<int64_t>(128, last.size(1) - first))), -1); };
          const at::Tensor expected = log_probabilities(last.to(options_.device)), p = expected.exp();
          for (size_t v = 0; v < variants.size(); ++v) sums[v] += (expected - log_probabilities(variants[v][w])).mul_(p).sum(at::kDouble).item<double>();
        }
        for (size_t v = 0; v < variants.size(); ++v) values[v].push_back(sums[v] / static_cast<double>(last.size(1)));
        ++w;
      }
    for (size_t v = 0; v < variants.size(); ++v) {
      const double n = static_cast<double>(values[v].size());
      double mean = 0, squares = 0;
      for (double value : values[v]) mean += value / n;
      for (double value : values[v]) squares += (value - mean) * (value - mean);
      found[wanted[v]] = {mean, n > 1 ? std::sqrt(squares / (n - 1) / n) : 0};
    }
    write_atomically(measured_path(linear), found.dump());
    advance(place.block, "measure", static_cast<double>(blocks_));
    control_.milestone();
  }

  Sensitivity gathered() const {
    Sensitivity s;
    const ModelInfo& info = model_->info;
    s.model_path = model_->path.string();
    s.model_name = info.name;
    s.model_hash = model_hash(model_->path);
    s.calibration_hash = tokens_.hash;
    s.samples = static_cast<int64_t>(tokens_.samples.size());
    s.seq_len = static_cast<int64_t>(tokens_.samples.front().size());
    s.tokens = tokens_.tokens();
    s.dtype = dtype_text(options_.dtype);
    for (const StageSpec& stage : stages_) s.rounding += (s.rounding.empty() ? "" : " → ") + stage.method;
    s.loss = with_gradients() ? to_text(options_.loss) : "";
    s.seed = options_.seed;
    s.candidates = options_.candidates;
    s.experts = info.experts;
    s.experts_per_token = info.experts_per_token;
    bool tied = false;
    int64_t embedding = 0;
    for (const auto* list : {&info.before, &info.after})
      for (const OtherTensor& other : *list) {
        s.other_bytes += static_cast<int64_t>(other.bytes);
        tied = tied || other.tied;
        if (other.kind == "embedding" || other.kind == "positions") embedding += static_cast<int64_t>(other.bytes);
      }
    for (const BlockInfo& block : info.blocks)
      for (const OtherTensor& other : block.others) s.other_bytes += static_cast<int64_t>(other.bytes);
    s.other_read_bytes = s.other_bytes - (tied ? 0 : embedding);
    for (int i = 0; i < blocks_; ++i) {
      const std::string text = read_text(block_path(i));
      for (size_t first = 0; first < text.size();) {
        const size_t end = text.find('\n', first);
        s.linears.push_back(linear_sensitivity_from_json(text.substr(first, end - first), block_path(i).string()));
        first = end == std::string::npos ? text.size() : end + 1;
      }
    }
    for (const LinearPlace& place : chosen_) {
      const LinearInfo& linear = this->info(place);
      const auto found = measured_so_far(linear);
      for (LinearSensitivity& l : s.linears)
        if (l.module == module_of(linear))
          for (CandidateSensitivity& c : l.candidates)
            if (const auto it = found.find(c.candidate); it != found.end()) {
              c.measured = it->at(0).get<double>();
              c.measured_error = it->at(1).get<double>();
              s.measured_windows = std::min(options_.measured_windows, s.samples);
            }
    }
    s.correlations = rank_correlations(s);
    return s;
  }

  void remove_states() const {
    std::error_code ignored;
    for (int i = 0; i <= blocks_; ++i)
      for (const Path& path : {states_path(i), gradient_path(i)}) std::filesystem::remove(path, ignored);
  }

  void advance(int block, const char* stage, double steps = 1) {
    done_ += steps;
    Progress p;
    p.phase = "calibrate";
    p.stage = stage;
    p.block = block;
    p.blocks = blocks_;
    p.fraction = steps_ > 0 ? std::min(1.0, done_ / steps_) : 0;
    p.elapsed_s = std::chrono::duration<double>(Clock::now() - start_).count();
    if (done_ > 0) p.eta_s = p.elapsed_s * std::max(0.0, steps_ - done_) / done_;
    p.rss_bytes = resident_bytes();
    p.peak_rss_bytes = peak_resident_bytes();
    control_.report(p);
  }

  std::shared_ptr<const Model> model_;
  const TokenSet& tokens_;
  const SensitivityOptions& options_;
  const Control& control_;
  std::vector<QuantSpec> specs_;
  Decoder decoder_;
  int blocks_;
  std::vector<StageSpec> stages_;
  Statistics wanted_ = 0;
  Path folder_;
  std::vector<LinearPlace> chosen_;
  double steps_ = 0, done_ = 0;
  Clock::time_point start_ = Clock::now();
};

}  // namespace

Sensitivity measure_sensitivity(const std::shared_ptr<const Model>& model, const TokenSet& tokens, const SensitivityOptions& options, const Control& control) {
  const at::NoGradGuard no_grad;
  return Survey(model, tokens, options, control).run();
}

}  // namespace qb
