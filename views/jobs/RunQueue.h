#pragma once
#include <QElapsedTimer>
#include <QObject>
#include <QStringList>
#include <QVector>
#include <map>
#include <memory>

#include "views/jobs/Services.h"
#include "views/models/Selection.h"

namespace qb::views {

enum class JobKind { Run, Export };
enum class JobState { Queued, Held, Running, Paused, Stopping, Finished, Cancelled, Failed };

// One run, or one export of a finished run, on its way through the queue, as the GUI thread sees it.
struct Job {
  int id = 0;
  JobKind kind = JobKind::Run;
  QString runId, name, device;
  JobState state = JobState::Queued;
  Progress progress;
  QString estimate;        // running perplexity with its conditions, may be empty
  QString error;           // when failed
  QVector<double> memory;  // resident bytes over the job's time, evenly thinned
  QStringList log;
  RunPtr report;           // last snapshot of a run
  ExportOptions wanted;    // of an export
  std::shared_ptr<const ExportResult> exported;  // of an export that is finished

  bool isActive() const { return state == JobState::Running || state == JobState::Paused || state == JobState::Stopping; }
  bool isWaiting() const { return state == JobState::Queued || state == JobState::Held; }
  bool canPause() const { return state == JobState::Queued || state == JobState::Running; }
  bool canResume() const { return state == JobState::Held || state == JobState::Paused || state == JobState::Cancelled || state == JobState::Failed; }
  bool canCancel() const { return isWaiting() || state == JobState::Running || state == JobState::Paused; }
};

// Carries runs and exports out on worker threads, in order, a limited number at a time per device. The runner's callbacks are gathered
// under a lock and collected on the GUI thread, so that however fast they come the event loop gets one event at a time.
// The destructor cancels and waits.
class RunQueue : public QObject {
  Q_OBJECT
 public:
  explicit RunQueue(Runner runner, Exporter exporter = {}, QObject* parent = nullptr);
  ~RunQueue() override;

  // `start` is the run's report so far; its blocks are kept in the snapshots until the runner reports others.
  int enqueue(const WorkspacePtr& workspace, const QString& runId, const QString& name, const QString& device, const RunPtr& start = {});
  // Of a finished run. Exports have a device of their own, the disk: they go beside runs, one after the other.
  int enqueueExport(const WorkspacePtr& workspace, const QString& runId, const QString& name, const ExportOptions& wanted);
  const QVector<Job>& jobs() const { return m_jobs; }
  const Job* job(int id) const;
  const Job* jobOfRun(const QString& runId) const;          // its last one that is no export
  const Job* activeExportOf(const QString& runId) const;   // at work or waiting
  int rowOf(int id) const;
  bool isBusy() const;       // a worker is at work (paused counts)
  bool isBusyWith(JobKind kind) const;
  int perDevice() const { return m_perDevice; }
  void setPerDevice(int runs);
  // Holds back all starts until the compute library is ready.
  void setReady(bool ready);

 public Q_SLOTS:
  void pause(int id);
  void resume(int id);   // goes on with a paused job; puts a cancelled or failed one back into the queue
  void cancel(int id);
  void cancelAll();
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
  void start(Job& job);
  void collect(int id, quint64 serial);
  Job* find(int id);
  void touch(int id);

  Runner m_runner;
  Exporter m_exporter;
  QVector<Job> m_jobs;
  std::map<int, WorkspacePtr> m_workspaces;       // by job
  std::map<int, std::unique_ptr<Worker>> m_workers;  // by job, active ones
  int m_nextId = 1;
  quint64 m_serial = 0;
  int m_perDevice = 1;
  bool m_ready = true;
};

QString jobStateText(JobState state);

}  // namespace qb::views
