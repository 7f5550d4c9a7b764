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
    if (spec.storage != Storage::none) return fit_storable();
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
  // What a storage type's grid is made of, one number after the other: each becomes the best that can be stored given all else.
  void fit_storable() {
    const QuantSpec& spec = quantized_.spec;
    const StorageInfo& info = info_of(spec.storage);
    const int64_t width = grid_width(spec, in_), n = spec.group_size;
    const double offset = info.minimum ? 1 << (spec.type.bits - 1) : 0;
    ScaleZero& grid = quantized_.grid;
    at::Tensor scale = grid.scale.clone(), minimum = grid.minimum.defined() ? grid.minimum.clone() : at::Tensor();
    at::Tensor super = info.super > 0 ? grid.super.clone() : at::Tensor(), super_minimum = grid.super_minimum.defined() ? grid.super_minimum.clone() : at::Tensor();
    for (int64_t begin = 0, block = 0; begin < in_; begin += width, ++block) {
      control_.checkpoint();
      const at::Tensor gram = corner(begin, begin + width), codes = quantized_.codes.slice(1, begin, begin + width).to(at::kFloat).t().add(offset);
      at::Tensor pull = pull_.slice(0, begin, begin + width).clone();
      // The values of columns from … to move along `direction` [n, out] with this number [out].
      auto fit = [&](int64_t from, int64_t to, const at::Tensor& direction, const at::Tensor& before, const auto& stored) {
        const at::Tensor slope = (pull.slice(0, from, to) * direction).sum(0);
        const at::Tensor curvature = gram.slice(0, from, to).slice(1, from, to).matmul(direction).mul_(direction).sum(0);
        const at::Tensor wish = before - slope / curvature, after = stored(at::where(wish.isfinite(), wish, before)), change = after - before;
        const at::Tensor chosen = at::where((change * (slope * 2 + curvature * change)) < 0, after, before);
        pull.addmm_(gram.slice(1, from, to), direction * (chosen - before));
        return chosen;
      };
      auto half = [](const at::Tensor& x) { return x.clamp(-65504, 65504).to(at::kHalf).to(at::kFloat); };
      auto positive = [&](const at::Tensor& x) { return half(x.clamp_min(5.9604645e-8)); };
      std::vector<at::Tensor> integers, minima;
      for (int64_t unit = block * (width / n), from = 0; from < width; from += n, ++unit) {
        const at::Tensor steps = codes.slice(0, from, from + n);
        if (info.super == 0) {
          const at::Tensor before = scale.select(1, unit);
          auto stored = [&](const at::Tensor& x) {
            // A scale keeps its side: zero is none.
            const at::Tensor wish = at::where(x * before > 0, x, before).unsqueeze(1);
            return storable_grid(wish, info.minimum ? at::zeros_like(wish) : at::Tensor(), spec, grid.super).scale.squeeze(1);
          };
          scale.select(1, unit).copy_(fit(from, from + n, steps, before, stored));
          if (info.minimum) minimum.select(1, unit).copy_(fit(from, from + n, at::ones_like(steps), minimum.select(1, unit), half));
          continue;
        }
        const at::Tensor d = super.select(1, block);
        auto integer = [&](const at::Tensor& x) {
          const at::Tensor rounded = x.round().clamp_(info.scale_low, info.scale_high);
          return at::where(rounded == 0, at::where(x < 0, -1.0, 1.0).to(at::kFloat), rounded);
        };
        integers.push_back(fit(from, from + n, steps * d, (scale.select(1, unit) / d).round(), integer));
        if (!info.minimum) continue;
        const at::Tensor dmin = super_minimum.select(1, block), before = at::where(dmin > 0, (minimum.select(1, unit) / dmin).neg().round(), at::zeros_like(dmin));
        minima.push_back(fit(from, from + n, -dmin.expand_as(steps), before, [&](const at::Tensor& x) { return x.round().clamp_(0, info.minimum_high); }));
      }
      if (info.super > 0) {
        auto by_column = [&](const std::vector<at::Tensor>& units) { return at::stack(units).repeat_interleave(n, 0); };  // [width, out]
        const at::Tensor d = fit(0, width, by_column(integers) * codes, super.select(1, block), positive);
        super.select(1, block).copy_(d);
        at::Tensor dmin;
        if (info.minimum) {
          dmin = fit(0, width, by_column(minima).neg(), super_minimum.select(1, block), [&](const at::Tensor& x) { return half(x.clamp_min(0)); });
          super_minimum.select(1, block).copy_(dmin);
        }
        for (size_t j = 0; j < integers.size(); ++j) {
          const int64_t unit = block * (width / n) + static_cast<int64_t>(j);
          scale.select(1, unit).copy_(d * integers[j]);
          if (info.minimum) minimum.select(1, unit).copy_(dmin * minima[j]).neg_();
        }
      }
      auto by_column = [&](const at::Tensor& units) { return units.slice(1, begin / n, (begin + width) / n).t().repeat_interleave(n, 0); };
      at::Tensor value = codes * by_column(scale);
      if (info.minimum) value.add_(by_column(minimum));
      add_pull(begin, begin + width, value - value_.slice(0, begin, begin + width));
      value_.slice(0, begin, begin + width).copy_(value);
    }
    grid.scale = scale;
    grid.minimum = minimum;
    if (info.super > 0) grid.super = super;
    grid.super_minimum = super_minimum;
    derive_zero(grid, spec);
    rounder_.grids(grid);
  }

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
