#include "views/jobs/WorkspaceWatch.h"

#include <set>

namespace qb::views {
namespace {

bool atWork(const RunReport& report) { return report.status == RunStatus::running || report.status == RunStatus::paused; }

// The whole of a run, or what is wrong with it.
RunPtr loadOrTell(const Workspace& workspace, const std::string& id) {
  try {
    return std::make_shared<const RunReport>(workspace.load(id));
  } catch (const Error& error) {
    auto damaged = std::make_shared<RunReport>();
    damaged->id = damaged->name = id;
    damaged->status = RunStatus::failed;
    damaged->error = error.what();
    return damaged;
  }
}

}  // namespace

QString ownerText(const RunOwner& owner) {
  return owner.host.empty() ? WorkspaceWatch::tr("process %1").arg(owner.process) : WorkspaceWatch::tr("process %1 on %2").arg(owner.process).arg(QString::fromStdString(owner.host));
}

WorkspaceWatch::WorkspaceWatch(Background* background, Selection* selection, RunQueue* queue, QObject* parent)
    : QObject(parent), m_background(background), m_selection(selection), m_queue(queue) {
  connect(&m_timer, &QTimer::timeout, this, &WorkspaceWatch::look);
}

void WorkspaceWatch::watch(const WorkspacePtr& workspace, const Stamps& stamps) {
  m_workspace = workspace;
  m_stamps = stamps;
}

void WorkspaceWatch::setInterval(int milliseconds) {
  if (milliseconds > 0)
    m_timer.start(milliseconds);
  else
    m_timer.stop();
}

void WorkspaceWatch::look() {
  if (!m_workspace || m_looking) return;
  std::set<std::string> ours, working, seen;
  const QHash<QString, QString> active = m_queue->activeRuns();
  for (const RunEntry& run : m_selection->runs()) {
    if (run.shown || run.id == m_selection->currentRun()) seen.insert(run.id.toStdString());
    if (active.contains(run.id))
      ours.insert(run.id.toStdString());
    else if (atWork(*run.report))
      working.insert(run.id.toStdString());
  }
  for (auto run = active.begin(); run != active.end(); ++run) m_selection->setOwner(run.key(), run.value());
  m_looking = true;
  const bool asks = m_askCluster && m_queue->waitsForCluster() && (!m_asked.isValid() || m_asked.elapsed() > 10000);
  if (asks) m_asked.start();
  m_background->run(
      {},
      [workspace = m_workspace, known = m_stamps, ours, working, seen, ask = asks ? m_askCluster : ClusterTasks()](const std::stop_token& stop) {
        Changes changes;
        if (ask) try {
            changes.tasks = ask();
          } catch (const Error&) {
            // It is asked again.
          }
        std::map<std::string, RunPtr> heads;  // a sweep of another process may bring a thousand at once
        const auto report_of = [&](const std::string& id) {
          if (seen.contains(id)) return loadOrTell(*workspace, id);
          if (heads.empty()) {
            std::vector<RunReport> all = workspace->list();
            for (RunReport& head : all) heads.emplace(head.id, std::make_shared<const RunReport>(std::move(head)));
          }
          const auto head = heads.find(id);
          return head == heads.end() || atWork(*head->second) ? loadOrTell(*workspace, id) : head->second;
        };
        changes.stamps = workspace->stamps();
        for (auto& [id, stamp] : changes.stamps) {
          if (stop.stop_requested()) break;
          const auto before = known.find(id);
          const bool changed = before == known.end() || before->second != stamp;
          if (ours.contains(id)) {
            if (changed) stamp = before == known.end() ? 0 : before->second;  // to be looked at when it has ended
            continue;
          }
          // Whoever carried it out may be gone, which changes no file.
          if (!changed && !(working.contains(id) && !workspace->owner(id))) continue;
          const RunPtr report = report_of(id);
          changes.changed.push_back(report);
          if (report->status == RunStatus::finished) continue;
          if (const auto owner = workspace->owner(id)) {
            changes.owners[id] = ownerText(*owner);
          } else try {
            if (const auto request = load_request(workspace->run_folder(id))) changes.requests[id] = *request;
          } catch (const Error&) {
            // Whoever puts the run into the queue again writes the file anew.
          }
        }
        return changes;
      },
      [this, workspace = m_workspace](const Changes& changes) {
        m_looking = false;
        if (workspace == m_workspace) apply(changes);
      },
      [this](const QString&) { m_looking = false; });  // a folder that is away for a moment is looked at again
}

void WorkspaceWatch::apply(const Changes& changes) {
  if (changes.tasks) m_queue->setClusterStates(*changes.tasks);
  QStringList gone;
  const QHash<QString, QString> active = m_queue->activeRuns();
  for (const auto& [id, stamp] : m_stamps) {
    const QString run = QString::fromStdString(id);
    if (!changes.stamps.contains(id) && !active.contains(run)) gone << run;
  }
  for (const QString& run : gone) m_queue->dismissWaiting(run, true);
  m_selection->removeRuns(gone);
  m_stamps = changes.stamps;
  QVector<RunPtr> news;
  for (const RunPtr& report : changes.changed) {
    const QString id = QString::fromStdString(report->id);
    if (active.contains(id)) {
      m_stamps.erase(report->id);
      continue;
    }
    const RunEntry* known = m_selection->find(id);
    // Blocks of runs that nobody looks at are read when somebody does.
    const bool seen = atWork(*report) || (known && (known->shown || id == m_selection->currentRun()));
    if (seen || report->blocks.empty()) {
      news << report;
    } else {
      auto head = std::make_shared<RunReport>(*report);
      head->blocks.clear();
      news << head;
    }
  }
  m_selection->putRuns(news);
  for (const RunPtr& report : news) {
    const auto owner = changes.owners.find(report->id);
    const QString id = QString::fromStdString(report->id);
    m_selection->setOwner(id, owner == changes.owners.end() ? QString() : owner->second);
    if (owner != changes.owners.end()) m_queue->attach(m_workspace, id, QString::fromStdString(report->name), owner->second, report);
    else if (const auto request = changes.requests.find(report->id); request != changes.requests.end()) m_queue->showWaiting(m_workspace, id, QString::fromStdString(report->name), request->second, report);
    else m_queue->dismissWaiting(id);
  }
}

}  // namespace qb::views
