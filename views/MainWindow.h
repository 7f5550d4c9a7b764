#pragma once
#include <QMainWindow>
#include <QPointer>

#include "views/Settings.h"
#include "views/Workbench.h"

class QComboBox;
class QLabel;
class QTabWidget;
class QToolButton;

namespace qb::views {

class BitsPage;
class Explorer;
class MemoryGauge;
class NoticeBar;
class QueuePanel;
class RecipePage;
class RunsPage;
class Theme;
class WelcomePage;

// The window: pages in the middle, docks around them, and the actions that menus, toolbar and keys share.
class MainWindow : public QMainWindow {
  Q_OBJECT
 public:
  MainWindow(Workbench* workbench, Settings* settings, Theme* theme, QWidget* parent = nullptr);
  ~MainWindow() override;

  // Opens what was open last time. `paths` (from the command line) come on top; `workspace` instead of the last one.
  void restoreSession(const QStringList& paths, const QString& workspace);
  void showPage(const QString& name);  // "welcome", "recipe", "runs", "layers", "accuracy", "data", "best"
  QString page() const;
  RecipePage* recipePage() { return m_recipe; }
  NoticeBar* notices() { return m_notices; }
  // Draws the pages with plots as PNG files; returns their paths. Throws ResourceError.
  QStringList exportPictures(const QString& folder);

 public Q_SLOTS:
  void tryDemo();

 protected:
  void closeEvent(QCloseEvent* event) override;
  void dragEnterEvent(QDragEnterEvent* event) override;
  void dropEvent(QDropEvent* event) override;

 private:
  enum Page { Welcome, Recipe, Runs, Layers, Accuracy, Data, Best };
  QAction* add(QMenu* menu, const QString& iconName, const QString& text, const QKeySequence& keys, const std::function<void()>& run);
  void buildPages();
  void buildDocks();
  void buildActions();
  void buildViewMenu();
  void buildToolBar();
  void connectWorkbench();
  void pageChanged();
  bool hasInspector() const;  // the page has something to inspect
  void showTitle();
  void resetLayout();
  void fillRecent();
  void openModelFolder();
  void openFiles();
  void openWorkspace();
  void saveRecipe(bool ask);
  void askWhereToSave(const QString& title, const QString& name, std::function<void(const QString&)> save);
  QStringList chosenRuns() const;  // in the list that is looked at
  void compare(const QStringList& runs);
  void showLog(const QString& run);
  void exportRun(const QString& run, int job = 0);  // opens its dialog, or brings it to the front; job: an export to follow
  void showExportObstacle();
  void exportEnded(const Job& job);
  void saveSession();
  void showShortcuts();
  void showHelp(const QString& page);
  void showAbout();

  Workbench* m_workbench;
  Settings* m_settings;
  Theme* m_theme;
  QTabWidget* m_pages;
  WelcomePage* m_welcome;
  RecipePage* m_recipe;
  RunsPage* m_runs;
  QTabWidget* m_layers;
  BitsPage* m_bits;
  QWidget* m_accuracy;
  NoticeBar* m_notices;
  Explorer* m_explorer;
  QueuePanel* m_queuePanel;
  QDockWidget *m_explorerDock, *m_inspectorDock, *m_queueDock;
  QAction *m_start = nullptr, *m_compare = nullptr, *m_export = nullptr;
  QMenu* m_recentMenu = nullptr;
  QToolButton* m_workspaceButton = nullptr;
  QComboBox* m_devices = nullptr;
  MemoryGauge* m_gauge = nullptr;
  QPointer<QWidget> m_question;
  bool m_inspectorWanted = true;  // on pages that have something to inspect
  bool m_switchingPage = false;
  bool m_glance = false;          // the inspector shows what was clicked while a recipe is written
  bool m_closing = false;         // the user said so: close as soon as the workers have stopped
  bool m_restored = false;        // before that there is no session worth keeping
};

}  // namespace qb::views
