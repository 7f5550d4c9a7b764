#pragma once
#include <optional>
#include <string>

#include "core/base/control.h"
#include "core/quant/quantizer.h"

namespace qb {

// Without defaults: those stand in the methods' tables of knobs.
struct GptqOptions {
  bool act_order;      // columns of large inputs first
  bool static_groups;  // grids from the weights before any update; false: from what they are when their group is reached
  double damping;      // of the mean diagonal, added to it
  // Share off each product of two different inputs, as Schäfer and Strimmer (2005) shrink a covariance towards its diagonal. The
  // quantized model's inputs carry errors that the float model's do not: what is made up for through correlations arrives in part.
  double shrinkage;
  int64_t block_size;  // columns whose errors reach the later columns in one product
};

// What the column loop needs of a value's Gram matrix, shared by the linears that read it.
struct GptqFactor {
  at::Tensor order;     // [in] int64: the column at each step
  at::Tensor upper;     // R [in, in] float32 in that order, upper triangular: G + damping = RRᵀ
  at::Tensor diagonal;  // [in] of R
  at::Tensor importance;  // [in] of G, what an error in a column counts that nothing makes up for
  int64_t kept = 0;   // columns at the end that are not rounded
  int64_t dead = 0;   // inputs that never were anything but zero
  double damping = 0; // that was enough
  int attempts = 1;   // factorizations tried, each with ten times the damping of the one before
};

// Takes one matrix of the Gram matrix's size, which becomes the factor. Nothing when the Gram matrix stays indefinite after all
// attempts: the caller falls back and says so.
// groups of `group` columns stay together when the grids are not static (0: no groups).
// kept: [k] int64, columns that stay float: they come last and take up the errors of all others. Needs static grids.
std::optional<GptqFactor> gptq_factor(const at::Tensor& gram, const GptqOptions& options, int64_t group, const at::Tensor& kept = {});

struct GptqResult {
  QuantizedWeight weight;
  double loss = 0;  // Σ ((w − ŵ)·R[j][j])² with w as updated, which is the output error tr(ΔW·(G + damping)·ΔWᵀ)
};

// GPTQ (arXiv 2210.17323): rounds weight [out, in] float32 column by column, each error made up for in later columns. Column j of
// (W − Ŵ)·R holds the errors of the steps up to j alone, so w′ⱼ = wⱼ + Σ_{i<j} (wᵢ − ŵᵢ)·R[i][j]/R[j][j] is what leaves nothing of
// it: the same weights as GPTQ's updates by the inverse's Cholesky factor (Babai's nearest plane), without inverting.
// range: fixed grids from a clipping stage; else from find_grid. kept: [out, in] bool, false where a weight shall become zero
// (its error is made up for too, as SparseGPT does; zero points must be codes); undefined: all are kept.
GptqResult gptq(const at::Tensor& weight, const GptqFactor& factor, const QuantSpec& spec, const std::optional<Range>& range,
                const at::Tensor& kept, const GptqOptions& options, const Control& control);

}  // namespace qb
