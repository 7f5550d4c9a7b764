#pragma once
#include "views/models/Accuracy.h"
#include "views/plots/Plot.h"

namespace qb::views {

// One figure of every run, in pages where they are many, with ± one standard error, and the float model (or the noise floor) as a line with its own band.
class MetricPlot : public Plot {
  Q_OBJECT
 public:
  explicit MetricPlot(QWidget* parent = nullptr);
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
  int aboveRows() const override;
  void laidOut() override;

 private:
  int runAt(const QPointF& pixel) const;
  Accuracy m_accuracy;
  QVector<Accuracy::Run> m_runs;  // measured ones
  QSharedPointer<PlaceTicker> m_names;
  QCPItemStraightLine* m_floatLine;
  QCPItemRect* m_floatBand;
  QCPItemText* m_floatText;
  QVector<QCPErrorBars*> m_bars;
};

// Names of runs as ticks of an axis with one place a run; `room`: pixels for a name.
QVector<PlaceTicker::Place> nameTicks(const QStringList& names, const QFont& font, int room);

}  // namespace qb::views
