#pragma once
#include <QObject>
#include <QStringList>
#include <functional>

class QProcess;
class QWidget;

namespace qb::views {

// A report written from the window: by this program in a process of its own, so that nothing here waits. Deletes itself at its end.
class ReportJob : public QObject {
  Q_OBJECT
 public:
  // Asks for the file, then writes. told(path, problem): how it ended; problem is empty where the file is there.
  using Told = std::function<void(const QString& path, const QString& problem)>;
  static void ask(QWidget* parent, const QString& workspace, const QStringList& runs, const QString& name, Told told);

 private:
  ReportJob(const QString& path, const QString& workspace, const QStringList& runs, Told told, QObject* parent);
  QProcess* m_process;
};

}  // namespace qb::views
