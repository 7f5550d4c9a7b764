#pragma once
#include <functional>

namespace qb {

// Sets the threads that all jobs share, and the calling thread's own. Call before the first job.
void set_compute_threads(int threads);
int compute_threads();

// A running job's share of them. Every thread that calls at::parallel_for or multiplies matrices has a team of its own; the teams
// of all jobs at work together are compute_threads(), or one thread each where there are more jobs.
// Made, applied and destroyed on the job's thread. Torch-free header.
class ThreadShare {
 public:
  // `paused` may be called from any job's thread: a paused job has no share, the others have it.
  explicit ThreadShare(std::function<bool()> paused = {});
  ~ThreadShare();
  ThreadShare(const ThreadShare&) = delete;
  ThreadShare& operator=(const ThreadShare&) = delete;

  int threads() const;  // now
  // Makes the calling thread's team as large as the share. Jobs come and go: call it often, it costs nothing while nothing changed.
  void apply() const;

 private:
  bool at_work() const { return !paused_ || !paused_(); }
  std::function<bool()> paused_;
};

}  // namespace qb
