#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <iostream>

#include "cli.h"
#include "core/base/error.h"
#include "core/model/model.h"
#include "core/recipe/hardware.h"
#include "core/recipe/recipe.h"
#include "core/recipe/roofline.h"
#include "core/run/served_model.h"
#include "core/store/workspace.h"

namespace cli {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::vector<std::string> what, hardware;
  std::string workspace = "qbench-workspace";
  std::vector<double> batch = {1};
  double context = 4096;
};

struct Served {
  std::string name;
  qb::ServedModel model;
};

Served of_recipe(const qb::Recipe& recipe, const std::string& name, const qb::RunReport* run) {
  return {name, qb::served_model(*qb::Model::open(recipe.model), recipe.scheme, run)};
}

// A recipe's file, a model, or a run of the workspace, whichever it is.
Served served(const std::string& what, const Arguments& a) {
  const fs::path path = what;
  if (fs::is_regular_file(path) && (path.extension() == ".yaml" || path.extension() == ".yml")) {
    const qb::Recipe recipe = qb::load_recipe(path);
    return of_recipe(recipe, recipe.name.empty() ? path.filename().string() : recipe.name, nullptr);
  }
  if (fs::exists(path)) {
    const auto model = qb::Model::open(path);
    return {model->info.name + " as it is", qb::served_model(*model, {})};
  }
  const auto workspace = qb::Workspace::open(a.workspace, qb::Workspace::Absent::refuse);
  const qb::RunReport run = workspace->load(find_run(*workspace, what));
  if (run.status != qb::RunStatus::finished) throw qb::InputError(fmt::format("run {} is {}, expected a finished one", run.id, qb::to_text(run.status)));
  return of_recipe(workspace->recipe(run.id), run.name, &run);
}

std::string rate_text(double tokens) { return tokens >= 100 ? fmt::format("{:.0f}", tokens) : fmt::format("{:.3g}", tokens); }

int speed(const Arguments& a, const Options& options) {
  std::vector<qb::HardwareProfile> hardware;
  for (const std::string& name : a.hardware) hardware.push_back(qb::find_hardware(name));
  if (hardware.empty()) hardware = qb::hardware_profiles();
  nlohmann::json list = nlohmann::json::array();
  std::vector<std::vector<std::string>> rows;
  for (const std::string& what : a.what) {
    const Served one = served(what, a);
    for (const qb::HardwareProfile& profile : hardware)
      for (const double batch : a.batch) {
        const qb::SpeedPrediction p = qb::predict_speed(profile, one.model, {batch, a.context});
        list.push_back({{"what", one.name}, {"hardware", profile.name}, {"batch", batch}, {"context", a.context}, {"predicted_prefill_tokens_per_second", p.prefill},
                        {"predicted_decode_tokens_per_second", p.decode}, {"predicted_seconds_to_first_token", p.prefill_seconds}, {"prefill_bound_by", p.prefill_by_compute ? "compute" : "memory"},
                        {"decode_bound_by", p.decode_by_compute ? "compute" : "memory"}, {"weight_bytes", one.model.weight_bytes()}, {"cache_bytes", batch * one.model.cache_bytes(a.context)},
                        {"memory_bytes", p.memory_bytes}, {"fits", p.fits}});
        rows.push_back({one.name, profile.name, fmt::format("{:g}", batch), p.fits ? rate_text(p.prefill) : "–", p.fits ? rate_text(p.decode) : "–",
                        p.fits ? fmt::format("{}/{}", p.prefill_by_compute ? "compute" : "memory", p.decode_by_compute ? "compute" : "memory") : "does not fit", bytes_text(one.model.weight_bytes()),
                        bytes_text(batch * one.model.cache_bytes(a.context))});
      }
  }
  if (options.json) {
    std::cout << list.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
    return ok;
  }
  print_table({"what", "hardware", "batch", "prefill tok/s", "decode tok/s", "bound by", "weights", "cache"}, rows, {true, true, false, false, false, true});
  std::cout << fmt::format("Predicted by a roofline of the makers' figures, {:g} tokens of context: no engine is faster, good ones reach 60 to 85 %. Nothing here was measured.\n", a.context);
  return ok;
}

int list_hardware(const Options& options) {
  nlohmann::json list = nlohmann::json::array();
  for (const qb::HardwareProfile& h : qb::hardware_profiles()) list.push_back({{"name", h.name}, {"title", h.title}, {"source", h.source}, {"memory_bytes", h.memory_bytes}, {"bandwidth", h.bandwidth}, {"compute", h.compute}});
  if (options.json) {
    std::cout << list.dump(2) << '\n';
    return ok;
  }
  for (const qb::HardwareProfile& h : qb::hardware_profiles()) {
    std::vector<std::string> rates;
    for (const auto& [type, rate] : h.compute) rates.push_back(fmt::format("{} {:g}", type, rate / 1e12));
    std::cout << bold(h.name) << fmt::format("  {}\n  {:g} GB/s; 10¹² operations a second: {}\n  {}\n", h.title, h.bandwidth / 1e9, fmt::join(rates, ", "), h.source);
  }
  return ok;
}

}  // namespace

void add_speed(CLI::App& app, const Options& options, Action& action) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("speed", "Predict prefill and decode of models, recipes and runs on hardware, by a roofline; without any: list the hardware");
  command->add_option("what", a->what, "Models, recipes, runs of the workspace");
  command->add_option("--hardware,-H", a->hardware, "Names of profiles or .yaml files of the same keys (default: all)");
  command->add_option("--batch,-b", a->batch, "Sequences at once")->check(CLI::Range(1.0, 1e6))->capture_default_str();
  command->add_option("--context,-c", a->context, "Tokens of each: of a prompt for prefill, before the next token for decode")->check(CLI::Range(1.0, 1e8))->capture_default_str();
  command->add_option("--workspace,-w", a->workspace, "Workspace of the runs")->envname("QBENCH_WORKSPACE")->capture_default_str();
  command->callback([a, &options, &action] { action = [a, &options] { return a->what.empty() ? list_hardware(options) : speed(*a, options); }; });
}

}  // namespace cli
