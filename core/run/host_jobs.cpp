#include "core/run/host_jobs.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "core/base/file_lock.h"
#include "core/base/host_memory.h"
#include "core/engine/device.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

// Of the host and the user, not of a workspace: devices are. Empty where there is no place for it.
fs::path jobs_folder() {
  const char* own = std::getenv("XDG_RUNTIME_DIR");
  for (const char* place : {own, "/tmp", "/dev/shm", "/var/tmp"}) {
    if (!place || !*place) continue;
    const fs::path folder = fs::path(place) / fmt::format("llm-qbench-jobs-{}", ::getuid());
    ::mkdir(folder.c_str(), 0700);
    struct stat about {};
    if (::lstat(folder.c_str(), &about) == 0 && S_ISDIR(about.st_mode) && about.st_uid == ::getuid() && ::access(folder.c_str(), W_OK) == 0) return folder;
  }
  return {};
}

struct Other {
  int64_t process = 0;
  std::string device;
  double bytes = 0;
};

// Everything below happens under this lock, so that two runs never take the same place.
class Counter {
 public:
  explicit Counter(const fs::path& folder) {
    fd_ = ::open((folder / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd_ < 0) throw ResourceError(fmt::format("{}: cannot open for writing: {}", (folder / "lock").string(), std::strerror(errno)));
    while (::flock(fd_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  ~Counter() { ::close(fd_); }

 private:
  int fd_ = -1;
};

std::vector<Other> others(const fs::path& folder, const fs::path& own) {
  std::vector<Other> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().extension() != ".job" || entry.path() == own) continue;
    const int fd = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    if (!is_locked(fd)) {
      ::unlink(entry.path().c_str());  // its process is gone
    } else {
      char text[1024] = {};
      const ssize_t n = ::pread(fd, text, sizeof text - 1, 0);
      const auto json = nlohmann::json::parse(text, text + std::max<ssize_t>(0, n), nullptr, false);
      if (json.is_object()) found.push_back({json.value("process", int64_t{0}), json.value("device", std::string()), json.value("bytes", 0.0)});
    }
    ::close(fd);
  }
  return found;
}

// The same GPU for every process, whichever of them it may see.
std::string physical(const std::string& device) {
  if (device.rfind("cuda", 0) != 0) return device;
  size_t index = device.size() > 5 ? std::strtoul(device.c_str() + 5, nullptr, 10) : 0;
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  std::istringstream names(visible ? visible : "");
  for (std::string name; std::getline(names, name, ',');)
    if (index-- == 0) return "cuda:" + name;
  return device == "cuda" ? "cuda:0" : device;
}

std::string gigabytes(double bytes) { return fmt::format("{:.1f} GB", bytes / 1e9); }

void wait_for(const std::function<bool(std::string&)>& take, const Control& control, const HostJob::Waiting& waiting) {
  std::string told;
  for (std::string reason; !take(reason); reason.clear()) {
    control.checkpoint();
    if (control.stop_soon.stop_requested()) throw Cancelled();
    if (reason != told && waiting) waiting(told = reason);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

}  // namespace

HostJob::HostJob(const std::string& device, const Control& control, const Waiting& waiting) : device_(physical(device)), name_(device), folder_(jobs_folder()) {
  if (folder_.empty()) return;  // nobody can be asked to make room
  static std::atomic<int> count{0};
  entry_ = folder_ / fmt::format("{}-{}.job", ::getpid(), count++);
  wait_for([this](std::string& reason) { return take_device(reason); }, control, waiting);
}

HostJob::~HostJob() {
  if (fd_ < 0) return;
  ::unlink(entry_.c_str());
  ::close(fd_);
}

bool HostJob::take_device(std::string& reason) {
  const Counter counter(folder_);
  if (device_ != "cpu")
    for (const Other& other : others(folder_, entry_))
      if (other.device == device_) {
        reason = fmt::format("{} is taken by the run of process {}", device_, other.process);
        return false;
      }
  ::unlink(entry_.c_str());  // of a process that had our number
  fd_ = ::open(entry_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd_ < 0 || try_lock(fd_) != 0) throw ResourceError(fmt::format("{}: cannot write: {}", entry_.string(), std::strerror(errno)));
  write(0);
  return true;
}

void HostJob::reserve(double host_bytes, double device_bytes, const Control& control, const Waiting& waiting) {
  if (folder_.empty()) return;
  wait_for([&](std::string& reason) { return take_memory(host_bytes, device_bytes, reason); }, control, waiting);
}

bool HostJob::take_memory(double host_bytes, double device_bytes, std::string& reason) {
  const Counter counter(folder_);
  double promised = 0;  // to others, who have not taken it yet
  for (const Other& other : others(folder_, entry_)) promised += std::max(0.0, other.bytes - static_cast<double>(resident_bytes_of(other.process)));
  const double free = static_cast<double>(host_memory().available) - promised;
  if (host_memory().total > 0 && host_bytes > free) {
    reason = fmt::format("it needs {} of memory, {} are free{}", gigabytes(host_bytes), gigabytes(std::max(0.0, free)), promised > 0 ? fmt::format(" beside {} promised to other runs", gigabytes(promised)) : "");
    return false;
  }
  if (device_bytes > 0)
    for (const DeviceInfo& device : devices())
      if (device.name == name_ && device.free_bytes > 0 && device_bytes > static_cast<double>(device.free_bytes)) {
        reason = fmt::format("it needs {} of {}'s memory, {} are free", gigabytes(device_bytes), name_, gigabytes(static_cast<double>(device.free_bytes)));
        return false;
      }
  write(host_bytes);
  return true;
}

void HostJob::write(double host_bytes) {
  const std::string text = nlohmann::json{{"process", ::getpid()}, {"device", device_}, {"bytes", host_bytes}}.dump();
  if (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
    throw ResourceError(fmt::format("{}: cannot write: {}", entry_.string(), std::strerror(errno)));
}

}  // namespace qb
