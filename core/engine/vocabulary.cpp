#include "core/engine/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/base/error.h"
#include "core/engine/block_store.h"
#include "core/engine/finite.h"
#include "core/format/checked_safetensors.h"
#include "core/method/reconstruction/gptq.h"

namespace qb {
namespace {

using Clock = std::chrono::steady_clock;

const std::string kWeight = ".weight";
constexpr int64_t kRows = 4096;  // a vocabulary in float32 may be the largest tensor of all

std::filesystem::path path_of(const std::filesystem::path& folder, bool head) { return folder / "blocks" / (head ? "head.safetensors" : "embedding.safetensors"); }

std::filesystem::path path_of(const EngineJob& job, const std::string& weight) { return path_of(job.folder, weight == job.model->architecture.names.head + kWeight); }

// Whether rows are rounded without looking at others.
bool by_rows(const QuantSpec& spec) {
  if (spec.storage == Storage::nvfp4) return false;
  return spec.granularity == Granularity::channel || spec.granularity == Granularity::group || (spec.granularity == Granularity::block && kRows % spec.block_rows == 0);
}

QuantizedWeight on_cpu(QuantizedWeight weight) {
  ScaleZero& grid = weight.grid;
  for (at::Tensor* part : {&weight.codes, &grid.scale, &grid.zero, &grid.minimum, &grid.super, &grid.super_minimum})
    if (part->defined()) *part = part->cpu();
  return weight;
}

QuantizedWeight joined(const std::vector<QuantizedWeight>& slices) {
  if (slices.size() == 1) return slices.front();
  auto all = [&](auto part) {
    std::vector<at::Tensor> tensors;
    for (const QuantizedWeight& slice : slices)
      if (const at::Tensor& tensor = part(slice); tensor.defined()) tensors.push_back(tensor);
    return tensors.empty() ? at::Tensor() : at::cat(tensors);
  };
  QuantizedWeight weight{slices.front().spec, all([](const QuantizedWeight& w) { return w.codes; }), {}};
  weight.grid.scale = all([](const QuantizedWeight& w) { return w.grid.scale; });
  weight.grid.zero = all([](const QuantizedWeight& w) { return w.grid.zero; });
  weight.grid.minimum = all([](const QuantizedWeight& w) { return w.grid.minimum; });
  weight.grid.super = all([](const QuantizedWeight& w) { return w.grid.super; });
  weight.grid.super_minimum = all([](const QuantizedWeight& w) { return w.grid.super_minimum; });
  return weight;
}

StageSpec gptq_stage(const std::vector<StageSpec>& pipeline) {
  for (const StageSpec& stage : pipeline)
    if (stage.method == "gptq") return stage;
  return {"gptq", {}};
}

}  // namespace

Scheme with_tied_vocabulary(Scheme scheme, const Architecture& architecture) {
  if (!architecture.tied_embeddings) return scheme;
  if (scheme.embedding && scheme.head && *scheme.embedding != *scheme.head)
    throw InputError(fmt::format("scheme: the model ties its head to its embedding, one matrix, but embedding is {} and head is {}: give one of the two, or both the same", describe(*scheme.embedding),
                                 describe(*scheme.head)));
  if (scheme.embedding) scheme.head = scheme.embedding;
  if (scheme.head) scheme.embedding = scheme.head;
  return scheme;
}

std::vector<VocabularyPart> vocabulary_parts(const Model& model, const Scheme& scheme) {
  const Architecture& a = model.architecture;
  const Scheme whole = with_tied_vocabulary(scheme, a);
  if (whole.embedding && !whole.head && whole.head_rounding != HeadRounding::rtn)
    throw InputError(fmt::format("scheme: head_rounding {} is of a head in codes, but the head of {} stays float: give head too, or leave head_rounding out", to_text(whole.head_rounding), model.info.name));
  std::vector<VocabularyPart> parts;
  if (whole.embedding) parts.push_back({a.names.embedding + kWeight, *whole.embedding, a.tied_embeddings ? whole.head_rounding : HeadRounding::rtn});
  if (whole.head && !a.tied_embeddings) parts.push_back({a.names.head + kWeight, *whole.head, whole.head_rounding});
  for (const VocabularyPart& part : parts) {
    const TensorInfo* info = model.source->find(part.weight);
    if (!info || info->shape.size() != 2) throw InputError(fmt::format("{}: tensor \"{}\" is no matrix that can be quantized", model.path.string(), part.weight));
    if (const std::string problem = misfit(part.spec, info->shape[0], info->shape[1]); !problem.empty())
      throw InputError(fmt::format("{} [{}, {}]: {}", part.weight, info->shape[0], info->shape[1], problem));
  }
  return parts;
}

std::vector<std::filesystem::path> vocabulary_paths(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  for (bool head : {false, true})
    if (const auto path = path_of(folder, head); std::filesystem::exists(path)) paths.push_back(path);
  return paths;
}

std::vector<std::filesystem::path> first_vocabulary(const EngineJob& job) {
  std::vector<std::filesystem::path> paths;
  if (job.given) return paths;
  for (const VocabularyPart& part : vocabulary_parts(*job.model, job.scheme))
    if (part.rounding == HeadRounding::rtn) paths.push_back(path_of(job, part.weight));
  return paths;
}

bool has_vocabulary(const EngineJob& job, const VocabularyPart& part) {
  const auto path = path_of(job, part.weight);
  return std::filesystem::exists(path) && damage_of(path).empty();
}

void make_vocabulary(const EngineJob& job, const VocabularyPart& part, const at::Tensor& gram, const Control& control, const std::function<void(const VocabularyView&)>& on_vocabulary) {
  const auto start = Clock::now();
  const at::Tensor stored = job.model->source->read(part.weight);
  std::string note;
  const StageSpec stage = gptq_stage(job.pipeline);
  const GptqOptions options = gptq_options(stage);
  std::optional<GptqFactor> factor;
  if (part.rounding == HeadRounding::gptq) {
    if (!gram.defined()) throw InternalError(fmt::format("{}: gptq without a Gram matrix", part.weight));
    factor = gptq_factor(gram, options, part.spec.granularity == Granularity::group ? grid_width(part.spec, stored.size(1)) : 0);
    if (!factor) note = "the Gram matrix is not positive definite, whatever the damping: rounded to nearest";
    else if (factor->attempts > 1) note = fmt::format("the Gram matrix needed a damping of {:g}", factor->damping);
  }
  const int64_t all = stored.size(0), each = by_rows(part.spec) ? kRows : all;
  std::vector<QuantizedWeight> slices;
  for (int64_t row = 0; row < all; row += each) {
    control.checkpoint();
    const at::Tensor values = stored.slice(0, row, std::min(row + each, all)).to(job.device, at::kFloat);
    require_finite(values, *job.model, part.weight);
    if (factor) {
      GptqResult result = gptq(values, *factor, part.spec, {}, {}, options, control);
      refine(result.weight, values, gram, {}, refine_options(stage), control);
      slices.push_back(on_cpu(std::move(result.weight)));
    } else {
      slices.push_back(on_cpu(quantize(values, part.spec, control, {})));
    }
  }
  const QuantizedWeight weight = joined(slices);
  if (on_vocabulary) on_vocabulary({part.weight.substr(0, part.weight.size() - kWeight.size()), stored, weight, gram, std::chrono::duration<double>(Clock::now() - start).count(), note});
  write_codes(path_of(job, part.weight), part.weight, weight);
}

void copy_vocabulary(const EngineJob& job, const Control& control, const std::function<void(const VocabularyView&)>& on_vocabulary) {
  for (const QuantizedLinear& matrix : job.given->vocabulary) {
    const std::string weight = matrix.module + kWeight;
    if (has_vocabulary(job, {weight, matrix.weights})) continue;
    control.checkpoint();
    const auto start = Clock::now();
    const QuantizedWeight codes = job.given->read(matrix);
    // Where the checkpoint is all that there is, nothing is left to compare with.
    const at::Tensor original = job.compared ? job.model->source->read(weight) : codes.dequantize();
    if (on_vocabulary) on_vocabulary({matrix.module, original, codes, {}, std::chrono::duration<double>(Clock::now() - start).count(), {}});
    write_codes(path_of(job, weight), weight, codes);
  }
}

}  // namespace qb
