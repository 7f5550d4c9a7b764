#pragma once
#include <QPlainTextEdit>
#include <QSyntaxHighlighter>

namespace qb::views {

// Plain-text editor for recipes: line numbers, colours, a mark at the wrong line. Without an undo history of its own:
// the recipe document keeps the one history of form and text.
class YamlEditor : public QPlainTextEdit {
  Q_OBJECT
 public:
  explicit YamlEditor(QWidget* parent = nullptr);

  // Replaces what differs only, so that cursor and scroll position stay.
  void setTextKeepingCursor(const QString& text);
  // line 1-based, 0: none.
  void setProblem(int line, const QString& message);
  int problemLine() const { return m_problemLine; }
  void goToLine(int line, int column = 0);

  int gutterWidth() const;
  void paintGutter(QPaintEvent* event);

 Q_SIGNALS:
  void undoRequested();
  void redoRequested();

 protected:
  void resizeEvent(QResizeEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  void changeEvent(QEvent* event) override;
  bool event(QEvent* event) override;
  bool canInsertFromMimeData(const QMimeData* source) const override;

 private:
  void placeGutter();
  void mark();
  QWidget* m_gutter;
  QSyntaxHighlighter* m_highlighter;
  int m_problemLine = 0;
  QString m_problemText;
};

}  // namespace qb::views
