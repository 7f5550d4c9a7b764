#include "core/engine/importance.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "core/base/error.h"
#include "core/engine/collector.h"
#include "core/engine/hidden_states.h"

namespace qb {
namespace {

constexpr int64_t kResidentBytes = int64_t{2} << 30, kBatchTokens = 2048;

// GGUF's names of a linear: one, or one for each part that converters split it into.
std::vector<std::string> names_of(const LinearSpec& linear, int block) {
  std::vector<std::string> stems;
  for (const std::string& part : linear.gguf_parts)
    if (!part.empty()) stems.push_back(part);
  if (!linear.gguf.empty()) stems.push_back(linear.gguf);
  for (std::string& stem : stems) stem = fmt::format("blk.{}.{}.weight", block, stem);
  return stems;
}

}  // namespace

ImportanceMatrix importance_matrix(const std::shared_ptr<const Model>& model, const TokenSet& tokens, at::ScalarType dtype, at::Device device, const std::filesystem::path& scratch,
                                   const Control& control) {
  const at::NoGradGuard no_grad;
  const Architecture& a = model->architecture;
  Decoder decoder(model, model->source, dtype, device);
  HiddenStates hidden(tokens, a.hidden_size, dtype, kResidentBytes, scratch, kBatchTokens);
  for (size_t b = 0; b < hidden.batches(); ++b) hidden[b].copy_(decoder.embed(hidden.ids(b).to(device)));
  ImportanceMatrix matrix;
  matrix.chunk_count = static_cast<int64_t>(tokens.samples.size());
  matrix.chunk_size = tokens.samples.empty() ? 0 : static_cast<int64_t>(tokens.samples.front().size());
  for (int i = 0; i < decoder.blocks(); ++i) {
    const Block block = decoder.load_block(i);
    Collector collector(static_cast<Statistics>(Statistic::sum_squares), 0, hidden.tokens());
    for (size_t b = 0; b < hidden.batches(); ++b) {
      hidden[b].copy_(decoder.forward(block, hidden[b].to(device), {.at_value = collector.tap(control)}));
      Progress p;
      p.phase = "importance";
      p.block = i;
      p.blocks = decoder.blocks();
      p.fraction = (i + static_cast<double>(b + 1) / static_cast<double>(hidden.batches())) / decoder.blocks();
      control.report(p);
    }
    const auto statistics = collector.take();
    const auto& linears = a.layers[static_cast<size_t>(i)].linears;
    for (const LinearSpec& linear : linears) {
      const auto names = names_of(linear, i);
      if (names.empty()) throw InputError(fmt::format("{}: \"{}\" has no name in GGUF files, which importance matrices go by", model->path.string(), linear.name));
      const auto found = statistics.find(linear.input);
      for (const std::string& name : names) {
        ImportanceMatrix::Entry& entry = matrix.entries[name];
        if (!entry.sums.defined()) {
          const int64_t matrices = linear.expert >= 0 ? a.experts : 1;
          entry.sums = at::zeros({matrices, linear.in});
          entry.counts = at::zeros({matrices});
        }
        if (found == statistics.end() || !found->second.sum_squares.defined()) continue;  // an expert that no token reached
        const int64_t row = std::max(linear.expert, 0);
        entry.sums[row].copy_(found->second.sum_squares);
        entry.counts[row] = static_cast<double>(found->second.tokens);
      }
    }
  }
  return matrix;
}

namespace {

// The sums [in] and the count of one linear's input. The checks are those of require_importance.
std::pair<at::Tensor, double> sums_of(const EngineJob& job, int block, const LinearSpec& linear) {
  const Architecture& a = job.model->architecture;
  const std::string module = a.block_prefix(block) + linear.name, origin = job.importance_path.string();
  const auto names = names_of(linear, block);
  if (names.empty()) throw InputError(fmt::format("{}: \"{}\" has no name in GGUF files, which importance matrices go by", job.model->path.string(), module));
  for (const std::string& name : names) {
    const auto it = job.importance->entries.find(name);
    if (it == job.importance->entries.end()) continue;
    const ImportanceMatrix::Entry& entry = it->second;
    const int64_t matrices = linear.expert >= 0 ? a.experts : 1, row = std::max(linear.expert, 0);
    if (entry.sums.numel() != matrices * linear.in)
      throw InputError(fmt::format("{}: entry \"{}\" has {} values, expected {} for {}: an importance matrix of another model?", origin, name, entry.sums.numel(),
                                   matrices > 1 ? fmt::format("{} × {}", matrices, linear.in) : std::to_string(linear.in), module));
    const double count = entry.counts[entry.counts.numel() > 1 ? row : 0].item<double>();
    if (count == 0 && linear.expert < 0) throw InputError(fmt::format("{}: entry \"{}\" counts no tokens: nothing is known of the inputs of {}", origin, name, module));
    return {entry.sums.reshape({matrices, linear.in})[row], count};
  }
  throw InputError(fmt::format("{}: no entry \"{}\" for {}: an importance matrix of another model?", origin, names.front(), module));
}

}  // namespace

void require_importance(const EngineJob& job) {
  const Architecture& a = job.model->architecture;
  for (int i = 0; i < static_cast<int>(a.blocks); ++i)
    for (const LinearSpec& linear : a.layers[static_cast<size_t>(i)].linears)
      if (job.scheme.weights_of(a.block_prefix(i) + linear.name)) sums_of(job, i, linear);
}

void use_importance(const EngineJob& job, BlockWork& work) {
  const auto& linears = job.model->architecture.layers[static_cast<size_t>(work.block.index)].linears;
  for (size_t i = 0; i < linears.size(); ++i) {
    if (!work.linears[i].spec) continue;
    const auto [sums, count] = sums_of(job, work.block.index, linears[i]);
    ValueStatistics& statistics = work.statistics[linears[i].input];
    if (count > 0)
      statistics.sum_squares = sums.to(job.device, at::kFloat, false, true);
    else
      work.linears[i].tell("no token of the importance matrix reached it: its inputs weigh the same");
  }
}

}  // namespace qb
