#pragma once

namespace qb {

// Whether the processor multiplies pairs of bfloat16 into float32 by itself (x86: AVX512-BF16).
bool cpu_multiplies_bfloat16();

}  // namespace qb
