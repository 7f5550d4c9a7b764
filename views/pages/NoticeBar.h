#pragma once
#include <QFrame>
#include <QLabel>
#include <QToolButton>
#include <functional>

class QHBoxLayout;

namespace qb::views {

// One line of news at the place it concerns: what happened and what to do next. Stays until closed or replaced.
class NoticeBar : public QFrame {
  Q_OBJECT
 public:
  enum Kind { Info, Warning, Error };
  struct Action {
    QString text;
    std::function<void()> run;
  };

  explicit NoticeBar(QWidget* parent = nullptr);
  void tell(Kind kind, const QString& text, const QVector<Action>& actions = {});
  void clear();
  void setClosable(bool closable);  // false: stays, whatever is done about it, until it is cleared or replaced
  QString text() const { return m_text->text(); }
  Kind kind() const { return m_kind; }

 protected:
  void paintEvent(QPaintEvent* event) override;
  void changeEvent(QEvent* event) override;

 private:
  void dress();
  Kind m_kind = Info;
  bool m_closable = true;
  QLabel *m_icon, *m_text;
  QHBoxLayout* m_actions;
  QToolButton* m_close;
};

}  // namespace qb::views
