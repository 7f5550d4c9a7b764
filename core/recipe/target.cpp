#include "core/recipe/target.h"

#include <algorithm>

namespace qb {
namespace {

bool is_plain_integer(const QuantSpec& spec) { return spec.storage == Storage::none && spec.type.kind == NumberType::Kind::integer; }
bool is_open(const QuantSpec& spec) { return spec.scale_type_open && spec.scale_type == QuantSpec().scale_type; }  // and nothing was set in code

}  // namespace

std::vector<const QuantSpec*> scaled_weights(const Recipe& recipe) {
  std::vector<const QuantSpec*> all;
  if (recipe.scheme.weights && is_plain_integer(*recipe.scheme.weights)) all.push_back(&*recipe.scheme.weights);
  for (const SchemeOverride& entry : recipe.scheme.overrides)
    if (entry.weights && is_plain_integer(*entry.weights)) all.push_back(&*entry.weights);
  return all;
}

std::optional<ScaleType> computed_scale_type(const Recipe& recipe, const std::string& model_dtype) {
  if (!recipe.target || (recipe.target->format != "compressed-tensors" && recipe.target->format != "mlx") || recipe.scheme.activations) return std::nullopt;
  return model_dtype == "F16" ? std::optional(ScaleType::f16) : model_dtype == "BF16" ? std::optional(ScaleType::bf16) : std::nullopt;
}

std::optional<ScaleType> chosen_scale_type(const Recipe& recipe, const std::string& model_dtype) {
  const auto weights = scaled_weights(recipe);
  const bool open = std::any_of(weights.begin(), weights.end(), [](const QuantSpec* spec) { return is_open(*spec); });
  return open ? computed_scale_type(recipe, model_dtype) : std::nullopt;
}

Recipe for_target(Recipe recipe, const std::string& model_dtype) {
  const auto computed = computed_scale_type(recipe, model_dtype);
  const auto close = [&](std::optional<QuantSpec>& spec) {
    if (!spec) return;
    if (computed && is_plain_integer(*spec) && is_open(*spec)) spec->scale_type = *computed;
    spec->scale_type_open = false;
  };
  close(recipe.scheme.weights);
  for (SchemeOverride& entry : recipe.scheme.overrides) close(entry.weights);
  return recipe;
}

}  // namespace qb
