#include "views/pages/HelpWindow.h"

#include <QEvent>
#include <QPointer>
#include <QScreen>
#include <QScrollBar>
#include <QTextBrowser>
#include <QTextDocument>
#include <QTextFrame>
#include <QTextTable>
#include <QVBoxLayout>

#include "core/base/help.h"
#include "views/jobs/Background.h"

namespace qb::views {

HelpWindow::HelpWindow(Background* background, const QString& page, QWidget* parent) : QDialog(parent), m_page(page) {
  setAttribute(Qt::WA_DeleteOnClose);
  setObjectName(QStringLiteral("helpWindow"));
  setWindowTitle(tr("Help"));
  m_browser = new QTextBrowser;
  m_browser->setOpenExternalLinks(true);
  m_browser->setFrameShape(QFrame::NoFrame);
  m_browser->setAccessibleName(tr("Help"));
  m_browser->document()->setDocumentMargin(fontMetrics().height());
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 0, 0, 0);
  column->addWidget(m_browser);
  const QSize room = screen()->availableSize() - QSize(40, 80);
  resize(QSize(fontMetrics().horizontalAdvance(QLatin1Char('n')) * 96, fontMetrics().height() * 46).boundedTo(room));
  const QPointer<HelpWindow> window(this);
  background->run(
      {}, [name = page.toStdString()](const std::stop_token&) { return help_page(name); },
      [window](const HelpPage& found) {
        if (!window) return;
        window->m_markdown = QString::fromStdString(found.text);
        window->setWindowTitle(QString::fromStdString(found.title));
        window->render();
      },
      [window](const QString& error) {
        if (window) window->m_browser->setPlainText(error);
      });
}

void HelpWindow::render() {
  const int at = m_browser->verticalScrollBar()->value();
  m_browser->setMarkdown(m_markdown);
  // What Markdown leaves to the reader's style: room in tables, and lines in the theme's colour.
  for (QTextFrame* frame : m_browser->document()->rootFrame()->childFrames()) {
    auto* table = qobject_cast<QTextTable*>(frame);
    if (!table) continue;
    QTextTableFormat format = table->format();
    format.setCellPadding(fontMetrics().height() / 4.0);
    format.setCellSpacing(0);
    format.setBorderCollapse(true);
    format.setBorder(1);
    format.setBorderStyle(QTextFrameFormat::BorderStyle_Solid);
    format.setBorderBrush(palette().mid());
    table->setFormat(format);
  }
  m_browser->moveCursor(QTextCursor::Start);
  m_browser->verticalScrollBar()->setValue(at);
}

void HelpWindow::changeEvent(QEvent* event) {
  QDialog::changeEvent(event);
  if (event->type() == QEvent::PaletteChange && !m_markdown.isEmpty()) render();
}

}  // namespace qb::views
