#include "core/base/nvidia.h"

#include <dlfcn.h>
#include <link.h>

#include <array>
#include <climits>
#include <cstddef>

namespace qb {
namespace {

class Library {
 public:
  explicit Library(const std::string& name) : handle_(name.empty() ? nullptr : ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) {}

  // Calls a function of the library; all of NVIDIA's give 0 on success.
  template <class... Args>
  bool call(const char* function, Args... arguments) const {
    const auto address = handle_ ? reinterpret_cast<int (*)(Args...)>(::dlsym(handle_, function)) : nullptr;
    return address && address(arguments...) == 0;
  }

 private:
  void* handle_;  // stays open: a driver does not like to be unloaded
};

const Library& driver() {
  static const Library library("libcuda.so.1");
  return library;
}

// libtorch's stub beside libtorch_cuda.so: it is linked to the NVRTC that came with it.
const Library& compiler() {
  static const Library library([]() -> std::string {
    void* torch = ::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
    std::array<char, PATH_MAX> folder{};
    if (!torch || ::dlinfo(torch, RTLD_DI_ORIGIN, folder.data()) != 0) return {};
    return std::string(folder.data()) + "/libcaffe2_nvrtc.so";
  }());
  return library;
}

struct MemoryInfo {
  unsigned long long total, free, used;  // nvmlMemory_t
};

// Machine code of a source for a compute capability ("sm_90"); empty where it cannot be had.
std::vector<char> compiled(const char* source, const std::string& architecture) {
  const Library& nvrtc = compiler();
  void* program = nullptr;
  const char* const* none = nullptr;
  if (!nvrtc.call("nvrtcCreateProgram", &program, source, static_cast<const char*>(nullptr), 0, none, none)) return {};
  const std::string target = "--gpu-architecture=" + architecture;
  const char* options[] = {target.c_str()};
  size_t size = 0;
  std::vector<char> code;
  if (nvrtc.call("nvrtcCompileProgram", program, 1, static_cast<const char* const*>(options)) && nvrtc.call("nvrtcGetCUBINSize", program, &size)) {
    code.resize(size);
    if (!nvrtc.call("nvrtcGetCUBIN", program, code.data())) code.clear();
  }
  nvrtc.call("nvrtcDestroyProgram", &program);
  return code;
}

}  // namespace

std::vector<NvidiaDevice> nvidia_devices() {
  static const Library management("libnvidia-ml.so.1");
  static const bool ready = driver().call("cuInit", 0U), managed = management.call("nvmlInit_v2");
  int count = 0;
  if (!ready || !driver().call("cuDeviceGetCount", &count)) return {};
  std::vector<NvidiaDevice> found;
  for (int i = 0; i < count; ++i) {
    NvidiaDevice& device = found.emplace_back();
    int id = 0;
    if (!driver().call("cuDeviceGet", &id, i)) continue;
    std::array<char, 256> text{};
    if (driver().call("cuDeviceGetName", text.data(), static_cast<int>(text.size()), id)) device.name = text.data();
    size_t total = 0;
    if (driver().call("cuDeviceTotalMem_v2", &total, id)) device.memory_bytes = static_cast<int64_t>(total);
    void* handle = nullptr;
    MemoryInfo memory{};
    if (managed && driver().call("cuDeviceGetPCIBusId", text.data(), static_cast<int>(text.size()), id) &&
        management.call("nvmlDeviceGetHandleByPciBusId_v2", static_cast<const char*>(text.data()), &handle) &&
        management.call("nvmlDeviceGetMemoryInfo", handle, &memory))
      device.free_bytes = static_cast<int64_t>(memory.free);
  }
  return found;
}

void* CudaKernel::function() {
  constexpr int kMajor = 75, kMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…
  int device = 0, major = 0, minor = 0;
  if (!driver().call("cuCtxGetDevice", &device)) return nullptr;
  const std::lock_guard lock(mutex_);
  const auto [it, added] = functions_.try_emplace(device, nullptr);
  if (!added) return it->second;
  if (!driver().call("cuDeviceGetAttribute", &major, kMajor, device) || !driver().call("cuDeviceGetAttribute", &minor, kMinor, device)) return nullptr;
  const std::vector<char> code = compiled(source_, "sm_" + std::to_string(major * 10 + minor));
  void *module = nullptr, *function = nullptr;
  if (code.empty() || !driver().call("cuModuleLoadData", &module, static_cast<const void*>(code.data()))) return nullptr;
  if (driver().call("cuModuleGetFunction", &function, module, name_)) it->second = function;
  return it->second;
}

bool CudaKernel::launch(unsigned blocks, unsigned threads, unsigned shared_bytes, void** arguments) {
  void* const kernel = function();
  void *stream = nullptr, **extra = nullptr;
  return kernel && driver().call("cuLaunchKernel", kernel, blocks, 1U, 1U, threads, 1U, 1U, shared_bytes, stream, arguments, extra);
}

}  // namespace qb
