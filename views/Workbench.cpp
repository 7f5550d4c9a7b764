#include "views/Workbench.h"

#include <QDir>
#include <QElapsedTimer>
#include <QFileInfo>
#include <QRegularExpression>
#include <QSet>
#include <algorithm>
#include <limits>

#include "core/base/files.h"
#include "core/base/resources.h"
#include "core/exporting/formats.h"
#include "core/format/model_place.h"
#include "core/recipe/bit_plan.h"
#include "core/recipe/llmc.h"
#include "core/recipe/sweep.h"
#include "views/models/Format.h"
#include "views/models/Sensitivities.h"

namespace qb::views {
namespace {

std::filesystem::path native(const QString& path) { return std::filesystem::path(path.toStdString()).lexically_normal(); }

// Without the slash at the end that a folder's path may have, so that one folder has one name.
std::filesystem::path tidy(const std::filesystem::path& path) {
  auto normal = std::filesystem::absolute(path).lexically_normal();
  return normal.filename().empty() ? normal.parent_path() : normal;
}

QString text(const std::filesystem::path& path) { return QString::fromStdString(path.string()); }

QString shellQuoted(const QString& argument) {
  static const QRegularExpression plain(QStringLiteral("^[\\w@%+=:,./-]+$"));
  if (plain.match(argument).hasMatch()) return argument;
  return QLatin1Char('\'') + QString(argument).replace(QLatin1Char('\''), QStringLiteral("'\\''")) + QLatin1Char('\'');
}

// LLMC's recipes have these at the top; ours never.
bool looksLikeLlmc(const QString& yaml) {
  static const QRegularExpression section(QStringLiteral("^(base|calib|quant|sparse|save)\\s*:"), QRegularExpression::MultilineOption);
  return section.match(yaml).hasMatch();
}

struct ReadRecipe {
  QString text, path, notes;
};

ReadRecipe readRecipe(const std::filesystem::path& path) {
  const std::string yaml = read_text(path, 4 << 20);
  ReadRecipe result{QString::fromStdString(yaml), text(path), {}};
  if (!looksLikeLlmc(result.text)) return result;
  const LlmcImport import = from_llmc(yaml, path.string());
  result.text = QString::fromStdString(to_yaml(import.recipe));
  result.path.clear();
  QStringList notes{Workbench::tr("Made from the LLMC file %1.").arg(text(path))};
  for (const std::string& note : import.notes) notes << QString::fromStdString(note);
  result.notes = notes.join(QLatin1Char('\n'));
  return result;
}

enum class PathKind { Model, Workspace, Recipe, Sweep };

struct Found {
  PathKind kind;
  std::filesystem::path path;
};

Found kindOf(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) {
    if (std::filesystem::exists(path / "config.json")) return {PathKind::Model, path};
    if (std::filesystem::is_directory(path / "runs")) return {PathKind::Workspace, path};
    throw InputError("This folder is neither a model (no config.json) nor a workspace (no runs): " + path.string());
  }
  if (!std::filesystem::exists(path)) throw InputError("There is no " + path.string());
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  if (ending == ".yaml" || ending == ".yml") {
    const std::string yaml = read_text(path, 4 << 20);
    return {!looksLikeLlmc(QString::fromStdString(yaml)) && is_sweep(yaml) ? PathKind::Sweep : PathKind::Recipe, path};
  }
  if (const auto folder = folder_of_part(path); !folder.empty()) return {PathKind::Model, folder};
  if (is_gguf(path)) return {PathKind::Model, path};
  throw InputError("Cannot open " + path.string() + "; expected a model folder, a GGUF file, a recipe (.yaml) or a workspace");
}

}  // namespace

Workbench::Workbench(Services services, QObject* parent) : QObject(parent), m_services(std::move(services)), m_queue(m_services.carryOut, m_services.exportRun, m_services.follow) {
  m_queue.setTaskCanceller(m_services.cancelClusterTasks);
  m_queue.setSurveyor(m_services.surveySensitivity);
  m_watch.setCluster(m_services.clusterTasks);
  connect(&m_queue, &RunQueue::reported, this, &Workbench::putReported);
  connect(&m_queue, &RunQueue::changed, this, [this](int row) {
    const Job& job = m_queue.jobs()[row];
    if (job.kind != JobKind::Run) return;
    QString activity;
    if (job.isWaiting()) activity = jobStateText(job.state);
    if (job.state == JobState::Running) activity = tr("%1 % done").arg(int(job.progress.fraction * 100));
    if (job.state == JobState::Paused || job.state == JobState::Stopping) activity = jobStateText(job.state);
    m_runList.setActivity(job.runId, activity);
  });
  connect(&m_runList, &RunList::showRequested, this, &Workbench::show);
  connect(&m_runList, &RunList::renameRequested, this, &Workbench::rename);
}

Workbench::~Workbench() { m_queue.disconnect(this); }

QString Workbench::workspacePath() const { return m_workspace ? text(m_workspace->folder()) : QString(); }

void Workbench::prepare(int threads) {
  m_queue.setReady(false);
  m_background.run(
      QStringLiteral("initialise"), [initialise = m_services.initialise, threads](const std::stop_token&) { return initialise(threads); },
      [this](const std::vector<DeviceInfo>& devices) {
        m_devices = devices;
        m_queue.setReady(true);
        Q_EMIT devicesChanged();
      },
      [this](const QString& error) { fail(Place::Window, tr("The compute library does not work: %1").arg(error)); });
  m_background.run(
      QStringLiteral("presets"), [](const std::stop_token&) { return qb::presets(); },
      [this](const std::vector<Preset>& presets) {
        m_presets = presets;
        if (m_document.text().isEmpty()) {
          m_document.open(freshRecipe(), tr("New recipe"));
          m_document.forgetHistory();
        }
        Q_EMIT presetsChanged();
      },
      [this](const QString& error) { fail(Place::Window, error); });
}

void Workbench::openPath(const QString& path) {
  m_background.run(
      {}, [file = tidy(native(path))](const std::stop_token&) { return kindOf(file); },
      [this](const Found& found) {
        switch (found.kind) {
          case PathKind::Model: return openModel(text(found.path));
          case PathKind::Workspace: return openWorkspace(text(found.path));
          case PathKind::Recipe: return openRecipe(text(found.path));
          case PathKind::Sweep: return Q_EMIT sweepFound(text(found.path));
        }
      },
      [this](const QString& error) { fail(Place::Window, error); });
}

void Workbench::openModel(const QString& path, bool choose) {
  Q_EMIT status(tr("Opening %1…").arg(path));
  m_background.run(
      {},
      [inspect = m_services.inspectModel, file = native(path)](const std::stop_token&) {
        auto info = std::make_shared<ModelInfo>(inspect(tidy(file)));
        info->path = tidy(file);
        return ModelPtr(info);
      },
      [this, choose](const ModelPtr& model) {
        addModel(model);
        if (choose) m_selection.setCurrentModel(m_selection.modelAt(text(model->path)));
        Q_EMIT status(tr("Opened %1").arg(QString::fromStdString(model->name)));
        Q_EMIT opened(QStringLiteral("model"), text(model->path));
        // Before the presets are there, the first recipe is still to come: it takes the current model.
        if (!m_document.recipe().model.empty() || m_document.text().isEmpty()) return;
        Recipe next = m_document.recipe();
        next.model = model->path;
        fit(next, *model);
        m_document.setRecipe(next, QStringLiteral("model.path"), tr("Model %1").arg(QString::fromStdString(model->name)));
      },
      [this](const QString& error) {
        Q_EMIT status({});
        fail(Place::Window, error);
      });
}

void Workbench::openRecipe(const QString& path) {
  m_background.run(
      QStringLiteral("recipe"), [file = tidy(native(path))](const std::stop_token&) { return readRecipe(file); },
      [this, path](const ReadRecipe& read) {
        m_document.open(read.text, read.path, tr("Open %1").arg(QFileInfo(path).fileName()));
        Q_EMIT opened(QStringLiteral("recipe"), QFileInfo(path).absoluteFilePath());
        Q_EMIT recipeShown();
        if (!read.notes.isEmpty()) Q_EMIT notice(Place::Recipe, Kind::Info, read.notes);
      },
      [this](const QString& error) { fail(Place::Window, error); });
}

Recipe Workbench::freshRecipe() const {
  Recipe fresh;
  // What stays the same from recipe to recipe is the model and the texts.
  fresh.model = m_document.recipe().model;
  fresh.calibration = m_document.recipe().calibration;
  fresh.evaluation = m_document.recipe().evaluation;
  // The model that is looked at, whatever the last recipe was for.
  if (const ModelPtr current = m_selection.openModel()) fresh.model = current->path;
  const auto standard = std::find_if(m_presets.begin(), m_presets.end(), [](const Preset& preset) { return preset.name == "w4-g64-asym"; });
  if (standard != m_presets.end())
    apply(*standard, fresh);
  else
    fresh.scheme.weights = QuantSpec{};
  add_bundled_texts(fresh);  // a first run measures; other texts are chosen in the form
  if (const ModelPtr current = m_selection.openModel()) fit(fresh, *current);
  return fresh;
}

void Workbench::newRecipe() {
  m_document.open(freshRecipe(), tr("New recipe"));
  Q_EMIT recipeShown();
}

void Workbench::whenOpen(std::function<void()> action) {
  if (m_workspace)
    action();
  else
    m_whenOpen.push_back(std::move(action));
}

void Workbench::tellReading(const QString& text) {
  m_reading = text;
  Q_EMIT readingChanged();
}

void Workbench::openWorkspace(const QString& path, const QStringList& shown) {
  if (m_queue.isBusyWithOurs()) return fail(Place::Window, tr("Runs or exports are going on in this workspace. Stop them, or wait, before opening another one."));
  struct Opened {
    WorkspacePtr workspace;
    WorkspaceWatch::Stamps stamps;
    std::vector<RunPtr> runs;
    std::vector<QueuedRun> queue;
  };
  const auto folder = tidy(native(path));
  const QString name = text(folder.filename());
  tellReading(tr("Reading the workspace %1…").arg(name));
  m_background.run(
      QStringLiteral("workspace"),
      [this, open = m_services.openWorkspace, folder, name](const std::stop_token& stop) {
        QElapsedTimer since;
        const Workspace::Reading reading = [&](int done, int all) {
          if (stop.stop_requested()) throw Cancelled();
          if (done > 0 && since.isValid() && since.elapsed() < 100) return;
          since.start();
          QMetaObject::invokeMethod(
              this,
              [this, stop, sentence = tr("Reading the workspace %1: %2 of %3 runs…").arg(name).arg(done).arg(all)] {
                if (!stop.stop_requested() && !m_reading.isEmpty()) tellReading(sentence);
              },
              Qt::QueuedConnection);
        };
        const WorkspacePtr workspace = open(folder, reading);
        Opened opened{workspace, workspace->stamps(), {}};  // what changes from here on is seen
        const std::vector<RunReport> heads = workspace->list();
        opened.queue = queued_runs(*workspace, heads);
        for (const RunReport& run : heads) opened.runs.push_back(std::make_shared<const RunReport>(run));
        return opened;
      },
      [this, shown](const Opened& found) {
        tellReading({});
        QStringList old;
        for (const RunEntry& run : m_selection.runs()) old << run.id;
        m_selection.removeRuns(old);
        m_queue.clear();
        m_workspace = found.workspace;
        m_watch.watch(found.workspace, found.stamps);
        // Oldest first: the same run then has the same colour each time.
        m_selection.putRuns(QVector<RunPtr>(found.runs.rbegin(), found.runs.rend()));
        for (const QString& id : shown)
          if (m_selection.find(id)) show(id, true);
        if (!shown.isEmpty() && m_selection.find(shown.front())) makeCurrent(shown.front());
        Q_EMIT workspaceChanged();
        Q_EMIT opened(QStringLiteral("workspace"), workspacePath());
        showQueue(found.queue);
        for (const auto& action : std::exchange(m_whenOpen, {})) action();
      },
      [this](const QString& error) {
        tellReading({});
        fail(Place::Window, tr("The workspace does not open: %1").arg(error));
      });
}

void Workbench::leaveRunsAlone() {
  const QStringList devices = m_queue.leaveAlone();
  if (!m_workspace || !m_services.startQueue) return;
  // As many processes as runs go on at a time; a GPU's second one would only wait.
  for (const QString& device : devices)
    for (int i = 0; i < (device == QLatin1String("cpu") ? std::max(1, m_queue.perDevice()) : 1); ++i) try {
      m_services.startQueue(m_workspace->folder(), RunOptions{device.toStdString(), {}, m_queue.threadsOfRun()});
    } catch (const Error& error) {
      fail(Place::Window, tr("What waits stays in the workspace's queue: %1").arg(QString::fromUtf8(error.what())));
    }
}

void Workbench::showQueue(const std::vector<QueuedRun>& queue) {
  int waiting = 0;
  for (const QueuedRun& run : queue) {
    const QString id = QString::fromStdString(run.report.id), name = QString::fromStdString(run.report.name);
    const auto report = std::make_shared<const RunReport>(run.report);
    if (run.owner) {
      m_selection.setOwner(id, ownerText(*run.owner));
      m_queue.attach(m_workspace, id, name, ownerText(*run.owner), report);
    } else {
      m_queue.showWaiting(m_workspace, id, name, run.request, report);
      waiting += run.request.wish == Wish::run && run.request.task.empty();
    }
  }
  if (waiting > 0) Q_EMIT foundWaiting(waiting);
}

QString Workbench::freshName(const std::string& name) const {
  const QString wanted = name.empty() ? tr("Run") : QString::fromStdString(name);
  QSet<QString> taken;
  for (const RunEntry& run : m_selection.runs()) taken.insert(QString::fromStdString(run.report->name));
  QString fresh = wanted;
  for (int number = 2; taken.contains(fresh); ++number) fresh = QStringLiteral("%1 #%2").arg(wanted).arg(number);
  return fresh;
}

void Workbench::launch(const std::vector<Recipe>& recipes, Place place, std::function<void()> then, const std::string& sweep) {
  Q_EMIT status(tr("Checking the recipe against model and texts…"));
  std::vector<Recipe> named = recipes;
  for (Recipe& recipe : named) recipe.name = freshName(recipe.name).toStdString();
  m_background.run(
      {},
      [named, sweep, workspace = m_workspace, device = m_device.toStdString(), check = m_services.preflight](const std::stop_token&) {
        for (const Recipe& recipe : named) check(recipe, RunOptions{device}, workspace->folder());
        std::vector<RunPtr> reports;
        for (const Recipe& recipe : named) reports.push_back(std::make_shared<const RunReport>(workspace->load(workspace->create_run(recipe, sweep))));
        return reports;
      },
      [this, then, workspace = m_workspace](const std::vector<RunPtr>& reports) {
        for (const RunPtr& report : reports) {
          const QString id = QString::fromStdString(report->id);
          m_selection.putRun(report);
          m_selection.setShown(id, true);
          m_queue.enqueue(workspace, id, QString::fromStdString(report->name), m_device, report);
          Q_EMIT started(id);
        }
        Q_EMIT status(reports.size() == 1 ? tr("1 run put into the queue") : tr("%1 runs put into the queue").arg(reports.size()));
        if (!reports.empty()) m_selection.setCurrentRun(QString::fromStdString(reports.front()->id));
        if (then) then();
      },
      [this, place](const QString& error) {
        Q_EMIT status({});
        fail(place, error);
      });
}

void Workbench::start() {
  try {
    const Recipe recipe = m_document.resolved();
    whenOpen([this, recipe] { launch({recipe}, Place::Recipe); });
  } catch (const Error& error) {
    fail(Place::Recipe, QString::fromUtf8(error.what()));
  }
}

void Workbench::startSweep(const QString& sweep, const std::vector<Recipe>& recipes, const QStringList& stopped) {
  whenOpen([this, sweep, recipes, stopped] {
    for (const QString& run : stopped) resume(run);
    if (!recipes.empty()) launch(recipes, Place::Window, {}, sweep.toStdString());
  });
}

void Workbench::startSurvey(const SensitivityWish& wish, const QString& modelName) {
  whenOpen([this, wish, modelName] {
    SensitivityWish wanted = wish;
    wanted.threads = m_queue.threadsOfRun();
    const int job = m_queue.enqueueSurvey(m_workspace, tr("Sensitivity of %1").arg(modelName), wanted);
    Q_EMIT status(tr("Survey put into the queue"));
    Q_EMIT exportStarted(job);
  });
}

ModelPtr Workbench::recipeModel() const {
  std::filesystem::path path = m_document.recipe().model;
  if (path.empty()) return nullptr;
  if (path.is_relative() && !m_document.path().isEmpty()) path = native(m_document.path()).parent_path() / path;
  return m_models.find(text(tidy(path)));
}

bool Workbench::writeScheme(const Scheme& scheme, const QString& what) {
  if (!m_document.recipe().checkpoint.empty()) {
    Q_EMIT notice(Place::Window, Kind::Info, tr("The recipe being edited measures a finished checkpoint: it has no bits to give."));
    return false;
  }
  Recipe next = m_document.recipe();
  next.scheme = scheme;
  if (!m_document.setRecipe(next, QStringLiteral("scheme.overrides"), what)) {
    Q_EMIT notice(Place::Window, Kind::Warning, tr("The recipe's text has mistakes: mend them on the Recipe page first."));
    return false;
  }
  return true;
}

void Workbench::giveBits(const LinearKey& linear, int bits) {
  const ModelPtr model = recipeModel();
  if (!model || model != m_selection.openModel()) {
    Q_EMIT notice(Place::Window, Kind::Info, tr("The recipe being edited is for another model than the one that is looked at: make a recipe for this one first (in the tree: New recipe for this model)."));
    return;
  }
  try {
    const Scheme& scheme = m_document.recipe().scheme;
    BitPlan plan = bit_plan(*model, scheme);
    const auto it = std::find_if(plan.linears.begin(), plan.linears.end(), [&](const PlannedLinear& l) { return l.block == linear.block && QString::fromStdString(l.name) == linear.name; });
    if (it == plan.linears.end()) throw InputError(tr("%1 has no linear %2 in block %3").arg(QString::fromStdString(model->name), linear.name).arg(linear.block).toStdString());
    const auto& base = it->weights ? it->weights : scheme.weights;
    if (!base) throw InputError(tr("The recipe quantizes no weights: choose their type on the Recipe page first.").toStdString());
    std::optional<QuantSpec> weights;
    if (bits > 0) {
      weights = with_bits(*base, bits);
      if (!weights) throw InputError(tr("%1 has no counterpart of %2 bits").arg(QString::fromStdString(describe(*base))).arg(bits).toStdString());
    }
    const QString joined = tiedTitle(plan, size_t(it - plan.linears.begin()));
    const bool several = plan.ties[it->tie].size() > 1;
    const QString now = weights ? QString::fromStdString(describe(*weights)) : tr("float");
    const Scheme next = with_override(*model, scheme, it->module, weights);
    if (next == scheme) return Q_EMIT status(tr("%1 has %2 already").arg(joined, now));
    if (writeScheme(next, tr("%1: %2").arg(joined, now)))
      Q_EMIT status(several ? tr("In the recipe: %1 together have %2 now, since engines join them. Undo takes it back.").arg(joined, now) : tr("In the recipe: %1 has %2 now. Undo takes it back.").arg(joined, now));
  } catch (const Error& error) {
    fail(Place::Window, QString::fromUtf8(error.what()));
  }
}

void Workbench::startDemo() {
  whenOpen([this] {
    struct Demo {
      std::vector<Recipe> recipes;
      ModelPtr model;
    };
    m_background.run(
        QStringLiteral("demo"),
        [inspect = m_services.inspectModel](const std::stop_token&) {
          Demo demo;
          std::vector<std::filesystem::path> files;
          for (const auto& entry : std::filesystem::directory_iterator(resource("demo") / "recipes"))
            if (entry.path().extension() == ".yaml") files.push_back(entry.path());
          std::sort(files.rbegin(), files.rend());  // the gentler one first
          for (const auto& file : files) demo.recipes.push_back(load_recipe(file));
          auto info = std::make_shared<ModelInfo>(inspect(tidy(resource("demo"))));
          info->path = tidy(resource("demo"));
          demo.model = info;
          return demo;
        },
        [this](const Demo& demo) {
          addModel(demo.model);
          m_document.open(demo.recipes.front(), tr("Open the demo recipe"));
          launch(demo.recipes, Place::Window, [this] { Q_EMIT demoStarted(); });
        },
        [this](const QString& error) { fail(Place::Window, error); });
  });
}

// Lists of runs come without blocks; they are read when a run is looked at.
void Workbench::withReport(const QString& run, std::function<void()> then) {
  const RunEntry* entry = m_selection.find(run);
  if (!entry) return;
  const Job* job = m_queue.jobOfRun(run);
  if (!entry->report->blocks.empty() || !m_workspace || (job && (job->isActive() || job->isWaiting()))) return then();
  m_background.run(
      {}, [workspace = m_workspace, id = run.toStdString()](const std::stop_token&) { return std::make_shared<const RunReport>(workspace->load(id)); },
      [this, run, then, workspace = m_workspace](const RunPtr& report) {
        const RunEntry* known = m_selection.find(run);
        if (!known || workspace != m_workspace) return;
        if (known->report->blocks.empty()) m_selection.putRun(report);
        then();
      },
      [this](const QString& error) { fail(Place::Window, error); });
}

void Workbench::show(const QString& run, bool shown) {
  if (!shown) return m_selection.setShown(run, false);
  withReport(run, [this, run] { m_selection.setShown(run, true); });
}

void Workbench::makeCurrent(const QString& run) {
  if (run.isEmpty()) return m_selection.setCurrentRun({});
  withReport(run, [this, run] { m_selection.setCurrentRun(run); });
}

void Workbench::showOnly(const QStringList& runs) {
  QStringList all;
  for (const RunEntry& run : m_selection.runs())
    if (run.shown || runs.contains(run.id)) all << run.id;
  for (const QString& id : all) show(id, runs.contains(id));
}

void Workbench::readRecipes(const QStringList& runs, std::function<void(const QHash<QString, std::shared_ptr<const Recipe>>&)> then) {
  if (!m_workspace) return;
  m_background.run(
      {},
      [workspace = m_workspace, runs](const std::stop_token& stop) {
        QHash<QString, std::shared_ptr<const Recipe>> found;
        for (const QString& run : runs) {
          if (stop.stop_requested()) break;
          try {
            found.insert(run, std::make_shared<const Recipe>(workspace->recipe(run.toStdString())));
          } catch (const Error&) {}  // a damaged run, of which the list of runs tells
        }
        return found;
      },
      [then](const QHash<QString, std::shared_ptr<const Recipe>>& found) { then(found); }, [this](const QString& error) { fail(Place::Window, error); });
}

bool Workbench::canResume(const QString& run) const {
  const RunEntry* entry = m_selection.find(run);
  if (!entry) return false;
  if (!entry->owner.isEmpty()) return false;
  const Job* job = m_queue.jobOfRun(run);
  return job ? job->canResume() : entry->report->status != RunStatus::finished;
}

void Workbench::resume(const QString& run) {
  if (const RunEntry* entry = m_selection.find(run); entry && !entry->owner.isEmpty())
    return fail(Place::Window, tr("%1 is already being carried out by %2.").arg(QString::fromStdString(entry->report->name), entry->owner));
  if (const Job* job = m_queue.jobOfRun(run)) {
    if (job->canResume()) m_queue.resume(job->id);
    return;
  }
  if (!m_workspace) return;
  m_background.run(
      {}, [workspace = m_workspace, id = run.toStdString()](const std::stop_token&) { return std::make_shared<const RunReport>(workspace->load(id)); },
      [this, run, workspace = m_workspace](const RunPtr& report) {
        m_selection.putRun(report);
        m_queue.enqueue(workspace, run, QString::fromStdString(report->name), m_device, report);
      },
      [this](const QString& error) { fail(Place::Window, error); });
}

// What the user says of a run: written into its folder, then shown.
void Workbench::label(const QString& run, std::function<void(Workspace&, const std::string& id)> write, std::function<void(RunReport&)> show) {
  if (!m_workspace) return;
  m_background.run(
      {},
      [workspace = m_workspace, id = run.toStdString(), write](const std::stop_token&) {
        write(*workspace, id);
        return true;
      },
      [this, run, show](bool) {
        const RunEntry* entry = m_selection.find(run);
        if (!entry) return;
        auto report = std::make_shared<RunReport>(*entry->report);
        show(*report);
        m_selection.putRun(report);
      },
      [this](const QString& error) { fail(Place::Window, error); });
}

void Workbench::rename(const QString& run, const QString& text) {
  const std::string name = text.toStdString();
  label(run, [name](Workspace& workspace, const std::string& id) { workspace.rename(id, name); }, [name](RunReport& report) { report.name = name; });
}

void Workbench::setTags(const QString& run, const std::vector<std::string>& wanted) {
  std::vector<std::string> tags;
  for (const std::string& tag : wanted)
    if (const std::string trimmed = QString::fromStdString(tag).simplified().toStdString(); !trimmed.empty() && std::find(tags.begin(), tags.end(), trimmed) == tags.end()) tags.push_back(trimmed);
  label(run, [tags](Workspace& workspace, const std::string& id) { workspace.set_tags(id, tags); }, [tags](RunReport& report) { report.tags = tags; });
}

void Workbench::setNotes(const QString& run, const QString& text) {
  const std::string notes = text.trimmed().toStdString();
  label(run, [notes](Workspace& workspace, const std::string& id) { workspace.set_notes(id, notes); }, [notes](RunReport& report) { report.notes = notes; });
}

// Who carries a run out knows the name and tags that it had then.
void Workbench::putReported(const RunPtr& report) {
  const RunEntry* known = m_selection.find(QString::fromStdString(report->id));
  if (!known || (known->report->name == report->name && known->report->tags == report->tags && known->report->notes == report->notes)) return m_selection.putRun(report);
  auto labelled = std::make_shared<RunReport>(*report);
  labelled->name = known->report->name;
  labelled->tags = known->report->tags;
  labelled->notes = known->report->notes;
  m_selection.putRun(labelled);
}

void Workbench::remove(const QString& run) {
  if (!m_workspace) return;
  if (const RunEntry* entry = m_selection.find(run); entry && !entry->owner.isEmpty())
    return fail(Place::Window, tr("%1 is being carried out by %2. Stop it there first.").arg(QString::fromStdString(entry->report->name), entry->owner));
  if (const Job* job = m_queue.activeExportOf(run)) return fail(Place::Window, tr("%1 is going on. Stop it first.").arg(job->name));
  if (const Job* job = m_queue.jobOfRun(run)) {
    if (job->isActive()) return fail(Place::Window, tr("%1 is at work. Stop it first.").arg(job->name));
    m_queue.cancel(job->id);
    m_queue.remove(job->id);
  }
  m_background.run(
      {},
      [workspace = m_workspace, id = run.toStdString()](const std::stop_token&) {
        workspace->remove(id);
        return true;
      },
      [this, run](bool) { m_selection.removeRun(run); }, [this](const QString& error) { fail(Place::Window, error); });
}

void Workbench::addModel(const ModelPtr& model) {
  m_models.put(model);
  m_selection.putModel(model);
}

void Workbench::closeModel(const QString& path) {
  const auto& models = m_models.models();
  for (size_t row = 0; row < models.size(); ++row)
    if (text(models[row]->path) == path) {
      m_models.removeAt(int(row));
      break;
    }
  m_selection.removeModel(path);
}

void Workbench::openRecipeOf(const QString& run) {
  if (!m_workspace) return;
  m_background.run(
      QStringLiteral("recipe"), [workspace = m_workspace, id = run.toStdString()](const std::stop_token&) { return QString::fromStdString(to_yaml(workspace->recipe(id))); },
      [this](const QString& yaml) {
        m_document.open(yaml, {}, tr("Open the run's recipe"));
        Q_EMIT recipeShown();
      },
      [this](const QString& error) { fail(Place::Window, error); });
}

void Workbench::saveRecipe(const QString& path) {
  m_background.run(
      {},
      [path, content = m_document.text()](const std::stop_token&) {
        write_atomically(native(path), content.toStdString());
        return content;
      },
      [this, path](const QString& content) {
        m_document.markSaved(path, content);
        Q_EMIT opened(QStringLiteral("recipe"), path);
        Q_EMIT status(tr("Saved %1").arg(path));
      },
      [this](const QString& error) { fail(Place::Recipe, error); });
}

void Workbench::saveLlmc(const QString& path) {
  try {
    const LlmcExport llmc = to_llmc(m_document.resolved());
    QStringList notes{tr("Saved for LLMC: %1").arg(path)};
    for (const std::string& note : llmc.notes) notes << QString::fromStdString(note);
    m_background.run(
        {},
        [path, yaml = llmc.yaml](const std::stop_token&) {
          write_atomically(native(path), yaml);
          return true;
        },
        [this, notes](bool) { Q_EMIT notice(Place::Recipe, notes.size() > 1 ? Kind::Warning : Kind::Info, notes.join(QLatin1Char('\n'))); },
        [this](const QString& error) { fail(Place::Recipe, error); });
  } catch (const Error& error) {
    fail(Place::Recipe, QString::fromUtf8(error.what()));
  }
}

QString Workbench::exportObstacle(const QString& run) const {
  const RunEntry* entry = m_selection.find(run);
  if (!entry || !m_workspace) return tr("Choose a finished run in the list on the left to export it");
  const QString name = QString::fromStdString(entry->report->name);
  const Job* job = m_queue.jobOfRun(run);
  if (job && job->isActive()) return tr("%1 is not finished yet: it can be exported when it is").arg(name);
  if (entry->report->status == RunStatus::finished) return {};
  if (!entry->owner.isEmpty()) return tr("%1 is being carried out by %2: it can be exported when it is finished").arg(name, entry->owner);
  if (job && job->isWaiting()) return tr("%1 waits in the queue: it can be exported when it is finished").arg(name);
  return entry->report->status == RunStatus::failed ? tr("%1 failed: only a finished run can be exported").arg(name)
                                                    : tr("%1 is not finished: resume it first, only a finished run can be exported").arg(name);
}

int Workbench::exportRun(const QString& run, const ExportOptions& wanted) {
  const RunEntry* entry = m_selection.find(run);
  const FormatInfo* format = find_format(wanted.format);
  const QString name = tr("%1 → %2").arg(entry ? QString::fromStdString(entry->report->name) : run, QString::fromStdString(format ? format->title : wanted.format));
  const int job = m_queue.enqueueExport(m_workspace, run, name, wanted);
  Q_EMIT status(tr("Export put into the queue"));
  Q_EMIT exportStarted(job);
  return job;
}

QString Workbench::exportFolder() const { return m_workspace ? text(std::filesystem::absolute(m_workspace->folder()).lexically_normal().parent_path()) : QString(); }

std::filesystem::path Workbench::runFolder(const QString& run) const { return m_workspace ? m_workspace->run_folder(run.toStdString()) : std::filesystem::path(); }

QString Workbench::bestRun() const {
  QString best;
  double lowest = std::numeric_limits<double>::infinity();
  const bool anyShown = !m_selection.shownRuns().isEmpty();
  for (const RunEntry& run : m_selection.runsOfModel()) {
    const EvaluationResult* result = mainPerplexity(*run.report);
    if (!result || run.report->status != RunStatus::finished || (anyShown && !run.shown)) continue;
    if (result->value("perplexity") >= lowest) continue;
    lowest = result->value("perplexity");
    best = run.id;
  }
  return best;
}

void Workbench::saveBestRecipe(const QString& path) {
  const RunEntry* best = m_selection.find(bestRun());
  if (!best || !m_workspace) return fail(Place::Window, tr("No finished run with a perplexity yet: start a run with an evaluation text first."));
  const EvaluationResult& winner = *mainPerplexity(*best->report);
  const QString summary = tr("Saved the recipe of %1 as %2: %3").arg(QString::fromStdString(best->report->name), path, evaluationText(winner));
  // Perplexities of different texts or windows do not compare; say so rather than pretend.
  const bool anyShown = !m_selection.shownRuns().isEmpty();
  const QVector<RunEntry> compared = m_selection.runsOfModel();
  const bool mixed = std::any_of(compared.begin(), compared.end(), [&](const RunEntry& run) {
    const EvaluationResult* other = mainPerplexity(*run.report);
    return other && (run.shown || !anyShown) && !same_conditions(*other, winner);
  });
  m_background.run(
      {},
      [workspace = m_workspace, id = best->id.toStdString(), path](const std::stop_token&) {
        write_atomically(native(path), to_yaml(workspace->recipe(id)));
        return true;
      },
      [this, summary, mixed](bool) {
        Q_EMIT notice(Place::Window, mixed ? Kind::Warning : Kind::Info,
                      mixed ? summary + tr("\nThe compared runs were measured on different texts or windows, so “best” is not certain.") : summary);
      },
      [this](const QString& error) { fail(Place::Window, error); });
}

QString Workbench::commandLine() const {
  const QString options = QStringLiteral(" --workspace %1 --device %2").arg(shellQuoted(workspacePath()), shellQuoted(m_device));
  if (!m_document.path().isEmpty() && !m_document.isModified()) return QStringLiteral("qbench run ") + shellQuoted(m_document.path()) + options;
  // Not on disk as it stands: the command brings the recipe along.
  QString file = m_document.title().toLower();
  file.replace(QRegularExpression(QStringLiteral("[^a-z0-9]+")), QStringLiteral("-"));
  file = (file.isEmpty() ? QStringLiteral("recipe") : file) + QStringLiteral(".yaml");
  return QStringLiteral("cat > %1 <<'END_OF_RECIPE'\n%2END_OF_RECIPE\nqbench run %1%3").arg(shellQuoted(file), m_document.text(), options);
}

QString Workbench::commandLineOf(const QString& run) const {
  if (!m_workspace) return {};
  return QStringLiteral("qbench run %1 --workspace %2 --device %3")
      .arg(shellQuoted(text(m_workspace->run_folder(run.toStdString()) / "recipe.yaml")), shellQuoted(workspacePath()), shellQuoted(m_device));
}

}  // namespace qb::views
