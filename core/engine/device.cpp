#include "core/engine/device.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>

#include "core/base/cores.h"
#include "core/base/host_memory.h"
#include "core/base/nvidia.h"
#include "core/engine/compute_threads.h"

namespace qb {
namespace {

// Where libtorch_cpu.so was loaded from: libtorch_cuda.so lies beside it.
std::filesystem::path torch_folder() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<void*>(&at::get_num_threads), &info) == 0 || !info.dli_fname) return {};
  return std::filesystem::path(info.dli_fname).parent_path();
}

// Nothing before the device's first tensor.
c10::DeviceAllocator* allocator_of(const at::Device& device) {
  if (device.is_cpu()) return nullptr;
  auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device.type()));
  return allocator && allocator->initialized() ? allocator : nullptr;
}

}  // namespace

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("model name", 0) == 0) {
      std::string name = line.substr(line.find(':') + 2);
      for (const std::string mark : {"(R)", "(TM)", " Processor", " CPU"})
        for (size_t at; (at = name.find(mark)) != std::string::npos;) name.erase(at, mark.size());
      return name;
    }
  return "CPU";
}

std::string torch_version() { return TORCH_VERSION; }

void initialise_compute(int threads) {
  static const bool once = [] {
    // A device first: without one, loading half a gigabyte of kernels would serve nobody.
    if (!nvidia_devices().empty()) {
      const auto path = torch_folder() / "libtorch_cuda.so";
      ::dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);  // a failure leaves the CPU, which devices() then says
    }
    return true;
  }();
  (void)once;
  const int cores = usable_cores();
  set_compute_threads(threads > 0 ? std::min(threads, cores) : cores);
}

std::vector<DeviceInfo> devices() {
  std::vector<DeviceInfo> list = {{"cpu", std::to_string(compute_threads()) + " threads, " + cpu_name(), host_memory().total, host_memory().available}};
  if (!at::hasCUDA()) return list;
  try {
    const int count = at::detail::getCUDAHooks().getNumGPUs();
    const std::vector<NvidiaDevice> known = nvidia_devices();
    for (int i = 0; i < count; ++i) {
      const NvidiaDevice device = static_cast<size_t>(i) < known.size() ? known[static_cast<size_t>(i)] : NvidiaDevice{"NVIDIA GPU " + std::to_string(i)};
      list.push_back({"cuda:" + std::to_string(i), device.name, device.memory_bytes, device.free_bytes});
    }
  } catch (const c10::Error&) {
    // A driver without a usable device: the CPU remains.
  }
  return list;
}

namespace {

std::map<std::string, int64_t> earlier_peaks;
std::mutex peaks_mutex;

int64_t device_peak(const std::string& name, bool take) {
  try {
    const at::Device device(name);
    auto* allocator = allocator_of(device);
    if (!allocator) return 0;
    const auto index = device.has_index() ? device.index() : static_cast<c10::DeviceIndex>(0);
    const int64_t peak = allocator->getDeviceStats(index).allocated_bytes.front().peak;
    if (take) allocator->resetPeakStats(index);
    return peak;
  } catch (const c10::Error&) {
    return 0;  // no such device: whoever computes on it says so
  }
}

}  // namespace

int64_t peak_device_bytes(const std::string& name) {
  const std::lock_guard lock(peaks_mutex);
  return std::max(earlier_peaks[name], device_peak(name, false));
}

int64_t take_peak_device_bytes(const std::string& name) {
  const std::lock_guard lock(peaks_mutex);
  const int64_t peak = device_peak(name, true);
  earlier_peaks[name] = std::max(earlier_peaks[name], peak);
  return peak;
}

}  // namespace qb
