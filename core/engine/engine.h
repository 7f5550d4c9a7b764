#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "core/base/control.h"
#include "core/method/method.h"
#include "core/quant/quantized_model.h"
#include "core/text/corpus.h"

namespace qb {

struct ImportanceMatrix;

// One quantization: the block-by-block walk over a model.
struct EngineJob {
  std::shared_ptr<const Model> model;
  TokenSet calibration;                 // may be empty when no stage needs calibration (reports then lack output errors)
  Scheme scheme;
  std::vector<StageSpec> pipeline;      // where no stage rounds, rtn does: complete_pipeline()
  at::ScalarType dtype = at::kBFloat16; // of the forward passes
  at::Device device = at::kCPU;
  bool propagate_quantized = true;      // the next block sees the quantized block's outputs
  uint64_t seed = 42;
  std::filesystem::path folder;         // blocks are written to folder/blocks/block-0000.safetensors
  // A quantized checkpoint of the model: its codes and numbers take the place of a scheme and stages. compared: the model is its float
  // original; else the model is the checkpoint's own, and nothing is left to compare with.
  std::shared_ptr<const QuantizedModel> given;
  bool compared = true;
  // Sums of the inputs' squares in place of those that a pass over calibration text would collect; nullptr: they are collected.
  std::shared_ptr<const ImportanceMatrix> importance;
  std::filesystem::path importance_path;
  // What decides the result, by name ("recipe", "model", "calibration"); a folder with other values is refused.
  std::map<std::string, std::string> fingerprint;
  int64_t measured_tokens = 2048;       // calibration tokens that measurements (rows, block outputs) are taken on
  int64_t resident_bytes = int64_t{2} << 30;  // hidden states above this are kept in a file
  // What later jobs have in common with this one is kept here (core/engine/statistics_cache.h); empty: nowhere.
  std::filesystem::path statistics_folder;
  int64_t statistics_bytes = 20'000'000'000;  // at most, of all models together
};

// What an observer (core/measure) sees of a finished block, before its memory goes. Tensors are float32.
struct BlockView {
  const BlockWork& work;
  const Decoder& decoder;
  at::Tensor float_output, quantized_output;  // a sample of the block's output hidden states; undefined without calibration
  double seconds = 0;
  bool statistics_cached = false;  // read from statistics_folder
  std::vector<std::string> choices_cached = {};  // stages whose choices were
};

// What an observer sees of the embedding or the head in codes.
struct VocabularyView {
  std::string module;
  at::Tensor original;                // [vocabulary, width] as the model stores it
  const QuantizedWeight& quantized;
  at::Tensor gram;                    // of what the head multiplied, [width, width] float32; undefined: nobody asked for it
  double seconds = 0;
  std::string note;
};

// Fake-quantizes every linear's input as the scheme says; empty when activations stay float.
LinearTap activation_tap(const Scheme& scheme);
// The same as a quantized model itself says, or a block at work as far as its static ranges are known.
LinearTap activation_tap(const QuantizedModel& model);
LinearTap activation_tap(const BlockWork& work);
// The same for keys and values where a cache keeps them; empty where it stays float.
CacheTap cache_tap(const Scheme& scheme);
CacheTap cache_tap(const QuantizedModel& model);
CacheTap cache_tap(const BlockWork& work);  // as far as its static ranges are known

// Number of leading blocks that a folder already holds for this job, their checksums compared; InputError when its fingerprint
// differs, naming what. damaged: told of the block that was finished and is not sound, from which on all are made again.
int finished_blocks(const EngineJob& job, const std::function<void(int block, const std::string& damage)>& damaged = {});
// What is wrong with the files of a finished run's blocks; empty: nothing.
std::string damage_of_blocks(const std::filesystem::path& folder);

// Runs the job; already finished blocks of the same fingerprint are kept. Calls on_block when a new block's file is durable
// and before state.json counts it as finished: after a kill a block is seen again rather than never.
// on_vocabulary: likewise of the embedding and the head where the scheme has them.
// Throws Cancelled, InputError (misfit of scheme and model: before any work), ResourceError.
void run_engine(const EngineJob& job, const Control& control, const std::function<void(const BlockView&)>& on_block,
                const std::function<void(const VocabularyView&)>& on_vocabulary = {});

// What a job will take at most, roughly: files of its blocks (hidden states that spill included), memory of the device for a
// block at work, and main memory for the hidden states between blocks.
struct EngineNeeds {
  double disk_bytes = 0, device_bytes = 0, states_bytes = 0;
};
EngineNeeds estimate(const EngineJob& job);

// The model that the pipeline's first stages make of the job's (rotations, dropped blocks), to be its model. Plans that they decide on
// are kept in the folder with the job's fingerprint, so that a resumed run and its evaluation have the same model; a plan of another
// fingerprint is made anew, unless the job has none (a finished run is opened).
std::shared_ptr<const Model> changed_model(const EngineJob& job, const Control& control);

// Refuses what would fail later: group sizes, patterns that match nothing, disk and memory. Throws InputError/ResourceError.
void preflight(const EngineJob& job);

// The quantized model of a finished (or partly finished) run. older: the run's scheme, for blocks written before they stood for themselves.
QuantizedModel quantized_model(const std::shared_ptr<const Model>& model, const std::filesystem::path& folder, const Scheme* older = nullptr);
// The same as numbers: dequantized weights over the float ones.
TensorSourcePtr quantized_source(const std::shared_ptr<const Model>& model, const std::filesystem::path& folder);

}  // namespace qb
