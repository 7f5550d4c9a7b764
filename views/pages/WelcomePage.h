#pragma once
#include <QWidget>

class QVBoxLayout;
class QLabel;

namespace qb::views {

// The first thing a newcomer sees: three ways in, and what was open lately.
class WelcomePage : public QWidget {
  Q_OBJECT
 public:
  explicit WelcomePage(QWidget* parent = nullptr);
  void setRecent(const QStringList& paths);

 Q_SIGNALS:
  void openModelRequested();
  void openWorkspaceRequested();
  void demoRequested();
  void recentRequested(const QString& path);

 private:
  QVBoxLayout* m_recent;
  QLabel* m_recentTitle;
};

}  // namespace qb::views
