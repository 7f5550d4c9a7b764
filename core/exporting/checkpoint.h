#pragma once
#include <filesystem>
#include <optional>

#include <string>
#include <vector>

#include "core/base/control.h"
#include "core/quant/scheme.h"

namespace qb {

struct QuantizedModel;  // core/quant/quantized_model.h: whoever has one sees tensors, whoever asks for an export need not

// What is said about a checkpoint in its model card, beside what it shows itself.
struct ModelCard {
  std::string title;                    // "SmolLM2-135M, W4A16 g64, awq → gptq"
  std::string recipe;                   // YAML
  std::vector<std::string> figures;     // lines with their conditions
};

struct ExportOptions {
  std::string format;                   // of export_formats()
  std::string engine;                   // of export_engines(); empty: none is asked for
  std::filesystem::path output;         // a folder, or for GGUF a file, that is not there yet
  uint64_t shard_bytes = 5'000'000'000;
  ModelCard card;
  std::string embeddings = {};          // GGUF: type of embedding and head ("q6_K"; "Q4_K_M": as that mix has them); empty: the model's own
};

struct ExportResult {
  std::filesystem::path path;
  uint64_t bytes = 0;                   // on disk
  uint64_t source_bytes = 0;            // of the float model
  double write_seconds = 0, verify_seconds = 0;
  std::string serve;                    // command line, for an engine that was named
  std::optional<QuantSpec> cache;       // how keys and values shall be rounded
  std::vector<std::string> notes;       // what its user should know
};

// Sentences that stand against an export by the tables of formats and engines; empty: none. engine: empty for the format alone.
std::vector<std::string> scheme_obstacles(const QuantizedModel& model, const std::string& format, const std::string& engine);
// What an export would come to.
struct ExportOutlook {
  std::vector<std::string> obstacles;   // scheme_obstacles(), or where there are none what planning the checkpoint finds
  uint64_t bytes = 0;                   // that its tensors take on disk; 0: it cannot be written
};
ExportOutlook export_outlook(const QuantizedModel& model, const std::string& format, const std::string& engine = {}, const std::string& embeddings = {});

// Why a checkpoint cannot be written there, in one sentence; empty: nothing stands against it.
std::string output_obstacle(const std::filesystem::path& output, const std::string& format);

// Writes the checkpoint under a temporary name beside the output, reads it back, compares it with the model, and renames it.
// Cancelled, killed or failing it leaves nothing under the output's name. Throws InputError (an obstacle, an output that is there),
// ResourceError (disk), Cancelled, InternalError where what is read back differs.
ExportResult export_checkpoint(const QuantizedModel& model, const ExportOptions& options, const Control& control);

// The first thing in which a checkpoint differs from the model that it shall hold; empty: it holds it, code for code. Numbers are compared
// in the type in which the checkpoint keeps them. Throws InputError where the folder cannot be read.
std::string checkpoint_difference(const QuantizedModel& model, const std::filesystem::path& folder, const Control& control);

// A checkpoint whose weights are codes (compressed-tensors, GPTQ, AWQ, as "quantization_config" says; GGUF) as a quantized model; its
// `model` has the dequantized weights. Throws InputError naming file, key or tensor.
QuantizedModel open_checkpoint(const std::filesystem::path& path);
// Whether open_checkpoint reads it: a folder that says one of these formats. FP8 with scales alone is read by Model::open too.
bool is_coded_checkpoint(const std::filesystem::path& path);

}  // namespace qb
