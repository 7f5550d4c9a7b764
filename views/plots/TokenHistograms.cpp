#include "views/plots/TokenHistograms.h"

#include <QCoreApplication>
#include <algorithm>

namespace qb::views {

QVector<HistogramSeries> tokenSeries(const Accuracy& accuracy, const QColor& floatColour) {
  QVector<HistogramSeries> series;
  const auto histogram = [&](const EvaluationResult* result) { return result && result->find(accuracy.metric) ? result->find(accuracy.metric)->histogram : Histogram(); };
  for (const Accuracy::Run& run : accuracy.runs)
    if (const Histogram of = histogram(run.result); !of.empty()) {
      HistogramSeries one{run.name, run.colour, of};
      one.marker = run.marker;
      one.folded = run.folded;
      series.push_back(one);
    }
  // A float model that is its own reference has no divergence to draw.
  if (const Histogram floor = histogram(accuracy.floatModel); !series.isEmpty() && std::any_of(floor.counts.begin(), floor.counts.end(), [](int64_t n) { return n > 0; })) {
    HistogramSeries one{accuracy.floatName, floatColour, floor};
    one.dashed = true;
    series.push_back(one);
  }
  return series;
}

QString tokenAxis(const Accuracy& accuracy) { return QCoreApplication::translate("AccuracyPage", "log₁₀ of %1").arg(accuracy.axis()); }

}  // namespace qb::views
