#include <fmt/format.h>

#include <iostream>

#include "cli.h"
#include "core/base/error.h"
#include "core/exporting/formats.h"
#include "core/run/run_export.h"
#include "core/store/workspace.h"

namespace cli {
namespace {

struct Arguments {
  std::string source, format, engine, output, embeddings, workspace = "qbench-workspace";
  double shard_gb = 5;
  bool check = false;
};

// A run by its folder, id or name; or a checkpoint in codes.
std::filesystem::path run_folder(const std::string& wanted, const std::string& workspace_folder) {
  if (std::filesystem::exists(wanted)) return wanted;
  const auto workspace = qb::Workspace::open(workspace_folder, qb::Workspace::Absent::refuse);
  return workspace->run_folder(find_run(*workspace, wanted));
}

int export_run(const Arguments& a, const Options& options) {
  if (!a.check && a.output.empty()) {
    std::cerr << "qbench export: --output is missing\n";
    return usage;
  }
  const auto folder = run_folder(a.source, a.workspace);
  qb::ExportOptions wanted{a.format, a.engine, a.output, static_cast<uint64_t>(a.shard_gb * 1e9), {}, a.embeddings};
  qb::QuantizedModel model;
  if (std::filesystem::exists(folder / "recipe.yaml")) {
    const qb::FinishedRun run = qb::open_run(folder);
    wanted.card = qb::card_of(run);
    model = run.model;
  } else {
    model = qb::open_checkpoint(folder);
  }
  if (a.check) {
    const auto [against, bytes] = qb::export_outlook(model, a.format, a.engine, a.embeddings);
    if (options.json)
      std::cout << nlohmann::json{{"obstacles", against}, {"bytes", against.empty() ? nlohmann::json(bytes) : nlohmann::json()}}.dump(2) << '\n';
    else if (against.empty())
      std::cout << fmt::format("can be exported, {}\n", bytes_text(static_cast<double>(bytes)));
    for (const std::string& one : options.json ? std::vector<std::string>{} : against) std::cout << one << '\n';
    return against.empty() ? ok : input;
  }
  ProgressBar bar("export");
  const qb::Control control{interrupt_token(), nullptr, [&](const qb::Progress& p) { bar.show(p); }};
  const qb::ExportResult result = qb::export_checkpoint(model, wanted, control);
  bar.clear();
  if (options.json) {
    std::cout << nlohmann::json{{"path", result.path.string()}, {"bytes", result.bytes}, {"source_bytes", result.source_bytes}, {"write_seconds", result.write_seconds},
                                {"verify_seconds", result.verify_seconds}, {"serve", result.serve}, {"notes", result.notes}}
                     .dump(2)
              << '\n';
    return ok;
  }
  std::cout << fmt::format("{}  {} (the float model takes {}); written in {}, read back and compared in {}\n", bold(result.path.string()), bytes_text(static_cast<double>(result.bytes)),
                           bytes_text(static_cast<double>(result.source_bytes)), seconds_text(result.write_seconds), seconds_text(result.verify_seconds));
  if (!result.serve.empty()) std::cout << "  serve: " << result.serve << '\n';
  for (const std::string& note : result.notes) std::cout << "  note: " << note << '\n';
  return ok;
}

struct VerifyArguments {
  std::string folder, run, workspace = "qbench-workspace";
};

qb::QuantizedModel open_source(const std::filesystem::path& folder) {
  return std::filesystem::exists(folder / "recipe.yaml") ? qb::open_run(folder).model : qb::open_checkpoint(folder);
}

int verify(const VerifyArguments& a, const Options& options) {
  const qb::QuantizedModel model = open_source(run_folder(a.run, a.workspace));
  ProgressBar bar("verify");
  const qb::Control control{interrupt_token(), nullptr, [&](const qb::Progress& p) { bar.show(p); }};
  const std::string difference = qb::checkpoint_difference(model, a.folder, control);
  bar.clear();
  if (options.json)
    std::cout << nlohmann::json{{"equal", difference.empty()}, {"difference", difference}}.dump(2) << '\n';
  else
    std::cout << (difference.empty() ? fmt::format("{} holds the run, code for code\n", a.folder) : fmt::format("{}: {}\n", a.folder, difference));
  return difference.empty() ? ok : input;
}

}  // namespace

void add_export(CLI::App& app, const Options& options, Action& action) {
  auto a = std::make_shared<Arguments>();
  std::vector<std::string> formats, engines;
  for (const qb::FormatInfo& format : qb::export_formats()) formats.push_back(format.name);
  for (const qb::EngineInfo& engine : qb::export_engines()) engines.push_back(engine.name);
  CLI::App* command = app.add_subcommand("export", "Write a run, or a checkpoint in codes, as a checkpoint that inference engines load");
  command->add_option("run", a->source, "Run: its folder, id or name; or a quantized checkpoint's folder")->required();
  command->add_option("--format,-f", a->format, "What to write")->required()->check(CLI::IsMember(formats));
  command->add_option("--engine,-e", a->engine, "Engine that shall load it: what it does not take is said before anything is written")->check(CLI::IsMember(engines));
  command->add_option("--output,-o", a->output, "Folder to make; for gguf a file");
  command->add_option("--embeddings", a->embeddings, "GGUF: type of embedding and head, q6_K for example, or a mix such as Q4_K_M [the model's own]");
  command->add_option("--workspace,-w", a->workspace, "Folder that keeps the runs")->capture_default_str();
  command->add_option("--shard-gb", a->shard_gb, "Largest file, GB")->check(CLI::Range(0.001, 1e6))->capture_default_str();
  command->add_flag("--check", a->check, "Only say whether it can be written and how large it would be");
  command->callback([a, &options, &action] { action = [a, &options] { return export_run(*a, options); }; });

  auto v = std::make_shared<VerifyArguments>();
  command = app.add_subcommand("verify", "Compare a checkpoint with the run that it was made of: codes, scales, zero points and every other tensor");
  command->add_option("checkpoint", v->folder, "Folder of the checkpoint")->required();
  command->add_option("run", v->run, "Run: its folder, id or name; or another quantized checkpoint")->required();
  command->add_option("--workspace,-w", v->workspace, "Folder that keeps the runs")->capture_default_str();
  command->callback([v, &options, &action] { action = [v, &options] { return verify(*v, options); }; });
}

}  // namespace cli
