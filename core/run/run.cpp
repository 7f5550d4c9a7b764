#include "core/run/run.h"

#include <ATen/Parallel.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/device.h"
#include "core/engine/engine.h"
#include "core/measure/block_measure.h"
#include "core/measure/perplexity.h"
#include "core/measure/report_json.h"
#include "core/run/run_inputs.h"

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

std::string host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  return name;
}

at::ScalarType dtype_from(const std::string& text) { return text == "float32" ? at::kFloat : at::kBFloat16; }

// Log of one run: its file, and whoever listens.
class RunLog {
 public:
  RunLog(const fs::path& file, const RunObserver& observer) : observer_(observer) {
    try {
      sink_ = std::make_shared<spdlog::logger>("run", std::make_shared<spdlog::sinks::basic_file_sink_mt>(file.string()));
      sink_->set_pattern("%Y-%m-%dT%H:%M:%S %v");
      sink_->flush_on(spdlog::level::info);
    } catch (const spdlog::spdlog_ex& e) {
      throw ResourceError(fmt::format("{}: cannot write the log: {}", file.string(), e.what()));
    }
  }
  void operator()(const std::string& line) {
    sink_->info(line);
    if (observer_.on_log) observer_.on_log(line);
  }

 private:
  const RunObserver& observer_;
  std::shared_ptr<spdlog::logger> sink_;
};

// Shares of the whole job by what phases cost: tokens that pass through the model, weighted by the passes.
class Shares {
 public:
  Shares(const Recipe& recipe, double calibration_tokens, const std::vector<RunText>& texts, bool float_cached) {
    const bool learns = calibration_tokens > 0;
    quantize_ = 8192 + (learns ? 3 * calibration_tokens : 0);
    for (size_t i = 0; i < recipe.evaluation.size(); ++i) {
      const double windows = texts[i].windows(recipe.evaluation[i]);
      evaluate_.push_back(windows * static_cast<double>(recipe.evaluation[i].seq_len) * (recipe.evaluate_float && !float_cached ? 2 : 1));
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
  double quantize_ = 0, total_ = 0;
  std::vector<double> evaluate_;
};

class RecipeRun {
 public:
  RecipeRun(Workspace& workspace, const std::string& id, const RunOptions& options, const Control& control, const RunObserver& observer)
      : workspace_(workspace), options_(options), control_(control), observer_(observer), report_(workspace.load(id)),
        folder_(workspace.run_folder(id)), log_(folder_ / "log.txt", observer) {}

  RunReport carry_out() {
    try {
      begin();
      quantize();
      evaluate();
      report_.status = RunStatus::finished;
      report_.finished = now_utc();
      report_.error.clear();
      save();
      log_(fmt::format("finished: {:.1f} s quantizing, {:.1f} s evaluating, peak memory {} MB", report_.quantize_seconds, report_.evaluate_seconds,
                       report_.peak_rss_bytes >> 20));
      return report_;
    } catch (const Cancelled&) {
      report_.status = RunStatus::cancelled;
      report_.error.clear();
      save();
      log_("cancelled; finished blocks are kept and the run can be resumed");
      throw;
    } catch (const std::exception& e) {
      report_.status = RunStatus::failed;
      report_.error = e.what();
      log_(fmt::format("failed: {}", e.what()));
      try {
        save();
      } catch (const Error&) {
        // The first error says more than that it could not be written down.
      }
      throw;
    }
  }

 private:
  void begin() {
    recipe_ = workspace_.recipe(report_.id);
    report_.status = RunStatus::running;
    report_.started = now_utc();
    report_.error.clear();
    save();
    report("load", "model", 0);
    log_(fmt::format("recipe {}: {}, {}", report_.name, report_.scheme, report_.pipeline));
    inputs_ = load_inputs(recipe_, control_);
    const ModelInfo& info = inputs_.model->info;
    report_.model_name = info.name;
    report_.model_hash = inputs_.model_hash;
    report_.calibration_hash = inputs_.calibration.hash;
    report_.calibration_tokens = inputs_.calibration.tokens();
    report_.environment = {QBENCH_VERSION, torch_version(), options_.device, cpu_name(), host_name(), at::get_num_threads()};
    save();
    log_(fmt::format("model {} ({} blocks, {} parameters), {} calibration tokens", info.name, info.blocks.size(), info.parameters,
                     report_.calibration_tokens));
    job_ = make_job(recipe_, inputs_, options_, folder_);
    qb::preflight(job_);
    bool cached = true;
    for (size_t i = 0; i < recipe_.evaluation.size(); ++i)
      cached = cached && workspace_.cached_perplexity(float_key(i)).has_value();
    shares_ = std::make_unique<Shares>(recipe_, learns_from_data() ? static_cast<double>(report_.calibration_tokens) : 0, inputs_.texts, cached);
  }

  bool learns_from_data() const {
    for (const StageSpec& stage : recipe_.pipeline)
      if (find_method(stage.method)->needs_calibration) return true;
    return false;
  }

  void quantize() {
    const auto start = Clock::now();
    const double before = report_.quantize_seconds;
    const int kept = finished_blocks(job_);
    load_block_reports(kept);
    if (kept > 0) log_(fmt::format("resuming after {} finished blocks", kept));
    Control inner = control_;
    inner.on_progress = [this](const Progress& p) { forward(p, 0, shares_->quantize()); };
    run_engine(job_, inner, [&](const BlockView& view) {
      BlockReport block = measure_block(view, recipe_.scheme);
      const fs::path path = block_report_path(block.block);
      write_atomically(path, to_json(block));
      report_.quantize_seconds = before + seconds_since(start);
      if (observer_.on_block) observer_.on_block(block);
      log_(fmt::format("block {} done in {:.2f} s, output relative error {:.4g}", block.block, block.seconds, block.output_relative_error));
      report_.blocks.push_back(std::move(block));
      if (Clock::now() - saved_ > std::chrono::seconds(2)) save();
    });
    report_.quantize_seconds = before + seconds_since(start);
    count_bits();
    save();
  }

  fs::path block_report_path(int block) const {
    fs::create_directories(folder_ / "blocks");
    return folder_ / "blocks" / fmt::format("block-{:04}.json", block);
  }

  // Reports of blocks that an earlier session finished.
  void load_block_reports(int kept) {
    report_.blocks.clear();
    for (int i = 0; i < kept; ++i) {
      const fs::path path = block_report_path(i);
      if (!fs::exists(path)) continue;  // durable block, killed before its report: figures are lost, the block is not
      report_.blocks.push_back(block_report_from_json(read_text(path), path.string()));
      if (observer_.on_block) observer_.on_block(report_.blocks.back());
    }
  }

  void count_bits() {
    double bits = 0, weights = 0, float_bytes = 0, all_bits = 0;
    for (const BlockReport& block : report_.blocks)
      for (const LinearReport& linear : block.linears) {
        const double n = static_cast<double>(linear.out_features) * static_cast<double>(linear.in_features);
        all_bits += linear.bits_per_weight * n;
        if (linear.scheme == "float") continue;
        bits += linear.bits_per_weight * n;
        weights += n;
      }
    for (const BlockInfo& block : inputs_.model->info.blocks)
      for (const LinearInfo& linear : block.linears) float_bytes += static_cast<double>(linear.bytes);
    report_.bits_per_weight = weights > 0 ? bits / weights : 0;
    report_.quantized_bytes = static_cast<uint64_t>(all_bits / 8);
    report_.float_bytes = static_cast<uint64_t>(float_bytes);
  }

  std::string float_key(size_t i) const {
    const EvaluationSpec& spec = recipe_.evaluation[i];
    return fmt::format("{} {} {} {} {} {}", inputs_.model_hash, inputs_.texts[i].hash, spec.seq_len, spec.windows, spec.dtype, options_.device);
  }

  void evaluate() {
    const auto start = Clock::now();
    report_.perplexities.clear();
    for (size_t i = 0; i < recipe_.evaluation.size(); ++i) {
      const double first = shares_->evaluation_start(i), share = shares_->evaluation(i);
      double done = 0;
      if (recipe_.evaluate_float) {
        auto result = workspace_.cached_perplexity(float_key(i));
        if (!result) {
          done = 0.5;
          result = measure(i, true, first, share * done);
          workspace_.cache_perplexity(float_key(i), *result);
        }
        result->float_model = true;
        log_(fmt::format("float model: perplexity {:.4f} ± {:.4f} on {}", result->perplexity, result->standard_error, result->corpus));
        report_.perplexities.push_back(*result);
        if (observer_.on_estimate) observer_.on_estimate(*result);
      }
      report_.perplexities.push_back(measure(i, false, first + share * done, share * (1 - done)));
      const PerplexityResult& result = report_.perplexities.back();
      log_(fmt::format("quantized model: perplexity {:.4f} ± {:.4f} on {} ({} windows of {} tokens, {})", result.perplexity, result.standard_error,
                       result.corpus, result.windows, result.seq_len, result.dtype));
      report_.evaluate_seconds = seconds_since(start);
      save();
    }
  }

  PerplexityResult measure(size_t i, bool of_float, double first, double share) {
    const EvaluationSpec& spec = recipe_.evaluation[i];
    const RunText& text = inputs_.texts[i];
    PerplexitySpec settings{spec.seq_len, spec.windows, dtype_from(spec.dtype), at::Device(options_.device), {}};
    if (!of_float) settings.tap = activation_tap(recipe_.scheme);
    auto named = [&](PerplexityResult result) {
      result.corpus = text.name;
      result.corpus_hash = text.hash;
      result.float_model = of_float;
      return result;
    };
    Control inner = control_;
    inner.on_progress = [&](Progress p) {
      p.phase = "evaluate";
      p.stage = of_float ? text.name + " (float)" : text.name;
      forward(p, first, share);
    };
    const TensorSourcePtr source = of_float ? inputs_.model->source : quantized_source(inputs_.model, folder_);
    return named(perplexity(inputs_.model, source, text.ids, settings, inner, [&](const PerplexityResult& estimate) {
      if (observer_.on_estimate) observer_.on_estimate(named(estimate));
    }));
  }

  void forward(Progress p, double first, double share) {
    p.fraction = first + share * std::clamp(p.fraction, 0.0, 1.0);
    p.elapsed_s = seconds_since(start_);
    if (p.fraction > 0.02) p.eta_s = p.elapsed_s / p.fraction * (1 - p.fraction);
    p.rss_bytes = resident_bytes();
    p.peak_rss_bytes = peak_resident_bytes();
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
    workspace_.save(report_);
    saved_ = Clock::now();
  }

  Workspace& workspace_;
  const RunOptions& options_;
  const Control& control_;
  const RunObserver& observer_;
  RunReport report_;
  fs::path folder_;
  RunLog log_;
  Recipe recipe_;
  RunInputs inputs_;
  EngineJob job_;
  std::unique_ptr<Shares> shares_;
  Clock::time_point start_ = Clock::now(), saved_ = start_;
};

}  // namespace

RunReport carry_out(Workspace& workspace, const std::string& id, const RunOptions& options, const Control& control, const RunObserver& observer) {
  return RecipeRun(workspace, id, options, control, observer).carry_out();
}

void preflight(const Recipe& recipe, const RunOptions& options) {
  validate(recipe);
  const RunInputs inputs = load_inputs(recipe, {});
  qb::preflight(make_job(recipe, inputs, options, fs::temp_directory_path()));
}

}  // namespace qb
