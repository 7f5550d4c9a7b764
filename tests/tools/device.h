#pragma once
#include <cstdlib>

#include <ATen/ATen.h>

#include "core/engine/device.h"

// Where a tool computes: QBENCH_DEVICE as of the command line, or the CPU.
inline at::Device wanted_device() {
  qb::initialise_compute();
  const char* name = std::getenv("QBENCH_DEVICE");
  return at::Device(name ? name : "cpu");
}
