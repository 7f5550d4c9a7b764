#include "core/run/run.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/block_store.h"
#include "core/engine/cache_size.h"
#include "core/engine/compute_threads.h"
#include "core/engine/device.h"
#include "core/engine/engine.h"
#include "core/engine/patterns.h"
#include "core/engine/run_state.h"
#include "core/engine/statistics_cache.h"
#include "core/engine/vocabulary.h"
#include "core/measure/block_measure.h"
#include "core/measure/report_json.h"
#include "core/measure/task.h"
#include "core/method/contracts.h"
#include "core/method/reconstruction/e2e_tuning.h"
#include "core/model/model_files.h"
#include "core/base/cores.h"
#include "core/base/process.h"
#include "core/run/conductor.h"
#include "core/run/cost_meter.h"
#include "core/run/evaluate.h"
#include "core/run/host_jobs.h"
#include "core/run/run_import.h"
#include "core/run/run_inputs.h"
#include "core/recipe/target.h"
#include "core/run/run_target.h"
#include "core/store/evaluation_cache.h"
#include "core/store/run_events.h"
#include "core/store/run_lock.h"
#include "core/store/run_request.h"

namespace qb {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", utc);
}

// Log of one run: its file, and whoever listens.
class RunLog {
 public:
  RunLog(const fs::path& file, const RunObserver& observer, RunEventWriter& events) : observer_(observer), events_(events) {
    try {
      sink_ = std::make_shared<spdlog::logger>("run", std::make_shared<spdlog::sinks::basic_file_sink_mt>(file.string()));
      sink_->set_pattern("%Y-%m-%dT%H:%M:%SZ %v", spdlog::pattern_time_type::utc);
      sink_->flush_on(spdlog::level::info);
    } catch (const spdlog::spdlog_ex& e) {
      throw ResourceError(fmt::format("{}: cannot write the log: {}", file.string(), e.what()));
    }
  }
  void operator()(const std::string& line) {
    sink_->info(line);
    RunEvent event;
    event.text = line;
    events_.write(event);
    if (observer_.on_log) observer_.on_log(line);
  }

 private:
  const RunObserver& observer_;
  RunEventWriter& events_;
  std::shared_ptr<spdlog::logger> sink_;
};

// Seconds of each linear of the block at work, from the engine's progress: a linear has the clock until the next report.
class LinearClock {
 public:
  void see(const Progress& p) {
    const auto now = Clock::now();
    if (!current_.empty()) seconds_[current_] += std::chrono::duration<double>(now - since_).count();
    current_ = p.linear;
    since_ = now;
  }
  double seconds(const std::string& linear) const {
    const auto it = seconds_.find(linear);
    return it == seconds_.end() ? 0 : it->second;
  }
  void clear() { seconds_.clear(); }

 private:
  std::map<std::string, double> seconds_;
  std::string current_;
  Clock::time_point since_;
};

// Shares of the whole job by what phases cost: tokens that pass through the model, weighted by the passes.
class Shares {
 public:
  // passes_tokens: tokens that every block sees during quantization. float_cached: per evaluation.
  Shares(const Recipe& recipe, double passes_tokens, const std::vector<RunText>& texts, bool evaluates_float, const std::vector<bool>& float_cached) {
    quantize_ = kRoundingTokens + passes_tokens;
    for (size_t i = 0; i < recipe.evaluation.size(); ++i) {
      evaluate_.push_back(texts[i].tokens(recipe.evaluation[i]) * (evaluates_float && !float_cached[i] ? 2 : 1));
    }
    total_ = quantize_;
    for (double e : evaluate_) total_ += e;
  }
  double quantize() const { return quantize_ / total_; }
  double evaluation_start(size_t i) const {
    double at = quantize_;
    for (size_t k = 0; k < i; ++k) at += evaluate_[k];
    return at / total_;
  }
  double evaluation(size_t i) const { return evaluate_[i] / total_; }

 private:
  // Rounding and measuring a block costs about as much as passing this many tokens through it.
  static constexpr double kRoundingTokens = 4096;
  double quantize_ = 0, total_ = 0;
  std::vector<double> evaluate_;
};

// Calls when the scope is left, however.
template <class F>
auto at_end(F action) {
  struct Guard {
    F action;
    explicit Guard(F f) : action(std::move(f)) {}
    ~Guard() { action(); }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
  };
  return Guard(std::move(action));
}

class RecipeRun {
 public:
  RecipeRun(Workspace& workspace, const std::string& id, const RunOptions& options, const Control& control, const RunObserver& observer)
      : workspace_(workspace), options_(options), outer_(control), observer_(observer), folder_(workspace.run_folder(id)), lock_(folder_), report_(workspace.load(id)),
        events_(folder_), conductor_(folder_, lock_, control, events_), control_(conductor_.control()), log_(folder_ / "log.txt", observer, events_),
        costs_(options.device) {
    if (!readable_request(folder_)) save_request(folder_, {Wish::run, options.device});  // through it any process may conduct the run
    RunEvent begin;
    begin.kind = RunEvent::Kind::begin;
    begin.owner = {this_process().number, host_name()};
    events_.write(begin);
    control_.on_progress = [this](const Progress& p) {
      events_.progress(p);
      outer_.report(p);
    };
  }

  RunReport carry_out() {
    if (options_.threads > 0) set_compute_threads(std::min(options_.threads, usable_cores()));
    use_compute_threads();
    try {
      begin();
      quantize();
      evaluate();
      report_.status = RunStatus::finished;
      report_.finished = now_utc();
      report_.error.clear();
      report_.costs = costs_.costs();
      save();
      log_(fmt::format("finished: {:.1f} s quantizing, {:.1f} s evaluating, peak memory {} MB", report_.quantize_seconds, report_.evaluate_seconds,
                       report_.peak_rss_bytes >> 20));
      end({});
      return report_;
    } catch (const Cancelled&) {
      const bool soon = conductor_.only_soon();
      report_.status = soon ? RunStatus::interrupted : RunStatus::cancelled;
      report_.error = soon ? "it was asked to make room" : "";
      report_.costs = costs_.costs();
      save();
      log_(soon ? "stopped after a block, as it was asked to; the run can be resumed" : "cancelled; finished blocks are kept and the run can be resumed");
      end(report_.error);
      throw;
    } catch (const Error& e) {
      fail(e);
      throw;
    } catch (const std::bad_alloc&) {
      throw fail(ResourceError(fmt::format("{}: out of memory", folder_.string())));
    } catch (const c10::Error& e) {
      const std::string what = e.what_without_backtrace();
      const bool memory = what.find("out of memory") != std::string::npos || what.find("can't allocate memory") != std::string::npos;
      if (memory) throw fail(ResourceError(fmt::format("{}: out of memory: {}", folder_.string(), what)));
      throw fail(InternalError(fmt::format("{}: {}", folder_.string(), what)));
    } catch (const fs::filesystem_error& e) {
      throw fail(ResourceError(fmt::format("{}: {}", e.path1().string(), e.code().message())));
    } catch (const std::exception& e) {
      throw fail(InternalError(fmt::format("{}: {}", folder_.string(), e.what())));
    }
  }

 private:
  // Writes the failure down and hands it back.
  template <class E>
  E fail(E error) {
    report_.status = RunStatus::failed;
    report_.error = error.what();
    log_(fmt::format("failed: {}", error.what()));
    try {
      report_.costs = costs_.costs();
      save();
    } catch (const Error&) {
      // The first error says more than that it could not be written down.
    }
    end(error.what(), error.kind());
    return error;
  }

  // Tells followers, and takes the run out of the queue unless it only made room.
  void end(const std::string& text, ErrorKind kind = ErrorKind::internal) {
    if (report_.status == RunStatus::interrupted) {
      try {
        wish(folder_, Wish::run);
      } catch (const Error&) {
        // It can be resumed by hand.
      }
    } else {
      drop_request(folder_);
    }
    RunEvent event;
    event.kind = RunEvent::Kind::end;
    event.status = report_.status;
    event.text = text;
    event.error = kind;
    events_.write(event);
  }

  void begin() {
    recipe_ = workspace_.recipe(report_.id);
    report_.status = RunStatus::running;
    report_.started = now_utc();
    report_.error.clear();
    save();
    host_job_.emplace(options_.device, control_, [this](const std::string& reason) { wait(reason); });
    report("load", "model", 0);
    log_(fmt::format("recipe {}: {}, {}", report_.name, report_.scheme, report_.pipeline));
    const auto start = Clock::now();
    inputs_ = load_inputs(recipe_, control_);
    report_.load_seconds = seconds_since(start);
    if (inputs_.checkpoint) report_.scheme = describe(scheme_of(*inputs_.checkpoint));
    const ModelInfo& info = inputs_.model->info;
    report_.model_name = info.name;
    report_.model_hash = inputs_.model_hash;
    report_.calibration_hash = inputs_.calibration.hash;
    report_.calibration_tokens = inputs_.calibration.tokens();
    report_.environment = {QBENCH_VERSION, torch_version(), options_.device, cpu_name(), host_name(), at::get_num_threads()};
    save();
    log_(fmt::format("model {} ({} blocks, {} parameters), {} calibration tokens{}", info.name, info.blocks.size(), info.parameters, report_.calibration_tokens,
                     inputs_.calibration.bos == Bos::every_window ? ", BOS in every sample" : inputs_.calibration.bos == Bos::none ? ", no BOS" : ""));
    for (const std::string& note : notes_of(info)) log_(note);
    for (const std::string& note : inputs_.notes) log_(note);
    require_target(recipe_, *inputs_.model);
    for (const std::string& note : target_notes(recipe_, *inputs_.model)) log_(note);
    for (const std::string& note : ignore_notes(recipe_.scheme, *inputs_.model)) log_(note);
    if (recipe_.scheme.kv_cache) log_(cache_size_text(inputs_.model->architecture, *recipe_.scheme.kv_cache));
    recipe_ = for_target(std::move(recipe_), info.dtype);
    report_.recipe_hash = recipe_hash(recipe_);
    job_ = make_job(recipe_, inputs_, options_, folder_);
    if (!job_.given) recipe_.scheme = job_.scheme;  // with a mix's types
    if (!job_.given) job_.model = changed_model(job_, control_);
    if (const fs::path cache = statistics_cache_path(workspace_.folder()); options_.statistics_cache_bytes != 0) {
      job_.statistics_folder = cache;
      job_.statistics_bytes = options_.statistics_cache_bytes ? *options_.statistics_cache_bytes : default_statistics_limit(cache);
    }
    qb::preflight(job_);
    const EngineNeeds needs = estimate(job_);
    const bool on_host = job_.device.is_cpu();
    host_job_->reserve(needs.states_bytes + (on_host ? needs.device_bytes : 0), on_host ? 0 : needs.device_bytes, control_, [this](const std::string& reason) { wait(reason); });
    std::vector<bool> cached;
    for (size_t i = 0; i < recipe_.evaluation.size(); ++i) cached.push_back(workspace_.cached_evaluation(float_key(i)).has_value());
    // The statistics pass and the quantized pass over all tokens (over a sample where nothing learns), the float pass over the sample.
    const auto all = static_cast<double>(report_.calibration_tokens), sample = std::min(all, static_cast<double>(job_.measured_tokens));
    shares_ = std::make_unique<Shares>(recipe_, 2 * (learns_from_data() ? all : sample) + sample + tuning_tokens(all), inputs_.texts, evaluates_float(), cached);
  }

  void wait(const std::string& reason) {
    RunEvent event;
    event.kind = RunEvent::Kind::waiting;
    event.text = reason;
    events_.write(event);
    if (observer_.on_wait) observer_.on_wait(reason);
  }

  double tuning_tokens(double all) const {
    const StageSpec* tuning = finishing_stage(recipe_.pipeline);
    return tuning ? all * tuning_passes(tuning_options(*tuning), static_cast<int64_t>(job_.calibration.samples.size())) : 0;
  }

  // A checkpoint without its original has none.
  bool evaluates_float() const { return recipe_.evaluate_float && (!job_.given || job_.compared); }

  bool learns_from_data() const {
    if (job_.given) return true;
    for (const StageSpec& stage : recipe_.pipeline)
      if (find_method(stage.method)->needs_calibration) return true;
    return false;
  }

  void quantize() {
    const auto start = Clock::now();
    const int kept = load_block_reports(
        finished_blocks(job_, [&](int block, const std::string& damage) { log_(fmt::format("the blocks from {} on are made again: {}", block, damage)); }));
    // A first session starts its bill anew; a later one adds to what the kept blocks cost.
    const double before = kept > 0 ? report_.quantize_seconds : 0;
    if (kept == 0) report_.measure_seconds = 0;
    else costs_.add(report_.costs);
    if (kept > 0) log_(fmt::format("resuming after {} finished blocks", kept));
    load_vocabulary_reports();
    LinearClock clock;
    Control inner = control_;
    inner.on_progress = [&](Progress p) {
      clock.see(p);
      report_.quantize_seconds = before + seconds_since(start);
      if (!p.message.empty()) log_(std::exchange(p.message, {}));
      forward(p, 0, shares_->quantize());
    };
    run_engine(job_, inner, [&](const BlockView& view) {
      const auto measuring = Clock::now();
      costs_.at("measure");
      BlockReport block = measure_block(view, recipe_.scheme);
      for (LinearReport& linear : block.linears) linear.seconds = clock.seconds(linear.name);
      clock.clear();
      write_atomically(block_report_path(folder_, block.block), to_json(block));
      tell_block(block.block);
      report_.measure_seconds += seconds_since(measuring);
      report_.quantize_seconds = before + seconds_since(start);
      if (observer_.on_block) observer_.on_block(block);
      for (const LinearReport& linear : block.linears)
        if (!linear.note.empty()) log_(fmt::format("block {}, {}: {}", block.block, linear.name, linear.note));
      log_(fmt::format("block {} done in {:.2f} s{}", block.block, block.seconds,
                       std::isfinite(block.output_relative_error) ? fmt::format(", output relative error {:.4g}", block.output_relative_error) : std::string(", output errors not measured: no calibration text")));
      report_.blocks.push_back(std::move(block));
      // The block's own file is durable already; the whole report grows, so that writing it must stay a small part of the time.
      if (Clock::now() - saved_ > std::max<Clock::duration>(std::chrono::seconds(2), 20 * save_cost_)) save();
    }, [&](const VocabularyView& view) {
      const auto measuring = Clock::now();
      costs_.at("measure");
      BlockReport part{-1, {measure_vocabulary(view)}};
      LinearReport& matrix = part.linears.front();
      write_atomically(vocabulary_report_path(folder_, matrix.name), to_json(part));
      report_.measure_seconds += seconds_since(measuring);
      log_(fmt::format("{}: {}, {:.3f} bits a weight, in {:.2f} s{}", matrix.name, matrix.scheme, matrix.bits_per_weight, matrix.seconds, matrix.note.empty() ? "" : ": " + matrix.note));
      std::erase_if(report_.vocabulary, [&](const LinearReport& other) { return other.name == matrix.name; });
      report_.vocabulary.push_back(std::move(matrix));
    });
    report_.quantize_seconds = before + seconds_since(start);
    count_bits();
    save();
  }

  // Reports of blocks that an earlier session finished; how many. A block whose report is missing (killed between the two)
  // or damaged is made again, with the same bits.
  int load_block_reports(int kept) {
    report_.blocks.clear();
    for (int i = 0; i < kept; ++i) {
      const fs::path path = block_report_path(folder_, i);
      try {
        report_.blocks.push_back(block_report_from_json(read_text(path), path.string()));
      } catch (const InputError& e) {
        log_(fmt::format("block {} is made again: {}", i, e.what()));
        save_state(folder_, {job_.fingerprint, i});
        return i;
      }
      tell_block(i);
      if (observer_.on_block) observer_.on_block(report_.blocks.back());
    }
    return kept;
  }

  // Of embedding and head that an earlier session made; files without a report are made again, with the same bits.
  void load_vocabulary_reports() {
    report_.vocabulary.clear();
    for (const fs::path& file : vocabulary_paths(folder_)) try {
        const BlockFile made(file);
        for (const auto& [weight, linear] : made.linears()) {
          const fs::path path = vocabulary_report_path(folder_, linear.module.substr(linear.module.rfind('.') + 1));
          for (LinearReport& matrix : block_report_from_json(read_text(path), path.string()).linears) report_.vocabulary.push_back(std::move(matrix));
        }
      } catch (const InputError& e) {
        log_(fmt::format("{} is made again: {}", file.stem().string(), e.what()));
        fs::remove(file);
      }
  }

  // All tensors of a model, without those that `coded` has.
  static double stored_bytes(const TensorSource& source, const std::set<std::string>& coded) {
    double bytes = 0;
    for (const TensorInfo& info : source.tensors())
      if (!coded.contains(info.name)) bytes += static_cast<double>(info.bytes);
    return bytes;
  }

  void count_bits() {
    double bits = 0, weights = 0, float_bytes = 0, all_bits = 0, all_weights = 0, vocabulary_bits = 0;
    for (const LinearReport& matrix : report_.vocabulary) {
      const double n = static_cast<double>(matrix.out_features) * static_cast<double>(matrix.in_features);
      vocabulary_bits += matrix.bits_per_weight * n;
      weights += n;
    }
    bits = vocabulary_bits;
    for (const BlockReport& block : report_.blocks)
      for (const LinearReport& linear : block.linears) {
        const double n = static_cast<double>(linear.out_features) * static_cast<double>(linear.in_features);
        all_bits += linear.bits_per_weight * n;
        all_weights += n;
        if (linear.scheme == "float") continue;
        bits += linear.bits_per_weight * n;
        weights += n;
      }
    for (const BlockInfo& block : inputs_.model->info.blocks)
      for (const LinearInfo& linear : block.linears) float_bytes += static_cast<double>(linear.bytes);
    report_.statistics_cached_blocks = std::count_if(report_.blocks.begin(), report_.blocks.end(), [](const BlockReport& block) { return block.statistics_cached; });
    if (report_.statistics_cached_blocks > 0) log_(fmt::format("statistics of {} of {} blocks came from the cache", report_.statistics_cached_blocks, report_.blocks.size()));
    report_.bits_per_weight = weights > 0 ? bits / weights : all_weights > 0 ? all_bits / all_weights : 0;
    report_.quantized_bytes = static_cast<uint64_t>(all_bits / 8);
    // Without an original nobody knows what it takes.
    report_.float_bytes = job_.given && !job_.compared ? 0 : static_cast<uint64_t>(float_bytes);
    report_.model_float_bytes = job_.given && !job_.compared ? 0 : static_cast<uint64_t>(stored_bytes(*inputs_.model->source, {}));
    // Linears count as their reports say, what is outside of blocks as it is stored.
    std::set<std::string> counted;
    for (const BlockInfo& block : job_.model->info.blocks)
      for (const LinearInfo& linear : block.linears) counted.insert(linear.tensor);
    const QuantizedModel outside = open_blocks(job_.model, vocabulary_paths(folder_));
    for (const QuantizedLinear& matrix : outside.vocabulary) counted.insert(matrix.module + ".weight");
    const TensorSource& numbers = job_.given ? *job_.given->model->source : *job_.model->source;
    report_.model_bytes = static_cast<uint64_t>(stored_bytes(numbers, counted) + (all_bits + vocabulary_bits) / 8);
  }

  std::string float_key(size_t i) const {
    const EvaluationSpec& spec = recipe_.evaluation[i];
    std::string key = fmt::format("{} {} {} {} {} {}{}", inputs_.model_hash, inputs_.texts[i].hash, spec.seq_len, spec.windows, spec.dtype, options_.device,
                                  inputs_.texts[i].bos == Bos::tokenizer ? "" : " bos " + to_text(inputs_.texts[i].bos));
    if (spec.evaluator != "perplexity") key += " " + spec.evaluator;
    for (const auto& [name, value] : all_knobs(spec)) key += fmt::format(" {} {}", name, to_text(value));
    return key;
  }

  void evaluate() {
    const auto start = Clock::now();
    report_.evaluations.clear();
    for (size_t i = 0; i < recipe_.evaluation.size(); ++i) {
      const double first = shares_->evaluation_start(i), share = shares_->evaluation(i);
      double done = 0;
      if (evaluates_float()) {
        auto result = workspace_.cached_evaluation(float_key(i));
        if (!result) {
          done = 0.5;
          result = float_figures(i, first, share * done);
        }
        result->float_model = true;
        log_(fmt::format("{}: {} on {}", subject_text(*result), figure_text(*result), result->corpus));
        report_.evaluations.push_back(*result);
        tell_estimate(*result);
      }
      report_.evaluations.push_back(measure(i, false, first + share * done, share * (1 - done)));
      const EvaluationResult& result = report_.evaluations.back();
      log_(fmt::format("{}: {} on {}", subject_text(result), figure_text(result), conditions_text(result)));
      report_.evaluate_seconds = seconds_since(start);
      save();
    }
  }

  // Measured once for all runs of the workspace, on whatever machine; who comes meanwhile waits for it.
  EvaluationResult float_figures(size_t i, double first, double share) {
    const std::string key = float_key(i);
    const fs::path file = evaluation_lease(workspace_.folder(), key);
    for (bool told = false;; told = true) {
      const auto lease = Lease::take(file);
      if (auto kept = workspace_.cached_evaluation(key)) return *kept;
      if (lease) {
        conductor_.renew_too(lease.get());
        const auto over = at_end([this] { conductor_.renew_too(nullptr); });
        const EvaluationResult result = measure(i, true, first, share);
        workspace_.cache_evaluation(key, result);
        return result;
      }
      if (!told) wait(fmt::format("another run measures the float model on {}", inputs_.texts[i].name));
      control_.checkpoint();
      control_.milestone();
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
  }

  MeasuredModel quantized() {
    MeasuredModel measured{job_.model, quantized_source(job_.model, folder_)};
    measured.by_token = job_.given ? rounds_by_token(*job_.given) : rounds_by_token(recipe_.scheme);
    const auto take = [&](const auto& source) {
      measured.tap = activation_tap(source);
      measured.cache_tap = cache_tap(source);
    };
    if (job_.given)
      take(*job_.given);
    else if (recipe_.scheme.has_static_activations() || recipe_.scheme.has_static_cache())
      take(quantized_model(job_.model, folder_));
    else
      take(recipe_.scheme);
    return measured;
  }

  EvaluationResult measure(size_t i, bool of_float, double first, double share) {
    const auto told = [&](EvaluationResult result) {
      result.float_model = of_float;
      return result;
    };
    const OnEstimate tell = [&](const EvaluationResult& estimate) { tell_estimate(told(estimate)); };
    Control inner = control_;
    inner.on_progress = [&](Progress p) {
      p.phase = "evaluate";
      p.stage = of_float ? inputs_.texts[i].name + " (float)" : inputs_.texts[i].name;
      if (!p.message.empty()) log_(std::exchange(p.message, {}));
      control_.milestone();  // little of an evaluation is kept: the sooner it ends, the better
      forward(p, first, share);
    };
    const ReferenceModel reference{inputs_.model, inputs_.model_hash, options_.statistics_cache_bytes == 0 ? fs::path() : reference_states_path(workspace_.folder())};
    const at::Device device(options_.device);
    if (of_float) return told(evaluate_float(recipe_.evaluation[i], inputs_.texts[i], reference, device, inner, tell));
    return told(qb::evaluate(recipe_.evaluation[i], inputs_.texts[i], quantized(), reference, device, inner, tell));
  }

  void tell_block(int block) {
    RunEvent event;
    event.kind = RunEvent::Kind::block;
    event.block = block;
    events_.write(event);
  }

  void tell_estimate(const EvaluationResult& estimate) {
    RunEvent event;
    event.kind = RunEvent::Kind::estimate;
    event.estimate = estimate;
    for (Metric& metric : event.estimate.metrics) metric.values.clear();  // the report has them; here they would be written again with every window
    events_.write(event);
    if (observer_.on_estimate) observer_.on_estimate(estimate);
  }

  void forward(Progress p, double first, double share) {
    costs_.at(p.phase == "quantize" ? p.stage : p.phase);
    p.fraction = first + share * std::clamp(p.fraction, 0.0, 1.0);
    p.elapsed_s = seconds_since(start_);
    p.eta_s = -1;
    // Work of this session only: a resumed run starts far from zero, and opening the model is no measure of it.
    if (share > 0) {
      if (!working_) working_ = {Clock::now(), p.fraction};
      if (const double done = p.fraction - working_->fraction; done > 0.01) p.eta_s = seconds_since(working_->time) / done * (1 - p.fraction);
    }
    p.rss_bytes = resident_bytes();
    p.peak_rss_bytes = peak_resident_bytes();
    p.device_bytes = peak_device_bytes(options_.device);
    control_.report(p);
  }

  void report(const std::string& phase, const std::string& stage, double fraction) {
    Progress p;
    p.phase = phase;
    p.stage = stage;
    forward(p, fraction, 0);
  }

  void save() {
    report_.peak_rss_bytes = std::max(report_.peak_rss_bytes, peak_resident_bytes());
    report_.peak_device_bytes = std::max(report_.peak_device_bytes, peak_device_bytes(options_.device));
    const auto start = Clock::now();
    workspace_.save(report_);
    saved_ = Clock::now();
    save_cost_ = saved_ - start;
  }

  struct Work {
    Clock::time_point time;
    double fraction;
  };

  Workspace& workspace_;
  const RunOptions& options_;
  const Control& outer_;
  const RunObserver& observer_;
  fs::path folder_;
  RunLock lock_;
  RunReport report_;
  RunEventWriter events_;
  RunConductor conductor_;
  Control control_;
  RunLog log_;
  CostMeter costs_;
  std::optional<HostJob> host_job_;
  Recipe recipe_;
  RunInputs inputs_;
  EngineJob job_;
  std::unique_ptr<Shares> shares_;
  Clock::time_point start_ = Clock::now(), saved_ = start_;
  Clock::duration save_cost_{};
  std::optional<Work> working_;  // when and where this session's work began
};

}  // namespace

RunReport carry_out(Workspace& workspace, const std::string& id, const RunOptions& options, const Control& control, const RunObserver& observer) {
  if (const RunReport report = workspace.load(id); report.status == RunStatus::finished) {
    std::string damage = damage_of_blocks(workspace.run_folder(id));
    for (const BlockReport& block : report.blocks) try {
        const fs::path path = block_report_path(workspace.run_folder(id), block.block);
        if (damage.empty()) block_report_from_json(read_text(path), path.string());
      } catch (const InputError& e) {
        damage = e.what();
      }
    if (damage.empty()) {
      if (observer.on_log) observer.on_log("the run is finished: nothing is left to do");
      return report;
    }
    if (observer.on_log) observer.on_log(damage);
  }
  return RecipeRun(workspace, id, options, control, observer).carry_out();
}

std::vector<std::string> preflight(const Recipe& recipe, const RunOptions& options, const fs::path& workspace) {
  validate(recipe);
  const RunInputs inputs = load_inputs(recipe, {});
  require_target(recipe, *inputs.model);
  qb::preflight(make_job(for_target(recipe, inputs.model->info.dtype), inputs, options, workspace));
  return notes_of(recipe, *inputs.model);
}

}  // namespace qb
