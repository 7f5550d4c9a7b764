#pragma once
#include "views/models/Sensitivities.h"
#include "views/plots/Plot.h"

namespace qb::views {

// Linears from the most sensitive down, a bar each, in the colour of their kind.
class TornadoPlot : public Plot {
  Q_OBJECT
 public:
  explicit TornadoPlot(QWidget* parent = nullptr);

  void setData(const SensitivityBars& bars);
  void setCurrent(const LinearKey& key);
  LinearKey linearAt(const QPointF& pixel) const;  // not valid: there is none
  QPointF pixelOf(const LinearKey& key) const;     // only of bars on this page

  PlotTable table() const override;
  QString describe(const QPointF& pixel) const override;

 Q_SIGNALS:
  void linearChosen(const qb::views::LinearKey& key);

 protected:
  void fitView() override;
  void rebuild() override;
  void restyle(const PlotColours& colours) override;
  void activate(const QPointF& pixel) override;
  bool step(int direction) override;
  void laidOut() override;
  QCPAxis* valueAxis() const override { return xAxis; }

 private:
  int rowAt(const QPointF& pixel) const;  // of the bars
  int rowOf(const LinearKey& key) const;
  void markCurrent();

  SensitivityBars m_data;
  QVector<QCPBars*> m_kinds;
  QCPErrorBars* m_errors = nullptr;
  QSharedPointer<PlaceTicker> m_names;
  QCPItemRect* m_frame;
  LinearKey m_current;
  double m_floor = 0;  // where bars begin on a logarithmic axis
};

}  // namespace qb::views
