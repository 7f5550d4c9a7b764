#include "core/method/reconstruction/refinement.h"

#include "core/method/reconstruction/column_rounder.h"
#include "core/quant/units.h"

namespace qb {
namespace {

constexpr int64_t kSlab = 128;  // columns whose changes reach the others in one product

class Refiner {
 public:
  Refiner(QuantizedWeight& quantized, const at::Tensor& weight, const at::Tensor& gram, const at::Tensor& kept, double shrinkage, const Control& control)
      : quantized_(quantized), control_(control), in_(weight.size(1)), shrinkage_(shrinkage), gram_(gram.to(at::kFloat)),
        diagonal_(gram_.diagonal().unsqueeze(1).clone()), rounder_(quantized.spec, weight.size(0), at::arange(in_, gram.options().dtype(at::kLong))),
        value_(quantized.dequantize().t().contiguous()), pull_(at::zeros_like(value_)) {
    add_pull(0, in_, value_ - weight.t());
    diagonal_.masked_fill_(diagonal_ <= 0, 1);  // an input that was never there pulls nothing
    if (kept.defined()) rounder_.keep(kept);
    rounder_.grids(quantized.grid);
  }

  void sweep() {
    for (int64_t begin = 0; begin < in_; begin += kSlab) {
      control_.checkpoint();
      const int64_t end = std::min(begin + kSlab, in_);
      at::Tensor value = value_.slice(0, begin, end);
      const at::Tensor diagonal = diagonal_.slice(0, begin, end);
      const at::Tensor best = value - pull_.slice(0, begin, end) / diagonal;
      const at::Tensor changes = at::empty_like(value);
      rounder_.round(begin, best, corner(begin, end).div_(diagonal.t()), changes, value);
      add_pull(begin, end, changes);
    }
    quantized_.codes = rounder_.weight().codes;
  }

  void fit_scales() {
    const QuantSpec& spec = quantized_.spec;
    if (spec.granularity != Granularity::group && spec.granularity != Granularity::channel) return;
    ScaleZero& grid = quantized_.grid;
    at::Tensor scale = grid.scale.clone();
    const int64_t width = unit_width(spec, in_);
    for (int64_t begin = 0, unit = 0; begin < in_; begin += width, ++unit) {
      control_.checkpoint();
      const int64_t end = begin + width;
      at::Tensor steps = quantized_.codes.slice(1, begin, end).to(at::kFloat);  // value = steps · scale
      if (grid.zero.defined()) steps = steps - grid.zero.narrow(1, unit, 1);
      steps = steps.t().contiguous();
      const at::Tensor slope = (pull_.slice(0, begin, end) * steps).sum(0), curvature = corner(begin, end).matmul(steps).mul_(steps).sum(0);
      const at::Tensor before = scale.select(1, unit);
      at::Tensor after = round_to_scale_type(before - slope / curvature, spec.scale_type);
      // The rounded scale may be worse than the one before it.
      const at::Tensor change = after - before;
      const at::Tensor better = (after > 0).logical_and_(after.isfinite()).logical_and_((change * (slope * 2 + curvature * change)) < 0);
      after = at::where(better, after, before);
      add_pull(begin, end, steps * (after - before));
      value_.slice(0, begin, end).copy_(steps * after);
      scale.select(1, unit).copy_(after);
    }
    grid.scale = scale;
    rounder_.grids(grid);
  }

 private:
  // The Gram matrix as shrunk is never made: it is as large as all else together.
  at::Tensor corner(int64_t begin, int64_t end) const {
    at::Tensor part = gram_.slice(0, begin, end).slice(1, begin, end).mul(1 - shrinkage_);
    part.diagonal().add_(gram_.diagonal().slice(0, begin, end), shrinkage_);
    return part;
  }

  // What changes [end − begin, out] of these columns add to the pull on all.
  void add_pull(int64_t begin, int64_t end, const at::Tensor& changes) {
    pull_.addmm_(gram_.slice(1, begin, end), changes, 1, 1 - shrinkage_);
    if (shrinkage_ > 0) pull_.slice(0, begin, end).addcmul_(gram_.diagonal().slice(0, begin, end).unsqueeze(1), changes, shrinkage_);
  }

  QuantizedWeight& quantized_;
  const Control& control_;
  int64_t in_;
  double shrinkage_;
  at::Tensor gram_, diagonal_;  // [in, in], [in, 1]
  ColumnRounder rounder_;
  at::Tensor value_;  // Ŵᵀ [in, out]
  at::Tensor pull_;   // G·(Ŵ − W)ᵀ [in, out] with G as shrunk, half the error's gradient
};

}  // namespace

void refine(QuantizedWeight& quantized, const at::Tensor& weight, const at::Tensor& gram, const at::Tensor& kept, const RefineOptions& options,
            const Control& control) {
  if (options.sweeps <= 0) return;
  Refiner refiner(quantized, weight, gram, kept, options.shrinkage, control);
  for (int64_t i = 0; i < options.sweeps; ++i) {
    if (options.scales) refiner.fit_scales();
    refiner.sweep();
  }
}

}  // namespace qb
