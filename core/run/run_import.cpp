#include "core/run/run_import.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/exporting/checkpoint.h"
#include "core/format/gguf.h"
#include "core/model/canonical_source.h"
#include "core/model/gguf_check.h"
#include "core/model/model_files.h"

namespace qb {
namespace {

// The first thing that a GGUF file's model computes otherwise than the other does. Its keys say what llama.cpp wants to know, by a name that
// several families share, and no window or stretched rotation that does nothing in texts of the context that it gives.
std::string computed_otherwise(const Model& original, const Model& checkpoint) {
  Architecture ours = original.architecture, theirs = checkpoint.architecture;
  theirs.normalise_head = ours.normalise_head;  // rows are stored with length 1 there
  for (Architecture* a : {&ours, &theirs}) {  // whose head is whose is looked at where the tensors are
    const std::string head = a->names.head + ".weight";
    std::erase_if(a->globals, [&](const TensorSpec& spec) { return spec.name == head; });
  }
  int64_t context = 0, shorter = 0;
  for (const Architecture* a : {&ours, &theirs})
    if (a->context_length > 0) context = context > 0 ? std::min(context, a->context_length) : a->context_length;
  shorter = context;
  for (const Architecture* a : {&ours, &theirs}) {
    for (const LayerSpec& layer : a->layers)
      if (layer.window > 0) shorter = std::min(shorter, layer.window);
    for (const RopeSpec& rope : a->ropes)
      if (rope.kind == RopeSpec::Kind::dynamic) shorter = std::min(shorter, rope.original_context);
  }
  std::string text = difference(ours, theirs, context);
  if (!text.empty() && shorter < context && difference(ours, theirs, shorter).empty()) text.clear();
  return text;
}

}  // namespace

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
  if (!checkpoint.caches.empty()) scheme.kv_cache = checkpoint.caches.front().spec;
  scheme.activations = most.activations;
  for (const QuantizedLinear& matrix : checkpoint.vocabulary)
    (matrix.module == checkpoint.model->architecture.names.head ? scheme.head : scheme.embedding) = matrix.weights;
  return scheme;
}

std::string codes_of(const Model& model) {
  const auto file = std::dynamic_pointer_cast<const GgufFile>(model.files->stored());
  if (!file) return "";
  std::map<std::string, int> types;
  int linears = 0, coded = 0;
  for (const BlockInfo& block : model.info.blocks)
    for (const LinearInfo& linear : block.linears) {
      const DType type = file->find(model.files->entry(linear.tensor)->stored.front())->dtype;
      ++linears;
      // gpt-oss as it is published: its experts are read as the numbers that they stand for.
      if (!is_block_quantized(type) || (type == DType::mxfp4 && model.architecture.family == "gpt_oss")) continue;
      ++coded;
      ++types[std::string(name_of(type))];
    }
  if (coded == 0) return "";
  const auto most = std::max_element(types.begin(), types.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return fmt::format("{}, {} of {} linears", most->first, coded, linears);
}

void require_numbers(const Model& model) {
  if (const std::string codes = codes_of(model); !codes.empty())
    throw InputError(fmt::format("{}: the model is already quantized ({}), expected floating-point weights; {}", model.path.string(), codes, kQuantizedAdvice));
}

void require_same_architecture(const Model& original, const Model& checkpoint) {
  auto require = [&](const std::string& what, const auto& found, const auto& expected) {
    if (found == expected) return;
    throw InputError(fmt::format("{}: is no checkpoint of {}: {} is {}, expected {}", checkpoint.path.string(), original.path.string(), what, found, expected));
  };
  const ModelInfo &theirs = checkpoint.info, &ours = original.info;
  const bool gguf = theirs.format == "gguf" || ours.format == "gguf";
  const std::string otherwise = gguf ? computed_otherwise(original, checkpoint) : "";
  if (!gguf || !otherwise.empty()) require("its family", theirs.family, ours.family);
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
  if (!otherwise.empty()) throw InputError(fmt::format("{}: is no checkpoint of {}: {}", checkpoint.path.string(), original.path.string(), otherwise));
  for (const BlockInfo& block : theirs.blocks)
    for (const LinearInfo& linear : block.linears)
      if (checkpoint.architecture.layers[static_cast<size_t>(block.index)].graph.value(linear.input).hadamard)
        throw InputError(fmt::format("{}: the input of \"{}\" is rotated at run time, so that its weights do not compare with those of {}; import it without the original", checkpoint.path.string(),
                                     linear.tensor, original.path.string()));
  for (const auto& [name, value] : gguf ? decltype(ours.facts)() : ours.facts) {
    const auto same = std::find_if(theirs.facts.begin(), theirs.facts.end(), [&, key = name](const auto& fact) { return fact.first == key; });
    require("\"" + name + "\"", same == theirs.facts.end() ? std::string("missing") : same->second, value);
  }
  if (theirs.tied_embeddings && !ours.tied_embeddings)
    throw InputError(fmt::format("{}: is no checkpoint of {}: its head is tied to the embedding, the original's is not", checkpoint.path.string(), original.path.string()));
}

}  // namespace qb
