#include "views/plots/CostPlot.h"

#include <cmath>

#include "views/models/Format.h"
#include "views/plots/MetricPlot.h"

namespace qb::views {
namespace {
constexpr double kMiB = 1024.0 * 1024, kGiB = 1024 * kMiB;
}

CostPlot::CostPlot(QWidget* parent) : Plot(parent), m_names(new PlaceTicker) {
  setEmptyText(tr("Run a recipe to see its time and memory."));
  auto* rects = new QCPLayoutGrid;
  rects->setColumnSpacing(6);
  QCPAxisRect* time = axisRect();
  plotLayout()->take(time);
  plotLayout()->simplify();
  plotLayout()->addElement(plotLayout()->rowCount(), 0, rects);
  rects->addElement(0, 0, time);
  m_memoryRect = new QCPAxisRect(this);
  rects->addElement(0, 1, m_memoryRect);
  rects->setColumnStretchFactor(0, 1.7);
  auto* margins = new QCPMarginGroup(this);
  time->setMarginGroup(QCP::msTop | QCP::msBottom, margins);
  m_memoryRect->setMarginGroup(QCP::msTop | QCP::msBottom, margins);
  time->setMinimumMargins(QMargins(4, 4, 8, 4));
  m_memoryRect->setMinimumMargins(QMargins(4, 4, 14, 4));

  yAxis->setTicker(m_names);
  QCPAxis* memoryY = m_memoryRect->axis(QCPAxis::atLeft);
  memoryY->setTickLabels(false);
  memoryY->setTicks(false);
  for (QCPAxis* axis : {yAxis, memoryY}) {
    axis->setRangeReversed(true);
    axis->grid()->setVisible(false);
  }
  m_memoryRect->setRangeZoomFactor(0.85);
  for (QCPAxisRect* rect : {time, m_memoryRect}) {  // rows turn as pages
    rect->setRangeZoomAxes({rect->axis(QCPAxis::atBottom)});
    rect->setRangeDragAxes({rect->axis(QCPAxis::atBottom)});
  }
  // Both halves show the same runs.
  connect(yAxis, qOverload<const QCPRange&>(&QCPAxis::rangeChanged), memoryY, qOverload<const QCPRange&>(&QCPAxis::setRange));
  connect(memoryY, qOverload<const QCPRange&>(&QCPAxis::rangeChanged), yAxis, qOverload<const QCPRange&>(&QCPAxis::setRange));
  setLegendShown(true);
}

void CostPlot::setData(const Accuracy& accuracy) {
  m_runs.clear();
  QVector<int> kept;
  double longest = 0;
  int64_t largest = 0;
  for (const Accuracy::Run& run : accuracy.runs) {
    const RunReport& report = *run.report;
    if (!(report.quantize_seconds > 0) && !(report.evaluate_seconds > 0) && report.peak_rss_bytes <= 0) continue;
    if (run.kept) kept.push_back(int(m_runs.size()));
    m_runs.push_back(run);
    longest = std::max(longest, report.quantize_seconds + report.evaluate_seconds);
    largest = std::max<int64_t>(largest, report.peak_rss_bytes);
  }
  m_divisor = longest > 3 * 3600 ? 3600 : longest > 300 ? 60 : 1;
  xAxis->setLabel(m_divisor == 3600 ? tr("Time (h)") : m_divisor == 60 ? tr("Time (min)") : tr("Time (s)"));
  m_bytes = double(largest) < kGiB ? kMiB : kGiB;
  m_memoryRect->axis(QCPAxis::atBottom)->setLabel(m_bytes == kMiB ? tr("Peak memory (MiB)") : tr("Peak memory (GiB)"));
  setRows(int(m_runs.size()), kept);
  refresh(m_runs.isEmpty());
}

void CostPlot::rebuild() {
  clearPlottables();
  m_quantize = new QCPBars(yAxis, xAxis);
  m_evaluate = new QCPBars(yAxis, xAxis);
  m_memory = new QCPBars(m_memoryRect->axis(QCPAxis::atLeft), m_memoryRect->axis(QCPAxis::atBottom));
  m_quantize->setName(tr("Quantize"));
  m_evaluate->setName(tr("Evaluate"));
  m_memory->setName(tr("Memory"));
  m_memory->removeFromLegend();
  QVector<double> places, quantize, evaluate, memory;
  for (int i = 0; i < int(pages().visible().size()); ++i) {
    const RunReport& report = *m_runs[pages().visible()[i]].report;
    places.push_back(i);
    quantize.push_back(report.quantize_seconds / m_divisor);
    evaluate.push_back(report.evaluate_seconds / m_divisor);
    memory.push_back(double(report.peak_rss_bytes) / m_bytes);
  }
  m_quantize->setData(places, quantize, true);
  m_evaluate->setData(places, evaluate, true);
  m_memory->setData(places, memory, true);
  m_evaluate->moveAbove(m_quantize);
  for (QCPBars* bars : {m_quantize, m_evaluate, m_memory}) bars->setWidth(0.62);
  // Stacked bars have no zero on a logarithmic axis; they start at the lower edge.
  m_quantize->setBaseValue(isLogarithmic() ? 1e-9 : 0);
  yAxis->setRange(-0.6, std::max<double>(1, double(pages().visible().size())) - 0.4);
  restyle(colours());
}

void CostPlot::restyle(const PlotColours& look) {
  Plot::restyle(look);
  if (!m_quantize) return;
  const auto fill = [](QCPBars* bars, const QColor& colour, Qt::BrushStyle style) {
    bars->setPen(QPen(colour, 1));
    QColor inside = colour;
    inside.setAlphaF(style == Qt::SolidPattern ? 0.85f : 0.9f);
    bars->setBrush(QBrush(inside, style));
  };
  // Neutral colours: a run's own would say run, not phase; a pattern beside the colour.
  fill(m_quantize, look.dark ? QColor(0x8f, 0xa8, 0xc4) : QColor(0x4a, 0x62, 0x7e), Qt::SolidPattern);
  fill(m_evaluate, look.dark ? QColor(0x8f, 0xa8, 0xc4) : QColor(0x4a, 0x62, 0x7e), Qt::BDiagPattern);
  fill(m_memory, look.dark ? QColor(0xc3, 0xb0, 0x8a) : QColor(0x85, 0x70, 0x46), Qt::SolidPattern);
}

void CostPlot::laidOut() {
  QStringList names;
  for (const int row : pages().visible()) names.push_back(m_runs[row].name);
  m_names->setPlaces(nameTicks(names, smallFont(), std::max(60, int(viewport().width() * 0.30))));
  m_names->setMost(std::max(1, int(names.size())));
}

void CostPlot::fitView() {
  QVector<double> times, memory;
  for (const auto& run : m_runs) {
    times.push_back((run.report->quantize_seconds + run.report->evaluate_seconds) / m_divisor);
    if (isLogarithmic()) times.push_back(run.report->quantize_seconds / m_divisor);
    memory.push_back(double(run.report->peak_rss_bytes) / m_bytes);
  }
  QCPRange range = limits(times, isLogarithmic(), true);
  if (isLogarithmic()) range.lower /= 2;
  xAxis->setRange(range);
  m_memoryRect->axis(QCPAxis::atBottom)->setRange(limits(memory, false, true));
}

int CostPlot::runAt(const QPointF& pixel) const {
  const auto at = std::lround(yAxis->pixelToCoord(pixel.y()));
  return pixel.y() >= axisRect()->top() && pixel.y() <= axisRect()->bottom() && at >= 0 && at < pages().visible().size() ? pages().visible()[at] : -1;
}

QString CostPlot::describe(const QPointF& pixel) const {
  const int at = runAt(pixel);
  if (at < 0) return {};
  const RunReport& report = *m_runs[at].report;
  QStringList lines{m_runs[at].name, tr("quantize %1, evaluate %2").arg(formatDuration(report.quantize_seconds), formatDuration(report.evaluate_seconds)),
                    tr("peak memory %1").arg(formatBytes(double(report.peak_rss_bytes)))};
  const QString machine = QString::fromStdString(report.environment.device.empty() ? report.environment.cpu : report.environment.device);
  if (!machine.isEmpty()) lines.push_back(tr("on %1, %2 threads").arg(machine).arg(report.environment.threads));
  return lines.join(QLatin1Char('\n'));
}

void CostPlot::activate(const QPointF& pixel) {
  const int at = runAt(pixel);
  if (at >= 0) Q_EMIT runChosen(m_runs[at].id);
}

PlotTable CostPlot::table() const {
  PlotTable table{{tr("run"), tr("quantize (s)"), tr("evaluate (s)"), tr("peak memory (bytes)"), tr("device"), tr("threads")}, {}};
  for (const auto& run : m_runs)
    table.rows.push_back({run.name, run.report->quantize_seconds, run.report->evaluate_seconds, qlonglong(run.report->peak_rss_bytes),
                          QString::fromStdString(run.report->environment.device), run.report->environment.threads});
  return table;
}

}  // namespace qb::views
