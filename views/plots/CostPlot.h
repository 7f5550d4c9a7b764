#pragma once
#include "views/models/Accuracy.h"
#include "views/plots/Plot.h"

namespace qb::views {

// What runs cost: seconds by phase as stacked bars, peak memory beside them, a row a run, in pages where they are many.
class CostPlot : public Plot {
  Q_OBJECT
 public:
  explicit CostPlot(QWidget* parent = nullptr);
  void setData(const Accuracy& accuracy);
  PlotTable table() const override;
  QString describe(const QPointF& pixel) const override;

 Q_SIGNALS:
  void runChosen(const QString& id);

 protected:
  QCPAxis* valueAxis() const override { return xAxis; }
  void fitView() override;
  void rebuild() override;
  void restyle(const PlotColours& colours) override;
  void activate(const QPointF& pixel) override;
  void laidOut() override;

 private:
  int runAt(const QPointF& pixel) const;
  QVector<Accuracy::Run> m_runs;
  QSharedPointer<PlaceTicker> m_names;
  QCPAxisRect* m_memoryRect;
  QCPBars *m_quantize = nullptr, *m_evaluate = nullptr, *m_memory = nullptr;
  double m_divisor = 1;  // seconds a unit of the time axis
  double m_bytes = 1024.0 * 1024;  // one unit of the memory axis
};

}  // namespace qb::views
