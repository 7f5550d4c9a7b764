#pragma once
#include <QVector>
#include <optional>
#include <string>

#include "views/models/Selection.h"

namespace qb::views {

// What runs give and cost, gathered from their reports: what the Accuracy page draws.
struct Accuracy {
  struct Run {
    QString id, name;
    QColor colour;
    int marker = 0;
    bool folded = false;                       // as in LinearErrors
    bool kept = false;                         // the current one or the baseline: in sight on every page
    RunPtr report;
    const EvaluationResult* result = nullptr;  // under the chosen conditions, of the quantized model; nullptr: not measured
  };
  QString conditions;                  // "wikitext2, 20 of 141 windows of 2048 tokens, float32"; empty: nothing measured
  QVector<Run> runs;                   // drawn ones, in the order of the list of runs
  RunPtr floatOwner;                   // keeps floatModel alive
  const EvaluationResult* floatModel = nullptr;  // the unquantized model, identical tokens
  std::optional<Run> baseline;         // the baseline run, when it was measured under these conditions
  // What is drawn: the first figure of the chosen evaluator.
  std::string metric = "perplexity";
  std::string paired = "nll";          // whose values by window or item are compared one by one
  QString title, unit, pairedTitle;    // "Perplexity", "", "NLL (nats/token)"; "KL divergence", "nats", "(nats)", since the caption names it
  QString floatName;                   // "float model", or of a distance from it "noise floor"
  bool higherIsBetter = false, byItem = false;
  double value(const EvaluationResult& result) const { return result.value(metric); }
  double error(const EvaluationResult& result) const { return result.error(metric); }
  QString number(double value) const;  // four digits, without unit
  QString axis() const;                // "KL divergence (nats)"
};

// Results are comparable only under equal conditions: evaluator and settings, corpus, seq_len, windows, dtype, place of BOS.
QString conditionsKey(const EvaluationResult& result);
QString conditionsText(const EvaluationResult& result);
struct ConditionsChoice {
  QString key, text;
  bool operator==(const ConditionsChoice&) const = default;
};
QVector<ConditionsChoice> allConditions(const Selection& selection);
// `key` empty or unknown: the first conditions there are.
Accuracy gatherAccuracy(const Selection& selection, const QString& key);

// Differences run − reference of a metric's values, paired window by window or item by item.
struct PairedDifference {
  QVector<double> windows;
  double mean = 0, standardError = 0;  // of the mean; 0 with fewer than two windows
};
PairedDifference pairedDifference(const EvaluationResult& run, const EvaluationResult& reference, const std::string& metric);

// Indexes of the points that no other point beats in both (smaller is better), by ascending x.
QVector<int> paretoFrontier(const QVector<double>& x, const QVector<double>& y);

}  // namespace qb::views
