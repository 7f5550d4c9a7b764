#pragma once

namespace qb {

// Of how many threads a team is that multiplies matrices or walks a tensor. Sums depend on it, so that it is fixed before the first run
// and does not follow what else goes on.
void set_compute_threads(int threads);
int compute_threads();
// The calling thread's own team: OpenMP and MKL keep a number for each thread.
void use_compute_threads();

}  // namespace qb
