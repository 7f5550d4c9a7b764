#include "views/models/Accuracy.h"

#include <QCoreApplication>
#include <QLocale>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "views/models/LinearErrors.h"

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
      if (result.evaluator != "perplexity") continue;
      const ConditionsChoice choice{conditionsKey(result), conditionsText(result)};
      if (!choices.contains(choice)) choices.push_back(choice);
    }
  return choices;
}

Accuracy gatherAccuracy(const Selection& selection, const QString& wanted) {
  Accuracy accuracy;
  const QVector<ConditionsChoice> choices = allConditions(selection);
  const auto chosen = std::find_if(choices.begin(), choices.end(), [&](const ConditionsChoice& choice) { return choice.key == wanted; });
  const ConditionsChoice choice = chosen != choices.end() ? *chosen : choices.value(0);
  accuracy.conditions = choice.text;
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
  if (const RunEntry* run = selection.find(selection.baseline())) {
    const Accuracy::Run baseline = take(*run);
    if (baseline.result) accuracy.baseline = baseline;
  }
  return accuracy;
}

PairedDifference pairedDifference(const EvaluationResult& run, const EvaluationResult& reference) {
  PairedDifference difference;
  const size_t windows = std::min(run.values("nll").size(), reference.values("nll").size());
  for (size_t i = 0; i < windows; ++i) difference.windows.push_back(run.values("nll")[i] - reference.values("nll")[i]);
  if (windows == 0) return difference;
  const double n = double(windows);
  difference.mean = std::accumulate(difference.windows.begin(), difference.windows.end(), 0.0) / n;
  if (windows < 2) return difference;
  double squares = 0;
  for (const double value : difference.windows) squares += (value - difference.mean) * (value - difference.mean);
  difference.standardError = std::sqrt(squares / (n - 1) / n);
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
