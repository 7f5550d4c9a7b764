#include <QAction>
#include <QComboBox>
#include <QDoubleSpinBox>
#include <QLabel>
#include <QMenu>
#include <QPushButton>
#include <QSignalSpy>
#include <QSpinBox>
#include <QTemporaryDir>
#include <QtTest/QtTest>
#include <cmath>

#include "core/base/files.h"
#include "fake_services.h"
#include "views/Workbench.h"
#include "views/pages/BitsMenu.h"
#include "views/pages/BitsPage.h"
#include "views/pages/SurveyDialog.h"
#include "views/plots/BitStripPlot.h"
#include "views/plots/TornadoPlot.h"

using namespace qb;
using namespace qb::views;

namespace {

constexpr int kBlocks = 4;

// The made-up model with a k_proj that shares q_proj's input.
ModelInfo model_with_keys(const std::filesystem::path& path) {
  ModelInfo model = test::fake_model(path, kBlocks);
  for (BlockInfo& block : model.blocks) {
    for (size_t i = 0; i < block.linears.size(); ++i) block.linears[i].input = int(i);
    LinearInfo k = block.linears[0];
    k.name = "self_attn.k_proj";
    k.tensor = "model.layers." + std::to_string(block.index) + ".self_attn.k_proj.weight";
    block.linears.insert(block.linears.begin() + 1, k);
  }
  return model;
}

// Costs fall by four a bit; the first block's and down_proj's are larger. One linear was measured.
Sensitivity made_up_survey(const ModelInfo& model, const SensitivityWish& wish) {
  Sensitivity s;
  s.model_path = model.path.string();
  s.model_name = model.name;
  s.model_hash = model.hash;
  s.corpus = "/texts/calib.txt";
  s.samples = 16;
  s.seq_len = 512;
  s.rounding = "rtn";
  s.loss = "kl";
  s.candidates = wish.candidates;
  for (const BlockInfo& block : model.blocks)
    for (const LinearInfo& linear : block.linears) {
      LinearSensitivity l{block.index, linear.name, "model.layers." + std::to_string(block.index) + "." + linear.name, linear.input, false, linear.out_features, linear.in_features, 100, {}};
      for (const std::string& candidate : wish.candidates) {
        const QuantSpec spec = *parse_candidate(candidate);
        CandidateSensitivity c;
        c.candidate = candidate;
        c.bits = std::llround(bits_per_weight(spec, l.out_features, l.in_features) * double(l.out_features * l.in_features));
        c.relative_error = std::pow(4.0, -spec.type.bits);
        c.fisher = c.guided = c.relative_error * (linear.name == "mlp.down_proj" ? 8 : 1) * (block.index == 0 ? 4 : 1);
        if (block.index == 1) c.measured = 1.1 * c.guided, c.measured_error = 0.1 * c.guided;
        l.candidates.push_back(c);
      }
      s.linears.push_back(l);
    }
  s.correlations = rank_correlations(s);
  return s;
}

}  // namespace

class TestBitsPage : public QObject {
  Q_OBJECT

  struct Bench {
    QTemporaryDir folder;
    std::shared_ptr<test::Pace> pace = std::make_shared<test::Pace>();
    std::unique_ptr<Workbench> workbench;
    std::unique_ptr<BitsPage> page;
    QString fails;

    bool open() {
      Services services = test::fake_services(pace);
      services.inspectModel = model_with_keys;
      services.storedSensitivities = [](const std::filesystem::path& workspace, const std::string& hash) { return stored_sensitivities(workspace, hash); };
      services.surveySensitivity = [this](const std::filesystem::path& workspace, const SensitivityWish& wish, const Control& control) {
        Progress progress;
        progress.fraction = 0.5;
        control.report(progress);
        if (!fails.isEmpty()) throw InputError(fails.toStdString());
        const auto file = workspace / "sensitivity" / "tiny.json";
        std::filesystem::create_directories(file.parent_path());
        write_atomically(file, to_json(made_up_survey(model_with_keys(wish.recipe.model), wish)));
        return file;
      };
      workbench = std::make_unique<Workbench>(services);
      page = std::make_unique<BitsPage>(workbench.get());
      page->resize(700, 520);
      page->show();
      workbench->document()->open(test::fake_recipe("four bits"), "Open");
      workbench->openWorkspace(folder.path() + "/ws");
      workbench->openModel("/models/tiny");
      if (!QTest::qWaitForWindowExposed(page.get())) return false;
      const bool opened = QTest::qWaitFor([&] { return workbench->workspace() && page->plan().linears.size() == 5 * kBlocks; });
      QTest::qWait(60);  // plots are laid out when they are drawn
      return opened;
    }
    ~Bench() {
      page.reset();
      workbench.reset();
    }
    const Scheme& scheme() const { return workbench->document()->recipe().scheme; }
    int linear(int block, const char* name) const {
      for (int i = 0; i < int(page->plan().linears.size()); ++i)
        if (page->plan().linears[size_t(i)].block == block && page->plan().linears[size_t(i)].name == name) return i;
      return -1;
    }
    QPushButton* button(const QString& text) const {
      for (QPushButton* each : page->findChildren<QPushButton*>())
        if (each->text() == text) return each;
      return nullptr;
    }
    QString said(const char* name) const {
      for (QLabel* label : page->findChildren<QLabel*>())
        if (label->accessibleName() == QLatin1String(name)) return label->text();
      return {};
    }
    bool survey() {
      SensitivityWish wish;
      wish.recipe = workbench->document()->recipe();
      wish.candidates = candidates_beside(*scheme().weights);
      workbench->startSurvey(wish, "tiny");
      return QTest::qWaitFor([&] { return bool(page->survey()); });
    }
  };

 private Q_SLOTS:
  void initTestCase() { QLocale::setDefault(QLocale::c()); }

  void bits_are_changed_with_what_engines_join_and_become_overrides() {
    Bench bench;
    QVERIFY(bench.open());
    auto* strip = bench.page->findChild<BitStripPlot*>();
    QCOMPARE(strip->table().rows.size(), 5 * kBlocks);
    QVERIFY(!bench.button("Write into the recipe")->isEnabled());
    QVERIFY(!bench.button("Optimise")->isEnabled());  // nothing is known of sensitivity
    const QString before = bench.said("What these bits come to");
    // A digit on the strip: the linear that is current there, and its tie.
    const int k = bench.linear(2, "self_attn.k_proj");
    QTest::mouseClick(strip, Qt::LeftButton, {}, strip->pixelOf(k).toPoint());
    for (QMenu* menu : bench.page->findChildren<QMenu*>()) menu->close();
    QCOMPARE(bench.workbench->selection()->currentLinear(), (LinearKey{2, "self_attn.k_proj"}));
    QTest::keyClick(strip, Qt::Key_8);
    for (const char* name : {"self_attn.q_proj", "self_attn.k_proj"}) QCOMPARE(bench.page->plan().linears[size_t(bench.linear(2, name))].weights->type.bits, 8);
    QCOMPARE(bench.page->plan().linears[size_t(bench.linear(2, "self_attn.o_proj"))].weights->type.bits, 4);
    QVERIFY(bench.said("What these bits come to") != before);
    QVERIFY(strip->describe(strip->pixelOf(k)).contains("before: int4"));
    QVERIFY(strip->describe(strip->pixelOf(k)).contains("q_proj, k_proj"));  // it says why
    QVERIFY(bench.scheme().overrides.empty());
    // Into the recipe, and back by one undo.
    bench.button("Write into the recipe")->click();
    QCOMPARE(bench.scheme().weights_of("model.layers.2.self_attn.q_proj")->type.bits, 8);
    QCOMPARE(bench.scheme().weights_of("model.layers.1.self_attn.q_proj")->type.bits, 4);
    QVERIFY(!bench.button("Write into the recipe")->isEnabled());
    bench.workbench->document()->undoStack()->undo();
    QVERIFY(bench.scheme().overrides.empty());
    QCOMPARE(bench.page->plan().linears[size_t(k)].weights->type.bits, 4);
    // What was changed and not written is taken back.
    bench.page->giveBits(k, std::nullopt);
    QVERIFY(!bench.page->plan().linears[size_t(k)].weights);
    bench.button("Take back")->click();
    QCOMPARE(bench.page->plan().linears[size_t(k)].weights->type.bits, 4);
  }

  void a_survey_is_kept_shown_and_found_again() {
    Bench bench;
    QVERIFY(bench.open());
    auto* tornado = bench.page->findChild<TornadoPlot*>();
    QVERIFY(tornado->isEmpty());
    QVERIFY(bench.survey());
    QTRY_VERIFY(!tornado->isEmpty());
    const PlotTable table = tornado->table();
    QCOMPARE(table.rows.size(), 5 * kBlocks);
    QCOMPARE(table.rows[0][0].toInt(), 0);
    QCOMPARE(table.rows[0][1].toString(), QStringLiteral("mlp.down_proj"));
    for (int row = 1; row < table.rows.size(); ++row) QVERIFY(table.rows[row][3].toDouble() <= table.rows[row - 1][3].toDouble());
    QVERIFY(bench.said("How far the figures agree").contains("measured"));
    // A click on the worst bar makes it current everywhere.
    const LinearKey worst{0, "mlp.down_proj"};
    QTest::mouseClick(tornado, Qt::LeftButton, {}, (tornado->pixelOf(worst) + QPointF(2, 0)).toPoint());
    QCOMPARE(bench.workbench->selection()->currentLinear(), worst);
    // Only what was measured has a bar for it.
    auto* figure = bench.page->findChild<QComboBox*>();
    for (QComboBox* each : bench.page->findChildren<QComboBox*>())
      if (each->findData(int(Figure::Measured)) >= 0 && each->findText(figureTitle(Figure::Measured)) >= 0) figure = each;
    figure->setCurrentIndex(figure->findText(figureTitle(Figure::Measured)));
    Q_EMIT figure->activated(figure->currentIndex());
    QCOMPARE(tornado->table().rows.size(), 5);
    QVERIFY(tornado->table().rows[0][4].toDouble() > 0);
    // The next start finds it in the workspace.
    BitsPage again(bench.workbench.get());
    QTRY_VERIFY(again.survey());
    QCOMPARE(again.survey()->linears.size(), size_t(5 * kBlocks));
  }

  void a_survey_that_fails_says_why() {
    Bench bench;
    bench.fails = "candidate int2g64 fits no linear";
    QVERIFY(bench.open());
    SensitivityWish wish;
    wish.recipe = bench.workbench->document()->recipe();
    bench.workbench->startSurvey(wish, "tiny");
    const auto told = [&] {
      const auto labels = bench.page->findChildren<QLabel*>();
      return std::any_of(labels.begin(), labels.end(), [](const QLabel* label) { return label->text().contains("fits no linear"); });
    };
    QTRY_VERIFY(told());
    QVERIFY(!bench.page->survey());
    QCOMPARE(bench.workbench->queue()->jobs().last().state, JobState::Failed);
  }

  void the_best_bits_under_a_budget_keep_to_it_and_beat_one_scheme_for_all() {
    Bench bench;
    QVERIFY(bench.open());
    QVERIFY(bench.survey());
    auto* budget = bench.page->findChild<QDoubleSpinBox*>();
    const Sensitivity& survey = *bench.page->survey();
    budget->setValue(total_of(bench.page->plan()).bits_per_weight);  // what int4 for all takes
    const double uniform = total_of(bench.page->plan(), &survey).predicted;
    bench.button("Optimise")->click();
    QTRY_VERIFY(bench.said("What these bits come to").contains("% less"));
    const PlanTotal total = total_of(bench.page->plan(), &survey);
    QVERIFY(total.bits_per_weight <= budget->value() + 1e-9);
    QVERIFY(total.predicted < uniform);
    for (int block = 0; block < kBlocks; ++block)
      QVERIFY(bench.page->plan().linears[size_t(bench.linear(block, "self_attn.q_proj"))].weights == bench.page->plan().linears[size_t(bench.linear(block, "self_attn.k_proj"))].weights);
    QVERIFY(bench.page->writeIntoRecipe());
    for (const PlannedLinear& l : bench.page->plan().linears) QVERIFY(bench.scheme().weights_of(l.module) == l.weights);
    // A budget that cannot be met is told beside it.
    budget->setValue(1);
    bench.button("Optimise")->click();
    const auto told = [&] {
      const auto labels = bench.page->findChildren<QLabel*>();
      return std::any_of(labels.begin(), labels.end(), [](const QLabel* label) { return label->isVisible() && label->text().contains("not enough"); });
    };
    QTRY_VERIFY(told());
  }

  void a_linear_is_given_bits_from_wherever_it_is_pointed_at() {
    Bench bench;
    QVERIFY(bench.open());
    QMenu menu;
    addBitsMenu(&menu, {1, "mlp.down_proj"}, [&](const LinearKey& key, int bits) { bench.workbench->giveBits(key, bits); });
    const auto actions = menu.actions();
    const auto eight = std::find_if(actions.begin(), actions.end(), [](const QAction* action) { return action->text().contains("8 bits"); });
    QVERIFY(eight != actions.end());
    (*eight)->trigger();
    QCOMPARE(bench.scheme().weights_of("model.layers.1.mlp.down_proj")->type.bits, 8);
    QSignalSpy status(bench.workbench.get(), &Workbench::status);
    bench.workbench->giveBits({1, "self_attn.q_proj"}, 8);
    QVERIFY(status.last()[0].toString().contains("q_proj, k_proj together"));
    QCOMPARE(bench.scheme().overrides.size(), size_t(2));
    bench.workbench->giveBits({1, "self_attn.k_proj"}, 0);
    QVERIFY(!bench.scheme().weights_of("model.layers.1.self_attn.q_proj"));
    QCOMPARE(bench.scheme().overrides.size(), size_t(2));
    // The recipe is another model's: nothing changes, and it is said.
    const Scheme before = bench.scheme();
    QSignalSpy notices(bench.workbench.get(), &Workbench::notice);
    bench.workbench->openModel("/models/other");
    QTRY_COMPARE(bench.workbench->selection()->openModel()->name, std::string("other"));
    bench.workbench->giveBits({0, "mlp.down_proj"}, 8);
    QCOMPARE(notices.size(), 1);
    QVERIFY(bench.scheme() == before);
  }

  void a_survey_is_asked_for_with_words_that_are_checked() {
    SensitivityWish wish;
    wish.recipe = test::fake_recipe("r");
    wish.recipe.calibration.emplace();
    wish.recipe.calibration->sampling.samples = 128;
    wish.candidates = {"int4g64", "int8g64"};
    auto* dialog = new SurveyDialog(wish, "tiny", 20);
    dialog->setAttribute(Qt::WA_DeleteOnClose, false);
    const std::unique_ptr<SurveyDialog> owner(dialog);
    dialog->show();
    QCOMPARE(dialog->wish().recipe.calibration->sampling.samples, int64_t(16));
    auto* candidates = dialog->findChild<QLineEdit*>();
    for (QLineEdit* each : dialog->findChildren<QLineEdit*>())
      if (each->text().startsWith("int4g64")) candidates = each;
    QPushButton* start = nullptr;
    for (QPushButton* each : dialog->findChildren<QPushButton*>())
      if (each->text().contains("Start")) start = each;
    QVERIFY(start && start->isEnabled());
    candidates->setText("int4g64, int9g64");
    QVERIFY(!start->isEnabled());
    candidates->setText("int3g64 int4g64");
    QVERIFY(start->isEnabled());
    QCOMPARE(dialog->wish().candidates, (std::vector<std::string>{"int3g64", "int4g64"}));
  }
};

QTEST_MAIN(TestBitsPage)
#include "test_bits_page.moc"
