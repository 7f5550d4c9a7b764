#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <iostream>

#include "chosen_runs.h"
#include "cli.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/exporting/formats.h"
#include "core/recipe/exports.h"
#include "core/recipe/hardware.h"
#include "core/run/best_practice.h"
#include "core/run/missing_runs.h"
#include "core/run/run_queue.h"

namespace cli {
namespace {

struct Arguments {
  std::string workspace = "qbench-workspace", measures, hardware, output, engine, to = "ours";
  std::vector<std::string> where, grep;
  double batch = 1, context = 4096, decode = 0, prefill = 0, gigabytes = 0, bits = 0;
  bool add_missing = false;
  std::string missing_folder, device = "cpu";
};

// Their ids, in order.
std::vector<std::string> add_to_queue(qb::Workspace& workspace, const qb::MissingRuns& missing, const std::string& device) {
  std::vector<std::string> ids;
  double place = qb::last_place(qb::queued_runs(workspace));
  for (const qb::MissingRun& one : missing.runs) {
    ids.push_back(workspace.create_run(one.recipe));
    qb::save_request(workspace.run_folder(ids.back()), {qb::Wish::run, device, 0, place++});
  }
  return ids;
}

int best(const Arguments& a, const Options& options) {
  const auto workspace = qb::Workspace::open(a.workspace, qb::Workspace::Absent::refuse);
  qb::BestWanted wanted{a.measures.empty() ? qb::RunColumns() : qb::parse_run_columns(a.measures), a.gigabytes, {}, {a.batch, a.context}, a.decode, a.engine, a.bits, a.prefill};
  if (!a.hardware.empty()) wanted.hardware = qb::find_hardware(a.hardware);
  qb::BestPractice found = qb::best_practice(*workspace, finished_runs(*workspace, a.where, a.grep), wanted);
  std::vector<std::string> left_out;
  for (const qb::LeftOut& one : found.left_out) left_out.push_back(one.name + ": " + one.why);
  if (found.chosen < 0) throw qb::InputError(fmt::format("{}: no finished run is left to choose from{}", a.workspace, left_out.empty() ? "" : fmt::format(" ({})", fmt::join(left_out, "; "))));
  const qb::BestCandidate& chosen = found.runs[static_cast<size_t>(found.chosen)];
  std::vector<std::string> written;
  if (!a.output.empty()) {
    if (a.to == "ours") {
      qb::write_atomically(a.output, qb::recipe_with_evidence(*workspace, found, wanted));
      written.push_back(a.output);
    } else {
      const qb::RecipeExport exported = qb::export_recipe(workspace->recipe(chosen.report.id), a.to, qb::evidence(found, wanted));
      print_notes(exported.notes);
      for (const qb::ExportedFile& file : exported.files) {
        written.push_back(qb::path_of(file, a.output).string());
        qb::write_atomically(written.back(), file.text);
      }
    }
  }
  qb::MissingRuns missing;
  try {
    missing = qb::missing_runs(*workspace, found, wanted);
  } catch (const qb::Error& error) {  // without its model nothing can be proposed
    if (a.add_missing || !a.missing_folder.empty()) throw;
    missing.advice.push_back(fmt::format("what is missing is not known: {}", error.what()));
  }
  const std::vector<std::string> queued = a.add_missing ? add_to_queue(*workspace, missing, a.device) : std::vector<std::string>();
  if (!a.missing_folder.empty())
    for (size_t i = 0; i < missing.runs.size(); ++i) {
      std::filesystem::create_directories(a.missing_folder);
      qb::write_atomically(std::filesystem::path(a.missing_folder) / fmt::format("missing-{}.yaml", i + 1), fmt::format("# {}: {}\n{}", qb::to_text(missing.runs[i].takeaway), missing.runs[i].why, qb::to_yaml(missing.runs[i].recipe)));
    }
  const auto name_of = [&](int run) -> const qb::RunReport& { return found.runs[static_cast<size_t>(run)].report; };
  if (options.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const qb::BestCandidate& one : found.runs) {
      nlohmann::json entry = {{"id", one.report.id}, {"name", one.report.name}, {"front", one.front}, {"beaten_by", one.beaten_by < 0 ? nlohmann::json(nullptr) : nlohmann::json(name_of(one.beaten_by).id)}};
      for (size_t m = 0; m < found.measures.size(); ++m) entry["figures"][found.measures[m]->key] = one.values[m];
      if (const auto& p = one.speed) entry["predicted"] = {{"hardware", a.hardware}, {"prefill_tokens_per_second", p->prefill}, {"decode_tokens_per_second", p->decode}, {"memory_bytes", p->memory_bytes}};
      if (!a.engine.empty()) entry["formats"] = one.formats;
      list.push_back(std::move(entry));
    }
    nlohmann::json asked = nlohmann::json::array();
    for (size_t i = 0; i < missing.runs.size(); ++i) {
      const qb::MissingRun& one = missing.runs[i];
      asked.push_back({{"name", one.recipe.name}, {"takeaway", qb::to_text(one.takeaway)}, {"why", one.why}, {"recipe", qb::to_yaml(one.recipe)}, {"queued", i < queued.size() ? nlohmann::json(queued[i]) : nlohmann::json(nullptr)}});
    }
    std::cout << nlohmann::json{{"best", chosen.report.id}, {"runs", list}, {"left_out", left_out}, {"missing", asked}, {"advice", missing.advice}}.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
    return ok;
  }
  std::vector<std::string> header = {"run"};
  for (const qb::RunColumn* measure : found.measures) header.push_back(qb::column_heading(*measure));
  if (wanted.hardware) header.push_back("decode tok/s, predicted");
  if (!a.engine.empty()) header.push_back(qb::find_engine(a.engine)->title + " loads it as");
  header.push_back("");
  std::vector<const qb::BestCandidate*> order;
  for (const qb::BestCandidate& one : found.runs) order.push_back(&one);
  std::stable_sort(order.begin(), order.end(), [&](const auto* x, const auto* y) {
    return x->front != y->front ? x->front : found.measures[0]->higher_is_better ? x->values[0] > y->values[0] : x->values[0] < y->values[0];
  });
  std::vector<std::vector<std::string>> rows;
  for (const qb::BestCandidate* one : order) {
    std::vector<std::string> row = {one->report.name};
    for (size_t m = 0; m < found.measures.size(); ++m) row.push_back(qb::cell_text(*found.measures[m], qb::RunValue(one->values[m])));
    if (wanted.hardware) row.push_back(one->speed ? fmt::format("{:.1f}", one->speed->decode) : "–");
    if (!a.engine.empty()) row.push_back(fmt::format("{}", fmt::join(one->formats, ", ")));
    row.push_back(one == &chosen ? "take this one" : one->front ? "not beaten" : "beaten by " + name_of(one->beaten_by).name);
    rows.push_back(std::move(row));
  }
  std::vector<bool> texts(header.size(), false);
  texts.front() = texts.back() = true;
  if (!a.engine.empty()) texts[texts.size() - 2] = true;
  print_table(header, rows, texts);
  for (const std::string& line : left_out) std::cout << "left out: " << line << '\n';
  std::cout << "A difference within twice its error, paired by window or item, counts as none.\n";
  if (chosen.speed) std::cout << qb::speed_text(*chosen.speed, a.hardware, wanted.conditions) << '\n';
  std::cout << fmt::format("{}: {}\n", bold(chosen.report.name), qb::values_text(chosen, found.measures));
  if (!missing.runs.empty()) std::cout << "\nRuns that the paper's rule asks for and nobody made:\n";
  for (const qb::MissingRun& one : missing.runs) std::cout << fmt::format("  {} ({}): {}\n", bold(one.recipe.name), qb::to_text(one.takeaway), one.why);
  for (const std::string& line : missing.advice) std::cout << "  " << line << '\n';
  if (!queued.empty()) std::cout << fmt::format("{} put into the queue: qbench work carries {} out\n", queued.size(), queued.size() == 1 ? "it" : "them");
  else if (!missing.runs.empty() && a.missing_folder.empty()) std::cout << "--add-missing puts them into the workspace's queue, --write-missing FOLDER writes their recipes\n";
  if (!written.empty()) std::cout << fmt::format("{} written\n", fmt::join(written, " and "));
  return ok;
}

}  // namespace

std::vector<qb::RunReport> finished_runs(const qb::Workspace& workspace, const std::vector<std::string>& where, const std::vector<std::string>& grep) {
  qb::RunQuery query;
  query.add_condition("status=finished");
  for (const std::string& condition : where) query.add_condition(condition);
  for (const std::string& words : grep) query.add_words(words);
  std::vector<qb::RunReport> runs = workspace.list();
  std::erase_if(runs, [&](const qb::RunReport& run) { return !query.accepts(run); });
  return runs;
}

void add_best(CLI::App& app, const Options& options, Action& action) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("best", "Which recipe to take home: the runs that no other one beats, and one of them with its evidence");
  command->add_option("--workspace,-w", a->workspace, "Folder that keeps the runs")->capture_default_str();
  command->add_option("--measures,-m", a->measures, "Figures to compare by, the most important first: columns of qbench list (default: kl or ppl, then size, time)");
  command->add_option("--where", a->where, "Condition on a column, as in qbench list: bits<4.5, pipeline~gptq")->allow_extra_args(false);
  command->add_option("--grep", a->grep, "Words that stand in name, model, scheme, pipeline, tags")->allow_extra_args(false);
  command->add_option("--gb", a->gigabytes, "The model takes at most so many gigabytes")->check(CLI::PositiveNumber);
  command->add_option("--bits", a->bits, "Its quantized linears take at most so many bits per weight, scales included")->check(CLI::PositiveNumber);
  CLI::Option* hardware = command->add_option("--hardware,-H", a->hardware, "Must fit there; its predicted speed is shown (qbench speed lists profiles)");
  command->add_option("--decode", a->decode, "At least so many predicted tokens/s of decode")->check(CLI::PositiveNumber)->needs(hardware);
  command->add_option("--prefill", a->prefill, "At least so many predicted tokens/s of prefill")->check(CLI::PositiveNumber)->needs(hardware);
  command->add_option("--engine,-e", a->engine, "Must load there, in some format (qbench formats lists engines)");
  command->add_option("--batch,-b", a->batch, "Sequences at once")->check(CLI::Range(1.0, 1e6))->capture_default_str();
  command->add_option("--context,-c", a->context, "Tokens of each")->check(CLI::Range(1.0, 1e8))->capture_default_str();
  auto* output = command->add_option("--output,-o", a->output, "Write the recipe, with its evidence in comments");
  std::vector<std::string> targets = {"ours"};
  for (const qb::ExportTarget& target : qb::export_targets()) targets.push_back(target.name);
  command->add_option("--to", a->to, "In whose words: ours, llmc, llm-compressor, auto-round, gptqmodel (qbench recipe convert)")->check(CLI::IsMember(targets))->needs(output)->capture_default_str();
  command->add_flag("--add-missing", a->add_missing, "Put the runs that the paper's rule asks for and nobody made into the workspace's queue");
  command->add_option("--device,-d", a->device, "Where these shall run: cpu, cuda:0 …")->envname("QBENCH_DEVICE")->capture_default_str();
  command->add_option("--write-missing", a->missing_folder, "Write their recipes into a folder, each with its reason");
  command->callback([a, &options, &action] { action = [a, &options] { return best(*a, options); }; });
}

}  // namespace cli
