#include <QtTest/QtTest>
#include <cmath>

#include "core/base/error.h"
#include "core/run/best_practice.h"
#include "core/run/missing_runs.h"

using namespace qb;
namespace fs = std::filesystem;

namespace {

const fs::path kDemo = QBENCH_SOURCE_DIR "/resources/demo";

Recipe recipe_of(const std::string& name, const std::string& scheme, const std::string& pipeline, const std::string& text = "calibration.txt") {
  return parse_recipe("name: " + name + "\nmodel: {path: '" + kDemo.string() + "'}\ncalibration: {corpus: '" + (kDemo / text).string() + "', samples: 4, seq_len: 64}\nscheme: {" + scheme +
                          "}\npipeline: [" + pipeline + "]\nevaluation: [{corpus: '" + (kDemo / "evaluation.txt").string() + "', seq_len: 64}]\n",
                      name);
}

std::vector<std::string> names(const MissingRuns& missing, Takeaway takeaway) {
  std::vector<std::string> found;
  for (const MissingRun& one : missing.runs)
    if (one.takeaway == takeaway) found.push_back(one.recipe.name);
  return found;
}

constexpr const char* kInt4 = "weights: {type: int4, group_size: 64, symmetric: false}";

}  // namespace

class TestBestPractice : public QObject {
  Q_OBJECT
  std::unique_ptr<QTemporaryDir> place_;
  std::shared_ptr<Workspace> workspace_;

  std::string add(const Recipe& recipe, double loss, double megabytes, RunStatus status = RunStatus::finished) {
    const std::string id = workspace_->create_run(recipe);
    RunReport report = workspace_->load(id);
    report.status = status;
    report.model_hash = status == RunStatus::queued ? "" : "demo";  // found when it runs
    report.model_bytes = static_cast<uint64_t>(megabytes * 1e6);
    report.quantize_seconds = 1;
    EvaluationResult result;
    result.corpus_hash = "text";
    result.put({"perplexity", std::exp(loss), 0.1});
    result.put({"nll", loss, 0.01, {loss - 0.1, loss + 0.1}});
    report.evaluations = {result};
    workspace_->save(report);
    return id;
  }
  std::vector<RunReport> finished() const {
    std::vector<RunReport> runs = workspace_->list();
    std::erase_if(runs, [](const RunReport& run) { return run.status != RunStatus::finished; });
    return runs;
  }

 private Q_SLOTS:
  void init() {
    place_ = std::make_unique<QTemporaryDir>();
    workspace_ = Workspace::open(fs::path(place_->path().toStdString()) / "ws");
  }

  void an_engine_takes_what_its_table_says() {
    QCOMPARE(loadable_formats(recipe_of("q8", "weights: {type: q8_0}", "rtn"), "llama.cpp").formats, std::vector<std::string>{"gguf"});
    const LoadableFormats none = loadable_formats(recipe_of("int4", kInt4, "rtn"), "llama.cpp");
    QVERIFY(none.formats.empty());
    QVERIFY2(none.why.find("llama.cpp loads it in no format (gguf: ") == 0, none.why.c_str());
    QVERIFY_THROWS_EXCEPTION(InputError, loadable_formats(recipe_of("int4", kInt4, "rtn"), "nobody"));

    add(recipe_of("int4", kInt4, "rtn"), 2, 5);
    const std::string q8 = add(recipe_of("q8", "weights: {type: q8_0}", "rtn"), 2.5, 9);
    BestWanted wanted;
    QCOMPARE(best_practice(*workspace_, finished(), wanted).runs.size(), size_t{2});
    wanted.engine = "llama.cpp";
    const BestPractice found = best_practice(*workspace_, finished(), wanted);
    QCOMPARE(found.runs.size(), size_t{1});
    QCOMPARE(found.runs[static_cast<size_t>(found.chosen)].report.id, q8);
    QCOMPARE(found.runs[0].formats, std::vector<std::string>{"gguf"});
    QVERIFY(found.left_out.size() == 1 && found.left_out[0].name == "int4" && found.left_out[0].why.find("no format") != std::string::npos);
    QVERIFY(recipe_with_evidence(*workspace_, found, wanted).find("# llama.cpp loads it as gguf\n") != std::string::npos);
  }

  void the_rule_asks_for_the_stages_that_nobody_ran() {
    add(recipe_of("rtn", kInt4, "rtn"), 2.2, 5);
    add(recipe_of("awq and clip", kInt4, "awq, clip"), 2, 5);
    const BestPractice found = best_practice(*workspace_, finished(), {});
    const MissingRuns missing = missing_runs(*workspace_, found, {});
    QCOMPARE(names(missing, Takeaway::pipeline), (std::vector<std::string>{"awq → rtn, W4A16 g64 asymmetric", "awq → clip → gptq, W4A16 g64 asymmetric"}));
    for (const MissingRun& one : missing.runs) {
      QVERIFY(!one.why.empty());
      QCOMPARE(one.recipe.evaluation, workspace_->recipe(found.runs[0].report.id).evaluation);  // so that figures compare
      QCOMPARE(parse_recipe(to_yaml(one.recipe), "missing"), one.recipe);
    }
    const auto schemes = names(missing, Takeaway::scheme);
    QVERIFY(std::any_of(schemes.begin(), schemes.end(), [](const std::string& name) { return name.find("W8A16") != std::string::npos; }));
    QVERIFY(std::any_of(schemes.begin(), schemes.end(), [](const std::string& name) { return name.find("W8A8") != std::string::npos; }));
    QVERIFY(std::none_of(schemes.begin(), schemes.end(), [](const std::string& name) { return name.find("W4A16") != std::string::npos; }));
    QVERIFY(std::any_of(missing.advice.begin(), missing.advice.end(), [](const std::string& line) { return line.find("only one calibration text was tried (calibration.txt)") == 0; }));
    // What waits in the queue is answered; what failed is not.
    for (const MissingRun& one : missing.runs) add(one.recipe, 3, 5, one.takeaway == Takeaway::pipeline ? RunStatus::queued : RunStatus::failed);
    const MissingRuns again = missing_runs(*workspace_, best_practice(*workspace_, finished(), {}), {});
    QCOMPARE(names(again, Takeaway::pipeline), std::vector<std::string>());
    QCOMPARE(names(again, Takeaway::scheme), schemes);
  }

  void a_text_that_other_runs_used_is_asked_for_under_the_best_pipeline() {
    add(recipe_of("best", kInt4, "gptq"), 2, 5);
    add(recipe_of("other text", kInt4, "awq, clip", "evaluation.txt"), 2.2, 5);
    const BestPractice found = best_practice(*workspace_, finished(), {});
    const MissingRuns missing = missing_runs(*workspace_, found, {});
    QCOMPARE(names(missing, Takeaway::data), std::vector<std::string>{"best, calibrated on evaluation.txt"});
    for (const MissingRun& one : missing.runs)
      if (one.takeaway == Takeaway::data) QVERIFY(one.recipe.pipeline[0].method == "gptq" && one.recipe.calibration->corpus.path.filename() == "evaluation.txt");
  }

  void filters_hold_for_what_is_proposed() {
    add(recipe_of("q8", "weights: {type: q8_0}", "rtn"), 2, 9);
    BestWanted wanted;
    wanted.engine = "llama.cpp";
    for (const MissingRun& one : missing_runs(*workspace_, best_practice(*workspace_, finished(), wanted), wanted).runs) QVERIFY(!loadable_formats(one.recipe, "llama.cpp").formats.empty());
    wanted.engine.clear();
    wanted.hardware = HardwareProfile{"small", "small", "", 1e3, 1e9, {{"float32", 1e12}, {"int8", 1e12}}};  // one kilobyte
    BestPractice found = best_practice(*workspace_, finished(), {});
    QVERIFY(missing_runs(*workspace_, found, wanted).runs.empty());
    // Fast enough at decode, too slow at prefill.
    wanted.hardware->memory_bytes = 1e12;
    wanted.prefill = 1e15;
    found = best_practice(*workspace_, finished(), wanted);
    QVERIFY(found.runs.empty());
    QVERIFY2(found.left_out.at(0).why.ends_with("tokens/s of prefill on small"), found.left_out.at(0).why.c_str());
    wanted.prefill = 1;
    QCOMPARE(best_practice(*workspace_, finished(), wanted).runs.size(), size_t{1});
    // Wider weights than asked for are not proposed either.
    BestWanted narrow;
    narrow.bits = 5;
    for (const MissingRun& one : missing_runs(*workspace_, best_practice(*workspace_, finished(), {}), narrow).runs) QVERIFY2(bits_per_weight(*one.recipe.scheme.weights, 4096, 4096) <= 5, one.recipe.name.c_str());
  }
};

QTEST_GUILESS_MAIN(TestBestPractice)
#include "test_best_practice.moc"
