#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "core/base/cpu.h"
#include "core/base/error.h"
#include "core/engine/device.h"
#include "core/engine/engine.h"
#include "core/engine/importance.h"
#include "core/engine/module_name.h"
#include "core/engine/patterns.h"
#include "core/engine/vocabulary.h"
#include "core/method/contracts.h"
#include "core/method/guided.h"
#include "core/method/reconstruction/e2e_tuning.h"
#include "core/quant/units.h"

namespace qb {
namespace {

// What attends must have keys and values of its own, or those of a block before it.
void require_cache(const EngineJob& job) {
  const QuantSpec& spec = *job.scheme.kv_cache;
  bool any = false;
  for (const BlockInfo& block : job.model->info.blocks) {
    const LayerGraph& graph = job.model->architecture.layers[static_cast<size_t>(block.index)].graph;
    if (caches_latent(graph))
      throw InputError(fmt::format("kv_cache: block {} of {} makes keys and values of a latent, which is what engines keep of a token: what rounding it does is theirs to say; leave kv_cache out", block.index,
                                   job.model->info.name));
    const CachedValues cached = cached_values(graph);
    if (!cached.exists()) continue;
    any = true;
    for (int64_t dim : {cached.key_dim, cached.value_dim})
      if (const std::string problem = cache_misfit(spec, dim); !problem.empty()) throw InputError(fmt::format("kv_cache: block {}: {}", block.index, problem));
  }
  if (!any) throw InputError(fmt::format("kv_cache: no block of {} attends to keys and values", job.model->info.name));
  if (!spec.dynamic && job.calibration.samples.empty()) throw InputError("scheme: static ranges of keys and values are taken from calibration text, and there is none");
}

void require_fitting(const EngineJob& job) {
  bool quantizes = job.scheme.kv_cache.has_value() || job.scheme.has_vocabulary();
  vocabulary_parts(*job.model, job.scheme);
  if (job.scheme.has_vocabulary() && job.scheme.head_rounding == HeadRounding::gptq && job.calibration.samples.empty()) throw InputError("scheme: head_rounding gptq needs calibration text, and there is none");
  if (job.scheme.kv_cache) require_cache(job);
  for (const BlockInfo& block : job.model->info.blocks)
    for (const LinearInfo& linear : block.linears) {
      const std::string module = module_of(linear);
      auto require = [&](const char* what, const std::string& problem) {
        if (!problem.empty()) throw InputError(fmt::format("{} [{}, {}]: {}{}", module, linear.out_features, linear.in_features, what, problem));
      };
      if (const auto spec = job.scheme.weights_of(module)) {
        quantizes = true;
        require("", misfit(*spec, linear.out_features, linear.in_features));
      }
      if (const auto spec = job.scheme.activations_of(module)) {
        quantizes = true;
        require("activations: ", activation_misfit(*spec, linear.in_features));
        if (!spec->dynamic && !job.scheme.weights_of(module)) require("activations: ", "static ranges are stored with codes; quantize the weights too, or use dynamic ranges");
      }
    }
  require_matches(job.scheme, *job.model);
  if (job.scheme.has_static_activations() && job.calibration.samples.empty()) throw InputError("scheme: static activation ranges are taken from calibration text, and there is none");
  if (!quantizes) throw InputError("scheme: no linear is left to quantize");
}

void require_stages(const EngineJob& job) {
  if (const auto problem = pipeline_problem(job.pipeline, job.scheme)) throw InputError("pipeline: " + problem->what);
  for (const StageSpec& stage : job.given ? std::vector<StageSpec>{} : complete_pipeline(job.pipeline)) {
    if (const std::string problem = stage_problem(stage); !problem.empty()) throw InputError("pipeline: " + problem);
    if (find_method(stage.method)->needs_calibration && job.calibration.samples.empty())
      throw InputError(fmt::format("pipeline: {} needs calibration text", stage.method));
    const auto method = make_method(stage);
    for (const BlockInfo& block : job.model->info.blocks)
      for (const LinearInfo& linear : block.linears)
        if (const std::string problem = method->problem(linear, job.scheme.weights_of(module_of(linear))); !problem.empty())
          throw InputError(fmt::format("pipeline: {} [{}, {}]: {}", module_of(linear), linear.out_features, linear.in_features, problem));
  }
  const int64_t context = longest_sequence(job.model->architecture);
  for (const auto& sample : job.calibration.samples)
    if (context > 0 && static_cast<int64_t>(sample.size()) > context)
      throw InputError(fmt::format("calibration: samples of {} tokens, but {} was made for at most {}", sample.size(), job.model->info.name, context));
}

double element_bytes(const EngineJob& job) { return static_cast<double>(at::elementSize(job.dtype)); }

std::vector<StageSpec> stages_of(const EngineJob& job) { return job.given ? std::vector<StageSpec>{} : complete_pipeline(job.pipeline); }

// Of a weight as blocks compute with it: widened where a CPU does not multiply the run's dtype.
double weight_bytes(const EngineJob& job) {
  return job.device.is_cpu() && !(job.dtype == at::kBFloat16 && cpu_multiplies_bfloat16()) ? 4 : element_bytes(job);
}

}  // namespace

EngineNeeds estimate(const EngineJob& job) {
  const ModelInfo& info = job.model->info;
  Statistics wanted = 0;
  bool prunes = false, solves = false;
  for (const StageSpec& stage : stages_of(job)) {
    const Statistics needs = make_method(stage)->needs();
    const MethodInfo& method = *find_method(stage.method);
    wanted |= needs;
    prunes = prunes || method.kind == MethodClass::sparsity;
    solves = solves || (method.contract.leaves.has(Trace::codes) && (needs & (static_cast<Statistics>(Statistic::gram) | static_cast<Statistics>(Statistic::guided))) != 0);
  }
  if (job.importance) wanted &= ~static_cast<Statistics>(Statistic::sum_squares);
  if (!job.given && (job.scheme.has_static_activations() || job.scheme.has_static_cache())) wanted |= static_cast<Statistics>(Statistic::again);
  auto wants = [&](Statistic what) { return (wanted & static_cast<Statistics>(what)) != 0; };
  const bool outputs = wants(Statistic::block_io) || (wants(Statistic::again) && !job.propagate_quantized);
  const bool reruns = outputs || wants(Statistic::again);
  const auto guiding = guided_wish(stages_of(job));
  EngineNeeds needs;
  if (!job.given)
    for (const VocabularyPart& part : vocabulary_parts(*job.model, job.scheme)) {
      const std::vector<int64_t> shape = job.model->source->find(part.weight)->shape;
      needs.disk_bytes += static_cast<double>(shape[0]) * static_cast<double>(shape[1]) / 8 * bits_per_weight(part.spec, shape[0], shape[1]) + 1024;
    }
  double largest_block = 0, largest_linear = 0, tuned_block = 0, learned = 0;
  for (const BlockInfo& block : info.blocks) {
    double weights = 0, grams = 0, guided = 0, widest = 0;
    std::set<int> inputs;
    for (const LinearInfo& linear : block.linears) {
      const double size = static_cast<double>(linear.out_features) * static_cast<double>(linear.in_features);
      weights += size;
      largest_linear = std::max(largest_linear, size);
      if (const auto spec = job.scheme.weights_of(module_of(linear))) {
        needs.disk_bytes += size / 8 * bits_per_weight(*spec, linear.out_features, linear.in_features) + 1024;
        const auto units = unit_shape(*spec, linear.out_features, linear.in_features);
        learned += static_cast<double>(units.first) * static_cast<double>(units.second);
      }
      const double gram = 4.0 * static_cast<double>(linear.in_features) * static_cast<double>(linear.in_features);
      if (inputs.insert(linear.input).second) grams += gram;
      if (guiding) guided += static_cast<double>(guiding->groups) * gram;
      widest = std::max(widest, gram);
    }
    const double computed = weights * weight_bytes(job);
    if (!wants(Statistic::gram)) grams = 0;
    grams += guided;
    // The weights in float32 and, while the block runs, as it computes with them. First the statistics come; then stages leave
    // codes, a solver makes a factor of the widest Gram matrix; at the end the block that replaces it runs.
    const double held = weights * (4 + (prunes ? 4 : 0)), collecting = computed + grams;
    const double working = weights + grams + (solves ? widest : 0) + (reruns ? computed : 0), closing = weights + computed;
    largest_block = std::max(largest_block, held + std::max({collecting, working, closing}));
    tuned_block = std::max(tuned_block, weights + 2 * computed);
  }
  int64_t tokens = 0, longest = 0;
  for (const auto& sample : job.calibration.samples) {
    tokens += static_cast<int64_t>(sample.size());
    longest = std::max(longest, static_cast<int64_t>(sample.size()));
  }
  const double width = static_cast<double>(job.model->architecture.carried_width()) * element_bytes(job);
  const double all_hidden = static_cast<double>(tokens) * width;
  if (wanted == 0 && !job.given) tokens = std::min(tokens, job.measured_tokens + longest);
  const double hidden = static_cast<double>(tokens) * width, embedding = static_cast<double>(info.vocabulary * info.hidden_size) * element_bytes(job);
  // Beside the embedding, what makes streams of it and what each block gets of a token (the table itself stays on disk).
  const StreamSpec& streams = job.model->architecture.streams;
  const int64_t rows = 2 * (streams.count - 1) * info.hidden_size + streams.token_layers * streams.token_width;
  const double matrices = static_cast<double>(rows * info.hidden_size) * weight_bytes(job);
  // What the run feeds blocks, the float model's own for the measured sample or for all, and the float block's outputs.
  const double measured = std::min(hidden, static_cast<double>(job.measured_tokens + longest) * width);
  const double states = hidden * (1 + (outputs ? 1 : 0)) + (wants(Statistic::float_path) ? hidden : measured);
  if (hidden > static_cast<double>(job.resident_bytes))
    needs.disk_bytes += states;
  else
    needs.states_bytes = states;
  if (guiding) {
    // Hidden states in front of every block, of the samples that gradients are taken on; then a weight a token, group and linear.
    const double share = guiding->samples > 0 ? std::min(1.0, static_cast<double>(guiding->samples) / static_cast<double>(std::max<size_t>(1, job.calibration.samples.size()))) : 1;
    double linears = 0;
    for (const BlockInfo& block : info.blocks) linears += static_cast<double>(block.linears.size());
    needs.disk_bytes += share * (all_hidden * static_cast<double>(info.blocks.size() + 2) + static_cast<double>(tokens) * linears * static_cast<double>(2 * guiding->groups));
  }
  needs.device_bytes = largest_block + 5 * 4 * largest_linear + embedding + matrices;
  if (const StageSpec* last = finishing_stage(job.pipeline)) {
    // Codes, weights and gradients of one block, what enters each block, factors with their gradients and moments, the head and
    // the logits of a hundred tokens.
    const double vocabulary = static_cast<double>(info.vocabulary);
    const double entering = static_cast<double>(tuning_options(*last).batch_tokens) * width * static_cast<double>(info.blocks.size());
    const double tuning = tuned_block + 4 * 4 * largest_linear + entering + 6 * 4 * learned + vocabulary * static_cast<double>(info.hidden_size) * 4 + 5 * 128 * 4 * vocabulary;
    needs.device_bytes = std::max(needs.device_bytes, tuning);
    needs.states_bytes = std::max(needs.states_bytes, all_hidden);
  }
  return needs;
}

void preflight(const EngineJob& job) {
  if (!job.given) require_fitting(job);
  require_stages(job);
  if (job.importance) require_importance(job);
  const auto known = devices();
  const std::string device = job.device.str();
  const auto found = std::find_if(known.begin(), known.end(), [&](const DeviceInfo& d) { return d.name == device; });
  if (found == known.end()) {
    std::vector<std::string> names;
    for (const DeviceInfo& d : known) names.push_back(d.name);
    throw ResourceError(fmt::format("device {} is not here; there is {}", device, fmt::join(names, ", ")));
  }
  const EngineNeeds needs = estimate(job);
  // What can never be had; what others have taken for now is waited for.
  auto require_memory = [](const DeviceInfo& on, const char* what, double bytes) {
    if (on.memory_bytes > 0 && bytes > static_cast<double>(on.memory_bytes))
      throw ResourceError(fmt::format("{}: {} about {:.0f} MB of memory, there are {:.0f} MB; fewer calibration tokens or a lower limit of resident hidden "
                                      "states may help", on.name, what, bytes / 1e6, static_cast<double>(on.memory_bytes) / 1e6));
  };
  if (job.device.is_cpu()) {
    require_memory(*found, "a block at work needs", needs.device_bytes + needs.states_bytes);
  } else {
    require_memory(*found, "a block at work needs", needs.device_bytes);
    require_memory(known.front(), "hidden states need", needs.states_bytes);
  }
  // The folder may not exist yet: nothing is made before everything is known to fit.
  std::filesystem::path existing = std::filesystem::absolute(job.folder);
  while (!std::filesystem::exists(existing) && existing.has_parent_path() && existing != existing.parent_path()) existing = existing.parent_path();
  std::error_code error;
  const auto space = std::filesystem::space(existing, error);
  if (!error && static_cast<double>(space.available) < needs.disk_bytes * 1.05)
    throw ResourceError(fmt::format("{}: the quantized blocks need about {:.0f} MB, {:.0f} MB are free", job.folder.string(), needs.disk_bytes / 1e6,
                                    static_cast<double>(space.available) / 1e6));
}

}  // namespace qb
