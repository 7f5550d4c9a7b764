#include "views/jobs/BestChooser.h"

#include <algorithm>
#include <map>

#include "core/base/error.h"

namespace qb::views {
namespace {

std::string calibration_of(const Recipe& recipe) {
  if (!recipe.calibration) return {};
  const CorpusSpec& corpus = recipe.calibration->corpus;
  return corpus.name.empty() ? corpus.path.filename().string() : corpus.name;
}

}  // namespace

BestAnswer chooseBest(const WorkspacePtr& workspace, const BestQuestion& question, const std::stop_token& stop) {
  BestAnswer answer{question.wanted, {}, {}, {}, {}};
  if (!question.hardware.empty()) answer.wanted.hardware = find_hardware(question.hardware);
  std::vector<RunReport> runs;
  std::vector<LeftOut> others;
  std::map<std::string, std::string> texts;  // by run
  bool sizes = true;
  for (RunReport& run : workspace->list()) {
    if (stop.stop_requested()) throw Cancelled();
    if (std::find(question.runs.begin(), question.runs.end(), run.id) == question.runs.end()) continue;
    const std::string text = texts[run.id] = calibration_of(workspace->recipe(run.id));
    if (!text.empty()) answer.texts.push_back(text);
    if (!question.calibration.empty() && text != question.calibration) {
      others.push_back({run.id, run.name, text.empty() ? "reads no calibration text" : "was calibrated on " + text});
      continue;
    }
    sizes = sizes && run.model_bytes > 0;
    runs.push_back(std::move(run));
  }
  std::sort(answer.texts.begin(), answer.texts.end());
  answer.texts.erase(std::unique(answer.texts.begin(), answer.texts.end()), answer.texts.end());
  if (!question.quality.empty()) answer.wanted.measures = parse_run_columns(question.quality + (sizes ? ",size,time" : ",bits,time"));
  answer.found = best_practice(*workspace, runs, answer.wanted);
  answer.found.left_out.insert(answer.found.left_out.end(), others.begin(), others.end());
  for (const BestCandidate& one : answer.found.runs) answer.calibrations.push_back(texts[one.report.id]);
  if (stop.stop_requested()) throw Cancelled();
  if (answer.found.chosen >= 0) try {
      answer.missing = missing_runs(*workspace, answer.found, answer.wanted);
    } catch (const Error& error) {  // without its model nothing can be proposed
      answer.missing.advice.push_back(std::string("What is missing is not known: ") + error.what());
    }
  return answer;
}

}  // namespace qb::views
