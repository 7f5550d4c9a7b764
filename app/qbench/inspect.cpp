#include <fmt/format.h>

#include <iostream>

#include "cli.h"
#include "core/model/model_files.h"
#include "core/model/model_info.h"

namespace cli {
namespace {

nlohmann::json as_json(const qb::ModelInfo& m) {
  nlohmann::json blocks = nlohmann::json::array();
  for (const auto& block : m.blocks) {
    nlohmann::json linears = nlohmann::json::array();
    for (const auto& l : block.linears)
      linears.push_back({{"name", l.name}, {"tensor", l.tensor}, {"subset", l.subset}, {"shape", {l.out_features, l.in_features}}, {"dtype", l.dtype}, {"bytes", l.bytes}});
    blocks.push_back({{"index", block.index}, {"linears", linears}});
  }
  nlohmann::json facts = nlohmann::json::object();
  for (const auto& [name, value] : m.facts)
    if (name != qb::kNote) facts[name] = value;
  return {{"path", m.path.string()}, {"name", m.name}, {"family", m.family}, {"format", m.format}, {"parameters", m.parameters}, {"bytes", m.bytes},
          {"hidden_size", m.hidden_size}, {"intermediate_size", m.intermediate_size}, {"heads", m.heads}, {"kv_heads", m.kv_heads}, {"head_dim", m.head_dim},
          {"vocabulary", m.vocabulary}, {"context_length", m.context_length}, {"experts", m.experts}, {"tied_embeddings", m.tied_embeddings},
          {"dtype", m.dtype}, {"tokenizer", m.tokenizer}, {"facts", facts}, {"notes", qb::notes_of(m)}, {"blocks", blocks}};
}

int inspect(const std::string& path, bool all, const Options& options) {
  const qb::ModelInfo m = qb::inspect_model(path);
  if (options.json) {
    // A path may be any bytes.
    std::cout << as_json(m).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
    return ok;
  }
  std::cout << bold(m.name) << fmt::format("  {} ({}), {} parameters, {} of {}\n", m.family, m.format, count_text(static_cast<double>(m.parameters)),
                                           bytes_text(static_cast<double>(m.bytes)), m.dtype);
  std::cout << fmt::format("hidden {}, intermediate {}, {} heads × {}, {} kv heads, vocabulary {}, context {}{}\n", m.hidden_size, m.intermediate_size,
                           m.heads, m.head_dim, m.kv_heads, m.vocabulary, m.context_length, m.tied_embeddings ? ", tied embeddings" : "");
  if (m.experts > 0) std::cout << fmt::format("{} experts, {} a token\n", m.experts, m.experts_per_token);
  for (const auto& [name, value] : m.facts)
    if (name != qb::kNote) std::cout << name << ": " << value << '\n';
  std::cout << "tokenizer: " << m.tokenizer << '\n';
  for (const std::string& note : qb::notes_of(m)) std::cout << "note: " << note << '\n';
  std::cout << '\n';
  // Blocks of the same shape are shown once.
  auto shape = [](const qb::BlockInfo& block) {
    std::string text;
    for (const auto& l : block.linears) text += fmt::format("{} {} {} {};", l.name, l.out_features, l.in_features, l.dtype);
    return text;
  };
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < m.blocks.size();) {
    size_t end = i + 1;
    while (!all && end < m.blocks.size() && shape(m.blocks[end]) == shape(m.blocks[i])) ++end;
    const std::string blocks = end - i > 1 ? fmt::format("blocks {}–{}", i, end - 1) : fmt::format("block {}", i);
    rows.push_back({blocks, "", "", "", ""});
    for (const auto& l : m.blocks[i].linears)
      rows.push_back({"  " + l.name, fmt::format("{} × {}", l.out_features, l.in_features), l.dtype, l.subset, bytes_text(static_cast<double>(l.bytes))});
    i = end;
  }
  print_table({"linear", "out × in", "dtype", "subset", "size"}, rows);
  return ok;
}

}  // namespace

void add_inspect(CLI::App& app, const Options& options, Action& action) {
  struct Arguments {
    std::string path;
    bool all = false;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("inspect", "Show what a model is, from its headers only");
  command->add_option("model", arguments->path, "Model folder or .gguf file")->required();
  command->add_flag("--all", arguments->all, "Show every block, also those of the same shape");
  command->callback([arguments, &options, &action] { action = [arguments, &options] { return inspect(arguments->path, arguments->all, options); }; });
}

}  // namespace cli
