#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <QtTest/QtTest>
#include <csignal>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/device.h"
#include "core/exporting/checkpoint.h"
#include "core/exporting/codec.h"
#include "core/exporting/formats.h"
#include "tests/core/engine/tiny_model.h"

using namespace qb;
using namespace qb::testing;
namespace fs = std::filesystem;

class TestExporting : public QObject {
  Q_OBJECT
  QTemporaryDir temporary_;
  fs::path root_;
  std::shared_ptr<const Model> model_;
  fs::path run_;
  QuantizedModel quantized_;

  // What is left beside the run and the model.
  bool nothing_left(const fs::path& folder) const {
    return !fs::exists(folder) && std::none_of(fs::directory_iterator(root_), {}, [](const auto& entry) { return holds(entry.path().string(), "partial"); });
  }

 private Q_SLOTS:
  void initTestCase() {
    initialise_compute(2);
    root_ = temporary_.path().toStdString();
    run_ = root_ / "run";
    EngineJob job = tiny_job(write_tiny_llama(root_ / "model"), run_);
    job.scheme.activations.reset();
    job.scheme.weights->type.bits = 4;
    model_ = job.model;
    run_engine(job, {}, {});
    quantized_ = quantized_model(job.model, job.folder);
  }

  void every_format_is_read_back_as_it_was_written() {
    for (const FormatInfo& format : export_formats()) {
      const fs::path folder = root_ / format.name;
      const ExportOutlook outlook = export_outlook(quantized_, format.name);
      QCOMPARE(outlook.bytes == 0, !outlook.obstacles.empty());
      if (!outlook.obstacles.empty()) continue;
      const ExportResult result = export_checkpoint(quantized_, {format.name, "", folder, 5'000'000'000, {}, {}}, {});
      QVERIFY(result.bytes > 0 && result.write_seconds > 0);
      const uint64_t promised = outlook.bytes;  // of tensors; a GGUF file has its metadata beside them
      QVERIFY(format.name == "gguf" ? promised <= result.bytes && result.bytes < promised + 10000 : promised == result.bytes);
      if (format.name != "transformed") QCOMPARE(QString::fromStdString(checkpoint_difference(quantized_, folder, {})), QString());
    }
    QVERIFY(fs::exists(root_ / "gptq") && fs::exists(root_ / "compressed-tensors") && fs::exists(root_ / "transformed") && !fs::exists(root_ / "awq"));
  }

  void cancelled_it_leaves_nothing() {
    const fs::path folder = root_ / "cancelled";
    for (const double at : {0.1, 0.5, 0.8}) {
      std::stop_source stop;
      const Control control{stop.get_token(), nullptr, [&](const Progress& p) {
                              if (p.fraction >= at) stop.request_stop();
                            }};
      QVERIFY_THROWS_EXCEPTION(Cancelled, export_checkpoint(quantized_, {"gptq", "", folder, 5'000'000'000, {}, {}}, control));
      QVERIFY(nothing_left(folder));
    }
  }

  void killed_it_leaves_nothing_under_the_outputs_name_and_the_next_one_clears_up() {
    const fs::path folder = root_ / "killed";
    const pid_t child = ::fork();
    if (child == 0) {
      const Control control{{}, nullptr, [&](const Progress& p) {
                              if (p.fraction > 0.3) std::raise(SIGKILL);
                            }};
      at::set_num_threads(1);  // a forked child has no other thread
      export_checkpoint(quantized_, {"gptq", "", folder, 5'000'000'000, {}, {}}, control);
      ::_exit(0);
    }
    int status = 0;
    QCOMPARE(::waitpid(child, &status, 0), child);
    QVERIFY(WIFSIGNALED(status));
    QVERIFY(!fs::exists(folder));
    const auto partial = [&] {
      return std::count_if(fs::directory_iterator(root_), {}, [](const auto& entry) { return entry.path().filename().string().starts_with(".killed.partial."); });
    };
    QCOMPARE(partial(), 1);
    export_checkpoint(quantized_, {"gptq", "", folder, 5'000'000'000, {}, {}}, {});
    QVERIFY(fs::exists(folder / "config.json"));
    QCOMPARE(partial(), 0);
  }

  void a_full_disk_is_one_error_and_leaves_nothing() {
    const fs::path folder = root_ / "full";
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit before = [] { rlimit now{}; ::getrlimit(RLIMIT_FSIZE, &now); return now; }();
    rlimit small = before;
    small.rlim_cur = 20000;
    QCOMPARE(::setrlimit(RLIMIT_FSIZE, &small), 0);
    const std::string said = message_of<ResourceError>([&] { export_checkpoint(quantized_, {"compressed-tensors", "", folder, 5'000'000'000, {}, {}}, {}); });
    ::setrlimit(RLIMIT_FSIZE, &before);
    QVERIFY2(holds(said, "model.safetensors"), said.c_str());
    QVERIFY(nothing_left(folder));
  }

  void what_is_there_is_not_written_over() {
    const fs::path folder = root_ / "there";
    fs::create_directories(folder / "inside");
    QVERIFY(holds(message_of<InputError>([&] { export_checkpoint(quantized_, {"gptq", "", folder, 5'000'000'000, {}, {}}, {}); }), "is there already"));
    fs::remove(folder / "inside");
    export_checkpoint(quantized_, {"gptq", "", folder, 5'000'000'000, {}, {}}, {});  // an empty folder is as good as none
    QVERIFY(holds(message_of<InputError>([&] { export_checkpoint(quantized_, {"gguff", "", folder, 5'000'000'000, {}, {}}, {}); }), "known are compressed-tensors"));
    QVERIFY(holds(message_of<InputError>([&] { scheme_obstacles(quantized_, "gptq", "tensorrt"); }), "known are vllm"));
  }

  void damaged_checkpoints_are_errors_that_name_file_and_tensor() {
    const fs::path folder = root_ / "damaged";
    export_checkpoint(quantized_, {"compressed-tensors", "", folder, 5'000'000'000, {}, {}}, {});
    const auto stored = open_safetensors(folder);
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const TensorInfo& info : stored->tensors()) tensors.emplace_back(info.name, stored->read(info.name).clone());
    const std::string module = "model.layers.1.mlp.up_proj";
    auto without = [&](const std::string& name, const std::optional<at::Tensor>& replacement) {
      std::vector<std::pair<std::string, at::Tensor>> changed;
      for (const auto& [n, t] : tensors)
        if (n != name) changed.emplace_back(n, t);
        else if (replacement) changed.emplace_back(n, *replacement);
      write_safetensors(folder / "model.safetensors", changed);
      return message_of<InputError>([&] { open_checkpoint(folder); });
    };
    for (const char* part : {".weight_packed", ".weight_shape"}) {
      const std::string said = without(module + part, {});
      QVERIFY2(holds(said, module) && holds(said, "damaged"), said.c_str());
    }
    QVERIFY(holds(without(module + ".weight_scale", {}), module));
    QVERIFY(holds(without(module + ".weight_packed", at::zeros({3, 3}, at::kInt)), "expected I32 [96, 8]"));
    QVERIFY(holds(without(module + ".weight_shape", at::tensor({int64_t{-1}, int64_t{5}}, at::kLong)), module));
    QVERIFY(holds(without(module + ".weight_scale", at::zeros({96, 7})), "scales"));
  }

  void patterns_say_many_names_in_few_words() {
    const std::vector<std::string> modules = {"model.layers.0.mlp.gate", "model.layers.1.mlp.gate", "lm_head"}, others = {"model.layers.0.mlp.up"};
    QCOMPARE(module_patterns(modules, others), (std::vector<std::string>{"re:^model\\.layers\\.\\d+\\.mlp\\.gate$", "lm_head"}));
    // A pattern that would take in another module is spelled out.
    QCOMPARE(module_patterns({"a.0.b", "a.1.b"}, {"a.2.b"}), (std::vector<std::string>{"a.0.b", "a.1.b"}));
    QVERIFY(named_by({"re:^a\\.\\d+\\.b$"}, "a.12.b") && !named_by({"re:^a\\.\\d+\\.b$"}, "a.x.b") && named_by({"Linear"}, "anything"));
  }

  void every_engine_takes_formats_that_exist() {
    for (const EngineInfo& engine : export_engines()) {
      QVERIFY(!engine.version.empty() && !engine.date.empty() && !engine.source.empty() && holds(engine.serve, "{}"));
      for (const EngineInfo::Takes& takes : engine.takes) QVERIFY2(find_format(takes.format), takes.format.c_str());
    }
  }
};

QTEST_MAIN(TestExporting)
#include "test_exporting.moc"
