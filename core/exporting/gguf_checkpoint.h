#pragma once
#include <map>

#include "core/exporting/checkpoint.h"
#include "core/model/gguf_export.h"
#include "core/quant/scheme.h"

namespace qb {

// Runs as GGUF files and back.

// What stands against weights of these types, by canonical name, in the file of a plan: one tensor for several of them, an order of columns
// that blocks do not follow. A sentence each with what to do instead, at most 8.
std::vector<std::string> gguf_obstacles(const GgufPlan& plan, const std::map<std::string, QuantSpec>& types);
// Size, and what stands against a run beyond the formats' table: linears that GGUF keeps in one tensor but that have different types, and
// those whose columns it wants in an order that blocks of codes do not follow. Throws InputError for a family or a tokenizer that GGUF has
// no form of.
ExportOutlook gguf_outlook(const QuantizedModel& model, const std::string& embeddings);
ExportResult export_gguf(const QuantizedModel& model, const ExportOptions& options, const Control& control);
// As checkpoint_difference.
std::string gguf_difference(const QuantizedModel& model, const std::filesystem::path& path, const Control& control);
// A GGUF file whose matrices are in block types as a quantized model. Types that no scheme has stay numbers.
QuantizedModel open_gguf_checkpoint(const std::filesystem::path& path);

}  // namespace qb
