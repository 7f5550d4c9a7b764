#pragma once
#include <QGridLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QWidget>
#include <functional>
#include <vector>

#include "core/method/method_info.h"
#include "core/recipe/recipe.h"
#include "views/models/RecipeDocument.h"

namespace qb::views {

using RecipeChange = std::function<void(Recipe&)>;
using RecipeTest = std::function<bool(const Recipe&)>;

struct FieldText {
  QString key;    // of the recipe's YAML: "scheme.weights.group_size"
  QString label;
  QString help;
  QString unit = {};
  RecipeTest visible = {};  // empty: always
};

// A column of labelled editors, each bound to one key of the recipe by a pair of functions. Shows a recipe, reports edits
// as changes to be made to it, and shows a problem at the field whose key it names.
class FieldGroup : public QWidget {
  Q_OBJECT
 public:
  explicit FieldGroup(QWidget* parent = nullptr);

  // A seed: any 64-bit number without a sign.
  void seed(const FieldText& text, std::function<quint64(const Recipe&)> get, std::function<void(Recipe&, quint64)> set);
  void integer(const FieldText& text, qint64 minimum, qint64 maximum, std::function<qint64(const Recipe&)> get, std::function<void(Recipe&, qint64)> set,
               const QString& zeroText = {});
  void real(const FieldText& text, double minimum, double maximum, std::function<double(const Recipe&)> get, std::function<void(Recipe&, double)> set);
  // beside: what the box says itself.
  void boolean(const FieldText& text, std::function<bool(const Recipe&)> get, std::function<void(Recipe&, bool)> set, const QString& beside = {});
  // `editable`: other values than the choices may be typed; set returns false for one that makes no sense.
  void choice(const FieldText& text, const QStringList& values, const QStringList& titles, std::function<QString(const Recipe&)> get,
              std::function<bool(Recipe&, const QString&)> set, bool editable = false);
  void line(const FieldText& text, const QString& placeholder, std::function<QString(const Recipe&)> get, std::function<void(Recipe&, const QString&)> set);
  enum PathKind { TextFile, ModelPath, ImportanceFile };
  void path(const FieldText& text, PathKind kind, std::function<QString(const Recipe&)> get, std::function<void(Recipe&, const QString&)> set,
            std::function<QStringList()> suggestions = {});
  // A field made from a knob of a method or an evaluator; where: the values that a recipe gives there, nullptr where that is gone.
  void knob(const KnobInfo& info, const QString& key, std::function<std::map<std::string, KnobValue>*(Recipe&)> where);

  void show(const Recipe& recipe);
  // How well a field here fits a problem's key: the length of its own key, 0 for none.
  qsizetype fits(const QString& problemKey) const;
  // Marks the fields that fit these best, and clears the others.
  void showProblems(const QVector<RecipeProblem>& problems);
  bool hasKey(const QString& key) const;
  void focusKey(const QString& key);

 Q_SIGNALS:
  void edited(const QString& key, const QString& label, const qb::views::RecipeChange& change);

 private:
  struct Field {
    FieldText text;
    QWidget* editor = nullptr;  // the focusable one
    QWidget* box = nullptr;     // the row's widget
    QLabel* caption = nullptr;
    QLabel* problem = nullptr;
    QGridLayout* offers = nullptr;  // buttons with values that would do
    std::function<void(const Recipe&)> show;
    QStringList offered = {};
  };
  void add(const FieldText& text, QWidget* editor, QWidget* box, std::function<void(const Recipe&)> show);
  void tellProblem(Field& field, const QString& message, const QStringList& offers = {});
  Field* fieldOf(QWidget* editor);
  const Field* bestField(const QString& problemKey) const;

  QGridLayout* m_layout;  // QFormLayout of Qt 6.4 writes past its rows when some are hidden and others wrap text
  std::vector<Field> m_fields;
  Recipe m_recipe;  // as shown
};

// True when a problem's key concerns a field's: the same, or one inside the other.
bool keyConcerns(const QString& problemKey, const QString& fieldKey);

}  // namespace qb::views
