#include "views/models/RecipeDocument.h"

#include <QFileInfo>

#include "views/models/LineMerge.h"

namespace qb::views {
namespace {

constexpr int kTyping = 1, kField = 2;
constexpr qint64 kMergeMs = 1500;
constexpr qsizetype kLongestText = 512 * 1024;

}  // namespace

// One step of the history. Steps of the same kind and field merge while they follow one another quickly.
class RecipeDocument::Edit : public QUndoCommand {
 public:
  Edit(RecipeDocument* document, State before, State after, const QString& what, int mergeId, QString mergeKey)
      : QUndoCommand(what), m_document(document), m_before(std::move(before)), m_after(std::move(after)), m_id(mergeId), m_key(std::move(mergeKey)) {
    m_age.start();
  }
  void undo() override { m_document->apply(m_before); }
  void redo() override { m_document->apply(m_after); }
  int id() const override { return m_id; }
  bool mergeWith(const QUndoCommand* command) override {
    const auto* next = static_cast<const Edit*>(command);
    if (next->m_key != m_key || m_age.elapsed() > kMergeMs) return false;
    if (m_id == kTyping && next->m_after.text.count(QLatin1Char('\n')) != m_after.text.count(QLatin1Char('\n'))) return false;
    m_after = next->m_after;
    m_age.restart();
    return true;
  }

 private:
  RecipeDocument* m_document;
  State m_before, m_after;
  int m_id;
  QString m_key;
  QElapsedTimer m_age;
};

RecipeDocument::RecipeDocument(QObject* parent) : QObject(parent) { m_undo.setUndoLimit(500); }

QString RecipeDocument::title() const {
  if (!m_state.recipe.name.empty()) return QString::fromStdString(m_state.recipe.name);
  return path().isEmpty() ? tr("New recipe") : QFileInfo(path()).completeBaseName();
}

std::optional<RecipeProblem> RecipeDocument::read(const QString& text, Recipe& recipe) const {
  if (text.size() > kLongestText) return RecipeProblem{0, 0, {}, tr("The text is too long to be a recipe (%1 characters)").arg(text.size())};
  try {
    recipe = parse_recipe(text.toStdString(), "");
    return std::nullopt;
  } catch (const RecipeError& error) {
    return RecipeProblem{error.line(), error.column(), QString::fromStdString(error.key()), QString::fromStdString(error.detail())};
  } catch (const std::exception& error) {
    return RecipeProblem{0, 0, {}, QString::fromUtf8(error.what())};
  }
}

Recipe RecipeDocument::resolved() const {
  const std::filesystem::path file = path().toStdString();
  return parse_recipe(m_state.text.toStdString(), path().isEmpty() ? title().toStdString() : file.string(), file.parent_path());
}

void RecipeDocument::push(State next, const QString& what, int mergeId, const QString& mergeKey) {
  if (next.text == m_state.text && next.file == m_state.file && next.recipe == m_state.recipe) return;
  m_undo.push(new Edit(this, m_state, std::move(next), what, mergeId, mergeKey));
}

void RecipeDocument::setText(const QString& text) {
  if (text == m_state.text) return;
  State next = m_state;
  next.text = text;
  read(text, next.recipe);  // keeps the last recipe when the text is wrong
  push(std::move(next), tr("Edit YAML"), kTyping, {});
}

void RecipeDocument::setRecipe(const Recipe& recipe, const QString& key, const QString& what) {
  if (recipe == m_state.recipe) return;
  State next = m_state;
  next.recipe = recipe;
  const QString before = QString::fromStdString(to_yaml(m_state.recipe)), after = QString::fromStdString(to_yaml(recipe));
  next.text = after;
  Recipe canonical;
  if (!read(after, canonical)) next.recipe = canonical;
  // Comments and order of a text written by hand stay, where the change can be carried over for certain.
  if (m_state.text != before)
    if (const auto merged = mergeLines(before, after, m_state.text)) {
      Recipe said;
      const auto wrong = read(*merged, said);
      if (!wrong ? said == next.recipe : m_problem.has_value()) next.text = *merged;
    }
  push(std::move(next), what, kField, key);
}

void RecipeDocument::open(const QString& text, const QString& path, const QString& what) {
  State next{text, m_state.recipe, int(m_files.size())};
  m_files.push_back({path, path.isEmpty() ? QString() : text});
  Recipe said;
  const auto wrong = read(text, said);
  next.recipe = wrong ? Recipe{} : said;
  push(std::move(next), what, -1, {});
  Q_EMIT modifiedChanged();
}

void RecipeDocument::open(const Recipe& recipe, const QString& what) {
  State next{QString::fromStdString(to_yaml(recipe)), recipe, int(m_files.size())};
  m_files.push_back({});
  Recipe canonical;
  if (!read(next.text, canonical)) next.recipe = canonical;
  push(std::move(next), what, -1, {});
  Q_EMIT modifiedChanged();
}

void RecipeDocument::forgetHistory() { m_undo.clear(); }

void RecipeDocument::markSaved(const QString& path, const QString& text) {
  m_files[m_state.file] = {path, text};
  Q_EMIT modifiedChanged();
}

void RecipeDocument::apply(const State& state) {
  const bool textChanges = state.text != m_state.text;
  const bool modified = isModified();
  m_state = state;
  Recipe ignored;
  m_problem = read(m_state.text, ignored);
  if (textChanges) Q_EMIT textChanged();
  Q_EMIT recipeChanged();
  if (modified != isModified()) Q_EMIT modifiedChanged();
}

}  // namespace qb::views
