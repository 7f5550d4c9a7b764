#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iostream>

#include "cli.h"
#include "core/measure/tensor_summary.h"
#include "core/model/model_files.h"
#include "core/model/model_info.h"

namespace cli {
namespace {

nlohmann::json as_json(const std::vector<qb::OtherTensor>& others) {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& t : others)
    list.push_back({{"name", t.name}, {"tensor", t.tensor}, {"kind", t.kind}, {"shape", t.shape}, {"dtype", t.dtype}, {"bytes", t.bytes}, {"tied", t.tied}});
  return list;
}

nlohmann::json as_json(const qb::ChannelSizes& sizes) { return {{"mean_abs", sizes.mean_abs}, {"abs_max", sizes.abs_max}}; }

nlohmann::json as_json(const qb::TensorSummary& t) {
  return {{"tensor", t.tensor}, {"dtype", t.dtype}, {"shape", t.shape}, {"values", t.values}, {"not_finite", t.not_finite}, {"mean", t.mean},
          {"deviation", t.deviation}, {"abs_max", t.abs_max}, {"kurtosis", t.kurtosis},
          {"outliers", {{"deviations", qb::kOutlierDeviations}, {"share", t.outlier_share}}},
          {"histogram", {{"low", t.histogram.low}, {"high", t.histogram.high}, {"counts", t.histogram.counts}, {"below", t.histogram.below}, {"above", t.histogram.above}}},
          {"columns", as_json(t.columns)}, {"rows", as_json(t.rows)}};
}

nlohmann::json as_json(const qb::ModelInfo& m) {
  nlohmann::json blocks = nlohmann::json::array();
  for (const auto& block : m.blocks) {
    nlohmann::json linears = nlohmann::json::array();
    for (const auto& l : block.linears)
      linears.push_back({{"name", l.name}, {"tensor", l.tensor}, {"subset", l.subset}, {"shape", {l.out_features, l.in_features}}, {"dtype", l.dtype}, {"bytes", l.bytes}});
    blocks.push_back({{"index", block.index}, {"linears", linears}, {"others", as_json(block.others)}});
  }
  nlohmann::json facts = nlohmann::json::object();
  for (const auto& [name, value] : m.facts)
    if (name != qb::kNote) facts[name] = value;
  return {{"path", m.path.string()}, {"name", m.name}, {"family", m.family}, {"format", m.format}, {"parameters", m.parameters}, {"bytes", m.bytes},
          {"hidden_size", m.hidden_size}, {"intermediate_size", m.intermediate_size}, {"heads", m.heads}, {"kv_heads", m.kv_heads}, {"head_dim", m.head_dim},
          {"vocabulary", m.vocabulary}, {"context_length", m.context_length}, {"experts", m.experts}, {"tied_embeddings", m.tied_embeddings},
          {"dtype", m.dtype}, {"tokenizer", m.tokenizer}, {"facts", facts}, {"notes", qb::notes_of(m)}, {"before", as_json(m.before)}, {"blocks", blocks}, {"after", as_json(m.after)}};
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("{}", fmt::join(shape, " × ")); }

// The tensor that is meant: by its canonical name, or as the tree of the window has it.
std::string tensor_of(const qb::ModelInfo& m, const std::string& name) {
  for (const auto* others : {&m.before, &m.after})
    for (const auto& t : *others)
      if (t.name == name) return t.tensor;
  return name;
}

int inspect_tensor(const std::string& path, const std::string& name, const Options& options) {
  const qb::TensorSummary t = qb::summarise_tensor(path, tensor_of(qb::inspect_model(path), name));
  if (options.json) {
    std::cout << as_json(t).dump(2) << '\n';
    return ok;
  }
  std::cout << bold(t.tensor) << fmt::format("  {}, {}\n", shape_text(t.shape), t.dtype);
  std::cout << fmt::format("mean {:.4g}, standard deviation {:.4g}, largest |w| {:.4g}, kurtosis {:.4g}\n", t.mean, t.deviation, t.abs_max, t.kurtosis);
  std::cout << fmt::format("{:.3g} % beyond {} standard deviations\n", 100 * t.outlier_share, qb::kOutlierDeviations);
  if (t.not_finite > 0) std::cout << fmt::format("{} values are not finite\n", t.not_finite);
  const auto sizes = [](const char* what, const qb::ChannelSizes& channels) {
    if (channels.abs_max.empty()) return;
    std::vector<float> sorted = channels.abs_max;
    std::sort(sorted.begin(), sorted.end());
    const auto largest = std::max_element(channels.abs_max.begin(), channels.abs_max.end());
    std::cout << fmt::format("{} {}: largest |w| {:.4g} in channel {}, median of channels {:.4g}\n", channels.channels, what, *largest, largest - channels.abs_max.begin(), sorted[sorted.size() / 2]);
  };
  sizes("columns", t.columns);
  sizes("rows", t.rows);
  return ok;
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
  std::vector<std::vector<std::string>> rows;
  const auto list = [&rows](const std::string& indent, const std::vector<qb::OtherTensor>& others) {
    for (const auto& t : others) rows.push_back({indent + t.name, shape_text(t.shape), t.dtype, t.kind, t.tied ? "tied to " + t.tensor : bytes_text(static_cast<double>(t.bytes))});
  };
  list("", m.before);
  // Blocks of the same shape are shown once.
  auto shape = [](const qb::BlockInfo& block) {
    std::string text;
    for (const auto& l : block.linears) text += fmt::format("{} {} {} {};", l.name, l.out_features, l.in_features, l.dtype);
    return text;
  };
  for (size_t i = 0; i < m.blocks.size();) {
    size_t end = i + 1;
    while (!all && end < m.blocks.size() && shape(m.blocks[end]) == shape(m.blocks[i])) ++end;
    const std::string blocks = end - i > 1 ? fmt::format("blocks {}–{}", i, end - 1) : fmt::format("block {}", i);
    rows.push_back({blocks, "", "", "", ""});
    for (const auto& l : m.blocks[i].linears)
      rows.push_back({"  " + l.name, fmt::format("{} × {}", l.out_features, l.in_features), l.dtype, l.subset, bytes_text(static_cast<double>(l.bytes))});
    list("  ", m.blocks[i].others);
    i = end;
  }
  list("", m.after);
  print_table({"tensor", "out × in", "dtype", "kind", "size"}, rows);
  return ok;
}

}  // namespace

void add_inspect(CLI::App& app, const Options& options, Action& action) {
  struct Arguments {
    std::string path, tensor;
    bool all = false;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("inspect", "Show what a model is, from its headers only");
  command->add_option("model", arguments->path, "Model folder or .gguf file")->required();
  command->add_flag("--all", arguments->all, "Show every block, also those of the same shape");
  command->add_option("--tensor", arguments->tensor, "Read one tensor: distribution of its values, sizes of its channels (\"model.layers.0.mlp.down_proj.weight\")");
  command->callback([arguments, &options, &action] {
    action = [arguments, &options] { return arguments->tensor.empty() ? inspect(arguments->path, arguments->all, options) : inspect_tensor(arguments->path, arguments->tensor, options); };
  });
}

}  // namespace cli
