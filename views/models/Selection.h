#pragma once
#include <QColor>
#include <QObject>
#include <QString>
#include <QVector>
#include <memory>

#include "core/measure/report.h"

namespace qb::views {

using RunPtr = std::shared_ptr<const RunReport>;

// A run as the window knows it. Colour and marker are the run's own everywhere (Okabe–Ito, then marker shapes).
struct RunEntry {
  QString id;
  RunPtr report;       // immutable snapshot; replaced when a block or a figure arrives
  QColor colour;
  int marker = 0;      // index into plots' marker shapes
  bool shown = false;  // the eye in the run list
};

// What is measured per linear, for error plots and heat colours.
enum class Metric { OutputRelativeError, OutputSqnr, OutputCosine, WeightMse, WeightMaxError, WeightSqnr, WeightKurtosis, InputKurtosis, Seconds };
QVector<Metric> allMetrics();
QString metricTitle(Metric metric);  // "Output relative error"
QString metricUnit(Metric metric);   // "", "dB", "s" …
double metricValue(const LinearReport& linear, Metric metric);
bool metricIsLogarithmic(Metric metric);  // drawn on a logarithmic axis by default
bool metricHigherIsBetter(Metric metric);

struct LinearKey {
  int block = -1;
  QString name;  // "self_attn.q_proj"
  bool isValid() const { return block >= 0; }
  bool operator==(const LinearKey&) const = default;
};

// The one place where pages, docks and the run list meet: every page observes it and sets it, none talks to another.
class Selection : public QObject {
  Q_OBJECT
 public:
  explicit Selection(QObject* parent = nullptr);

  const QVector<RunEntry>& runs() const { return m_runs; }
  QVector<RunEntry> shownRuns() const;
  const RunEntry* find(const QString& id) const;
  QString currentRun() const { return m_currentRun; }
  QString baseline() const { return m_baseline; }  // run id, empty: none
  LinearKey currentLinear() const { return m_currentLinear; }
  Metric metric() const { return m_metric; }

 public Q_SLOTS:
  void putRun(const qb::views::RunPtr& report);  // adds a run (with the next colour) or replaces its snapshot
  void removeRun(const QString& id);
  void setShown(const QString& id, bool shown);
  void setCurrentRun(const QString& id);
  void setBaseline(const QString& id);
  void setCurrentLinear(const qb::views::LinearKey& key);
  void setMetric(qb::views::Metric metric);

 Q_SIGNALS:
  void runsChanged();                   // a run came, went, or its eye changed
  void runUpdated(const QString& id);   // a new snapshot of a known run
  void currentRunChanged();
  void baselineChanged();
  void currentLinearChanged();
  void metricChanged();

 private:
  RunEntry* entry(const QString& id);
  QVector<RunEntry> m_runs;
  QString m_currentRun, m_baseline;
  LinearKey m_currentLinear;
  Metric m_metric = Metric::OutputRelativeError;
  int m_nextStyle = 0;
};

}  // namespace qb::views

Q_DECLARE_METATYPE(qb::views::RunPtr)
Q_DECLARE_METATYPE(qb::views::LinearKey)
