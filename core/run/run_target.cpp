#include "core/run/run_target.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/engine/cache_size.h"
#include "core/engine/module_name.h"
#include "core/engine/patterns.h"
#include "core/exporting/formats.h"
#include "core/exporting/gguf_checkpoint.h"
#include "core/method/stored_form.h"
#include "core/method/transformation/quarot.h"
#include "core/model/gguf_export.h"
#include "core/model/model_files.h"
#include "core/quant/mixes.h"
#include "core/quant/stored_spec.h"
#include "core/recipe/target.h"

namespace qb {

std::vector<std::string> target_obstacles(const Recipe& recipe, const Model& model) {
  if (!recipe.target) return {};
  const FormatInfo* format = find_format(recipe.target->format);
  const EngineInfo* engine = find_engine(recipe.target->engine);
  if (!format || (!engine && !recipe.target->engine.empty())) validate(recipe);  // says which names there are
  if (model.info.format == "gguf" && format->name != "gguf")
    return {fmt::format("{}: is a {} file, which has no config.json and tokenizer to go with a Hugging Face folder; {} is made of the original Hugging Face model", model.path.string(),
                        model.info.format, format->title)};
  std::vector<StoredScheme> linears, floats;
  const Scheme scheme = recipe.scheme.mix.empty() ? recipe.scheme : with_mix(recipe.scheme, recipe.scheme.mix, model.architecture);
  for (const BlockInfo& block : model.info.blocks) {
    const LayerSpec& layer = model.architecture.layers[static_cast<size_t>(block.index)];
    std::vector<ValueId> rotated;
    for (const StageSpec& stage : recipe.pipeline)
      if (stage.method == "quarot") rotated = quarot_online(stage, layer.graph, layer.linears);
    for (size_t i = 0; i < block.linears.size(); ++i) {
      const LinearInfo& info = block.linears[i];
      StoredScheme linear{module_of(info), info.out_features, info.in_features, {}, {}, false, false, info.input, block.index};
      linear.expert = layer.linears[i].expert >= 0;
      linear.bias = layer.linears[i].bias;
      const auto spec = scheme.weights_of(linear.module);
      linear.input_hadamard = std::find(rotated.begin(), rotated.end(), info.input) != rotated.end();
      if (!spec) {
        floats.push_back(std::move(linear));
        continue;
      }
      StoredForm form = stored_form(recipe.pipeline, *spec, info.out_features, info.in_features);
      linear.weights = meaning_of(form.weights);
      linear.exceptions = form.exceptions;
      linear.made_by = std::move(form.made_by);
      if (const auto activations = scheme.activations_of(linear.module)) linear.activations = meaning_of(*activations);
      linears.push_back(std::move(linear));
    }
  }
  std::optional<StoredCache> cache;
  if (scheme.kv_cache) cache = StoredCache{*scheme.kv_cache};
  for (const BlockInfo& block : model.info.blocks)
    if (const CachedValues cached = cached_values(model.architecture.layers[static_cast<size_t>(block.index)].graph); cache && cached.exists() && cache->keys.empty())
      cache->keys = module_of(block.linears.at(static_cast<size_t>(cached.linear)));
  auto all = obstacles(*format, engine, linears, floats, model.architecture.family, cache ? &*cache : nullptr);
  if (all.empty() && format->name == "gguf") try {
      std::map<std::string, QuantSpec> types;
      for (const StoredScheme& linear : linears) types.emplace(linear.module + ".weight", linear.weights);
      all = gguf_obstacles(plan_gguf(model), types);
    } catch (const InputError& error) {  // a family or a tokenizer that GGUF has no form of
      all.emplace_back(error.what());
    }
  return all;
}

std::vector<std::string> target_notes(const Recipe& recipe, const Model& model) {
  std::vector<std::string> notes;
  if (const auto chosen = chosen_scale_type(recipe, model.info.dtype))
    notes.push_back(fmt::format("target: scales are stored as {}, in which engines compute with them; the scheme names no scale_type", to_text(*chosen)));
  if (const auto computed = computed_scale_type(recipe, model.info.dtype))
    for (const QuantSpec* spec : scaled_weights(recipe))
      if (!spec->scale_type_open && spec->scale_type != *computed) {
        notes.push_back(recipe.target->format == "mlx"
                            ? fmt::format("target: scales are {}, which makes products wider than the model's own type, and slower; scale_type: {} does not", to_text(spec->scale_type), to_text(*computed))
                            : fmt::format("target: scales are {}, but engines compute with scales of the model's own type and round them to {}; scale_type: {} measures what they compute",
                                          to_text(spec->scale_type), to_text(*computed), to_text(*computed)));
        break;
      }
  return notes;
}

std::vector<std::string> notes_of(const Recipe& recipe, const Model& model) {
  std::vector<std::string> notes = notes_of(model.info);
  for (std::string& note : target_notes(recipe, model)) notes.push_back(std::move(note));
  for (std::string& note : ignore_notes(recipe.scheme, model)) notes.push_back(std::move(note));
  if (recipe.scheme.kv_cache) notes.push_back(cache_size_text(model.architecture, *recipe.scheme.kv_cache));
  return notes;
}

void require_target(const Recipe& recipe, const Model& model) {
  if (const auto against = target_obstacles(recipe, model); !against.empty()) throw RecipeError("", 0, 0, "target", fmt::format("{}", fmt::join(against, "\n")));
}

}  // namespace qb
