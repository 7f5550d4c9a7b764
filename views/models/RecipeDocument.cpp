#include "views/models/RecipeDocument.h"

#include <QFileInfo>
#include <QRegularExpression>

#include "core/recipe/recipe_mistakes.h"
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

RecipeDocument::Reading RecipeDocument::read(const QString& text) {
  ++m_work.parses;
  if (text.size() > kLongestText) return {{}, {RecipeProblem{0, 0, {}, tr("The text is too long to be a recipe (%1 characters)").arg(text.size())}}, false};
  try {
    const RecipeReading found = read_with_mistakes(text.toStdString());
    Reading reading{found.recipe, {}, found.has_keys};
    for (const RecipeMistake& mistake : found.mistakes)
      reading.problems.push_back(RecipeProblem{mistake.line, mistake.column, QString::fromStdString(mistake.key), QString::fromStdString(mistake.what)});
    return reading;
  } catch (const std::exception& error) {
    return {{}, {RecipeProblem{0, 0, {}, QString::fromUtf8(error.what())}}, false};
  }
}

QString RecipeDocument::print(const Recipe& recipe) {
  ++m_work.prints;
  return QString::fromStdString(to_yaml(recipe));
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
  const Reading reading = read(text);
  next.text = text;
  next.problems = reading.problems;
  next.readable = reading.readable;
  if (reading.problems.isEmpty()) {  // else the last recipe stays
    next.recipe = reading.recipe;
    next.canonical.reset();
  }
  push(std::move(next), tr("Edit YAML"), kTyping, {});
}

namespace {

// Where the value of a key on one line stands: from its first character to its last.
std::pair<qsizetype, qsizetype> valueOn(const QString& line, const QString& name, int column) {
  static const QRegularExpression value(QStringLiteral(R"(\s*:\s*("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s,\]}#][^,\]}#]*?)\s*(?:$|[,\]}]|\s#))"));
  const qsizetype start = std::max(0, column - 1);
  if (line.mid(start, name.size()) != name) return {-1, 0};
  const auto match = value.match(line, start + name.size(), QRegularExpression::NormalMatch, QRegularExpression::AnchorAtOffsetMatchOption);
  return match.hasMatch() ? std::pair(match.capturedStart(1), match.capturedLength(1)) : std::pair(qsizetype(-1), qsizetype(0));
}

}  // namespace

std::optional<QString> RecipeDocument::withValue(const QString& key, const QString& canonical) const {
  const QString name = key.mid(key.lastIndexOf(QLatin1Char('.')) + 1);
  QStringList lines = m_state.text.split(QLatin1Char('\n'));
  const QStringList fresh = canonical.split(QLatin1Char('\n'));
  const Position to = position_of(m_state.text.toStdString(), key.toStdString()), from = position_of(canonical.toStdString(), key.toStdString());
  if (to.line <= 0 || to.line > lines.size() || from.line <= 0 || from.line > fresh.size()) return std::nullopt;
  const auto [place, size] = valueOn(lines[to.line - 1], name, to.column);
  const auto [source, length] = valueOn(fresh[from.line - 1], name, from.column);
  if (place < 0 || source < 0) return std::nullopt;
  lines[to.line - 1].replace(place, size, fresh[from.line - 1].mid(source, length));
  return lines.join(QLatin1Char('\n'));
}

bool RecipeDocument::setRecipe(const Recipe& recipe, const QString& key, const QString& what) {
  if (recipe == m_state.recipe) return true;
  const auto refuse = [this](const QString& why) {
    Q_EMIT refused(why);
    Q_EMIT recipeChanged();  // the form shows the recipe as it stays
    return false;
  };
  if (!m_state.readable) return refuse(tr("The text is not a recipe as it stands: mend it, or undo, before anything else is changed."));
  if (!m_state.canonical) m_state.canonical = print(m_state.recipe);
  const QString before = *m_state.canonical, after = print(recipe);
  State next = m_state;
  next.canonical = after;
  std::optional<Reading> reading;
  // Comments and order of a text written by hand stay, where the change can be carried over for certain; so does what is wrong
  // elsewhere in it.
  const bool wrong = !m_state.problems.isEmpty();
  const auto take = [&](const std::optional<QString>& text) {
    if (!text) return false;
    Reading said = read(*text);
    const bool still = std::any_of(said.problems.begin(), said.problems.end(), [&](const RecipeProblem& problem) { return problem.key == key; });
    if (!(said.recipe == recipe) && (!wrong || still || !said.readable)) return false;
    next.text = *text;
    reading = std::move(said);
    return true;
  };
  const bool carried = m_state.text != before && (take(mergeLines(before, after, m_state.text)) || take(withValue(key, after)));
  if (!carried && wrong && m_state.text != before)
    return refuse(tr("“%1” finds no sure place in the text while that has mistakes: mend line %2 first, or change it in the text.").arg(what).arg(m_state.problems.front().line));
  if (!carried) {
    next.text = after;
    reading = read(after);
  }
  next.recipe = reading->problems.isEmpty() ? reading->recipe : recipe;
  next.problems = reading->problems;
  next.readable = reading->readable;
  push(std::move(next), what, kField, key);
  return true;
}

void RecipeDocument::open(const QString& text, const QString& path, const QString& what) {
  const Reading reading = read(text);
  State next{text, reading.recipe, int(m_files.size()), reading.problems, reading.readable};
  m_files.push_back({path, path.isEmpty() ? QString() : text});
  push(std::move(next), what, -1, {});
  Q_EMIT modifiedChanged();
}

void RecipeDocument::open(const Recipe& recipe, const QString& what) {
  const QString text = print(recipe);
  const Reading reading = read(text);
  State next{text, reading.problems.isEmpty() ? reading.recipe : recipe, int(m_files.size()), reading.problems, reading.readable, text};
  m_files.push_back({});
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
  if (textChanges) Q_EMIT textChanged();
  Q_EMIT recipeChanged();
  if (modified != isModified()) Q_EMIT modifiedChanged();
}

}  // namespace qb::views
