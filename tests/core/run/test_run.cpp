#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <algorithm>
#include <cmath>
#include <csignal>
#include <set>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/engine.h"
#include "core/engine/run_state.h"
#include "core/measure/report_json.h"
#include "core/run/run.h"
#include "core/run/run_export.h"

namespace fs = std::filesystem;

namespace {

const fs::path kDemo = QBENCH_SOURCE_DIR "/resources/demo";

qb::Recipe small(const std::string& file) {
  qb::Recipe recipe = qb::load_recipe(kDemo / "recipes" / file);
  recipe.calibration->sampling.samples = 4;
  recipe.calibration->sampling.seq_len = 64;
  recipe.evaluation.at(0).seq_len = 64;
  recipe.evaluation.at(0).windows = 4;
  return recipe;
}

// A report without what differs from one session to the next.
nlohmann::json result_of(const qb::RunReport& report) {
  auto json = nlohmann::json::parse(qb::to_json(report));
  for (const char* key : {"id", "started", "finished", "load_seconds", "quantize_seconds", "measure_seconds", "evaluate_seconds", "peak_rss_bytes", "style", "costs", "statistics_cached_blocks"}) json.erase(key);
  for (auto& block : json["blocks"]) {
    block.erase("seconds");
    block.erase("peak_rss_bytes");
    block.erase("statistics_cached");
    for (auto& linear : block["linears"]) linear.erase("seconds");
  }
  for (auto& evaluation : json["evaluations"]) evaluation.erase("seconds");
  return json;
}

// Carries a run out in a process that is killed as soon as its second block is reported.
int carry_out_and_die(const char* workspace, const char* id) {
  qb::RunObserver observer;
  observer.on_block = [](const qb::BlockReport& block) {
    if (block.block == 1) ::raise(SIGKILL);
  };
  qb::carry_out(*qb::Workspace::open(workspace), id, {}, {}, observer);
  return 1;
}

}  // namespace

class TestRun : public QObject {
  Q_OBJECT
  std::unique_ptr<QTemporaryDir> place_;
  std::shared_ptr<qb::Workspace> workspace_;

  // Stops a run as soon as its second block is reported.
  bool is_cancelled_after_two_blocks(const std::string& id) {
    std::stop_source stop;
    qb::Control control;
    control.stop = stop.get_token();
    qb::RunObserver observer;
    observer.on_block = [&](const qb::BlockReport& block) {
      if (block.block == 1) stop.request_stop();
    };
    try {
      qb::carry_out(*workspace_, id, {}, control, observer);
    } catch (const qb::Cancelled&) {
      const qb::RunReport report = workspace_->load(id);
      return report.status == qb::RunStatus::cancelled && report.blocks.size() == 2;
    }
    return false;
  }
  qb::RunReport whole(const qb::Recipe& recipe) { return qb::carry_out(*workspace_, workspace_->create_run(recipe), {}, {}); }
  void expect_same_blocks(const std::string& a, const std::string& b) {
    for (int i = 0; i < 4; ++i)
      QVERIFY(qb::read_text(qb::block_path(workspace_->run_folder(a), i)) == qb::read_text(qb::block_path(workspace_->run_folder(b), i)));
  }

 private Q_SLOTS:
  void init() {
    place_ = std::make_unique<QTemporaryDir>();
    workspace_ = qb::Workspace::open(place_->path().toStdString());
  }

  void a_whole_run_tells_what_it_did() {
    const std::string id = workspace_->create_run(small("w4.yaml"));
    std::vector<int> seen;
    std::vector<double> fractions;
    std::set<std::string> phases;
    qb::RunObserver observer;
    observer.on_block = [&](const qb::BlockReport& block) {
      seen.push_back(block.block);
      QVERIFY(fs::exists(qb::block_report_path(workspace_->run_folder(id), block.block)));  // durable before it is shown
    };
    qb::Control control;
    control.on_progress = [&](const qb::Progress& p) {
      fractions.push_back(p.fraction);
      phases.insert(p.phase);
    };
    const qb::RunReport report = qb::carry_out(*workspace_, id, {}, control, observer);
    QCOMPARE(report.status, qb::RunStatus::finished);
    QCOMPARE(seen, (std::vector<int>{0, 1, 2, 3}));
    QVERIFY(std::is_sorted(fractions.begin(), fractions.end()));
    QVERIFY(fractions.front() >= 0 && fractions.back() > 0.99 && fractions.back() <= 1);
    QVERIFY(phases.contains("quantize") && phases.contains("evaluate"));

    QCOMPARE(report.bits_per_weight, 4 + 20.0 / 64);  // a 16-bit scale and a 4-bit zero point for 64 weights
    QCOMPARE(report.calibration_tokens, 256);
    QCOMPARE(report.float_bytes, uint64_t{4} * 2 * (256 * 256 * 2 + 128 * 256 * 2 + 3 * 256 * 256));
    QVERIFY(report.peak_rss_bytes > 0 && report.quantize_seconds > 0 && report.evaluate_seconds > 0 && report.load_seconds > 0);
    QVERIFY(!report.model_hash.empty() && !report.calibration_hash.empty() && !report.recipe_hash.empty());
    QVERIFY(!report.environment.cpu.empty() && report.environment.threads > 0);
    QCOMPARE(report.evaluations.size(), size_t{2});
    QVERIFY(report.evaluations[0].float_model && !report.evaluations[1].float_model);
    QVERIFY(report.evaluations[1].value("perplexity") > report.evaluations[0].value("perplexity"));
    QCOMPARE(report.evaluations[1].windows, 4);

    // The weight errors, once more and plainly, from the files.
    const auto model = qb::Model::open(kDemo);
    const auto quantized = qb::quantized_source(model, workspace_->run_folder(id));
    for (const qb::BlockReport& block : report.blocks) {
      QCOMPARE(block.linears.size(), size_t{7});
      QVERIFY(block.output_relative_error > 0 && block.output_relative_error < 0.5);
      for (const qb::LinearReport& linear : block.linears) {
        const std::string name = "model.layers." + std::to_string(block.block) + "." + linear.name + ".weight";
        const at::Tensor error = quantized->read(name).to(at::kDouble) - model->source->read(name).to(at::kDouble);
        const double mse = error.square().mean().item<double>();
        QVERIFY2(std::abs(linear.weight_mse - mse) < 1e-5 * mse, name.c_str());
        QVERIFY(linear.output_relative_error > 0 && linear.output_relative_error < 0.5);
        QCOMPARE(linear.measured_tokens, 256);
        QVERIFY(linear.seconds > 0);
      }
    }
    QCOMPARE(qb::to_json(qb::Workspace::open(workspace_->folder())->load(id)), qb::to_json(report));
    QVERIFY(qb::read_text(workspace_->run_folder(id) / "log.txt").find("finished") != std::string::npos);
  }
  void fewer_bits_are_worse_and_the_float_model_is_measured_once() {
    const qb::RunReport four = whole(small("w4.yaml")), two = whole(small("w2.yaml"));
    QVERIFY(two.evaluations[1].value("perplexity") > four.evaluations[1].value("perplexity"));
    QVERIFY(two.blocks[0].linears[0].output_relative_error > four.blocks[0].linears[0].output_relative_error);
    QVERIFY(two.evaluations[0].seconds == four.evaluations[0].seconds);  // the stored result, not another measurement
    QCOMPARE(two.evaluations[0].values("nll"), four.evaluations[0].values("nll"));
  }
  void a_second_recipe_takes_its_statistics_from_the_cache() {
    qb::Recipe recipe = small("w4.yaml");
    recipe.propagate_quantized = false;
    recipe.pipeline = {{"awq", {}}};
    QCOMPARE(whole(recipe).statistics_cached_blocks, 0);
    QVERIFY(fs::exists(qb::statistics_cache_path(workspace_->folder())));
    recipe.pipeline = {{"awq", {}}, {"clip", {}}, {"gptq", {}}};
    const qb::RunReport second = whole(recipe);
    QCOMPARE(second.statistics_cached_blocks, 4);
    QCOMPARE(workspace_->load(second.id).statistics_cached_blocks, 4);
    QVERIFY(qb::read_text(workspace_->run_folder(second.id) / "log.txt").find("statistics of 4 of 4 blocks came from the cache") != std::string::npos);
    const qb::RunReport without = qb::carry_out(*workspace_, workspace_->create_run(recipe), {"cpu", 0}, {});
    QCOMPARE(without.statistics_cached_blocks, 0);
    expect_same_blocks(second.id, without.id);
    QVERIFY(second.evaluations[1].value("perplexity") == without.evaluations[1].value("perplexity"));
  }
  void a_cancelled_run_goes_on_to_the_same_result() {
    const qb::RunReport straight = whole(small("w4.yaml"));
    const std::string id = workspace_->create_run(small("w4.yaml"));
    QVERIFY(is_cancelled_after_two_blocks(id));
    const auto kept = fs::last_write_time(qb::block_path(workspace_->run_folder(id), 1));
    const qb::RunReport resumed = qb::carry_out(*workspace_, id, {}, {});
    QVERIFY(fs::last_write_time(qb::block_path(workspace_->run_folder(id), 1)) == kept);
    expect_same_blocks(straight.id, id);
    QCOMPARE(QByteArray::fromStdString(result_of(resumed).dump()), QByteArray::fromStdString(result_of(straight).dump()));
  }
  void a_killed_run_goes_on_to_the_same_result() {
    const qb::RunReport straight = whole(small("w4.yaml"));
    const std::string id = workspace_->create_run(small("w4.yaml"));
    QProcess process;
    process.start(QCoreApplication::applicationFilePath(), {"--die", place_->path(), QString::fromStdString(id)});
    QVERIFY(process.waitForFinished(60000));
    QCOMPARE(process.exitStatus(), QProcess::CrashExit);
    QCOMPARE(workspace_->load(id).status, qb::RunStatus::interrupted);  // its process is gone
    const auto reopened = qb::Workspace::open(workspace_->folder());
    QCOMPARE(reopened->load(id).status, qb::RunStatus::interrupted);
    QCOMPARE(reopened->load(id).blocks.size(), size_t{2});
    // As if it had been killed between a durable block and its report.
    fs::remove(qb::block_report_path(reopened->run_folder(id), 1));
    const qb::RunReport resumed = qb::carry_out(*reopened, id, {}, {});
    expect_same_blocks(straight.id, id);
    QCOMPARE(QByteArray::fromStdString(result_of(resumed).dump()), QByteArray::fromStdString(result_of(straight).dump()));
  }
  void a_stopped_run_with_a_damaged_block_report_goes_on() {
    const qb::RunReport straight = whole(small("w4.yaml"));
    const std::string id = workspace_->create_run(small("w4.yaml"));
    QVERIFY(is_cancelled_after_two_blocks(id));
    qb::write_atomically(qb::block_report_path(workspace_->run_folder(id), 1), "{");
    // Its report was last saved before that block.
    qb::RunReport before = workspace_->load(id);
    before.blocks.clear();
    workspace_->save(before);
    const auto reopened = qb::Workspace::open(workspace_->folder());
    QCOMPARE(reopened->load(id).blocks.size(), size_t{1});
    QCOMPARE(QByteArray::fromStdString(result_of(qb::carry_out(*reopened, id, {}, {})).dump()), QByteArray::fromStdString(result_of(straight).dump()));
    expect_same_blocks(straight.id, id);
  }
  void a_block_whose_report_is_damaged_is_made_again() {
    const qb::RunReport straight = whole(small("w4.yaml"));
    const fs::path folder = workspace_->run_folder(straight.id);
    qb::write_atomically(qb::block_report_path(folder, 2), "{");
    const auto untouched = fs::last_write_time(qb::block_path(folder, 1)), made_again = fs::last_write_time(qb::block_path(folder, 2));
    const qb::RunReport again = qb::carry_out(*workspace_, straight.id, {}, {});
    QVERIFY(fs::last_write_time(qb::block_path(folder, 1)) == untouched);
    QVERIFY(fs::last_write_time(qb::block_path(folder, 2)) != made_again);
    QCOMPARE(QByteArray::fromStdString(result_of(again).dump()), QByteArray::fromStdString(result_of(straight).dump()));
  }
  void what_the_target_does_not_take_is_said_before_any_work() {
    qb::Recipe recipe = small("w4.yaml");
    recipe.scheme.weights->symmetric = true;
    recipe.target = qb::TargetSpec{"compressed-tensors", "vllm"};
    const auto refusal = [&](const qb::Recipe& r) -> std::string {
      try {
        qb::preflight(r);
      } catch (const qb::RecipeError& e) {
        return e.key() + ": " + e.detail();
      }
      return "accepted";
    };
    QCOMPARE(refusal(recipe), std::string("accepted"));
    // The recipe says nothing of scales, and the model is bfloat16.
    auto notes = qb::preflight(recipe);
    QVERIFY2(notes.size() == 1 && notes[0].find("scales are stored as bfloat16") != std::string::npos, notes.empty() ? "" : notes[0].c_str());
    recipe.scheme.weights->scale_type_open = false;
    notes = qb::preflight(recipe);
    QVERIFY(notes.size() == 1 && notes[0].find("scales are float16") != std::string::npos && notes[0].find("scale_type: bfloat16") != std::string::npos);
    recipe.scheme.weights->scale_type = qb::ScaleType::bf16;
    QVERIFY(qb::preflight(recipe).empty());
    qb::Recipe apple = recipe;
    apple.target = qb::TargetSpec{"mlx", "mlx-lm"};
    QVERIFY(qb::preflight(apple).empty());
    apple.scheme.weights->scale_type = qb::ScaleType::f16;
    notes = qb::preflight(apple);
    QVERIFY(notes.size() == 1 && notes[0].find("wider") != std::string::npos);
    // q, k and v are one matrix there.
    qb::Recipe mixed = recipe;
    mixed.scheme.overrides.push_back({"*.q_proj", *recipe.scheme.weights});
    mixed.scheme.overrides.back().weights->type.bits = 8;
    std::string said = refusal(mixed);
    QVERIFY2(said.find("target: ") == 0 && said.find("_proj and 3 more: ") != std::string::npos && said.find("must have one scheme") != std::string::npos, said.c_str());
    mixed.target->engine = "transformers";  // which keeps them apart
    QCOMPARE(refusal(mixed), std::string("accepted"));
    qb::Recipe kept = recipe;
    kept.scheme.ignore = {"*.2.self_attn.k_proj"};
    said = refusal(kept);
    QVERIFY2(said.find("model.layers.2.self_attn.k_proj: ") != std::string::npos && said.find("stays float") != std::string::npos, said.c_str());
    qb::Recipe rotated = recipe;
    rotated.pipeline = {{"quarot", {{"online_down", true}}}, {"rtn", {}}};
    QCOMPARE(refusal(rotated), std::string("accepted"));  // its transform_config says so
    rotated.target->engine = "vllm-cpu";
    said = refusal(rotated);
    QVERIFY2(said.find("model.layers.0.mlp.down_proj and 3 more: ") != std::string::npos && said.find("does not rotate inputs at run time") != std::string::npos, said.c_str());
    const std::string id = workspace_->create_run(rotated);
    QVERIFY_EXCEPTION_THROWN(qb::carry_out(*workspace_, id, {}, {}), qb::RecipeError);
    QVERIFY(!fs::exists(workspace_->run_folder(id) / "blocks"));
  }
  void a_cancelled_import_goes_on_to_the_same_result() {
    qb::Recipe recipe = small("w4.yaml");
    recipe.scheme.weights->group_size = 64;
    const qb::RunReport own = whole(recipe);
    const qb::FinishedRun run = qb::open_run(workspace_->run_folder(own.id));
    const fs::path folder = fs::path(place_->path().toStdString()) / "out";
    qb::export_checkpoint(run.model, {"compressed-tensors", "", folder, 1'000'000, {}}, {});
    recipe.scheme = {};
    recipe.pipeline.clear();
    recipe.checkpoint = folder;
    const qb::RunReport straight = whole(recipe);
    QCOMPARE(straight.pipeline, std::string("imported"));
    QCOMPARE(straight.scheme, own.scheme);
    QCOMPARE(straight.evaluations[1].value("perplexity"), own.evaluations[1].value("perplexity"));
    const std::string id = workspace_->create_run(recipe);
    QVERIFY(is_cancelled_after_two_blocks(id));
    const qb::RunReport resumed = qb::carry_out(*workspace_, id, {}, {});
    expect_same_blocks(straight.id, id);
    QCOMPARE(QByteArray::fromStdString(result_of(resumed).dump()), QByteArray::fromStdString(result_of(straight).dump()));
    const std::string half = workspace_->create_run(recipe);
    QVERIFY(is_cancelled_after_two_blocks(half));
    // Another checkpoint in its place is another run's.
    fs::remove_all(folder);
    recipe = small("w4.yaml");
    recipe.scheme.weights->type.bits = 8;
    const qb::RunReport other = whole(recipe);
    qb::export_checkpoint(qb::open_run(workspace_->run_folder(other.id)).model, {"compressed-tensors", "", folder, 1'000'000, {}}, {});
    QVERIFY_EXCEPTION_THROWN(qb::carry_out(*workspace_, half, {}, {}), qb::InputError);
    QVERIFY_EXCEPTION_THROWN(qb::open_run(workspace_->run_folder(straight.id)), qb::InputError);
  }
  void a_failure_is_written_down_and_thrown() {
    qb::Recipe recipe = small("w4.yaml");
    recipe.scheme.weights->group_size = 48;
    const std::string id = workspace_->create_run(recipe);
    QVERIFY_EXCEPTION_THROWN(qb::carry_out(*workspace_, id, {}, {}), qb::InputError);
    const qb::RunReport report = workspace_->load(id);
    QCOMPARE(report.status, qb::RunStatus::failed);
    QVERIFY2(report.error.find("q_proj") != std::string::npos && report.error.find("48") != std::string::npos, report.error.c_str());
    QVERIFY_EXCEPTION_THROWN(qb::preflight(recipe), qb::InputError);
  }
  void text_is_optional_where_nothing_learns_from_it() {
    qb::Recipe recipe = small("w4.yaml");
    recipe.calibration.reset();
    recipe.evaluation.clear();
    const qb::RunReport report = whole(recipe);
    QCOMPARE(report.status, qb::RunStatus::finished);
    QCOMPARE(report.calibration_tokens, 0);
    QVERIFY(report.evaluations.empty());
    QVERIFY(report.blocks.at(3).linears.at(6).weight_mse > 0);
    QVERIFY(std::isnan(report.blocks.at(3).linears.at(6).output_relative_error));
  }
  void activations_are_quantized_in_measurement_and_evaluation() {
    qb::Recipe recipe = small("w4.yaml");
    const qb::RunReport weights_only = whole(recipe);
    recipe.scheme.activations = qb::QuantSpec{};
    recipe.scheme.activations->granularity = qb::Granularity::token;
    recipe.scheme.activations->type = *qb::NumberType::parse("int3");
    const qb::RunReport both = whole(recipe);
    QVERIFY(both.evaluations[1].value("perplexity") > weights_only.evaluations[1].value("perplexity"));
    QVERIFY(both.blocks[0].linears[0].output_relative_error > weights_only.blocks[0].linears[0].output_relative_error);
    QVERIFY(!both.blocks[0].linears[0].input_after.empty() && weights_only.blocks[0].linears[0].input_after.empty());
    QVERIFY(both.evaluations[0].value("perplexity") == weights_only.evaluations[0].value("perplexity"));
  }
};

int main(int argc, char** argv) {
  if (argc == 4 && std::string(argv[1]) == "--die") return carry_out_and_die(argv[2], argv[3]);
  QCoreApplication application(argc, argv);
  TestRun test;
  return QTest::qExec(&test, argc, argv);
}
#include "test_run.moc"
