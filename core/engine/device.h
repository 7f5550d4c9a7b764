#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace qb {

struct DeviceInfo {
  std::string name;        // "cpu", "cuda:0"
  std::string label;       // "2 × AMD EPYC", "NVIDIA H100 80GB"
  int64_t memory_bytes = 0, free_bytes = 0;
};

// Loads libtorch_cuda.so where a driver and the libraries are present; sets compute_threads() (0 and most: usable_cores()).
// Call once at program start, before the first tensor. Never throws.
void initialise_compute(int threads = 0);
std::vector<DeviceInfo> devices();
// The most that tensors have taken of a device's own memory since this program began; 0 for the CPU.
int64_t peak_device_bytes(const std::string& device);
int64_t take_peak_device_bytes(const std::string& device);  // since this was called last
std::string cpu_name();
std::string torch_version();

}  // namespace qb
