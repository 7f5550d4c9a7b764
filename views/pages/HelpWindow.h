#pragma once
#include <QDialog>

class QTextBrowser;

namespace qb::views {

class Background;

// A page of help (resources/help), rendered.
class HelpWindow : public QDialog {
  Q_OBJECT
 public:
  HelpWindow(Background* background, const QString& page, QWidget* parent = nullptr);
  const QString& page() const { return m_page; }
  QTextBrowser* browser() { return m_browser; }

 protected:
  void changeEvent(QEvent* event) override;

 private:
  void render();
  QString m_page, m_markdown;
  QTextBrowser* m_browser;
};

}  // namespace qb::views
