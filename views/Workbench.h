#pragma once
#include <QObject>
#include <functional>
#include <vector>

#include "core/recipe/preset.h"
#include "core/run/run_queue.h"
#include "views/jobs/Background.h"
#include "views/jobs/RunQueue.h"
#include "views/jobs/WorkspaceWatch.h"
#include "views/models/ModelTree.h"
#include "views/models/RecipeDocument.h"
#include "views/models/RunList.h"
#include "views/models/Selection.h"

namespace qb::views {

// What the program does, without a window: models, workspace, runs and the recipe being edited. Every slow step runs on a
// worker thread; what goes wrong is told by notice() with the place it concerns.
class Workbench : public QObject {
  Q_OBJECT
 public:
  enum class Place { Window, Recipe };  // where a notice belongs
  enum class Kind { Info, Warning, Error };

  explicit Workbench(Services services, QObject* parent = nullptr);
  ~Workbench() override;

  Selection* selection() { return &m_selection; }
  ModelTree* models() { return &m_models; }
  RunList* runList() { return &m_runList; }
  RunQueue* queue() { return &m_queue; }
  RecipeDocument* document() { return &m_document; }
  Background* background() { return &m_background; }
  const Services& services() const { return m_services; }
  const WorkspacePtr& workspace() const { return m_workspace; }
  QString workspacePath() const;
  const std::vector<DeviceInfo>& devices() const { return m_devices; }
  QString device() const { return m_device; }
  void setDevice(const QString& device) { m_device = device; }
  const std::vector<Preset>& presets() const { return m_presets; }

  void prepare(int threads);  // loads the compute library and presets; runs wait for it
  // A model folder, a GGUF file, a recipe (ours or LLMC's) or a workspace: found out on a worker thread.
  void openPath(const QString& path);
  void openModel(const QString& path, bool choose = true);  // choose: it becomes the current model
  void openRecipe(const QString& path);
  void openWorkspace(const QString& path, const QStringList& shown = {});
  void followWorkspace(int milliseconds) { m_watch.setInterval(milliseconds); }  // how often other processes' doings are looked for
  // What is being read while a workspace opens, with how much of it is done; empty: none opens.
  QString readingText() const { return m_reading; }
  void newRecipe();
  void start();                        // the recipe being edited
  void startDemo();
  // Finds out what bits do to each linear of a model; the workspace keeps it.
  void startSurvey(const SensitivityWish& wish, const QString& modelName);
  // The open model that the recipe being edited is of; nullptr: it is not open.
  ModelPtr recipeModel() const;
  // Gives a linear of the current model, and what engines join with it, these bits in the recipe being edited; 0: it stays float.
  void giveBits(const LinearKey& linear, int bits);
  // Weights and overrides of the recipe being edited, as one step of its history; says what to do where it cannot.
  bool writeScheme(const Scheme& scheme, const QString& what);
  void leaveRunsAlone();               // before the program ends: runs go on, and what waits is carried out by a process that stays
  // Recipes of a sweep: new runs of it, and those of the workspace that go on.
  void startSweep(const QString& sweep, const std::vector<Recipe>& recipes, const QStringList& stopped);
  void show(const QString& run, bool shown);
  void makeCurrent(const QString& run);
  void showOnly(const QStringList& runs);
  // Those that can be read, later.
  void readRecipes(const QStringList& runs, std::function<void(const QHash<QString, std::shared_ptr<const Recipe>>&)> then);
  void resume(const QString& run);
  bool canResume(const QString& run) const;
  void rename(const QString& run, const QString& name);
  void setTags(const QString& run, const std::vector<std::string>& tags);
  void setNotes(const QString& run, const QString& notes);
  void remove(const QString& run);
  void closeModel(const QString& path);
  void openRecipeOf(const QString& run);
  void saveRecipe(const QString& path);
  void saveLlmc(const QString& path);
  void saveBestRecipe(const QString& path);
  // Why a run cannot be exported now, whatever its scheme; empty: it can.
  QString exportObstacle(const QString& run) const;
  int exportRun(const QString& run, const ExportOptions& wanted);  // puts it into the queue and returns its job
  QString exportFolder() const;                                    // that checkpoints are put into unless another is chosen: beside the workspace
  std::filesystem::path runFolder(const QString& run) const;
  QString bestRun() const;             // lowest perplexity of the current model's shown runs (of all its runs, when none is shown); empty: none measured
  QString commandLine() const;         // does in a terminal what start() does
  QString commandLineOf(const QString& run) const;

 Q_SIGNALS:
  void notice(qb::views::Workbench::Place place, qb::views::Workbench::Kind kind, const QString& text);
  void status(const QString& text);
  void opened(const QString& kind, const QString& path);  // "model", "recipe", "workspace": for recent files
  void recipeShown();                                     // another recipe is being edited
  void sweepFound(const QString& path);                   // a recipe with lists, which is no one recipe
  void workspaceChanged();
  void readingChanged();
  void devicesChanged();
  void presetsChanged();
  void started(const QString& run);
  void exportStarted(int job);
  void demoStarted();
  void foundWaiting(int runs);  // in the queue of the workspace that was opened, which nobody carries out here

 private:
  void showQueue(const std::vector<QueuedRun>& queue);
  void launch(const std::vector<Recipe>& recipes, Place place, std::function<void()> then = {}, const std::string& sweep = {});
  void label(const QString& run, std::function<void(Workspace&, const std::string& id)> write, std::function<void(RunReport&)> show);
  void putReported(const RunPtr& report);
  void withReport(const QString& run, std::function<void()> then);  // after its blocks are loaded
  Recipe freshRecipe() const;
  void addModel(const ModelPtr& model);
  void whenOpen(std::function<void()> action);
  void tellReading(const QString& text);
  QString freshName(const std::string& name) const;
  void fail(Place place, const QString& text) { Q_EMIT notice(place, Kind::Error, text); }

  Services m_services;
  Selection m_selection;
  ModelTree m_models;
  RunList m_runList{&m_selection};
  RecipeDocument m_document;
  WorkspacePtr m_workspace;
  std::vector<std::function<void()>> m_whenOpen;
  std::vector<DeviceInfo> m_devices;
  std::vector<Preset> m_presets;
  QString m_device = QStringLiteral("cpu");
  QString m_reading;
  // Last: their destructors wait for work that may touch what stands above.
  RunQueue m_queue;
  Background m_background;
  WorkspaceWatch m_watch{&m_background, &m_selection, &m_queue};
};

}  // namespace qb::views
