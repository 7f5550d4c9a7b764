#pragma once
#include "core/measure/report.h"
#include "views/plots/Plot.h"

namespace qb::views {

// Input channels with the largest activations as stems: channel against abs max, with the median of all channels as a line.
class OutlierPlot : public Plot {
  Q_OBJECT
 public:
  explicit OutlierPlot(QWidget* parent = nullptr);

  void setData(const std::vector<OutlierChannel>& channels, int64_t inFeatures, const QColor& colour);

  PlotTable table() const override;
  QString describe(const QPointF& pixel) const override;

 protected:
  void fitView() override;
  void rebuild() override;
  void restyle(const PlotColours& colours) override;

 private:
  std::vector<OutlierChannel> m_channels;  // by channel
  int64_t m_inFeatures = 0;
  double m_median = 0;
  QColor m_colour;
  QCPGraph* m_stems = nullptr;
  QCPGraph* m_line = nullptr;
  QVector<QCPItemText*> m_labels;
};

}  // namespace qb::views
