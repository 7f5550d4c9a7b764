#pragma once
#include <QObject>
#include <QStringList>

class QMenu;
class QWidget;

namespace qb::views {

class Workbench;

// What can be done with runs, wherever they are listed: the context menu, and the question before they are deleted.
class RunMenu : public QObject {
  Q_OBJECT
 public:
  RunMenu(Workbench* workbench, QWidget* parent);
  void fill(QMenu* menu, const QString& clicked, const QStringList& selected);
  void remove(const QStringList& runs);  // asks first
  void resume(const QStringList& runs);  // those that can be
  void addTag(const QStringList& runs);  // asks which

 Q_SIGNALS:
  void compareRequested(const QStringList& runs);
  void exportRequested(const QString& run);
  void logRequested(const QString& run);
  void renameRequested(const QString& run);

 private:
  Workbench* m_workbench;
  QWidget* m_parent;
};

}  // namespace qb::views
