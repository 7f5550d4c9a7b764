#include "views/models/Selection.h"

#include <algorithm>
#include <array>

namespace qb::views {
namespace {

// Okabe & Ito's colour-blind-safe set without black and yellow, which vanish on one of the two themes.
constexpr std::array<QRgb, 6> kColours = {0xff0072b2, 0xffd55e00, 0xff009e73, 0xffcc79a7, 0xffe69f00, 0xff56b4e9};

}  // namespace

QVector<Metric> allMetrics() {
  return {Metric::OutputRelativeError, Metric::OutputSqnr, Metric::OutputCosine,   Metric::WeightMse, Metric::WeightMaxError,
          Metric::WeightSqnr,          Metric::WeightKurtosis, Metric::InputKurtosis, Metric::Seconds};
}

QString metricTitle(Metric metric) {
  switch (metric) {
    case Metric::OutputRelativeError: return Selection::tr("Output relative error");
    case Metric::OutputSqnr: return Selection::tr("Output SQNR");
    case Metric::OutputCosine: return Selection::tr("Output cosine similarity");
    case Metric::WeightMse: return Selection::tr("Weight MSE");
    case Metric::WeightMaxError: return Selection::tr("Weight maximum error");
    case Metric::WeightSqnr: return Selection::tr("Weight SQNR");
    case Metric::WeightKurtosis: return Selection::tr("Weight kurtosis");
    case Metric::InputKurtosis: return Selection::tr("Input kurtosis");
    case Metric::Seconds: return Selection::tr("Time");
  }
  return {};
}

QString metricUnit(Metric metric) {
  switch (metric) {
    case Metric::OutputSqnr:
    case Metric::WeightSqnr: return QStringLiteral("dB");
    case Metric::Seconds: return QStringLiteral("s");
    default: return {};
  }
}

double metricValue(const LinearReport& linear, Metric metric) {
  switch (metric) {
    case Metric::OutputRelativeError: return linear.output_relative_error;
    case Metric::OutputSqnr: return linear.output_sqnr_db;
    case Metric::OutputCosine: return linear.output_cosine;
    case Metric::WeightMse: return linear.weight_mse;
    case Metric::WeightMaxError: return linear.weight_max_error;
    case Metric::WeightSqnr: return linear.weight_sqnr_db;
    case Metric::WeightKurtosis: return linear.weight_kurtosis;
    case Metric::InputKurtosis: return linear.input_kurtosis;
    case Metric::Seconds: return linear.seconds;
  }
  return 0;
}

bool metricIsLogarithmic(Metric metric) {
  return metric != Metric::OutputSqnr && metric != Metric::WeightSqnr && metric != Metric::OutputCosine && metric != Metric::Seconds;
}

bool metricHigherIsBetter(Metric metric) {
  return metric == Metric::OutputSqnr || metric == Metric::WeightSqnr || metric == Metric::OutputCosine;
}

Selection::Selection(QObject* parent) : QObject(parent) {}

QVector<RunEntry> Selection::shownRuns() const {
  QVector<RunEntry> shown;
  std::copy_if(m_runs.begin(), m_runs.end(), std::back_inserter(shown), [](const RunEntry& run) { return run.shown; });
  return shown;
}

const RunEntry* Selection::find(const QString& id) const { return const_cast<Selection*>(this)->entry(id); }

RunEntry* Selection::entry(const QString& id) {
  auto it = std::find_if(m_runs.begin(), m_runs.end(), [&](const RunEntry& run) { return run.id == id; });
  return it == m_runs.end() ? nullptr : &*it;
}

void Selection::putRun(const RunPtr& report) {
  if (!report) return;
  const QString id = QString::fromStdString(report->id);
  if (RunEntry* known = entry(id)) {
    known->report = report;
    Q_EMIT runUpdated(id);
    return;
  }
  const int style = m_nextStyle++;
  m_runs.push_back({id, report, QColor(kColours[style % kColours.size()]), style / int(kColours.size()), false});
  Q_EMIT runsChanged();
}

void Selection::removeRun(const QString& id) {
  const auto end = std::remove_if(m_runs.begin(), m_runs.end(), [&](const RunEntry& run) { return run.id == id; });
  if (end == m_runs.end()) return;
  m_runs.erase(end, m_runs.end());
  if (m_currentRun == id) setCurrentRun({});
  if (m_baseline == id) setBaseline({});
  Q_EMIT runsChanged();
}

void Selection::setShown(const QString& id, bool shown) {
  RunEntry* run = entry(id);
  if (!run || run->shown == shown) return;
  run->shown = shown;
  Q_EMIT runsChanged();
}

void Selection::setCurrentRun(const QString& id) {
  if (m_currentRun == id) return;
  m_currentRun = id;
  Q_EMIT currentRunChanged();
}

void Selection::setBaseline(const QString& id) {
  if (m_baseline == id) return;
  m_baseline = id;
  Q_EMIT baselineChanged();
}

void Selection::setCurrentLinear(const LinearKey& key) {
  if (m_currentLinear == key) return;
  m_currentLinear = key;
  Q_EMIT currentLinearChanged();
}

void Selection::setMetric(Metric metric) {
  if (m_metric == metric) return;
  m_metric = metric;
  Q_EMIT metricChanged();
}

}  // namespace qb::views
