#pragma once
#include "core/text/token_profile.h"
#include "views/plots/Plot.h"

namespace qb::views {

// Share of each token of a text by its rank, both axes logarithmic: how long the tail is, and where two texts part.
class RankPlot : public Plot {
  Q_OBJECT
 public:
  struct Series {
    QString name;
    QColor colour;
    bool dashed = false;
    int64_t tokens = 0;
    QVector<int64_t> counts;   // largest first
    QVector<QString> spelled;  // of the first ranks
  };
  explicit RankPlot(QWidget* parent = nullptr);
  void setData(const QVector<Series>& series);

  PlotTable table() const override;
  QString describe(const QPointF& pixel) const override;

 protected:
  void fitView() override;
  void rebuild() override;
  void restyle(const PlotColours& colours) override;

 private:
  QVector<Series> m_series;
  QVector<QCPGraph*> m_graphs;
};

}  // namespace qb::views
