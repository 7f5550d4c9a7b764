#pragma once
#include "views/models/Accuracy.h"
#include "views/plots/Plot.h"

namespace qb::views {

// Size against one figure: bits per weight, or GiB of the quantized linears, with the frontier that no run beats.
class ParetoPlot : public Plot {
  Q_OBJECT
 public:
  explicit ParetoPlot(QWidget* parent = nullptr);
  void setData(const Accuracy& accuracy);
  void setMarked(const QString& run);  // gets a ring; empty: none
  void setBytes(bool on) { m_bytes->setChecked(on); }
  PlotTable table() const override;
  QString describe(const QPointF& pixel) const override;

 Q_SIGNALS:
  void runChosen(const QString& id);

 protected:
  void fitView() override;
  void rebuild() override;
  void restyle(const PlotColours& colours) override;
  void activate(const QPointF& pixel) override;

 private:
  struct Point {
    QString id, name;
    double x = 0, y = 0, error = 0;
    QColor colour;
    int marker = 0;
  };
  void placeLabels();
  int pointAt(const QPointF& pixel) const;
  QString unit() const;
  Accuracy m_accuracy;
  QVector<Point> m_points;
  QVector<int> m_frontier;
  QAction* m_bytes;
  QCPGraph *m_line = nullptr, *m_ring = nullptr;
  QString m_marked;
  QCPItemStraightLine* m_floatLine;
  QCPItemText* m_floatText;
  QVector<QCPItemText*> m_labels;
};

}  // namespace qb::views
