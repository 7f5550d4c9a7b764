#pragma once
// Services for tests of the window: a real workspace in a folder of the test's, a made-up model, and a runner that reports
// blocks, figures and progress as the real one does, at the pace a test wants.
#include <atomic>
#include <chrono>
#include <thread>

#include "demo_reports.h"
#include "core/run/supervisor.h"
#include "core/store/run_request.h"
#include "views/jobs/Services.h"

namespace qb::test {

// A path may end in a slash: the demo's recipes name its folder so.
inline std::string fake_hash(const std::filesystem::path& path) { return "hash of " + (path.filename().empty() ? path.parent_path() : path).filename().string(); }

// others: with an embedding, norms and a head that is tied to the embedding.
inline ModelInfo fake_model(const std::filesystem::path& path, int blocks = 4, bool others = false) {
  ModelInfo model;
  model.path = path;
  model.hash = fake_hash(path);
  model.name = path.filename().string();
  model.family = "llama";
  model.format = "safetensors";
  model.dtype = "BF16";
  model.parameters = 1000000;
  model.hidden_size = 64;
  for (int b = 0; b < blocks; ++b) {
    BlockInfo block;
    block.index = b;
    const auto add = [&](const char* name, const char* subset, int64_t out, int64_t in) {
      LinearInfo linear;
      linear.name = name;
      linear.subset = subset;
      linear.tensor = "model.layers." + std::to_string(b) + "." + name + ".weight";
      linear.out_features = out;
      linear.in_features = in;
      linear.dtype = "BF16";
      linear.bytes = uint64_t(2 * out * in);
      model.bytes += linear.bytes;
      block.linears.push_back(linear);
    };
    add("self_attn.q_proj", "qkv", 64, 64);
    add("self_attn.o_proj", "o", 64, 64);
    add("mlp.up_proj", "gate_up", 192, 64);
    add("mlp.down_proj", "down", 64, 192);
    if (others) block.others.push_back({"input_layernorm.weight", "model.layers." + std::to_string(b) + ".input_layernorm.weight", "norm", {64}, "F32", 256});
    model.blocks.push_back(block);
  }
  if (others) {
    model.before.push_back({"model.embed_tokens.weight", "model.embed_tokens.weight", "embedding", {500, 64}, "BF16", 64000});
    model.after.push_back({"model.norm.weight", "model.norm.weight", "norm", {64}, "F32", 256});
    model.after.push_back({"lm_head.weight", "model.embed_tokens.weight", "head", {500, 64}, "BF16", 0, true});
  }
  return model;
}

// How the fake runner behaves; shared with the test, which may change it while runs go on.
struct Pace {
  std::atomic<int> blocks{4};
  std::atomic<int> milliseconds{1};  // a block
  std::atomic<int> running{0}, most{0}, started{0}, ended{0};
  std::atomic<int> reports{1};       // progress reports a block
  std::atomic<bool> fails{false};
  std::atomic<bool> dies{false};     // once, behind the second block
  std::atomic<int> queues{0};        // processes that were started to carry out a workspace's queue on the CPU
  std::atomic<int> tensors{0};       // that were looked at
  std::atomic<bool> tensors_wait{false}, tensors_fail{false};
  std::atomic<int> reading_waits{-1};  // run folder at which reading a workspace stands still
};

inline RunReport fake_run(Pace& pace, Workspace& workspace, const std::string& id, const RunOptions& run_options, const Control& control, const RunObserver& observer) {
  struct Count {
    Pace& pace;
    explicit Count(Pace& p) : pace(p) {
      ++pace.started;
      const int now = ++pace.running;
      for (int most = pace.most; now > most && !pace.most.compare_exchange_weak(most, now);) {}
    }
    ~Count() {
      --pace.running;
      ++pace.ended;
    }
  } count(pace);
  RunReport report = workspace.load(id);
  const RunLock lock(workspace.run_folder(id));
  save_request(workspace.run_folder(id), {});
  DemoOptions options;
  options.id = id;
  options.name = report.name;
  options.blocks = pace.blocks;
  const views::RunPtr demo = demo_run(options);
  const int first = int(report.blocks.size());
  report.model_hash = fake_hash(report.model_path);
  for (int b = first; b < options.blocks; ++b) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(pace.milliseconds);
    for (int i = 0; i < pace.reports; ++i) {
      Progress progress;
      progress.phase = "quantize";
      progress.stage = "rtn";
      progress.block = b;
      progress.blocks = options.blocks;
      progress.fraction = double(b) / options.blocks;
      progress.eta_s = 1;
      progress.rss_bytes = 100 << 20;
      progress.peak_rss_bytes = 200 << 20;
      control.report(progress);
    }
    while (std::chrono::steady_clock::now() < until) {
      control.checkpoint();
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    control.checkpoint();
    if (pace.fails) {
      report.status = RunStatus::failed;
      throw ResourceError("no memory left for block " + std::to_string(b));
    }
    report.blocks.push_back(demo->blocks[size_t(b)]);
    report.status = RunStatus::running;
    workspace.save(report);
    if (observer.on_block) observer.on_block(report.blocks.back());
    if (observer.on_log) observer.on_log("block " + std::to_string(b) + " done");
    if (run_options.leave.stop_requested()) throw LeftAlone();
    if (pace.dies && b == 1) {
      pace.dies = false;
      throw Interrupted("its process 4711 was killed by SIGKILL");
    }
    if (control.stop_soon.stop_requested()) {
      report.status = RunStatus::interrupted;
      workspace.save(report);
      throw Interrupted("it was asked to make room");
    }
  }
  report.evaluations = demo->evaluations;
  if (observer.on_estimate)
    for (const EvaluationResult& result : report.evaluations) observer.on_estimate(result);
  report.status = RunStatus::finished;
  report.bits_per_weight = demo->bits_per_weight;
  workspace.save(report);
  drop_request(workspace.run_folder(id));
  return report;
}

inline views::Services fake_services(const std::shared_ptr<Pace>& pace) {
  views::Services services;
  services.inspectModel = [](const std::filesystem::path& path) {
    if (path.filename() == "broken") throw InputError(path.string() + "/config.json: key \"hidden_size\" is missing");
    return fake_model(path, 4, path.filename() == "whole");
  };
  services.lookAtTensor = [pace](const std::filesystem::path& path, const std::string& tensor, const std::stop_token& stop) {
    ++pace->tensors;
    while (pace->tensors_wait && !stop.stop_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (pace->tensors_fail) throw InputError((path / "model.safetensors").string() + ": is truncated: 1000 bytes, expected 2000");
    TensorSummary summary;
    summary.tensor = tensor;
    summary.dtype = "BF16";
    const bool vector = tensor.find("norm") != std::string::npos;
    summary.shape = vector ? std::vector<int64_t>{64} : std::vector<int64_t>{tensor.find("embed") == std::string::npos ? 32 : 500, 64};
    summary.values = vector ? 64 : summary.shape[0] * 64;
    summary.abs_max = double(tensor.size());  // tells whose it is
    summary.histogram = {-1, 1, {1, 5, 9, 5, 1}, 0, 2};
    const auto sizes = [](int64_t channels) {
      ChannelSizes made{channels, 1, {}, {}};
      for (int64_t c = 0; c < channels; ++c) {
        made.mean_abs.push_back(0.1f + 0.01f * float(c % 7));
        made.abs_max.push_back(c == 5 ? 9.f : 1.f);
      }
      return made;
    };
    summary.columns = sizes(64);
    if (!vector) summary.rows = sizes(summary.shape[0]);
    return summary;
  };
  services.openWorkspace = [pace](const std::filesystem::path& folder, const Workspace::Reading& reading) {
    return Workspace::open(folder, Workspace::Absent::create, [&](int done, int all) {
      if (pace->reading_waits >= 0) std::this_thread::sleep_for(std::chrono::milliseconds(120));
      reading(done, all);
      while (done == pace->reading_waits) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
  };
  services.preflight = [](const Recipe& recipe, const RunOptions&, const std::filesystem::path&) {
    if (recipe.name == "refused") throw InputError("group size 7 does not divide 64");
  };
  services.carryOut = [pace](Workspace& workspace, const std::string& id, const RunOptions& options, const Control& control, const RunObserver& observer) {
    return fake_run(*pace, workspace, id, options, control, observer);
  };
  services.startQueue = [pace](const std::filesystem::path&, const RunOptions& run_options) { pace->queues += run_options.device == "cpu" ? 1 : 1000; };
  services.surveyExports = [](const std::filesystem::path& run, const Control& control) { return survey_exports(run, control); };
  services.exportRun = [](const std::filesystem::path& run, const ExportOptions& options, const Control& control) { return export_run(run, options, control); };
  services.initialise = [](int) {
    DeviceInfo cpu;
    cpu.name = "cpu";
    cpu.label = "test";
    cpu.memory_bytes = int64_t{8} << 30;
    return std::vector<DeviceInfo>{cpu};
  };
  return services;
}

inline Recipe fake_recipe(const std::string& name) {
  Recipe recipe;
  recipe.name = name;
  recipe.model = "/models/tiny";
  recipe.scheme.weights = QuantSpec{};
  recipe.scheme.weights->group_size = 64;
  recipe.pipeline.push_back({"rtn", {}});
  return recipe;
}

}  // namespace qb::test
