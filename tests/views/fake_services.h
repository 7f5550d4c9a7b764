#pragma once
// Services for tests of the window: a real workspace in a folder of the test's, a made-up model, and a runner that reports
// blocks, figures and progress as the real one does, at the pace a test wants.
#include <atomic>
#include <chrono>
#include <thread>

#include "demo_reports.h"
#include "views/jobs/Services.h"

namespace qb::test {

inline std::string fake_hash(const std::filesystem::path& path) { return "hash of " + path.filename().string(); }

inline ModelInfo fake_model(const std::filesystem::path& path, int blocks = 4) {
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
    model.blocks.push_back(block);
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
};

inline RunReport fake_run(Pace& pace, Workspace& workspace, const std::string& id, const RunOptions&, const Control& control, const RunObserver& observer) {
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
  }
  report.perplexities = demo->perplexities;
  if (observer.on_estimate)
    for (const PerplexityResult& result : report.perplexities) observer.on_estimate(result);
  report.status = RunStatus::finished;
  report.bits_per_weight = demo->bits_per_weight;
  workspace.save(report);
  return report;
}

inline views::Services fake_services(const std::shared_ptr<Pace>& pace) {
  views::Services services;
  services.inspectModel = [](const std::filesystem::path& path) {
    if (path.filename() == "broken") throw InputError(path.string() + "/config.json: key \"hidden_size\" is missing");
    return fake_model(path);
  };
  services.openWorkspace = [](const std::filesystem::path& folder) { return Workspace::open(folder); };
  services.preflight = [](const Recipe& recipe, const RunOptions&, const std::filesystem::path&) {
    if (recipe.name == "refused") throw InputError("group size 7 does not divide 64");
  };
  services.carryOut = [pace](Workspace& workspace, const std::string& id, const RunOptions& options, const Control& control, const RunObserver& observer) {
    return fake_run(*pace, workspace, id, options, control, observer);
  };
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
