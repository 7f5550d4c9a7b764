#include "views/plots/BitStripPlot.h"

#include <QKeyEvent>
#include <cmath>

#include "views/models/LinearErrors.h"
#include "views/models/Sensitivities.h"

namespace qb::views {
namespace {

constexpr int kMostTexts = 1200;  // cells; of more, colours tell

qint64 place(int column, int row) { return qint64(column) << 32 | row; }

QString weightsText(const std::optional<QuantSpec>& weights) { return weights ? QString::fromStdString(describe(*weights)) : BitStripPlot::tr("kept in float"); }

}  // namespace

double codeBits(const std::optional<QuantSpec>& weights) {
  if (!weights) return 16;
  if (weights->storage != Storage::none) return std::floor(info_of(weights->storage).bits);
  return weights->type.bits;
}

BitStripPlot::BitStripPlot(QWidget* parent) : HeatPlot(parent) {
  xAxis->setLabel(tr("Block"));
  differenceAction()->setVisible(false);
  differenceAction()->setEnabled(false);
  logAction()->setVisible(false);
  logAction()->setEnabled(false);
}

void BitStripPlot::setData(const BitPlan& plan, const BitPlan& before) {
  m_plan = plan;
  m_before = before;
  refresh(plan.linears.empty());
}

void BitStripPlot::setCurrent(const LinearKey& key) {
  m_current = key;
  markCurrent();
  redraw();
}

void BitStripPlot::rebuild() {
  m_blocks.clear();
  m_kinds.clear();
  m_cells.clear();
  m_cellOfLinear.clear();
  m_cellAt.clear();
  QHash<QString, int> kinds;
  for (int i = 0; i < int(m_plan.linears.size()); ++i) {
    const PlannedLinear& l = m_plan.linears[size_t(i)];
    const QString kind = QString::fromStdString(l.kind);
    if (m_blocks.isEmpty() || m_blocks.back() != l.block) m_blocks.push_back(l.block);
    if (!kinds.contains(kind)) {
      kinds[kind] = int(m_kinds.size());
      m_kinds.push_back(kind);
    }
    const qint64 at = place(int(m_blocks.size()) - 1, kinds[kind]);
    if (!m_cellAt.contains(at)) {
      m_cellAt[at] = int(m_cells.size());
      m_cells.push_back({int(m_blocks.size()) - 1, kinds[kind], {}, false});
    }
    Cell& cell = m_cells[m_cellAt[at]];
    cell.linears.push_back(i);
    cell.changed = cell.changed || (size_t(i) < m_before.linears.size() && m_before.linears[size_t(i)].weights != l.weights);
    m_cellOfLinear[i] = m_cellAt[at];
  }
  QVector<PlaceTicker::Place> blocks, names;
  for (int i = 0; i < int(m_blocks.size()); ++i) blocks.push_back({double(i), QString::number(m_blocks[i])});
  for (int i = 0; i < int(m_kinds.size()); ++i) names.push_back({double(i), elide(shortName(m_kinds[i]), 20)});
  m_columnTicker->setPlaces(blocks);
  m_rowTicker->setPlaces(names);
  setColours(1.5, 8.5, tr("Bits of a weight's code"), true);
  clearCells(int(m_blocks.size()), int(m_kinds.size()));
  for (const Cell& cell : m_cells) {
    double bits = 0;
    for (const int i : cell.linears) bits += codeBits(m_plan.linears[size_t(i)].weights);
    bits /= double(cell.linears.size());
    if (bits <= 8.5) setCell(cell.block, cell.kind, bits);  // what stays float has no colour
  }
  for (QCPItemRect* frame : m_changed) removeItem(frame);
  m_changed.clear();
  for (const Cell& cell : m_cells) {
    if (!cell.changed) continue;
    auto* frame = new QCPItemRect(this);
    frame->setSelectable(false);
    frame->topLeft->setCoords(cell.block - 0.42, cell.kind - 0.40);
    frame->bottomRight->setCoords(cell.block + 0.42, cell.kind + 0.40);
    m_changed.push_back(frame);
  }
  markCurrent();
  placeTexts();
  restyle(colours());
}

// A digit in each cell where there is room: colour is never the only sign.
void BitStripPlot::placeTexts() {
  const QFontMetrics metrics(smallFont());
  const double wide = m_blocks.isEmpty() ? 0 : axisRect()->width() / xAxis->range().size(), high = m_kinds.isEmpty() ? 0 : axisRect()->height() / yAxis->range().size();
  const bool fits = wide >= metrics.horizontalAdvance(QStringLiteral("8")) + 3 && high >= metrics.height() * 0.8 && m_cells.size() <= kMostTexts;
  const int wanted = fits ? int(m_cells.size()) : 0;
  while (m_texts.size() > wanted) removeItem(m_texts.takeLast());
  while (m_texts.size() < wanted) {
    auto* text = new QCPItemText(this);
    text->setSelectable(false);
    text->setPositionAlignment(Qt::AlignCenter);
    m_texts.push_back(text);
  }
  for (int i = 0; i < wanted; ++i) {
    const auto& weights = m_plan.linears[size_t(m_cells[i].linears.front())].weights;
    const double bits = codeBits(weights);
    m_texts[i]->setText(weights ? QString::number(int(bits)) : QStringLiteral("F"));
    m_texts[i]->position->setCoords(m_cells[i].block, m_cells[i].kind);
    m_texts[i]->setFont(smallFont());
    const QColor behind = weights ? colourOf(bits) : colours().background;
    m_texts[i]->setColor(qGray(behind.rgb()) > 128 ? Qt::black : Qt::white);
  }
}

void BitStripPlot::restyle(const PlotColours& look) {
  HeatPlot::restyle(look);
  for (QCPItemRect* frame : m_changed) {
    frame->setPen(QPen(look.highlight, 2));
    frame->setBrush(Qt::NoBrush);
  }
}

void BitStripPlot::laidOut() {
  m_columnTicker->setMost(std::max(2, axisRect()->width() / std::max(1, fontMetrics().horizontalAdvance(QStringLiteral("0000")))));
  m_rowTicker->setMost(std::max(2, axisRect()->height() / std::max(1, fontMetrics().height())));
  placeTexts();
}

void BitStripPlot::fitView() {
  xAxis->setRange(-0.5, std::max<qsizetype>(1, m_blocks.size()) - 0.5);
  yAxis->setRange(-0.5, std::max<qsizetype>(1, m_kinds.size()) - 0.5);
}

const BitStripPlot::Cell* BitStripPlot::cellOf(int linear) const {
  const auto it = m_cellOfLinear.find(linear);
  return it == m_cellOfLinear.end() ? nullptr : &m_cells[*it];
}

int BitStripPlot::currentLinear() const {
  for (int i = 0; m_current.isValid() && i < int(m_plan.linears.size()); ++i)
    if (m_plan.linears[size_t(i)].block == m_current.block && QString::fromStdString(m_plan.linears[size_t(i)].name) == m_current.name) return i;
  return -1;
}

void BitStripPlot::markCurrent() {
  const Cell* cell = cellOf(currentLinear());
  frameCell(cell ? cell->block : -1, cell ? cell->kind : -1);
}

int BitStripPlot::linearAt(const QPointF& pixel) const {
  if (isEmpty() || !axisRect()->rect().contains(pixel.toPoint())) return -1;
  const auto column = std::lround(xAxis->pixelToCoord(pixel.x())), row = std::lround(yAxis->pixelToCoord(pixel.y()));
  const auto it = m_cellAt.find(place(int(column), int(row)));
  return it == m_cellAt.end() ? -1 : m_cells[*it].linears.front();
}

QPointF BitStripPlot::pixelOf(int linear) const {
  const Cell* cell = cellOf(linear);
  return cell ? QPointF(xAxis->coordToPixel(cell->block), yAxis->coordToPixel(cell->kind)) : QPointF();
}

QString BitStripPlot::describe(const QPointF& pixel) const {
  const int at = linearAt(pixel);
  if (at < 0) return {};
  const PlannedLinear& l = m_plan.linears[size_t(at)];
  QString text = tr("%1 · %2: %3").arg(l.block).arg(QString::fromStdString(l.kind), weightsText(l.weights));
  if (l.weights) text += tr(", %1 bits a weight with scales").arg(formatNumber(bits_per_weight(*l.weights, l.out_features, l.in_features), 4));
  if (size_t(at) < m_before.linears.size() && m_before.linears[size_t(at)].weights != l.weights) text += tr("\nbefore: %1").arg(weightsText(m_before.linears[size_t(at)].weights));
  if (l.ignored) return text + tr("\nignored by the recipe");
  if (m_plan.ties[l.tie].size() > 1) text += tr("\nengines join %1: they have one scheme").arg(tiedTitle(m_plan, size_t(at)));
  return text + tr("\nclick, or type a digit, to change it");
}

void BitStripPlot::activate(const QPointF& pixel) {
  const int at = linearAt(pixel);
  if (at < 0) return;
  Q_EMIT linearChosen(at);
  Q_EMIT bitsWanted(at, mapToGlobal(pixel.toPoint()));
}

bool BitStripPlot::step(int direction) {
  if (isEmpty()) return false;
  const Cell* cell = cellOf(currentLinear());
  const int at = cell ? std::clamp(int(cell - m_cells.data()) + direction, 0, int(m_cells.size()) - 1) : 0;
  Q_EMIT linearChosen(m_cells[at].linears.front());
  return true;
}

void BitStripPlot::keyPressEvent(QKeyEvent* event) {
  const int at = currentLinear();
  const bool held = event->modifiers() & (Qt::AltModifier | Qt::ControlModifier);
  if (at >= 0 && !held && event->key() >= Qt::Key_1 && event->key() <= Qt::Key_8) return Q_EMIT bitsTyped(at, event->key() - Qt::Key_0);
  if (at >= 0 && !held && (event->key() == Qt::Key_Return || event->key() == Qt::Key_Enter)) return Q_EMIT bitsWanted(at, mapToGlobal(pixelOf(at).toPoint()));
  HeatPlot::keyPressEvent(event);
}

PlotTable BitStripPlot::table() const {
  PlotTable table{{tr("block"), tr("linear"), tr("weights"), tr("bits of a code"), tr("bits a weight with scales"), tr("weights before")}, {}};
  for (size_t i = 0; i < m_plan.linears.size(); ++i) {
    const PlannedLinear& l = m_plan.linears[i];
    table.rows.push_back({l.block, QString::fromStdString(l.name), weightsText(l.weights), codeBits(l.weights), l.weights ? bits_per_weight(*l.weights, l.out_features, l.in_features) : 16.0,
                          i < m_before.linears.size() ? weightsText(m_before.linears[i].weights) : QString()});
  }
  return table;
}

}  // namespace qb::views
