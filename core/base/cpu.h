#pragma once

namespace qb {

// Whether the processor multiplies pairs of bfloat16 into float32 by itself (x86: AVX512-BF16).
bool cpu_multiplies_bfloat16();

// Whether it has vectors of 512 bits with masks for all element sizes.
bool cpu_has_avx512();

// Whether a product of bfloat16 matrices takes less time on numbers widened to float32: not where there are tiles, and not on AMD's
// processors with AVX512-BF16, which do twice as many products with it; Intel's do half as many (measured on Sapphire Rapids: 43 and 88 a ns).
bool float32_products_are_faster();

// Whether it multiplies tiles of bfloat16 (x86: AMX-BF16), and the kernel lets this process do so.
bool cpu_has_bfloat16_tiles();

}  // namespace qb
