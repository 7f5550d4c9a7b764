#pragma once
#include "core/recipe/bit_plan.h"
#include "views/plots/HeatPlot.h"

namespace qb::views {

// Blocks × kinds of linears, coloured by the bits of their weights; those that differ from what the plan began with are framed.
class BitStripPlot : public HeatPlot {
  Q_OBJECT
 public:
  explicit BitStripPlot(QWidget* parent = nullptr);

  void setData(const BitPlan& plan, const BitPlan& before);
  void setCurrent(const LinearKey& key);
  int linearAt(const QPointF& pixel) const;  // of the plan; -1: there is none
  QPointF pixelOf(int linear) const;

  PlotTable table() const override;
  QString describe(const QPointF& pixel) const override;

 Q_SIGNALS:
  void linearChosen(int linear);                                   // of the plan
  void bitsWanted(int linear, const QPoint& place);                // a click or Return: place on the screen
  void bitsTyped(int linear, int bits);                            // a digit

 protected:
  void fitView() override;
  void rebuild() override;
  void restyle(const PlotColours& colours) override;
  void activate(const QPointF& pixel) override;
  bool step(int direction) override;
  void laidOut() override;
  void keyPressEvent(QKeyEvent* event) override;

 private:
  // What stands in one cell: of experts many.
  struct Cell {
    int block = 0, kind = 0;
    QVector<int> linears;
    bool changed = false;
  };
  const Cell* cellOf(int linear) const;
  int currentLinear() const;
  void markCurrent();
  void placeTexts();

  BitPlan m_plan, m_before;
  QVector<int> m_blocks;
  QStringList m_kinds;
  QVector<Cell> m_cells;
  QHash<int, int> m_cellOfLinear;
  QHash<qint64, int> m_cellAt;
  QVector<QCPItemText*> m_texts;
  QVector<QCPItemRect*> m_changed;
  LinearKey m_current;
};

// Of the codes: 4 of int4 and q4_K; 16 of a float one.
double codeBits(const std::optional<QuantSpec>& weights);

}  // namespace qb::views
