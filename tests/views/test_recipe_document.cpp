#include <QUndoStack>
#include <QtTest/QtTest>
#include <random>

#include "fake_services.h"
#include "views/models/LineMerge.h"
#include "views/models/RecipeDocument.h"

using namespace qb;
using namespace qb::views;

namespace {

using Random = std::mt19937;
int below(Random& random, int n) { return int(random() % unsigned(n)); }

// One random edit such as the form makes, always to a valid recipe.
QString editAtRandom(Recipe& recipe, Random& random) {
  QuantSpec& weights = *recipe.scheme.weights;
  switch (below(random, 12)) {
    case 0: recipe.name = "recipe: \"" + std::to_string(below(random, 100)) + "\" # ä"; return "name";
    case 1: weights.type.bits = 2 + below(random, 7); return "scheme.weights.type";
    case 2: weights.symmetric = !weights.symmetric; return "scheme.weights.symmetric";
    case 3: weights.group_size = 32 << below(random, 3); return "scheme.weights.group_size";
    case 4: weights.granularity = below(random, 2) ? Granularity::group : Granularity::channel; return "scheme.weights.granularity";
    case 5: recipe.seed = random(); return "seed";
    case 6: recipe.scheme.ignore = below(random, 2) ? std::vector<std::string>{"*.down_proj", "re:layers\\.(0|1)\\..*"} : std::vector<std::string>{}; return "scheme.ignore";
    case 7:
      if (recipe.evaluation.size() < 3) {
        EvaluationSpec text;
        text.corpus.path = "/texts/a b.txt";
        text.windows = below(random, 50);
        recipe.evaluation.push_back(text);
      } else {
        recipe.evaluation.pop_back();
      }
      return "evaluation";
    case 8:
      if (recipe.calibration) {
        recipe.calibration.reset();
      } else {
        recipe.calibration = CalibrationSpec{};
        recipe.calibration->corpus.path = "calibration.txt";
      }
      return "calibration";
    case 9:
      if (recipe.scheme.activations) {
        recipe.scheme.activations.reset();
      } else {
        QuantSpec tokens;
        tokens.type.bits = 8;
        tokens.granularity = Granularity::token;
        recipe.scheme.activations = tokens;
      }
      return "scheme.activations";
    case 10:
      if (recipe.scheme.overrides.size() < 2) recipe.scheme.overrides.push_back({"*.o_proj", std::nullopt});
      else recipe.scheme.overrides.clear();
      return "scheme.overrides";
    default: recipe.propagate_quantized = !recipe.propagate_quantized; return "propagate_quantized";
  }
}

}  // namespace

class TestRecipeDocument : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void the_text_follows_every_edit_of_the_form() {
    for (unsigned seed = 0; seed < 20; ++seed) {
      Random random(seed);
      RecipeDocument document;
      document.open(test::fake_recipe("start"), "new");
      for (int step = 0; step < 20; ++step) {
        Recipe next = document.recipe();
        const QString key = editAtRandom(next, random);
        document.setRecipe(next, key, "edit");
        QVERIFY2(!document.problem(), qPrintable(document.problem() ? document.problem()->message : QString()));
        QVERIFY(document.recipe() == next);
        QVERIFY(parse_recipe(document.text().toStdString(), "") == next);
      }
    }
  }

  void the_recipe_follows_every_edit_of_the_text() {
    for (unsigned seed = 100; seed < 120; ++seed) {
      Random random(seed);
      RecipeDocument document;
      Recipe wanted = test::fake_recipe("start");
      for (int step = 0; step < 20; ++step) {
        editAtRandom(wanted, random);
        document.setText(QString::fromStdString(to_yaml(wanted)));
        QVERIFY(!document.problem());
        QVERIFY(document.recipe() == wanted);
      }
    }
  }

  void undo_and_redo_walk_through_both_kinds_of_edits() {
    Random random(7);
    RecipeDocument document;
    document.open(test::fake_recipe("start"), "new");
    document.forgetHistory();
    QVector<QString> texts{document.text()};
    for (int step = 0; step < 40; ++step) {
      Recipe next = document.recipe();
      const QString key = editAtRandom(next, random);
      const int before = document.undoStack()->count();
      if (step % 2)
        document.setText(QString::fromStdString(to_yaml(next)));
      else
        document.setRecipe(next, key + QString::number(step), "edit");
      if (document.undoStack()->count() == before) texts.pop_back();  // merged, or nothing changed
      texts.push_back(document.text());
    }
    QCOMPARE(document.undoStack()->count(), texts.size() - 1);
    for (int i = int(texts.size()) - 1; i > 0; --i) {
      QCOMPARE(document.text(), texts[i]);
      document.undoStack()->undo();
      QVERIFY(parse_recipe(document.text().toStdString(), "") == document.recipe());
    }
    QCOMPARE(document.text(), texts[0]);
    QVERIFY(!document.undoStack()->canUndo());
    while (document.undoStack()->canRedo()) document.undoStack()->redo();
    QCOMPARE(document.text(), texts.back());
  }

  void quick_steps_of_one_field_are_one_step_of_the_history() {
    RecipeDocument document;
    document.open(test::fake_recipe("start"), "new");
    document.forgetHistory();
    for (int group : {65, 66, 67, 68}) {
      Recipe next = document.recipe();
      next.scheme.weights->group_size = group;
      document.setRecipe(next, "scheme.weights.group_size", "Group size");
    }
    QCOMPARE(document.undoStack()->count(), 1);
    document.undoStack()->undo();
    QCOMPARE(document.recipe().scheme.weights->group_size, int64_t(64));
  }

  void a_mistake_is_told_with_line_and_key_and_the_recipe_stays() {
    RecipeDocument document;
    document.open(test::fake_recipe("start"), "new");
    const QString good = document.text();
    QStringList lines = good.split('\n');
    const int line = int(lines.indexOf("    group_size: 64"));
    QVERIFY(line > 0);
    lines[line] = "    group_size: many";
    document.setText(lines.join('\n'));
    QVERIFY(document.problem());
    QCOMPARE(document.problem()->line, line + 1);
    QCOMPARE(document.problem()->key, QString("scheme.weights.group_size"));
    QVERIFY(document.problem()->message.contains("many"));
    QCOMPARE(document.recipe().scheme.weights->group_size, int64_t(64));
    document.setText("name: [unclosed");
    QVERIFY(document.problem());
    QVERIFY(document.problem()->line >= 1);
    document.setText(good);
    QVERIFY(!document.problem());
  }

  void an_edit_in_the_form_keeps_comments_and_order_of_the_text() {
    RecipeDocument document;
    QString text = QString::fromStdString(to_yaml(test::fake_recipe("start")));
    text.prepend("# my recipe\n");
    text.replace("    group_size: 64", "    group_size: 64   # divides 576");
    text.replace("pipeline:", "\n# then round\npipeline:");
    document.setText(text);
    QVERIFY(!document.problem());
    Recipe next = document.recipe();
    next.scheme.weights->group_size = 32;
    next.seed = 7;
    document.setRecipe(next, "x", "edit");
    QVERIFY(document.text().startsWith("# my recipe\n"));
    QVERIFY(document.text().contains("    group_size: 32   # divides 576\n"));
    QVERIFY(document.text().contains("\n# then round\npipeline:"));
    QVERIFY(parse_recipe(document.text().toStdString(), "") == next);
  }

  void an_edit_in_the_form_leaves_a_mistake_elsewhere_in_the_text_alone() {
    RecipeDocument document;
    document.open(test::fake_recipe("start"), "new");
    document.setText(QString(document.text()).replace("type: int4", "type: int99"));
    QVERIFY(document.problem());
    Recipe next = document.recipe();
    next.seed = 7;
    document.setRecipe(next, "seed", "Seed");
    QVERIFY(document.text().contains("type: int99"));
    QVERIFY(document.text().contains("seed: 7"));
    QVERIFY(document.problem());
    document.setText(QString(document.text()).replace("int99", "int3"));
    QVERIFY(!document.problem());
    QCOMPARE(document.recipe().seed, uint64_t(7));
    QCOMPARE(document.recipe().scheme.weights->type.bits, 3);
  }

  void an_edit_of_the_form_is_one_print_and_one_parse() {
    RecipeDocument document;
    document.open(test::fake_recipe("start"), "new");
    document.forgetHistory();
    for (const bool byHand : {false, true}) {
      if (byHand) {
        document.setText("# by hand\n" + document.text());
        Recipe first = document.recipe();
        first.seed = 99;
        document.setRecipe(first, "seed", "Seed");  // the first after typing writes down what stood there, too
      }
      for (int bits : {3, 5, 6}) {
        const auto before = document.work();
        Recipe next = document.recipe();
        next.scheme.weights->type.bits = bits;
        QVERIFY(document.setRecipe(next, "scheme.weights.type", "Number type"));
        QCOMPARE(document.work().prints - before.prints, 1);
        QCOMPARE(document.work().parses - before.parses, 1);
        QVERIFY(document.recipe() == next && document.text().startsWith("# by hand") == byHand);
      }
    }
    const auto before = document.work();
    document.undoStack()->undo();
    document.undoStack()->redo();
    QCOMPARE(document.work().prints, before.prints);
    QCOMPARE(document.work().parses, before.parses);
    document.setText(document.text() + "# more\n");
    QCOMPARE(document.work().parses - before.parses, 1);
    QCOMPARE(document.work().prints, before.prints);
  }

  void all_mistakes_of_a_text_are_known_and_undo_knows_them_too() {
    RecipeDocument document;
    document.open(test::fake_recipe("start"), "new");
    const QString good = document.text();
    document.setText(QString(good).replace("type: int4", "type: int99").replace("seed: 42", "seed: much"));
    QCOMPARE(document.problems().size(), 2);
    QCOMPARE(document.problems()[0].key, QString("scheme.weights.type"));
    QCOMPARE(document.problems()[1].key, QString("seed"));
    QVERIFY(document.problems()[0].line < document.problems()[1].line && document.isReadable());
    document.undoStack()->undo();
    QVERIFY(document.problems().isEmpty());
    document.undoStack()->redo();
    QCOMPARE(document.problems().size(), 2);
  }

  void a_faulty_recipe_opens_with_its_text_and_what_can_be_read() {
    RecipeDocument document;
    const QString faulty = QString::fromStdString(to_yaml(test::fake_recipe("theirs"))).replace("group_size: 64", "group_size: 0") + "colour: red\n";
    document.open(faulty, "/data/faulty.yaml", "open");
    QCOMPARE(document.text(), faulty);
    QCOMPARE(document.path(), QString("/data/faulty.yaml"));
    QCOMPARE(document.problems().size(), 2);
    QCOMPARE(QString::fromStdString(document.recipe().name), QString("theirs"));
    // An edit of the form at the mistake's own field puts it right, and leaves the other mistake.
    Recipe next = document.recipe();
    next.scheme.weights->group_size = 32;
    QVERIFY(document.setRecipe(next, "scheme.weights.group_size", "Group size"));
    QVERIFY2(document.text().contains("    group_size: 32\n") && document.text().endsWith("colour: red\n"), qPrintable(document.text()));
    QCOMPARE(document.problems().size(), 1);
    QCOMPARE(document.problems().front().key, QString("colour"));
  }

  void a_text_that_is_no_yaml_takes_no_edits_of_the_form() {
    RecipeDocument document;
    document.open(test::fake_recipe("start"), "new");
    const QString good = document.text(), broken = QString(good).replace("type: int4", "type: [int4");
    document.setText(broken);
    QVERIFY(!document.isReadable() && document.problem() && document.problem()->line > 0);
    QString why;
    connect(&document, &RecipeDocument::refused, [&](const QString& text) { why = text; });
    Recipe next = document.recipe();
    next.seed = 5;
    QVERIFY(!document.setRecipe(next, "seed", "Seed"));
    QVERIFY(!why.isEmpty());
    QCOMPARE(document.text(), broken);  // nothing swallowed, nothing overwritten
    QVERIFY(document.recipe().seed != 5);
    document.undoStack()->undo();
    QVERIFY(document.isReadable());
    QVERIFY(document.setRecipe(next, "seed", "Seed"));
    QVERIFY(document.text().contains("seed: 5\n"));
  }

  void a_value_in_a_line_of_several_is_changed_in_its_place() {
    RecipeDocument document;
    const QString text = "# mine\nmodel: /models/tiny   # small\nscheme: {weights: {type: int4, group_size: 48}}  # both\npipeline: [{method: awq, grid: 20}, rtn]\ncalibration: {corpus: \"a, b.txt\"}\n";
    document.open(text, "/data/short.yaml", "open");
    QVERIFY(!document.problem());
    Recipe next = document.recipe();
    next.scheme.weights->group_size = 32;
    QVERIFY(document.setRecipe(next, "scheme.weights.group_size", "Group size"));
    QCOMPARE(document.text(), QString(text).replace("group_size: 48", "group_size: 32"));
    next = document.recipe();
    next.pipeline[0].knobs["grid"] = int64_t{10};
    QVERIFY(document.setRecipe(next, "pipeline[0].grid", "Grid steps"));
    next.calibration->corpus.path = "c #1.txt";
    QVERIFY(document.setRecipe(next, "calibration.corpus", "Text"));
    QVERIFY2(document.text().startsWith("# mine\n") && document.text().contains("{method: awq, grid: 10}, rtn]") && document.text().contains("  # both\n"), qPrintable(document.text()));
    QVERIFY(document.recipe() == next && !document.problem());
  }

  void an_edit_without_a_sure_place_among_mistakes_is_refused_not_written_over_them() {
    RecipeDocument document;
    document.open(QString("model: /models/tiny\nscheme: {weights: {type: int4, group_size: 64}}\ncolour: red\n"), "/data/short.yaml", "open");
    const QString text = document.text();
    QString why;
    connect(&document, &RecipeDocument::refused, [&](const QString& said) { why = said; });
    Recipe next = document.recipe();
    next.scheme.weights->symmetric = false;
    QVERIFY(!document.setRecipe(next, "scheme.weights.symmetric", "Symmetric"));
    QVERIFY2(why.contains("Symmetric") && why.contains("line 3"), qPrintable(why));
    QCOMPARE(document.text(), text);
  }

  void merged_lines_are_only_given_when_their_place_is_sure() {
    QCOMPARE(mergeLines("a\nb\nc", "a\nB\nc", "a\nb # note\nc"), std::optional<QString>("a\nB # note\nc"));
    QCOMPARE(mergeLines("a\nc", "a\nb\nc", "a\n\nc"), std::optional<QString>("a\nb\n\nc"));
    QCOMPARE(mergeLines("a\nb\nc", "a\nc", "# x\na\nb\nc"), std::optional<QString>("# x\na\nc"));
    QVERIFY(!mergeLines("a\nb\nc", "a\nB\nc", "x\ny\nz"));
  }

  void paths_are_resolved_against_the_file() {
    RecipeDocument document;
    Recipe recipe = test::fake_recipe("start");
    recipe.model = "../model";
    document.open(QString::fromStdString(to_yaml(recipe)), "/data/recipes/a.yaml", "open");
    QCOMPARE(document.recipe().model, std::filesystem::path("../model"));  // as written
    QCOMPARE(document.resolved().model, std::filesystem::path("/data/model"));
  }

  void modified_means_different_from_the_file() {
    RecipeDocument document;
    document.open(QString::fromStdString(to_yaml(test::fake_recipe("start"))), "/data/a.yaml", "open");
    QVERIFY(!document.isModified());
    Recipe next = document.recipe();
    next.seed = 3;
    document.setRecipe(next, "seed", "Seed");
    QVERIFY(document.isModified());
    document.undoStack()->undo();
    QVERIFY(!document.isModified());
    document.undoStack()->redo();
    document.markSaved("/data/b.yaml", document.text());
    QVERIFY(!document.isModified());
    QCOMPARE(document.path(), QString("/data/b.yaml"));
  }

  void where_a_recipe_is_kept_is_no_step_of_the_history() {
    RecipeDocument document;
    document.open(QString::fromStdString(to_yaml(test::fake_recipe("start"))), "/data/a.yaml", "open");
    Recipe next = document.recipe();
    next.seed = 3;
    document.setRecipe(next, "seed", "Seed");
    document.markSaved("/data/b.yaml", document.text());
    document.undoStack()->undo();
    QCOMPARE(document.path(), QString("/data/b.yaml"));  // saved as: there it stays
    QVERIFY(document.isModified());
    document.undoStack()->redo();
    QVERIFY(!document.isModified());
    document.open(QString::fromStdString(to_yaml(test::fake_recipe("other"))), "/data/other.yaml", "open");
    QCOMPARE(document.path(), QString("/data/other.yaml"));
    document.undoStack()->undo();
    QCOMPARE(document.path(), QString("/data/b.yaml"));  // each recipe has its own
    QVERIFY(!document.isModified());
  }
};

QTEST_GUILESS_MAIN(TestRecipeDocument)
#include "test_recipe_document.moc"
