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

// Every shortcut of the actions of a window and of what stands in it, and the keys that plots and lists know besides.
class ShortcutsSheet : public QDialog {
  Q_OBJECT
 public:
  explicit ShortcutsSheet(QWidget* window);
};

}  // namespace qb::views
