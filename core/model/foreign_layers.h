#pragma once
#include "core/model/config_fields.h"

namespace qb {

// Models that this program does not know because it computes no layers of their kind say so in a key, which is better named
// than the model's type. Each throws InputError in one sentence, or returns.

// fields: of the text model, whose type no family has; outer: the whole configuration.
void refuse_foreign_layers(const ConfigFields& fields, const ConfigFields& outer, const std::string& model_type);
// A component of a diffusion pipeline, whose config.json has no model_type.
void refuse_pipeline_part(const ConfigFields& fields);
// A GGUF file's general.architecture that no family has.
void refuse_foreign_gguf(const std::string& origin, const std::string& architecture);

}  // namespace qb
