#include "core/run/estimates.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/device.h"

namespace qb {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int kFormat = 3;
constexpr size_t kMostKept = 1000;

std::string host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  return name;
}

fs::path timings_path(const Workspace& workspace) { return workspace.folder() / "cache" / fmt::format("timings-{}.json", host_name()); }

// --- records

RunTiming timing_of(const RunReport& report, const Recipe& recipe, const ModelInfo& model) {
  RunTiming timing{report.id, report.environment.device, report.environment.cpu, report.model_hash, report.model_path, report.environment.threads, false, report.load_seconds, 0, report.measure_seconds, 0, {}};
  TextLengths texts;
  texts.calibration = static_cast<double>(report.calibration_tokens);
  texts.sample_length = recipe.calibration ? static_cast<double>(recipe.calibration->sampling.seq_len) : 0;
  texts.read = texts.calibration;
  std::vector<const EvaluationResult*> floats, ours;
  for (const EvaluationResult& result : report.evaluations) (result.float_model ? floats : ours).push_back(&result);
  for (const EvaluationResult* result : ours) {
    texts.read += static_cast<double>(result->corpus_tokens);
    texts.evaluation.push_back(static_cast<double>(result->seq_len > 0 ? result->windows * result->seq_len : result->corpus_tokens));
    texts.conditions.push_back(conditions_of(report.model_hash, timing.device, *result));
  }
  timing.work = work_of(recipe, model, texts);
  timing.work.statistics = statistics_of(recipe, report.model_hash, report.calibration_hash, timing.device);
  size_t next_float = 0, next_ours = 0;
  for (RunWork::Evaluation& evaluation : timing.work.evaluations) {
    const auto& list = evaluation.of_float ? floats : ours;
    size_t& next = evaluation.of_float ? next_float : next_ours;
    if (next < list.size()) evaluation.seconds = list[next++]->seconds;
  }
  std::map<std::pair<int64_t, int64_t>, double> stages;
  double blocks = 0, in_stages = 0;
  for (const BlockReport& block : report.blocks) {
    blocks += block.seconds;
    for (const LinearReport& linear : block.linears) {
      stages[{linear.out_features, linear.in_features}] += linear.seconds;
      in_stages += linear.seconds;
    }
  }
  for (RunWork::Shape& shape : timing.work.shapes) shape.seconds = stages[{shape.out_features, shape.in_features}];
  timing.statistics_known = report.statistics_cached_blocks > 0;
  timing.passes_seconds = std::max(0.0, blocks - in_stages);
  timing.other_seconds = std::max(0.0, report.quantize_seconds - blocks - report.measure_seconds);
  return timing;
}

Json to_json(const RunTiming& t) {
  Json shapes = Json::array(), evaluations = Json::array();
  for (const RunWork::Shape& s : t.work.shapes) shapes.push_back({s.out_features, s.in_features, s.count, s.seconds});
  for (const RunWork::Evaluation& e : t.work.evaluations)
    evaluations.push_back({{"conditions", e.conditions}, {"sort", e.sort}, {"work", e.work}, {"seconds", e.seconds}, {"float", e.of_float}});
  return {{"run", t.run}, {"device", t.device}, {"cpu", t.cpu}, {"threads", t.threads}, {"model_hash", t.model_hash}, {"model_path", t.model_path}, {"statistics_known", t.statistics_known},
          {"load_seconds", t.load_seconds}, {"passes_seconds", t.passes_seconds}, {"measure_seconds", t.measure_seconds}, {"other_seconds", t.other_seconds},
          {"kind", t.work.kind}, {"methods", t.work.methods}, {"cost", t.work.cost}, {"statistics", t.work.statistics}, {"load", t.work.load}, {"passes", t.work.passes},
          {"passes_known", t.work.passes_known}, {"measure", t.work.measure}, {"other", t.work.other}, {"shapes", shapes}, {"evaluations", evaluations}};
}

RunTiming timing_from(const Json& j) {
  RunTiming t{j.at("run"), j.at("device"), j.at("cpu"), j.at("model_hash"), j.at("model_path"), j.at("threads"), j.at("statistics_known"), j.at("load_seconds"), j.at("passes_seconds"), j.at("measure_seconds"), j.at("other_seconds"), {}};
  t.work.kind = j.at("kind");
  t.work.methods = j.at("methods");
  t.work.cost = j.at("cost");
  t.work.statistics = j.at("statistics");
  t.work.load = j.at("load");
  t.work.passes = j.at("passes");
  t.work.passes_known = j.at("passes_known");
  t.work.measure = j.at("measure");
  t.work.other = j.at("other");
  for (const Json& s : j.at("shapes")) t.work.shapes.push_back({s.at(0), s.at(1), s.at(2), s.at(3)});
  for (const Json& e : j.at("evaluations")) t.work.evaluations.push_back({e.at("conditions"), e.at("sort"), e.at("work"), e.at("seconds"), e.at("float")});
  return t;
}

// A damaged file is made again from the runs.
std::vector<RunTiming> read_timings(const fs::path& path) {
  std::vector<RunTiming> runs;
  try {
    if (!fs::exists(path)) return runs;
    const Json json = Json::parse(read_text(path));
    if (json.at("format") != kFormat) return runs;
    for (const Json& entry : json.at("runs")) runs.push_back(timing_from(entry));
  } catch (const Json::exception&) {
    runs.clear();
  } catch (const std::exception&) {
    runs.clear();
  }
  return runs;
}

// --- prediction

double ratio(double seconds, double work, double of) { return work > 0 ? seconds / work * of : 0; }

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double weights_of(const RunWork& work) {
  double weights = 0;
  for (const RunWork::Shape& s : work.shapes) weights += static_cast<double>(s.out_features) * static_cast<double>(s.in_features) * s.count;
  return weights;
}

// How far two runs' sizes are apart, in factors.
double distance(const RunWork& a, const RunWork& b) {
  const auto apart = [](double x, double y) { return std::abs(std::log(std::max(1.0, x) / std::max(1.0, y))); };
  return apart(weights_of(a), weights_of(b)) + apart(a.passes, b.passes);
}

std::vector<double> features(const RunWork::Shape& s) {
  const auto out = static_cast<double>(s.out_features), in = static_cast<double>(s.in_features);
  return {1e-6 * out * in, 1e-9 * out * in * in, 1e-9 * in * in * in};  // arithmetic on weights; rounding and searches on Gram matrices; their factors
}

// Seconds in stages: of the same shapes as they were, of others by a fit over all that were measured.
double stage_seconds(const std::vector<const RunTiming*>& like, const RunWork& wanted) {
  std::map<std::pair<int64_t, int64_t>, std::vector<double>> known;
  std::vector<std::vector<double>> rows;
  std::vector<double> measured;
  for (const RunTiming* run : like)
    for (const RunWork::Shape& s : run->work.shapes) {
      if (s.count <= 0) continue;
      const double each = s.seconds / s.count;
      known[{s.out_features, s.in_features}].push_back(each);
      rows.push_back(features(s));
      measured.push_back(each);
    }
  // What the first linear of an input does for all of them is not each shape's own: a model whose shapes are all known is taken as a whole.
  std::vector<double> fit;
  double seconds = 0;
  for (const RunWork::Shape& s : wanted.shapes) {
    if (const auto found = known.find({s.out_features, s.in_features}); found != known.end()) {
      seconds += s.count * median(found->second);
      continue;
    }
    if (fit.empty()) fit = fit_positive(rows, measured);
    const std::vector<double> x = features(s);
    for (size_t i = 0; i < x.size(); ++i) seconds += s.count * fit[i] * x[i];
  }
  return seconds;
}

// Of a host of which nothing is known: multiply-adds in a second of one core, or of a GPU; and seconds that stages take of a weight.
constexpr double kCoreRate = 10e9, kGpuRate = 30e12;
constexpr double kStageSeconds[] = {10e-9, 100e-9, 1e-6, 20e-6};  // by PresetCost, of one core

}  // namespace

std::vector<double> fit_positive(const std::vector<std::vector<double>>& rows, const std::vector<double>& measured) {
  const size_t n = rows.empty() ? 0 : rows.front().size();
  std::vector<double> x(n);
  // Relative errors count: a model's small linears are as many as its large ones.
  std::vector<double> weight(rows.size(), 1);
  for (size_t r = 0; r < rows.size(); ++r) weight[r] = 1 / std::max(1e-12, measured[r] * measured[r]);
  for (int round = 0; round < 2000; ++round) {
    double moved = 0;
    for (size_t i = 0; i < n; ++i) {
      double slope = 0, square = 0;
      for (size_t r = 0; r < rows.size(); ++r) {
        double rest = measured[r];
        for (size_t k = 0; k < n; ++k)
          if (k != i) rest -= x[k] * rows[r][k];
        slope += weight[r] * rest * rows[r][i];
        square += weight[r] * rows[r][i] * rows[r][i];
      }
      const double better = square > 0 ? std::max(0.0, slope / square) : 0;
      moved = std::max(moved, std::abs(better - x[i]) / std::max(1e-300, std::max(better, x[i])));
      x[i] = better;
    }
    if (moved < 1e-6) break;
  }
  return x;
}

Timings Timings::of(const Workspace& workspace, int most) {
  const fs::path path = timings_path(workspace);
  std::vector<RunTiming> runs = read_timings(path);
  std::set<std::string> read;
  for (const RunTiming& run : runs) read.insert(run.run);
  std::map<std::string, std::optional<ModelInfo>> models;
  int added = 0;
  for (const RunReport& head : workspace.list()) {
    if (head.status != RunStatus::finished || head.environment.host != host_name() || read.contains(head.id) || added >= most) continue;
    try {
      auto [model, fresh] = models.try_emplace(head.model_path);
      if (fresh) model->second = inspect_model(head.model_path);
      if (!model->second) continue;
      runs.push_back(timing_of(workspace.load(head.id), workspace.recipe(head.id), *model->second));
      ++added;
    } catch (const Error&) {
      // A model that is gone, a damaged run: nothing is learned of it.
    }
  }
  if (added == 0) return Timings(std::move(runs));
  std::stable_sort(runs.begin(), runs.end(), [](const RunTiming& a, const RunTiming& b) { return a.run < b.run; });
  if (runs.size() > kMostKept) runs.erase(runs.begin(), runs.end() - kMostKept);
  if (workspace.writable()) try {
      Json list = Json::array();
      for (const RunTiming& run : runs) list.push_back(to_json(run));
      fs::create_directories(path.parent_path());
      write_atomically(path, Json{{"format", kFormat}, {"runs", list}}.dump(-1, ' ', false, Json::error_handler_t::replace));
    } catch (const std::exception&) {
      // It is made again when it is needed.
    }
  return Timings(std::move(runs));
}

Estimator::Estimator(Timings timings, std::string device, int threads) : timings_(std::move(timings)), device_(std::move(device)), cpu_(cpu_name()), threads_(threads > 0 ? threads : at::get_num_threads()) {
  for (const RunTiming& run : timings_.runs()) {
    for (const RunWork::Evaluation& evaluation : run.work.evaluations)
      if (evaluation.of_float) float_known_.insert(evaluation.conditions);
    if (!run.work.statistics.empty()) statistics_known_.insert(run.work.statistics);
  }
}

CostEstimate Estimator::next(const RunPlan& plan) {
  CostEstimate cost;
  cost.memory_bytes = plan.memory_bytes;
  cost.device_bytes = plan.device_bytes;
  cost.disk_bytes = plan.disk_bytes;
  const RunWork& work = plan.work;
  const bool gpu = device_ != "cpu";
  std::vector<const RunTiming*> here;
  for (const RunTiming& run : timings_.runs())
    if (run.device == device_ && run.cpu == cpu_) here.push_back(&run);
  // Seconds of a run with other threads, as if they shared its work evenly.
  const auto scaled = [&](const RunTiming& run, double seconds) { return gpu ? seconds : seconds * run.threads / threads_; };

  // The same kind, the same stages, the same cost, any: the first that there is.
  std::vector<const RunTiming*> like;
  const auto take = [&](auto is_like) {
    if (like.empty())
      for (const RunTiming* run : here)
        if (is_like(*run)) like.push_back(run);
    return !like.empty();
  };
  const bool same_kind = take([&](const RunTiming& run) { return run.work.kind == work.kind; });
  if (!same_kind && !take([&](const RunTiming& run) { return run.work.methods == work.methods; }) && !take([&](const RunTiming& run) { return run.work.cost == work.cost; })) take([](const RunTiming&) { return true; });
  cost.guess = !same_kind;
  const bool statistics_known = !work.statistics.empty() && statistics_known_.contains(work.statistics);
  const double passes = statistics_known ? work.passes_known : work.passes;

  if (like.empty()) {
    const double rate = gpu ? kGpuRate : kCoreRate * threads_;
    cost.load_seconds = work.load * 1e-6;
    cost.quantize_seconds = (passes + work.measure + work.other) / rate + weights_of(work) * kStageSeconds[std::clamp(work.cost, 0, 3)] / (gpu ? 100 : threads_);
    for (const RunWork::Evaluation& e : work.evaluations)
      if (!e.of_float || !float_known_.contains(e.conditions)) cost.evaluate_seconds += e.work / rate;
    cost.basis = fmt::format("no run on this host yet: by {:.0f} billion multiply-adds a second", rate / 1e9);
  } else {
    // Of the nearest in size, and of those the newest: a host changes.
    std::stable_sort(like.begin(), like.end(), [](auto* a, auto* b) { return a->run > b->run; });
    std::stable_sort(like.begin(), like.end(), [&](auto* a, auto* b) { return distance(a->work, work) < distance(b->work, work) - 0.05; });
    const std::vector<const RunTiming*> nearest(like.begin(), like.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(3, like.size())));
    std::vector<double> load, through, measure, other, stages;
    for (const RunTiming* run : nearest) {
      load.push_back(ratio(run->load_seconds, run->work.load, work.load));
      through.push_back(ratio(scaled(*run, run->passes_seconds), run->statistics_known ? run->work.passes_known : run->work.passes, passes));
      measure.push_back(ratio(scaled(*run, run->measure_seconds), run->work.measure, work.measure));
      other.push_back(ratio(scaled(*run, run->other_seconds), run->work.other, work.other));
    }
    cost.load_seconds = median(load);
    cost.quantize_seconds = median(through) + median(measure) + median(other) + stage_seconds(nearest, work) * scaled(*nearest.front(), 1);
    for (const RunWork::Evaluation& e : work.evaluations) {
      if (e.of_float && float_known_.contains(e.conditions)) continue;
      std::vector<std::pair<double, double>> rates;  // by distance
      for (const bool any : {false, true}) {
        if (!rates.empty()) break;
        for (const RunTiming* run : here)
          for (const RunWork::Evaluation& known : run->work.evaluations)
            if (known.work > 0 && known.seconds > 0 && (any || known.sort == e.sort)) rates.push_back({std::abs(std::log(known.work / std::max(1.0, e.work))), scaled(*run, known.seconds) / known.work});
      }
      std::stable_sort(rates.begin(), rates.end(), [](const auto& a, const auto& b) { return a.first < b.first - 0.05; });
      std::vector<double> near;
      for (size_t i = 0; i < std::min<size_t>(3, rates.size()); ++i) near.push_back(rates[i].second);
      cost.evaluate_seconds += e.work * (near.empty() ? 1 / (gpu ? kGpuRate : kCoreRate * threads_) : median(near));
    }
    cost.basis = same_kind ? fmt::format("{} run{} of the kind on this host", like.size(), like.size() == 1 ? "" : "s") : fmt::format("no run of the kind on this host yet: by those of {}", nearest.front()->work.methods);
  }
  for (const RunWork::Evaluation& e : work.evaluations)
    if (e.of_float) float_known_.insert(e.conditions);
  if (!work.statistics.empty()) statistics_known_.insert(work.statistics);
  return cost;
}

}  // namespace qb
