#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/measure/divergence_metrics.h"
#include "core/measure/evaluation.h"
#include "core/measure/window_pass.h"
#include "core/text/corpus.h"

namespace qb {

// Which tokens of a window count: all shifted ones, or as in llama.cpp those that have at least half of the window before them.
enum class Scored { all, second_half };
std::string to_text(Scored scored);                        // "all", "second_half"
std::optional<Scored> parse_scored(const std::string& text);

struct DivergenceSpec {
  WindowSpec window;                     // of the model that is measured; the reference computes in float32 on the same device
  Scored scored = Scored::all;
  std::filesystem::path cache = {};      // a folder for the reference's states (reference_states.h); empty: none is kept
  std::string reference_hash = {};       // model_hash() of the reference, where it is known
};

std::vector<KnobInfo> divergence_knobs();  // "scored"

// How far a model's predictions are from those of `reference`, the float model in float32, on non-overlapping windows of the same tokens.
// source: nullptr, or an overlay of model->source. The result lacks what the text is called. `on_estimate` gets figures after every chunk.
// With a cache the reference's pass comes first and is kept window by window: a later call goes on behind the last whole one; others who
// want it meanwhile wait. Throws InputError (as perplexity(), vocabularies that differ, NaN in a model), ResourceError (disk), Cancelled.
EvaluationResult divergence(std::shared_ptr<const Model> model, TensorSourcePtr source, std::shared_ptr<const Model> reference, const std::vector<int32_t>& ids, const DivergenceSpec& spec,
                            const Control& control = {}, const std::function<void(const EvaluationResult&)>& on_estimate = {});

// What no quantization can be blamed for: the float model beside itself. Depends on model, text and spec alone.
struct NoiseFloor {
  std::optional<EvaluationResult> dtype;  // computed in spec.window.dtype; none for float32, where it is the reference itself
  EvaluationResult weights;               // in float32, with weights rounded to bfloat16; 0 where they are stored so
};
NoiseFloor noise_floor(std::shared_ptr<const Model> reference, const std::vector<int32_t>& ids, const DivergenceSpec& spec, const Control& control = {});

// The token ids to measure on, and where the BOS stands in them. `wish`: a recipe's; family: as in ModelInfo. For second_half every_window puts
// it in the place of a window's first token, which is the default where the tokenizer begins a text with one: llama.cpp's convention.
struct DivergenceText {
  std::vector<int32_t> ids;
  Bos bos = Bos::tokenizer;
};
DivergenceText divergence_tokens(const Corpus& corpus, const Tokenizer& tokenizer, const std::optional<Bos>& wish, const std::string& family, int64_t seq_len, Scored scored);

}  // namespace qb
