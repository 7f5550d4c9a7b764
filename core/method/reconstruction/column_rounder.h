#pragma once
#include "core/method/reconstruction/column_kernel.h"
#include "core/quant/quantizer.h"

namespace qb {

// Rounds a weight [out, in] column by column, slab by slab, and keeps its codes. Integers go through a kernel, on a CPU or a
// CUDA device; float formats, and devices that the kernel cannot be made for, take the same steps as tensor operations.
class ColumnRounder {
 public:
  // order: [in] int64, the column at each step.
  ColumnRounder(const QuantSpec& spec, int64_t out, const at::Tensor& order);

  void grids(const ScaleZero& grid);  // of all units
  // Of the units whose grids are chosen together with that of the column at this step (groups and channels only), as find_grid makes
  // it of their columns.
  void grid_of(int64_t step, const ScaleZero& grid);
  void keep(const at::Tensor& kept);  // [out, in] bool: false where a weight becomes zero. Zero points must be codes

  // The columns from step `begin` on. slab [n, out] are their weights as updated so far, and are updated on; factor [n, n] upper
  // triangular says what a column's error does to later ones; errors [n, out] receives what ColumnSlab says. value [n, out]:
  // ŵ to improve, undefined at a first rounding. Returns Σ errors².
  double round(int64_t begin, at::Tensor slab, const at::Tensor& factor, const at::Tensor& errors, const at::Tensor& value = {});

  void clear(int64_t begin);       // the codes of all columns from this step on become zero's
  QuantizedWeight weight() const;  // columns back in their places

 private:
  double round_on_cpu(int64_t begin, const at::Tensor& slab, const at::Tensor& factor, const at::Tensor& errors, const at::Tensor& value);
  bool round_on_cuda(int64_t begin, const at::Tensor& slab, const at::Tensor& factor, const at::Tensor& errors, const at::Tensor& value);
  ColumnSlab columns_of(int64_t begin, const at::Tensor& slab, const at::Tensor& factor, const at::Tensor& errors, const at::Tensor& value);
  void round_by_operations(int64_t begin, at::Tensor& slab, const at::Tensor& factor, const at::Tensor& errors, const at::Tensor& value);

  QuantSpec spec_;
  int64_t out_;
  bool integer_;
  at::Tensor order_;
  at::Tensor units_, device_units_;  // [in] int64: the unit of the column at each step, in main memory and where the weights are
  at::Tensor codes_;  // [in, out] in the order of the steps
  at::Tensor scale_, zero_, kept_;
  ScaleZero grid_;
};

}  // namespace qb
