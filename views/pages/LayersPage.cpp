#include "views/pages/LayersPage.h"

#include <QApplication>
#include <QComboBox>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QLineEdit>
#include <QMenu>
#include <QPushButton>
#include <QSpinBox>
#include <QSplitter>
#include <QStackedWidget>
#include <QTableView>
#include <QTimer>
#include <QToolButton>
#include <QVBoxLayout>
#include <cmath>

#include "views/models/HotSpotModel.h"
#include "views/pages/BitsMenu.h"
#include "views/plots/HeatMapPlot.h"
#include "views/plots/LinearErrorsPlot.h"
#include "views/plots/RunsHeatPlot.h"

namespace qb::views {
namespace {

// In the colour of a selection: Fusion draws a checked button a little darker, which a dark theme hides.
void showWhenChecked(QToolButton* button) {
  QObject::connect(button, &QToolButton::toggled, button, [button](bool on) {
    QPalette colours;
    if (on) {
      colours.setColor(QPalette::Button, QApplication::palette().color(QPalette::Highlight));
      colours.setColor(QPalette::ButtonText, QApplication::palette().color(QPalette::HighlightedText));
    }
    button->setPalette(colours);
  });
}

}  // namespace

LayersPage::LayersPage(Selection* selection, QWidget* parent)
    : QWidget(parent),
      m_selection(selection),
      m_timer(new QTimer(this)),
      m_views(new QStackedWidget),
      m_plot(new LinearErrorsPlot),
      m_runs(new RunsHeatPlot),
      m_heat(new HeatMapPlot),
      m_hotSpots(new HotSpotModel(this)),
      m_filter(new HotSpotFilter(this)) {
  // Blocks may arrive faster than the eye follows; what changed meanwhile is drawn at once.
  m_timer->setSingleShot(true);
  m_timer->setInterval(40);
  connect(m_timer, &QTimer::timeout, this, &LayersPage::updateData);

  auto* lower = new QSplitter(Qt::Horizontal);
  lower->addWidget(m_heat);
  lower->addWidget(makeHotSpots());
  lower->setStretchFactor(0, 5);
  lower->setStretchFactor(1, 5);
  lower->setSizes({350, 350});
  auto* splitter = new QSplitter(Qt::Vertical);
  m_views->addWidget(m_plot);
  m_views->addWidget(m_runs);
  splitter->addWidget(m_views);
  splitter->addWidget(lower);
  splitter->setStretchFactor(0, 5);
  splitter->setStretchFactor(1, 5);
  splitter->setSizes({260, 260});
  for (QSplitter* each : {lower, splitter}) each->setChildrenCollapsible(false);

  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->setSpacing(0);
  layout->addWidget(makeControls());
  layout->addWidget(splitter, 1);

  const auto choose = [this](const LinearKey& key) { m_selection->setCurrentLinear(key); };
  connect(m_plot, &LinearErrorsPlot::linearChosen, this, choose);
  connect(m_heat, &HeatMapPlot::linearChosen, this, choose);
  connect(m_runs, &RunsHeatPlot::cellChosen, this, [this](const QString& run, const LinearKey& key) {
    m_selection->setCurrentRun(run);
    m_selection->setCurrentLinear(key);
  });
  const auto give = [this](const LinearKey& key, int bits) { Q_EMIT bitsWanted(key, bits); };
  m_plot->setMenuExtension([this, give](QMenu* menu, const QPointF& pixel) { addBitsMenu(menu, m_plot->linearAt(pixel), give); });
  m_heat->setMenuExtension([this, give](QMenu* menu, const QPointF& pixel) { addBitsMenu(menu, m_heat->linearAt(pixel), give); });
  m_runs->setMenuExtension([this, give](QMenu* menu, const QPointF& pixel) { addBitsMenu(menu, m_runs->linearAt(pixel), give); });
  connect(m_table, &QWidget::customContextMenuRequested, this, [this, give](const QPoint& place) {
    const QModelIndex index = m_table->indexAt(place);
    if (!index.isValid()) return;
    auto* menu = new QMenu(this);
    menu->setAttribute(Qt::WA_DeleteOnClose);
    addBitsMenu(menu, index.data(HotSpotModel::KeyRole).value<LinearKey>(), give);
    menu->popup(m_table->viewport()->mapToGlobal(place));
  });
  connect(selection, &Selection::runsChanged, this, &LayersPage::scheduleUpdate);
  connect(selection, &Selection::runUpdated, this, &LayersPage::scheduleUpdate);
  connect(selection, &Selection::currentRunChanged, this, &LayersPage::scheduleUpdate);
  connect(selection, &Selection::baselineChanged, this, &LayersPage::scheduleUpdate);
  connect(selection, &Selection::metricChanged, this, &LayersPage::metricChosen);
  connect(selection, &Selection::currentLinearChanged, this, &LayersPage::showCurrentLinear);
  metricChosen();
  updateData();
}

QWidget* LayersPage::makeControls() {
  auto* bar = new QWidget;
  auto* layout = new QHBoxLayout(bar);
  layout->setContentsMargins(6, 4, 6, 4);

  m_metric = new QComboBox;
  for (const Metric metric : allMetrics()) m_metric->addItem(metricLabel(metric), int(metric));
  m_metric->setAccessibleName(tr("Figure to draw"));
  m_metric->setToolTip(tr("Figure to draw for every linear"));
  connect(m_metric, &QComboBox::activated, this, [this] { m_selection->setMetric(Metric(m_metric->currentData().toInt())); });

  m_view = new QComboBox;
  m_view->addItem(tr("Curves"));
  m_view->addItem(tr("Runs × linears"));
  m_view->addItem(tr("Runs × blocks"));
  m_view->setAccessibleName(tr("How runs are drawn"));
  m_view->setToolTip(tr("Errors of all shown runs: a curve each, or a heat map with a row each"));
  connect(m_view, &QComboBox::activated, this, &LayersPage::chooseView);

  m_order = new QComboBox;
  m_order->addItem(tr("By depth"), int(LinearOrder::Depth));
  m_order->addItem(tr("By value"), int(LinearOrder::Value));
  m_order->addItem(tr("By Δ"), int(LinearOrder::Delta));
  m_order->setAccessibleName(tr("Order of linears"));
  m_order->setToolTip(tr("Order of linears from left to right: as in the model; the worst value first; the largest change for the worse against the baseline first. Of the current run"));
  connect(m_order, &QComboBox::activated, this, &LayersPage::updateOrder);

  m_subset = new QComboBox;
  m_subset->addItem(tr("All linears"), QString());
  m_subset->setAccessibleName(tr("Linears to show"));
  m_subset->setToolTip(tr("Only linears that share this kind of input"));
  connect(m_subset, &QComboBox::activated, this, &LayersPage::updateOrder);

  m_log = new QToolButton;
  m_log->setText(tr("Log"));
  m_log->setCheckable(true);
  m_log->setToolTip(tr("Logarithmic error axis and colours"));
  m_log->setAccessibleName(tr("Logarithmic axis"));
  connect(m_log, &QToolButton::toggled, this, [this](bool on) {
    m_plot->setLogarithmic(on);
    m_heat->setLogarithmic(on);
    m_runs->setLogarithmic(on);
  });
  showWhenChecked(m_log);
  for (Plot* plot : std::initializer_list<Plot*>{m_plot, m_heat, m_runs}) connect(plot->logAction(), &QAction::toggled, m_log, &QToolButton::setChecked);

  m_difference = new QToolButton;
  m_difference->setText(tr("Δ map"));
  m_difference->setCheckable(true);
  m_difference->setToolTip(tr("Heat maps show the difference to the baseline run"));
  m_difference->setAccessibleName(tr("Heat map of the difference to the baseline"));
  showWhenChecked(m_difference);
  for (HeatPlot* map : std::initializer_list<HeatPlot*>{m_heat, m_runs}) {
    connect(m_difference, &QToolButton::toggled, map, &HeatPlot::setDifference);
    connect(map->differenceAction(), &QAction::toggled, m_difference, &QToolButton::setChecked);
  }
  for (HeatPlot* map : std::initializer_list<HeatPlot*>{m_heat, m_runs}) connect(map->differenceAction(), &QAction::toggled, this, &LayersPage::updateOrder);
  connect(m_runs->byBlockAction(), &QAction::toggled, this, [this](bool on) {
    if (m_view->currentIndex() > 0) m_view->setCurrentIndex(on ? 2 : 1);
  });

  auto* more = new QPushButton(tr("Plot"));  // a tool button would draw its arrow over the text
  more->setAccessibleName(tr("Actions of the plots"));
  auto* menu = new QMenu(more);
  connect(menu, &QMenu::aboutToShow, this, [this, menu] {
    menu->clear();
    if (m_views->currentWidget() == m_plot)
      m_plot->fillMenu(menu->addMenu(tr("&Errors of all linears")));
    else
      m_runs->fillMenu(menu->addMenu(tr("Heat map of all &runs")));
    m_heat->fillMenu(menu->addMenu(tr("&Heat map")));
  });
  more->setMenu(menu);

  for (QComboBox* box : {m_metric, m_view, m_order, m_subset}) {
    box->setSizeAdjustPolicy(QComboBox::AdjustToContents);
    layout->addWidget(box);
  }
  layout->addWidget(m_log);
  layout->addWidget(m_difference);
  layout->addStretch(1);
  layout->addWidget(more);
  return bar;
}

QWidget* LayersPage::makeHotSpots() {
  m_filter->setSourceModel(m_hotSpots);
  m_table = new QTableView;
  m_table->setModel(m_filter);
  m_table->setSortingEnabled(true);
  m_table->sortByColumn(HotSpotModel::Rank, Qt::AscendingOrder);
  m_table->setSelectionBehavior(QAbstractItemView::SelectRows);
  m_table->setSelectionMode(QAbstractItemView::SingleSelection);
  m_table->setAlternatingRowColors(true);
  m_table->setShowGrid(false);
  m_table->setFrameShape(QFrame::NoFrame);
  m_table->setWordWrap(false);
  m_table->setTabKeyNavigation(false);
  m_table->setAccessibleName(tr("Worst linears"));
  m_table->setContextMenuPolicy(Qt::CustomContextMenu);
  m_table->verticalHeader()->hide();
  m_table->verticalHeader()->setDefaultSectionSize(fontMetrics().height() + 6);
  QHeaderView* header = m_table->horizontalHeader();
  header->setHighlightSections(false);
  header->setMinimumSectionSize(24);
  header->setSectionResizeMode(HotSpotModel::Linear, QHeaderView::Stretch);
  const int digit = fontMetrics().horizontalAdvance(QLatin1Char('0'));
  const int widths[] = {digit * 5, digit * 7, digit * 12, digit * 9, digit * 10};
  for (int column = 0; column < HotSpotModel::ColumnCount; ++column) header->resizeSection(column, widths[column]);
  connect(m_table->selectionModel(), &QItemSelectionModel::currentRowChanged, this, [this](const QModelIndex& index) {
    // Only a choice of the user: resets and re-sorting move the current row, too.
    if (index.isValid() && m_table->hasFocus()) m_selection->setCurrentLinear(index.data(HotSpotModel::KeyRole).value<LinearKey>());
  });
  connect(m_table, &QTableView::clicked, this,
          [this](const QModelIndex& index) { m_selection->setCurrentLinear(index.data(HotSpotModel::KeyRole).value<LinearKey>()); });

  m_hotTitle = new QLabel(tr("Worst linears"));
  QFont bold = m_hotTitle->font();
  bold.setWeight(QFont::DemiBold);
  m_hotTitle->setFont(bold);
  m_count = new QSpinBox;
  m_count->setRange(0, 100000);
  m_count->setValue(20);
  m_count->setSpecialValueText(tr("all"));
  m_count->setPrefix(tr("top "));
  m_count->setAccessibleName(tr("How many linears"));
  m_count->setToolTip(tr("How many of the worst linears to list; 0: all"));
  connect(m_count, &QSpinBox::valueChanged, m_filter, &HotSpotFilter::setCount);
  m_filter->setCount(m_count->value());
  m_threshold = new QLineEdit;
  m_threshold->setPlaceholderText(tr("at least as bad as"));
  m_threshold->setAccessibleName(tr("Threshold"));
  m_threshold->setToolTip(tr("List only linears at least as bad as this value"));
  m_threshold->setClearButtonEnabled(true);
  m_threshold->setFixedWidth(m_threshold->fontMetrics().horizontalAdvance(m_threshold->placeholderText()) + digit * 5);
  connect(m_threshold, &QLineEdit::textChanged, this, [this](const QString& text) {
    bool good = false;
    double value = QLocale().toDouble(text, &good);
    if (!good) value = text.toDouble(&good);
    m_filter->setThreshold(good ? value : std::nan(""));
  });

  auto* side = new QWidget;
  side->setAutoFillBackground(true);
  side->setBackgroundRole(QPalette::Base);
  auto* head = new QHBoxLayout;
  head->setContentsMargins(8, 0, 8, 0);
  head->addWidget(m_count);
  head->addWidget(m_threshold);
  head->addStretch(1);
  auto* layout = new QVBoxLayout(side);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->setSpacing(4);
  m_hotTitle->setContentsMargins(8, 6, 8, 0);
  layout->addWidget(m_hotTitle);
  layout->addLayout(head);
  layout->addWidget(m_table, 1);
  return side;
}

void LayersPage::scheduleUpdate() {
  if (!m_timer->isActive()) m_timer->start();
}

void LayersPage::chooseView() {
  m_views->setCurrentWidget(m_view->currentIndex() == 0 ? static_cast<QWidget*>(m_plot) : m_runs);
  if (m_view->currentIndex() > 0) m_runs->setByBlock(m_view->currentIndex() == 2);
  m_order->setEnabled(m_view->currentIndex() == 0);  // maps are in the model's order
  updateData();
}

void LayersPage::metricChosen() {
  m_metric->setCurrentIndex(m_metric->findData(int(m_selection->metric())));
  m_log->setChecked(metricIsLogarithmic(m_selection->metric()));
  m_threshold->clear();
  updateData();
}

void LayersPage::updateData() {
  m_timer->stop();
  m_errors = gatherErrors(*m_selection);

  const QString subset = m_subset->currentData().toString();
  const QStringList types = m_errors.subsetTypes();
  QStringList listed;
  for (int i = 1; i < m_subset->count(); ++i) listed.push_back(m_subset->itemData(i).toString());
  if (types != listed) {
    while (m_subset->count() > 1) m_subset->removeItem(1);
    for (const QString& type : types) m_subset->addItem(tr("Only %1").arg(type), type);
    m_subset->setCurrentIndex(std::max(0, m_subset->findData(subset)));
  }
  const bool severalRuns = m_views->currentWidget() == m_runs && m_errors.runs.size() > 1;
  m_difference->setEnabled(m_errors.baseline >= 0 && (m_errors.baseline != m_errors.current || severalRuns));
  m_heat->differenceAction()->setEnabled(m_difference->isEnabled());
  m_runs->differenceAction()->setEnabled(m_difference->isEnabled());
  if (!m_difference->isEnabled()) m_difference->setChecked(false);
  updateOrder();
}

void LayersPage::updateOrder() {
  const auto order = LinearOrder(m_order->currentData().toInt());
  const QString subset = m_subset->currentData().toString();
  const QString run = m_errors.current < 0 ? QString() : m_errors.runs[m_errors.current].name;

  m_plot->setCaption(tr("%1 of every linear").arg(metricTitle(m_errors.metric)), errorConditions(*m_selection));
  m_plot->setData(m_errors, orderedRows(m_errors, order, subset), order == LinearOrder::Depth);
  m_heat->setCaption(m_heat->isDifference()
                         ? tr("%1 minus %2").arg(run, m_errors.runs[m_errors.baseline].name)
                         : tr("Heat map of %1").arg(run.isEmpty() ? tr("the current run") : run));
  m_heat->setData(m_errors);
  m_runs->setCaption(m_runs->isDifference() && m_errors.baseline >= 0 ? tr("%1 of every run minus %2").arg(metricTitle(m_errors.metric), m_errors.runs[m_errors.baseline].name)
                                            : tr("%1 of every run and linear").arg(metricTitle(m_errors.metric)),
                     errorConditions(*m_selection));
  m_runs->setData(m_errors, orderedRows(m_errors, LinearOrder::Depth, subset));
  m_hotSpots->setData(m_errors);
  m_filter->setSubset(subset);
  m_table->setColumnHidden(HotSpotModel::Delta, m_errors.baseline < 0 || m_errors.baseline == m_errors.current);
  m_hotTitle->setText(run.isEmpty() ? tr("Worst linears") : tr("Worst of %1").arg(elide(run, 32)));
  m_hotTitle->setToolTip(run);
  showCurrentLinear();
}

void LayersPage::showCurrentLinear() {
  const LinearKey key = m_selection->currentLinear();
  m_plot->setCurrent(key);
  m_heat->setCurrent(key);
  m_runs->setCurrent(key);
  const int row = m_hotSpots->rowOf(key);
  const QModelIndex index = row < 0 ? QModelIndex() : m_filter->mapFromSource(m_hotSpots->index(row, 0));
  if (!index.isValid()) {
    m_table->clearSelection();
    return;
  }
  if (m_table->currentIndex().row() == index.row()) {
    m_table->selectRow(index.row());
    return;
  }
  m_table->selectRow(index.row());
  m_table->scrollTo(index);
}

}  // namespace qb::views
