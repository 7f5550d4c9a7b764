// The methods of this build: one line each here, one pair of files each beside this one.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/base/error.h"
#include "core/method/clipping/clip.h"
#include "core/method/method.h"
#include "core/method/reconstruction/adadim.h"
#include "core/method/reconstruction/autoround.h"
#include "core/method/reconstruction/dgq.h"
#include "core/method/reconstruction/e2e_tuning.h"
#include "core/method/reconstruction/gptq.h"
#include "core/method/reconstruction/hqq.h"
#include "core/method/reconstruction/norm_tweaking.h"
#include "core/method/reconstruction/omniquant.h"
#include "core/method/reconstruction/owq.h"
#include "core/method/reconstruction/quik.h"
#include "core/method/reconstruction/rtn.h"
#include "core/method/reconstruction/spqr.h"
#include "core/method/reconstruction/tesseraq.h"
#include "core/method/sparsity/prune.h"
#include "core/method/sparsity/shortgpt.h"
#include "core/method/transformation/awq.h"
#include "core/method/transformation/os_plus.h"
#include "core/method/transformation/quarot.h"
#include "core/method/transformation/smoothquant.h"

namespace qb {
namespace {

struct Entry {
  MethodInfo info;
  std::unique_ptr<Method> (*make)(const StageSpec&);
};

const std::vector<Entry>& registry() {
  static const std::vector<Entry> entries = {
      {quarot_info(), make_quarot},
      {smoothquant_info(), make_smoothquant},
      {os_plus_info(), make_os_plus},
      {awq_info(), make_awq},
      {clip_info(), make_clip},
      {rtn_info(), make_rtn},
      {hqq_info(), make_hqq},
      {gptq_info(), make_gptq},
      {owq_info(), make_owq},
      {quik_info(), make_quik},
      {spqr_info(), make_spqr},
      {adadim_info(), make_adadim},
      {dgq_info(), make_dgq},
      {omniquant_info(), make_omniquant},
      {norm_tweaking_info(), make_norm_tweaking},
      {tesseraq_info(), make_tesseraq},
      {autoround_info(), make_autoround},
      {e2e_tuning_info(), make_e2e_tuning},
      {magnitude_info(), make_magnitude},
      {wanda_info(), make_wanda},
      {shortgpt_info(), make_shortgpt},
  };
  return entries;
}

}  // namespace

const std::vector<MethodInfo>& methods() {
  static const std::vector<MethodInfo> infos = [] {
    std::vector<MethodInfo> list;
    for (const Entry& entry : registry()) list.push_back(entry.info);
    return list;
  }();
  return infos;
}

const ModelChange* model_change(const std::string& method) {
  static const std::vector<ModelChange> changes = {quarot_change(), shortgpt_change()};
  for (const ModelChange& change : changes)
    if (method == change.method) return &change;
  return nullptr;
}

std::string stage_problem(const StageSpec& stage) {
  const MethodInfo* method = find_method(stage.method);
  if (!method) {
    std::vector<std::string> names;
    for (const MethodInfo& info : methods()) names.push_back(info.name);
    const std::vector<std::string> near = similar_names(stage.method, names);
    return near.empty() ? fmt::format("there is no method \"{}\"; methods: {}", stage.method, fmt::join(names, ", "))
                        : fmt::format("there is no method \"{}\"; did you mean \"{}\"?", stage.method, near.front());
  }
  for (const auto& [name, value] : stage.knobs) {
    const KnobInfo* known = nullptr;
    for (const KnobInfo& info : method->knobs)
      if (info.name == name) known = &info;
    if (!known) {
      std::vector<std::string> names;
      for (const KnobInfo& info : method->knobs) names.push_back(info.name);
      return fmt::format("method {} has no knob \"{}\"; it has {}", stage.method, name,
                         names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
    }
    if (const std::string problem = knob_problem(*known, value); !problem.empty()) return fmt::format("{}.{}: {}", stage.method, name, problem);
  }
  if (method->problem)
    if (const std::string problem = method->problem(stage); !problem.empty()) return fmt::format("{}.{}", stage.method, problem);
  return {};
}

std::unique_ptr<Method> make_method(const StageSpec& stage) {
  if (const std::string problem = stage_problem(stage); !problem.empty()) throw InputError(problem);
  for (const Entry& entry : registry())
    if (entry.info.name == stage.method) return entry.make(stage);
  throw InternalError("method without a maker: " + stage.method);
}

}  // namespace qb
