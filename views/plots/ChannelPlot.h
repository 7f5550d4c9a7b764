#pragma once
#include "core/measure/tensor_summary.h"
#include "views/plots/Plot.h"

namespace qb::views {

// Mean and largest absolute value of each channel of a tensor, by the channel's number, with the median of the largest ones as a line.
class ChannelPlot : public Plot {
  Q_OBJECT
 public:
  explicit ChannelPlot(QWidget* parent = nullptr);

  void setData(const ChannelSizes& sizes, const QString& axis);  // axis: "Input channel"
  const ChannelSizes& sizes() const { return m_sizes; }

  PlotTable table() const override;
  QString describe(const QPointF& pixel) const override;

 protected:
  void fitView() override;
  void rebuild() override;
  void restyle(const PlotColours& colours) override;

 private:
  double place(size_t entry) const;  // middle of its channels
  ChannelSizes m_sizes;
  double m_median = 0, m_floor = 0;
  QCPGraph *m_mean = nullptr, *m_largest = nullptr, *m_line = nullptr;
};

}  // namespace qb::views
