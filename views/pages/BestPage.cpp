#include "views/pages/BestPage.h"

#include <QComboBox>
#include <QDoubleSpinBox>
#include <QFileDialog>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QPushButton>
#include <QScrollArea>
#include <QSplitter>
#include <QTableView>
#include <QTextBrowser>
#include <QTimer>
#include <QVBoxLayout>
#include <utility>

#include "core/base/files.h"
#include "core/exporting/formats.h"
#include "core/recipe/exports.h"
#include "views/pages/NoticeBar.h"
#include "views/plots/ParetoPlot.h"

namespace qb::views {
namespace {

const QLatin1String kSlot("best practice"), kOurs("ours");

QString text(const std::string& value) { return QString::fromStdString(value); }

QStringList lines(const std::vector<std::string>& list) {
  QStringList all;
  for (const std::string& one : list) all << text(one);
  return all;
}

// A limit that there need not be: 0 reads "any".
QDoubleSpinBox* limit(const QString& name, int decimals, double most, double step, const QString& unit) {
  auto* box = new QDoubleSpinBox;
  box->setAccessibleName(name);
  box->setDecimals(decimals);
  box->setRange(0, most);
  box->setSingleStep(step);
  box->setSuffix(unit);
  box->setSpecialValueText(BestPage::tr("any"));
  box->setKeyboardTracking(false);
  return box;
}

QComboBox* choice(const QString& name, const QString& first) {
  auto* box = new QComboBox;
  box->setAccessibleName(name);
  box->addItem(first, QString());
  box->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  box->setMinimumContentsLength(8);
  return box;
}

QString htmlList(const QStringList& items) { return items.isEmpty() ? QString() : QStringLiteral("<ul style='margin:2px 0 6px 16px; -qt-list-indent:0'><li>%1</li></ul>").arg(items.join(QStringLiteral("</li><li>"))); }

}  // namespace

BestPage::BestPage(Workbench* workbench, BestChooser chooser, QWidget* parent)
    : QWidget(parent), m_workbench(workbench), m_choose(std::move(chooser)), m_timer(new QTimer(this)), m_notices(new NoticeBar), m_candidates(new CandidateTable(this)), m_plot(new ParetoPlot) {
  m_timer->setSingleShot(true);
  m_timer->setInterval(300);  // while the form is filled in
  connect(m_timer, &QTimer::timeout, this, &BestPage::ask);

  m_state = new QLabel;
  m_state->setWordWrap(true);
  m_state->setMargin(24);
  m_state->setAlignment(Qt::AlignCenter);
  m_state->setTextInteractionFlags(Qt::TextSelectableByMouse);
  m_stop = new QPushButton(tr("Stop"));
  connect(m_stop, &QPushButton::clicked, this, [this] {
    m_workbench->background()->cancel(kSlot);
    m_asked.clear();
    showState(tr("Stopped. Change something on the left, or choose this page again, to compare the runs anew."));
  });

  m_plot->setMinimumSize(260, 170);
  connect(m_plot, &ParetoPlot::runChosen, m_workbench, &Workbench::makeCurrent);
  auto* below = new QSplitter(Qt::Horizontal);
  below->addWidget(m_plot);
  below->addWidget(makeMissing());
  below->setSizes({500, 500});
  below->setChildrenCollapsible(false);
  auto* split = new QSplitter(Qt::Vertical);
  split->addWidget(makeTable());
  split->addWidget(below);
  split->setSizes({220, 330});
  split->setChildrenCollapsible(false);
  // Only this scrolls: sentences that wrap would ask the scroll area for more height than there is.
  split->setMinimumHeight(fontMetrics().height() * 22);
  auto* scroll = new QScrollArea;
  scroll->setWidgetResizable(true);
  scroll->setFrameShape(QFrame::NoFrame);
  scroll->setWidget(split);
  m_content = new QWidget;
  auto* column = new QVBoxLayout(m_content);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  column->addWidget(makeHead());
  column->addWidget(scroll, 1);

  auto* right = new QWidget;
  auto* answers = new QVBoxLayout(right);
  answers->setContentsMargins(0, 0, 0, 0);
  answers->setSpacing(0);
  answers->addWidget(m_state);
  answers->addWidget(m_stop, 0, Qt::AlignHCenter);
  answers->addWidget(m_content, 1);
  auto* sides = new QHBoxLayout;
  sides->setSpacing(0);
  sides->addWidget(makeForm());
  sides->addWidget(right, 1);
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->setSpacing(0);
  layout->addWidget(m_notices);
  layout->addLayout(sides, 1);

  Selection* selection = workbench->selection();
  for (auto signal : {&Selection::runsChanged, &Selection::currentModelChanged, &Selection::modelsChanged}) connect(selection, signal, this, &BestPage::askAgain);
  connect(selection, &Selection::runUpdated, this, &BestPage::askAgain);
  connect(selection, &Selection::currentRunChanged, this, &BestPage::followSelection);
  connect(workbench, &Workbench::workspaceChanged, this, &BestPage::askAgain);
  workbench->background()->run(
      {}, [](const std::stop_token&) { return hardware_profiles(); },
      [this](const std::vector<HardwareProfile>& profiles) {
        for (const HardwareProfile& one : profiles) m_hardware->addItem(text(one.title), text(one.name));
      },
      [this](const QString& error) { m_notices->tell(NoticeBar::Error, error); });
  showState(tr("The runs of a model are compared here, and one of them is recommended."));
}

QWidget* BestPage::makeForm() {
  m_hardware = choice(tr("Hardware"), tr("any"));
  m_hardware->setToolTip(tr("The model must fit there; its speed there is predicted"));
  m_engine = choice(tr("Engine"), tr("any"));
  for (const EngineInfo& engine : export_engines()) m_engine->addItem(QStringLiteral("%1 %2").arg(text(engine.title), text(engine.version)), text(engine.name));
  m_engine->setToolTip(tr("It must load what comes out, in some format"));
  m_quality = choice(tr("Measure that decides"), tr("KL, else perplexity"));
  for (const auto& [key, title] : {std::pair("kl", tr("KL divergence")), std::pair("ppl", tr("Perplexity")), std::pair("acc", tr("Accuracy of a task")), std::pair("acc_norm", tr("Accuracy by length"))})
    m_quality->addItem(title, QString::fromLatin1(key));
  m_quality->setToolTip(tr("How good a run is; size and time are what it costs"));
  m_calibration = choice(tr("Calibration text"), tr("any"));
  m_calibration->setToolTip(tr("Only runs that were calibrated on this text"));
  m_batch = limit(tr("Sequences at once"), 0, 1e6, 1, {});
  m_context = limit(tr("Tokens of each sequence"), 0, 1e8, 1024, {});
  m_batch->setMinimum(1);
  m_context->setMinimum(1);
  for (QDoubleSpinBox* box : {m_batch, m_context}) box->setSpecialValueText({});
  m_context->setValue(4096);
  m_bits = limit(tr("Bits per weight at most"), 2, 32, 0.25, {});
  m_bits->setToolTip(tr("Of the quantized linears, scales and zeros included"));
  m_size = limit(tr("Size at most"), 2, 1e5, 1, tr(" GB"));
  m_size->setToolTip(tr("Of the whole quantized model"));
  m_decode = limit(tr("Decode at least"), 0, 1e9, 10, tr(" tok/s"));
  m_prefill = limit(tr("Prefill at least"), 0, 1e9, 100, tr(" tok/s"));
  for (QDoubleSpinBox* box : {m_decode, m_prefill}) box->setToolTip(tr("Predicted for the hardware chosen, of all sequences together"));

  auto* pane = new QWidget;
  auto* form = new QFormLayout;
  form->setRowWrapPolicy(QFormLayout::DontWrapRows);
  form->setFieldGrowthPolicy(QFormLayout::AllNonFixedFieldsGrow);
  form->setLabelAlignment(Qt::AlignLeft);
  const auto head = [&](const QString& title) {
    auto* label = new QLabel(title);
    QFont font = label->font();
    font.setWeight(QFont::DemiBold);
    label->setFont(font);
    form->addRow(label);
  };
  // Names of machines and engines are long: their fields take the whole width.
  const auto wide = [&](const QString& title, QWidget* field) {
    auto* label = new QLabel(title);
    label->setBuddy(field);
    form->addRow(label);
    form->addRow(field);
  };
  head(tr("Where will it run?"));
  wide(tr("&Hardware"), m_hardware);
  wide(tr("E&ngine"), m_engine);
  form->addRow(tr("Se&quences"), m_batch);
  form->addRow(tr("&Context"), m_context);
  head(tr("What may it cost?"));
  form->addRow(tr("Bits, at &most"), m_bits);
  form->addRow(tr("&Size, at most"), m_size);
  form->addRow(tr("&Decode, at least"), m_decode);
  form->addRow(tr("&Prefill, at least"), m_prefill);
  head(tr("What is it for?"));
  wide(tr("Measure that d&ecides"), m_quality);
  wide(tr("Cali&brated on"), m_calibration);
  auto* like = new QPushButton(tr("Is that text like my use?"));
  like->setToolTip(tr("Compares it with texts of yours on the Data page"));
  connect(like, &QPushButton::clicked, this, [this] { Q_EMIT pageRequested(QStringLiteral("data")); });
  form->addRow(like);
  auto* column = new QVBoxLayout(pane);
  column->setContentsMargins(10, 8, 10, 8);
  column->addLayout(form);
  column->addStretch(1);

  for (QComboBox* box : {m_hardware, m_engine, m_quality, m_calibration}) connect(box, &QComboBox::activated, this, &BestPage::askAgain);
  for (QDoubleSpinBox* box : {m_batch, m_context, m_bits, m_size, m_decode, m_prefill}) connect(box, &QDoubleSpinBox::valueChanged, this, &BestPage::askAgain);
  const auto speeds = [this] {
    const bool known = !m_hardware->currentData().toString().isEmpty();
    for (QWidget* box : std::initializer_list<QWidget*>{m_batch, m_context, m_decode, m_prefill}) box->setEnabled(known);
  };
  connect(m_hardware, &QComboBox::currentIndexChanged, this, speeds);
  speeds();
  auto* scroll = new QScrollArea;
  scroll->setWidgetResizable(true);
  scroll->setFrameShape(QFrame::NoFrame);
  scroll->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  scroll->setWidget(pane);
  scroll->setFixedWidth(pane->fontMetrics().averageCharWidth() * 44);
  return scroll;
}

QWidget* BestPage::makeHead() {
  m_title = new QLabel;
  QFont font = m_title->font();
  font.setPointSizeF(font.pointSizeF() * 1.2);
  font.setWeight(QFont::DemiBold);
  m_title->setFont(font);
  m_title->setWordWrap(true);
  m_verdict = new QLabel;
  m_verdict->setWordWrap(true);
  m_verdict->setAccessibleName(tr("Why this one"));
  m_verdict->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
  m_use = new QPushButton(tr("&Use this recipe"));
  m_use->setToolTip(tr("Opens the recipe of the run that is chosen in the table"));
  connect(m_use, &QPushButton::clicked, this, [this] { m_workbench->openRecipeOf(run()); });
  m_write = new QPushButton(tr("&Write recipe…"));
  m_write->setToolTip(tr("With its evidence: ours, or for LLMC, llm-compressor, AutoRound or GPTQModel"));
  connect(m_write, &QPushButton::clicked, this, &BestPage::askWhereToWrite);
  m_export = new QPushButton(tr("E&xport checkpoint…"));
  m_export->setToolTip(tr("Writes the quantized model for an engine"));
  connect(m_export, &QPushButton::clicked, this, [this] { Q_EMIT exportRequested(run()); });
  auto* buttons = new QHBoxLayout;
  for (QPushButton* button : {m_use, m_write, m_export}) buttons->addWidget(button);
  buttons->addStretch(1);
  auto* box = new QWidget;
  box->setAutoFillBackground(true);
  box->setBackgroundRole(QPalette::Base);
  auto* column = new QVBoxLayout(box);
  column->setContentsMargins(12, 8, 12, 8);
  column->addWidget(m_title);
  column->addWidget(m_verdict);
  column->addLayout(buttons);
  return box;
}

QWidget* BestPage::makeTable() {
  m_table = new QTableView;
  m_table->setModel(m_candidates);
  m_table->setAccessibleName(tr("Runs to choose from"));
  m_table->setShowGrid(false);
  m_table->setAlternatingRowColors(true);
  m_table->setFrameShape(QFrame::NoFrame);
  m_table->setWordWrap(false);
  m_table->setTabKeyNavigation(false);
  m_table->setSelectionBehavior(QAbstractItemView::SelectRows);
  m_table->setSelectionMode(QAbstractItemView::SingleSelection);
  m_table->setHorizontalScrollMode(QAbstractItemView::ScrollPerPixel);
  m_table->verticalHeader()->hide();
  m_table->verticalHeader()->setDefaultSectionSize(fontMetrics().height() + 6);
  m_table->horizontalHeader()->setHighlightSections(false);
  m_table->horizontalHeader()->setSectionResizeMode(QHeaderView::ResizeToContents);
  m_table->setMinimumHeight((fontMetrics().height() + 6) * 4);
  connect(m_table->selectionModel(), &QItemSelectionModel::currentRowChanged, this, [this](const QModelIndex& now) {
    if (m_filling || !now.isValid()) return;
    showCandidate();
    m_workbench->makeCurrent(run());
  });
  m_standing = new QLabel;
  m_standing->setWordWrap(true);
  m_standing->setContentsMargins(12, 4, 12, 4);
  m_standing->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
  m_standing->setAccessibleName(tr("How the chosen run stands"));
  auto* box = new QWidget;
  box->setAutoFillBackground(true);
  box->setBackgroundRole(QPalette::Base);
  auto* column = new QVBoxLayout(box);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  column->addWidget(m_table, 1);
  column->addWidget(m_standing);
  return box;
}

QWidget* BestPage::makeMissing() {
  m_missingTitle = new QLabel(tr("What the paper's rule still asks for"));
  QFont font = m_missingTitle->font();
  font.setWeight(QFont::DemiBold);
  m_missingTitle->setFont(font);
  m_missingTitle->setWordWrap(true);
  m_queue = new QPushButton;
  m_queue->setToolTip(tr("Puts them into the workspace's queue, on the device that is chosen above"));
  connect(m_queue, &QPushButton::clicked, this, &BestPage::queueMissing);
  m_missing = new QTextBrowser;
  m_missing->setFrameShape(QFrame::NoFrame);
  m_missing->setOpenLinks(false);
  m_missing->setTabChangesFocus(true);
  m_missing->setAccessibleName(tr("What is missing, and what was left out"));
  auto* box = new QWidget;
  box->setAutoFillBackground(true);
  box->setBackgroundRole(QPalette::Base);
  auto* top = new QHBoxLayout;
  top->setContentsMargins(8, 6, 8, 2);
  top->addWidget(m_missingTitle, 1);
  top->addWidget(m_queue);
  auto* column = new QVBoxLayout(box);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  column->addLayout(top);
  column->addWidget(m_missing, 1);
  box->setMinimumWidth(260);
  return box;
}

void BestPage::showEvent(QShowEvent* event) {
  QWidget::showEvent(event);
  QTimer::singleShot(0, this, &BestPage::ask);
}

void BestPage::askAgain() {
  if (isVisible()) m_timer->start();
}

BestQuestion BestPage::question() const {
  BestQuestion asked;
  asked.hardware = m_hardware->currentData().toString().toStdString();
  asked.quality = m_quality->currentData().toString().toStdString();
  asked.calibration = m_calibration->currentData().toString().toStdString();
  asked.wanted.engine = m_engine->currentData().toString().toStdString();
  asked.wanted.gigabytes = m_size->value();
  asked.wanted.bits = m_bits->value();
  if (!asked.hardware.empty()) {
    asked.wanted.conditions = {m_batch->value(), m_context->value()};
    asked.wanted.decode = m_decode->value();
    asked.wanted.prefill = m_prefill->value();
  }
  for (const RunEntry& run : m_workbench->selection()->runsOfModel())
    if (run.report->status == RunStatus::finished) asked.runs.push_back(run.id.toStdString());
  return asked;
}

void BestPage::ask() {
  m_timer->stop();
  const auto unable = [this](const QString& why) {
    m_workbench->background()->cancel(kSlot);
    m_asked.clear();
    showAnswer(nullptr);
    showState(why);
  };
  const WorkspacePtr workspace = m_workbench->workspace();
  if (!workspace) return unable(m_workbench->readingText().isEmpty() ? tr("No workspace is open: its runs are compared here.") : m_workbench->readingText());
  const BestQuestion asked = question();
  if (asked.runs.empty())
    return unable(tr("No run of this model is finished yet. Start some on the Recipe page, with an evaluation text, so that they can be compared; a recipe with lists (a sweep) tries many at once."));
  // Besides the form: which runs there are, how far they are, and what they are called.
  QStringList key{text(asked.hardware), text(asked.quality), text(asked.calibration), text(asked.wanted.engine), m_workbench->workspacePath()};
  for (const double value : {asked.wanted.gigabytes, asked.wanted.bits, asked.wanted.conditions.batch, asked.wanted.conditions.context, asked.wanted.decode, asked.wanted.prefill}) key << QString::number(value, 'g', 17);
  for (const RunEntry& run : m_workbench->selection()->runsOfModel()) key << run.id + text(to_text(run.report->status)) + text(run.report->name);
  if (const QString whole = key.join(QLatin1Char('\n')); whole == m_asked) return;
  else m_asked = whole;
  m_notices->clear();
  showState(tr("Comparing %n run(s)…", nullptr, int(asked.runs.size())), true);
  m_workbench->background()->run(
      kSlot, [choose = m_choose, workspace, asked](const std::stop_token& stop) { return std::make_shared<const BestAnswer>(choose(workspace, asked, stop)); },
      [this](const BestAnswerPtr& answer) { showAnswer(answer); },
      [this](const QString& error) {
        m_asked.clear();
        showAnswer(nullptr);
        m_notices->tell(NoticeBar::Error, error);
        showState(tr("The runs could not be compared."));
      });
}

void BestPage::showState(const QString& text, bool busy) {
  m_state->setText(text);
  // A comparison under way leaves the last answer in sight: there is no room above it.
  m_state->setVisible(!text.isEmpty() && !(busy && m_answer));
  m_stop->setVisible(busy);
  m_content->setVisible(bool(m_answer));
  m_content->setEnabled(!busy);
}

void BestPage::showAnswer(const BestAnswerPtr& answer) {
  m_answer = answer;
  m_filling = true;
  m_candidates->setAnswer(answer);
  m_filling = false;
  showState({});
  if (!answer) return;
  const QString text = m_calibration->currentData().toString();
  m_calibration->clear();
  m_calibration->addItem(tr("any"), QString());
  for (const std::string& name : answer->texts) m_calibration->addItem(views::text(name), views::text(name));
  m_calibration->setCurrentIndex(std::max(0, m_calibration->findData(text)));

  const BestPractice& found = answer->found;
  const bool any = found.chosen >= 0;
  const QString name = any ? views::text(found.runs[size_t(found.chosen)].report.name) : QString();
  m_title->setText(any ? tr("Take %1").arg(name) : tr("No run is left to choose from"));
  QString why = views::text(verdict(found));
  if (const QString repeated = QStringLiteral("Take %1: ").arg(name); any && why.startsWith(repeated)) why = why.at(repeated.size()).toUpper() + why.mid(repeated.size() + 1);
  if (!any && !found.left_out.empty()) {
    const int out = int(found.left_out.size());
    why = tr("%1 left out, for the reasons below: ask for less on the left, or run other recipes.").arg(out == 1 ? tr("The only run was") : tr("All %1 runs were").arg(out));
  }
  m_verdict->setText(why);
  const Accuracy accuracy = accuracyOf(*answer, *m_workbench->selection());
  m_plot->setCaption(accuracy.title.isEmpty() ? tr("Size and figure") : tr("Size and %1").arg(accuracy.title), accuracy.conditions);
  m_plot->setMarked(any ? views::text(found.runs[size_t(found.chosen)].report.id) : QString());
  m_plot->setData(accuracy);
  m_filling = true;
  m_table->setCurrentIndex(m_candidates->index(std::max(0, m_candidates->chosenRow()), 0));
  m_filling = false;
  showCandidate();
  fillMissing();
}

QString BestPage::run() const {
  const BestCandidate* one = m_candidates->candidate(m_table->currentIndex().row());
  return one ? text(one->report.id) : QString();
}

void BestPage::showCandidate() {
  const int at = m_candidates->candidateIndex(m_table->currentIndex().row());
  m_standing->setText(at < 0 ? QString() : standingText(*m_answer, at));
  for (QPushButton* button : {m_use, m_write, m_export}) button->setEnabled(at >= 0);
}

void BestPage::followSelection() {
  const int row = m_candidates->rowOf(m_workbench->selection()->currentRun());
  if (row < 0 || row == m_table->currentIndex().row()) return;
  m_filling = true;
  m_table->setCurrentIndex(m_candidates->index(row, 0));
  m_filling = false;
  showCandidate();
}

void BestPage::fillMissing() {
  const auto& missing = m_answer->missing;
  QString html;
  QStringList items;
  for (const MissingRun& one : missing.runs) items << QStringLiteral("<b>%1</b> (%2): %3").arg(text(one.recipe.name).toHtmlEscaped(), text(to_text(one.takeaway)).toHtmlEscaped(), text(one.why).toHtmlEscaped());
  html += htmlList(items);
  items.clear();
  for (const std::string& line : missing.advice) items << text(line).toHtmlEscaped();
  html += htmlList(items);
  if (html.isEmpty() && m_answer->found.chosen >= 0) html = QStringLiteral("<p>%1</p>").arg(tr("Nothing: calibration text, pipeline and widths were tried as it says.").toHtmlEscaped());
  items.clear();
  for (const LeftOut& one : m_answer->found.left_out) items << QStringLiteral("<b>%1</b>: %2").arg(text(one.name).toHtmlEscaped(), text(one.why).toHtmlEscaped());
  if (!items.isEmpty()) html += QStringLiteral("<p style='margin-bottom:0'><b>%1</b></p>").arg(tr("Left out").toHtmlEscaped()) + htmlList(items);
  m_missing->setHtml(html);
  const int runs = int(missing.runs.size());
  m_queue->setText(runs == 1 ? tr("&Queue this run") : tr("&Queue these %1 runs").arg(runs));
  m_queue->setVisible(runs > 0);
  m_queue->setEnabled(true);
}

void BestPage::queueMissing() {
  if (!m_answer) return;
  m_queue->setEnabled(false);  // until the answer that knows them
  std::vector<Recipe> recipes;
  for (const MissingRun& one : m_answer->missing.runs) recipes.push_back(one.recipe);
  m_workbench->startSweep({}, recipes, {});
}

void BestPage::askWhereToWrite() {
  const BestCandidate* one = m_candidates->candidate(m_table->currentIndex().row());
  if (!one) return;
  struct Kind {
    QString filter, format, ending;
  };
  QVector<Kind> kinds{{tr("Our recipe, with its evidence (*.yaml)"), kOurs, QStringLiteral("yaml")}};
  for (const ExportTarget& target : export_targets()) kinds << Kind{QStringLiteral("%1 (*%2)").arg(text(target.title), text(target.ending)), text(target.name), text(target.ending).mid(1)};
  QStringList filters;
  for (const Kind& kind : kinds) filters << kind.filter;
  auto* dialog = new QFileDialog(this, tr("Write the recipe of %1").arg(text(one->report.name)));
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->setAcceptMode(QFileDialog::AcceptSave);
  dialog->setNameFilters(filters);
  dialog->setDefaultSuffix(kinds.front().ending);
  QString name = text(one->report.name);
  for (QChar& c : name)
    if (c == QLatin1Char('/') || c == QLatin1Char('\\')) c = QLatin1Char('-');
  dialog->selectFile(name + QStringLiteral(".yaml"));
  connect(dialog, &QFileDialog::filterSelected, dialog, [dialog, kinds, filters](const QString& filter) {
    const QString ending = kinds[std::max<qsizetype>(0, filters.indexOf(filter))].ending;
    dialog->setDefaultSuffix(ending);
    const QString path = dialog->selectedFiles().value(0);
    for (const Kind& kind : kinds)
      if (const QString old = QLatin1Char('.') + kind.ending; path.endsWith(old)) return dialog->selectFile(path.chopped(old.size()) + QLatin1Char('.') + ending);
  });
  connect(dialog, &QFileDialog::fileSelected, this, [this, dialog, kinds, filters](const QString& path) { writeRecipe(path, kinds[std::max<qsizetype>(0, filters.indexOf(dialog->selectedNameFilter()))].format); });
  dialog->open();
}

void BestPage::writeRecipe(const QString& path, const QString& format) {
  const int at = m_candidates->candidateIndex(m_table->currentIndex().row());
  if (at < 0) return;
  struct Written {
    QStringList files, notes;
  };
  m_workbench->background()->run(
      {},
      [answer = m_answer, at, workspace = m_workbench->workspace(), path = std::filesystem::path(path.toStdString()), format](const std::stop_token&) {
        BestPractice found = answer->found;
        found.chosen = at;
        if (format == kOurs) {
          write_atomically(path, recipe_with_evidence(*workspace, found, answer->wanted));
          return Written{{text(path.string())}, {}};
        }
        const RecipeExport exported = export_recipe(workspace->recipe(found.runs[size_t(at)].report.id), format.toStdString(), evidence(found, answer->wanted));
        Written written{{}, lines(exported.notes)};
        for (const ExportedFile& file : exported.files) {
          // The dialog asked about `path` only.
          if (const auto target = path_of(file, path); target != path && std::filesystem::exists(target)) throw InputError(target.string() + " is there already: the recipe takes several files, choose another name");
        }
        for (const ExportedFile& file : exported.files) {
          const auto target = path_of(file, path);
          write_atomically(target, file.text);
          written.files << text(target.string());
        }
        return written;
      },
      [this](const Written& written) {
        const QStringList said = QStringList{tr("Written: %1").arg(written.files.join(QStringLiteral(", ")))} + written.notes;
        m_notices->tell(written.notes.isEmpty() ? NoticeBar::Info : NoticeBar::Warning, said.join(QLatin1Char('\n')));
      },
      [this](const QString& error) { m_notices->tell(NoticeBar::Error, error); });
}

}  // namespace qb::views
