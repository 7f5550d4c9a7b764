#include "core/method/reconstruction/kept_columns.h"

#include "core/method/reconstruction/gptq.h"
#include "core/method/reconstruction/rtn.h"

namespace qb {

void gptq_keeping_columns(BlockWork& work, const GptqOptions& options, const ColumnChoice& choose) {
  for (LinearWork& linear : work.linears) {
    if (!linear.spec) continue;
    work.begin(linear);
    const auto it = work.statistics.find(linear.info.input);
    if (it == work.statistics.end() || !it->second.gram.defined() || it->second.tokens == 0) {
      linear.tell("no calibration token reached it: rounded to nearest");
      round_to_nearest(work, linear);
      continue;
    }
    const int64_t group = linear.spec->granularity == Granularity::group ? grid_width(*linear.spec, linear.info.in_features) : 0;
    const auto factor = gptq_factor(it->second.gram, options, group, choose(linear, it->second));
    if (!factor) {
      linear.tell("the Gram matrix is not positive definite, whatever the damping: rounded to nearest");
      round_to_nearest(work, linear);
      continue;
    }
    linear.quantized = gptq(linear.weight, *factor, *linear.spec, linear.range, linear.kept, options, work.control).weight;
  }
}

int64_t columns_of_share(const LinearWork& linear, double share) {
  const int64_t in = linear.info.in_features;
  return std::min<int64_t>(in - 1, static_cast<int64_t>(share * static_cast<double>(in) + 0.5));
}

at::Tensor largest_columns(const at::Tensor& values, int64_t count) { return std::get<0>(at::sort(std::get<1>(at::topk(values, count)))); }

std::vector<KnobInfo> solver_knobs() {
  std::vector<KnobInfo> knobs = gptq_info().knobs;
  std::erase_if(knobs, [](const KnobInfo& knob) { return knob.name != "percdamp" && knob.name != "blocksize"; });
  return knobs;
}

GptqOptions solver_options(const StageSpec& stage) {
  return {.act_order = true, .static_groups = true, .damping = knob<double>(stage, "percdamp"), .block_size = knob<int64_t>(stage, "blocksize")};
}

}  // namespace qb
