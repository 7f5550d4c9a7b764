#include "core/run/served_model.h"

#include <algorithm>
#include <map>
#include <variant>

#include "core/engine/cache_size.h"
#include "core/engine/module_name.h"
#include "core/quant/mixes.h"

namespace qb {
namespace {

// Of codes: the wider of what weights and inputs are in, where a kernel multiplies them as they are.
std::string computing_type(const std::optional<QuantSpec>& weights, const std::optional<QuantSpec>& inputs) {
  if (!weights || !inputs || weights->type.kind != inputs->type.kind) return "bfloat16";
  const int bits = std::max(weights->type.bits, inputs->type.bits);
  if (bits > 8) return "bfloat16";
  return (weights->type.kind == NumberType::Kind::integer ? "int" : "fp") + std::string(bits <= 4 ? "4" : "8");
}

double float_bits(double stored_bits) { return std::min(16.0, stored_bits); }

}  // namespace

ServedModel served_model(const Model& model, const Scheme& given, const RunReport* run) {
  const Architecture& architecture = model.architecture;
  const Scheme scheme = given.mix.empty() ? given : with_mix(given, given.mix, architecture);
  ServedModel served;
  std::map<std::pair<int, std::string>, const LinearReport*> reports;
  if (run)
    for (const BlockReport& block : run->blocks)
      for (const LinearReport& linear : block.linears) reports[{block.block, linear.name}] = &linear;
  for (const BlockInfo& block : model.info.blocks) {
    const LayerSpec& layer = architecture.layers[static_cast<size_t>(block.index)];
    for (size_t i = 0; i < block.linears.size(); ++i) {
      const LinearInfo& linear = block.linears[i];
      const std::string module = module_of(linear);
      const auto weights = scheme.weights_of(module);
      ServedModel::Part part;
      part.weights = static_cast<double>(linear.out_features) * static_cast<double>(linear.in_features);
      const auto report = reports.find({block.index, linear.name});
      double bits = weights ? bits_per_weight(*weights, linear.out_features, linear.in_features) : float_bits(8 * static_cast<double>(linear.bytes) / part.weights);
      if (report != reports.end()) bits = report->second->scheme == "float" ? float_bits(report->second->bits_per_weight) : report->second->bits_per_weight;
      part.bytes = part.weights * bits / 8;
      part.computes = computing_type(weights, scheme.activations_of(module));
      if (layer.linears[i].expert >= 0 && architecture.experts > 0) part.used = static_cast<double>(architecture.experts_per_token) / static_cast<double>(architecture.experts);
      served.parts.push_back(std::move(part));
    }
    const double cached = [&] {
      const CachedValues values = cached_values(layer.graph);
      if (values.exists()) return static_cast<double>(values.heads * (values.key_dim + values.value_dim));
      return caches_latent(layer.graph) ? static_cast<double>(architecture.latent.kv_rank + architecture.latent.rope_dim) : 0.0;
    }();
    const double ratio = [&] {
      if (!scheme.kv_cache || caches_latent(layer.graph)) return 1.0;
      const CacheSize size = cache_size(architecture, *scheme.kv_cache);
      return size.plain > 0 ? size.rounded / size.plain : 1.0;
    }();
    for (const Operation& operation : layer.graph.operations()) {
      const auto* attention = std::get_if<AttentionOp>(&operation.kind);
      if (!attention) continue;
      // A query meets a key in its width, and the value in the context's.
      const double widths = static_cast<double>(layer.graph.value(operation.inputs.front()).width + layer.graph.value(operation.outputs.front()).width);
      served.attentions.push_back({1, 2 * widths, cached * 2 * ratio, static_cast<double>(attention->window > 0 ? attention->window : attention->chunk)});
    }
  }
  const double width = static_cast<double>(architecture.embedding_size > 0 ? architecture.embedding_size : architecture.hidden_size);
  const auto rows_of = [&](const std::optional<QuantSpec>& spec, const std::string& name, double rows) {
    double bits = spec ? bits_per_weight(*spec, static_cast<int64_t>(rows), static_cast<int64_t>(width)) : 16;
    if (run)
      for (const LinearReport& matrix : run->vocabulary)
        if (matrix.name == name) bits = matrix.bits_per_weight;
    return rows * width * bits / 8;
  };
  const double tokens = static_cast<double>(architecture.vocabulary), rows = static_cast<double>(std::max(architecture.embedding_rows, architecture.vocabulary));
  const double embedding = rows_of(scheme.embedding, "embed_tokens", rows);
  const bool tied = architecture.tied_embeddings;
  served.parts.push_back({tokens * width, tied ? embedding * tokens / rows : rows_of(scheme.head, "lm_head", tokens), "bfloat16", 1});
  served.other_bytes = tied ? embedding * (1 - tokens / rows) : embedding;
  return served;
}

}  // namespace qb
