#pragma once
#include <QDialog>
#include <QPointer>
#include <filesystem>

class QLabel;
class QPlainTextEdit;

namespace qb::views {

class Background;

// The log of one run, whoever carries it out or did: its log.txt, followed while it grows.
class LogWindow : public QDialog {
  Q_OBJECT
 public:
  LogWindow(Background* background, const QString& run, const QString& name, const std::filesystem::path& file, QWidget* parent = nullptr);
  const QString& run() const { return m_run; }

 private:
  void read();
  QPointer<Background> m_background;
  QString m_run;
  std::filesystem::path m_file;
  qint64 m_read = 0;  // bytes that are shown or passed over
  bool m_reading = false;
  QPlainTextEdit* m_text;
  QLabel* m_note;
};

}  // namespace qb::views
