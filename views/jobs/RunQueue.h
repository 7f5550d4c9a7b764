#pragma once
#include <QElapsedTimer>
#include <QHash>
#include <QObject>
#include <QStringList>
#include <QThreadPool>
#include <QVector>
#include <map>
#include <memory>

#include "core/run/slurm.h"
#include "core/store/run_request.h"
#include "views/jobs/Services.h"
#include "views/models/Selection.h"

namespace qb::views {

enum class JobKind { Run, Export, Survey };
enum class JobState { Queued, Held, Running, Paused, Stopping, Finished, Cancelled, Interrupted, Failed };

// One run, one export of a finished run, or one survey of a model's sensitivity on its way through the queue, as the GUI thread sees it.
struct Job {
  int id = 0;
  JobKind kind = JobKind::Run;
  QString runId, name, device;
  JobState state = JobState::Queued;
  Progress progress;
  QString estimate;        // running perplexity with its conditions, may be empty
  QString waiting;         // what a started run waits for, its device or memory; may be empty
  QString error;           // when failed or interrupted
  QString owner;           // "process 4711 on host" when another program started it
  bool ours = true;        // this queue starts it when its turn comes; else another process may
  QString task;            // "12_3" of a cluster, which starts the run
  QString cluster;         // what the cluster says of it: "pending (Resources)"
  double place = 0;        // among waiting runs of the workspace, also those of other processes
  int attempts = 0;        // that ended with the death of the run's process since a block was finished last
  QVector<double> memory;  // resident bytes over the job's time, evenly thinned
  QStringList log;
  RunPtr report;           // last snapshot of a run
  ExportOptions wanted;    // of an export
  std::shared_ptr<const ExportResult> exported;  // of an export that is finished
  SensitivityWish survey;  // of a survey
  QString surveyed;        // its file, when it is finished

  bool isActive() const { return state == JobState::Running || state == JobState::Paused || state == JobState::Stopping; }
  bool isWaiting() const { return state == JobState::Queued || state == JobState::Held; }
  bool canPause() const { return state == JobState::Queued || state == JobState::Running; }
  bool canResume() const {
    return state == JobState::Held || state == JobState::Paused || state == JobState::Cancelled || state == JobState::Interrupted || state == JobState::Failed || (state == JobState::Queued && !ours && task.isEmpty());
  }
  bool canCancel() const { return isWaiting() || state == JobState::Running || state == JobState::Paused; }
};

// Has runs carried out by processes and exports on threads, in order, a limited number at a time per device: a thread a job supervises it.
// What waits is kept in the workspace (core/store/run_request.h), so that it outlives the program and other processes see it. The
// runner's callbacks are gathered under a lock and collected on the GUI thread, so that however fast they come the event loop gets one
// event at a time. The destructor stops what goes on and waits, unless it was left to itself.
class RunQueue : public QObject {
  Q_OBJECT
 public:
  using TaskCanceller = std::function<void(const std::vector<std::string>& tasks)>;
  explicit RunQueue(Runner runner, Exporter exporter = {}, Runner follower = {}, QObject* parent = nullptr);
  ~RunQueue() override;

  // `start` is the run's report so far; its blocks are kept in the snapshots until the runner reports others.
  int enqueue(const WorkspacePtr& workspace, const QString& runId, const QString& name, const QString& device, const RunPtr& start = {});
  // A run that another process put into the workspace's queue: shown in its place, and started here only when resumed.
  int showWaiting(const WorkspacePtr& workspace, const QString& runId, const QString& name, const RunRequest& request, const RunPtr& report);
  // No longer waiting by what its folder says; one of ours stays unless the folder is gone.
  void dismissWaiting(const QString& runId, bool gone = false);
  // A run that another process carries out: followed, and conducted as our own. 0: there is nobody who could follow it.
  int attach(const WorkspacePtr& workspace, const QString& runId, const QString& name, const QString& owner, const RunPtr& report);
  // Of a finished run. Exports have a device of their own, the disk: they go beside runs, one after the other.
  int enqueueExport(const WorkspacePtr& workspace, const QString& runId, const QString& name, const ExportOptions& wanted);
  // On a device as runs are, and taking its turn among them; it ends with this program, and goes on where it was when it is started again.
  int enqueueSurvey(const WorkspacePtr& workspace, const QString& name, const SensitivityWish& wish);
  void setSurveyor(SensitivitySurveyor surveyor) { m_surveyor = std::move(surveyor); }
  const Job* activeSurvey() const;                         // at work or waiting
  const QVector<Job>& jobs() const { return m_jobs; }
  const Job* job(int id) const;
  const Job* jobOfRun(const QString& runId) const;          // its last one that is no export
  QHash<QString, QString> activeRuns() const;               // by id; who carries them out when we only follow
  const Job* activeExportOf(const QString& runId) const;   // at work or waiting
  int rowOf(int id) const;
  bool isBusy() const;       // a worker is at work (paused counts)
  bool isBusyWith(JobKind kind) const;
  bool isBusyWithOurs() const;  // runs of other programs left aside
  // At a time on the CPU; 0: as many as memory lets. A GPU takes one.
  int perDevice() const { return m_perDevice; }
  void setPerDevice(int runs);
  void setTaskCanceller(TaskCanceller cancel) { m_cancelTasks = std::move(cancel); }
  bool waitsForCluster() const;
  void setClusterStates(const std::map<std::string, SlurmTask>& tasks);
  void setThreads(int threads);  // of the CPU, that runs at a time share; 0: all cores
  int threadsOfRun() const;
  // Holds back all starts until the compute library is ready.
  void setReady(bool ready);

 public Q_SLOTS:
  void pause(int id);
  void resume(int id);   // goes on with a paused job; puts a cancelled or failed one back into the queue
  void cancel(int id);
  void cancelAll();
  void startWaiting();       // those that other processes put into the queue
  // Before the program ends. Runs end after the block at work; they wait for their turn in the workspace.
  void stopAfterBlocks();
  // Runs go on without us, and waiting ones stay in the workspace's queue; devices on which some of ours wait.
  QStringList leaveAlone();
  // Takes all rows off the list but those of work that is ours; the workspace keeps its queue.
  void clear();
  void move(int id, int rows);  // among the waiting jobs
  void remove(int id);          // of jobs that are not active
  void removeFinished();

 Q_SIGNALS:
  void aboutToAdd(int row);
  void added(int row);
  void aboutToRemove(int row);
  void removed(int row);
  void aboutToMove(int row, int destination);  // as QAbstractItemModel::beginMoveRows
  void moved();
  void changed(int row);
  void logged(int id, const QStringList& lines);
  void reported(const qb::views::RunPtr& report);  // a new snapshot of a run
  void ended(int id);                              // finished, cancelled or failed
  void idle();                                     // nothing active any more

 private:
  struct Worker;
  int add(Job job, const WorkspacePtr& workspace);
  void startNext();
  bool fits(const Job& job) const;
  void start(Job& job);
  void collect(int id, quint64 serial);
  void remember(const Job& job);  // a waiting run's request, on disk
  void forget(const Job& job);
  Job* find(int id);
  void touch(int id);

  Runner m_runner;
  Exporter m_exporter;
  Runner m_follower;
  SensitivitySurveyor m_surveyor;
  TaskCanceller m_cancelTasks;
  QVector<Job> m_jobs;
  std::map<int, WorkspacePtr> m_workspaces;       // by job
  std::map<int, std::unique_ptr<Worker>> m_workers;  // by job, active ones
  QThreadPool m_disk;  // one thread: requests are written in order
  bool m_leaving = false;
  int m_nextId = 1;
  quint64 m_serial = 0;
  int m_perDevice = 1, m_threads = 0;
  bool m_ready = true;
};

QString jobStateText(JobState state);

}  // namespace qb::views
