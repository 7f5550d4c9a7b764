#include <fmt/format.h>

#include <iostream>
#include <optional>
#include <utility>

#include "cli.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/recipe/exports.h"
#include "core/recipe/llmc.h"
#include "core/recipe/preset.h"
#include "core/recipe/recipe.h"
#include "core/recipe/recipe_mistakes.h"

namespace cli {
namespace {

struct Arguments {
  std::string path, to = "ours", out, preset, model, calibration, evaluation;
};

void deliver(const std::string& text, const std::string& out) {
  if (out.empty())
    std::cout << text;
  else
    qb::write_atomically(out, text);
}

// An LLMC file has "quant" or "base" at its top, ours "scheme".
bool is_llmc(const std::string& yaml) { return qb::position_of(yaml, "quant").line > 1 || yaml.rfind("quant:", 0) == 0 || yaml.find("\nquant:") != std::string::npos; }

int check(const Arguments& a, const Options& options) {
  // All that is wrong, a line each; a single mistake is told as everywhere.
  const auto mistakes = qb::read_with_mistakes(qb::read_text(a.path, 4 << 20), std::filesystem::absolute(a.path).parent_path()).mistakes;
  if (mistakes.size() > 1) {
    for (const qb::RecipeMistake& m : mistakes) std::cerr << "qbench: " << qb::RecipeError(a.path, m.line, m.column, m.key, m.what).what() << '\n';
    return cli::recipe;
  }
  const qb::Recipe recipe = qb::load_recipe(a.path);
  if (options.json)
    std::cout << nlohmann::json{{"name", recipe.name}, {"scheme", qb::describe(recipe.scheme)}, {"hash", qb::recipe_hash(recipe)}}.dump() << '\n';
  else
    std::cout << fmt::format("{}: {}\n", recipe.name, qb::describe(recipe.scheme));
  return ok;
}

int convert(const Arguments& a) {
  const std::string text = qb::read_text(a.path, 4 << 20);
  qb::Recipe recipe;
  std::vector<std::string> notes;
  if (is_llmc(text)) {
    qb::LlmcImport imported = qb::from_llmc(text, a.path);
    recipe = std::move(imported.recipe);
    notes = std::move(imported.notes);
  } else {
    recipe = qb::load_recipe(a.path);
  }
  if (a.to == "ours") {
    deliver(qb::to_yaml(recipe), a.out);
  } else {
    const qb::RecipeExport exported = qb::export_recipe(recipe, a.to);
    notes.insert(notes.end(), exported.notes.begin(), exported.notes.end());
    if (a.out.empty() && exported.files.size() > 1)
      for (const qb::ExportedFile& file : exported.files) std::cout << "--- # " << file.name << '\n' << file.text;
    else
      for (const qb::ExportedFile& file : exported.files) deliver(file.text, a.out.empty() ? a.out : qb::path_of(file, a.out).string());
  }
  for (const auto& note : notes) std::cerr << "note: " << note << '\n';
  return ok;
}

int presets(const Arguments& a, const Options& options) {
  const std::vector<qb::Preset> all = qb::presets();
  if (a.preset.empty()) {
    std::optional<qb::ModelInfo> model;
    if (!a.model.empty()) model = qb::inspect_model(a.model);
    nlohmann::json list = nlohmann::json::array();
    for (const std::string& group : qb::preset_groups()) {
      bool first = true;
      for (const auto& preset : qb::presets_of(group, all)) {
        const std::string cost = qb::to_text(qb::cost_of(preset));
        const qb::PresetSize size = model ? qb::size_of(preset, *model).value_or(qb::PresetSize{}) : qb::PresetSize{};  // none: zero
        nlohmann::json entry = {{"name", preset.name}, {"title", preset.title}, {"description", preset.description}, {"scheme", qb::describe(preset.scheme)}, {"group", group}, {"cost", cost}};
        if (size.bytes > 0) entry["bits_per_weight"] = size.bits_per_weight, entry["bytes"] = size.bytes;
        list.push_back(std::move(entry));
        if (options.json) continue;
        if (std::exchange(first, false)) std::cout << bold(group) << '\n';
        const std::string measure = size.bytes > 0 ? fmt::format(" · {}{:.2f} bits a weight, {}", size.at_least ? "from " : "", size.bits_per_weight, bytes_text(size.bytes)) : "";
        std::cout << fmt::format("  {}  {} · {}{}\n    {}\n", preset.name, qb::describe(preset.scheme), cost, measure, preset.description);
      }
    }
    if (options.json) std::cout << list.dump(2) << '\n';
    return ok;
  }
  qb::Recipe recipe;
  recipe.model = a.model;
  if (!a.calibration.empty()) recipe.calibration = qb::CalibrationSpec{{"", a.calibration, "text"}, {}};
  if (!a.evaluation.empty()) recipe.evaluation.push_back({{"", a.evaluation, "text"}, 2048, 0, "float32"});
  qb::apply(qb::find_preset(a.preset), recipe);
  if (a.calibration.empty() && a.evaluation.empty()) qb::add_bundled_texts(recipe);
  try {
    for (const std::string& change : qb::fit(recipe, qb::inspect_model(a.model))) std::cerr << "note: " << change << '\n';
  } catch (const qb::InputError& e) {  // a recipe may be written where its model is not
    std::cerr << "note: not fitted to the model: " << e.what() << '\n';
  }
  qb::validate(recipe);
  deliver(qb::to_yaml(recipe), a.out);
  return ok;
}

}  // namespace

void add_recipe(CLI::App& app, const Options& options, Action& action) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("recipe", "Check, convert and make recipes");
  command->require_subcommand(1);
  command->fallthrough();
  CLI::App* one = command->add_subcommand("check", "Check a recipe file by itself (qbench run --check: also against model and data)");
  one->add_option("file", a->path)->required();
  one->callback([a, &options, &action] { action = [a, &options] { return check(*a, options); }; });
  CLI::App* two = command->add_subcommand("convert", "Convert between our recipes and LLMC's configurations, and to the arguments of other programs");
  two->add_option("file", a->path, "Recipe or LLMC configuration")->required();
  std::vector<std::string> targets = {"ours"};
  for (const qb::ExportTarget& target : qb::export_targets()) targets.push_back(target.name);
  two->add_option("--to", a->to, "ours, llmc (two files where it needs two), llm-compressor and gptqmodel (Python), auto-round (a command line)")->check(CLI::IsMember(targets))->capture_default_str();
  two->add_option("--out,-o", a->out, "File to write (default: standard output); of two files NAME_step_1 and NAME_step_2");
  two->callback([a, &action] { action = [a] { return convert(*a); }; });
  CLI::App* three = command->add_subcommand("preset", "List presets, or write a recipe from one");
  three->add_option("name", a->preset, "Preset");
  auto* model = three->add_option("--model,-m", a->model, "Model folder or .gguf file");
  three->get_option("name")->needs(model);
  three->add_option("--calibration", a->calibration, "Calibration text");
  three->add_option("--evaluation", a->evaluation, "Evaluation text");
  three->add_option("--out,-o", a->out, "File to write (default: standard output)");
  three->callback([a, &options, &action] { action = [a, &options] { return presets(*a, options); }; });
}

}  // namespace cli
