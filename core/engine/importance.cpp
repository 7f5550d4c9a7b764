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

}  // namespace qb
