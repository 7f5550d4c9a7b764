#include "views/pages/YamlEditor.h"

#include <QFontDatabase>
#include <QHelpEvent>
#include <QKeyEvent>
#include <QMimeData>
#include <QPainter>
#include <QRegularExpression>
#include <QTextBlock>
#include <QToolTip>
#include <algorithm>

#include "views/Theme.h"

namespace qb::views {
namespace {

class Gutter : public QWidget {
 public:
  explicit Gutter(YamlEditor* editor) : QWidget(editor), m_editor(editor) {}
  QSize sizeHint() const override { return {m_editor->gutterWidth(), 0}; }

 protected:
  void paintEvent(QPaintEvent* event) override { m_editor->paintGutter(event); }

 private:
  YamlEditor* m_editor;
};

class YamlHighlighter : public QSyntaxHighlighter {
 public:
  using QSyntaxHighlighter::QSyntaxHighlighter;

 protected:
  void highlightBlock(const QString& text) override {
    const bool dark = QGuiApplication::palette().color(QPalette::Base).lightness() < 128;
    static const QRegularExpression key(QStringLiteral(R"(^(\s*(?:-\s+)*)([\w.\-]+)(?=\s*:(?:\s|$)))"));
    static const QRegularExpression number(QStringLiteral(R"((?<=[\s\[,])-?\d[\d_.]*(?:[eE][+-]?\d+)?(?=\s*(?:$|[,\]#]|\s#)))"));
    static const QRegularExpression word(QStringLiteral(R"((?<=[\s\[,])(?:true|false|null|yes|no)(?=\s*(?:$|[,\]#])))"));
    static const QRegularExpression quoted(QStringLiteral(R"("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')"));
    const auto paint = [&](const QRegularExpression& pattern, const QColor& colour, int group) {
      for (auto it = pattern.globalMatch(text); it.hasNext();) {
        const auto match = it.next();
        setFormat(int(match.capturedStart(group)), int(match.capturedLength(group)), colour);
      }
    };
    paint(number, QColor(QLatin1String(dark ? "#e8a76c" : "#9a4a00")), 0);
    paint(word, QColor(QLatin1String(dark ? "#c9a2f0" : "#6b3fa0")), 0);
    paint(quoted, QColor(QLatin1String(dark ? "#8fce95" : "#1b6b30")), 0);
    paint(key, QColor(QLatin1String(dark ? "#74b3f5" : "#0c5aa6")), 2);
    QChar quote;
    for (int i = 0; i < text.size(); ++i) {
      if (!quote.isNull()) {
        if (text[i] == quote) quote = QChar();
      } else if (text[i] == QLatin1Char('"') || text[i] == QLatin1Char('\'')) {
        quote = text[i];
      } else if (text[i] == QLatin1Char('#') && (i == 0 || text[i - 1].isSpace())) {
        setFormat(i, int(text.size()) - i, Theme::faintText());
        break;
      }
    }
  }
};

}  // namespace

YamlEditor::YamlEditor(QWidget* parent) : QPlainTextEdit(parent), m_gutter(new Gutter(this)), m_highlighter(new YamlHighlighter(document())) {
  setUndoRedoEnabled(false);
  setLineWrapMode(QPlainTextEdit::NoWrap);
  setTabChangesFocus(true);  // YAML allows no tabs, and the keyboard must find its way out
  QFont font = QFontDatabase::systemFont(QFontDatabase::FixedFont);
  font.setPointSizeF(QGuiApplication::font().pointSizeF());
  setFont(font);
  connect(this, &QPlainTextEdit::blockCountChanged, this, &YamlEditor::placeGutter);
  connect(this, &QPlainTextEdit::updateRequest, this, [this](const QRect& rect, int dy) {
    if (dy)
      m_gutter->scroll(0, dy);
    else
      m_gutter->update(0, rect.y(), m_gutter->width(), rect.height());
  });
  placeGutter();
}

int YamlEditor::gutterWidth() const {
  const int digits = std::max(2, int(QString::number(blockCount()).size()));
  return fontMetrics().horizontalAdvance(QLatin1Char('9')) * digits + 16;
}

void YamlEditor::placeGutter() {
  setViewportMargins(gutterWidth(), 0, 0, 0);
  const QRect box = contentsRect();
  m_gutter->setGeometry(box.left(), box.top(), gutterWidth(), box.height());
}

void YamlEditor::resizeEvent(QResizeEvent* event) {
  QPlainTextEdit::resizeEvent(event);
  placeGutter();
}

void YamlEditor::paintGutter(QPaintEvent* event) {
  QPainter painter(m_gutter);
  painter.fillRect(event->rect(), palette().color(QPalette::AlternateBase));
  painter.setFont(font());
  for (QTextBlock block = firstVisibleBlock(); block.isValid(); block = block.next()) {
    const QRectF box = blockBoundingGeometry(block).translated(contentOffset());
    if (box.top() > event->rect().bottom()) break;
    const bool wrong = m_problems.contains(block.blockNumber() + 1);
    if (wrong) painter.fillRect(QRectF(0, box.top(), m_gutter->width(), box.height()), Theme::error());
    painter.setPen(wrong ? palette().color(QPalette::Base) : Theme::faintText());
    painter.drawText(QRectF(0, box.top(), m_gutter->width() - 8, box.height()), Qt::AlignRight | Qt::AlignVCenter, QString::number(block.blockNumber() + 1));
  }
}

void YamlEditor::setTextKeepingCursor(const QString& text) {
  const QString now = toPlainText();
  if (now == text) return;
  qsizetype head = 0;
  const qsizetype shorter = std::min(now.size(), text.size());
  while (head < shorter && now[head] == text[head]) ++head;
  qsizetype tail = 0;
  while (tail < shorter - head && now[now.size() - 1 - tail] == text[text.size() - 1 - tail]) ++tail;
  QTextCursor edit(document());
  edit.setPosition(int(head));
  edit.setPosition(int(now.size() - tail), QTextCursor::KeepAnchor);
  edit.insertText(text.mid(head, text.size() - head - tail));
}

void YamlEditor::setProblems(const QMap<int, QString>& problems) {
  m_problems = problems;
  mark();
}

void YamlEditor::mark() {
  QList<QTextEdit::ExtraSelection> marks;
  for (const int line : m_problems.keys()) {
    QTextEdit::ExtraSelection mark;
    mark.cursor = QTextCursor(document()->findBlockByNumber(line - 1));
    QColor tint = Theme::error();
    tint.setAlpha(36);
    mark.format.setBackground(tint);
    mark.format.setProperty(QTextFormat::FullWidthSelection, true);
    marks << mark;
  }
  setExtraSelections(marks);
  m_gutter->update();
}

void YamlEditor::goToLine(int line, int column) {
  const QTextBlock block = document()->findBlockByNumber(std::max(0, line - 1));
  QTextCursor cursor(block);
  cursor.movePosition(QTextCursor::Right, QTextCursor::MoveAnchor, std::clamp(column - 1, 0, std::max(0, block.length() - 1)));
  setTextCursor(cursor);
  centerCursor();
  setFocus();
}

bool YamlEditor::canInsertFromMimeData(const QMimeData* source) const {
  // Dropped files are for the window.
  return !source->hasUrls() && QPlainTextEdit::canInsertFromMimeData(source);
}

bool YamlEditor::event(QEvent* event) {
  if (event->type() == QEvent::ShortcutOverride) {
    auto* key = static_cast<QKeyEvent*>(event);
    // Undo and redo belong to the document's history, wherever the focus is.
    if (key->matches(QKeySequence::Undo) || key->matches(QKeySequence::Redo)) {
      event->ignore();
      return false;
    }
  }
  if (event->type() == QEvent::ToolTip) {
    auto* help = static_cast<QHelpEvent*>(event);
    const QTextCursor at = cursorForPosition(viewport()->mapFromGlobal(help->globalPos()));
    if (const QString problem = m_problems.value(at.blockNumber() + 1); !problem.isEmpty())
      QToolTip::showText(help->globalPos(), problem, this);
    else
      QToolTip::hideText();
    return true;
  }
  return QPlainTextEdit::event(event);
}

void YamlEditor::keyPressEvent(QKeyEvent* event) {
  if (event->matches(QKeySequence::Undo)) return Q_EMIT undoRequested();
  if (event->matches(QKeySequence::Redo)) return Q_EMIT redoRequested();
  if (event->key() == Qt::Key_Return || event->key() == Qt::Key_Enter) {
    // The next line starts where this one does, deeper after a colon.
    const QString line = textCursor().block().text().left(textCursor().positionInBlock());
    qsizetype indent = 0;
    while (indent < line.size() && line[indent] == QLatin1Char(' ')) ++indent;
    if (line.trimmed().endsWith(QLatin1Char(':'))) indent += 2;
    textCursor().insertText(QLatin1Char('\n') + QString(indent, QLatin1Char(' ')));
    ensureCursorVisible();
    return;
  }
  QPlainTextEdit::keyPressEvent(event);
}

void YamlEditor::changeEvent(QEvent* event) {
  QPlainTextEdit::changeEvent(event);
  if (event->type() == QEvent::PaletteChange && m_highlighter) {
    m_highlighter->rehighlight();
    mark();
  }
}

}  // namespace qb::views
