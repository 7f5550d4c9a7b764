#include "views/jobs/RunQueue.h"

#include <QDateTime>
#include <QLocale>
#include <algorithm>
#include <cmath>
#include <mutex>
#include <optional>
#include <thread>

#include "core/base/cores.h"
#include "core/run/run_queue.h"
#include "core/run/supervisor.h"
#include "views/jobs/Priority.h"
#include "views/models/Format.h"

namespace qb::views {
namespace {

constexpr int kLogLines = 5000;
constexpr int kMemorySamples = 256;
const QLatin1String kCluster("slurm");  // device of runs that a cluster starts

// Halves the resolution when full, so that the whole job stays in view.
void addSample(QVector<double>& samples, double value) {
  if (samples.size() >= kMemorySamples) {
    for (int i = 0; i < samples.size() / 2; ++i) samples[i] = std::max(samples[2 * i], samples[2 * i + 1]);
    samples.resize(samples.size() / 2);
  }
  samples.push_back(value);
}

QString estimateText(const EvaluationResult& result) {
  return RunQueue::tr("%1: %2 on %3, %4 of %5")
      .arg(QString::fromStdString(subject_text(result)), QString::fromStdString(figure_text(result)), QString::fromStdString(conditions_text(result)))
      .arg(result.windows)
      .arg(result.windows_total);
}

template <class Items, class Same>
void replaceOrAppend(Items& items, const typename Items::value_type& item, Same same) {
  const auto it = std::find_if(items.begin(), items.end(), same);
  if (it == items.end())
    items.push_back(item);
  else
    *it = item;
}

}  // namespace

// Shared between the worker thread (writes under the lock) and the GUI thread (takes under the lock).
struct RunQueue::Worker {
  quint64 serial = 0;
  std::shared_ptr<PauseGate> gate = std::make_shared<PauseGate>();
  std::stop_source soon, leave;
  size_t blocksBefore = 0;

  std::mutex mutex;
  bool posted = false;
  bool progressed = false;
  Progress progress;
  QString estimate, waiting;
  std::optional<bool> held;  // somebody, perhaps in another process, paused it or let it go on
  QStringList log;
  RunPtr report;
  std::shared_ptr<const ExportResult> exported;
  QString surveyed;
  bool over = false;
  JobState outcome = JobState::Finished;
  QString error;

  QElapsedTimer sampled;  // GUI thread only
  std::jthread thread;    // last: joins before the rest goes
};

RunQueue::RunQueue(Runner runner, Exporter exporter, Runner follower, QObject* parent)
    : QObject(parent), m_runner(std::move(runner)), m_exporter(std::move(exporter)), m_follower(std::move(follower)) {
  m_disk.setMaxThreadCount(1);
}

RunQueue::~RunQueue() {
  for (auto& [id, worker] : m_workers)
    if (!m_leaving || job(id)->kind != JobKind::Run) worker->thread.request_stop();
  m_workers.clear();  // joins
  m_disk.waitForDone();
}

int RunQueue::enqueue(const WorkspacePtr& workspace, const QString& runId, const QString& name, const QString& device, const RunPtr& start) {
  Job job;
  job.runId = runId;
  job.name = name;
  job.device = device;
  job.report = start;
  job.place = double(QDateTime::currentMSecsSinceEpoch()) / 1000;
  // Several that come within one moment keep their order.
  for (const Job& other : m_jobs)
    if (other.kind == JobKind::Run) job.place = std::max(job.place, std::nextafter(other.place + 1e-3, 1e18));
  const int id = add(std::move(job), workspace);
  if (const Job* added = this->job(id); added && added->isWaiting()) remember(*added);
  return id;
}

int RunQueue::showWaiting(const WorkspacePtr& workspace, const QString& runId, const QString& name, const RunRequest& request, const RunPtr& report) {
  const JobState state = request.wish == Wish::hold ? JobState::Held : JobState::Queued;
  for (Job& job : m_jobs) {
    if (job.runId != runId || job.kind != JobKind::Run) continue;
    if (job.isActive() || (job.isWaiting() && job.ours)) return job.id;
    job.state = state;
    job.ours = false;
    job.owner.clear();
    job.place = request.place;
    job.task = QString::fromStdString(request.task);
    job.report = report;
    touch(job.id);
    return job.id;
  }
  Job job;
  job.runId = runId;
  job.name = name;
  job.device = QString::fromStdString(request.device);
  job.report = report;
  job.state = state;
  job.ours = false;
  job.place = request.place;
  job.task = QString::fromStdString(request.task);
  job.attempts = request.attempts;
  return add(std::move(job), workspace);
}

int RunQueue::attach(const WorkspacePtr& workspace, const QString& runId, const QString& name, const QString& owner, const RunPtr& report) {
  if (!m_follower) return 0;
  int id = 0;
  for (Job& job : m_jobs) {
    if (job.runId != runId || job.kind != JobKind::Run) continue;
    if (job.isActive()) return job.id;
    id = job.id;
    job.report = report;
    m_workspaces[id] = workspace;
  }
  if (id == 0) {
    Job job;
    job.runId = runId;
    job.name = name;
    job.device = tr("elsewhere");
    job.report = report;
    job.ours = false;
    id = add(std::move(job), workspace);
  }
  Job* job = find(id);
  job->owner = owner;
  job->error.clear();
  start(*job);
  return id;
}

void RunQueue::remember(const Job& job) {
  if (job.kind != JobKind::Run) return;
  RunRequest request{job.state == JobState::Held ? Wish::hold : Wish::run, job.device.toStdString(), 0, job.place};
  request.attempts = job.attempts;
  m_disk.start([workspace = m_workspaces.at(job.id), id = job.runId.toStdString(), request] {
    try {
      RunRequest known = request;
      if (const auto before = load_request(workspace->run_folder(id))) {
        known.priority = before->priority;
        if (known.device == before->device) known.task = before->task;
      }
      save_request(workspace->run_folder(id), known);
    } catch (const Error&) {
      // A workspace for reading only has no queue on disk; starting the run says so.
    }
  });
}

void RunQueue::forget(const Job& job) {
  if (job.kind != JobKind::Run) return;
  m_disk.start([workspace = m_workspaces.at(job.id), id = job.runId.toStdString()] { drop_request(workspace->run_folder(id)); });
}

int RunQueue::enqueueExport(const WorkspacePtr& workspace, const QString& runId, const QString& name, const ExportOptions& wanted) {
  Job job;
  job.kind = JobKind::Export;
  job.runId = runId;
  job.name = name;
  job.device = QStringLiteral("disk");
  job.wanted = wanted;
  return add(std::move(job), workspace);
}

int RunQueue::enqueueSurvey(const WorkspacePtr& workspace, const QString& name, const SensitivityWish& wish) {
  Job job;
  job.kind = JobKind::Survey;
  job.name = name;
  job.device = QString::fromStdString(wish.device);
  job.survey = wish;
  return add(std::move(job), workspace);
}

const Job* RunQueue::activeSurvey() const {
  for (const Job& job : m_jobs)
    if (job.kind == JobKind::Survey && (job.isActive() || job.isWaiting())) return &job;
  return nullptr;
}

int RunQueue::add(Job job, const WorkspacePtr& workspace) {
  job.id = m_nextId++;
  m_workspaces[job.id] = workspace;
  Q_EMIT aboutToAdd(int(m_jobs.size()));
  m_jobs.push_back(job);
  Q_EMIT added(int(m_jobs.size()) - 1);
  startNext();
  return job.id;
}

const Job* RunQueue::job(int id) const { return const_cast<RunQueue*>(this)->find(id); }

Job* RunQueue::find(int id) {
  const int row = rowOf(id);
  return row < 0 ? nullptr : &m_jobs[row];
}

const Job* RunQueue::jobOfRun(const QString& runId) const {
  for (auto it = m_jobs.rbegin(); it != m_jobs.rend(); ++it)
    if (it->runId == runId && it->kind == JobKind::Run) return &*it;
  return nullptr;
}

QHash<QString, QString> RunQueue::activeRuns() const {
  QHash<QString, QString> owners;
  for (const Job& job : m_jobs)
    if (job.kind == JobKind::Run && job.isActive()) owners.insert(job.runId, job.owner);
  return owners;
}

const Job* RunQueue::activeExportOf(const QString& runId) const {
  for (const Job& job : m_jobs)
    if (job.runId == runId && job.kind == JobKind::Export && (job.isActive() || job.isWaiting())) return &job;
  return nullptr;
}

int RunQueue::rowOf(int id) const {
  for (int row = 0; row < m_jobs.size(); ++row)
    if (m_jobs[row].id == id) return row;
  return -1;
}

bool RunQueue::isBusy() const { return !m_workers.empty(); }

bool RunQueue::isBusyWithOurs() const {
  return std::any_of(m_jobs.begin(), m_jobs.end(), [](const Job& job) { return job.isActive() && job.owner.isEmpty(); });
}

bool RunQueue::isBusyWith(JobKind kind) const {
  return std::any_of(m_jobs.begin(), m_jobs.end(), [kind](const Job& job) { return job.kind == kind && job.isActive(); });
}

void RunQueue::setPerDevice(int runs) {
  m_perDevice = std::max(0, runs);
  startNext();
}

void RunQueue::setThreads(int threads) { m_threads = threads; }

// Fixed while a run goes on: its sums depend on it.
int RunQueue::threadsOfRun() const {
  if (m_perDevice <= 1) return m_threads;
  const int cores = usable_cores(), all = m_threads > 0 ? std::min(m_threads, cores) : cores;
  return std::max(1, all / m_perDevice);
}

bool RunQueue::fits(const Job& job) const {
  int beside = 0;
  bool settled = true;  // all others have the memory that they asked for
  for (const Job& other : m_jobs) {
    if (!other.isActive() || !other.owner.isEmpty() || other.device != job.device) continue;
    ++beside;
    if (!other.waiting.isEmpty() || other.progress.phase.empty() || other.progress.phase == "load") settled = false;
  }
  if (job.kind == JobKind::Export || job.device != QLatin1String("cpu")) return beside == 0;
  return m_perDevice > 0 ? beside < m_perDevice : settled && beside < usable_cores();
}

void RunQueue::setReady(bool ready) {
  m_ready = ready;
  startNext();
}

void RunQueue::touch(int id) {
  if (const int row = rowOf(id); row >= 0) Q_EMIT changed(row);
}

void RunQueue::pause(int id) {
  Job* job = find(id);
  if (!job || !job->canPause()) return;
  if (job->state == JobState::Queued) {
    job->state = JobState::Held;
    remember(*job);
  } else {
    m_workers.at(id)->gate->pause();
    job->state = JobState::Paused;
  }
  touch(id);
}

void RunQueue::resume(int id) {
  Job* job = find(id);
  if (!job || !job->canResume()) return;
  if (job->state == JobState::Paused) {
    m_workers.at(id)->gate->resume();
    job->state = JobState::Running;
  } else {
    job->state = JobState::Queued;
    job->ours = true;
    job->owner.clear();
    job->error.clear();
    job->estimate.clear();
    job->attempts = 0;
    remember(*job);
  }
  touch(id);
  startNext();
}

void RunQueue::startWaiting() {
  for (int row = 0; row < m_jobs.size(); ++row)
    if (m_jobs[row].state == JobState::Queued && !m_jobs[row].ours && m_jobs[row].device != kCluster) {
      m_jobs[row].ours = true;
      touch(m_jobs[row].id);
    }
  startNext();
}

bool RunQueue::waitsForCluster() const {
  return std::any_of(m_jobs.begin(), m_jobs.end(), [](const Job& job) { return job.isWaiting() && !job.task.isEmpty(); });
}

void RunQueue::setClusterStates(const std::map<std::string, SlurmTask>& tasks) {
  for (int row = 0; row < m_jobs.size(); ++row) {
    Job& job = m_jobs[row];
    if (job.task.isEmpty() || !job.isWaiting()) continue;
    const auto found = tasks.find(job.task.toStdString());
    QString state = found == tasks.end() ? tr("not in Slurm any more") : QString::fromStdString(found->second.state).toLower();
    if (found != tasks.end() && !found->second.reason.empty()) state += QStringLiteral(" (%1)").arg(QString::fromStdString(found->second.reason));
    if (state == job.cluster) continue;
    job.cluster = state;
    Q_EMIT changed(row);
  }
}

void RunQueue::dismissWaiting(const QString& runId, bool gone) {
  for (const Job& job : m_jobs)
    if (job.kind == JobKind::Run && job.runId == runId && job.isWaiting() && (gone || !job.ours)) return remove(job.id);
}

void RunQueue::clear() {
  QVector<int> ids;
  for (const Job& job : m_jobs) ids.push_back(job.id);
  for (int id : ids) {
    Job* job = find(id);
    if (job->isWaiting()) job->ours = false;  // its request stays where it is
    if (!job->isActive()) remove(id);
    else if (!job->owner.isEmpty()) m_workers.at(id)->leave.request_stop();
  }
}

void RunQueue::stopAfterBlocks() {
  m_ready = false;  // what waits stays where it is
  for (auto& [id, worker] : m_workers) {
    Job* job = find(id);
    if (job->kind != JobKind::Run) {
      cancel(id);
    } else if (job->owner.isEmpty()) {
      worker->soon.request_stop();
      job->state = JobState::Stopping;
    } else {
      worker->leave.request_stop();  // another program's: it is not ours to stop
    }
    touch(id);
  }
}

QStringList RunQueue::leaveAlone() {
  m_ready = false;
  m_leaving = true;
  QStringList devices;
  for (const Job& job : m_jobs)
    if (job.kind == JobKind::Run && job.state == JobState::Queued && job.ours && !devices.contains(job.device)) devices << job.device;
  for (auto& [id, worker] : m_workers) {
    if (job(id)->kind != JobKind::Run) cancel(id);
    else worker->leave.request_stop();
  }
  m_disk.waitForDone();  // what waits is on disk before somebody looks there
  return devices;
}

void RunQueue::cancel(int id) {
  Job* job = find(id);
  if (!job || !job->canCancel()) return;
  if (job->isWaiting()) {
    job->state = JobState::Cancelled;
    forget(*job);
    if (!job->task.isEmpty() && m_cancelTasks)
      m_disk.start([cancel = m_cancelTasks, task = job->task.toStdString()] {
        try {
          cancel({task});
        } catch (const Error&) {
          // Without its request the run ends as soon as the cluster starts it: the queue says so when it is looked at again.
        }
      });
    touch(id);
    Q_EMIT ended(id);
    return;
  }
  job->state = JobState::Stopping;
  m_workers.at(id)->thread.request_stop();  // also ends a pause
  touch(id);
}

void RunQueue::cancelAll() {
  QVector<int> ids;
  for (const Job& job : m_jobs)
    if (job.owner.isEmpty() && job.ours) ids.push_back(job.id);  // other programs' runs are stopped one by one
  // Waiting ones first: otherwise a freed device would start them.
  for (int id : ids)
    if (const Job* job = this->job(id); job && job->isWaiting()) cancel(id);
  for (int id : ids) cancel(id);
}

void RunQueue::move(int id, int rows) {
  const int row = rowOf(id);
  const int target = row + rows;
  if (row < 0 || rows == 0 || target < 0 || target >= m_jobs.size() || !m_jobs[row].isWaiting()) return;
  Q_EMIT aboutToMove(row, rows > 0 ? target + 1 : target);
  m_jobs.move(row, target);
  // Between its new neighbours, whoever looks at the workspace.
  Job& job = m_jobs[target];
  double before = -1, behind = -1;
  for (int i = target - 1; i >= 0 && before < 0; --i)
    if (m_jobs[i].isWaiting() && m_jobs[i].kind == JobKind::Run) before = m_jobs[i].place;
  for (int i = target + 1; i < m_jobs.size() && behind < 0; ++i)
    if (m_jobs[i].isWaiting() && m_jobs[i].kind == JobKind::Run) behind = m_jobs[i].place;
  if (before >= 0 && behind >= 0) job.place = (before + behind) / 2;
  else if (before >= 0) job.place = before + 1;
  else if (behind >= 0) job.place = behind - 1;
  remember(job);
  Q_EMIT moved();
}

void RunQueue::remove(int id) {
  const int row = rowOf(id);
  if (row < 0 || m_jobs[row].isActive()) return;
  if (m_jobs[row].isWaiting() && m_jobs[row].ours) forget(m_jobs[row]);
  Q_EMIT aboutToRemove(row);
  m_jobs.removeAt(row);
  m_workspaces.erase(id);
  Q_EMIT removed(row);
}

void RunQueue::removeFinished() {
  QVector<int> ids;
  for (const Job& job : m_jobs)
    if (!job.isActive() && !job.isWaiting()) ids.push_back(job.id);
  for (int id : ids) remove(id);
}

void RunQueue::startNext() {
  if (!m_ready) return;
  for (int row = 0; row < m_jobs.size(); ++row) {
    Job& job = m_jobs[row];
    if (job.state != JobState::Queued || !job.ours) continue;
    if (fits(job)) start(job);
  }
}

void RunQueue::start(Job& job) {
  auto worker = std::make_unique<Worker>();
  worker->serial = ++m_serial;
  worker->sampled.start();
  job.state = JobState::Running;
  job.progress = {};
  job.memory.clear();
  job.waiting.clear();
  worker->blocksBefore = job.report ? job.report->blocks.size() : 0;

  // Wakes the GUI thread unless it is already on its way.
  const auto wake = [this, id = job.id, shared = worker.get()] {
    if (shared->posted) return;
    shared->posted = true;
    QMetaObject::invokeMethod(this, [this, id, serial = shared->serial] { collect(id, serial); }, Qt::QueuedConnection);
  };
  const auto controlOf = [shared = worker.get(), wake](const std::stop_token& stop) {
    Control control;
    control.stop = stop;
    control.stop_soon = shared->soon.get_token();
    control.gate = shared->gate;
    control.on_progress = [shared, wake](const Progress& progress) {
      const std::lock_guard lock(shared->mutex);
      shared->progress = progress;
      shared->progressed = true;
      shared->waiting.clear();
      if (!progress.message.empty()) shared->log << QString::fromStdString(progress.message);
      wake();
    };
    return control;
  };
  // An export or a survey: `work` returns what it made.
  const auto simpleBody = [shared = worker.get(), wake, controlOf](const std::stop_token& stop, const std::function<void(const Control&)>& work) {
    yieldToInterface();
    JobState outcome = JobState::Finished;
    QString error;
    try {
      work(controlOf(stop));
    } catch (const Cancelled&) {
      outcome = JobState::Cancelled;
    } catch (const std::exception& problem) {
      outcome = JobState::Failed;
      error = QString::fromUtf8(problem.what());
    }
    const std::lock_guard lock(shared->mutex);
    shared->over = true;
    shared->outcome = outcome;
    shared->error = error;
    wake();
  };
  const auto exportBody = [this, simpleBody, shared = worker.get(), workspace = m_workspaces.at(job.id), runId = job.runId.toStdString(), wanted = job.wanted](const std::stop_token& stop) {
    simpleBody(stop, [&](const Control& control) {
      auto result = std::make_shared<const ExportResult>(m_exporter(workspace->run_folder(runId), wanted, control));
      const std::lock_guard lock(shared->mutex);
      shared->exported = std::move(result);
    });
  };
  const auto surveyBody = [this, simpleBody, shared = worker.get(), workspace = m_workspaces.at(job.id), wish = job.survey](const std::stop_token& stop) {
    simpleBody(stop, [&](const Control& control) {
      const QString file = QString::fromStdString(m_surveyor(workspace->folder(), wish, control).string());
      const std::lock_guard lock(shared->mutex);
      shared->surveyed = file;
    });
  };
  const auto runBody = [this, shared = worker.get(), wake, controlOf, workspace = m_workspaces.at(job.id), runId = job.runId.toStdString(),
                        device = job.device.toStdString(), threads = threadsOfRun(), start = job.report, runner = job.owner.isEmpty() ? m_runner : m_follower](const std::stop_token& stop) {
    yieldToInterface();
    Control control = controlOf(stop);
    // Snapshots are copied here, off the GUI thread, and never change once handed over.
    RunReport snapshot;
    if (start) snapshot = *start;
    snapshot.id = runId;
    snapshot.status = RunStatus::running;
    // Each is a copy of all blocks so far: what comes in quick succession goes into one.
    QElapsedTimer published;
    bool pending = false;
    const auto publish = [&] {
      pending = published.isValid() && published.elapsed() < 100;
      if (pending) return;
      published.start();
      auto copy = std::make_shared<const RunReport>(snapshot);
      const std::lock_guard lock(shared->mutex);
      shared->report = std::move(copy);
      wake();
    };
    control.on_progress = [&, tell = control.on_progress](const Progress& progress) {
      if (pending) publish();
      tell(progress);
    };
    RunObserver observer;
    observer.on_block = [&](const BlockReport& block) {
      replaceOrAppend(snapshot.blocks, block, [&](const BlockReport& other) { return other.block == block.block; });
      snapshot.peak_rss_bytes = std::max(snapshot.peak_rss_bytes, block.peak_rss_bytes);
      publish();
    };
    observer.on_estimate = [&](const EvaluationResult& result) {
      replaceOrAppend(snapshot.evaluations, result, [&](const EvaluationResult& other) {
        return other.evaluator == result.evaluator && other.corpus == result.corpus && other.float_model == result.float_model && other.seq_len == result.seq_len &&
               other.dtype == result.dtype && other.bos == result.bos && other.settings == result.settings;
      });
      {
        const std::lock_guard lock(shared->mutex);
        shared->estimate = estimateText(result);
      }
      publish();
    };
    observer.on_log = [&](const std::string& line) {
      const std::lock_guard lock(shared->mutex);
      shared->log << QString::fromStdString(line);
      wake();
    };
    observer.on_wait = [&](const std::string& reason) {
      const std::lock_guard lock(shared->mutex);
      shared->waiting = QString::fromStdString(reason);
      shared->log << RunQueue::tr("Waits: %1").arg(shared->waiting);
      wake();
    };
    observer.on_hold = [&](bool held) {
      const std::lock_guard lock(shared->mutex);
      shared->held = held;
      wake();
    };

    JobState outcome = JobState::Finished;
    QString error;
    try {
      snapshot = runner(*workspace, runId, RunOptions{device, {}, threads, shared->leave.get_token()}, control, observer);
    } catch (const Cancelled&) {
      outcome = JobState::Cancelled;
      snapshot.status = RunStatus::cancelled;
    } catch (const LeftAlone&) {
      outcome = JobState::Running;
    } catch (const Interrupted& problem) {
      outcome = JobState::Interrupted;
      error = QString::fromUtf8(problem.what());
      snapshot.status = RunStatus::interrupted;
      snapshot.error = problem.what();
    } catch (const std::exception& problem) {
      outcome = JobState::Failed;
      error = QString::fromUtf8(problem.what());
      snapshot.status = RunStatus::failed;
      snapshot.error = problem.what();
    }
    auto last = std::make_shared<const RunReport>(std::move(snapshot));
    const std::lock_guard lock(shared->mutex);
    shared->report = std::move(last);
    shared->over = true;
    shared->outcome = outcome;
    shared->error = error;
    wake();
  };

  Worker& started = *worker;
  m_workers[job.id] = std::move(worker);
  if (job.kind == JobKind::Export)
    started.thread = std::jthread(exportBody);
  else if (job.kind == JobKind::Survey)
    started.thread = std::jthread(surveyBody);
  else
    started.thread = std::jthread(runBody);
  touch(job.id);
}

void RunQueue::collect(int id, quint64 serial) {
  const auto it = m_workers.find(id);
  if (it == m_workers.end() || it->second->serial != serial) return;  // stale
  Worker& worker = *it->second;
  Job* job = find(id);

  QStringList log;
  RunPtr report;
  bool over = false;
  {
    const std::lock_guard lock(worker.mutex);
    worker.posted = false;
    if (worker.progressed) job->progress = worker.progress;
    worker.progressed = false;
    job->estimate = worker.estimate;
    job->waiting = worker.waiting;
    if (const auto held = std::exchange(worker.held, std::nullopt); held && job->state != JobState::Stopping) {
      job->state = *held ? JobState::Paused : JobState::Running;
      *held ? worker.gate->pause() : worker.gate->resume();
    }
    log.swap(worker.log);
    report.swap(worker.report);
    if (worker.exported) job->exported = worker.exported;
    job->surveyed = worker.surveyed;
    over = worker.over;
    if (over) {
      job->state = worker.outcome;
      job->error = worker.error;
    }
  }
  if (job->memory.isEmpty() || worker.sampled.elapsed() > 200) {
    addSample(job->memory, double(job->progress.rss_bytes));
    worker.sampled.restart();
  }
  // A run that could say so itself has said so.
  const bool told = job->kind == JobKind::Run && ((!log.isEmpty() && log.last().endsWith(job->error)) || (!job->log.isEmpty() && job->log.last().endsWith(job->error)));
  if (over && job->state == JobState::Failed && !told) log << tr("Failed: %1").arg(job->error);
  if (over && job->state == JobState::Interrupted) log << tr("Interrupted: %1").arg(job->error);
  if (over && job->state == JobState::Cancelled)
    log << (job->kind == JobKind::Export ? tr("Stopped. Nothing is left of it on disk.") : tr("Stopped. Resume goes on after the last finished block."));
  if (over && !job->surveyed.isEmpty()) log << tr("Kept as %1").arg(job->surveyed);
  if (over && job->exported)
    log << tr("%1: %2, written in %3, read back and compared in %4")
               .arg(QString::fromStdString(job->exported->path.string()), formatBytes(double(job->exported->bytes)), formatDuration(job->exported->write_seconds),
                    formatDuration(job->exported->verify_seconds));
  if (report) job->report = report;
  if (over) {
    if (job->state == JobState::Finished) job->progress.fraction = 1;
    job->progress.eta_s = -1;
    job->waiting.clear();
    const bool asked = worker.soon.stop_requested();
    const size_t blocksBefore = worker.blocksBefore;
    m_workers.erase(it);  // joins a thread that has nothing left to do
    if (job->state == JobState::Cancelled || job->state == JobState::Failed) forget(*job);
    if (job->state == JobState::Running) {  // left to itself, and nothing to us any more
      job->ours = false;
      job->state = JobState::Held;
      remove(id);
      if (!isBusy()) Q_EMIT idle();
      return;
    }
    // A night's work goes on after one process died, unless it dies again and again without getting further.
    if (job->state == JobState::Interrupted && !asked && job->owner.isEmpty()) {
      const bool further = job->report && job->report->blocks.size() > blocksBefore;
      job->attempts = further ? 0 : job->attempts + 1;
      if (job->attempts < kMostAttempts) {
        log << tr("It goes on after its last finished block.");
        job->state = JobState::Queued;
      }
    }
    job->owner.clear();
  }
  if (!log.isEmpty()) {
    const QString time = QLocale().toString(QTime::currentTime(), QStringLiteral("HH:mm:ss"));
    for (QString& line : log) line = time + QStringLiteral("  ") + line;
    job->log += log;
    if (job->log.size() > kLogLines) job->log.erase(job->log.begin(), job->log.end() - kLogLines);
  }
  touch(id);
  if (!log.isEmpty()) Q_EMIT logged(id, log);
  if (report) Q_EMIT reported(report);
  if (!over) {
    if (m_perDevice == 0) startNext();  // this one may have got its memory
    return;
  }
  Q_EMIT ended(id);
  startNext();
  if (!isBusy()) Q_EMIT idle();
}

QString jobStateText(JobState state) {
  switch (state) {
    case JobState::Queued: return RunQueue::tr("Waiting");
    case JobState::Held: return RunQueue::tr("On hold");
    case JobState::Running: return RunQueue::tr("Running");
    case JobState::Paused: return RunQueue::tr("Paused");
    case JobState::Stopping: return RunQueue::tr("Stopping…");
    case JobState::Finished: return RunQueue::tr("Finished");
    case JobState::Cancelled: return RunQueue::tr("Stopped");
    case JobState::Interrupted: return RunQueue::tr("Interrupted");
    case JobState::Failed: return RunQueue::tr("Failed");
  }
  return {};
}

}  // namespace qb::views
