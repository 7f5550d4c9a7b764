#pragma once
#include "core/engine/engine.h"
#include "core/measure/report.h"

namespace qb {

// What a finished block tells: errors of weights against the float model's, of outputs on a sample of the inputs that the
// linear got in this run (Ŵ·x̂ against W·x, x̂ fake-quantized where the scheme says so), distributions and outliers.
// Linears that saw no tokens (no calibration, idle experts) have NaN for what needs inputs.
BlockReport measure_block(const BlockView& view, const Scheme& scheme);

// The same of the embedding or the head: its weights, and where a Gram matrix is there the error of what it makes. A large one is measured
// on rows that are evenly spread, as its note says.
LinearReport measure_vocabulary(const VocabularyView& view);

// Equal-width histogram of all elements over [low, high]; counts what lies outside. An empty interval is widened.
Histogram histogram(const at::Tensor& values, double low, double high, int bins = 128);
// Pearson's kurtosis E[(x−µ)⁴]/σ⁴ of all elements: 3 for a normal distribution; NaN for a constant.
double kurtosis(const at::Tensor& values);

}  // namespace qb
