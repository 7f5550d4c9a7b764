#include "core/run/best_practice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <utility>

#include "core/base/error.h"
#include "core/exporting/formats.h"
#include "core/measure/evaluators.h"
#include "core/model/model.h"
#include "core/run/run_target.h"
#include "core/run/served_model.h"
#include "core/store/pareto.h"

namespace qb {
namespace {

// Quality first, then what it costs: divergence where runs have it; bits where older runs do not know their model's size.
RunColumns standard_measures(const std::vector<const RunReport*>& runs) {
  const bool divergence = std::any_of(runs.begin(), runs.end(), [](const auto* run) { return find_evaluation(*run, "divergence", false); });
  const bool sizes = std::all_of(runs.begin(), runs.end(), [](const auto* run) { return run->model_bytes > 0; });
  return parse_run_columns(std::string(divergence ? "kl" : "ppl") + (sizes ? ",size,time" : ",bits,time"));
}

std::string keys_of(const RunColumns& measures) {
  std::vector<std::string> keys;
  for (const RunColumn* measure : measures) keys.push_back(measure->key);
  return fmt::format("{}", fmt::join(keys, ", "));
}

}  // namespace

LoadableFormats loadable_formats(const Recipe& recipe, const std::string& engine) {
  const EngineInfo* info = find_engine(engine);
  if (!info) throw InputError(fmt::format("there is no engine \"{}\", expected one of {}", engine, known_engine_names()));
  LoadableFormats found;
  if (!recipe.checkpoint.empty()) {
    found.why = "is somebody else's checkpoint, which is not exported";
    return found;
  }
  const auto model = Model::open(recipe.model);
  std::vector<std::string> reasons;
  for (const EngineInfo::Takes& takes : info->takes) {
    const FormatInfo* format = find_format(takes.format);
    if (!format || !format->codes) continue;  // float weights load anywhere, and are no quantized model
    Recipe asked = recipe;
    asked.target = TargetSpec{takes.format, engine};
    const std::vector<std::string> against = target_obstacles(asked, *model);
    if (against.empty()) found.formats.push_back(takes.format);
    else reasons.push_back(takes.format + ": " + against.front());
  }
  if (found.formats.empty()) found.why = fmt::format("{} loads it in no format ({})", info->title, fmt::join(reasons, "; "));
  return found;
}

SpeedPrediction predicted_speed(const Workspace& workspace, const std::string& run, const HardwareProfile& hardware, const SpeedCase& conditions) {
  const RunReport whole = workspace.load(run);
  const Recipe recipe = workspace.recipe(run);
  return predict_speed(hardware, served_model(*Model::open(recipe.model), recipe.scheme, &whole), conditions);
}

BestPractice best_practice(const Workspace& workspace, const std::vector<RunReport>& runs, const BestWanted& wanted) {
  if (!wanted.engine.empty() && !find_engine(wanted.engine)) throw InputError(fmt::format("there is no engine \"{}\", expected one of {}", wanted.engine, known_engine_names()));
  BestPractice found;
  std::vector<const RunReport*> left;
  std::vector<BestCandidate> extras;  // what filters found of those in `left`
  for (const RunReport& run : runs) {
    const auto leave = [&](std::string why) { found.left_out.push_back({run.id, run.name, std::move(why)}); };
    BestCandidate extra;
    if (wanted.gigabytes > 0 && static_cast<double>(run.model_bytes) > wanted.gigabytes * 1e9) {
      leave(fmt::format("{:.4g} GB is more than {:g} GB", static_cast<double>(run.model_bytes) / 1e9, wanted.gigabytes));
      continue;
    }
    if (wanted.bits > 0 && run.bits_per_weight > wanted.bits) {
      leave(fmt::format("{:.2f} bits per weight are more than {:g}", run.bits_per_weight, wanted.bits));
      continue;
    }
    if (!wanted.engine.empty()) {
      LoadableFormats loadable = loadable_formats(workspace.recipe(run.id), wanted.engine);
      if (loadable.formats.empty()) {
        leave(std::move(loadable.why));
        continue;
      }
      extra.formats = std::move(loadable.formats);
    }
    if (wanted.hardware) {
      extra.speed = predicted_speed(workspace, run.id, *wanted.hardware, wanted.conditions);
      if (!extra.speed->fits) {
        leave(fmt::format("does not fit into {}", wanted.hardware->name));
        continue;
      }
      if (extra.speed->decode < wanted.decode || extra.speed->prefill < wanted.prefill) {
        const bool decode = extra.speed->decode < wanted.decode;
        leave(fmt::format("predicted {:.1f} tokens/s of {} on {}", decode ? extra.speed->decode : extra.speed->prefill, decode ? "decode" : "prefill", wanted.hardware->name));
        continue;
      }
    }
    left.push_back(&run);
    extras.push_back(std::move(extra));
  }
  found.measures = wanted.measures.empty() ? standard_measures(left) : wanted.measures;
  const std::vector<ParetoRun> front = pareto(left, found.measures);
  const auto place = [&](const RunReport* run) {
    const auto at = std::find_if(front.begin(), front.end(), [&](const ParetoRun& one) { return one.run == run; });
    return at == front.end() ? -1 : static_cast<int>(at - front.begin());
  };
  const ParetoRun* chosen = recommended(front, found.measures);
  for (size_t i = 0; i < left.size(); ++i) {
    const int at = place(left[i]);
    if (at < 0) {
      found.left_out.push_back({left[i]->id, left[i]->name, fmt::format("lacks one of {}, or has it under other conditions", keys_of(found.measures))});
      continue;
    }
    const ParetoRun& one = front[static_cast<size_t>(at)];
    BestCandidate candidate = std::move(extras[i]);
    candidate.report = *one.run;
    candidate.report.blocks.clear();
    candidate.values = one.values;
    candidate.front = one.front;
    candidate.beaten_by = one.beaten_by ? place(one.beaten_by) : -1;
    if (&one == chosen) found.chosen = static_cast<int>(found.runs.size());
    found.runs.push_back(std::move(candidate));
  }
  return found;
}

std::string values_text(const BestCandidate& one, const RunColumns& measures) {
  std::vector<std::string> parts;
  for (size_t m = 0; m < measures.size(); ++m) parts.push_back(fmt::format("{} {}", column_heading(*measures[m]), cell_text(*measures[m], RunValue(one.values[m]))));
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string speed_text(const SpeedPrediction& speed, const std::string& hardware, const SpeedCase& conditions) {
  return fmt::format("predicted on {}, batch {:g}, {:g} tokens of context: {:.0f} tokens/s of prefill, {:.1f} of decode (roofline: an upper bound)", hardware, conditions.batch, conditions.context,
                     speed.prefill, speed.decode);
}

std::string difference_text(const RunReport& run, const RunReport& other, const RunColumn& measure) {
  const auto value = [&](const RunReport& of) {
    const RunValue cell = measure.value(of, nullptr);
    const double* number = std::get_if<double>(&cell);
    return number ? *number : std::nan("");
  };
  const double difference = value(run) - value(other);
  if (!std::isfinite(difference)) return "–";
  std::string text = fmt::format("{:+.{}f}", difference, measure.decimals);
  if (text.front() == '-') text = "−" + text.substr(1);
  if (const std::optional<double> error = paired_error(run, other, measure)) text += fmt::format(" ± {:.2g}", *error);
  return text;
}

namespace {

// "KL divergence 0.01203 ± 0.0004 nats", "size 98.2 MB", "time 12.3 s": for a sentence.
std::string spoken(const RunReport& run, const RunColumn& measure, double value) {
  const std::pair<const char*, std::pair<const char*, const char*>> figures[] = {{"ppl", {"perplexity", "perplexity"}}, {"kl", {"divergence", "kl"}}, {"acc", {"task", "acc"}}, {"acc_norm", {"task", "acc_norm"}}};
  for (const auto& [key, of] : figures)
    if (measure.key == key)
      if (const EvaluationResult* e = find_evaluation(run, of.first, false); e && e->find(of.second)) return fmt::format("{} {}", find_metric(of.first, of.second)->title, value_text(*e, *e->find(of.second)));
  std::string title = measure.title;
  title[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(title[0])));
  return fmt::format("{} {}{}", title, cell_text(measure, RunValue(value)), measure.unit.empty() ? "" : " " + measure.unit);
}

}  // namespace

std::string verdict(const BestPractice& found) {
  if (found.chosen < 0)
    return found.runs.empty() ? fmt::format("No run has all of {} under one set of conditions, so none can be recommended.", keys_of(found.measures)) : std::string("No run can be recommended.");
  const BestCandidate& chosen = found.runs[static_cast<size_t>(found.chosen)];
  const RunReport& run = chosen.report;
  std::vector<std::string> parts;
  for (size_t m = 0; m < found.measures.size(); ++m) {
    parts.push_back(spoken(run, *found.measures[m], chosen.values[m]));
    if (found.measures[m]->key == "size" && run.model_float_bytes > 0)
      parts.back() += fmt::format(" ({:.0f} % of the float model's {:.1f} MB)", 100 * static_cast<double>(run.model_bytes) / static_cast<double>(run.model_float_bytes), static_cast<double>(run.model_float_bytes) / 1e6);
  }
  std::string text = fmt::format("Take {}: {}. ", run.name, fmt::join(parts, ", "));
  const auto front = std::count_if(found.runs.begin(), found.runs.end(), [](const BestCandidate& one) { return one.front; });
  if (found.runs.size() == 1) return text + "It is the only run that could be compared.";
  const RunColumn& first = *found.measures.front();
  // The nearest rival: of those that are no worse than the others by the first measure.
  const BestCandidate* rival = nullptr;
  for (const BestCandidate& one : found.runs)
    if (&one != &chosen && (!rival || (first.higher_is_better ? one.values[0] > rival->values[0] : one.values[0] < rival->values[0]))) rival = &one;
  const int way = better(run, rival->report, first);
  text += fmt::format("By {} it is {} {} ({}), the best of the others; ", first.title, way < 0 ? "better than" : way > 0 ? "worse than" : "no different within twice the paired error from", rival->report.name,
                      difference_text(run, rival->report, first));
  text += front == 1 ? fmt::format("none of the {} runs equals it in {} together.", found.runs.size(), keys_of(found.measures))
                     : fmt::format("{} of {} runs are not beaten by any other in {} together.", front, found.runs.size(), keys_of(found.measures));
  return text;
}

std::vector<std::string> evidence(const BestPractice& found, const BestWanted& wanted) {
  const BestCandidate& chosen = found.runs.at(static_cast<size_t>(found.chosen));
  std::vector<std::string> lines = {fmt::format("Chosen among {} runs of {} by {}", found.runs.size(), chosen.report.model_name, keys_of(found.measures)),
                                    fmt::format("run {}: {}", chosen.report.id, values_text(chosen, found.measures))};
  for (const EvaluationResult& e : chosen.report.evaluations) lines.push_back(fmt::format("{}: {} ({})", subject_text(e), figure_text(e), conditions_text(e)));
  if (chosen.speed && wanted.hardware) lines.push_back(speed_text(*chosen.speed, wanted.hardware->name, wanted.conditions));
  if (!chosen.formats.empty()) lines.push_back(fmt::format("{} loads it as {}", find_engine(wanted.engine)->title, fmt::join(chosen.formats, ", ")));
  if (chosen.beaten_by >= 0) {
    const BestCandidate& better = found.runs.at(static_cast<size_t>(chosen.beaten_by));
    lines.push_back(fmt::format("taken by hand, though {} beats it ({})", better.report.name, values_text(better, found.measures)));
  }
  for (const BestCandidate& other : found.runs)
    if (other.front && &other != &chosen) lines.push_back(fmt::format("also not beaten: {} ({})", other.report.name, values_text(other, found.measures)));
  for (std::string& line : lines) std::replace(line.begin(), line.end(), '\n', ' ');  // each stands behind a comment sign
  return lines;
}

std::string recipe_with_evidence(const Workspace& workspace, const BestPractice& found, const BestWanted& wanted) {
  std::string text;
  for (const std::string& line : evidence(found, wanted)) text += "# " + line + "\n";
  return text + to_yaml(workspace.recipe(found.runs.at(static_cast<size_t>(found.chosen)).report.id));
}

}  // namespace qb
