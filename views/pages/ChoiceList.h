#pragma once
#include <QLabel>
#include <QScrollArea>
#include <QVector>

class QButtonGroup;

namespace qb::views {

struct Choice {
  QString key, title, detail;
  QStringList obstacles;  // why it cannot be chosen; empty: it can
};

// One of several, each with what there is to know of it: what can be chosen as radio buttons, what cannot with its reasons in full.
class ChoiceList : public QScrollArea {
  Q_OBJECT
 public:
  explicit ChoiceList(const QString& name, QWidget* parent = nullptr);
  void setChoices(const QVector<Choice>& choices, const QString& current);
  const QVector<Choice>& choices() const { return m_choices; }
  const Choice* current() const;  // nullptr: none can be chosen
  QAbstractButton* button(const QString& key) const;

 Q_SIGNALS:
  void chosen(const QString& key);

 private:
  QVector<Choice> m_choices;
  QButtonGroup* m_buttons = nullptr;
};

// A sentence that says why something cannot be, marked at its side in the theme's colour.
class ReasonLabel : public QLabel {
  Q_OBJECT
 public:
  enum Kind { Warning, Error };
  explicit ReasonLabel(const QString& text, Kind kind = Warning, QWidget* parent = nullptr);

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  Kind m_kind;
};

}  // namespace qb::views
