#pragma once
#include <QFrame>
#include <QScrollArea>
#include <functional>
#include <vector>

#include "views/pages/FieldGroup.h"

class QToolButton;
class QVBoxLayout;

namespace qb::views {

// A framed part of a list (a stage, an evaluation text, an override) with its title and buttons to move or remove it.
class Card : public QFrame {
  Q_OBJECT
 public:
  Card(const QString& title, const QString& detail, QWidget* body, bool movable, QWidget* parent = nullptr);
  void setEnds(bool first, bool last);

 Q_SIGNALS:
  void moveRequested(int by);
  void removeRequested();

 private:
  QToolButton *m_up = nullptr, *m_down = nullptr;
};

// The recipe as a form, made from core's tables: the methods' knobs and the scheme's fields. Keeps no recipe of its own
// beyond the one shown; every edit goes out as a new recipe with the key that changed.
class RecipeForm : public QScrollArea {
  Q_OBJECT
 public:
  explicit RecipeForm(QWidget* parent = nullptr);

  void setRecipe(const Recipe& recipe);
  void setProblems(const QVector<RecipeProblem>& problems);
  void setCodedModel(bool coded);                                    // whether the recipe's model is a quantized checkpoint
  void setSummary(const QString& text);                              // one line under the scheme
  void setModelSuggestions(std::function<QStringList()> suggestions);  // paths offered beside the model field
  bool hasField(const QString& key) const;                           // of a problem's key
  void focusField(const QString& key);

 Q_SIGNALS:
  void edited(const qb::Recipe& recipe, const QString& key, const QString& what);

 private:
  FieldGroup* group();
  QVBoxLayout* section(const QString& title, const QString& question);
  void change(const QString& key, const QString& what, const RecipeChange& change);
  void buildGeneral();
  void buildScheme();
  void buildPipeline();
  void buildCalibration();
  void buildEvaluation();
  void fillLists();  // rebuilds the cards whose number or kind changed
  void fillStages();
  void fillOverrides();
  void fillEvaluations();

  Recipe m_recipe;
  std::vector<FieldGroup*> groups() const;
  QVector<RecipeProblem> m_problems;
  bool m_codedModel = false;
  QVBoxLayout* m_column;
  std::vector<FieldGroup*> m_groups;  // fixed ones
  struct CardList {
    QVBoxLayout* layout = nullptr;
    QStringList kinds;  // what the cards were built for
    std::vector<FieldGroup*> groups;
  };
  CardList m_stages, m_overrides, m_evaluations;
  QLabel *m_summary = nullptr, *m_noStages = nullptr, *m_noEvaluation = nullptr;
  std::function<QStringList()> m_modelSuggestions;
};

}  // namespace qb::views
