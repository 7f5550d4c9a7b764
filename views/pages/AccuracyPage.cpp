#include "views/pages/AccuracyPage.h"

#include <QComboBox>
#include <QHBoxLayout>
#include <QLabel>
#include <QMenu>
#include <QPointer>
#include <QPushButton>
#include <QScrollArea>
#include <QSplitter>
#include <QTimer>
#include <QVBoxLayout>

#include "views/models/LinearErrors.h"
#include "views/plots/CostPlot.h"
#include "views/plots/ParetoPlot.h"
#include "views/plots/HistogramPlot.h"
#include "views/plots/MetricPlot.h"
#include "views/plots/ParallelPlot.h"
#include "views/plots/TokenHistograms.h"
#include "views/plots/WindowDeltaPlot.h"

namespace qb::views {
namespace {

// Inside of a sentence; abbreviations keep their capitals.
QString lowered(QString title) {
  if (title.size() > 1 && !title[1].isUpper()) title[0] = title[0].toLower();
  return title;
}

}  // namespace

AccuracyPage::AccuracyPage(Selection* selection, QWidget* parent)
    : QWidget(parent),
      m_selection(selection),
      m_timer(new QTimer(this)),
      m_metric(new MetricPlot),
      m_pareto(new ParetoPlot),
      m_windows(new WindowDeltaPlot),
      m_cost(new CostPlot),
      m_tokens(new HistogramPlot),
      m_parallel(new ParallelPlot) {
  m_timer->setSingleShot(true);
  m_timer->setInterval(40);
  connect(m_timer, &QTimer::timeout, this, &AccuracyPage::updateData);

  const auto pair = [](QWidget* left, QWidget* right) {
    auto* splitter = new QSplitter(Qt::Horizontal);
    splitter->addWidget(left);
    splitter->addWidget(right);
    splitter->setSizes({1000, 1000});
    splitter->setChildrenCollapsible(false);
    return splitter;
  };
  auto* grid = new QSplitter(Qt::Vertical);
  grid->addWidget(pair(m_metric, m_pareto));
  grid->addWidget(pair(m_windows, m_cost));
  grid->addWidget(m_parallel);
  grid->addWidget(m_tokens);
  grid->setSizes({1000, 1000, 1200, 1000});
  grid->setChildrenCollapsible(false);
  for (QWidget* plot : std::initializer_list<QWidget*>{m_metric, m_pareto, m_windows, m_cost, m_tokens}) plot->setMinimumHeight(210);
  m_parallel->setMinimumHeight(260);
  auto* scroll = new QScrollArea;
  scroll->setWidgetResizable(true);
  scroll->setFrameShape(QFrame::NoFrame);
  scroll->setWidget(grid);

  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->setSpacing(0);
  layout->addWidget(makeControls());
  layout->addWidget(scroll, 1);

  const auto choose = [this](const QString& id) { m_selection->setCurrentRun(id); };
  connect(m_metric, &MetricPlot::runChosen, this, choose);
  connect(m_pareto, &ParetoPlot::runChosen, this, choose);
  connect(m_cost, &CostPlot::runChosen, this, choose);
  connect(m_parallel, &ParallelPlot::runChosen, this, choose);
  connect(m_parallel, &ParallelPlot::brushed, this, &AccuracyPage::onlyWanted);
  connect(m_parallel, &ParallelPlot::released, this, [this] { Q_EMIT onlyWanted(m_compared); });
  connect(selection, &Selection::runsChanged, this, &AccuracyPage::scheduleUpdate);
  connect(selection, &Selection::runUpdated, this, &AccuracyPage::scheduleUpdate);
  connect(selection, &Selection::baselineChanged, this, &AccuracyPage::scheduleUpdate);
  connect(selection, &Selection::currentRunChanged, this, &AccuracyPage::scheduleUpdate);
  updateData();
}

QWidget* AccuracyPage::makeControls() {
  auto* bar = new QWidget;
  auto* layout = new QHBoxLayout(bar);
  layout->setContentsMargins(8, 4, 8, 4);
  auto* label = new QLabel(tr("&Measure:"));
  m_conditions = new QComboBox;
  m_conditions->setAccessibleName(tr("What is measured, on which text, under which conditions"));
  m_conditions->setToolTip(tr("Runs are compared under equal conditions only: evaluator and settings, text, sequence length, windows and dtype"));
  m_conditions->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  m_conditions->setMinimumContentsLength(30);
  label->setBuddy(m_conditions);
  connect(m_conditions, &QComboBox::activated, this, &AccuracyPage::updateData);
  m_missing = new QLabel;
  m_missing->setForegroundRole(QPalette::PlaceholderText);
  auto* more = new QPushButton(tr("Plot"));  // a tool button would draw its arrow over the text
  more->setAccessibleName(tr("Actions of the plots"));
  auto* menu = new QMenu(more);
  connect(menu, &QMenu::aboutToShow, this, [this, menu] {
    menu->clear();
    m_metric->fillMenu(menu->addMenu(tr("&Figure")));
    m_pareto->fillMenu(menu->addMenu(tr("&Size and figure")));
    m_windows->fillMenu(menu->addMenu(tr("Difference per &window")));
    m_cost->fillMenu(menu->addMenu(tr("&Cost")));
    if (m_parallel->isVisibleTo(this)) m_parallel->fillMenu(menu->addMenu(tr("Runs by &setting")));
    if (m_tokens->isVisibleTo(this)) m_tokens->fillMenu(menu->addMenu(tr("By &token")));
  });
  more->setMenu(menu);
  layout->addWidget(label);
  layout->addWidget(m_conditions, 1);
  layout->addWidget(m_missing);
  layout->addWidget(more);
  return bar;
}

void AccuracyPage::scheduleUpdate() {
  if (!m_timer->isActive()) m_timer->start();
}

void AccuracyPage::updateData() {
  m_timer->stop();
  const QString chosen = m_conditions->currentData().toString();
  const QVector<ConditionsChoice> choices = allConditions(*m_selection);
  m_conditions->clear();
  for (const ConditionsChoice& choice : choices) m_conditions->addItem(choice.text, choice.key);
  m_conditions->setCurrentIndex(choices.isEmpty() ? -1 : std::max(0, m_conditions->findData(chosen)));
  m_conditions->setPlaceholderText(tr("nothing evaluated yet"));
  m_conditions->setEnabled(!choices.isEmpty());

  const Accuracy accuracy = gatherAccuracy(*m_selection, m_conditions->currentData().toString());
  int missing = 0;
  for (const Accuracy::Run& run : accuracy.runs) missing += run.result == nullptr;
  m_missing->setText(missing > 0 && !choices.isEmpty() ? (missing == 1 ? tr("1 run not evaluated so") : tr("%1 runs not evaluated so").arg(missing)) : QString());
  m_missing->setToolTip(tr("These runs were not measured under these conditions and are left out"));

  m_metric->setCaption(tr("%1 ± standard error").arg(accuracy.title), accuracy.conditions);
  m_metric->setData(accuracy);
  m_pareto->setCaption(tr("Size and %1").arg(lowered(accuracy.title)), accuracy.conditions);
  m_pareto->setData(accuracy);
  m_windows->setData(accuracy);
  const QString each = accuracy.byItem ? tr("Item by item") : tr("Window by window");
  m_windows->setCaption(m_windows->isEmpty() ? each : tr("%1 against %2").arg(each, m_windows->reference()),
                        m_windows->isEmpty() ? QString() : tr("%1; mean ± standard error").arg(accuracy.conditions));
  m_cost->setCaption(tr("Time and memory"));
  m_cost->setData(accuracy);
  showParallel(accuracy);
  showTokens(accuracy);
}

// Of measures that keep how single tokens fare.
void AccuracyPage::showTokens(const Accuracy& accuracy) {
  const QVector<HistogramSeries> series = tokenSeries(accuracy, palette().color(QPalette::Text));
  m_tokens->setVisible(!series.isEmpty());
  m_tokens->setCaption(tr("%1 token by token").arg(accuracy.title), accuracy.conditions);
  m_tokens->setData(series, tokenAxis(accuracy));
}

void AccuracyPage::setRecipeReader(std::function<void(const QStringList&, std::function<void(const Recipes&)>)> reader) {
  m_reader = std::move(reader);
  scheduleUpdate();
}

// Runs that a stretch of an axis hid stay in the picture, until others are shown.
void AccuracyPage::showParallel(const Accuracy& accuracy) {
  QStringList shown;
  for (const RunEntry& run : drawnRuns(*m_selection)) shown << run.id;
  if (!m_parallel->isBrushed() || std::any_of(shown.begin(), shown.end(), [this](const QString& run) { return !m_compared.contains(run); })) {
    m_parallel->forgetBrushes();
    m_compared = shown;
  }
  askForRecipes();
  m_parallel->setData(gatherAxes(*m_selection, m_compared, m_recipes, m_conditions->currentData().toString()));
  m_parallel->setVisible(!m_parallel->isEmpty());
  m_parallel->setCaption(m_parallel->isBrushed() ? tr("Runs by setting and figure: %1 of %2").arg(m_parallel->inside().size()).arg(m_compared.size()) : tr("Runs by setting and figure"),
                         m_parallel->isBrushed() ? tr("double-click to show all again") : accuracy.conditions);
}

// A run's recipe never changes: each is read once.
void AccuracyPage::askForRecipes() {
  if (!m_reader || m_compared.size() < 2) return;
  QStringList wanted;
  for (const QString& run : m_compared)
    if (!m_asked.contains(run)) wanted << run;
  if (wanted.isEmpty()) return;
  m_asked.unite(QSet<QString>(wanted.begin(), wanted.end()));
  m_reader(wanted, [page = QPointer(this)](const Recipes& found) {
    if (!page) return;
    page->m_recipes.insert(found);
    page->scheduleUpdate();
  });
}

}  // namespace qb::views
