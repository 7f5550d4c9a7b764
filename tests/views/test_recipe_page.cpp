#include <QCheckBox>
#include <QComboBox>
#include <QDropEvent>
#include <QLabel>
#include <QLineEdit>
#include <QMenu>
#include <QMimeData>
#include <QPushButton>
#include <QSignalSpy>
#include <QSpinBox>
#include <QToolButton>
#include <QtTest/QtTest>
#include <atomic>
#include <limits>

#include "core/quant/spec_fields.h"
#include "fake_services.h"
#include "views/models/Format.h"
#include "views/pages/NoticeBar.h"
#include "views/pages/RecipeForm.h"
#include "views/pages/RecipePage.h"
#include "views/pages/YamlEditor.h"

using namespace qb;
using namespace qb::views;

class TestRecipePage : public QObject {
  Q_OBJECT

  struct Bench {
    RecipeDocument document;
    Background background;
    ModelTree models;
    RecipePage page{&document, &background};

    Bench() {
      page.setModels(&models);
      document.open(test::fake_recipe("start"), "new");
      document.forgetHistory();
      page.resize(1000, 900);
      page.show();
    }
    template <class T>
    T* field(const QString& key) {
      return page.findChild<T*>(key);
    }
    void typeInto(QLineEdit* line, const QString& text) {
      line->setFocus();
      line->selectAll();
      QTest::keyClicks(line, text);
      QTest::keyClick(line, Qt::Key_Return);
    }
  };

 private Q_SLOTS:
  void initTestCase() { QLocale::setDefault(QLocale::c()); }

  void what_is_typed_into_the_form_stands_in_the_yaml() {
    Bench bench;
    bench.typeInto(bench.field<QLineEdit>("name"), "W3 try");
    QVERIFY(bench.page.editor()->toPlainText().contains("name: W3 try\n"));
    auto* group = bench.field<QSpinBox>("scheme.weights.group_size");
    group->setFocus();
    group->selectAll();
    QTest::keyClicks(group, "32");
    QTest::keyClick(group, Qt::Key_Return);
    QVERIFY(bench.page.editor()->toPlainText().contains("group_size: 32\n"));
    QTest::mouseClick(bench.field<QCheckBox>("evaluate_float"), Qt::LeftButton, {}, QPoint(6, bench.field<QCheckBox>("evaluate_float")->height() / 2));
    QVERIFY(bench.page.editor()->toPlainText().contains("evaluate_float: false\n"));
    QCOMPARE(bench.document.recipe().scheme.weights->group_size, int64_t(32));
  }

  void a_seed_is_any_number_of_64_bits() {
    Bench bench;
    bench.typeInto(bench.field<QLineEdit>("seed"), "18446744073709551615");
    QCOMPARE(bench.document.recipe().seed, std::numeric_limits<uint64_t>::max());
    QVERIFY(bench.page.editor()->toPlainText().contains("seed: 18446744073709551615\n"));
    bench.document.setText(QString(bench.document.text()).replace("18446744073709551615", "3000000000"));
    QCOMPARE(bench.field<QLineEdit>("seed")->text(), QString("3000000000"));
    bench.typeInto(bench.field<QLineEdit>("seed"), "18446744073709551616");  // one too many
    QCOMPARE(bench.document.recipe().seed, uint64_t(3000000000));
  }

  void a_recipe_without_evaluation_says_so() {
    Bench bench;
    auto* said = bench.page.findChild<QLabel*>("noEvaluation");
    QVERIFY(said && !said->isHidden() && said->text().contains("not measured"));
    Recipe next = bench.document.recipe();
    next.evaluation.push_back({});
    next.evaluation.back().corpus.path = "/texts/some.txt";
    bench.document.setRecipe(next, "evaluation", "Text");
    QVERIFY(said->isHidden());
  }

  void what_is_typed_into_the_yaml_stands_in_the_form() {
    Bench bench;
    bench.page.editor()->setFocus();
    const QString text = bench.page.editor()->toPlainText();
    QTextCursor cursor(bench.page.editor()->document());
    cursor.setPosition(int(text.indexOf("group_size: 64")) + 12);
    cursor.movePosition(QTextCursor::EndOfLine, QTextCursor::KeepAnchor);
    bench.page.editor()->setTextCursor(cursor);
    QTest::keyClicks(bench.page.editor(), "16");
    QCOMPARE(bench.field<QSpinBox>("scheme.weights.group_size")->value(), 16);
    // The cursor stands where one typed, not at the start.
    QCOMPARE(bench.page.editor()->textCursor().position(), int(text.indexOf("group_size: 64")) + 14);
  }

  void undo_takes_back_form_and_yaml_together() {
    Bench bench;
    const QString before = bench.page.editor()->toPlainText();
    bench.typeInto(bench.field<QLineEdit>("name"), "other");
    QTest::keyClick(bench.page.editor(), Qt::Key_Z, Qt::ControlModifier);
    QCOMPARE(bench.page.editor()->toPlainText(), before);
    QCOMPARE(bench.field<QLineEdit>("name")->text(), QString("start"));
    QTest::keyClick(bench.page.editor(), Qt::Key_Z, Qt::ControlModifier | Qt::ShiftModifier);
    QCOMPARE(bench.field<QLineEdit>("name")->text(), QString("other"));
  }

  void fields_show_only_where_they_mean_something() {
    Bench bench;
    QVERIFY(bench.field<QSpinBox>("scheme.weights.group_size")->isVisibleTo(&bench.page));
    QVERIFY(!bench.field<QSpinBox>("scheme.weights.mse_grid")->isVisibleTo(&bench.page));
    Recipe next = bench.document.recipe();
    next.scheme.weights->granularity = Granularity::channel;
    next.scheme.weights->range = RangeMethod::mse;
    bench.document.setRecipe(next, "x", "edit");
    QVERIFY(!bench.field<QSpinBox>("scheme.weights.group_size")->isVisibleTo(&bench.page));
    QVERIFY(bench.field<QSpinBox>("scheme.weights.mse_grid")->isVisibleTo(&bench.page));
    next.scheme.weights.reset();
    next.scheme.activations = QuantSpec{};
    next.scheme.activations->granularity = Granularity::token;
    bench.document.setRecipe(next, "y", "edit");
    QVERIFY(!bench.field<QComboBox>("scheme.weights.type")->isVisibleTo(&bench.page));
    QVERIFY(bench.field<QComboBox>("scheme.activations.type")->isVisibleTo(&bench.page));
    QVERIFY(!bench.field<QComboBox>("scheme.kv_cache.granularity")->isVisibleTo(&bench.page));
    bench.field<QCheckBox>("scheme.kv_cache")->click();
    QVERIFY(bench.document.recipe().scheme.kv_cache == default_cache_spec());
    QVERIFY(bench.field<QComboBox>("scheme.kv_cache.granularity")->isVisibleTo(&bench.page));
    QVERIFY(!bench.page.findChild<QWidget*>("scheme.kv_cache.heads"));
  }

  void embedding_and_head_have_fields_of_their_own() {
    Bench bench;
    auto* rounding = bench.field<QComboBox>("scheme.head_rounding");
    QVERIFY(rounding && !rounding->isVisibleTo(&bench.page));
    bench.field<QCheckBox>("scheme.head")->click();
    QVERIFY(bench.document.recipe().scheme.head == default_spec(SpecRole::weights) && !bench.document.recipe().scheme.embedding);
    QVERIFY(rounding->isVisibleTo(&bench.page) && bench.field<QComboBox>("scheme.head.type")->isVisibleTo(&bench.page));
    QVERIFY(!bench.field<QComboBox>("scheme.embedding.type")->isVisibleTo(&bench.page));
    rounding->setCurrentIndex(rounding->findData("gptq"));
    Q_EMIT rounding->activated(rounding->currentIndex());
    QCOMPARE(to_text(bench.document.recipe().scheme.head_rounding), std::string("gptq"));
    QVERIFY(bench.document.text().contains("head_rounding: gptq"));
    bench.field<QCheckBox>("scheme.head")->click();  // nothing of it is left behind
    QVERIFY(!bench.document.text().contains("head"));
  }

  void every_knob_of_every_method_is_a_field() {
    Bench bench;
    for (const MethodInfo& method : methods()) {
      Recipe next = test::fake_recipe(method.name);
      next.pipeline = {{method.name, {}}};
      next.calibration = CalibrationSpec{};
      next.calibration->corpus.path = "c.txt";
      bench.document.setRecipe(next, QString::fromStdString(method.name), "edit");
      QCoreApplication::sendPostedEvents(nullptr, QEvent::DeferredDelete);  // fields of the method before, some of the same name
      for (const KnobInfo& knob : method.knobs) {
        const QString key = QStringLiteral("pipeline[0].") + QString::fromStdString(knob.name);
        auto* editor = bench.field<QWidget>(key);
        QVERIFY2(editor, qPrintable(key));
        QVERIFY(!editor->accessibleName().isEmpty());
        QVERIFY2(editor->toolTip().contains(QString::fromStdString(knob.help).toHtmlEscaped()), qPrintable(key + " " + editor->toolTip()));
        if (!knob.zero.empty()) {
          auto* box = bench.field<QSpinBox>(key);
          box->setValue(0);
          QCOMPARE(box->text(), QString::fromStdString(knob.zero));
        }
      }
    }
  }

  void a_mistake_shows_at_its_line_and_at_its_field() {
    Bench bench;
    QString text = bench.page.editor()->toPlainText();
    const int line = int(text.left(text.indexOf("group_size: 64")).count('\n')) + 1;
    bench.page.editor()->setPlainText(text.replace("group_size: 64", "group_size: -3"));
    QCOMPARE(bench.page.editor()->problemLine(), line);
    const auto labels = bench.field<QSpinBox>("scheme.weights.group_size")->parentWidget()->findChildren<QLabel*>();
    QVERIFY(std::any_of(labels.begin(), labels.end(), [](const QLabel* label) { return label->isVisible() && label->text().contains("-3"); }));
    QVERIFY(bench.page.obstacle().contains("-3"));
    bench.page.editor()->setPlainText(text.replace("group_size: -3", "group_size: 64"));
    QCOMPARE(bench.page.editor()->problemLine(), 0);
    QVERIFY(std::none_of(labels.begin(), labels.end(), [](const QLabel* label) { return label->isVisible() && label->text().contains("-3"); }));
    QVERIFY(bench.page.obstacle().isEmpty());
  }

  void all_mistakes_are_listed_and_a_click_goes_there() {
    Bench bench;
    auto* list = bench.page.findChild<ProblemList*>();
    QVERIFY(list && list->isHidden());
    QString text = bench.page.editor()->toPlainText();
    text.replace("group_size: 64", "group_size: -3").replace("seed: 42", "seed: much");
    text += "colour: red\n";
    bench.page.editor()->setPlainText(text);
    QVERIFY(list->isVisible());
    QCOMPARE(list->texts().size(), 3);
    const auto lineOf = [&](const char* part) { return int(text.left(text.indexOf(QLatin1String(part))).count('\n')) + 1; };
    const QList<int> lines{lineOf("group_size: -3"), lineOf("seed: much"), lineOf("colour: red")};
    QCOMPARE(bench.page.editor()->problemLines(), lines);
    for (int i = 0; i < 3; ++i) QVERIFY2(list->texts()[i].startsWith(QStringLiteral("Line %1, ").arg(lines[i])), qPrintable(list->texts()[i]));
    QVERIFY(list->texts()[0].contains("scheme.weights.group_size") && list->texts()[1].contains("seed") && list->texts()[2].contains("unknown key"));
    const auto bars = list->findChildren<NoticeBar*>();
    const auto press = [](NoticeBar* bar, const char* caption) {
      for (QPushButton* button : bar->findChildren<QPushButton*>())
        if (button->text() == QLatin1String(caption)) {
          button->click();
          return true;
        }
      return false;
    };
    QVERIFY(press(bars[1], "Show field"));
    QCOMPARE(bench.page.window()->focusWidget(), bench.field<QLineEdit>("seed"));
    QVERIFY(press(bars[2], "Show line") && !press(bars[2], "Show field"));
    QCOMPARE(bench.page.editor()->textCursor().blockNumber() + 1, lines[2]);
    QCOMPARE(list->texts().size(), 3);  // looked at is not mended
    // Each goes when its cause goes.
    text.replace("seed: much", "seed: 7");
    bench.page.editor()->setPlainText(text);
    QCOMPARE(list->texts().size(), 2);
    text.replace("group_size: -3", "group_size: 64").remove("colour: red\n");
    bench.page.editor()->setPlainText(text);
    QVERIFY(list->isHidden() && list->texts().isEmpty());
  }

  void a_text_that_is_no_yaml_locks_the_form_until_it_is_mended() {
    Bench bench;
    auto* locked = bench.page.findChild<QLabel*>("formLocked");
    QVERIFY(locked && locked->isHidden() && bench.page.form()->isEnabled());
    const QString good = bench.page.editor()->toPlainText();
    bench.page.editor()->setPlainText(QString(good).replace("type: int4", "type: [int4"));
    QVERIFY(locked->isVisible() && locked->text().contains("Mend the text"));
    QVERIFY(!bench.field<QSpinBox>("scheme.weights.group_size")->isEnabled());
    QVERIFY(bench.page.findChild<ProblemList*>()->texts().value(0).startsWith("Line "));
    QVERIFY(!bench.page.obstacle().isEmpty());
    QTest::keyClick(bench.page.editor(), Qt::Key_Z, Qt::ControlModifier);
    QVERIFY(locked->isHidden() && bench.field<QSpinBox>("scheme.weights.group_size")->isEnabled());
    QVERIFY(bench.page.findChild<ProblemList*>()->isHidden());
  }

  void group_sizes_that_fit_all_linears_are_a_click_away() {
    Bench bench;
    bench.models.put(std::make_shared<const ModelInfo>(test::fake_model("/models/tiny")));  // widths of 64 and 192
    Recipe next = bench.document.recipe();
    next.scheme.weights->group_size = 48;
    next.scheme.overrides.push_back({"*.down_proj", next.scheme.weights});  // 192 inputs: 48 is right there
    next.scheme.overrides.front().weights->group_size = 96;
    bench.document.setRecipe(next, "g", "edit");
    QTRY_VERIFY(bench.page.findChild<QToolButton*>("scheme.weights.group_size=32"));
    QVERIFY2(bench.page.obstacle().contains("more: group_size 48"), qPrintable(bench.page.obstacle()));
    for (const char* fits : {"64", "32", "16", "8"}) QVERIFY2(bench.page.findChild<QToolButton*>(QStringLiteral("scheme.weights.group_size=%1").arg(QLatin1String(fits))), fits);
    QVERIFY(!bench.page.findChild<QToolButton*>("scheme.weights.group_size=48") && !bench.page.findChild<QToolButton*>("scheme.weights.group_size=96"));
    QVERIFY(!bench.page.findChild<QToolButton*>("scheme.overrides[0].weights.group_size=96"));  // nothing is wrong there
    bench.page.findChild<QToolButton*>("scheme.weights.group_size=32")->click();
    QCOMPARE(bench.document.recipe().scheme.weights->group_size, int64_t(32));
    QTRY_VERIFY(bench.page.obstacle().isEmpty());
    QTRY_VERIFY(!bench.page.findChild<QToolButton*>("scheme.weights.group_size=32"));
    next = bench.document.recipe();
    next.scheme.overrides.front().weights->group_size = 128;
    bench.document.setRecipe(next, "h", "edit");
    QTRY_VERIFY(bench.page.findChild<QToolButton*>("scheme.overrides[0].weights.group_size=96"));
    QVERIFY(!bench.page.findChild<QToolButton*>("scheme.weights.group_size=32"));
    // Caches have groups of a head's channels.
    ModelInfo model = test::fake_model("/models/tiny");
    model.head_dim = 16;
    Recipe cached = test::fake_recipe("cached");
    cached.scheme.kv_cache = default_cache_spec();
    cached.scheme.kv_cache->granularity = Granularity::group;
    cached.scheme.kv_cache->group_size = 32;
    const SchemeFit fit = fitRecipe(cached, &model);
    QCOMPARE(fit.problems.size(), 1);
    QCOMPARE(fit.problems.front().key, QString("scheme.kv_cache.group_size"));
    QCOMPARE(fit.problems.front().offers, QStringList({"16", "8"}));
  }

  void presets_are_grouped_with_size_and_cost() {
    Bench bench;
    Preset four, slow, eight;
    four.name = "four", four.title = "Four bits", four.description = "The usual.";
    four.scheme.weights = QuantSpec{};
    four.scheme.weights->group_size = 64;
    four.pipeline = {{"rtn", {}}};
    slow = four;
    slow.name = "slow", slow.title = "Four bits, learned", slow.pipeline = {{"autoround", {}}};
    eight = four;
    eight.name = "eight", eight.title = "Eight bits", eight.scheme.weights->type.bits = 8;
    bench.page.setPresets({four, slow, eight});
    QMenu* menu = nullptr;
    for (QPushButton* button : bench.page.findChildren<QPushButton*>())
      if (button->menu()) menu = button->menu();
    QVERIFY(menu);
    const auto shown = [&] {
      QStringList lines;
      for (QAction* group : menu->actions())
        for (QAction* action : group->menu()->actions()) lines << group->text() + " / " + action->text();
      return lines;
    };
    QCOMPARE(shown(), QStringList({"4 bits, weights / Four bits\tno calibration", "4 bits, weights / Four bits, learned\ttraining", "8 bits, weights / Eight bits\tno calibration"}));
    // With a model: 4 blocks of 64·64 + 64·64 + 192·64 + 64·192 weights, 4.25 and 8.25 bits each.
    bench.models.put(std::make_shared<const ModelInfo>(test::fake_model("/models/tiny")));
    QTRY_VERIFY(shown().front().contains("4.25 bits"));
    QCOMPARE(shown()[0].section('\t', 1), QString("4.25 bits · %1 · no calibration").arg(formatBytes(4 * 32768 * 4.25 / 8)));
    QCOMPARE(shown()[2].section('\t', 1), QString("8.25 bits · %1 · no calibration").arg(formatBytes(4 * 32768 * 8.25 / 8)));
    menu->actions().front()->menu()->actions().last()->trigger();
    QCOMPARE(QString::fromStdString(bench.document.recipe().name), QString("Four bits, learned"));
  }

  void a_path_is_looked_up_as_it_is_typed() {
    Bench bench;
    bench.page.setFileCheck([](const Recipe& recipe) {
      RecipeFiles files;
      if (recipe.model != "/models/there") files.problems.push_back({"model.path", recipe.model.string() + ": no such file or folder"});
      return files;
    });
    auto* line = bench.field<QLineEdit>("model.path");
    line->setFocus();
    line->selectAll();
    QTest::keyClicks(line, "/models/ther");  // and no Return
    const auto labels = line->parentWidget()->parentWidget()->findChildren<QLabel*>();
    const auto told = [&] { return std::any_of(labels.begin(), labels.end(), [](const QLabel* label) { return label->isVisible() && label->text().contains("/models/ther: no such"); }); };
    QTRY_VERIFY(told());
    QVERIFY(bench.page.findChild<ProblemList*>()->texts().value(0).contains("model.path"));
    QCOMPARE(line->text(), QString("/models/ther"));
    QTest::keyClicks(line, "e");
    QTRY_VERIFY(!told() && bench.page.obstacle().isEmpty());
    QCOMPARE(line->text(), QString("/models/there"));
    QVERIFY(bench.page.editor()->toPlainText().contains("path: /models/there\n"));
  }

  void what_was_said_of_a_recipe_goes_when_it_changes() {
    Bench bench;
    bench.page.notices()->tell(NoticeBar::Error, "The run cannot start: group size 7 does not divide 64");
    QVERIFY(bench.page.notices()->isVisible());
    bench.typeInto(bench.field<QLineEdit>("name"), "other");
    QVERIFY(bench.page.notices()->isHidden());
    // What is no complaint stays until it is closed.
    bench.page.notices()->tell(NoticeBar::Info, "Made from an LLMC file");
    bench.typeInto(bench.field<QLineEdit>("name"), "third");
    QVERIFY(bench.page.notices()->isVisible());
  }

  void a_number_type_that_does_not_exist_is_refused_at_the_field() {
    Bench bench;
    auto* type = bench.field<QComboBox>("scheme.weights.type");
    type->lineEdit()->setFocus();
    type->lineEdit()->selectAll();
    QTest::keyClicks(type->lineEdit(), "int17");
    QTest::keyClick(type->lineEdit(), Qt::Key_Return);
    QVERIFY(bench.page.editor()->toPlainText().contains("type: int4"));
    const auto labels = type->parentWidget()->findChildren<QLabel*>();
    QVERIFY(std::any_of(labels.begin(), labels.end(), [](const QLabel* label) { return label->isVisible() && label->text().contains("int17"); }));
    type->lineEdit()->selectAll();
    QTest::keyClicks(type->lineEdit(), "e3m2");
    QTest::keyClick(type->lineEdit(), Qt::Key_Return);
    QVERIFY(bench.page.editor()->toPlainText().contains("type: e3m2"));
  }

  void a_storage_type_fixes_the_other_fields() {
    Bench bench;
    auto* type = bench.field<QComboBox>("scheme.weights.type");
    QVERIFY(type->findText("q4_K") >= 0 && type->findText("nvfp4") >= 0);
    auto choose = [&](const char* text) {
      type->lineEdit()->setFocus();
      type->lineEdit()->selectAll();
      QTest::keyClicks(type->lineEdit(), text);
      QTest::keyClick(type->lineEdit(), Qt::Key_Return);
    };
    choose("q4_K");
    QVERIFY(bench.document.recipe().scheme.weights == spec_of(Storage::q4_k));
    for (const char* key : {"group_size", "mse_grid"}) QVERIFY(!bench.field<QSpinBox>(QString("scheme.weights.%1").arg(key))->isVisibleTo(&bench.page));
    choose("int3");
    QCOMPARE(bench.document.recipe().scheme.weights->type.bits, 3);
    QVERIFY(bench.document.recipe().scheme.weights->storage == Storage::none);
    QVERIFY(bench.field<QSpinBox>("scheme.weights.group_size")->isVisibleTo(&bench.page));
  }

  void a_group_that_does_not_fit_the_model_is_told_before_any_run() {
    Bench bench;
    bench.models.put(std::make_shared<const ModelInfo>(test::fake_model("/models/tiny")));
    Recipe next = bench.document.recipe();
    next.scheme.weights->group_size = 48;  // divides 192, not 64
    bench.document.setRecipe(next, "g", "edit");
    QTRY_VERIFY(bench.page.obstacle().contains("model.layers.0.self_attn.q_proj"));
    QVERIFY(bench.page.obstacle().contains("48"));
    next.scheme.weights->group_size = 32;
    bench.document.setRecipe(next, "h", "edit");
    QTRY_VERIFY(bench.page.obstacle().isEmpty());
  }

  void the_summary_counts_bits_with_scales() {
    const ModelInfo model = test::fake_model("/models/tiny", 1);
    Recipe recipe;
    recipe.scheme.weights = QuantSpec{};
    recipe.scheme.weights->group_size = 64;
    SchemeFit fit = fitRecipe(recipe, &model);
    QVERIFY(fit.problems.isEmpty());
    QVERIFY2(fit.summary.contains("4.25 bits"), qPrintable(fit.summary));  // 4 + 16 / 64
    // An embedding of 96 × 128 beside the linears, and a tied head that is none of its own.
    ModelInfo whole = model;
    whole.before = {{"model.embed_tokens.weight", "model.embed_tokens.weight", "embedding", {96, 128}, "BF16", 96 * 128 * 2}};
    whole.after = {{"lm_head.weight", "model.embed_tokens.weight", "head", {96, 128}, "tied", 0, true}};
    whole.tied_embeddings = true;
    double linears = 0;
    for (const LinearInfo& linear : model.blocks.front().linears) linears += double(linear.out_features * linear.in_features);
    Recipe both = recipe;
    both.scheme.head = default_spec(SpecRole::weights);
    both.scheme.head->type.bits = 8;
    both.scheme.head->group_size = 32;
    fit = fitRecipe(both, &whole);
    QVERIFY(fit.problems.isEmpty());
    const double mean = (4.25 * linears + 8.5 * 96 * 128) / (linears + 96 * 128);
    QVERIFY2(fit.summary.contains(QString("%1 bits per weight with scales · linears, embedding and head in codes").arg(mean, 0, 'f', 2)), qPrintable(fit.summary));
    both.scheme.head->group_size = 48;
    fit = fitRecipe(both, &whole);
    QCOMPARE(fit.problems.size(), 1);
    QCOMPARE(fit.problems.front().key, QString("scheme.head.group_size"));
    QVERIFY(fit.problems.front().offers.contains("64"));
    recipe.target = TargetSpec{"compressed-tensors", "vllm"};
    QVERIFY(!fitRecipe(recipe, &model).summary.contains("scales in"));
    recipe.scheme.weights->scale_type_open = true;
    fit = fitRecipe(recipe, &model);
    QVERIFY2(fit.summary.contains("scales in bfloat16"), qPrintable(fit.summary));
  }

  void stages_are_added_moved_and_removed_by_their_buttons() {
    Bench bench;
    auto* add = [&] {
      for (QToolButton* button : bench.page.findChildren<QToolButton*>())
        if (button->text() == "Add stage") return button;
      return static_cast<QToolButton*>(nullptr);
    }();
    QVERIFY(add);
    Q_EMIT add->menu()->aboutToShow();
    QAction* first = nullptr;
    for (QAction* action : add->menu()->actions())
      if (!action->isSeparator()) {
        first = action;
        break;
      }
    QVERIFY(first);
    Recipe empty = bench.document.recipe();
    empty.pipeline.clear();
    bench.document.setRecipe(empty, "p", "edit");
    first->trigger();
    QCOMPARE(bench.document.recipe().pipeline.size(), size_t(1));
    QTest::qWait(20);  // new widgets come into view
    auto* remove = [&] {
      for (QToolButton* button : bench.page.findChildren<QToolButton*>())
        if (button->isVisibleTo(&bench.page) && button->accessibleName().startsWith("Remove 1.")) return button;
      return static_cast<QToolButton*>(nullptr);
    }();
    QVERIFY(remove);
    QTest::mouseClick(remove, Qt::LeftButton);
    QCOMPARE(bench.document.recipe().pipeline.size(), size_t(0));
  }

  void the_menu_of_stages_offers_what_the_pipeline_can_take() {
    Bench bench;
    Recipe recipe = bench.document.recipe();
    recipe.pipeline = {{"awq", {}}, {"clip", {}}, {"gptq", {}}};
    bench.document.setRecipe(recipe, "p", "edit");
    QMenu* menu = nullptr;
    for (QToolButton* button : bench.page.findChildren<QToolButton*>())
      if (button->menu()) {
        Q_EMIT button->menu()->aboutToShow();
        for (QAction* action : button->menu()->actions())
          if (action->text().contains("(wanda)")) menu = button->menu();
      }
    QVERIFY(menu);
    auto action = [&](const char* method) {
      for (QAction* each : menu->actions())
        if (each->text().contains(QStringLiteral("(%1)").arg(method))) return each;
      return static_cast<QAction*>(nullptr);
    };
    QVERIFY(!action("rtn")->isEnabled());
    QVERIFY2(action("rtn")->toolTip().contains("gptq"), qPrintable(action("rtn")->toolTip()));
    QVERIFY(action("wanda")->isEnabled());
    action("wanda")->trigger();
    QStringList methods;
    for (const StageSpec& stage : bench.document.recipe().pipeline) methods << QString::fromStdString(stage.method);
    QCOMPARE(methods, QStringList({"awq", "clip", "wanda", "gptq"}));
  }

  void static_ranges_have_one_scale_per_tensor() {
    Bench bench;
    Recipe next = bench.document.recipe();
    next.scheme.activations = QuantSpec{};
    next.scheme.activations->granularity = Granularity::token;
    next.calibration = CalibrationSpec{};
    next.calibration->corpus.path = "c.txt";
    bench.document.setRecipe(next, "x", "edit");
    auto* dynamic = bench.field<QCheckBox>("scheme.activations.dynamic");
    QVERIFY(dynamic->isChecked() && dynamic->toolTip().contains("one scale per tensor"));
    dynamic->click();
    QCOMPARE(bench.document.recipe().scheme.activations->granularity, Granularity::tensor);
    QVERIFY(!bench.document.recipe().scheme.activations->dynamic);
    auto* scales = bench.field<QComboBox>("scheme.activations.granularity");
    QCOMPARE(scales->currentData().toString(), QString("tensor"));
    QVERIFY2(!bench.document.problem(), qPrintable(bench.document.problem().value_or(RecipeProblem{}).message));
    // And the other way round: scales for each token are of each call.
    Q_EMIT scales->activated(scales->findData("token"));
    QVERIFY(bench.document.recipe().scheme.activations->dynamic);
    QVERIFY(dynamic->isChecked());
  }

  void a_quantized_model_is_taken_for_numbers_where_that_is_said() {
    Bench bench;
    auto* box = bench.field<QCheckBox>("model.dequantize");
    QVERIFY(!box->isVisibleTo(&bench.page));
    std::atomic<bool> coded = true;
    bench.page.setFileCheck([&coded](const Recipe&) {
      RecipeFiles files;
      files.coded_model = coded;
      return files;
    });
    QTRY_VERIFY(box->isVisibleTo(&bench.page));
    QVERIFY(bench.page.obstacle().contains("quantized already"));
    QVERIFY(box->text().contains("codes stand for"));
    box->click();
    QVERIFY(bench.document.recipe().dequantize);
    QVERIFY(bench.page.editor()->toPlainText().contains("dequantize: true"));
    QTRY_VERIFY(bench.page.obstacle().isEmpty());
    // Said of a float model it stays in sight.
    coded = false;
    bench.typeInto(bench.field<QLineEdit>("name"), "other");
    QTest::qWait(50);
    QVERIFY(box->isVisibleTo(&bench.page));
  }

  void an_importance_matrix_is_a_file_that_must_be_there() {
    Bench bench;
    auto* line = bench.field<QLineEdit>("calibration.importance");
    QVERIFY(!line->isVisibleTo(&bench.page));
    Recipe next = bench.document.recipe();
    next.scheme.weights = spec_of(*parse_storage("q4_K"));
    next.pipeline = {{"rtn", {{"importance", true}}}};
    next.calibration = CalibrationSpec{};
    next.calibration->corpus.path = "c.txt";
    bench.document.setRecipe(next, "x", "edit");
    QVERIFY(line->isVisibleTo(&bench.page));
    std::atomic<int> asked = 0;
    bench.page.setFileCheck([&asked](const Recipe& recipe) {
      ++asked;
      RecipeFiles files;
      if (recipe.importance == "/gone.gguf") files.problems.push_back({"calibration.importance", "/gone.gguf: no such file"});
      return files;
    });
    bench.typeInto(line, "/gone.gguf");
    QVERIFY(bench.page.editor()->toPlainText().contains("importance: /gone.gguf"));
    const auto labels = line->parentWidget()->parentWidget()->findChildren<QLabel*>();
    const auto told = [&] { return std::any_of(labels.begin(), labels.end(), [](const QLabel* label) { return label->isVisible() && label->text().contains("no such file"); }); };
    QTRY_VERIFY(told());
    QVERIFY(bench.page.obstacle().contains("no such file"));
    bench.typeInto(line, "/there.gguf");
    QTRY_VERIFY(bench.page.obstacle().isEmpty());
    QVERIFY(!told() && asked > 1);
  }

  void a_file_dropped_on_a_path_field_becomes_its_path() {
    Bench bench;
    auto* model = bench.field<QLineEdit>("model.path");
    QMimeData mime;
    mime.setUrls({QUrl::fromLocalFile("/models/other.gguf")});
    QDragEnterEvent enter(QPoint(5, 5), Qt::CopyAction, &mime, Qt::LeftButton, Qt::NoModifier);
    QCoreApplication::sendEvent(model, &enter);
    QVERIFY(enter.isAccepted());
    QDropEvent drop(QPointF(5, 5), Qt::CopyAction, &mime, Qt::LeftButton, Qt::NoModifier);
    QCoreApplication::sendEvent(model, &drop);
    QCOMPARE(bench.document.recipe().model, std::filesystem::path("/models/other.gguf"));
  }

  void the_editor_leaves_dropped_files_to_the_window() {
    Bench bench;
    QMimeData mime;
    mime.setUrls({QUrl::fromLocalFile("/models/a.yaml")});
    QDragEnterEvent enter(QPoint(5, 5), Qt::CopyAction, &mime, Qt::LeftButton, Qt::NoModifier);
    QCoreApplication::sendEvent(bench.page.editor()->viewport(), &enter);
    QVERIFY(!enter.isAccepted());
  }

  void tab_walks_through_the_form_and_out_of_the_editor() {
    Bench bench;
    QVERIFY(QTest::qWaitForWindowActive(&bench.page));
    auto* name = bench.field<QLineEdit>("name");
    name->setFocus();
    QSet<QWidget*> seen;
    for (int i = 0; i < 80; ++i) {
      QWidget* focus = QApplication::focusWidget();
      QVERIFY(focus);
      if (seen.contains(focus)) break;
      seen << focus;
      QTest::keyClick(focus, Qt::Key_Tab);
    }
    for (const char* key : {"model.path", "scheme.weights.type", "scheme.weights.group_size", "evaluate_float"}) QVERIFY2(seen.contains(bench.field<QWidget>(key)), key);
    QVERIFY(seen.contains(bench.page.editor()));
    QCOMPARE(bench.page.editor()->toPlainText().count('\t'), 0);
  }

  void enter_keeps_the_indentation_and_deepens_it_after_a_colon() {
    YamlEditor editor;
    editor.setPlainText("scheme:\n  weights:");
    editor.moveCursor(QTextCursor::End);
    QTest::keyClick(&editor, Qt::Key_Return);
    QTest::keyClicks(&editor, "type: int4");
    QTest::keyClick(&editor, Qt::Key_Return);
    QTest::keyClicks(&editor, "range: mse");
    QCOMPARE(editor.toPlainText(), QString("scheme:\n  weights:\n    type: int4\n    range: mse"));
  }
};

QTEST_MAIN(TestRecipePage)
#include "test_recipe_page.moc"
