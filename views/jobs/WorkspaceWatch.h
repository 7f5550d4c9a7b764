#pragma once
#include <QElapsedTimer>
#include <QObject>
#include <QTimer>
#include <map>
#include <optional>
#include <string>

#include "views/jobs/Background.h"
#include "views/jobs/RunQueue.h"
#include "views/models/Selection.h"

namespace qb::views {

// Brings Selection up to what other processes do in the workspace: runs that come, go, get another name, are carried out
// elsewhere. Looks at the files' times every so often, on a worker thread; what this window carries out itself is left alone.
class WorkspaceWatch : public QObject {
  Q_OBJECT
 public:
  WorkspaceWatch(Background* background, Selection* selection, RunQueue* queue, QObject* parent = nullptr);

  using Stamps = std::map<std::string, int64_t>;  // Workspace::stamps()
  void watch(const WorkspacePtr& workspace, const Stamps& stamps);  // stamps: what Selection knows the state of
  using ClusterTasks = std::function<std::map<std::string, SlurmTask>()>;
  void setCluster(ClusterTasks ask) { m_askCluster = std::move(ask); }  // asked every ten seconds while runs wait there
  void setInterval(int milliseconds);                               // 0: never

 private:
  struct Changes {
    Stamps stamps;
    std::vector<RunPtr> changed;
    std::map<std::string, QString> owners;         // of those at work
    std::map<std::string, RunRequest> requests;    // of those that wait
    std::optional<std::map<std::string, SlurmTask>> tasks;
  };
  void look();
  void apply(const Changes& changes);

  Background* m_background;
  Selection* m_selection;
  RunQueue* m_queue;
  WorkspacePtr m_workspace;
  Stamps m_stamps;
  QTimer m_timer;
  ClusterTasks m_askCluster;
  QElapsedTimer m_asked;
  bool m_looking = false;
};

QString ownerText(const RunOwner& owner);  // "process 4711 on host"

}  // namespace qb::views
