#pragma once
#include "core/text/pipeline_tokenizer.h"

namespace qb {

// The parts of a tokenizer.json. Its padding and truncation settings are for batches and not ours.
// Throws InputError naming `origin` and the field.
PipelineTokenizer::Parts read_tokenizer_json(std::string_view json, const std::string& origin);
PipelineTokenizer::Parts read_tokenizer_document(const nlohmann::json& document, const std::string& origin);

// Begin and end of text: names from tokenizer_config.json, else ids from config.json, where they stand in the folder.
void read_special_names(const std::filesystem::path& folder, PipelineTokenizer::Parts& parts);

}  // namespace qb
