#pragma once
#include <QScrollArea>

#include "views/pages/NoticeBar.h"

class QVBoxLayout;

namespace qb::views {

// All that is wrong, a row each, with what can be done about it. A row stays as long as its cause.
class ProblemList : public QScrollArea {
  Q_OBJECT
 public:
  struct Row {
    NoticeBar::Kind kind = NoticeBar::Error;
    QString text;
    QVector<NoticeBar::Action> actions = {};
  };
  explicit ProblemList(QWidget* parent = nullptr);
  void tell(const QVector<Row>& rows);  // none: hides
  QStringList texts() const;

 protected:
  void resizeEvent(QResizeEvent* event) override;
  bool eventFilter(QObject* object, QEvent* event) override;

 private:
  void fitHeight();
  QWidget* m_inside;
  QVBoxLayout* m_column;
  QVector<NoticeBar*> m_bars;
};

}  // namespace qb::views
