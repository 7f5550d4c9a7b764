#include "core/method/stored_form.h"

#include "core/method/contracts.h"

namespace qb {

StoredForm stored_form(const std::vector<StageSpec>& pipeline, const QuantSpec& spec, int64_t out_features, int64_t in_features) {
  StoredForm form{spec, false, {}};
  bool pruned = false;  // zero points are codes then: only those stand for an exact zero
  for (const StageSpec& stage : pipeline) {
    const MethodInfo* method = find_method(stage.method);
    if (!method) continue;
    pruned = pruned || method->contract.leaves.has(Trace::zeros);
    const std::string& name = stage.method;
    QuantSpec& weights = form.weights;
    if (name == "owq") form.exceptions = knob<double>(stage, "share") > 0;
    if (name == "quik") form.exceptions = knob<double>(stage, "share") > 0 || knob<int64_t>(stage, "columns") > 0;
    if (name == "spqr") form.exceptions = true;
    if (name == "spqr" || name == "dgq") weights.scale_type = ScaleType::f32;  // products of two levels
    if (name == "spqr" || name == "hqq") weights.round_zero_point = pruned || weights.symmetric;
    if (name == "adadim" && (spec.granularity == Granularity::group || spec.granularity == Granularity::channel)) {
      // Perhaps groups along the outputs.
      QuantSpec other = spec;
      other.granularity = Granularity::block;
      other.block_rows = spec.granularity == Granularity::group ? spec.group_size : out_features;
      other.block_cols = 1;
      if (misfit(other, out_features, in_features).empty()) weights = other;
    }
    if (form.exceptions || !(weights == spec)) form.made_by = name;
  }
  return form;
}

}  // namespace qb
