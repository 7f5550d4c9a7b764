#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <iostream>
#include <map>

#include "calibration_text.h"
#include "sensitivity.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/measure/measure_sensitivity.h"
#include "core/method/method_info.h"
#include "core/recipe/allocation.h"
#include "core/run/run_inputs.h"
#include "core/store/run_events.h"

namespace cli {
namespace {

struct Arguments {
  std::string model, recipe, sensitivity, text, field = "text", bos, output, events, folder = "qbench-workspace/sensitivity", dtype = "float32", device = "cpu", loss = "kl", cost = "guided", bandwidth;
  std::vector<std::string> candidates, rounding, measured_modules, measured_candidates;
  int64_t samples = 16, seq_len = 512, measured = 0, measured_windows = 4;
  uint64_t seed = 42;
  qb::AllocationOptions allocation;
  bool untied = false;
  int attached = 0;  // process that starts it
};

qb::SensitivityOptions options_of(const Arguments& a) {
  qb::SensitivityOptions o;
  if (!a.candidates.empty()) o.candidates = a.candidates;
  if (!a.rounding.empty()) {
    o.rounding.clear();
    for (const std::string& method : a.rounding) o.rounding.push_back({method, {}});
  }
  o.loss = *qb::parse_end_loss(a.loss);
  o.measured = a.measured;
  o.measured_modules = a.measured_modules;
  o.measured_candidates = a.measured_candidates;
  o.measured_windows = a.measured_windows;
  o.dtype = a.dtype == "float32" ? at::kFloat : at::kBFloat16;
  o.device = at::Device(a.device);
  o.seed = a.seed;
  o.folder = a.folder;
  return o;
}

std::string short_number(double value) { return std::isfinite(value) ? fmt::format("{:.3g}", value) : "–"; }

void print(const qb::Sensitivity& s) {
  // Kinds of linears by the median over their blocks would hide the worst: the worst ten under the middle candidate are shown.
  const std::string& shown = s.candidates[s.candidates.size() / 2];
  const bool gradients = !s.loss.empty();
  std::vector<std::pair<double, const qb::LinearSensitivity*>> order;
  for (const auto& l : s.linears)
    if (const auto* c = l.find(shown)) order.emplace_back(gradients ? c->guided : c->relative_error, &l);
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::cout << fmt::format("{}  {} tokens of {}, {}, rounded by {}{}\n", bold(s.model_name), s.tokens, s.corpus, s.dtype, s.rounding,
                           gradients ? fmt::format(", gradients of {}", s.loss == "kl" ? "the KL divergence" : "the cross-entropy") : "");
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < std::min<size_t>(order.size(), 10); ++i) {
    const auto* c = order[i].second->find(shown);
    rows.push_back({order[i].second->module, shown, fmt::format("{:.2f}", 100 * std::sqrt(c->relative_error)) + " %", short_number(c->fisher), short_number(c->guided), short_number(c->measured)});
  }
  print_table({"most sensitive", "candidate", "output error", "fisher", "guided", "measured"}, rows, {true, true});
  rows.clear();
  for (const auto& c : s.correlations) rows.push_back({c.first + " ~ " + c.second, c.candidate.empty() ? "all" : c.candidate, fmt::format("{}", c.pairs), short_number(c.value)});
  if (!rows.empty()) {
    std::cout << '\n';
    print_table({"rank correlation", "candidate", "linears", "Spearman"}, rows, {true, true});
  }
}

// Of a recipe: its model and its calibration text, as it is sampled.
qb::Sensitivity survey_of(const Arguments& a, const qb::Recipe& recipe, const qb::Control& control) {
  if (!recipe.calibration) throw qb::InputError(fmt::format("{}: has no calibration text to find sensitivities on", a.recipe));
  qb::Recipe needed = recipe;
  needed.evaluation.clear();
  const qb::RunInputs inputs = qb::load_inputs(needed, control);
  print_notes(inputs.notes);
  qb::Sensitivity s = qb::measure_sensitivity(inputs.model, inputs.calibration, options_of(a), control);
  s.corpus = std::filesystem::absolute(recipe.calibration->corpus.path).string();
  return s;
}

qb::Sensitivity survey_of(Arguments a, const qb::Control& control) {
  const std::string ending = std::filesystem::path(a.model).extension().string();
  if (ending == ".yaml" || ending == ".yml") {
    if (!a.text.empty()) throw qb::InputError("sensitivity: --calibration, but the recipe names its text: expected one of the two");
    a.recipe = a.model;
    return survey_of(a, qb::load_recipe(a.recipe), control);
  }
  if (a.text.empty()) throw qb::InputError("sensitivity: expected --calibration with a text, or a recipe (.yaml) in place of the model");
  const auto model = qb::Model::open(a.model);
  qb::Sensitivity s = qb::measure_sensitivity(model, calibration_tokens({a.model, a.text, a.field, a.bos, a.samples, a.seq_len}, *model, control).tokens, options_of(a), control);
  s.corpus = std::filesystem::absolute(a.text).string();
  return s;
}

int sensitivity(const Arguments& a, const Options& options) {
  if (a.attached > 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != a.attached) return failure;  // it died in between
  }
  ProgressBar bar("sensitivity");
  std::unique_ptr<qb::RunEventWriter> events;
  if (!a.events.empty()) events = std::make_unique<qb::RunEventWriter>(a.events);
  const auto end = [&](qb::RunStatus status, qb::ErrorKind kind, const std::string& text) {
    if (!events) return;
    qb::RunEvent event;
    event.kind = qb::RunEvent::Kind::end;
    event.status = status;
    event.error = kind;
    event.text = text;
    events->write(event);
  };
  const qb::Control control{interrupt_token(), nullptr, [&](const qb::Progress& p) {
    bar.show(p);
    if (events) events->progress(p);
  }};
  qb::Sensitivity s;
  try {
    s = survey_of(a, control);
  } catch (const qb::Error& error) {
    end(error.kind() == qb::ErrorKind::cancelled ? qb::RunStatus::cancelled : qb::RunStatus::failed, error.kind(), error.what());
    throw;
  }
  bar.clear();
  const std::string json = qb::to_json(s);
  if (!a.output.empty()) qb::write_atomically(a.output, json + "\n");
  end(qb::RunStatus::finished, qb::ErrorKind::internal, {});
  if (options.json)
    std::cout << json << '\n';
  else
    print(s);
  return ok;
}

// "900e9" or "900 GB/s": bytes a second.
double bandwidth_of(const std::string& text) {
  static const std::map<std::string, double> units = {{"", 1}, {"MB/s", 1e6}, {"GB/s", 1e9}, {"TB/s", 1e12}};
  size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
  }
  const size_t unit = text.find_first_not_of(' ', used);
  const auto it = units.find(unit == std::string::npos ? "" : text.substr(unit));
  if (used == 0 || it == units.end() || !(value > 0) || !std::isfinite(value)) throw qb::InputError(fmt::format("--bandwidth \"{}\": expected bytes a second above zero, such as 900e9 or 900GB/s", text));
  return value * it->second;
}

qb::Sensitivity sensitivity_of(const Arguments& a, const std::optional<qb::Recipe>& recipe) {
  if (!a.sensitivity.empty()) return qb::sensitivity_from_json(qb::read_text(a.sensitivity), a.sensitivity);
  if (!recipe) throw qb::InputError("allocate: expected a recipe, or --sensitivity with the file that `qbench sensitivity -o` wrote");
  ProgressBar bar("sensitivity");
  const qb::Control control{interrupt_token(), nullptr, [&](const qb::Progress& p) { bar.show(p); }};
  qb::Sensitivity s = survey_of(a, *recipe, control);
  bar.clear();
  return s;
}

nlohmann::json json_of(const qb::AllocationTotal& t) {
  nlohmann::json json = {{"name", t.name}, {"bits_per_weight", t.bits_per_weight}, {"bytes", t.bytes}, {"read_bytes", t.read_bytes}, {"predicted", t.predicted}};
  if (t.tokens_per_second > 0) json["tokens_per_second"] = t.tokens_per_second;
  return json;
}

int allocate(Arguments a, const Options& options) {
  std::optional<qb::Recipe> recipe;
  if (!a.recipe.empty()) recipe = qb::load_recipe(a.recipe);
  if (!a.bandwidth.empty()) a.allocation.budget.bandwidth = bandwidth_of(a.bandwidth);
  const qb::Sensitivity s = sensitivity_of(a, recipe);
  qb::AllocationOptions wanted = a.allocation;
  wanted.cost = s.loss.empty() && a.cost == "guided" ? "gram" : a.cost;
  wanted.tied = !a.untied;
  if (!a.sensitivity.empty()) wanted.candidates = a.candidates;
  const qb::Allocation found = qb::allocate(s, wanted, recipe ? &recipe->scheme : nullptr);
  if (!recipe) {
    recipe.emplace();
    recipe->model = s.model_path;
    qb::CalibrationSpec calibration;
    calibration.corpus.path = s.corpus;
    calibration.sampling.samples = s.samples;
    calibration.sampling.seq_len = s.seq_len;
    if (std::filesystem::exists(s.corpus)) recipe->calibration = calibration;
    for (size_t first = 0; first < s.rounding.size();) {
      const std::string arrow = " → ";
      const size_t end = std::min(s.rounding.find(arrow, first), s.rounding.size());
      recipe->pipeline.push_back({s.rounding.substr(first, end - first), {}});
      first = end + arrow.size();
    }
  }
  recipe->scheme = qb::allocated_scheme(found, s, recipe->scheme);
  recipe->name = fmt::format("{}{:.2f} bits allocated", recipe->name.empty() ? "" : recipe->name + ", ", found.total.bits_per_weight);
  const std::string yaml = qb::to_yaml(*recipe);
  if (!a.output.empty()) qb::write_atomically(a.output, yaml);
  if (options.json) {
    nlohmann::json linears = nlohmann::json::object(), uniform = nlohmann::json::array();
    for (size_t i = 0; i < found.modules.size(); ++i) linears[found.modules[i]] = found.candidates[i];
    for (const auto& t : found.uniform) uniform.push_back(json_of(t));
    std::cout << nlohmann::json{{"cost", wanted.cost}, {"allocated", json_of(found.total)}, {"uniform", uniform}, {"linears", linears}, {"recipe", a.output}}.dump(2) << '\n';
    return ok;
  }
  std::vector<std::vector<std::string>> rows;
  auto add = [&](const qb::AllocationTotal& t) {
    rows.push_back({t.name, fmt::format("{:.4f}", t.bits_per_weight), bytes_text(static_cast<double>(t.bytes)), short_number(t.predicted), t.tokens_per_second > 0 ? fmt::format("{:.1f}", t.tokens_per_second) : "–"});
  };
  add(found.total);
  for (const auto& t : found.uniform) add(t);
  print_table({"scheme", "bits a weight", "model", wanted.cost == "gram" ? "predicted, Σ relative errors" : "predicted KL, nats", "predicted tokens/s"}, rows);
  if (!a.output.empty())
    std::cout << fmt::format("{}  {} overrides\n", bold(a.output), recipe->scheme.overrides.size());
  else
    std::cout << yaml;
  return ok;
}

void add_search_options(CLI::App& command, Arguments& a) {
  command.add_option("--candidates", a.candidates, "Schemes to choose from, such as int4g64, int8c, int4g128s (symmetric), q4_K (default: int2g64 … int8g64)")->delimiter(',');
  command.add_option("--rounding", a.rounding, "Methods that round, which need statistics alone: rtn, clip,gptq … (default: rtn)")->delimiter(',');
  command.add_option("--loss", a.loss, "What gradients are taken of; none: the Gram proxy alone")->check(CLI::IsMember({"kl", "cross_entropy", "none"}))->capture_default_str();
  command.add_option("--folder", a.folder, "Folder that keeps what is done")->capture_default_str();
  command.add_option("--dtype", a.dtype, "float32 or bfloat16")->check(CLI::IsMember({"float32", "bfloat16"}))->capture_default_str();
  command.add_option("--device,-d", a.device, "cpu, cuda:0 …")->envname("QBENCH_DEVICE")->capture_default_str();
  command.add_option("--seed", a.seed, "Of the drawn gradients")->capture_default_str();
}

}  // namespace

void add_sensitivity(CLI::App& app, const Options& options, Action& action) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("sensitivity", "How much each linear suffers under candidate schemes: by Gram matrices, by gradients, and measured");
  command->add_option("model", a->model, "Model folder or .gguf file; or a recipe (.yaml), whose model and calibration text are taken")->required();
  command->add_option("--calibration,-c", a->text, "Text file, .jsonl or .json file, or folder of them");
  command->add_option("--field", a->field, "Field of JSON objects that holds the text or the conversation")->capture_default_str();
  command->add_option("--samples", a->samples, "Windows of text")->check(CLI::Range(int64_t{1}, int64_t{1} << 24))->capture_default_str();
  command->add_option("--seq-len", a->seq_len, "Tokens a window")->check(CLI::Range(int64_t{2}, int64_t{1} << 24))->capture_default_str();
  add_bos_option(*command, a->bos);
  add_search_options(*command, *a);
  command->add_option("--measured", a->measured, "So many linears, of all depths and kinds, are measured by KL divergence, each quantized alone")->check(CLI::NonNegativeNumber)->capture_default_str();
  command->add_option("--measure", a->measured_modules, "And those that match this pattern");
  command->add_option("--measured-candidates", a->measured_candidates, "Under these candidates (default: all)")->delimiter(',');
  command->add_option("--measured-windows", a->measured_windows, "On so many windows of the text")->check(CLI::Range(int64_t{1}, int64_t{1} << 24))->capture_default_str();
  command->add_option("--output,-o", a->output, "File to write (.json), which allocate reads");
  command->add_option("--events", a->events, "Folder whose events.jsonl tells how far it is")->check(CLI::ExistingDirectory);
  command->add_option("--attached", a->attached, "Process that starts it, and with which it ends")->group("");
  command->callback([a, &options, &action] { action = [a, &options] { return sensitivity(*a, options); }; });
}

void add_allocate(CLI::App& app, const Options& options, Action& action) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("allocate", "Give each linear the candidate with which the model suffers least within a budget, as a recipe");
  command->add_option("recipe", a->recipe, "Recipe whose scheme is replaced (default: a plain one of the sensitivity's model and text)");
  command->add_option("--sensitivity", a->sensitivity, "What `qbench sensitivity -o` wrote (default: found on the recipe's calibration text)");
  auto* bits = command->add_option("--bits", a->allocation.budget.bits, "Bits a weight of the linears at most, scales and zero points included")->check(CLI::PositiveNumber);
  auto* gib = command->add_option("--gib", a->allocation.budget.gib, "GiB of the whole model at most")->check(CLI::PositiveNumber)->excludes(bits);
  command->add_option("--tokens-per-second", a->allocation.budget.tokens_per_second, "Tokens a second of decoding at least, by the bandwidth")->check(CLI::PositiveNumber)->excludes(bits)->excludes(gib);
  command->add_option("--bandwidth", a->bandwidth, "Of the memory that holds the weights: bytes a second, such as 900e9 or 900GB/s");
  command->add_option("--cost", a->cost, "What to keep low: gram (relative output errors), fisher, guided (KL divergence by gradients), measured")->check(CLI::IsMember(qb::allocation_costs()))->capture_default_str();
  command->add_flag("--untied", a->untied, "Linears that engines join (of one input; experts of a layer) may differ");
  add_search_options(*command, *a);
  command->add_option("--output,-o", a->output, "Recipe to write (.yaml)");
  command->callback([a, &options, &action] { action = [a, &options] { return allocate(*a, options); }; });
}

}  // namespace cli
