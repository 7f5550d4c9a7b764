#pragma once
#include <QTimer>
#include <QWidget>
#include <functional>
#include <map>

#include "core/recipe/preset.h"
#include "core/run/recipe_files.h"
#include "views/jobs/Background.h"
#include "views/models/ModelTree.h"
#include "views/models/RecipeDocument.h"
#include "views/pages/ProblemList.h"

class QLabel;
class QPushButton;

namespace qb::views {

class RecipeForm;
class YamlEditor;

// What will I try? The recipe as a form and as YAML beside it; each follows the other.
class RecipePage : public QWidget {
  Q_OBJECT
 public:
  RecipePage(RecipeDocument* document, Background* background, QWidget* parent = nullptr);

  void setModels(const ModelTree* models);  // open models: suggestions, and the fit of the scheme
  // What the recipe's files turn out to be; called on a worker thread with whole paths.
  void setFileCheck(std::function<RecipeFiles(const Recipe&)> check);
  void setPresets(const std::vector<Preset>& presets);
  NoticeBar* notices() { return m_notices; }
  RecipeForm* form() { return m_form; }
  YamlEditor* editor() { return m_editor; }
  // All that is wrong with it: its text, how it sits on the model, its files.
  QVector<RecipeProblem> problems() const;
  // Why the recipe cannot be started now; empty: it can.
  QString obstacle() const;

 Q_SIGNALS:
  void startRequested();
  void saveRequested();
  void obstacleChanged();

 private:
  void showDocument();
  void checkSoon();
  void checkFit();
  ProblemList::Row row(const RecipeProblem& problem);
  void tellPassing(int kind, const QString& text);
  void showHead();
  void applyPreset(const Preset& preset);
  void fillPresets();
  void sizePresets();

  RecipeDocument* m_document;
  Background* m_background;
  const ModelTree* m_models = nullptr;
  NoticeBar* m_notices;
  ProblemList* m_problemList;
  QLabel* m_locked;  // why the form cannot be used
  QLabel *m_title, *m_path;
  QPushButton* m_presetButton;
  std::vector<Preset> m_presets;
  std::map<std::string, PresetSize> m_presetSizes;  // on the recipe's model
  ModelPtr m_sizedModel;
  QPushButton *m_save, *m_start;
  RecipeForm* m_form;
  YamlEditor* m_editor;
  std::function<RecipeFiles(const Recipe&)> m_fileCheck;
  QVector<RecipeProblem> m_misfits;  // of scheme, model and files
  QTimer m_checkSoon;  // a pause in typing
  QString m_refusal;   // why the last edit was not taken
  QString m_passing;   // a notice about the recipe as it was: gone with the next change
};

// How a recipe's scheme sits on a model: one line to show, and for each part of it the layers it does not fit. Pure, for a worker thread.
struct SchemeFit {
  QString summary;
  QVector<RecipeProblem> problems;
};
SchemeFit fitRecipe(const Recipe& recipe, const ModelInfo* model);

}  // namespace qb::views
