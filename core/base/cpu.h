#pragma once

namespace qb {

// Whether the processor multiplies pairs of bfloat16 into float32 by itself (x86: AVX512-BF16).
bool cpu_multiplies_bfloat16();

// Whether it multiplies tiles of bfloat16 (x86: AMX-BF16), and the kernel lets this process do so.
bool cpu_has_bfloat16_tiles();

}  // namespace qb
