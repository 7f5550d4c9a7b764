#include "views/pages/Inspector.h"

#include <QEvent>
#include <QHeaderView>
#include <QLabel>
#include <QScrollArea>
#include <QScrollBar>
#include <QTableView>
#include <QTimer>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>

#include "views/models/FactsModel.h"
#include "views/models/LinearErrors.h"
#include "views/plots/HistogramPlot.h"
#include "views/plots/OutlierPlot.h"

namespace qb::views {
namespace {

QLabel* makeTitle() {
  auto* label = new QLabel;
  QFont font = label->font();
  font.setWeight(QFont::DemiBold);
  label->setFont(font);
  label->setWordWrap(true);
  label->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
  return label;
}

}  // namespace

Inspector::Inspector(Selection* selection, QWidget* parent)
    : QWidget(parent),
      m_selection(selection),
      m_timer(new QTimer(this)),
      m_linearFacts(new FactsModel(this)),
      m_runFacts(new FactsModel(this)),
      m_numbers(new LinearNumbersModel(this)),
      m_weights(new HistogramPlot),
      m_weightError(new HistogramPlot),
      m_outputError(new HistogramPlot),
      m_input(new HistogramPlot),
      m_outliers(new OutlierPlot) {
  m_timer->setSingleShot(true);
  m_timer->setInterval(40);
  connect(m_timer, &QTimer::timeout, this, &Inspector::updateData);

  m_hint = new QLabel(tr("Choose a run in the list of runs, or a linear on the Layers page, to see it here."));
  m_hint->setWordWrap(true);
  m_hint->setAlignment(Qt::AlignCenter);
  m_hint->setMargin(16);
  m_hint->setForegroundRole(QPalette::PlaceholderText);

  m_linearTitle = makeTitle();
  m_linearRun = new QLabel;
  m_linearRun->setWordWrap(true);
  m_linearFactsTable = makeTable(m_linearFacts, tr("Facts of the linear"));
  m_numbersTable = makeTable(m_numbers, tr("Figures of the linear in each run"));
  m_numbersTable->horizontalHeader()->show();
  m_numbersTable->horizontalHeader()->setDefaultSectionSize(fontMetrics().horizontalAdvance(QStringLiteral("0.000e-00")) + 22);
  m_numbersTable->horizontalHeader()->setStretchLastSection(false);
  m_numbersTable->verticalHeader()->show();
  m_numbersTable->setHorizontalScrollBarPolicy(Qt::ScrollBarAsNeeded);
  m_numbersTable->setSelectionBehavior(QAbstractItemView::SelectItems);

  const QString noHistogram = tr("This run recorded no histogram here.");
  m_linearBox = new QWidget;
  auto* linear = new QVBoxLayout(m_linearBox);
  linear->setContentsMargins(0, 0, 0, 0);
  linear->addWidget(m_linearTitle);
  linear->addWidget(m_linearRun);
  linear->addWidget(m_linearFactsTable);
  for (HistogramPlot* plot : {m_weights, m_weightError, m_outputError, m_input}) {
    plot->setEmptyText(noHistogram);
    plot->installEventFilter(this);
    plot->setWheelNeedsFocus(true);
    linear->addWidget(plot);
  }
  m_outliers->setFixedHeight(210);
  m_outliers->setWheelNeedsFocus(true);
  linear->addWidget(m_outliers);
  linear->addWidget(m_numbersTable);

  m_runTitle = makeTitle();
  m_runFactsTable = makeTable(m_runFacts, tr("Facts of the run"));
  m_runBox = new QWidget;
  auto* run = new QVBoxLayout(m_runBox);
  run->setContentsMargins(0, 0, 0, 0);
  run->addWidget(m_runTitle);
  run->addWidget(m_runFactsTable);

  m_content = new QWidget;
  auto* content = new QVBoxLayout(m_content);
  content->setContentsMargins(8, 6, 8, 8);
  content->setSpacing(10);
  content->addWidget(m_hint);
  content->addWidget(m_linearBox);
  content->addWidget(m_runBox);
  content->addStretch(1);
  auto* scroll = new QScrollArea;
  scroll->setWidgetResizable(true);
  scroll->setFrameShape(QFrame::NoFrame);
  scroll->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  scroll->setWidget(m_content);
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->addWidget(scroll);
  setMinimumWidth(220);

  connect(selection, &Selection::runsChanged, this, &Inspector::scheduleUpdate);
  connect(selection, &Selection::runUpdated, this, &Inspector::scheduleUpdate);
  connect(selection, &Selection::currentRunChanged, this, &Inspector::scheduleUpdate);
  connect(selection, &Selection::currentLinearChanged, this, &Inspector::scheduleUpdate);
  updateData();
}

QTableView* Inspector::makeTable(QAbstractItemModel* model, const QString& name) {
  auto* table = new QTableView;
  table->setModel(model);
  table->setAccessibleName(name);
  table->setShowGrid(false);
  table->setAlternatingRowColors(true);
  table->setFrameShape(QFrame::NoFrame);
  table->setWordWrap(true);
  table->setTextElideMode(Qt::ElideRight);
  table->setTabKeyNavigation(false);
  table->setEditTriggers(QAbstractItemView::NoEditTriggers);
  table->setSelectionBehavior(QAbstractItemView::SelectRows);
  table->setVerticalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  table->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  table->horizontalHeader()->hide();
  table->horizontalHeader()->setStretchLastSection(true);
  table->verticalHeader()->hide();
  table->verticalHeader()->setMinimumSectionSize(fontMetrics().height() + 4);
  // The tables are as high as their rows: the inspector scrolls as a whole.
  table->viewport()->installEventFilter(this);
  return table;
}

bool Inspector::eventFilter(QObject* object, QEvent* event) {
  if (event->type() == QEvent::Resize && qobject_cast<HistogramPlot*>(object))
    QMetaObject::invokeMethod(this, &Inspector::fitHistograms, Qt::QueuedConnection);
  else if (event->type() == QEvent::Resize) {
    const auto* resize = static_cast<QResizeEvent*>(event);
    auto* table = qobject_cast<QTableView*>(object->parent());
    // The rows' heights follow from the width, which the header has only after this event.
    if (table && resize->size().width() != resize->oldSize().width())
      QMetaObject::invokeMethod(this, [this, table] { fitTable(table); }, Qt::QueuedConnection);
  }
  if (event->type() == QEvent::Wheel) {
    auto* table = qobject_cast<QTableView*>(object->parent());
    const auto* wheel = static_cast<QWheelEvent*>(event);
    if (table && std::abs(wheel->angleDelta().y()) >= std::abs(wheel->angleDelta().x())) {
      event->ignore();
      return true;
    }
  }
  return QWidget::eventFilter(object, event);
}

void Inspector::fitTable(QTableView* table) {
  table->resizeRowsToContents();
  int height = 2;
  for (int row = 0; row < table->model()->rowCount(); ++row) height += table->rowHeight(row);
  if (!table->horizontalHeader()->isHidden()) height += table->horizontalHeader()->sizeHint().height();
  if (table->horizontalScrollBarPolicy() == Qt::ScrollBarAsNeeded && table->horizontalHeader()->length() > table->viewport()->width())
    height += table->horizontalScrollBar()->sizeHint().height();
  table->setFixedHeight(height);
}

// Narrow plots of many runs need high captions and legends; their axes keep their height.
void Inspector::fitHistograms() {
  for (HistogramPlot* plot : {m_weights, m_weightError, m_outputError, m_input}) plot->setFixedHeight(170 + plot->headHeight());
}

void Inspector::scheduleUpdate() {
  if (!m_timer->isActive()) m_timer->start();
}

void Inspector::updateData() {
  m_timer->stop();
  const RunEntry* run = currentEntry(*m_selection);
  m_hint->setVisible(!run);
  m_runBox->setVisible(run);
  updateLinear(run);
  if (run) {
    m_runTitle->setText(tr("Run: %1").arg(runName(*run->report)));
    m_runFacts->setFacts(runFacts(*run->report));
  }
  for (QTableView* table : {m_linearFactsTable, m_runFactsTable}) {
    table->resizeColumnToContents(0);
    table->setColumnWidth(0, std::min(table->columnWidth(0) + 4, std::max(90, width() * 2 / 5)));
  }
  for (QTableView* table : {m_linearFactsTable, m_runFactsTable, m_numbersTable}) fitTable(table);
  fitHistograms();
}

void Inspector::updateLinear(const RunEntry* run) {
  const LinearKey key = m_selection->currentLinear();
  const LinearReport* linear = run ? findLinear(*run->report, key) : nullptr;
  m_linearBox->setVisible(run && key.isValid());
  if (!m_linearBox->isVisibleTo(this)) return;
  m_linearTitle->setText(linearTitle(key));
  m_linearRun->setText(linear ? tr("in %1").arg(runName(*run->report)) : tr("%1 has not measured this linear yet.").arg(runName(*run->report)));
  for (QWidget* each : std::initializer_list<QWidget*>{m_linearFactsTable, m_weights, m_input, m_outliers}) each->setVisible(linear);

  QVector<RunEntry> runs = drawnRuns(*m_selection);
  // The current run's figures first: the inspector is narrow.
  std::stable_partition(runs.begin(), runs.end(), [run](const RunEntry& each) { return each.id == run->id; });
  m_numbers->setRuns(runs, key);
  const Folding folded(*m_selection);
  QVector<HistogramSeries> weightErrors, outputErrors;
  for (const RunEntry& each : runs)
    if (const LinearReport* other = findLinear(*each.report, key)) {
      const QString name = runName(*each.report);
      weightErrors.push_back({name, each.colour, other->weight_error, false, each.id == run->id, markerOf(each.colour, each.marker), folded(each.id)});
      outputErrors.push_back({name, each.colour, other->output_error, false, each.id == run->id, markerOf(each.colour, each.marker), folded(each.id)});
    }
  m_weightError->setCaption(tr("Weight error"), weightBasis(runs, Metric::WeightMse));
  m_weightError->setData(weightErrors, tr("Weight, quantized − float"));
  m_outputError->setCaption(tr("Output error"), errorConditions(*m_selection));
  m_outputError->setData(outputErrors, tr("Output, quantized − float"));
  if (!linear) return;
  m_linearFacts->setFacts(linearFacts(*linear));
  m_weights->setCaption(tr("Weights before and after"));
  m_weights->setData({{tr("before (float)"), {}, linear->weight_before, true, true}, {tr("after"), run->colour, linear->weight_after, false, false}},
                     tr("Weight"));
  m_input->setCaption(tr("Input activations"), tr("on the calibration text"));
  m_input->setData({{tr("before (float)"), {}, linear->input_before, true, true}, {tr("after"), run->colour, linear->input_after, false, false}},
                   tr("Activation"));
  m_outliers->setCaption(tr("Outlier channels of the input"),
                         linear->outliers.empty() ? QString() : tr("largest %1 of %2 channels by ratio to the median").arg(linear->outliers.size()).arg(linear->in_features));
  m_outliers->setData(linear->outliers, linear->in_features, run->colour);
}

}  // namespace qb::views
