#include "views/pages/LogWindow.h"

#include <QDialogButtonBox>
#include <QFile>
#include <QFontDatabase>
#include <QLabel>
#include <QPlainTextEdit>
#include <QScrollBar>
#include <QTimer>
#include <QVBoxLayout>

#include "views/jobs/Background.h"

namespace qb::views {
namespace {

constexpr qint64 kMost = 4 << 20;  // bytes of an old log that are shown
constexpr int kMilliseconds = 700;

struct Piece {
  QString text;
  qint64 read = 0;
  bool anew = false;  // the file was begun again
  bool skipped = false;
  QString problem;
};

// Whole lines from `from` on.
Piece readOn(const QString& path, qint64 from) {
  QFile file(path);
  if (!file.exists()) return {{}, 0, from > 0, false, {}};
  if (!file.open(QIODevice::ReadOnly)) return {{}, from, false, false, file.errorString()};
  Piece piece;
  piece.anew = file.size() < from;
  if (piece.anew) from = 0;
  if (file.size() - from > kMost) {
    from = file.size() - kMost;
    piece.skipped = true;
  }
  file.seek(from);
  QByteArray bytes = file.read(kMost);
  const qsizetype end = bytes.lastIndexOf('\n');
  bytes.truncate(end + 1);
  piece.read = from + bytes.size();
  if (piece.skipped) bytes.remove(0, bytes.indexOf('\n') + 1);
  bytes.chop(bytes.endsWith('\n') ? 1 : 0);
  piece.text = QString::fromUtf8(bytes);
  return piece;
}

}  // namespace

LogWindow::LogWindow(Background* background, const QString& run, const QString& name, const std::filesystem::path& file, QWidget* parent)
    : QDialog(parent), m_background(background), m_run(run), m_file(file) {
  setWindowTitle(tr("Log of %1").arg(name));
  setAttribute(Qt::WA_DeleteOnClose);
  m_text = new QPlainTextEdit;
  m_text->setReadOnly(true);
  m_text->setWordWrapMode(QTextOption::WrapAtWordBoundaryOrAnywhere);
  m_text->setAccessibleName(windowTitle());
  m_text->setFont(QFontDatabase::systemFont(QFontDatabase::FixedFont));
  m_text->setPlaceholderText(tr("Nothing is logged yet: the run has not begun."));
  m_note = new QLabel;
  m_note->setWordWrap(true);
  m_note->setForegroundRole(QPalette::PlaceholderText);
  m_note->setTextInteractionFlags(Qt::TextSelectableByMouse);
  m_note->setText(QString::fromStdString(m_file.string()));
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Close);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::close);
  auto* column = new QVBoxLayout(this);
  column->addWidget(m_text, 1);
  column->addWidget(m_note);
  column->addWidget(buttons);
  resize(820, 480);
  auto* timer = new QTimer(this);
  connect(timer, &QTimer::timeout, this, &LogWindow::read);
  timer->start(kMilliseconds);
  read();
}

void LogWindow::read() {
  if (m_reading || !m_background) return;
  m_reading = true;
  QPointer<LogWindow> self(this);
  m_background->run(
      {}, [path = QString::fromStdString(m_file.string()), from = m_read](const std::stop_token&) { return readOn(path, from); },
      [self](const Piece& piece) {
        if (!self) return;
        self->m_reading = false;
        self->m_read = piece.read;
        if (piece.anew) self->m_text->clear();
        const QString path = QString::fromStdString(self->m_file.string());
        if (!piece.problem.isEmpty()) self->m_note->setText(tr("%1: %2").arg(path, piece.problem));
        if (piece.skipped) self->m_note->setText(tr("%1, its last %2 MB").arg(path).arg(kMost >> 20));
        if (piece.text.isEmpty()) return;
        // Follows the end unless something above is being read.
        QScrollBar* bar = self->m_text->verticalScrollBar();
        const bool atEnd = bar->value() >= bar->maximum() - 1;
        self->m_text->appendPlainText(piece.text);
        if (atEnd) bar->setValue(bar->maximum());
      },
      [self](const QString& error) {
        if (!self) return;
        self->m_reading = false;
        self->m_note->setText(error);
      });
}

}  // namespace qb::views
