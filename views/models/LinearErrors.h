#pragma once
#include <QStringList>
#include <QVector>

#include "views/models/Selection.h"

namespace qb::views {

// One figure of every linear in several runs, gathered from their reports: what the Layers page draws and lists.
// Rows are in depth order: by block, then in the order in which reports name the linears of a block.
struct LinearErrors {
  struct Run {
    QString id, name;
    QColor colour;
    int marker = 0;
    bool drawn = true;       // false: only here as current run or baseline
    bool folded = false;     // one of too many for colours: drawn grey, named on hovering
    QVector<double> values;  // a row each; NaN: the run has not measured that linear (yet)
  };
  Metric metric = Metric::OutputRelativeError;
  QVector<LinearKey> keys;
  QStringList subsets;       // a row each
  QVector<Run> runs;
  int current = -1;          // index of the current run in `runs`
  int baseline = -1;         // index of the baseline in `runs`

  bool isEmpty() const { return keys.isEmpty() || runs.isEmpty(); }
  int rows() const { return int(keys.size()); }
  int rowOf(const LinearKey& key) const;
  // Current run minus baseline; NaN where either is missing.
  double delta(int row) const;
  // As a share for bad news: positive when the linear is worse than in the baseline.
  double worsening(int row) const;
  double currentValue(int row) const;
  QStringList subsetTypes() const;  // in order of appearance
  QStringList names() const;        // names inside a block, in order of appearance
};

// So many runs are told apart by colours and a legend; of more, the current one and the baseline are.
constexpr int kMostColours = 8;
class Folding {
 public:
  explicit Folding(const Selection& selection);
  bool operator()(const QString& run) const { return m_folds && !keeps(run); }
  bool keeps(const QString& run) const { return run == m_current || run == m_baseline; }

 private:
  bool m_folds;
  QString m_current, m_baseline;
};

// Runs to draw: the shown ones; without any, the current one.
QVector<RunEntry> drawnRuns(const Selection& selection);
// The current run, else the first drawn one; nullptr without runs.
const RunEntry* currentEntry(const Selection& selection);
// Values of the drawn runs, the current run and the baseline, none twice.
LinearErrors gatherErrors(const Selection& selection);

const LinearReport* findLinear(const RunReport& report, const LinearKey& key);
QString runName(const RunReport& report);
// "12 · self_attn.q_proj"
QString linearTitle(const LinearKey& key);

enum class LinearOrder { Depth, Value, Delta };
// Rows of `errors` of the wanted subset type (empty: all), in the wanted order, worst first for Value and Delta.
QVector<int> orderedRows(const LinearErrors& errors, LinearOrder order, const QString& subset);

// "Output relative error", "Output SQNR (dB)"
QString metricLabel(Metric metric);
// In which coordinates errors of weights are, where stages scale or rotate them; empty where there is nothing to say.
QString weightBasis(const QVector<RunEntry>& runs, Metric metric);
// Under what the errors were measured: on how many calibration tokens, or that runs differ in it.
QString errorConditions(const Selection& selection);

}  // namespace qb::views
