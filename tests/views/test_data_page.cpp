#include <QAbstractItemModelTester>
#include <QComboBox>
#include <QLabel>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QtTest/QtTest>
#include <atomic>
#include <cmath>

#include "fake_services.h"
#include "views/Workbench.h"
#include "views/pages/DataPage.h"
#include "views/plots/HistogramPlot.h"
#include "views/plots/RankPlot.h"

using namespace qb;
using namespace qb::views;

namespace {

ComparedText text_of(const std::string& name, const std::string& role, const std::vector<std::vector<int32_t>>& sequences, const std::vector<std::vector<int32_t>>& first) {
  ComparedText text{name, role, "samples", token_profile(name, sequences), {}, 0.1};
  if (!first.empty()) text.against_first = compare_tokens(first, sequences);
  return text;
}

TextComparison made_up(const std::vector<std::filesystem::path>& others) {
  const std::vector<std::vector<int32_t>> calibration = {{1, 1, 1, 2, 2, 3}, {1, 2, 4, 4}}, same = {{1, 1, 2, 2, 3, 4}}, far = {{7, 7, 8, 8, 8, 1}, {9, 9}};
  TextComparison all;
  all.vocabulary = 10;
  for (int32_t id = 0; id < 10; ++id) all.tokens[id] = "Ġtoken" + std::to_string(id);
  all.texts = {text_of("calib.txt", "calibration", calibration, {}), text_of("eval.txt", "perplexity", same, calibration)};
  for (const auto& path : others) {
    all.texts.push_back(text_of(path.filename().string(), "", far, calibration));
    all.texts.back().against_first.shared_passages = 0.25;
    all.texts.back().shared = {{"the same words again", 21}};
  }
  return all;
}

}  // namespace

class TestDataPage : public QObject {
  Q_OBJECT

  struct Bench {
    std::shared_ptr<test::Pace> pace = std::make_shared<test::Pace>();
    std::atomic<int> asked{0};
    std::atomic<bool> waits{false}, stopped{false};
    std::string fails;
    std::unique_ptr<Workbench> workbench;
    std::unique_ptr<DataPage> page;

    Bench() {
      Services services = test::fake_services(pace);
      services.compareTexts = [this](const Recipe&, const std::vector<std::filesystem::path>& others, const std::stop_token& stop) {
        ++asked;
        while (waits && !stop.stop_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        if (stop.stop_requested()) {
          stopped = true;
          throw Cancelled();
        }
        if (!fails.empty()) throw InputError(fails);
        return made_up(others);
      };
      workbench = std::make_unique<Workbench>(services);
      page = std::make_unique<DataPage>(workbench.get());
      page->resize(900, 640);
      Recipe recipe = test::fake_recipe("r");
      recipe.calibration.emplace();
      recipe.calibration->corpus.path = "/texts/calib.txt";
      recipe.evaluation.emplace_back();
      recipe.evaluation.back().corpus.path = "/texts/eval.txt";
      workbench->document()->open(recipe, "Open");
    }
    ~Bench() {
      waits = false;
      page.reset();
      workbench.reset();
    }
    QString all() const {
      QStringList texts;
      for (const QLabel* label : page->findChildren<QLabel*>())
        if (label->isVisibleTo(page.get())) texts << label->text();
      return texts.join('\n');
    }
  };

 private Q_SLOTS:
  void initTestCase() { QLocale::setDefault(QLocale::c()); }

  void tokens_keep_the_models_promises_and_show_their_spaces() {
    TokenShiftModel model;
    QAbstractItemModelTester tester(&model, QAbstractItemModelTester::FailureReportingMode::QtTest);
    const auto all = std::make_shared<const TextComparison>(made_up({"far.txt"}));
    model.setShifts(all, all->texts[2].against_first.missing);
    QVERIFY(model.rowCount() >= 3);
    QCOMPARE(model.index(0, TokenShiftModel::Token).data().toString(), QString(QChar(0x2423)) + "token8");  // what adds most
    QCOMPARE(model.index(0, TokenShiftModel::InCalibration).data().toString(), QStringLiteral("0 %"));
    QCOMPARE(model.index(0, TokenShiftModel::InUse).data().toString(), QStringLiteral("37.5 %"));
    QCOMPARE(model.index(0, TokenShiftModel::Times).data().toString(), QStringLiteral("only there"));
    model.setShifts(nullptr, {});
    QCOMPARE(model.rowCount(), 0);
  }

  void the_verdict_follows_the_figures() {
    const TextComparison all = made_up({"far.txt"});
    ComparedText text = all.texts[1];
    text.against_first.jensen_shannon = 0.12;
    QCOMPARE(likenessOf(text), Likeness::Alike);  // 1.2 times what its own stretches differ by
    QVERIFY(!verdictOf(all.texts[0], text).warns);
    text.against_first.jensen_shannon = 0.2;
    QCOMPARE(likenessOf(text), Likeness::Somewhat);
    text.against_first.jensen_shannon = 0.5;
    QCOMPARE(likenessOf(text), Likeness::Different);
    text.halves = std::nan("");  // too short to be halved: as it stands
    QCOMPARE(likenessOf(text), Likeness::Different);
    text.against_first.jensen_shannon = 0.05;
    QCOMPARE(likenessOf(text), Likeness::Alike);
    text.against_first.shared_passages = 0.01;
    const Verdict verdict = verdictOf(all.texts[0], text);
    QVERIFY(verdict.warns && verdict.sentences.join(' ').contains("Leak: 1 %"));
  }

  void texts_are_compared_when_the_page_is_seen_and_only_when_they_change() {
    Bench bench;
    QTest::qWait(50);
    QCOMPARE(bench.asked.load(), 0);
    bench.page->show();
    QTRY_VERIFY(bench.page->comparison());
    QCOMPARE(bench.asked.load(), 1);
    QVERIFY(!bench.page->findChild<RankPlot*>()->isEmpty());
    QVERIFY(!bench.page->findChild<HistogramPlot*>()->isEmpty());
    QCOMPARE(bench.page->findChild<RankPlot*>()->table().rows.size(), 4 + 4);
    QVERIFY2(bench.all().contains("eval.txt"), qPrintable(bench.all()));
    Recipe recipe = bench.workbench->document()->recipe();
    recipe.name = "another name";
    bench.workbench->document()->setRecipe(recipe, "name", "Name");
    QTest::qWait(600);
    QCOMPARE(bench.asked.load(), 1);
    recipe.calibration->sampling.samples = 7;
    bench.workbench->document()->setRecipe(recipe, "calibration.samples", "Samples");
    QTRY_COMPARE(bench.asked.load(), 2);
  }

  void a_text_that_is_dropped_is_compared_and_its_leak_told() {
    Bench bench;
    bench.page->show();
    QTRY_VERIFY(bench.page->comparison());
    bench.page->addFiles({"/texts/far.txt"});
    QTRY_COMPARE(bench.page->findChild<QComboBox*>()->count(), 2);
    QVERIFY(bench.page->findChild<QComboBox*>()->currentText().contains("far.txt"));
    QVERIFY(bench.all().contains("unlike"));
    QVERIFY(bench.all().contains("Leak: 25 %"));
    QVERIFY(bench.page->findChild<QPlainTextEdit*>()->toPlainText().contains("the same words again"));
  }

  void errors_and_what_is_missing_are_told_where_they_arise_and_a_stop_stops() {
    Bench bench;
    bench.fails = "/texts/eval.txt: there is no such file";
    bench.page->show();
    QTRY_VERIFY(bench.all().contains("there is no such file"));
    Recipe recipe = bench.workbench->document()->recipe();
    recipe.calibration.reset();
    bench.workbench->document()->setRecipe(recipe, "calibration", "None");
    QTRY_VERIFY(bench.all().contains("no calibration text"));
    bench.fails.clear();
    bench.waits = true;
    bench.workbench->document()->undoStack()->undo();
    QPushButton* stop = nullptr;
    for (QPushButton* each : bench.page->findChildren<QPushButton*>())
      if (each->text() == "Stop") stop = each;
    QTRY_VERIFY(stop->isVisible());
    stop->click();
    QTRY_VERIFY(bench.stopped.load());
    QVERIFY(!stop->isVisible());
    QVERIFY(!bench.page->comparison());
  }
};

QTEST_MAIN(TestDataPage)
#include "test_data_page.moc"
