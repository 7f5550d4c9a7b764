#include "views/pages/RecipePage.h"

#include <QHBoxLayout>
#include <QLabel>
#include <QMenu>
#include <QPushButton>
#include <QSplitter>
#include <QVBoxLayout>
#include <algorithm>
#include <map>
#include <utility>

#include "core/recipe/target.h"
#include "views/Icons.h"
#include "views/models/Format.h"
#include "views/pages/NoticeBar.h"
#include "views/pages/ProblemList.h"
#include "views/pages/RecipeForm.h"
#include "views/pages/YamlEditor.h"

namespace qb::views {

namespace {

// Layers that one part of a scheme does not fit.
struct Misfit {
  std::string module, why;  // the first
  int more = 0;
};

QString keyOf(const Scheme& scheme, const std::string& module) {
  for (size_t i = 0; i < scheme.overrides.size(); ++i)
    if (matches(scheme.overrides[i].match, module)) return QStringLiteral("scheme.overrides[%1].weights").arg(i);
  return QStringLiteral("scheme.weights");
}

QString fieldOf(const QuantSpec& spec) {
  if (spec.storage != Storage::none) return QStringLiteral(".type");
  if (spec.granularity == Granularity::block) return QStringLiteral(".block_rows");
  return spec.granularity == Granularity::head ? QStringLiteral(".heads") : QStringLiteral(".group_size");
}

std::string moduleOf(const LinearInfo& linear) {
  const std::string suffix = ".weight";
  std::string module = linear.tensor;
  if (module.size() > suffix.size() && module.compare(module.size() - suffix.size(), suffix.size(), suffix) == 0) module.resize(module.size() - suffix.size());
  return module;
}

}  // namespace

SchemeFit fitRecipe(const Recipe& recipe, const ModelInfo* model) {
  const Scheme& scheme = recipe.scheme;
  SchemeFit fit;
  fit.summary = QString::fromStdString(describe(scheme));
  if (!model) return fit;
  double weights = 0, bits = 0, before = 0, after = 0;
  std::map<QString, Misfit> misfits;
  std::map<QString, std::vector<int64_t>> widths;  // of all that a part is for: what is offered fits them all
  const auto misfits_at = [&](const QString& key, const std::string& module, const std::string& why) {
    Misfit& misfit = misfits[key];
    if (misfit.why.empty()) misfit = {module, why, 0};
    else ++misfit.more;
  };
  const auto take = [&](const QuantSpec& spec, const QString& part, const std::string& module, int64_t out, int64_t in) {
    const QString key = part + fieldOf(spec);
    widths[key].push_back(in);
    if (const std::string wrong = misfit(spec, out, in); !wrong.empty()) return misfits_at(key, module, wrong);
    const double each = bits_per_weight(spec, out, in), count = double(out) * double(in);
    weights += count;
    bits += each * count;
    after += each * count / 8;
  };
  for (const BlockInfo& block : model->blocks)
    for (const LinearInfo& linear : block.linears) {
      const std::string module = moduleOf(linear);
      before += double(linear.bytes);
      if (const auto inputs = scheme.activations_of(module)) {
        const QString key = QStringLiteral("scheme.activations") + fieldOf(*inputs);
        widths[key].push_back(linear.in_features);
        if (const std::string wrong = activation_misfit(*inputs, linear.in_features); !wrong.empty()) misfits_at(key, module, wrong);
      }
      if (const auto spec = scheme.weights_of(module))
        take(*spec, keyOf(scheme, module), module, linear.out_features, linear.in_features);
      else
        after += double(linear.bytes);
    }
  for (const auto* outside : {&model->before, &model->after})
    for (const OtherTensor& matrix : *outside) {
      const bool head = matrix.kind == "head";
      if ((!head && matrix.kind != "embedding") || matrix.tied || matrix.shape.size() != 2) continue;
      const bool other = model->tied_embeddings && !scheme.embedding;  // one matrix, of which the head's key speaks
      const auto& spec = head || other ? scheme.head : scheme.embedding;
      if (!spec) continue;
      before += double(matrix.bytes);
      take(*spec, head || other ? QStringLiteral("scheme.head") : QStringLiteral("scheme.embedding"), matrix.name, matrix.shape[0], matrix.shape[1]);
    }
  if (scheme.kv_cache && model->head_dim > 0)
    if (const std::string wrong = cache_misfit(*scheme.kv_cache, model->head_dim); !wrong.empty()) {
      const QString key = QStringLiteral("scheme.kv_cache") + fieldOf(*scheme.kv_cache);
      widths[key] = {model->head_dim};
      misfits_at(key, model->name, wrong);
    }
  for (const auto& [key, misfit] : misfits) {
    const QString where = misfit.more > 0 ? RecipePage::tr("%1 and %n more", nullptr, misfit.more).arg(QString::fromStdString(misfit.module)) : QString::fromStdString(misfit.module);
    RecipeProblem problem{0, 0, key, QStringLiteral("%1: %2").arg(where, QString::fromStdString(misfit.why))};
    if (key.endsWith(QLatin1String(".group_size")))
      for (const int64_t size : common_group_sizes(widths[key])) problem.offers << QString::number(size);
    if (!problem.offers.isEmpty()) {  // in place of those that the first layer would take
      problem.message.truncate(problem.message.indexOf(QLatin1String("; sizes that do")));
      problem.message += RecipePage::tr(". What fits all:");
    }
    fit.problems.push_back(problem);
  }
  if (weights > 0 && fit.problems.isEmpty())
    fit.summary += RecipePage::tr(" · %1 bits per weight with scales · %2 %3 → %4")
                       .arg(QString::number(bits / weights, 'f', 2), scheme.has_vocabulary() ? RecipePage::tr("linears, embedding and head in codes") : RecipePage::tr("blocks' linears"), formatBytes(before),
                            formatBytes(after));
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
  m_problemList = new ProblemList;
  m_form = new RecipeForm;
  m_form->setMinimumWidth(300);
  m_editor = new YamlEditor;
  m_editor->setMinimumWidth(220);
  m_editor->setAccessibleName(tr("Recipe as YAML"));
  m_editor->setFrameShape(QFrame::NoFrame);
  auto* splitter = new QSplitter(Qt::Horizontal);
  splitter->setObjectName(QStringLiteral("recipeSplitter"));
  m_locked = new QLabel;
  m_locked->setObjectName(QStringLiteral("formLocked"));
  m_locked->setWordWrap(true);
  m_locked->setMargin(12);
  m_locked->hide();
  auto* left = new QWidget;
  auto* leftColumn = new QVBoxLayout(left);
  leftColumn->setContentsMargins(0, 0, 0, 0);
  leftColumn->setSpacing(0);
  leftColumn->addWidget(m_locked);
  leftColumn->addWidget(m_form, 1);
  splitter->addWidget(left);
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
  column->addWidget(m_problemList);
  column->addWidget(splitter, 1);

  connect(m_form, &RecipeForm::edited, m_document, &RecipeDocument::setRecipe);
  connect(m_editor, &QPlainTextEdit::textChanged, this, [this] { m_document->setText(m_editor->toPlainText()); });
  connect(m_editor, &YamlEditor::undoRequested, m_document->undoStack(), &QUndoStack::undo);
  connect(m_editor, &YamlEditor::redoRequested, m_document->undoStack(), &QUndoStack::redo);
  connect(m_document, &RecipeDocument::recipeChanged, this, &RecipePage::showDocument);
  connect(m_document, &RecipeDocument::modifiedChanged, this, &RecipePage::showHead);
  connect(m_document, &RecipeDocument::refused, this, [this](const QString& why) { m_refusal = why; });
  m_checkSoon.setSingleShot(true);
  m_checkSoon.setInterval(120);
  connect(&m_checkSoon, &QTimer::timeout, this, &RecipePage::checkFit);
  showDocument();
}

void RecipePage::setModels(const ModelTree* models) {
  m_models = models;
  m_form->setModelSuggestions([models] {
    QStringList paths;
    for (const ModelPtr& model : models->models()) paths << QString::fromStdString(model->path.string());
    return paths;
  });
  const auto again = [this] { checkSoon(); };
  connect(models, &QAbstractItemModel::rowsInserted, this, again);
  connect(models, &QAbstractItemModel::modelReset, this, again);
  checkFit();
}

void RecipePage::setFileCheck(std::function<RecipeFiles(const Recipe&)> check) {
  m_fileCheck = std::move(check);
  checkFit();
}

void RecipePage::setPresets(const std::vector<Preset>& presets) {
  m_presets = presets;
  m_presetButton->setToolTip(tr("Take scheme and pipeline from a preset; model and texts stay"));
  m_sizedModel.reset();
  sizePresets();
  fillPresets();
}

// By bits and purpose; behind each title its bits per weight, its size on the recipe's model and what it costs.
void RecipePage::fillPresets() {
  QMenu* menu = m_presetButton->menu();
  if (menu->isVisible()) return QTimer::singleShot(500, this, &RecipePage::fillPresets);  // not under the pointer
  for (QMenu* part : menu->findChildren<QMenu*>(Qt::FindDirectChildrenOnly)) part->deleteLater();
  menu->clear();
  for (const std::string& group : preset_groups()) {
    QMenu* part = nullptr;
    for (const Preset& preset : presets_of(group, m_presets)) {
      if (!part) {
        part = menu->addMenu(QString::fromStdString(group));
        part->setToolTipsVisible(true);
      }
      const PresetCost cost = cost_of(preset);
      QStringList facts;
      const auto size = m_presetSizes.find(preset.name);
      if (size != m_presetSizes.end()) facts << (size->second.at_least ? tr("from %1 bits") : tr("%1 bits")).arg(QString::number(size->second.bits_per_weight, 'f', 2)) << formatBytes(size->second.bytes);
      facts << QString::fromStdString(to_text(cost));
      QAction* action = part->addAction(QString::fromStdString(preset.title) + QLatin1Char('\t') + facts.join(QStringLiteral(" · ")));
      QString help = QStringLiteral("<p>%1</p><p>%2</p>").arg(QString::fromStdString(preset.description).toHtmlEscaped(), QString::fromStdString(describe(cost)).toHtmlEscaped());
      if (size != m_presetSizes.end())
        help += QStringLiteral("<p>%1</p>").arg(tr("%1 bits per weight with scales; %2 for the linears of %3's blocks.").arg(QString::number(size->second.bits_per_weight, 'f', 2), formatBytes(size->second.bytes), QString::fromStdString(m_sizedModel->name)).toHtmlEscaped());
      action->setToolTip(help);
      connect(action, &QAction::triggered, this, [this, preset] { applyPreset(preset); });
    }
  }
}

// Over every linear of the model for each preset: not on this thread.
void RecipePage::sizePresets() {
  ModelPtr model;
  if (m_models) model = m_models->find(QString::fromStdString(m_document->recipe().model.string()));
  if (model == m_sizedModel || m_presets.empty()) return;
  m_sizedModel = model;
  if (!model) {
    m_presetSizes.clear();
    return fillPresets();
  }
  m_background->run(
      QStringLiteral("presetSizes"),
      [model, presets = m_presets](const std::stop_token& stop) {
        std::map<std::string, PresetSize> sizes;
        for (const Preset& preset : presets) {
          if (stop.stop_requested()) break;
          if (const auto size = size_of(preset, *model)) sizes[preset.name] = *size;
        }
        return sizes;
      },
      [this](const std::map<std::string, PresetSize>& sizes) {
        m_presetSizes = sizes;
        fillPresets();
      },
      [this](const QString&) { fillPresets(); });
}

void RecipePage::applyPreset(const Preset& preset) {
  Recipe next = m_document->recipe();
  apply(preset, next);
  next.name = preset.title;  // the name would otherwise tell of another scheme
  QStringList changes;
  if (const ModelPtr model = m_models ? m_models->find(QString::fromStdString(next.model.string())) : ModelPtr())
    for (const std::string& change : fit(next, *model)) changes << QString::fromStdString(change);
  if (!m_document->setRecipe(next, QStringLiteral("preset"), tr("Preset %1").arg(QString::fromStdString(preset.title)))) return;
  if (!changes.isEmpty()) tellPassing(NoticeBar::Info, tr("Fitted to the model: %1.").arg(changes.join(QStringLiteral("; "))));
}

// A notice about the recipe as it stands: it goes with the next change.
void RecipePage::tellPassing(int kind, const QString& text) {
  m_passing = text;
  m_notices->tell(NoticeBar::Kind(kind), text);
}

void RecipePage::showDocument() {
  {
    const QSignalBlocker quiet(m_editor);
    m_editor->setTextKeepingCursor(m_document->text());
  }
  m_form->setRecipe(m_document->recipe());
  // What was said of the recipe as it was is over: why it could not start, what was fitted.
  if (!m_notices->isHidden() && (m_notices->kind() == NoticeBar::Error || m_notices->text() == m_passing)) m_notices->clear();
  m_passing.clear();
  if (!m_refusal.isEmpty()) tellPassing(NoticeBar::Warning, std::exchange(m_refusal, {}));
  checkSoon();
  showHead();
}

QVector<RecipeProblem> RecipePage::problems() const {
  QVector<RecipeProblem> all = m_document->problems();
  if (!m_document->isReadable()) return all;
  for (const RecipeProblem& misfit : m_misfits)
    if (std::none_of(all.begin(), all.end(), [&](const RecipeProblem& problem) { return problem.key == misfit.key; })) all << misfit;
  return all;
}

QString RecipePage::obstacle() const {
  if (m_document->problem()) return tr("The recipe has a mistake: %1").arg(m_document->problem()->message);
  if (!m_misfits.isEmpty()) return m_misfits.front().message;
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

  const bool readable = m_document->isReadable();
  m_form->setEnabled(readable);
  m_presetButton->setEnabled(readable);
  m_locked->setVisible(!readable);
  m_locked->setText(readable ? QString() : tr("The text is not a recipe as it stands, so the form cannot follow it and takes no edits. Mend the text beside it, or undo (%1); the form then comes back.").arg(QKeySequence(QKeySequence::Undo).toString(QKeySequence::NativeText)));

  const QVector<RecipeProblem> all = problems();
  m_form->setProblems(all);
  QMap<int, QString> lines;
  for (const RecipeProblem& problem : all)
    if (problem.line > 0) lines[problem.line] += (lines.contains(problem.line) && !lines[problem.line].isEmpty() ? QStringLiteral("\n") : QString()) + problem.message;
  m_editor->setProblems(lines);
  QVector<ProblemList::Row> rows;
  for (const RecipeProblem& problem : all) rows << row(problem);
  m_problemList->tell(rows);
  Q_EMIT obstacleChanged();
}

ProblemList::Row RecipePage::row(const RecipeProblem& problem) {
  // A recipe that has no model yet is not wrong, only not ready.
  const bool ready = problem.key == QLatin1String("model.path") && m_document->isReadable() && m_document->recipe().model.empty();
  ProblemList::Row row{ready ? NoticeBar::Info : NoticeBar::Error, problem.message};
  if (!problem.key.isEmpty()) row.text = problem.key + QStringLiteral(": ") + row.text;
  if (problem.line > 0) row.text = tr("Line %1, %2").arg(problem.line).arg(row.text);
  if (!problem.offers.isEmpty()) row.text += QLatin1Char(' ') + problem.offers.join(QStringLiteral(", "));
  if (ready) row.text = tr("Choose a model for this recipe: open one (Ctrl+Shift+O), drop it on the window, or type its path.");
  if (m_document->isReadable() && m_form->hasField(problem.key)) row.actions.push_back({tr("Show field"), [this, key = problem.key] { m_form->focusField(key); }});
  if (problem.line > 0) row.actions.push_back({tr("Show line"), [this, problem] { m_editor->goToLine(problem.line, problem.column); }});
  return row;
}

void RecipePage::checkSoon() { m_checkSoon.start(); }

namespace {

struct Checked {
  SchemeFit fit;
  RecipeFiles files;
};

QVector<RecipeProblem> problemsOf(const Recipe& recipe, const RecipeFiles& files) {
  QVector<RecipeProblem> problems;
  if (files.coded_model && !recipe.dequantize && recipe.checkpoint.empty())
    problems << RecipeProblem{0, 0, QStringLiteral("model.dequantize"),
                              RecipePage::tr("the model is quantized already: switch “Quantize what its codes stand for” on, or choose the float model that it was made of")};
  for (const RecipeFiles::Problem& problem : files.problems) problems << RecipeProblem{0, 0, QString::fromStdString(problem.key), QString::fromStdString(problem.what)};
  return problems;
}

}  // namespace

// Sizes and fit are counted over every linear, which in a model with many experts takes a while; files may be far away.
void RecipePage::checkFit() {
  sizePresets();
  Recipe recipe = m_document->recipe();
  const auto folder = std::filesystem::path(m_document->path().toStdString()).parent_path();
  std::vector<std::filesystem::path*> paths = {&recipe.model, &recipe.importance, &recipe.checkpoint};
  if (recipe.calibration) paths.push_back(&recipe.calibration->corpus.path);
  for (EvaluationSpec& evaluation : recipe.evaluation) paths.push_back(&evaluation.corpus.path);
  for (std::filesystem::path* path : paths)
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
        QVector<RecipeProblem> misfits = checked.fit.problems + problemsOf(recipe, checked.files);
        // As they stand in the text.
        for (RecipeProblem& misfit : misfits) {
          const Position at = position_of(m_document->text().toStdString(), misfit.key.toStdString());
          misfit.line = at.line, misfit.column = at.column;
        }
        if (m_misfits == misfits) return;
        m_misfits = misfits;
        showHead();
      },
      [this](const QString&) { m_form->setSummary({}); });
}

}  // namespace qb::views
