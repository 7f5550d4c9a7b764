#pragma once
#include "views/plots/HeatPlot.h"

namespace qb::views {

// Runs × linears in model order, or runs × blocks (the worst linear of each), coloured by a metric: the same colours on every page.
class RunsHeatPlot : public HeatPlot {
  Q_OBJECT
 public:
  explicit RunsHeatPlot(QWidget* parent = nullptr);

  // `rows` of `errors` in depth order: the linears to show.
  void setData(const LinearErrors& errors, const QVector<int>& rows);
  void setByBlock(bool on) { m_byBlock->setChecked(on); }
  // Blocks were asked for, or a linear would be narrower than a pixel.
  bool isByBlock() const { return m_blocks; }
  QAction* byBlockAction() const { return m_byBlock; }
  void setCurrent(const LinearKey& key);

  PlotTable table() const override;
  QString describe(const QPointF& pixel) const override;
  // Of a run's cell that has the linear; null point when it is not drawn. For tests.
  QPointF pixelOf(const QString& run, const LinearKey& key) const;
  LinearKey linearAt(const QPointF& pixel) const;  // not valid: there is none

 Q_SIGNALS:
  void cellChosen(const QString& run, const qb::views::LinearKey& key);

 protected:
  void fitView() override;
  void rebuild() override;
  void activate(const QPointF& pixel) override;
  bool step(int direction) override;
  void laidOut() override;
  void keyPressEvent(QKeyEvent* event) override;

 private:
  struct Cell {
    int run = -1, row = -1;  // of m_errors; row: that is worst, where the column is a block
  };
  double valueOf(int run, int row) const;
  int worstOf(int run, int column) const;
  int columnOf(const LinearKey& key) const;
  Cell cellAt(const QPointF& pixel) const;
  void markCurrent();

  LinearErrors m_errors;
  QVector<int> m_linears;           // rows of m_errors
  QVector<QVector<int>> m_columns;  // rows of m_errors in each
  QVector<int> m_drawn;             // runs of m_errors
  LinearKey m_current;
  QAction* m_byBlock;
  bool m_blocks = false;
};

}  // namespace qb::views
