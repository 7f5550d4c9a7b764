#include "views/pages/RecipeForm.h"

#include <QHBoxLayout>
#include <QMenu>
#include <QPushButton>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <limits>

#include "core/exporting/formats.h"
#include "core/measure/evaluators.h"
#include "core/method/contracts.h"
#include "core/recipe/importance.h"
#include "views/Icons.h"
#include "views/Theme.h"
#include "views/pages/SchemeFields.h"

namespace qb::views {
namespace {

QToolButton* smallButton(const QString& iconName, const QString& name) {
  auto* button = new QToolButton;
  button->setIcon(icon(iconName));
  button->setAutoRaise(true);
  button->setToolTip(name);
  button->setAccessibleName(name);
  return button;
}

QString itemKey(const QString& list, size_t index) { return QStringLiteral("%1[%2]").arg(list).arg(index); }

QString joined(const std::vector<std::string>& items) {
  QStringList list;
  for (const std::string& item : items) list << QString::fromStdString(item);
  return list.join(QStringLiteral(", "));
}

std::vector<std::string> separated(const QString& text) {
  std::vector<std::string> items;
  for (const QString& item : text.split(QLatin1Char(','), Qt::SkipEmptyParts))
    if (const QString trimmed = item.trimmed(); !trimmed.isEmpty()) items.push_back(trimmed.toStdString());
  return items;
}

QString classTitle(MethodClass kind) {
  switch (kind) {
    case MethodClass::transformation: return RecipeForm::tr("Transformation");
    case MethodClass::clipping: return RecipeForm::tr("Clipping");
    case MethodClass::reconstruction: return RecipeForm::tr("Reconstruction");
    case MethodClass::sparsity: return RecipeForm::tr("Sparsity");
    case MethodClass::cache: return RecipeForm::tr("Cache");
  }
  return {};
}

QString text(const std::filesystem::path& path) { return QString::fromStdString(path.string()); }

bool hasJsonEnding(const std::filesystem::path& path) {
  const QString ending = QString::fromStdString(path.extension().string()).toLower();
  return ending == QLatin1String(".jsonl") || ending == QLatin1String(".ndjson") || ending == QLatin1String(".json");
}

// Where a text's beginning-of-sequence token stands; an empty value is the family's default.
QStringList bosValues() { return {QString(), "tokenizer", "every_window", "none"}; }
QStringList bosTitles() { return {RecipeForm::tr("as the family is evaluated"), RecipeForm::tr("as the tokenizer puts it"), RecipeForm::tr("in every window"), RecipeForm::tr("nowhere")}; }
QString bosHelp() { return RecipeForm::tr("Where the beginning-of-sequence token stands. Gemma models predict nothing without one in every window."); }
QString bosText(const std::optional<Bos>& bos) { return bos ? QString::fromStdString(to_text(*bos)) : QString(); }

}  // namespace

Card::Card(const QString& title, const QString& detail, QWidget* body, bool movable, QWidget* parent) : QFrame(parent) {
  setFrameShape(QFrame::StyledPanel);
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(10, 6, 6, 8);
  column->setSpacing(6);
  auto* head = new QHBoxLayout;
  auto* name = new QLabel(QStringLiteral("<b>%1</b>&nbsp; <span>%2</span>").arg(title.toHtmlEscaped(), detail.toHtmlEscaped()));
  name->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
  head->addWidget(name, 1);
  if (movable) {
    m_up = smallButton(QStringLiteral("up"), tr("Move %1 up").arg(title));
    m_down = smallButton(QStringLiteral("down"), tr("Move %1 down").arg(title));
    connect(m_up, &QToolButton::clicked, this, [this] { Q_EMIT moveRequested(-1); });
    connect(m_down, &QToolButton::clicked, this, [this] { Q_EMIT moveRequested(1); });
    head->addWidget(m_up);
    head->addWidget(m_down);
  }
  auto* remove = smallButton(QStringLiteral("remove"), tr("Remove %1").arg(title));
  connect(remove, &QToolButton::clicked, this, &Card::removeRequested);
  head->addWidget(remove);
  column->addLayout(head);
  column->addWidget(body);
}

void Card::setEnds(bool first, bool last) {
  if (!m_up) return;
  m_up->setEnabled(!first);
  m_down->setEnabled(!last);
}

RecipeForm::RecipeForm(QWidget* parent) : QScrollArea(parent) {
  setWidgetResizable(true);
  setFrameShape(QFrame::NoFrame);
  setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  auto* inside = new QWidget;
  m_column = new QVBoxLayout(inside);
  m_column->setContentsMargins(12, 8, 14, 12);
  m_column->setSpacing(6);
  buildGeneral();
  buildScheme();
  buildPipeline();
  buildCalibration();
  buildEvaluation();
  m_column->addStretch(1);
  setWidget(inside);
  setRecipe({});
}

FieldGroup* RecipeForm::group() {
  auto* fields = new FieldGroup;
  connect(fields, &FieldGroup::edited, this, &RecipeForm::change);
  return fields;
}

QVBoxLayout* RecipeForm::section(const QString& title, const QString& question) {
  auto* heading = new QLabel(QStringLiteral("<b>%1</b>").arg(title.toHtmlEscaped()));
  QFont font = heading->font();
  font.setPointSizeF(font.pointSizeF() * 1.12);
  heading->setFont(font);
  heading->setToolTip(question);
  auto* box = new QVBoxLayout;
  box->setContentsMargins(0, m_column->count() ? 10 : 0, 0, 2);
  box->setSpacing(6);
  box->addWidget(heading);
  auto* rule = new QFrame;
  rule->setFrameShape(QFrame::HLine);
  rule->setFrameShadow(QFrame::Plain);
  rule->setForegroundRole(QPalette::Mid);
  box->addWidget(rule);
  m_column->addLayout(box);
  return box;
}

void RecipeForm::change(const QString& key, const QString& what, const RecipeChange& change) {
  Recipe next = m_recipe;
  change(next);
  if (next == m_recipe) return;
  Q_EMIT edited(next, key, what);
}

void RecipeForm::buildGeneral() {
  auto* box = section(tr("Recipe"), tr("What will I try?"));
  auto* fields = group();
  fields->line({"name", tr("Name"), tr("How the run is called in lists and plots.")}, tr("for example W4 g64 + GPTQ"),
               [](const Recipe& r) { return QString::fromStdString(r.name); }, [](Recipe& r, const QString& v) { r.name = v.toStdString(); });
  fields->line({"description", tr("Note"), tr("One line for people: what this recipe tries.")}, {}, [](const Recipe& r) { return QString::fromStdString(r.description); },
               [](Recipe& r, const QString& v) { r.description = v.toStdString(); });
  fields->path({"model.path", tr("Model"), tr("A Hugging Face folder with config.json and safetensors, or a GGUF file.")}, FieldGroup::ModelPath,
               [](const Recipe& r) { return text(r.model); }, [](Recipe& r, const QString& v) { r.model = v.toStdString(); },
               [this] { return m_modelSuggestions ? m_modelSuggestions() : QStringList(); });
  fields->boolean({"model.dequantize", tr("Quantized model"),
                   tr("The model is a quantized checkpoint. On: what its codes stand for is taken for its float weights and quantized as the scheme says; errors are counted from these. Off: it is "
                      "refused."),
                   {}, [this](const Recipe& r) { return r.dequantize || m_codedModel; }},
                  [](const Recipe& r) { return r.dequantize; }, [](Recipe& r, bool on) { r.dequantize = on; }, tr("Quantize what its codes stand for"));
  fields->choice({"model.dtype", tr("Compute in"), tr("Number type of the calibration's forward passes.")}, {"bfloat16", "float32"}, {},
                 [](const Recipe& r) { return QString::fromStdString(r.dtype); }, [](Recipe& r, const QString& v) { r.dtype = v.toStdString(); return true; });
  QStringList formats{QString()}, formatTitles{tr("not decided")}, engines{QString()}, engineTitles{tr("any")};
  for (const FormatInfo& format : export_formats()) formats << QString::fromStdString(format.name), formatTitles << QString::fromStdString(format.title);
  for (const EngineInfo& engine : export_engines())
    engines << QString::fromStdString(engine.name), engineTitles << QStringLiteral("%1 %2").arg(QString::fromStdString(engine.title), QString::fromStdString(engine.version));
  fields->choice({"target.format", tr("Checkpoint format"), tr("What the result shall be exported as: a scheme that the format cannot hold is said at once.")}, formats, formatTitles,
                 [](const Recipe& r) { return r.target ? QString::fromStdString(r.target->format) : QString(); },
                 [](Recipe& r, const QString& v) {
                   if (v.isEmpty()) r.target.reset();
                   else if (!r.target) r.target = TargetSpec{v.toStdString(), {}};
                   else r.target->format = v.toStdString();
                   return true;
                 });
  fields->choice({"target.engine", tr("Engine"), tr("What shall load it: a scheme that the engine does not take is said at once."), {}, [](const Recipe& r) { return r.target.has_value(); }},
                 engines, engineTitles, [](const Recipe& r) { return r.target ? QString::fromStdString(r.target->engine) : QString(); },
                 [](Recipe& r, const QString& v) {
                   if (r.target) r.target->engine = v.toStdString();
                   return true;
                 });
  fields->seed({"seed", tr("Seed"), tr("The same seed gives the same result.")}, [](const Recipe& r) { return quint64(r.seed); }, [](Recipe& r, quint64 v) { r.seed = v; });
  box->addWidget(fields);
  m_groups.push_back(fields);
}

void RecipeForm::buildScheme() {
  auto* box = section(tr("Scheme"), tr("What is quantized, to what?"));
  m_summary = new QLabel;
  m_summary->setWordWrap(true);
  m_summary->setAccessibleName(tr("Summary of the scheme"));
  box->addWidget(m_summary);
  auto* fields = group();
  fields->boolean({"scheme.weights", tr("Quantize weights"), tr("Off: weights stay in float.")}, [](const Recipe& r) { return r.scheme.weights.has_value(); },
                  [](Recipe& r, bool on) { r.scheme.weights = on ? std::optional(default_spec(SpecRole::weights)) : std::nullopt; });
  addSpecFields(*fields, "scheme.weights", SpecRole::weights, [](Recipe& r) { return r.scheme.weights ? &*r.scheme.weights : nullptr; });
  fields->boolean({"scheme.activations", tr("Quantize activations"), tr("Inputs of the linears are (fake-)quantized too.")}, [](const Recipe& r) { return r.scheme.activations.has_value(); },
                  [](Recipe& r, bool on) { r.scheme.activations = on ? std::optional(default_spec(SpecRole::activations)) : std::nullopt; });
  addSpecFields(*fields, "scheme.activations", SpecRole::activations, [](Recipe& r) { return r.scheme.activations ? &*r.scheme.activations : nullptr; });
  fields->boolean({"scheme.kv_cache", tr("Quantize the KV cache"), tr("Keys (after the rotation by position) and values are (fake-)quantized where attention reads them.")},
                  [](const Recipe& r) { return r.scheme.kv_cache.has_value(); }, [](Recipe& r, bool on) { r.scheme.kv_cache = on ? std::optional(default_spec(SpecRole::cache)) : std::nullopt; });
  addSpecFields(*fields, "scheme.kv_cache", SpecRole::cache, [](Recipe& r) { return r.scheme.kv_cache ? &*r.scheme.kv_cache : nullptr; });
  const std::tuple<const char*, QString, QString, std::optional<QuantSpec> Scheme::*> vocabulary[] = {
      {"scheme.embedding", tr("Quantize the embedding"), tr("The matrix of the tokens' vectors. Where the model ties the head to it, they are one matrix."), &Scheme::embedding},
      {"scheme.head", tr("Quantize the head"), tr("The matrix that makes predictions; its inputs stay float."), &Scheme::head}};
  for (const auto& [key, title, help, part] : vocabulary) {
    fields->boolean({key, title, help}, [part = part](const Recipe& r) { return (r.scheme.*part).has_value(); }, 
                    [part = part](Recipe& r, bool on) {
                      r.scheme.*part = on ? std::optional(default_spec(SpecRole::weights)) : std::nullopt;
                      if (!r.scheme.has_vocabulary()) r.scheme.head_rounding = HeadRounding::rtn;
                    });
    addSpecFields(*fields, key, SpecRole::weights, [part = part](Recipe& r) { return r.scheme.*part ? &*(r.scheme.*part) : nullptr; });
  }
  fields->choice({"scheme.head_rounding", tr("Head rounded"), tr("By GPTQ: with the settings of the pipeline's own gptq, or its defaults; takes calibration text."), {},
                  [](const Recipe& r) { return r.scheme.has_vocabulary(); }},
                 {"rtn", "gptq"}, {tr("to nearest"), tr("by GPTQ")}, [](const Recipe& r) { return QString::fromStdString(to_text(r.scheme.head_rounding)); },
                 [](Recipe& r, const QString& v) {
                   const auto rounding = parse_head_rounding(v.toStdString());
                   if (rounding) r.scheme.head_rounding = *rounding;
                   return rounding.has_value();
                 });
  fields->line({"scheme.ignore", tr("Keep in float"), tr("Patterns of module names, separated by commas: * and ? are wild; re: starts a regular expression.")},
               tr("for example *.down_proj, re:layers\\.(0|1)\\."), [](const Recipe& r) { return joined(r.scheme.ignore); },
               [](Recipe& r, const QString& v) { r.scheme.ignore = separated(v); });
  box->addWidget(fields);
  m_groups.push_back(fields);
  m_overrides.layout = new QVBoxLayout;
  box->addLayout(m_overrides.layout);
  auto* add = new QPushButton(icon(QStringLiteral("add")), tr("Treat some layers differently"));
  add->setToolTip(tr("Adds an override: linears whose name matches a pattern get another scheme"));
  connect(add, &QPushButton::clicked, this, [this] {
    change(QStringLiteral("scheme.overrides"), tr("Add override"), [](Recipe& r) { r.scheme.overrides.push_back({"*.down_proj", default_spec(SpecRole::weights)}); });
  });
  box->addWidget(add, 0, Qt::AlignLeft);
}

void RecipeForm::buildPipeline() {
  auto* box = section(tr("Pipeline"), tr("Which methods, in which order?"));
  m_noStages = new QLabel(tr("No stages: weights are rounded to nearest."));
  m_noStages->setForegroundRole(QPalette::PlaceholderText);
  box->addWidget(m_noStages);
  m_stages.layout = new QVBoxLayout;
  box->addLayout(m_stages.layout);
  auto* add = new QToolButton;
  add->setText(tr("Add stage"));
  add->setIcon(icon(QStringLiteral("add")));
  add->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
  add->setPopupMode(QToolButton::InstantPopup);
  add->setFocusPolicy(Qt::StrongFocus);
  auto* menu = new QMenu(add);
  menu->setToolTipsVisible(true);
  connect(menu, &QMenu::aboutToShow, this, [this, menu] {
    menu->clear();
    std::optional<MethodClass> last;
    for (const MethodInfo& method : methods()) {
      if (last != method.kind) menu->addSection(classTitle(method.kind));
      last = method.kind;
      QAction* action = menu->addAction(QStringLiteral("%1  (%2)").arg(QString::fromStdString(method.title), QString::fromStdString(method.name)));
      const StageSpec stage{method.name, {}};
      const auto place = place_for(stage, m_recipe.pipeline, m_recipe.scheme);
      action->setEnabled(place.has_value());
      std::vector<StageSpec> with = m_recipe.pipeline;
      with.push_back(stage);
      const auto problem = place ? std::nullopt : pipeline_problem(with, m_recipe.scheme);
      action->setToolTip(QString::fromStdString(problem ? problem->what : method.help));
      connect(action, &QAction::triggered, this, [this, stage, title = method.title] {
        change(QStringLiteral("pipeline"), tr("Add %1").arg(QString::fromStdString(title)), [&](Recipe& r) {
          const size_t at = place_for(stage, r.pipeline, r.scheme).value_or(r.pipeline.size());
          r.pipeline.insert(r.pipeline.begin() + std::ptrdiff_t(at), stage);
        });
      });
    }
  });
  add->setMenu(menu);
  box->addWidget(add, 0, Qt::AlignLeft);
  auto* fields = group();
  fields->boolean({"propagate_quantized", tr("Pass errors on"), tr("The next block is calibrated on the quantized block's outputs; off: on the float model's.")},
                  [](const Recipe& r) { return r.propagate_quantized; }, [](Recipe& r, bool on) { r.propagate_quantized = on; });
  box->addWidget(fields);
  m_groups.push_back(fields);
}

void RecipeForm::buildCalibration() {
  auto* box = section(tr("Calibration"), tr("Which text do the methods learn from?"));
  auto* fields = group();
  const auto used = [](const Recipe& r) { return r.calibration.has_value(); };
  fields->boolean({"calibration", tr("Use a text"), tr("Methods that look at activations need one; without it, output errors are not measured.")}, used,
                  [](Recipe& r, bool on) { r.calibration = on ? std::optional(CalibrationSpec{}) : std::nullopt; });
  const auto get = [](auto pick) { return [pick](const Recipe& r) { return r.calibration ? pick(*r.calibration) : decltype(pick(*r.calibration)){}; }; };
  fields->path({"calibration.importance", tr("Importance"),
                tr("A file of the inputs' mean squares, as “qbench imatrix” or llama.cpp writes it, by which rounding to nearest with importance weighs errors; it needs no text."), {},
                [](const Recipe& r) { return !r.importance.empty() || std::any_of(r.pipeline.begin(), r.pipeline.end(), weighs_by_inputs); }},
               FieldGroup::ImportanceFile, [](const Recipe& r) { return text(r.importance); }, [](Recipe& r, const QString& v) { r.importance = v.toStdString(); });
  fields->path({"calibration.corpus", tr("Text"), tr("A text file, a .jsonl or .json file, or a folder of them. Conversations go through the model's chat template."), {}, used}, FieldGroup::TextFile,
               get([](const CalibrationSpec& c) { return text(c.corpus.path); }), [](Recipe& r, const QString& v) { if (r.calibration) r.calibration->corpus.path = v.toStdString(); });
  fields->line({"calibration.field", tr("JSON field"), tr("Which field of each object holds the text or the conversation."), {},
                [](const Recipe& r) { return r.calibration && hasJsonEnding(r.calibration->corpus.path); }},
               {}, get([](const CalibrationSpec& c) { return QString::fromStdString(c.corpus.field); }),
               [](Recipe& r, const QString& v) { if (r.calibration) r.calibration->corpus.field = v.toStdString(); });
  QStringList names;
  for (const std::string& name : sampling_names()) names << QString::fromStdString(name);
  fields->choice({"calibration.sampling", tr("Sampling"), tr("How samples are drawn from the text."), {}, used}, names, {},
                 get([](const CalibrationSpec& c) { return QString::fromStdString(c.sampling.sampling); }),
                 [](Recipe& r, const QString& v) { if (r.calibration) r.calibration->sampling.sampling = v.toStdString(); return true; });
  fields->integer({"calibration.samples", tr("Samples"), tr("128 of 512 to 2048 tokens is common; more costs time, not memory of weights."), {}, used}, 1, 1 << 20,
                  get([](const CalibrationSpec& c) { return qint64(c.sampling.samples); }), [](Recipe& r, qint64 v) { if (r.calibration) r.calibration->sampling.samples = v; });
  fields->integer({"calibration.seq_len", tr("Sample length"), tr("Tokens of each sample."), tr("tokens"), used}, 1, 1 << 24,
                  get([](const CalibrationSpec& c) { return qint64(c.sampling.seq_len); }), [](Recipe& r, qint64 v) { if (r.calibration) r.calibration->sampling.seq_len = v; });
  fields->seed({"calibration.seed", tr("Sampling seed"), tr("Of random samplings."), {}, used},
               get([](const CalibrationSpec& c) { return quint64(c.sampling.seed); }), [](Recipe& r, quint64 v) { if (r.calibration) r.calibration->sampling.seed = v; });
  fields->choice({"calibration.bos", tr("BOS"), bosHelp(), {}, used}, bosValues(), bosTitles(),
                 [](const Recipe& r) { return r.calibration ? bosText(r.calibration->sampling.bos) : QString(); },
                 [](Recipe& r, const QString& v) { if (r.calibration) r.calibration->sampling.bos = parse_bos(v.toStdString()); return true; });
  box->addWidget(fields);
  m_groups.push_back(fields);
}

void RecipeForm::buildEvaluation() {
  auto* box = section(tr("Evaluation"), tr("What is measured, on which texts?"));
  m_evaluations.layout = new QVBoxLayout;
  box->addLayout(m_evaluations.layout);
  m_noEvaluation = new QLabel(tr("⚠ Nothing is listed: perplexity is not measured, and the run cannot be compared by it."));
  m_noEvaluation->setWordWrap(true);
  m_noEvaluation->setObjectName(QStringLiteral("noEvaluation"));
  box->addWidget(m_noEvaluation);
  auto* add = new QPushButton(icon(QStringLiteral("add")), tr("Add evaluation"));
  connect(add, &QPushButton::clicked, this,
          [this] { change(QStringLiteral("evaluation"), tr("Add evaluation text"), [](Recipe& r) { r.evaluation.push_back({}); }); });
  box->addWidget(add, 0, Qt::AlignLeft);
  auto* fields = group();
  fields->boolean({"evaluate_float", tr("Float model too"), tr("Also measures the unquantized model, once for all runs of the workspace.")}, [](const Recipe& r) { return r.evaluate_float; },
                  [](Recipe& r, bool on) { r.evaluate_float = on; });
  box->addWidget(fields);
  m_groups.push_back(fields);
}

namespace {

// Empties a list of cards; widgets go once their own signals are over.
template <class List>
void emptyCards(List& list) {
  while (QLayoutItem* item = list.layout->takeAt(0)) {
    item->widget()->hide();
    item->widget()->deleteLater();
    delete item;
  }
  list.groups.clear();
}

}  // namespace

void RecipeForm::fillStages() {
  QStringList kinds;
  for (const StageSpec& stage : m_recipe.pipeline) kinds << QString::fromStdString(stage.method);
  m_noStages->setVisible(kinds.isEmpty());
  if (kinds == m_stages.kinds && m_stages.groups.size() == size_t(kinds.size())) return;
  emptyCards(m_stages);
  m_stages.kinds = kinds;
  for (size_t i = 0; i < m_recipe.pipeline.size(); ++i) {
    const std::string& name = m_recipe.pipeline[i].method;
    const MethodInfo* method = find_method(name);
    auto* fields = group();
    if (method)
      for (const KnobInfo& info : method->knobs) fields->knob(info, itemKey(QStringLiteral("pipeline"), i) + QLatin1Char('.') + QString::fromStdString(info.name),
                     [i](Recipe& r) { return i < r.pipeline.size() ? &r.pipeline[i].knobs : nullptr; });
    const QString title = method ? QString::fromStdString(method->title) : QString::fromStdString(name);
    auto* card = new Card(tr("%1. %2").arg(i + 1).arg(title), method ? classTitle(method->kind) : tr("unknown method"), fields, true);
    card->setEnds(i == 0, i + 1 == m_recipe.pipeline.size());
    if (method) card->setToolTip(QStringLiteral("<p>%1</p><p>%2</p>").arg(QString::fromStdString(method->help).toHtmlEscaped(), QString::fromStdString(method->source).toHtmlEscaped()));
    connect(card, &Card::removeRequested, this, [this, i, title] {
      change(QStringLiteral("pipeline"), tr("Remove %1").arg(title), [i](Recipe& r) { r.pipeline.erase(r.pipeline.begin() + std::ptrdiff_t(i)); });
    });
    connect(card, &Card::moveRequested, this, [this, i, title](int by) {
      change(QStringLiteral("pipeline"), tr("Move %1").arg(title), [i, by](Recipe& r) {
        const size_t to = size_t(std::ptrdiff_t(i) + by);
        if (to < r.pipeline.size()) std::swap(r.pipeline[i], r.pipeline[to]);
      });
    });
    m_stages.layout->addWidget(card);
    m_stages.groups.push_back(fields);
  }
}

void RecipeForm::fillOverrides() {
  QStringList kinds;
  for (size_t i = 0; i < m_recipe.scheme.overrides.size(); ++i) kinds << QString::number(i);
  if (kinds == m_overrides.kinds && m_overrides.groups.size() == size_t(kinds.size())) return;
  emptyCards(m_overrides);
  m_overrides.kinds = kinds;
  for (size_t i = 0; i < m_recipe.scheme.overrides.size(); ++i) {
    const QString key = itemKey(QStringLiteral("scheme.overrides"), i);
    const auto at = [i](Recipe& r) -> SchemeOverride* { return i < r.scheme.overrides.size() ? &r.scheme.overrides[i] : nullptr; };
    auto* fields = group();
    fields->line({key + QStringLiteral(".match"), tr("Layers"), tr("A pattern of module names: * and ? are wild; re: starts a regular expression.")}, {},
                 [at](const Recipe& r) { const auto* o = at(const_cast<Recipe&>(r)); return o ? QString::fromStdString(o->match) : QString(); },
                 [at](Recipe& r, const QString& v) { if (auto* o = at(r)) o->match = v.toStdString(); });
    fields->boolean({key + QStringLiteral(".weights"), tr("Quantize weights"), tr("Off: these layers stay in float.")},
                    [at](const Recipe& r) { const auto* o = at(const_cast<Recipe&>(r)); return o && o->weights; },
                    [at](Recipe& r, bool on) { if (auto* o = at(r)) o->weights = on ? std::optional(default_spec(SpecRole::weights)) : std::nullopt; });
    addSpecFields(*fields, key + QStringLiteral(".weights"), SpecRole::weights, [at](Recipe& r) -> QuantSpec* {
      auto* o = at(r);
      return o && o->weights ? &*o->weights : nullptr;
    });
    auto* card = new Card(tr("Override %1").arg(i + 1), tr("the first that matches counts"), fields, false);
    connect(card, &Card::removeRequested, this, [this, i] {
      change(QStringLiteral("scheme.overrides"), tr("Remove override"), [i](Recipe& r) { r.scheme.overrides.erase(r.scheme.overrides.begin() + std::ptrdiff_t(i)); });
    });
    m_overrides.layout->addWidget(card);
    m_overrides.groups.push_back(fields);
  }
}

void RecipeForm::fillEvaluations() {
  QStringList kinds;
  for (const EvaluationSpec& spec : m_recipe.evaluation) kinds << QString::fromStdString(spec.evaluator);
  m_noEvaluation->setVisible(kinds.isEmpty());
  if (kinds == m_evaluations.kinds && m_evaluations.groups.size() == size_t(kinds.size())) return;
  emptyCards(m_evaluations);
  m_evaluations.kinds = kinds;
  for (size_t i = 0; i < m_recipe.evaluation.size(); ++i) {
    const QString key = itemKey(QStringLiteral("evaluation"), i);
    const auto at = [i](auto& r) { return i < r.evaluation.size() ? &r.evaluation[i] : nullptr; };
    const EvaluatorInfo* evaluator = find_evaluator(m_recipe.evaluation[i].evaluator);
    const bool onText = !evaluator || evaluator->data == EvaluationData::text;
    auto* fields = group();
    QStringList names, titles;
    for (const EvaluatorInfo& info : evaluators()) {
      names << QString::fromStdString(info.name);
      titles << QString::fromStdString(info.title);
    }
    fields->choice({key + QStringLiteral(".evaluator"), tr("Measure"), evaluator ? QString::fromStdString(evaluator->help) : tr("What is measured.")}, names, titles,
                   [at](const Recipe& r) { const auto* e = at(r); return e ? QString::fromStdString(e->evaluator) : QString(); },
                   [at](Recipe& r, const QString& v) {
                     auto* e = at(r);
                     if (!e || e->evaluator == v.toStdString()) return true;
                     e->evaluator = v.toStdString();
                     e->knobs.clear();  // they were the other one's
                     return true;
                   });
    fields->path({key + QStringLiteral(".corpus"), onText ? tr("Text") : tr("Task"), !onText ? tr("A .jsonl file with query, choices and gold a line, or a task's .yaml of lm-evaluation-harness.") : tr("A text file, a .jsonl or .json file, or a folder of them. Conversations go through the model's chat template.")}, FieldGroup::TextFile,
                 [at](const Recipe& r) { const auto* e = at(r); return e ? text(e->corpus.path) : QString(); },
                 [at](Recipe& r, const QString& v) { if (auto* e = at(r)) e->corpus.path = v.toStdString(); });
    if (onText) fields->line({key + QStringLiteral(".field"), tr("JSON field"), tr("Which field of each object holds the text or the conversation."), {},
                  [at](const Recipe& r) { const auto* e = at(r); return e && hasJsonEnding(e->corpus.path); }},
                 {}, [at](const Recipe& r) { const auto* e = at(r); return e ? QString::fromStdString(e->corpus.field) : QString(); },
                 [at](Recipe& r, const QString& v) { if (auto* e = at(r)) e->corpus.field = v.toStdString(); });
    if (onText) fields->integer({key + QStringLiteral(".seq_len"), tr("Window"), tr("Tokens of each window; perplexities of different window lengths do not compare."), tr("tokens")}, 2, 1 << 24,
                    [at](const Recipe& r) { const auto* e = at(r); return e ? qint64(e->seq_len) : 0; }, [at](Recipe& r, qint64 v) { if (auto* e = at(r)) e->seq_len = v; });
    if (onText) fields->integer({key + QStringLiteral(".windows"), tr("Windows"), tr("How many windows are measured, from the text's start.")}, 0, 1 << 24,
                    [at](const Recipe& r) { const auto* e = at(r); return e ? qint64(e->windows) : 0; }, [at](Recipe& r, qint64 v) { if (auto* e = at(r)) e->windows = v; },
                    tr("all"));
    fields->choice({key + QStringLiteral(".dtype"), tr("Compute in"), tr("Number type of the evaluation's forward passes.")}, {"float32", "bfloat16"}, {},
                   [at](const Recipe& r) { const auto* e = at(r); return e ? QString::fromStdString(e->dtype) : QString(); },
                   [at](Recipe& r, const QString& v) { if (auto* e = at(r)) e->dtype = v.toStdString(); return true; });
    if (onText) fields->choice({key + QStringLiteral(".bos"), tr("BOS"), bosHelp()}, bosValues(), bosTitles(),
                   [at](const Recipe& r) { const auto* e = at(r); return e ? bosText(e->bos) : QString(); },
                   [at](Recipe& r, const QString& v) { if (auto* e = at(r)) e->bos = parse_bos(v.toStdString()); return true; });
    if (evaluator)
      for (const KnobInfo& info : evaluator->knobs)
        fields->knob(info, key + QLatin1Char('.') + QString::fromStdString(info.name), [i](Recipe& r) { return i < r.evaluation.size() ? &r.evaluation[i].knobs : nullptr; });
    auto* card = new Card(tr("%1. %2").arg(i + 1).arg(evaluator ? QString::fromStdString(evaluator->title) : QString::fromStdString(m_recipe.evaluation[i].evaluator)), {}, fields, false);
    connect(card, &Card::removeRequested, this, [this, i] {
      change(QStringLiteral("evaluation"), tr("Remove evaluation"), [i](Recipe& r) { r.evaluation.erase(r.evaluation.begin() + std::ptrdiff_t(i)); });
    });
    m_evaluations.layout->addWidget(card);
    m_evaluations.groups.push_back(fields);
  }
}

void RecipeForm::fillLists() {
  fillStages();
  fillOverrides();
  fillEvaluations();
}

void RecipeForm::setRecipe(const Recipe& recipe) {
  m_recipe = recipe;
  fillLists();
  for (FieldGroup* fields : m_groups) fields->show(m_recipe);
  for (const CardList* list : {&m_stages, &m_overrides, &m_evaluations})
    for (FieldGroup* fields : list->groups) fields->show(m_recipe);
  setProblems(m_problems);
}

std::vector<FieldGroup*> RecipeForm::groups() const {
  std::vector<FieldGroup*> all = m_groups;
  for (const CardList* list : {&m_stages, &m_overrides, &m_evaluations}) all.insert(all.end(), list->groups.begin(), list->groups.end());
  return all;
}

void RecipeForm::setProblems(const QVector<RecipeProblem>& problems) {
  m_problems = problems;
  const std::vector<FieldGroup*> all = groups();
  std::vector<QVector<RecipeProblem>> shares(all.size());
  for (const RecipeProblem& problem : problems) {
    // Shown once: where the key fits best.
    const auto best = std::max_element(all.begin(), all.end(), [&](const FieldGroup* a, const FieldGroup* b) { return a->fits(problem.key) < b->fits(problem.key); });
    if (best != all.end() && (*best)->fits(problem.key) > 0) shares[size_t(best - all.begin())].push_back(problem);
  }
  for (size_t i = 0; i < all.size(); ++i) all[i]->showProblems(shares[i]);
}

bool RecipeForm::hasField(const QString& key) const {
  const std::vector<FieldGroup*> all = groups();
  return std::any_of(all.begin(), all.end(), [&](const FieldGroup* fields) { return fields->hasKey(key); });
}

void RecipeForm::focusField(const QString& key) {
  for (FieldGroup* fields : groups()) fields->focusKey(key);
  if (QWidget* focus = widget()->focusWidget()) ensureWidgetVisible(focus);
}

void RecipeForm::setCodedModel(bool coded) {
  if (m_codedModel == coded) return;
  m_codedModel = coded;
  setRecipe(m_recipe);
}

void RecipeForm::setSummary(const QString& text) {
  m_summary->setText(text);
  m_summary->setVisible(!text.isEmpty());
}

void RecipeForm::setModelSuggestions(std::function<QStringList()> suggestions) { m_modelSuggestions = std::move(suggestions); }

}  // namespace qb::views
