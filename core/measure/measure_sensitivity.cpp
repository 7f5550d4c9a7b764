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
#include "core/engine/gradient_walk.h"
#include "core/engine/gram.h"
#include "core/engine/module_name.h"
#include "core/engine/statistics_cache.h"
#include "core/measure/window_pass.h"
#include "core/method/contracts.h"
#include "core/method/method.h"

namespace qb {

namespace {

using Clock = std::chrono::steady_clock;
using Path = std::filesystem::path;

constexpr int64_t kRows = 256;

// What the gradients of one linear's output tell.
struct OutputGradients {
  at::Tensor squares;  // [out] Σ over tokens of (∂L/∂y_o)², float64
  at::Tensor gram;     // Σ over tokens of (Σ_o (∂L/∂y_o)²) · xxᵀ [in, in] float32
};

class Survey {
 public:
  Survey(const std::shared_ptr<const Model>& model, const TokenSet& tokens, const SensitivityOptions& options, const Control& control)
      : model_(model), tokens_(tokens), options_(options), control_(control), specs_(parse_candidates(options.candidates)),
        decoder_(model, model->source, options.dtype, options.device), blocks_(decoder_.blocks()), stages_(complete_pipeline(options.rounding)) {
    check();
    folder_ = options.folder / key();
    std::filesystem::create_directories(folder_);
    walk_.emplace(model, decoder_, tokens, options.loss, options.seed, options.resident_bytes, folder_, control);
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
    walk_->remove();
    result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    return result;
  }

 private:
  struct LinearPlace {
    int block;
    size_t linear;
  };

  bool with_gradients() const { return options_.loss != EndLoss::none; }

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

  void walk_forward() {
    std::optional<Collector> collector;
    walk_->forward(
        [&](int block) -> ValueTap {
          collector.reset();
          if (with_gradients() || std::filesystem::exists(block_path(block))) return {};
          collector.emplace(wanted_, kRows, tokens_.tokens());
          return collector->tap(control_, {});
        },
        [&](int block) {
          if (collector) describe(block, collector->take(), {});
          advance(block, "forward");
        });
  }

  // Statistics of each block's linears from the pass that gives their gradients.
  void walk_backward() {
    std::optional<Collector> collector;
    ValueTap collect;
    std::vector<OutputGradients> found;
    walk_->backward([this](int block) { return std::filesystem::exists(block_path(block)); },
                    [&](int index, size_t batch, BlockGradients& gradients) {
                      const auto& linears = model_->info.blocks[static_cast<size_t>(index)].linears;
                      if (batch == 0) {
                        collector.emplace(wanted_, kRows, tokens_.tokens());
                        collect = collector->tap(control_, {});
                        found.assign(linears.size(), {});
                      }
                      for (const auto& [id, x] : gradients.values) collect(decoder_.graph(index).value(id), x);
                      add(linears, gradients, found);
                    },
                    [&](int index) {
                      for (OutputGradients& sums : found)
                        if (sums.gram.defined()) sums.gram = complete_gram(sums.gram);
                      describe(index, collector->take(), found);
                      found.clear();
                      advance(index, "backward", 3);
                    });
  }

  void add(const std::vector<LinearInfo>& linears, const BlockGradients& gradients, std::vector<OutputGradients>& found) const {
    std::vector<at::Tensor> of_tokens(linears.size());  // Σ_o (∂L/∂y_o)² [tokens]
    for (const LinearGradient& gradient : gradients.linears) {
      const at::Tensor squares = gradient.values.to(at::kFloat).square();
      add_squares(found[gradient.linear].squares, gradient, squares, linears[gradient.linear].out_features);
      at::Tensor& tokens = of_tokens[gradient.linear];
      tokens = tokens.defined() ? tokens + squares.sum(1) : squares.sum(1);
    }
    for (size_t i = 0; i < linears.size(); ++i) {
      if (!of_tokens[i].defined()) continue;
      control_.checkpoint();
      const at::Tensor x = gradients.values.at(linears[i].input).to(at::kFloat);
      if (!found[i].gram.defined()) found[i].gram = at::zeros({x.size(1), x.size(1)}, x.options());
      add_upper_gram(found[i].gram, x * of_tokens[i].sqrt().unsqueeze(1));
    }
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
    const double count = walk_->predictions();
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

    auto before = walk_->states();
    walk_->load(*before, place.block);
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
    walk_->load(*before, blocks_);
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
  std::optional<GradientWalk> walk_;
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
