#pragma once
#include <QMap>
#include <QPlainTextEdit>
#include <QSyntaxHighlighter>

namespace qb::views {

// Plain-text editor for recipes: line numbers, colours, a mark at each wrong line. Without an undo history of its own:
// the recipe document keeps the one history of form and text.
class YamlEditor : public QPlainTextEdit {
  Q_OBJECT
 public:
  explicit YamlEditor(QWidget* parent = nullptr);

  // Replaces what differs only, so that cursor and scroll position stay.
  void setTextKeepingCursor(const QString& text);
  // What is wrong with which line, 1-based.
  void setProblems(const QMap<int, QString>& problems);
  int problemLine() const { return m_problems.isEmpty() ? 0 : m_problems.firstKey(); }  // the first, 0: none
  QList<int> problemLines() const { return m_problems.keys(); }
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
  QMap<int, QString> m_problems;
};

}  // namespace qb::views
