#pragma once
#include "views/models/LinearErrors.h"
#include "views/plots/Plot.h"

namespace qb::views {

// Error of every linear, a curve a run. x: rank in the chosen order (in depth order with the block numbers as ticks).
class LinearErrorsPlot : public Plot {
  Q_OBJECT
 public:
  explicit LinearErrorsPlot(QWidget* parent = nullptr);

  // `rows` of `errors` in drawing order; `inDepthOrder`: ticks are block numbers.
  void setData(const LinearErrors& errors, const QVector<int>& rows, bool inDepthOrder);
  void setCurrent(const LinearKey& key);

  PlotTable table() const override;
  QString describe(const QPointF& pixel) const override;
  // Pixel of a linear's point in the nth drawn run; null point when not drawn. For tests.
  QPointF pixelOf(const LinearKey& key, int drawnRun) const;
  LinearKey linearAt(const QPointF& pixel) const;  // not valid: none is near

 Q_SIGNALS:
  void linearChosen(const qb::views::LinearKey& key);

 protected:
  void fitView() override;
  void rebuild() override;
  void restyle(const PlotColours& colours) override;
  void activate(const QPointF& pixel) override;
  bool step(int direction) override;
  void laidOut() override;

 private:
  int placeAt(const QPointF& pixel) const;  // -1: none near
  void markCurrent();
  QString textFor(int place, int near = -1) const;  // near: the run that is pointed at, named even when it is folded

  LinearErrors m_errors;
  QVector<int> m_rows, m_placeOfRow;
  bool m_depth = true;
  double m_floor = 0;  // where zeros stand on a logarithmic axis
  LinearKey m_current;
  QVector<QCPGraph*> m_graphs;
  QCPGraph* m_zeros = nullptr;
  QVector<QCPGraph*> m_marks;
  QCPItemStraightLine* m_cursor;
  QSharedPointer<PlaceTicker> m_ticker;
};

}  // namespace qb::views
