#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace qb {

// NVIDIA's driver and compiler, found at run time where they are: nothing of CUDA is needed to build.

struct NvidiaDevice {
  std::string name;                         // "NVIDIA H100 80GB HBM3"
  int64_t memory_bytes = 0, free_bytes = 0;  // free_bytes 0: not known
};

// In CUDA's order, from the driver alone: no context is made, which would take memory of every device. Empty without a driver.
std::vector<NvidiaDevice> nvidia_devices();

// A kernel in CUDA C++ (extern "C"), compiled by NVRTC for each device when it is first launched there. Any thread may launch it.
class CudaKernel {
 public:
  CudaKernel(const char* source, const char* name) : source_(source), name_(name) {}

  // On the calling thread's current device and its default stream. arguments: addresses of the values, in the kernel's order.
  // false where the compiler is not there or does not know the device: the caller has another way.
  bool launch(unsigned blocks, unsigned threads, unsigned shared_bytes, void** arguments);

 private:
  void* function();

  const char *source_, *name_;
  std::mutex mutex_;
  std::map<int, void*> functions_;  // by device; null where it could not be made
};

}  // namespace qb
