#include "core/engine/device.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <torch/headeronly/version.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace qb {
namespace {

// Where libtorch_cpu.so was loaded from: libtorch_cuda.so lies beside it.
std::filesystem::path torch_folder() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<void*>(&at::get_num_threads), &info) == 0 || !info.dli_fname) return {};
  return std::filesystem::path(info.dli_fname).parent_path();
}

int64_t meminfo(const std::string& field) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind(field, 0) == 0) return std::stoll(line.substr(field.size())) * 1024;
  return 0;
}

}  // namespace

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "CPU";
}

std::string torch_version() { return TORCH_VERSION; }

void initialise_compute(int threads) {
  static const bool once = [] {
    // The driver first: without it, loading half a gigabyte of kernels would serve nobody.
    if (std::filesystem::exists("/proc/driver/nvidia/version")) {
      const auto path = torch_folder() / "libtorch_cuda.so";
      ::dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);  // a failure leaves the CPU, which devices() then says
    }
    return true;
  }();
  (void)once;
  at::set_num_threads(threads > 0 ? threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
}

std::vector<DeviceInfo> devices() {
  std::vector<DeviceInfo> list = {{"cpu", std::to_string(at::get_num_threads()) + " threads, " + cpu_name(), meminfo("MemTotal:"), meminfo("MemAvailable:")}};
  if (!at::hasCUDA()) return list;
  try {
    const auto count = at::detail::getCUDAHooks().getNumGPUs();
    for (int i = 0; i < static_cast<int>(count); ++i) {
      list.push_back({"cuda:" + std::to_string(i), "NVIDIA GPU " + std::to_string(i), 0, 0});
    }
  } catch (const c10::Error&) {
    // A driver without a usable device: the CPU remains.
  }
  return list;
}

}  // namespace qb
