#include "views/models/Accuracy.h"

#include <QCoreApplication>
#include <QLocale>
#include <algorithm>
#include <cmath>

#include "core/measure/evaluators.h"
#include "core/measure/paired.h"
#include "views/models/Format.h"
#include "views/models/LinearErrors.h"
#include "views/plots/PlotStyle.h"

namespace qb::views {
namespace {
QString tr(const char* source) { return QCoreApplication::translate("Accuracy", source); }
QString text(const std::string& utf8) { return QString::fromStdString(utf8); }
}  // namespace

QString conditionsKey(const EvaluationResult& result) { return QStringLiteral("%1|%2|%3").arg(text(result.evaluator), text(result.corpus_hash), text(conditions_text(result))); }

QString conditionsText(const EvaluationResult& result) {
  const QString few = result.seq_len > 0 ? tr("windows") : tr("items");
  const QString windows = result.windows_total > result.windows ? tr("%1 of %2 %3").arg(result.windows).arg(result.windows_total).arg(few) : tr("%1 %2").arg(result.windows).arg(few);
  return tr("%1, %2%3, %4%5%6")
      .arg(text(result.corpus), windows, result.seq_len > 0 ? tr(" of %1 tokens").arg(result.seq_len) : QString())
      .arg(text(result.dtype), text(bos_text(result)), text(settings_text(result)));
}

QVector<ConditionsChoice> allConditions(const Selection& selection) {
  QVector<ConditionsChoice> choices;
  for (const RunEntry& run : drawnRuns(selection))
    for (const EvaluationResult& result : run.report->evaluations) {
      const EvaluatorInfo* evaluator = find_evaluator(result.evaluator);
      const ConditionsChoice choice{conditionsKey(result), tr("%1: %2").arg(text(evaluator ? evaluator->title : result.evaluator), conditionsText(result))};
      if (!choices.contains(choice)) choices.push_back(choice);
    }
  return choices;
}

QString Accuracy::number(double value) const {
  return value >= 1e-3 ? formatPerplexity(value) : formatNumber(value);
}

QString Accuracy::axis() const { return unit.isEmpty() ? title : tr("%1 (%2)").arg(title, unit); }

namespace {

// Names and directions, by the results that were found.
void describe(Accuracy& accuracy) {
  const EvaluationResult* any = accuracy.floatModel;
  for (const Accuracy::Run& run : accuracy.runs)
    if (run.result) any = run.result;
  const EvaluatorInfo* evaluator = any ? find_evaluator(any->evaluator) : find_evaluator("perplexity");
  if (any) accuracy.conditions = conditionsText(*any);
  if (!evaluator) return;
  const MetricInfo& metric = evaluator->metrics.front();
  accuracy.metric = metric.name;
  accuracy.title = text(metric.title);
  accuracy.unit = text(metric.unit);
  accuracy.higherIsBetter = metric.higher_is_better;
  accuracy.byItem = evaluator->data == EvaluationData::task;
  accuracy.floatName = evaluator->against_float ? tr("noise floor") : tr("float model");
  // Losses of windows add up, perplexities do not.
  accuracy.paired = evaluator->name == "perplexity" ? "nll" : metric.name;
  accuracy.pairedTitle = evaluator->name == "perplexity" ? tr("NLL (nats/token)") : accuracy.unit.isEmpty() ? QString() : tr("(%1)").arg(accuracy.unit);
}

}  // namespace

Accuracy gatherAccuracy(const Selection& selection, const QString& wanted) {
  Accuracy accuracy;
  const QVector<ConditionsChoice> choices = allConditions(selection);
  const auto chosen = std::find_if(choices.begin(), choices.end(), [&](const ConditionsChoice& choice) { return choice.key == wanted; });
  const ConditionsChoice choice = chosen != choices.end() ? *chosen : choices.value(0);
  const auto find = [&choice](const RunReport& report, bool floatModel) -> const EvaluationResult* {
    for (const EvaluationResult& result : report.evaluations)
      if (result.float_model == floatModel && conditionsKey(result) == choice.key) return &result;
    return nullptr;
  };
  const Folding folded(selection);
  const auto take = [&](const RunEntry& run) {
    return Accuracy::Run{run.id, runName(*run.report), run.colour, run.marker, folded(run.id), folded.keeps(run.id), run.report, find(*run.report, false)};
  };
  for (const RunEntry& run : drawnRuns(selection)) {
    accuracy.runs.push_back(take(run));
    if (accuracy.floatModel) continue;
    accuracy.floatModel = find(*run.report, true);
    if (accuracy.floatModel) accuracy.floatOwner = run.report;
  }
  describe(accuracy);
  if (const RunEntry* run = selection.find(selection.baseline())) {
    const Accuracy::Run baseline = take(*run);
    if (baseline.result) accuracy.baseline = baseline;
  }
  return accuracy;
}

PairedDifference pairedDifference(const EvaluationResult& run, const EvaluationResult& reference, const std::string& metric) {
  std::vector<double> first = reference.values(metric), second = run.values(metric);
  const size_t windows = std::min(first.size(), second.size());
  first.resize(windows);
  second.resize(windows);
  const auto paired = paired_difference(first, second);
  PairedDifference difference{{}, paired.difference, paired.standard_error};
  for (size_t i = 0; i < windows; ++i) difference.windows.push_back(second[i] - first[i]);
  return difference;
}

QVector<int> paretoFrontier(const QVector<double>& x, const QVector<double>& y) {
  QVector<int> order;
  for (int i = 0; i < int(x.size()); ++i)
    if (std::isfinite(x[i]) && std::isfinite(y[i])) order.push_back(i);
  std::sort(order.begin(), order.end(), [&](int a, int b) { return x[a] != x[b] ? x[a] < x[b] : y[a] < y[b]; });
  QVector<int> frontier;
  for (const int i : order)
    if (frontier.isEmpty() || y[i] < y[frontier.back()]) frontier.push_back(i);
  return frontier;
}

}  // namespace qb::views
