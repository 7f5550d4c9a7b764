#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace qb {

// A machine as its maker describes it: files in resources/hardware. Torch-free.
struct HardwareProfile {
  std::string name;         // file name without ending: "h100-sxm"
  std::string title;
  std::string source;       // where the figures come from
  double memory_bytes = 0;
  double bandwidth = 0;     // bytes a second of its memory
  std::map<std::string, double> compute;  // operations a second, a multiplication and an addition each one, by number type: float32, bfloat16, fp8, fp4, int8, int4
};

// What it computes in where a kernel asks for `type`: that, or the next wider type that it has. Throws InternalError for no type of them.
std::string computes_in(const HardwareProfile& hardware, const std::string& type);

// Throws RecipeError naming file, line and key.
HardwareProfile load_hardware(const std::filesystem::path& path);
std::vector<HardwareProfile> hardware_profiles();  // in name order
// A name of them, or a file. Throws InputError naming the nearest ones.
HardwareProfile find_hardware(const std::string& name);

}  // namespace qb
