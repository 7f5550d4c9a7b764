#include "views/pages/RecipePage.h"

#include <QHBoxLayout>
#include <QLabel>
#include <QMenu>
#include <QPushButton>
#include <QSplitter>
#include <QVBoxLayout>

#include "core/recipe/target.h"
#include "views/Icons.h"
#include "views/models/Format.h"
#include "views/pages/NoticeBar.h"
#include "views/pages/RecipeForm.h"
#include "views/pages/YamlEditor.h"

namespace qb::views {

SchemeFit fitRecipe(const Recipe& recipe, const ModelInfo* model) {
  const Scheme& scheme = recipe.scheme;
  SchemeFit fit;
  fit.summary = QString::fromStdString(describe(scheme));
  if (!model) return fit;
  double weights = 0, bits = 0, before = 0, after = 0;
  for (const BlockInfo& block : model->blocks)
    for (const LinearInfo& linear : block.linears) {
      const double count = double(linear.out_features) * double(linear.in_features);
      const std::string suffix = ".weight";
      std::string module = linear.tensor;
      if (module.size() > suffix.size() && module.compare(module.size() - suffix.size(), suffix.size(), suffix) == 0) module.resize(module.size() - suffix.size());
      const auto spec = scheme.weights_of(module);
      before += double(linear.bytes);
      if (!spec) {
        after += double(linear.bytes);
        continue;
      }
      if (const std::string wrong = misfit(*spec, linear.out_features, linear.in_features); !wrong.empty()) {
        if (!fit.problem) {
          const QString key = spec->granularity == Granularity::block  ? QStringLiteral("scheme.weights.block_rows")
                              : spec->granularity == Granularity::head ? QStringLiteral("scheme.weights.heads")
                                                                       : QStringLiteral("scheme.weights.group_size");
          fit.problem = RecipeProblem{0, 0, key, QStringLiteral("%1: %2").arg(QString::fromStdString(module), QString::fromStdString(wrong))};
        }
        continue;
      }
      const double each = bits_per_weight(*spec, linear.out_features, linear.in_features);
      weights += count;
      bits += each * count;
      after += each * count / 8;
    }
  if (weights > 0 && !fit.problem)
    fit.summary += RecipePage::tr(" · %1 bits per weight with scales · blocks' linears %2 → %3")
                       .arg(QString::number(bits / weights, 'f', 2), formatBytes(before), formatBytes(after));
  if (const auto chosen = chosen_scale_type(recipe, model->dtype)) fit.summary += RecipePage::tr(" · scales in %1, as the target's engines compute").arg(QString::fromStdString(to_text(*chosen)));
  return fit;
}

RecipePage::RecipePage(RecipeDocument* document, Background* background, QWidget* parent)
    : QWidget(parent), m_document(document), m_background(background) {
  m_title = new QLabel;
  QFont font = m_title->font();
  font.setPointSizeF(font.pointSizeF() * 1.3);
  font.setBold(true);
  m_title->setFont(font);
  m_path = new QLabel;
  m_path->setForegroundRole(QPalette::PlaceholderText);
  m_path->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
  m_presetButton = new QPushButton(icon(QStringLiteral("recipe")), tr("Presets"));
  m_presetButton->setMenu(new QMenu(m_presetButton));
  m_presetButton->menu()->setToolTipsVisible(true);
  m_save = new QPushButton(icon(QStringLiteral("save")), tr("Save"));
  m_start = new QPushButton(icon(QStringLiteral("start")), tr("Start run"));
  connect(m_save, &QPushButton::clicked, this, &RecipePage::saveRequested);
  connect(m_start, &QPushButton::clicked, this, &RecipePage::startRequested);

  auto* head = new QHBoxLayout;
  head->setContentsMargins(12, 8, 12, 6);
  head->setSpacing(8);
  head->addWidget(m_title);
  head->addWidget(m_path, 1);
  head->addWidget(m_presetButton);
  head->addWidget(m_save);
  head->addWidget(m_start);

  m_notices = new NoticeBar;
  m_problemBar = new NoticeBar;
  m_form = new RecipeForm;
  m_form->setMinimumWidth(300);
  m_editor = new YamlEditor;
  m_editor->setMinimumWidth(220);
  m_editor->setAccessibleName(tr("Recipe as YAML"));
  m_editor->setFrameShape(QFrame::NoFrame);
  auto* splitter = new QSplitter(Qt::Horizontal);
  splitter->setObjectName(QStringLiteral("recipeSplitter"));
  splitter->addWidget(m_form);
  splitter->addWidget(m_editor);
  splitter->setChildrenCollapsible(false);
  splitter->setStretchFactor(0, 1);
  splitter->setStretchFactor(1, 1);
  splitter->setSizes({480, 480});

  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  column->addLayout(head);
  column->addWidget(m_notices);
  column->addWidget(m_problemBar);
  column->addWidget(splitter, 1);

  connect(m_form, &RecipeForm::edited, m_document, &RecipeDocument::setRecipe);
  connect(m_editor, &QPlainTextEdit::textChanged, this, [this] { m_document->setText(m_editor->toPlainText()); });
  connect(m_editor, &YamlEditor::undoRequested, m_document->undoStack(), &QUndoStack::undo);
  connect(m_editor, &YamlEditor::redoRequested, m_document->undoStack(), &QUndoStack::redo);
  connect(m_document, &RecipeDocument::recipeChanged, this, &RecipePage::showDocument);
  connect(m_document, &RecipeDocument::modifiedChanged, this, &RecipePage::showHead);
  showDocument();
}

void RecipePage::setModels(const ModelTree* models) {
  m_models = models;
  m_form->setModelSuggestions([models] {
    QStringList paths;
    for (const ModelPtr& model : models->models()) paths << QString::fromStdString(model->path.string());
    return paths;
  });
  const auto again = [this] { checkFit(); };
  connect(models, &QAbstractItemModel::rowsInserted, this, again);
  connect(models, &QAbstractItemModel::modelReset, this, again);
  checkFit();
}

void RecipePage::setFileCheck(std::function<RecipeFiles(const Recipe&)> check) {
  m_fileCheck = std::move(check);
  checkFit();
}

void RecipePage::setPresets(const std::vector<Preset>& presets) {
  QMenu* menu = m_presetButton->menu();
  menu->clear();
  for (const Preset& preset : presets) {
    QAction* action = menu->addAction(QString::fromStdString(preset.title));
    action->setToolTip(QString::fromStdString(preset.description));
    connect(action, &QAction::triggered, this, [this, preset] { applyPreset(preset); });
  }
  m_presetButton->setToolTip(tr("Take scheme and pipeline from a preset; model and texts stay"));
}

void RecipePage::applyPreset(const Preset& preset) {
  Recipe next = m_document->recipe();
  apply(preset, next);
  next.name = preset.title;  // the name would otherwise tell of another scheme
  QStringList changes;
  if (const ModelPtr model = m_models ? m_models->find(QString::fromStdString(next.model.string())) : ModelPtr())
    for (const std::string& change : fit(next, *model)) changes << QString::fromStdString(change);
  m_document->setRecipe(next, QStringLiteral("preset"), tr("Preset %1").arg(QString::fromStdString(preset.title)));
  if (!changes.isEmpty()) m_notices->tell(NoticeBar::Info, tr("Fitted to the model: %1.").arg(changes.join(QStringLiteral("; "))));
}

void RecipePage::showDocument() {
  {
    const QSignalBlocker quiet(m_editor);
    m_editor->setTextKeepingCursor(m_document->text());
  }
  m_form->setRecipe(m_document->recipe());
  checkFit();
  showHead();
}

QString RecipePage::obstacle() const {
  if (m_document->problem()) return tr("The recipe has a mistake: %1").arg(m_document->problem()->message);
  if (m_misfit) return m_misfit->message;
  return {};
}

void RecipePage::showHead() {
  m_title->setText(m_document->title() + (m_document->isModified() ? QStringLiteral(" •") : QString()));
  m_title->setToolTip(m_document->isModified() ? tr("Has changes that are not saved; they are kept when the program closes") : QString());
  m_path->setText(m_document->path());
  m_path->setToolTip(m_document->path());
  const QString obstacle = this->obstacle();
  m_start->setEnabled(obstacle.isEmpty());
  m_start->setToolTip(obstacle.isEmpty() ? tr("Put this recipe into the queue (Ctrl+Enter)") : obstacle);

  const std::optional<RecipeProblem>& wrong = m_document->problem() ? m_document->problem() : m_misfit;
  m_form->setProblem(wrong);
  m_editor->setProblem(m_document->problem() ? m_document->problem()->line : 0, wrong ? wrong->message : QString());
  if (!wrong) {
    m_problemBar->clear();
  } else {
    QString text = wrong->message;
    if (!wrong->key.isEmpty()) text = wrong->key + QStringLiteral(": ") + text;
    if (wrong->line > 0) text = tr("Line %1, %2").arg(wrong->line).arg(text);
    QVector<NoticeBar::Action> actions;
    if (m_form->hasField(wrong->key))
      actions.push_back({tr("Show field"), [this, key = wrong->key] {
                           m_form->focusField(key);
                           showHead();
                         }});
    if (wrong->line > 0)
      actions.push_back({tr("Show line"), [this, line = wrong->line, column = wrong->column] {
                           m_editor->goToLine(line, column);
                           showHead();
                         }});
    // A recipe that has no model yet is not wrong, only not ready.
    const bool ready = m_document->problem() && wrong->key == QLatin1String("model.path") && m_document->recipe().model.empty();
    if (ready) text = tr("Choose a model for this recipe: open one (Ctrl+Shift+O), drop it on the window, or type its path.");
    m_problemBar->tell(ready ? NoticeBar::Info : NoticeBar::Error, text, actions);
  }
  Q_EMIT obstacleChanged();
}

namespace {

struct Checked {
  SchemeFit fit;
  RecipeFiles files;
};

std::optional<RecipeProblem> problemOf(const Recipe& recipe, const RecipeFiles& files) {
  if (files.coded_model && !recipe.dequantize && recipe.checkpoint.empty())
    return RecipeProblem{0, 0, QStringLiteral("model.dequantize"),
                         RecipePage::tr("the model is quantized already: switch “Quantize what its codes stand for” on, or choose the float model that it was made of")};
  if (!files.importance_problem.empty()) return RecipeProblem{0, 0, QStringLiteral("calibration.importance"), QString::fromStdString(files.importance_problem)};
  return std::nullopt;
}

}  // namespace

// Sizes and fit are counted over every linear, which in a model with many experts takes a while; files may be far away.
void RecipePage::checkFit() {
  Recipe recipe = m_document->recipe();
  const auto folder = std::filesystem::path(m_document->path().toStdString()).parent_path();
  for (std::filesystem::path* path : {&recipe.model, &recipe.importance})
    if (!path->empty()) *path = (folder / *path).lexically_normal();  // an absolute one stays
  if (recipe.model.has_parent_path() && recipe.model.filename().empty()) recipe.model = recipe.model.parent_path();
  ModelPtr model;
  if (m_models && !recipe.model.empty()) model = m_models->find(QString::fromStdString(recipe.model.string()));
  m_background->run(
      QStringLiteral("fit"),
      [recipe, model, check = m_fileCheck](const std::stop_token&) { return Checked{fitRecipe(recipe, model.get()), check ? check(recipe) : RecipeFiles{}}; },
      [this, recipe](const Checked& checked) {
        m_form->setSummary(checked.fit.summary);
        m_form->setCodedModel(checked.files.coded_model);
        const std::optional<RecipeProblem> problem = checked.fit.problem ? checked.fit.problem : problemOf(recipe, checked.files);
        if (m_misfit == problem) return;
        m_misfit = problem;
        showHead();
      },
      [this](const QString&) { m_form->setSummary({}); });
}

}  // namespace qb::views
