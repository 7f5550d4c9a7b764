#pragma once
#include "views/plots/HeatPlot.h"

namespace qb::views {

// Blocks × names of linears, coloured by the metric of the current run, or by its difference to the baseline.
class HeatMapPlot : public HeatPlot {
  Q_OBJECT
 public:
  explicit HeatMapPlot(QWidget* parent = nullptr);

  void setData(const LinearErrors& errors);
  void setCurrent(const LinearKey& key);

  PlotTable table() const override;
  QString describe(const QPointF& pixel) const override;
  QPointF pixelOf(const LinearKey& key) const;
  LinearKey linearAt(const QPointF& pixel) const;  // not valid: there is none

 Q_SIGNALS:
  void linearChosen(const qb::views::LinearKey& key);

 protected:
  void fitView() override;
  void rebuild() override;
  void activate(const QPointF& pixel) override;
  bool step(int direction) override;
  void laidOut() override;

 private:
  double valueOf(int row) const;
  int rowAt(const QPointF& pixel) const;
  void markCurrent();

  LinearErrors m_errors;
  QVector<int> m_blocks;   // columns
  QStringList m_names;     // rows, from the top
  QHash<QString, int> m_nameRow;
  QHash<int, int> m_blockColumn;
  LinearKey m_current;
};

}  // namespace qb::views
