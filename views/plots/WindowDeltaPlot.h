#pragma once
#include "views/models/Accuracy.h"
#include "views/plots/Plot.h"

namespace qb::views {

// Mean negative log-likelihood of every window minus that of the baseline on the same tokens: is a difference real?
class WindowDeltaPlot : public Plot {
  Q_OBJECT
 public:
  explicit WindowDeltaPlot(QWidget* parent = nullptr);
  void setData(const Accuracy& accuracy);
  // What the differences are to.
  const QString& reference() const { return m_reference; }
  PlotTable table() const override;
  QString describe(const QPointF& pixel) const override;

 protected:
  void fitView() override;
  void rebuild() override;
  void restyle(const PlotColours& colours) override;

 private:
  struct Series {
    Accuracy::Run run;
    PairedDifference difference;
  };
  QVector<Series> m_series;
  QVector<QCPGraph*> m_graphs;
  Accuracy m_accuracy;
  QString m_reference;
  QCPItemStraightLine* m_zero;
};

}  // namespace qb::views
