#include "views/pages/BitsPage.h"

#include <QComboBox>
#include <QDoubleSpinBox>
#include <QFileInfo>
#include <QHBoxLayout>
#include <QLabel>
#include <QMenu>
#include <QProgressBar>
#include <QPushButton>
#include <QScrollArea>
#include <QSplitter>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>

#include "views/models/Format.h"
#include "views/models/LinearErrors.h"
#include "views/pages/BitsMenu.h"
#include "views/pages/SurveyDialog.h"
#include "views/plots/BitStripPlot.h"
#include "views/plots/TornadoPlot.h"

namespace qb::views {
namespace {

enum Unit { BitsPerWeight, GiB };
constexpr double kGiB = 1024.0 * 1024 * 1024;

QString text(const std::string& value) { return QString::fromStdString(value); }

QComboBox* combo(const QString& name, const QString& toolTip) {
  auto* box = new QComboBox;
  box->setAccessibleName(name);
  box->setToolTip(toolTip);
  return box;
}

// May be narrower than what it says, which then is elided.
void mayShrink(QComboBox* box, int letters) {
  box->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  box->setMinimumContentsLength(letters);
}

}  // namespace

BitsPage::BitsPage(Workbench* workbench, QWidget* parent) : QWidget(parent), m_workbench(workbench), m_tornado(new TornadoPlot), m_strip(new BitStripPlot) {
  m_tornado->setEmptyText(tr("How sensitive is each linear? A survey finds it out: “New survey…”."));
  m_strip->setEmptyText(tr("Open a model to see, and change, which linear has how many bits."));
  for (Plot* plot : std::initializer_list<Plot*>{m_tornado, m_strip}) plot->setMinimumHeight(150);

  auto* upper = new QSplitter(Qt::Horizontal);
  upper->addWidget(m_tornado);
  upper->addWidget(makeFigures());
  upper->setStretchFactor(0, 3);
  upper->setStretchFactor(1, 1);
  upper->setSizes({460, 200});
  auto* lower = new QWidget;
  auto* below = new QVBoxLayout(lower);
  below->setContentsMargins(0, 0, 0, 0);
  below->setSpacing(0);
  below->addWidget(makeBudget());
  below->addWidget(m_strip, 1);
  auto* splitter = new QSplitter(Qt::Vertical);
  splitter->addWidget(upper);
  splitter->addWidget(lower);
  splitter->setSizes({260, 340});
  for (QSplitter* each : {upper, splitter}) each->setChildrenCollapsible(false);
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->setSpacing(0);
  layout->addWidget(makeSurveyBar());
  layout->addWidget(splitter, 1);

  Selection* selection = workbench->selection();
  m_tornado->setMenuExtension([this](QMenu* menu, const QPointF& pixel) {
    addBitsMenu(menu, m_tornado->linearAt(pixel), [this](const LinearKey& key, int bits) { m_workbench->giveBits(key, bits); });
  });
  connect(m_tornado, &TornadoPlot::linearChosen, selection, &Selection::setCurrentLinear);
  connect(m_strip, &BitStripPlot::linearChosen, this, [this](int linear) {
    const PlannedLinear& l = m_plan.linears[size_t(linear)];
    m_workbench->selection()->setCurrentLinear({l.block, text(l.name)});
  });
  connect(m_strip, &BitStripPlot::bitsWanted, this, &BitsPage::chooseBits);
  connect(m_strip, &BitStripPlot::bitsTyped, this, [this](int linear, int bits) {
    const PlannedLinear& l = m_plan.linears[size_t(linear)];
    const auto& base = l.weights ? l.weights : m_scheme.weights;
    const auto wanted = base ? with_bits(*base, bits) : std::nullopt;
    if (!wanted) return tell(tr("There is no type of %1 bits here").arg(bits));
    giveBits(linear, wanted);
  });
  connect(selection, &Selection::currentLinearChanged, this, [this] {
    m_tornado->setCurrent(m_workbench->selection()->currentLinear());
    m_strip->setCurrent(m_workbench->selection()->currentLinear());
  });
  const auto modelChanged = [this] {
    loadSurveys();
    fillSources();
    followJob();
  };
  connect(selection, &Selection::currentModelChanged, this, modelChanged);
  connect(selection, &Selection::modelsChanged, this, modelChanged);
  connect(workbench, &Workbench::workspaceChanged, this, [this, modelChanged] {
    m_key.clear();
    modelChanged();
  });
  for (const auto signal : {&Selection::runsChanged, &Selection::currentRunChanged}) connect(selection, signal, this, &BitsPage::fillSources);
  connect(workbench->document(), &RecipeDocument::recipeChanged, this, [this] {
    // What was changed here stays while the recipe changes elsewhere.
    if (m_source.isEmpty() && !(isEdited() && m_workbench->document()->recipe().scheme == m_scheme)) loadPlan();
  });
  RunQueue* queue = workbench->queue();
  connect(queue, &RunQueue::changed, this, &BitsPage::followJob);
  connect(queue, &RunQueue::added, this, &BitsPage::followJob);
  connect(queue, &RunQueue::ended, this, [this](int id) {
    const Job* job = m_workbench->queue()->job(id);
    if (!job || job->kind != JobKind::Survey) return;
    if (job->state == JobState::Failed) m_state->setText(tr("The survey failed: %1").arg(job->error));
    if (job->state != JobState::Finished) return;
    m_wantedFile = job->surveyed;
    m_key.clear();
    loadSurveys();
  });
  loadSurveys();
  fillSources();
  followJob();
}

QWidget* BitsPage::makeSurveyBar() {
  auto* bar = new QWidget;
  auto* layout = new QHBoxLayout(bar);
  layout->setContentsMargins(8, 4, 8, 4);
  m_survey = combo(tr("Survey that is shown"), tr("Surveys of this model that the workspace keeps"));
  mayShrink(m_survey, 8);
  m_survey->setPlaceholderText(tr("no survey of this model yet"));
  connect(m_survey, &QComboBox::activated, this, &BitsPage::showSurveys);
  m_progress = new QProgressBar;
  m_progress->setRange(0, 1000);
  m_progress->setMaximumWidth(fontMetrics().horizontalAdvance(QLatin1Char('n')) * 18);
  m_progress->setAccessibleName(tr("How far the survey is"));
  m_start = new QPushButton(tr("New survey…"));
  connect(m_start, &QPushButton::clicked, this, &BitsPage::startSurvey);
  m_stop = new QPushButton(tr("Stop"));
  m_stop->setToolTip(tr("What is done is kept: started again, the survey goes on there"));
  connect(m_stop, &QPushButton::clicked, this, [this] {
    if (const Job* job = m_workbench->queue()->activeSurvey()) m_workbench->queue()->cancel(job->id);
  });
  layout->addWidget(m_survey, 1);
  layout->addWidget(m_progress);
  layout->addWidget(m_stop);
  layout->addWidget(m_start);
  return bar;
}

QWidget* BitsPage::makeFigures() {
  m_figure = combo(tr("Figure that tells how sensitive a linear is"), {});
  for (const Figure figure : allFigures()) {
    m_figure->addItem(figureTitle(figure), int(figure));
    m_figure->setItemData(m_figure->count() - 1, figureMeaning(figure), Qt::ToolTipRole);
  }
  m_candidate = combo(tr("Scheme under which linears are compared"), tr("What each linear is rounded to"));
  for (QComboBox* box : {m_figure, m_candidate}) mayShrink(box, 6);
  connect(m_figure, &QComboBox::activated, this, [this] {
    showBars();
    showTotals();
  });
  connect(m_candidate, &QComboBox::activated, this, &BitsPage::showBars);
  m_correlations = new QLabel;
  m_correlations->setWordWrap(true);
  m_correlations->setAlignment(Qt::AlignTop | Qt::AlignLeft);
  m_correlations->setTextInteractionFlags(Qt::TextSelectableByMouse);
  m_correlations->setAccessibleName(tr("How far the figures agree"));
  m_state = new QLabel;
  m_state->setForegroundRole(QPalette::PlaceholderText);
  m_state->setWordWrap(true);
  auto* inside = new QWidget;
  auto* column = new QVBoxLayout(inside);
  column->setContentsMargins(8, 6, 8, 6);
  auto* figureLabel = new QLabel(tr("&Figure:"));
  figureLabel->setBuddy(m_figure);
  auto* candidateLabel = new QLabel(tr("&Rounded to:"));
  candidateLabel->setBuddy(m_candidate);
  column->addWidget(figureLabel);
  column->addWidget(m_figure);
  column->addWidget(candidateLabel);
  column->addWidget(m_candidate);
  column->addWidget(m_correlations);
  column->addWidget(m_state);
  column->addStretch(1);
  auto* scroll = new QScrollArea;
  scroll->setWidget(inside);
  scroll->setWidgetResizable(true);
  scroll->setFrameShape(QFrame::NoFrame);
  scroll->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  scroll->setMinimumWidth(170);
  return scroll;
}

QWidget* BitsPage::makeBudget() {
  auto* box = new QWidget;
  auto* column = new QVBoxLayout(box);
  column->setContentsMargins(8, 4, 8, 2);
  column->setSpacing(3);
  m_sources = combo(tr("Whose bits are shown"), tr("The recipe being edited, or a run's recipe"));
  mayShrink(m_sources, 6);
  connect(m_sources, &QComboBox::activated, this, [this] {
    m_source = m_sources->currentData().toString();
    loadPlan();
  });
  m_totals = new QLabel;
  m_totals->setTextInteractionFlags(Qt::TextSelectableByMouse);
  m_totals->setWordWrap(true);
  m_totals->setAccessibleName(tr("What these bits come to"));
  m_budget = new QDoubleSpinBox;
  m_budget->setDecimals(3);
  m_budget->setRange(0.001, 1e6);
  m_budget->setSingleStep(0.05);
  m_budget->setValue(4.3);
  m_budget->setAccessibleName(tr("Budget"));
  m_unit = combo(tr("Unit of the budget"), {});
  m_unit->addItem(tr("bits a weight"), BitsPerWeight);
  m_unit->addItem(tr("GiB"), GiB);
  m_unit->setItemData(0, tr("Of the linears, scales and zero points included"), Qt::ToolTipRole);
  m_unit->setItemData(1, tr("Of all of the model's tensors"), Qt::ToolTipRole);
  connect(m_unit, &QComboBox::activated, this, [this] {
    const PlanTotal total = total_of(m_plan);
    m_budget->setValue(m_unit->currentData().toInt() == GiB ? double(total.bytes) / kGiB : total.bits_per_weight);
  });
  m_optimise = new QPushButton(tr("Optimise"));
  m_optimise->setToolTip(tr("Give each linear the scheme with which the model suffers least within this budget: the best there is by the chosen figure"));
  connect(m_optimise, &QPushButton::clicked, this, &BitsPage::optimise);
  m_back = new QPushButton(tr("Take back"));
  m_back->setToolTip(tr("Forget what was changed here"));
  connect(m_back, &QPushButton::clicked, this, &BitsPage::loadPlan);
  m_write = new QPushButton(tr("Write into the recipe"));
  m_write->setToolTip(tr("These bits become the weights and overrides of the recipe being edited: one step, which can be undone there"));
  connect(m_write, &QPushButton::clicked, this, &BitsPage::writeIntoRecipe);
  m_problem = new QLabel;
  m_problem->setWordWrap(true);
  m_problem->hide();
  auto* label = new QLabel(tr("&At most"));
  label->setBuddy(m_budget);
  auto* first = new QHBoxLayout;
  first->addWidget(m_sources, 1);
  first->addWidget(m_back);
  first->addWidget(m_write);
  auto* second = new QHBoxLayout;
  second->addWidget(label);
  second->addWidget(m_budget);
  second->addWidget(m_unit);
  second->addWidget(m_optimise);
  second->addStretch(1);
  column->addLayout(first);
  column->addLayout(second);
  column->addWidget(m_totals);
  column->addWidget(m_problem);
  return box;
}

ModelPtr BitsPage::model() const { return m_workbench->selection()->openModel(); }

SensitivityPtr BitsPage::survey() const {
  const int at = m_survey->currentIndex();
  return at < 0 || at >= int(m_surveys.size()) ? nullptr : m_surveys[size_t(at)].survey;
}

Figure BitsPage::figure() const { return Figure(m_figure->currentData().toInt()); }

bool BitsPage::isEdited() const {
  for (size_t i = 0; i < m_plan.linears.size() && i < m_before.linears.size(); ++i)
    if (m_plan.linears[i].weights != m_before.linears[i].weights) return true;
  return false;
}

void BitsPage::tell(const QString& problem) {
  m_problem->setText(problem);
  m_problem->setVisible(!problem.isEmpty());
}

// ---- surveys ----

void BitsPage::loadSurveys() {
  const ModelPtr open = model();
  const QString hash = open && !open->hash.empty() ? text(open->hash) : m_workbench->selection()->currentModel();
  const QString key = m_workbench->workspacePath() + QLatin1Char('\n') + hash;
  if (key == m_key) return;
  m_key = key;
  const auto& stored = m_workbench->services().storedSensitivities;
  if (!m_workbench->workspace() || hash.isEmpty() || !stored) {
    m_surveys.clear();
    return showSurveys();
  }
  m_workbench->background()->run(
      QStringLiteral("sensitivities"), [stored, folder = m_workbench->workspace()->folder(), hash = hash.toStdString()](const std::stop_token&) { return stored(folder, hash); },
      [this](std::vector<StoredSensitivity> found) {
        m_surveys.clear();
        QStringList problems;
        for (StoredSensitivity& each : found) {
          if (each.survey)
            m_surveys.push_back(std::move(each));
          else
            problems << text(each.problem);
        }
        m_survey->clear();
        for (const StoredSensitivity& each : m_surveys) {
          m_survey->addItem(surveyTitle(*each.survey), text(each.file.string()));
          m_survey->setItemData(m_survey->count() - 1, tr("%1\n%2\nas `qbench sensitivity -o` writes it").arg(surveyTitle(*each.survey), text(each.file.string())), Qt::ToolTipRole);
        }
        m_survey->setCurrentIndex(m_surveys.empty() ? -1 : std::max(0, m_survey->findData(m_wantedFile)));  // a placeholder's box chooses none by itself
        m_state->setText(problems.join(QLatin1Char('\n')));
        showSurveys();
      },
      [this](const QString& error) { m_state->setText(error); });
}

void BitsPage::showSurveys() {
  if (m_surveys.empty()) m_survey->clear();
  m_survey->setEnabled(!m_surveys.empty());
  const SensitivityPtr shown = survey();
  const QString candidate = m_candidate->currentText();
  m_candidate->clear();
  if (shown)
    for (const std::string& each : shown->candidates) m_candidate->addItem(text(each));
  // In the middle, where neither nothing nor everything breaks.
  m_candidate->setCurrentIndex(std::max(m_candidate->findText(candidate), shown ? (m_candidate->findText(candidate) < 0 ? int(shown->candidates.size()) / 3 : 0) : -1));
  bool hidden = false;
  for (int i = 0; i < m_figure->count(); ++i) {
    const bool there = shown && hasFigure(*shown, Figure(m_figure->itemData(i).toInt()));
    m_figure->setItemData(i, there ? QVariant() : QVariant(0), Qt::UserRole - 1);  // greyed
    if (i == m_figure->currentIndex() && !there) hidden = true;
  }
  if (hidden && shown)
    for (int i = 0; i < m_figure->count(); ++i)
      if (hasFigure(*shown, Figure(m_figure->itemData(i).toInt()))) {
        m_figure->setCurrentIndex(i);
        break;
      }
  m_figure->setEnabled(bool(shown));
  m_candidate->setEnabled(bool(shown));
  showBars();
  showTotals();
}

void BitsPage::showBars() {
  const SensitivityPtr shown = survey();
  const QString candidate = m_candidate->currentText();
  const SensitivityBars bars = shown ? gatherBars(*shown, figure(), candidate) : SensitivityBars();
  m_figure->setToolTip(figureMeaning(figure()));
  QString conditions = shown ? tr("%1 × %2 tokens, by %3").arg(shown->samples).arg(shown->seq_len).arg(text(shown->rounding)) : QString();
  if (bars.unknown > 0 && shown) conditions += tr("; not known of %1").arg(bars.unknown);
  m_tornado->setCaption(shown ? tr("Most sensitive under %1").arg(candidate) : tr("Sensitivity of linears"), conditions);
  m_tornado->setData(bars);
  m_tornado->setCurrent(m_workbench->selection()->currentLinear());
  const QStringList lines = shown ? correlationLines(*shown, candidate) : QStringList();
  m_correlations->setText(lines.isEmpty() ? QString() : tr("Agreement in rank (Spearman):\n%1").arg(lines.join(QLatin1Char('\n'))));
}

void BitsPage::startSurvey() {
  const ModelPtr open = model();
  if (!open) {
    m_state->setText(tr("Open the model first."));
    return;
  }
  SensitivityWish wish;
  try {
    wish.recipe = m_workbench->document()->resolved();
  } catch (const Error& error) {
    m_state->setText(tr("The calibration text is the recipe's, which has mistakes: %1").arg(QString::fromUtf8(error.what())));
    return;
  }
  if (!wish.recipe.calibration) {
    m_state->setText(tr("The recipe being edited has no calibration text: choose one on the Recipe page."));
    return;
  }
  wish.recipe.model = open->path;
  wish.device = m_workbench->device().toStdString();
  wish.candidates = candidates_beside(wish.recipe.scheme.weights.value_or(QuantSpec{}));
  int linears = 0;
  for (const BlockInfo& block : open->blocks) linears += int(block.linears.size());
  auto* dialog = new SurveyDialog(wish, text(open->name), linears, window());
  connect(dialog, &QDialog::accepted, this, [this, dialog, name = text(open->name)] {
    m_state->clear();
    m_workbench->startSurvey(dialog->wish(), name);
  });
  dialog->show();
}

void BitsPage::followJob() {
  const Job* job = m_workbench->queue()->activeSurvey();
  m_progress->setVisible(job);
  m_stop->setVisible(job);
  m_start->setVisible(!job);
  m_start->setEnabled(bool(model()));
  if (!job) return;
  m_progress->setValue(int(job->progress.fraction * 1000));
  m_progress->setFormat(job->isWaiting() ? tr("waits") : tr("%p %"));
  m_progress->setToolTip(job->progress.eta_s >= 0 ? tr("%1: %2 left").arg(job->name, formatDuration(job->progress.eta_s)) : job->name);
  m_stop->setEnabled(job->canCancel());
}

// ---- bits ----

void BitsPage::fillSources() {
  const QString wanted = m_source;
  m_sources->clear();
  m_sources->addItem(tr("Bits of the recipe being edited"), QString());
  // The current run first, then those that are shown: a workspace may have a thousand.
  QStringList ids;
  if (const QString current = m_workbench->selection()->currentRun(); !current.isEmpty()) ids << current;
  for (const RunEntry& run : m_workbench->selection()->shownRuns())
    if (!ids.contains(run.id)) ids << run.id;
  if (!wanted.isEmpty() && !ids.contains(wanted) && m_workbench->selection()->find(wanted)) ids << wanted;
  for (const QString& id : ids)
    if (const RunEntry* run = m_workbench->selection()->find(id)) m_sources->addItem(tr("Bits of the run %1").arg(text(run->report->name)), id);
  m_sources->setCurrentIndex(std::max(0, m_sources->findData(wanted)));
  const bool gone = m_sources->currentData().toString() != wanted;
  m_source = m_sources->currentData().toString();
  const ModelPtr open = model();
  size_t linears = 0;
  if (open)
    for (const BlockInfo& block : open->blocks) linears += block.linears.size();
  if (gone || linears != m_plan.linears.size()) loadPlan();
}

void BitsPage::loadPlan() {
  tell({});
  m_uniform.reset();
  const ModelPtr open = model();
  if (!open) return setPlan({}, {});
  if (m_source.isEmpty()) {
    const ModelPtr of = m_workbench->recipeModel();
    if (of && of != open) tell(tr("The recipe being edited is for %1; its scheme is shown as it would be for %2.").arg(text(of->name), text(open->name)));
    return setPlan(bit_plan(*open, m_workbench->document()->recipe().scheme), m_workbench->document()->recipe().scheme);
  }
  if (!m_workbench->workspace()) return setPlan({}, {});
  m_workbench->background()->run(
      QStringLiteral("bits"), [workspace = m_workbench->workspace(), id = m_source.toStdString()](const std::stop_token&) { return workspace->recipe(id).scheme; },
      [this, source = m_source](const Scheme& scheme) {
        if (source != m_source || !model()) return;
        setPlan(bit_plan(*model(), scheme), scheme);
      },
      [this](const QString& error) { tell(error); });
}

void BitsPage::setPlan(BitPlan plan, const Scheme& scheme) {
  m_plan = plan;
  m_before = std::move(plan);
  m_scheme = scheme;
  if (!scheme.mix.empty()) tell(tr("The mix %1 chooses types by itself when the recipe runs; its first type is shown. What is written from here replaces it.").arg(text(scheme.mix)));
  showPlan();
}

void BitsPage::showPlan() {
  m_strip->setCaption(tr("Bits of each linear"), isEdited() ? tr("framed: changed, not in the recipe yet") : tr("click one to change it"));
  m_strip->setData(m_plan, m_before);
  m_strip->setCurrent(m_workbench->selection()->currentLinear());
  showTotals();
}

void BitsPage::showTotals() {
  const bool any = !m_plan.linears.empty(), edited = isEdited();
  m_back->setEnabled(edited);
  m_write->setEnabled(any && (edited || !m_source.isEmpty()));
  m_optimise->setEnabled(any && survey());
  m_optimise->setToolTip(survey() ? tr("Give each linear the scheme with which the model suffers least within this budget: the best there is by the chosen figure") : tr("Needs a survey of the model: “New survey…”"));
  if (!any) return m_totals->clear();
  const SensitivityPtr known = survey();
  const std::string cost = figureKey(figure()).toStdString();
  const PlanTotal now = total_of(m_plan, known.get(), cost), before = total_of(m_before, known.get(), cost);
  const auto change = [edited](const QString& after, const QString& earlier) { return edited && after != earlier ? tr("%1 (was %2)").arg(after, earlier) : after; };
  const auto bits = [](const PlanTotal& total) { return QLocale().toString(total.bits_per_weight, 'f', 3); };
  const auto size = [](const PlanTotal& total) { return formatBytes(double(total.bytes)); };
  const auto costText = [](const PlanTotal& total) { return std::isfinite(total.predicted) ? formatNumber(total.predicted, 4) : tr("not known"); };
  QStringList parts{tr("%1 bits a weight").arg(change(bits(now), bits(before))), tr("model %1").arg(change(size(now), size(before)))};
  if (known) {
    QString predicted = (figure() == Figure::Gram ? tr("Σ relative errors %1") : figure() == Figure::Measured ? tr("Σ measured KL %1") : tr("predicted KL %1")).arg(change(costText(now), costText(before)));
    if (now.unknown > 0) predicted += tr(" – the survey did not try what %1 linears have").arg(now.unknown);
    parts << predicted;
  }
  QString line = parts.join(QStringLiteral(" · "));
  if (m_uniform && std::isfinite(now.predicted) && m_uniform->predicted > 0)
    line += tr("\nOne scheme for all within that, %1: %2 bits, %3; this is %4 % less")
                .arg(text(m_uniform->name), QLocale().toString(m_uniform->bits_per_weight, 'f', 3), formatNumber(m_uniform->predicted, 4),
                     QLocale().toString(100 * (1 - now.predicted / m_uniform->predicted), 'f', 0));
  m_totals->setText(line);
}

std::vector<QuantSpec> BitsPage::choicesFor(const PlannedLinear& linear) const {
  const auto& base = linear.weights ? linear.weights : m_scheme.weights;
  std::vector<QuantSpec> choices;
  const auto add = [&](const QuantSpec& spec) {
    if (misfit(spec, linear.out_features, linear.in_features).empty() && std::find(choices.begin(), choices.end(), spec) == choices.end()) choices.push_back(spec);
  };
  if (const SensitivityPtr known = survey()) {
    for (const std::string& candidate : known->candidates)
      if (const auto spec = parse_candidate(candidate)) add(with_candidate(base, *spec));
  } else {
    for (const int bits : {2, 3, 4, 5, 6, 8})
      if (const auto spec = with_bits(base.value_or(QuantSpec{}), bits)) add(*spec);
  }
  return choices;
}

void BitsPage::chooseBits(int at, const QPoint& place) {
  const PlannedLinear& linear = m_plan.linears[size_t(at)];
  auto* menu = new QMenu(this);
  menu->setAttribute(Qt::WA_DeleteOnClose);
  const bool several = m_plan.ties[linear.tie].size() > 1;
  menu->addSection(several ? tr("%1: together, as engines join them").arg(tiedTitle(m_plan, size_t(at))) : tiedTitle(m_plan, size_t(at)));
  const SensitivityPtr known = survey();
  const std::string cost = figureKey(figure()).toStdString();
  const auto add = [&](const std::optional<QuantSpec>& weights, const QString& label) {
    BitPlan other = m_plan;
    QString line = label;
    try {
      give(other, size_t(at), weights);
      const PlanTotal total = total_of(other, known.get(), cost);
      line += tr("   %1 bits a weight of all").arg(QLocale().toString(total.bits_per_weight, 'f', 3));
      if (std::isfinite(total.predicted)) line += figure() == Figure::Gram ? tr(", Σ errors %1").arg(formatNumber(total.predicted, 4)) : tr(", KL %1").arg(formatNumber(total.predicted, 4));
    } catch (const Error&) {
      return;  // does not fit what is tied to it
    }
    QAction* action = menu->addAction(line, this, [this, at, weights] { giveBits(at, weights); });
    action->setCheckable(true);
    action->setChecked(linear.weights == weights);
  };
  for (const QuantSpec& spec : choicesFor(linear)) add(spec, text(describe(spec)));
  add(std::nullopt, tr("keep in float"));
  menu->popup(place);
}

void BitsPage::giveBits(int linear, const std::optional<QuantSpec>& weights) {
  tell({});
  try {
    m_uniform.reset();
    const auto changed = give(m_plan, size_t(linear), weights);
    if (changed.size() > 1) tell(tr("%1 changed together: engines join them into one matrix.").arg(tiedTitle(m_plan, size_t(linear))));
  } catch (const Error& error) {
    tell(QString::fromUtf8(error.what()));
  }
  showPlan();
}

void BitsPage::optimise() {
  const SensitivityPtr known = survey();
  if (!known || m_plan.linears.empty()) return;
  AllocationOptions options;
  options.cost = figureKey(figure()).toStdString();
  const bool gib = m_unit->currentData().toInt() == GiB;
  (gib ? options.budget.gib : options.budget.bits) = m_budget->value();
  m_optimise->setEnabled(false);
  tell({});
  m_workbench->background()->run(
      QStringLiteral("allocation"), [known, options, scheme = m_scheme](const std::stop_token&) { return allocate(*known, options, &scheme); },
      [this, known, gib, size = m_plan.linears.size()](const Allocation& found) {
        if (known != survey() || size != m_plan.linears.size()) return showTotals();
        std::map<std::string, std::string> candidates;
        for (size_t i = 0; i < found.modules.size(); ++i) candidates[found.modules[i]] = found.candidates[i];
        for (PlannedLinear& l : m_plan.linears)
          if (const auto it = candidates.find(l.module); it != candidates.end()) l.weights = with_candidate(l.weights ? l.weights : m_scheme.weights, *parse_candidate(it->second));
        m_uniform.reset();
        for (const AllocationTotal& uniform : found.uniform)
          if ((gib ? double(uniform.bytes) / kGiB : uniform.bits_per_weight) <= m_budget->value() * (1 + 1e-9) && (!m_uniform || uniform.predicted < m_uniform->predicted)) m_uniform = uniform;
        showPlan();
      },
      [this](const QString& error) {
        tell(error);
        showTotals();
      });
}

bool BitsPage::writeIntoRecipe() {
  tell({});
  try {
    const Scheme scheme = planned_scheme(m_plan, m_source.isEmpty() ? m_workbench->document()->recipe().scheme : m_scheme);
    const double bits = total_of(m_plan).bits_per_weight;
    if (!m_workbench->writeScheme(scheme, tr("Bits of each linear"))) return false;
    const QString done = tr("The recipe has these bits now: %1 a weight, %2 overrides.").arg(QLocale().toString(bits, 'f', 3)).arg(scheme.overrides.size());
    m_source.clear();
    m_sources->setCurrentIndex(0);
    loadPlan();
    tell(done);
    return true;
  } catch (const Error& error) {
    tell(QString::fromUtf8(error.what()));
    return false;
  }
}

}  // namespace qb::views
