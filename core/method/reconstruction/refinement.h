#pragma once
#include "core/base/control.h"
#include "core/quant/quantizer.h"

namespace qb {

struct RefineOptions {
  int64_t sweeps;    // over all columns
  bool scales;       // each unit's scale by least squares before each sweep (channels and groups)
  double shrinkage;  // as GptqOptions has it
};

// Lowers the output error tr((Ŵ − W)·G·(Ŵ − W)ᵀ) of a rounded weight: every sweep takes column after column and rounds it to
// what is best given all the others (coordinate descent, as QuantEase: Behdin et al. 2023, arXiv 2309.01885). Neither a sweep
// nor a fit raises the error. weight [out, in] float32 and gram [in, in] are what it was rounded from and with;
// kept: [out, in] bool, false where a weight stays zero. Columns and outliers kept beside the codes are not supported.
void refine(QuantizedWeight& quantized, const at::Tensor& weight, const at::Tensor& gram, const at::Tensor& kept, const RefineOptions& options,
            const Control& control);

}  // namespace qb
