#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/base/error.h"
#include "core/engine/device.h"
#include "core/engine/engine.h"
#include "core/engine/module_name.h"

namespace qb {
namespace {

// Every pattern must match at least one linear, or lm_head and embeddings, which peers list though blocks never hold them.
void require_matches(const Scheme& scheme, const std::vector<std::string>& modules) {
  std::vector<std::string> patterns = scheme.ignore;
  for (const auto& entry : scheme.overrides) patterns.push_back(entry.match);
  for (const auto& pattern : patterns) {
    bool found = false;
    for (const char* outside : {"lm_head", "model.embed_tokens"}) found = found || matches(pattern, outside);
    for (const auto& module : modules) found = found || matches(pattern, module);
    if (!found)
      throw InputError(fmt::format("scheme: pattern \"{}\" matches no linear; the first block has {}", pattern,
                                   fmt::join(modules.begin(), modules.begin() + std::min<std::ptrdiff_t>(7, std::ssize(modules)), ", ")));
  }
}

}  // namespace

void preflight(const EngineJob& job) {
  const ModelInfo& info = job.model->info;
  std::vector<std::string> modules;
  double bytes = 0;
  bool quantizes = false;
  for (const BlockInfo& block : info.blocks)
    for (const LinearInfo& linear : block.linears) {
      const std::string module = module_of(linear);
      modules.push_back(module);
      const auto size = static_cast<double>(linear.out_features) * static_cast<double>(linear.in_features);
      const auto spec = job.scheme.weights_of(module);
      if (!spec) continue;
      quantizes = true;
      if (const std::string problem = misfit(*spec, linear.out_features, linear.in_features); !problem.empty())
        throw InputError(fmt::format("{} [{}, {}]: {}", module, linear.out_features, linear.in_features, problem));
      // Codes are kept as bytes (floats as float32) while a run works on them.
      bytes += size * (spec->type.kind == NumberType::Kind::integer ? 1.0 : 4.0) + size / 8 * (bits_per_weight(*spec, linear.out_features, linear.in_features) - spec->type.bits);
    }
  require_matches(job.scheme, modules);
  if (!quantizes && !job.scheme.activations) throw InputError("scheme: no linear is left to quantize");
  for (const BlockInfo& block : info.blocks)
    for (const LinearInfo& linear : block.linears)
      if (const auto spec = job.scheme.activations_of(module_of(linear));
          spec && spec->granularity == Granularity::group && linear.in_features % spec->group_size != 0)
        throw InputError(fmt::format("{}: activations: {}", module_of(linear), misfit(*spec, linear.out_features, linear.in_features)));
  for (const StageSpec& stage : job.pipeline) {
    if (const std::string problem = stage_problem(stage); !problem.empty()) throw InputError("pipeline: " + problem);
    if (find_method(stage.method)->needs_calibration && job.calibration.samples.empty())
      throw InputError(fmt::format("pipeline: {} needs calibration text", stage.method));
  }
  const int64_t context = job.model->architecture.context_length;
  for (const auto& sample : job.calibration.samples)
    if (context > 0 && static_cast<int64_t>(sample.size()) > context)
      throw InputError(fmt::format("calibration: samples of {} tokens, but {} was made for at most {}", sample.size(), info.name, context));
  const auto known = devices();
  const std::string device = job.device.str();
  if (std::none_of(known.begin(), known.end(), [&](const DeviceInfo& d) { return d.name == device; }))
    throw ResourceError(fmt::format("device {} is not here; there is {}", device, known.back().name));
  std::filesystem::create_directories(job.folder);
  const auto space = std::filesystem::space(job.folder);
  if (static_cast<double>(space.available) < bytes * 1.05)
    throw ResourceError(fmt::format("{}: the quantized blocks need about {:.0f} MB, {:.0f} MB are free", job.folder.string(), bytes / 1e6,
                                    static_cast<double>(space.available) / 1e6));
}

}  // namespace qb
