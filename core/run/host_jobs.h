#pragma once
#include <filesystem>
#include <functional>
#include <string>

#include "core/base/control.h"

namespace qb {

// A run's place among those at work on this host, of all its user's workspaces: a GPU takes one at a time, and memory that one was
// granted is not granted to another although it does not fill it yet. Kept in a folder of the host, an entry a run under a lock that the
// kernel drops when the process goes. Where no folder of the host can be written, nothing is waited for.
class HostJob {
 public:
  using Waiting = std::function<void(const std::string& reason)>;

  // Waits until the device is free. Told why it waits, again when that changes. Throws Cancelled; ResourceError when the folder
  // cannot be written.
  HostJob(const std::string& device, const Control& control, const Waiting& waiting);
  ~HostJob();
  HostJob(const HostJob&) = delete;
  HostJob& operator=(const HostJob&) = delete;

  // Waits until that many bytes of main memory and of the device's own are there, those that were granted to others left aside.
  void reserve(double host_bytes, double device_bytes, const Control& control, const Waiting& waiting);

 private:
  bool take_device(std::string& reason);
  bool take_memory(double host_bytes, double device_bytes, std::string& reason);
  void write(double host_bytes);

  std::string device_, name_;  // the physical one; as this process calls it
  std::filesystem::path folder_, entry_;
  int fd_ = -1;
};

}  // namespace qb
