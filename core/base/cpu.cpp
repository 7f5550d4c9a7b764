#include "core/base/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace qb {

bool cpu_multiplies_bfloat16() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
#else
  return false;
#endif
}

bool cpu_has_avx512() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return has;
#else
  return false;
#endif
}

bool float32_products_are_faster() {
#if defined(__x86_64__)
  static const bool faster = !cpu_has_bfloat16_tiles() && !(cpu_multiplies_bfloat16() && __builtin_cpu_is("amd"));
  return faster;
#else
  return false;
#endif
}

bool cpu_has_bfloat16_tiles() {
#if defined(__x86_64__)
  static const bool has = [] {
    constexpr unsigned kBfloat16 = 1u << 22, kTiles = 1u << 24;  // of leaf 7, EDX
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!cpu_multiplies_bfloat16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kBfloat16) == 0 || (d & kTiles) == 0) return false;
    return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;  // tiles are large: Linux gives them on request
  }();
  return has;
#else
  return false;
#endif
}

}  // namespace qb
