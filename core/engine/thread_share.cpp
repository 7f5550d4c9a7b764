#include "core/engine/thread_share.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <mutex>
#include <vector>

namespace qb {
namespace {

// The process's, as libtorch's own number of threads is.
struct Sharing {
  std::mutex mutex;
  int threads = 0;  // 0: nobody has set it, libtorch's choice counts
  std::vector<const ThreadShare*> jobs;
};

Sharing& sharing() {
  static Sharing instance;
  return instance;
}

// Not OpenMP's own setter: MKL keeps a number for each thread beside it.
void set_team(int threads) {
  if (threads != at::get_num_threads()) at::set_num_threads(threads);
}

}  // namespace

void set_compute_threads(int threads) {
  {
    const std::lock_guard lock(sharing().mutex);
    sharing().threads = threads;
  }
  at::set_num_threads(threads);
}

int compute_threads() {
  const std::lock_guard lock(sharing().mutex);
  return sharing().threads > 0 ? sharing().threads : at::get_num_threads();
}

ThreadShare::ThreadShare(std::function<bool()> paused) : paused_(std::move(paused)) {
  {
    const std::lock_guard lock(sharing().mutex);
    if (sharing().threads == 0) sharing().threads = at::get_num_threads();
    sharing().jobs.push_back(this);
  }
  apply();
}

ThreadShare::~ThreadShare() {
  {
    const std::lock_guard lock(sharing().mutex);
    std::erase(sharing().jobs, this);
  }
  set_team(compute_threads());
}

int ThreadShare::threads() const {
  const std::lock_guard lock(sharing().mutex);
  int before = 0, others = 0;  // jobs at work
  bool seen = false;
  for (const ThreadShare* job : sharing().jobs) {
    if (job == this) {
      seen = true;
    } else if (job->at_work()) {
      ++others;
      if (!seen) ++before;
    }
  }
  const int all = sharing().threads, jobs = others + 1;
  return std::max(1, all / jobs + (before < all % jobs ? 1 : 0));  // the first ones take what does not divide
}

void ThreadShare::apply() const { set_team(threads()); }

}  // namespace qb
