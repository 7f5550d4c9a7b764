#include "core/engine/compute_threads.h"

#include <ATen/Parallel.h>

#include <atomic>

namespace qb {
namespace {
std::atomic<int> chosen{0};  // 0: nobody has, libtorch's choice counts
}

void set_compute_threads(int threads) {
  chosen = threads;
  use_compute_threads();
}

int compute_threads() { return chosen > 0 ? chosen.load() : at::get_num_threads(); }

// Not OpenMP's own setter: MKL keeps a number for each thread beside it.
void use_compute_threads() {
  if (const int threads = compute_threads(); threads != at::get_num_threads()) at::set_num_threads(threads);
}

}  // namespace qb
