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

#include "views/Theme.h"
#include "views/jobs/Background.h"
#include "views/models/FactsModel.h"
#include "views/models/LinearErrors.h"
#include "views/plots/ChannelPlot.h"
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

// What stands along the columns and the rows of a tensor.
std::pair<QString, QString> axesOf(const QString& kind, size_t dimensions) {
  if (dimensions < 2) return {Inspector::tr("Channel"), {}};
  if (kind == QLatin1String("linear")) return {Inspector::tr("Input channel"), Inspector::tr("Output channel")};
  if (kind == QLatin1String("embedding") || kind == QLatin1String("head")) return {Inspector::tr("Hidden channel"), Inspector::tr("Token")};
  if (kind == QLatin1String("positions")) return {Inspector::tr("Hidden channel"), Inspector::tr("Position")};
  if (kind == QLatin1String("router")) return {Inspector::tr("Input channel"), Inspector::tr("Expert")};
  return {Inspector::tr("Column"), Inspector::tr("Row")};
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
      m_outliers(new OutlierPlot),
      m_tensorFacts(new FactsModel(this)),
      m_values(new HistogramPlot),
      m_columns(new ChannelPlot),
      m_rows(new ChannelPlot) {
  m_timer->setSingleShot(true);
  m_timer->setInterval(40);
  connect(m_timer, &QTimer::timeout, this, &Inspector::updateData);

  m_hint = new QLabel(tr("Choose a run in the list of runs, or a linear on the Layers page or in the tree of a model, to see it here."));
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
  m_numbersTable->horizontalHeader()->setDefaultSectionSize(fontMetrics().horizontalAdvance(QStringLiteral("0.000e-00")) + 14);  // two runs fit beside the names
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

  m_tensorTitle = makeTitle();
  m_tensorNote = new QLabel;
  m_tensorNote->setWordWrap(true);
  m_tensorNote->setTextInteractionFlags(Qt::TextSelectableByMouse);
  m_tensorFactsTable = makeTable(m_tensorFacts, tr("Facts of the tensor"));
  m_tensorBox = new QWidget;
  auto* tensor = new QVBoxLayout(m_tensorBox);
  tensor->setContentsMargins(0, 0, 0, 0);
  tensor->addWidget(m_tensorTitle);
  tensor->addWidget(m_tensorNote);
  tensor->addWidget(m_tensorFactsTable);
  for (Plot* plot : std::initializer_list<Plot*>{m_values, m_columns, m_rows}) plot->installEventFilter(this);
  m_values->setLegendShown(false);
  for (Plot* plot : std::initializer_list<Plot*>{m_values, m_columns, m_rows}) {
    plot->setWheelNeedsFocus(true);
    tensor->addWidget(plot);
  }

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
  content->addWidget(m_tensorBox);
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
  connect(selection, &Selection::currentModelChanged, this, &Inspector::scheduleUpdate);
  connect(selection, &Selection::modelsChanged, this, &Inspector::scheduleUpdate);
  updateData();
}

Inspector::~Inspector() {
  if (m_background) m_background->cancel(QStringLiteral("tensor"));
  if (m_background) m_background->cancel(QStringLiteral("clips"));
}

void Inspector::setTensorReader(Background* background, TensorReader reader) {
  m_background = background;
  m_reader = std::move(reader);
  scheduleUpdate();
}

void Inspector::setClipReader(Background* background, ClipReader reader, std::function<std::filesystem::path(const QString& run)> folderOf) {
  m_background = background;
  m_clipReader = std::move(reader);
  m_folderOf = std::move(folderOf);
  scheduleUpdate();
}

// The ends of the groups' grids, from the run's files: read once, and only while the inspector is seen.
void Inspector::updateClips(const RunEntry& run) {
  const LinearKey key = m_selection->currentLinear();
  const QString wanted = run.id + QLatin1Char('\n') + QString::number(key.block) + QLatin1Char('\n') + key.name;
  const auto show = [this](const std::shared_ptr<const ClipRanges>& clips) {
    const size_t middle = 2, last = ClipRanges::kShares.size() - 1;
    m_weights->setCaption(tr("Weights before and after"), std::isnan(clips->beyond) ? tr("%1 groups").arg(QLocale().toString(qlonglong(clips->units)))
                                                          : tr("clipped: %1 % of the weights, in %2 of %3 groups")
                                                                .arg(formatNumber(100 * clips->beyond, 2), QLocale().toString(qlonglong(clips->cut)), QLocale().toString(qlonglong(clips->units))));
    QVector<HistogramLines> lines{{tr("clip: median group's ends"), {}, {clips->low[middle], clips->high[middle]}, false}};
    if (clips->units > 1) lines.push_back({tr("widest group's ends"), {}, {clips->low[0], clips->high[last]}, true});
    m_weights->setLines(lines);
  };
  if (const auto* known = m_clips.object(wanted)) {
    if (*known) show(*known);
    m_clipsOf = wanted;
    return;
  }
  if (m_clipsOf != wanted) {
    m_clipsOf = wanted;
    m_weights->setLines({});
  }
  const ModelPtr model = m_selection->openModel();
  if (!m_clipReader || !m_background || run.report->status != RunStatus::finished || m_clipsReading == wanted || !isVisible() || !model) return;
  std::string module;
  for (const BlockInfo& block : model->blocks)
    for (const LinearInfo& linear : block.linears)
      if (block.index == key.block && QString::fromStdString(linear.name) == key.name) module = linear.tensor.substr(0, linear.tensor.size() - std::string(".weight").size());
  if (module.empty()) return;
  m_clipsReading = wanted;
  m_background->run(
      QStringLiteral("clips"), [reader = m_clipReader, folder = m_folderOf(run.id), module](const std::stop_token& stop) { return std::make_shared<const ClipRanges>(reader(folder, module, stop)); },
      [this, wanted](const std::shared_ptr<const ClipRanges>& found) {
        m_clipsReading.clear();
        m_clips.insert(wanted, new std::shared_ptr<const ClipRanges>(found));
        scheduleUpdate();
      },
      [this, wanted](const QString&) {  // its model has gone, or it stayed float: there is nothing to draw
        m_clipsReading.clear();
        m_clips.insert(wanted, new std::shared_ptr<const ClipRanges>());
      });
}

void Inspector::showEvent(QShowEvent* event) {
  QWidget::showEvent(event);
  scheduleUpdate();
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
  if (event->type() == QEvent::Resize && qobject_cast<Plot*>(object))
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
  if (table == m_numbersTable) {  // two runs stand side by side where their figures allow it
    const int figure = fontMetrics().horizontalAdvance(QStringLiteral("0.000e-00")), half = table->viewport()->width() / 2;
    if (const int wide = std::clamp(half, figure + 8, figure + 14); wide != table->horizontalHeader()->defaultSectionSize()) table->horizontalHeader()->setDefaultSectionSize(wide);
  }
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
  for (Plot* plot : std::initializer_list<Plot*>{m_weights, m_weightError, m_outputError, m_input, m_values, m_columns, m_rows}) plot->setFixedHeight(170 + plot->headHeight());
}

void Inspector::scheduleUpdate() {
  if (!m_timer->isActive()) m_timer->start();
}

void Inspector::updateData() {
  m_timer->stop();
  const RunEntry* run = currentEntry(*m_selection);
  m_runBox->setVisible(run);
  updateLinear(run);
  m_hint->setVisible(!updateTensor() && !run);
  if (run) {
    m_runTitle->setText(tr("Run: %1").arg(runName(*run->report)));
    m_runFacts->setFacts(runFacts(*run->report, run->owner));
  }
  for (QTableView* table : {m_linearFactsTable, m_tensorFactsTable, m_runFactsTable}) {
    table->resizeColumnToContents(0);
    table->setColumnWidth(0, std::min(table->columnWidth(0) + 4, std::max(90, width() * 2 / 5)));
  }
  for (QTableView* table : {m_linearFactsTable, m_tensorFactsTable, m_runFactsTable, m_numbersTable}) fitTable(table);
  fitHistograms();
}

QString Inspector::Wanted::key() const { return model && !stored.isEmpty() ? QString::fromStdString(model->hash + ' ' + model->path.string() + ' ') + stored : QString(); }

Inspector::Wanted Inspector::wantedTensor() const {
  const QString name = m_selection->currentTensor();
  const ModelPtr model = m_selection->openModel();
  if (!model || name.isEmpty()) return {};
  const auto among = [&](const std::vector<OtherTensor>& others) -> std::optional<Wanted> {
    for (const OtherTensor& other : others)
      if (name == QString::fromStdString(other.tied ? other.name : other.tensor))
        return Wanted{model, name, QString::fromStdString(other.tensor), QString::fromStdString(other.kind), other.tied};
    return std::nullopt;
  };
  for (const auto* others : {&model->before, &model->after})
    if (const auto found = among(*others)) return *found;
  for (const BlockInfo& block : model->blocks)
    if (const auto found = among(block.others)) return *found;
  return {model, name, name, QStringLiteral("linear"), false};
}

bool Inspector::updateTensor() {
  const QString before = m_wanted.key();
  m_wanted = m_reader ? wantedTensor() : Wanted{};
  const QString key = m_wanted.key();
  m_tensorBox->setVisible(!key.isEmpty());
  if (key != before) m_problem.clear();
  if (!m_reading.isEmpty() && m_reading != key) {  // nobody waits for it any more
    m_reading.clear();
    if (m_background) m_background->cancel(QStringLiteral("tensor"));
  if (m_background) m_background->cancel(QStringLiteral("clips"));
  }
  if (key.isEmpty()) return false;
  if (!m_read.contains(key) && m_reading.isEmpty() && m_problem.isEmpty() && isVisible()) readTensor();
  showTensor();
  return true;
}

void Inspector::readTensor() {
  if (!m_background) return;
  m_reading = m_wanted.key();
  QPointer<Inspector> self(this);
  m_background->run(
      QStringLiteral("tensor"),
      [reader = m_reader, path = m_wanted.model->path, name = m_wanted.stored.toStdString()](const std::stop_token& stop) {
        return std::make_shared<const TensorSummary>(reader(path, name, stop));
      },
      [self, key = m_reading](const std::shared_ptr<const TensorSummary>& summary) {
        if (!self) return;
        self->m_reading.clear();
        self->m_read.insert(key, new std::shared_ptr<const TensorSummary>(summary));
        self->scheduleUpdate();
      },
      [self, key = m_reading](const QString& error) {
        if (!self) return;
        self->m_reading.clear();
        if (self->m_wanted.key() == key) self->m_problem = error;
        self->scheduleUpdate();
      });
}

void Inspector::showTensor() {
  const auto* found = m_read.object(m_wanted.key());
  const TensorSummary* summary = found ? found->get() : nullptr;
  m_tensorTitle->setText(m_wanted.name);
  QString note = tr("as %1 has it, before any run").arg(QString::fromStdString(m_wanted.model->name));
  if (m_wanted.tied) note = tr("tied to the embedding: its rows are those of %1").arg(m_wanted.stored);
  if (!m_problem.isEmpty()) note = m_problem;
  if (!summary && m_problem.isEmpty()) note = tr("Reading %1…").arg(m_wanted.stored);
  m_tensorNote->setText(note);
  QPalette look = palette();
  if (!m_problem.isEmpty()) look.setColor(QPalette::WindowText, Theme::error());
  m_tensorNote->setPalette(look);
  for (QWidget* each : std::initializer_list<QWidget*>{m_tensorFactsTable, m_values, m_columns, m_rows}) each->setVisible(summary);
  if (!summary) return;
  m_tensorFacts->setFacts(tensorFacts(*summary));
  m_values->setCaption(tr("Values as stored"), tr("all %1 values, %2").arg(QLocale().toString(qlonglong(summary->values)), QString::fromStdString(summary->dtype)));
  m_values->setData({{tr("values"), {}, summary->histogram, false, true}}, tr("Value"));
  const auto [columns, rows] = axesOf(m_wanted.kind, summary->shape.size());
  const auto conditions = [](const ChannelSizes& sizes, const QString& across, int64_t count) {
    QString text = count > 1 ? Inspector::tr("each over %1 %2s").arg(QLocale().toString(qlonglong(count)), across.toLower()) : QString();
    if (sizes.step > 1) text += (text.isEmpty() ? QString() : QStringLiteral("; ")) + Inspector::tr("a point is %1 neighbours: mean of means, largest of the largest").arg(sizes.step);
    return text;
  };
  m_columns->setCaption(tr("Size by %1").arg(columns.toLower()), conditions(summary->columns, rows, summary->rows.channels));
  m_columns->setData(summary->columns, columns);
  m_rows->setVisible(summary->rows.channels > 1);
  m_rows->setCaption(tr("Size by %1").arg(rows.toLower()), conditions(summary->rows, columns, summary->columns.channels));
  m_rows->setData(summary->rows, rows);
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
  updateClips(*run);
  m_input->setCaption(tr("Input activations"), tr("on the calibration text"));
  m_input->setData({{tr("before (float)"), {}, linear->input_before, true, true}, {tr("after"), run->colour, linear->input_after, false, false}},
                   tr("Activation"));
  m_outliers->setCaption(tr("Outlier channels of the input"),
                         linear->outliers.empty() ? QString() : tr("largest %1 of %2 channels by ratio to the median").arg(linear->outliers.size()).arg(linear->in_features));
  m_outliers->setData(linear->outliers, linear->in_features, run->colour);
}

}  // namespace qb::views
