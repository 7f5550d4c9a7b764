#include <QtTest/QtTest>
#include <cmath>

#include "core/base/error.h"
#include "core/run/best_practice.h"
#include "core/run/written_report.h"

using namespace qb;
namespace fs = std::filesystem;

namespace {

EvaluationResult divergence(std::vector<double> kl, bool float_model = false) {
  EvaluationResult result;
  result.evaluator = "divergence";
  result.corpus = "use.txt";
  result.corpus_hash = "text";
  result.seq_len = 512;
  result.windows = result.windows_total = static_cast<int64_t>(kl.size());
  result.dtype = "float32";
  result.float_model = float_model;
  double mean = 0, squares = 0;
  for (const double value : kl) mean += value / static_cast<double>(kl.size());
  for (const double value : kl) squares += (value - mean) * (value - mean);
  const double n = static_cast<double>(kl.size());
  result.put({"kl", mean, std::sqrt(squares / (n - 1) / n), std::move(kl)});
  return result;
}

// Two blocks of one linear; the second is `worse` times worse.
RunReport finished(RunReport report, std::vector<double> kl, double megabytes, double worse = 3) {
  report.status = RunStatus::finished;
  report.model_name = "tiny";
  report.scheme = "W4A16 g64 asymmetric";
  report.pipeline = "awq → gptq";
  report.model_bytes = static_cast<uint64_t>(megabytes * 1e6);
  report.model_float_bytes = 200000000;
  report.bits_per_weight = 4.5;
  report.quantize_seconds = 12.25;
  report.peak_rss_bytes = 300000000;
  report.environment = {"0.1.0", "2.11.0", "cpu", "Xeon", "host", 8};
  report.costs = {{"evaluate", 3, 5, 0, 0, 0}, {"gptq", 8.5, 16, 0, 0, 0}, {"load", 0.5, 0.5, 0, 0, 0}};
  for (int b = 0; b < 2; ++b) {
    LinearReport linear;
    linear.block = b;
    linear.name = "mlp.up_proj";
    linear.scheme = "int4 g64 asymmetric";
    linear.output_relative_error = b == 0 ? 0.01 : 0.01 * worse;
    linear.measured_tokens = 4096;
    report.blocks.push_back({b, {linear}});
  }
  report.evaluations = {divergence(std::vector<double>(kl.size(), 1e-5), true), divergence(std::move(kl))};
  return report;
}

template <class Item>
std::vector<Item> all(const ReportPart& part) {
  std::vector<Item> found;
  for (const ReportItem& item : part.items)
    if (const auto* one = std::get_if<Item>(&item)) found.push_back(*one);
  return found;
}

const ReportTable* table_with(const std::vector<ReportTable>& tables, const std::string& heading) {
  for (const ReportTable& table : tables)
    if (std::find(table.header.begin(), table.header.end(), heading) != table.header.end()) return &table;
  return nullptr;
}

}  // namespace

class TestWrittenReport : public QObject {
  Q_OBJECT
  std::unique_ptr<QTemporaryDir> place_;
  std::shared_ptr<Workspace> workspace_;

  std::string add(const std::string& name, std::vector<double> kl, double megabytes, const fs::path& model = "/models/tiny") {
    Recipe recipe;
    recipe.name = name;
    recipe.model = model;
    recipe.scheme.weights = QuantSpec{};
    recipe.pipeline = {{"rtn", {}}};
    const std::string id = workspace_->create_run(recipe);
    RunReport report = workspace_->load(id);
    report.model_hash = "hash of " + model.filename().string();
    report = finished(std::move(report), std::move(kl), megabytes);
    report.model_name = model.filename().string();
    workspace_->save(report);
    return id;
  }

 private Q_SLOTS:
  void init() {
    place_ = std::make_unique<QTemporaryDir>();
    workspace_ = Workspace::open(fs::path(place_->path().toStdString()) / "ws");
  }

  void the_verdict_stands_on_the_pareto_set_and_its_paired_error() {
    // b is 0.10 ± 0.01 worse than a in windows that differ by far more, c within the error of a and larger.
    const std::string a = add("a", {0.1, 0.5, 0.2, 0.9}, 100), b = add("b", {0.21, 0.59, 0.31, 0.99}, 60), c = add("c", {0.11, 0.49, 0.19, 0.91}, 120);
    const WrittenReport report = written_report(*workspace_, {a, b, c}, {"", "qbench 1", "2026-11-29", {}});
    QCOMPARE(report.parts.size(), size_t{1});
    const ReportPart& part = report.parts.front();
    QCOMPARE(report.title, std::string("tiny quantized: 3 runs compared"));
    QVERIFY(report.subtitle.find("2026-11-29 · qbench 1") == 0);
    QCOMPARE(part.runs.at(static_cast<size_t>(part.chosen)).name, std::string("a"));
    const auto paragraphs = all<ReportParagraph>(part);
    QVERIFY(paragraphs.front().verdict);
    const std::string& verdict = paragraphs.front().text;
    QVERIFY2(verdict.find("Take a: KL divergence 0.425 ± 0.18") == 0 && verdict.find("size 100.0 MB (50 % of the float model's 200.0 MB), time 12.2 s. ") != std::string::npos, verdict.c_str());
    QVERIFY2(verdict.find("no different within twice the paired error from c") != std::string::npos && verdict.find("2 of 3 runs are not beaten") != std::string::npos, verdict.c_str());
    const auto tables = all<ReportTable>(part);
    const ReportTable* choice = table_with(tables, "Δ KL to a");
    QVERIFY(choice);
    QCOMPARE(choice->marked, 0);
    QCOMPARE(choice->rows[0].front(), std::string("a"));
    QCOMPARE(choice->rows[1].front(), std::string("b"));
    QCOMPARE(choice->rows[1].at(4), std::string("+0.10000 ± 0.0058"));  // differences 0.11, 0.09, 0.11, 0.09
    QCOMPARE(choice->rows[2].back(), std::string("beaten by a"));
  }

  void tables_tell_figures_cost_worst_linears_and_how_to_repeat() {
    const std::string a = add("a", {0.1, 0.5}, 100), b = add("b", {0.2, 0.6}, 60);
    const WrittenReport report = written_report(*workspace_, {a, b}, {"My title", "", "", {}});
    QCOMPARE(report.title, std::string("My title"));
    const ReportPart& part = report.parts.front();
    const auto tables = all<ReportTable>(part);
    const ReportTable* runs = table_with(tables, "Peak memory (MB)");
    QVERIFY(runs);
    QCOMPARE(runs->header, (std::vector<std::string>{"Run", "load (s)", "gptq (s)", "evaluate (s)", "All (s)", "Processor (s)", "Peak memory (MB)"}));
    QCOMPARE(runs->rows[1], (std::vector<std::string>{"b", "0.50", "8.50", "3.00", "12.2", "21.5", "300.0"}));
    const ReportTable* worst = table_with(tables, "Output relative error");
    QCOMPARE(worst->rows.front().front(), std::string("1"));
    QVERIFY(worst->caption.find("4096 calibration tokens") != std::string::npos);
    const ReportTable* list = table_with(tables, "Size (MB)");
    QVERIFY(list && table_with(tables, "KL divergence"));
    QVERIFY(!table_with(tables, "Scheme") || table_with(tables, "Scheme") == worst);  // the same of both runs: said once, below the table
    bool common = false;
    for (const auto& paragraph : all<ReportParagraph>(part)) common = common || paragraph.text.find("Scheme: W4A16 g64 asymmetric; Pipeline: awq → gptq") != std::string::npos;
    QVERIFY(common);
    const auto codes = all<ReportCode>(part);
    QCOMPARE(codes.size(), size_t{3});
    QVERIFY(codes[0].text.find("qbench run recipe.yaml") == 0);
    QCOMPARE(parse_recipe(codes[1].text, "report"), workspace_->recipe(a));
    std::vector<ReportPicture::Kind> kinds;
    for (const auto& picture : all<ReportPicture>(part)) kinds.push_back(picture.kind);
    using Kind = ReportPicture::Kind;
    QCOMPARE(kinds, (std::vector<Kind>{Kind::metric, Kind::pareto, Kind::differences, Kind::errors, Kind::runs_heat, Kind::heat_map, Kind::cost}));
  }

  void every_model_has_a_part_and_names_are_told_apart() {
    const std::string a = add("same", {0.1, 0.5}, 100), b = add("same", {0.2, 0.6}, 60), c = add("other", {0.1, 0.2}, 60, "/models/small");
    const WrittenReport report = written_report(*workspace_, {a, b, c}, {});
    QCOMPARE(report.parts.size(), size_t{2});
    QCOMPARE(written_report(*workspace_, {}, {}).parts.size(), size_t{2});  // all that are finished
    QCOMPARE(std::get<ReportHeading>(report.parts[1].items.front()).text, std::string("small"));
    QCOMPARE(report.parts[0].runs[1].name, "same (" + b + ")");
    QCOMPARE(report.parts[1].runs[0].id, c);
    QCOMPARE(report.parts[0].runs[0].id, a);
  }

  void runs_that_are_not_finished_and_none_at_all_are_refused() {
    QVERIFY_THROWS_EXCEPTION(InputError, written_report(*workspace_, {}, {}));
    const std::string a = add("a", {0.1, 0.5}, 100);
    RunReport report = workspace_->load(a);
    report.status = RunStatus::cancelled;
    workspace_->save(report);
    try {
      written_report(*workspace_, {a}, {});
      QFAIL("a cancelled run was reported");
    } catch (const InputError& error) {
      QVERIFY(std::string(error.what()).find("run a is cancelled") != std::string::npos);
    }
  }

  void runs_without_figures_are_told_so() {
    const std::string a = add("a", {0.1, 0.5}, 100);
    RunReport run = workspace_->load(a);
    run.evaluations.clear();
    workspace_->save(run);
    const WrittenReport report = written_report(*workspace_, {a}, {});
    QCOMPARE(report.parts.front().chosen, -1);
    const auto paragraphs = all<ReportParagraph>(report.parts.front());
    QVERIFY(paragraphs.front().text.find("No run has all of ppl, size, time") == 0);
    QVERIFY(std::any_of(paragraphs.begin(), paragraphs.end(), [](const auto& p) { return p.text.find("None of these runs was evaluated") == 0; }));
  }
};

QTEST_GUILESS_MAIN(TestWrittenReport)
#include "test_written_report.moc"
