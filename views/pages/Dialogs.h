#pragma once
#include <QDialog>

namespace qb::views {

class Settings;
class Theme;
class RunQueue;

// Takes effect at once; nothing to confirm.
class SettingsDialog : public QDialog {
  Q_OBJECT
 public:
  SettingsDialog(Settings* settings, Theme* theme, RunQueue* queue, QWidget* parent = nullptr);
};

// Every shortcut of the window's actions, and the keys of the plots and lists.
class ShortcutsSheet : public QDialog {
  Q_OBJECT
 public:
  ShortcutsSheet(const QList<QAction*>& actions, QWidget* parent = nullptr);
};

}  // namespace qb::views
