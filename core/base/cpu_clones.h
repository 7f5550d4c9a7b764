#pragma once

// Compiles a hot loop once for each vector width; the loader picks what the processor has. Plain under sanitizers, whose
// runtime is not up yet when the choice is made, and on other processors.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define QB_CPU_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define QB_CPU_CLONES
#endif
