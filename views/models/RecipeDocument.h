#pragma once
#include <QElapsedTimer>
#include <QObject>
#include <QString>
#include <QStringList>
#include <QUndoStack>
#include <QVector>
#include <optional>

#include "core/recipe/recipe.h"

namespace qb::views {

// A mistake in the recipe, for the line in the YAML and for the field in the form.
struct RecipeProblem {
  int line = 0;     // 1-based, 0: unknown
  int column = 0;
  QString key;      // "scheme.weights.bits", empty: of the text as a whole
  QString message;  // without file and position
  QStringList offers = {};  // values of the field that would do
  bool operator==(const RecipeProblem&) const = default;
};

// The recipe being edited: YAML text and the recipe it says, each following the other, with one undo history for both.
// While the text is wrong, recipe() is the last one that it said (or that the form asked for), or what can be read of a text
// that was opened so.
class RecipeDocument : public QObject {
  Q_OBJECT
 public:
  explicit RecipeDocument(QObject* parent = nullptr);

  const QString& text() const { return m_state.text; }
  const Recipe& recipe() const { return m_state.recipe; }
  const QVector<RecipeProblem>& problems() const { return m_state.problems; }  // as they stand in the text
  std::optional<RecipeProblem> problem() const { return m_state.problems.isEmpty() ? std::nullopt : std::optional(m_state.problems.front()); }
  // False while the text is no YAML with keys: then recipe() says nothing of it, and nothing can be set in it but by text.
  bool isReadable() const { return m_state.readable; }
  const QString& path() const { return m_files[m_state.file].path; }  // empty: not saved yet
  QString title() const;                                // recipe's name, or the file's
  bool isModified() const { return m_state.text != m_files[m_state.file].saved; }
  QUndoStack* undoStack() { return &m_undo; }

  // The recipe with its paths resolved against the file's folder. Throws RecipeError while the text is wrong.
  Recipe resolved() const;

  void setText(const QString& text);  // an edit in the YAML
  // An edit in the form of the field `key` (edits of one field merge into one step of the history).
  // A text with mistakes keeps them; where the edit finds no sure place among them, nothing changes and refused() says why.
  bool setRecipe(const Recipe& recipe, const QString& key, const QString& what);
  // Another recipe altogether; can be undone like any edit. `path` empty: not on disk yet.
  void open(const QString& text, const QString& path, const QString& what);
  // The same for a recipe made in code, which may lack what only the user can give (a model).
  void open(const Recipe& recipe, const QString& what);
  void forgetHistory();  // what stands is the start
  void markSaved(const QString& path, const QString& text);  // what was written there

  // How often a recipe was written as YAML and YAML read: once each is what an edit should cost.
  struct Work {
    int prints = 0, parses = 0;
  };
  const Work& work() const { return m_work; }

 Q_SIGNALS:
  void textChanged();
  void recipeChanged();   // also when only the problem changed
  void modifiedChanged();
  void refused(const QString& why);  // an edit of the form

 private:
  struct State {
    QString text;
    Recipe recipe;
    int file = 0;  // of m_files
    QVector<RecipeProblem> problems = {};
    bool readable = true;
    std::optional<QString> canonical = {};  // the recipe as YAML, once somebody asked
  };
  struct Reading {
    Recipe recipe;  // what can be read
    QVector<RecipeProblem> problems;
    bool readable = false;
  };
  // Where a recipe is kept is no step of the history: what was undone behind a "Save as" is kept there as well.
  struct File {
    QString path, saved;
  };
  class Edit;
  void push(State next, const QString& what, int mergeId, const QString& mergeKey);
  void apply(const State& state);
  Reading read(const QString& text);
  QString print(const Recipe& recipe);
  // The text with the value of one key replaced by the one that `canonical` has for it; nullopt where either stands in no line.
  std::optional<QString> withValue(const QString& key, const QString& canonical) const;

  State m_state;
  QVector<File> m_files{{}};  // one for each recipe that was opened
  Work m_work;
  QUndoStack m_undo;
};

}  // namespace qb::views
