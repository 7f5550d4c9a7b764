#include "core/run/run_import.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/exporting/checkpoint.h"

namespace qb {

bool has_original(const Recipe& recipe) {
  std::error_code error;
  return !std::filesystem::equivalent(recipe.model, recipe.checkpoint, error);
}

Scheme scheme_of(const QuantizedModel& checkpoint) {
  std::vector<std::pair<const QuantizedLinear*, int>> kinds;
  for (const QuantizedLinear& linear : checkpoint.linears) {
    const auto same = std::find_if(kinds.begin(), kinds.end(), [&](const auto& kind) { return kind.first->weights == linear.weights && kind.first->activations == linear.activations; });
    if (same == kinds.end())
      kinds.emplace_back(&linear, 1);
    else
      ++same->second;
  }
  if (kinds.empty()) throw InputError(fmt::format("{}: none of its linears is in codes", checkpoint.model->path.string()));
  const QuantizedLinear& most = *std::max_element(kinds.begin(), kinds.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
  Scheme scheme;
  scheme.weights = most.weights;
  scheme.activations = most.activations;
  return scheme;
}

void require_same_architecture(const Model& original, const Model& checkpoint) {
  auto require = [&](const std::string& what, const auto& found, const auto& expected) {
    if (found == expected) return;
    throw InputError(fmt::format("{}: is no checkpoint of {}: {} is {}, expected {}", checkpoint.path.string(), original.path.string(), what, found, expected));
  };
  const ModelInfo &theirs = checkpoint.info, &ours = original.info;
  require("its family", theirs.family, ours.family);
  require("its number of blocks", theirs.blocks.size(), ours.blocks.size());
  require("its hidden size", theirs.hidden_size, ours.hidden_size);
  require("its vocabulary", theirs.vocabulary, ours.vocabulary);
  for (size_t b = 0; b < ours.blocks.size(); ++b) {
    const auto &linears = theirs.blocks[b].linears, &expected = ours.blocks[b].linears;
    require(fmt::format("the number of linears in block {}", b), linears.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      require(fmt::format("linear {} of block {}", i, b), linears[i].tensor, expected[i].tensor);
      require("\"" + expected[i].tensor + "\"", fmt::format("[{}, {}]", linears[i].out_features, linears[i].in_features),
              fmt::format("[{}, {}]", expected[i].out_features, expected[i].in_features));
    }
  }
  for (const BlockInfo& block : theirs.blocks)
    for (const LinearInfo& linear : block.linears)
      if (checkpoint.architecture.layers[static_cast<size_t>(block.index)].graph.value(linear.input).hadamard)
        throw InputError(fmt::format("{}: the input of \"{}\" is rotated at run time, so that its weights do not compare with those of {}; import it without the original", checkpoint.path.string(),
                                     linear.tensor, original.path.string()));
  for (const auto& [name, value] : ours.facts) {
    const auto same = std::find_if(theirs.facts.begin(), theirs.facts.end(), [&, key = name](const auto& fact) { return fact.first == key; });
    require("\"" + name + "\"", same == theirs.facts.end() ? std::string("missing") : same->second, value);
  }
  if (theirs.tied_embeddings && !ours.tied_embeddings)
    throw InputError(fmt::format("{}: is no checkpoint of {}: its head is tied to the embedding, the original's is not", checkpoint.path.string(), original.path.string()));
}

}  // namespace qb
