#include <QAbstractItemModelTester>
#include <QComboBox>
#include <QDoubleSpinBox>
#include <QLabel>
#include <QPushButton>
#include <QTableView>
#include <QTemporaryDir>
#include <QTextBrowser>
#include <QtTest/QtTest>
#include <atomic>

#include "core/base/files.h"
#include "fake_services.h"
#include "views/Workbench.h"
#include "views/pages/BestPage.h"
#include "views/pages/NoticeBar.h"
#include "views/plots/ParetoPlot.h"

using namespace qb;
using namespace qb::views;

class TestBestPage : public QObject {
  Q_OBJECT

  // Finished runs of one model in a workspace: small and slow, large and better, and one that only the large one beats.
  struct Bench {
    QTemporaryDir place;
    std::shared_ptr<test::Pace> pace = std::make_shared<test::Pace>();
    std::string fails;
    BestQuestion asked;
    std::atomic<int> answers{0};
    std::unique_ptr<Workbench> workbench;
    std::unique_ptr<BestPage> page;

    std::filesystem::path folder() const { return place.filePath("ws").toStdString(); }

    void add(Workspace& workspace, const std::string& name, double perplexity, double megabytes, double bits, double seconds) {
      Recipe recipe = test::fake_recipe(name);
      recipe.calibration.emplace();
      recipe.calibration->corpus.path = name == "bad" ? "/texts/other.txt" : "/texts/calib.txt";
      RunReport report = workspace.load(workspace.create_run(recipe));
      test::DemoOptions options;
      options.perplexity = perplexity;
      report.evaluations = test::demo_run(options)->evaluations;
      report.status = RunStatus::finished;
      report.model_hash = test::fake_hash(report.model_path);
      report.bits_per_weight = bits;
      report.model_bytes = uint64_t(megabytes * 1e6);
      report.model_float_bytes = uint64_t(200e6);
      report.quantize_seconds = seconds;
      workspace.save(report);
    }

    explicit Bench(bool runs = true) {
      if (const auto workspace = Workspace::open(folder(), Workspace::Absent::create); runs) {
        add(*workspace, "small", 24, 80, 4.5, 20);
        add(*workspace, "large", 22, 150, 8.5, 5);
        add(*workspace, "bad", 40, 160, 8.5, 10);
      }
      const BestChooser chooser = [this](const WorkspacePtr& workspace, const BestQuestion& question, const std::stop_token& stop) {
        if (!fails.empty()) throw InputError(fails);
        asked = question;
        BestAnswer answer = chooseBest(workspace, question, stop);
        answer.missing = {};  // of a model that there is
        if (answer.found.chosen >= 0) answer.missing.runs.push_back({test::fake_recipe("awq <first>"), Takeaway::pipeline, "nobody transformed"});
        ++answers;
        return answer;
      };
      workbench = std::make_unique<Workbench>(test::fake_services(pace));
      page = std::make_unique<BestPage>(workbench.get(), chooser);
      page->resize(1000, 640);
      workbench->openWorkspace(QString::fromStdString(folder().string()));
    }
    ~Bench() {
      page.reset();
      workbench.reset();
    }
    bool open() {
      page->show();
      return QTest::qWaitFor([this] { return answers > 0 && workbench->background()->idle(); });
    }
    QString said() const {
      QStringList texts;
      for (const QLabel* label : page->findChildren<QLabel*>())
        if (label->isVisibleTo(page.get())) texts << label->text();
      for (const QTextBrowser* box : page->findChildren<QTextBrowser*>()) texts << box->toPlainText();
      return texts.join('\n');
    }
    QPushButton* button(const QString& text) const {
      for (QPushButton* one : page->findChildren<QPushButton*>())
        if (one->text().remove('&').startsWith(text)) return one;
      return nullptr;
    }
    template <class Box>
    Box* box(const QString& name) const {
      for (Box* one : page->findChildren<Box*>())
        if (one->accessibleName() == name) return one;
      return nullptr;
    }
    QString cell(int row, int column) const { return page->candidates()->index(row, column).data().toString(); }
  };

 private Q_SLOTS:
  void initTestCase() { QLocale::setDefault(QLocale::c()); }

  void without_finished_runs_it_says_what_to_do() {
    Bench bench(false);
    bench.page->show();
    QTRY_VERIFY2(bench.said().contains("Start some on the Recipe page"), qPrintable(bench.said()));
    QVERIFY(!bench.button("Use this recipe")->isVisibleTo(bench.page.get()));
  }

  void the_best_one_stands_first_with_its_reasons() {
    Bench bench;
    QVERIFY(bench.open());
    QAbstractItemModelTester tester(bench.page->candidates(), QAbstractItemModelTester::FailureReportingMode::QtTest);
    QCOMPARE(bench.page->candidates()->rowCount(), 3);
    QCOMPARE(bench.cell(0, 0), QStringLiteral("large"));  // by perplexity
    QCOMPARE(bench.cell(0, 1), QStringLiteral("take this one"));
    QCOMPARE(bench.cell(1, 1), QStringLiteral("not beaten"));  // smaller
    QCOMPARE(bench.cell(2, 1), QStringLiteral("beaten by large"));
    QVERIFY2(bench.said().contains("Take large\nPerplexity 22.0"), qPrintable(bench.said()));
    QVERIFY(bench.said().contains("Calibrated on calib.txt"));
    QVERIFY(bench.said().contains("awq <first> (pipeline): nobody transformed"));
    auto* plot = bench.page->findChild<ParetoPlot*>();
    QCOMPARE(plot->table().rows.size(), 3);
    // A click makes it the current run everywhere, and the other way round.
    auto* table = bench.page->findChild<QTableView*>();
    table->setCurrentIndex(bench.page->candidates()->index(2, 0));
    const auto current = [&] {
      const RunEntry* run = bench.workbench->selection()->find(bench.workbench->selection()->currentRun());
      return run ? QString::fromStdString(run->report->name) : QString();
    };
    QTRY_COMPARE(current(), QStringLiteral("bad"));
    QVERIFY2(bench.said().contains("Beaten by large; against it: Perplexity +18.0"), qPrintable(bench.said()));
    const QString small = QString::fromStdString(bench.page->candidates()->candidate(1)->report.id);
    bench.workbench->makeCurrent(small);
    QTRY_COMPARE(table->currentIndex().row(), 1);
  }

  void what_is_asked_for_leaves_others_out_with_their_reasons() {
    Bench bench;
    QVERIFY(bench.open());
    bench.box<QDoubleSpinBox>("Bits per weight at most")->setValue(5);
    QTRY_COMPARE(bench.cell(0, 0), QStringLiteral("small"));
    QCOMPARE(bench.asked.wanted.bits, 5.0);
    QCOMPARE(bench.page->candidates()->rowCount(), 1);
    QVERIFY2(bench.said().contains("large: 8.50 bits per weight are more than 5"), qPrintable(bench.said()));
    bench.box<QDoubleSpinBox>("Size at most")->setValue(0.01);
    QTRY_VERIFY2(bench.said().contains("All 3 runs were left out"), qPrintable(bench.said()));
    QVERIFY(!bench.button("Write recipe")->isEnabled());
    bench.box<QDoubleSpinBox>("Size at most")->setValue(0);
    bench.box<QDoubleSpinBox>("Bits per weight at most")->setValue(0);
    auto* text = bench.box<QComboBox>("Calibration text");
    QTRY_COMPARE(bench.page->candidates()->rowCount(), 3);
    text->setCurrentIndex(text->findData("other.txt"));
    Q_EMIT text->activated(text->currentIndex());
    QTRY_COMPARE(bench.page->candidates()->rowCount(), 1);
    QCOMPARE(bench.cell(0, 0), QStringLiteral("bad"));
    QCOMPARE(text->currentText(), QStringLiteral("other.txt"));
    // A speed is asked for only of hardware that is known.
    QVERIFY(!bench.box<QDoubleSpinBox>("Decode at least")->isEnabled());
  }

  void the_recipe_is_used_written_and_its_errors_are_told() {
    Bench bench;
    QVERIFY(bench.open());
    QSignalSpy shown(bench.workbench.get(), &Workbench::recipeShown);
    bench.button("Use this recipe")->click();
    QTRY_COMPARE(shown.size(), 1);
    QCOMPARE(bench.workbench->document()->recipe().name, std::string("large"));
    const QString path = bench.place.filePath("best.yaml");
    bench.page->writeRecipe(path, "ours");
    QTRY_VERIFY2(bench.page->notices()->text().contains(path), qPrintable(bench.page->notices()->text()));
    const std::string yaml = read_text(path.toStdString(), 1 << 20);
    QVERIFY2(yaml.find("# Chosen among 3 runs of ") == 0, yaml.c_str());
    QCOMPARE(parse_recipe(yaml, "best").name, std::string("large"));
    // Taken by hand: the evidence says so.
    bench.page->findChild<QTableView*>()->setCurrentIndex(bench.page->candidates()->index(2, 0));
    const QString bad = bench.place.filePath("bad.py");
    bench.page->writeRecipe(bad, "llm-compressor");
    QTRY_VERIFY2(bench.page->notices()->text().contains(bad), qPrintable(bench.page->notices()->text()));
    QVERIFY(read_text(bad.toStdString(), 1 << 20).find("# taken by hand, though large beats it") != std::string::npos);
    bench.page->writeRecipe(bench.place.filePath("no/such/folder.yaml"), "ours");
    QTRY_COMPARE(bench.page->notices()->kind(), NoticeBar::Error);
    QSignalSpy wanted(bench.page.get(), &BestPage::exportRequested);
    bench.button("Export checkpoint")->click();
    QCOMPARE(wanted.size(), 1);
    QCOMPARE(wanted[0][0].toString(), QString::fromStdString(bench.page->candidates()->candidate(2)->report.id));
  }

  void missing_runs_are_queued_at_a_click() {
    Bench bench;
    QVERIFY(bench.open());
    bench.button("Queue this run")->click();
    QTRY_COMPARE(bench.workbench->queue()->jobs().size(), 1);
    QCOMPARE(bench.workbench->queue()->jobs()[0].name, QStringLiteral("awq <first>"));
  }

  void errors_stand_on_the_page() {
    Bench bench;
    bench.fails = "runs/x/run.json: is damaged";
    bench.page->show();
    QTRY_COMPARE(bench.page->notices()->text(), QString::fromStdString(bench.fails));
    QVERIFY(bench.said().contains("could not be compared"));
  }
};

QTEST_MAIN(TestBestPage)
#include "test_best_page.moc"
