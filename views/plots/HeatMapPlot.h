#pragma once
#include "views/models/LinearErrors.h"
#include "views/plots/Plot.h"

namespace qb::views {

// Blocks × names of linears, coloured by the metric of the current run, or by its difference to the baseline.
class HeatMapPlot : public Plot {
  Q_OBJECT
 public:
  explicit HeatMapPlot(QWidget* parent = nullptr);

  void setData(const LinearErrors& errors);
  void setDifference(bool on);
  bool isDifference() const { return m_difference->isChecked(); }
  QAction* differenceAction() const { return m_difference; }
  void setCurrent(const LinearKey& key);

  PlotTable table() const override;
  QString describe(const QPointF& pixel) const override;
  QPointF pixelOf(const LinearKey& key) const;

 Q_SIGNALS:
  void linearChosen(const qb::views::LinearKey& key);

 protected:
  QCPAxis* valueAxis() const override { return m_scale->axis(); }
  void fitView() override;
  void rebuild() override;
  void restyle(const PlotColours& colours) override;
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
  QAction *m_difference, *m_cividis;
  QCPColorMap* m_map;
  QCPColorScale* m_scale;
  QCPItemRect* m_frame;
  QSharedPointer<PlaceTicker> m_blockTicker, m_nameTicker;
};

}  // namespace qb::views
