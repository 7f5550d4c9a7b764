#pragma once
#include <QElapsedTimer>
#include <QObject>
#include <QString>
#include <QUndoStack>
#include <optional>

#include "core/recipe/recipe.h"

namespace qb::views {

// A mistake in the recipe, for the line in the YAML and for the field in the form.
struct RecipeProblem {
  int line = 0;     // 1-based, 0: unknown
  int column = 0;
  QString key;      // "scheme.weights.bits", empty: of the text as a whole
  QString message;  // without file and position
  bool operator==(const RecipeProblem&) const = default;
};

// The recipe being edited: YAML text and the recipe it says, each following the other, with one undo history for both.
// While the text is wrong, recipe() is the last one that it said (or that the form asked for).
class RecipeDocument : public QObject {
  Q_OBJECT
 public:
  explicit RecipeDocument(QObject* parent = nullptr);

  const QString& text() const { return m_state.text; }
  const Recipe& recipe() const { return m_state.recipe; }
  const std::optional<RecipeProblem>& problem() const { return m_problem; }
  const QString& path() const { return m_files[m_state.file].path; }  // empty: not saved yet
  QString title() const;                                // recipe's name, or the file's
  bool isModified() const { return m_state.text != m_files[m_state.file].saved; }
  QUndoStack* undoStack() { return &m_undo; }

  // The recipe with its paths resolved against the file's folder. Throws RecipeError while the text is wrong.
  Recipe resolved() const;

  void setText(const QString& text);  // an edit in the YAML
  // An edit in the form of the field `key` (edits of one field merge into one step of the history).
  void setRecipe(const Recipe& recipe, const QString& key, const QString& what);
  // Another recipe altogether; can be undone like any edit. `path` empty: not on disk yet.
  void open(const QString& text, const QString& path, const QString& what);
  // The same for a recipe made in code, which may lack what only the user can give (a model).
  void open(const Recipe& recipe, const QString& what);
  void forgetHistory();  // what stands is the start
  void markSaved(const QString& path, const QString& text);  // what was written there

 Q_SIGNALS:
  void textChanged();
  void recipeChanged();   // also when only the problem changed
  void modifiedChanged();

 private:
  struct State {
    QString text;
    Recipe recipe;
    int file = 0;  // of m_files
  };
  // Where a recipe is kept is no step of the history: what was undone behind a "Save as" is kept there as well.
  struct File {
    QString path, saved;
  };
  class Edit;
  void push(State next, const QString& what, int mergeId, const QString& mergeKey);
  void apply(const State& state);
  std::optional<RecipeProblem> read(const QString& text, Recipe& recipe) const;

  State m_state;
  QVector<File> m_files{{}};  // one for each recipe that was opened
  std::optional<RecipeProblem> m_problem;
  QUndoStack m_undo;
};

}  // namespace qb::views
