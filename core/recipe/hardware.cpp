#include "core/recipe/hardware.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/knob.h"
#include "core/base/resources.h"
#include "core/recipe/recipe.h"
#include "core/recipe/yaml_map.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

// By what a type falls back to where a machine has no units for it.
const std::map<std::string, std::string>& wider() {
  static const std::map<std::string, std::string> table = {{"int4", "int8"}, {"int8", "bfloat16"}, {"fp4", "fp8"}, {"fp8", "bfloat16"}, {"bfloat16", "float32"}, {"float32", ""}};
  return table;
}

HardwareProfile read_hardware(YamlMap map) {
  HardwareProfile hardware;
  const auto needed = [&](YamlMap& from, const std::string& key) {
    const auto value = from.real(key, 0, 1e9);
    if (!value || *value <= 0) from.fail(key, value ? "expected more than 0" : "is missing");
    return *value;
  };
  hardware.title = map.text("title").value_or("");
  hardware.source = map.text("source").value_or("");
  hardware.memory_bytes = needed(map, "memory_gb") * 1e9;
  hardware.bandwidth = needed(map, "bandwidth_gb_s") * 1e9;
  auto compute = map.map("compute_tflops");
  if (!compute || !compute->has("float32")) map.fail("compute_tflops", "expected a mapping of number types to 10¹² operations a second, float32 among them");
  for (const auto& [type, _] : wider())
    if (compute->has(type)) hardware.compute[type] = needed(*compute, type) * 1e12;
  compute->finish();
  map.finish();
  return hardware;
}

}  // namespace

std::string computes_in(const HardwareProfile& hardware, const std::string& type) {
  std::string found = type;
  while (!hardware.compute.contains(found)) {
    const auto next = wider().find(found);
    if (next == wider().end() || next->second.empty()) throw InternalError(fmt::format("{} computes in no {}", hardware.name, type));
    found = next->second;
  }
  return found;
}

HardwareProfile load_hardware(const fs::path& path) {
  const std::string text = read_text(path);
  try {
    HardwareProfile hardware = read_hardware(YamlMap(YAML::Load(text), ""));
    hardware.name = path.stem().string();
    if (hardware.title.empty()) hardware.title = hardware.name;
    return hardware;
  } catch (const RecipeError& e) {
    const Position position = position_of(text, e.key());
    throw RecipeError(path.string(), position.line, position.column, e.key(), e.detail());
  } catch (const YAML::Exception& e) {
    throw RecipeError(path.string(), e.mark.line + 1, e.mark.column + 1, "", e.msg);
  }
}

std::vector<HardwareProfile> hardware_profiles() {
  std::vector<HardwareProfile> all;
  for (const auto& entry : fs::directory_iterator(resource("hardware")))
    if (entry.path().extension() == ".yaml") all.push_back(load_hardware(entry.path()));
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return all;
}

HardwareProfile find_hardware(const std::string& name) {
  if (name.ends_with(".yaml") || name.find('/') != std::string::npos) return load_hardware(name);
  std::vector<std::string> names;
  for (HardwareProfile& hardware : hardware_profiles()) {
    if (hardware.name == name) return hardware;
    names.push_back(hardware.name);
  }
  const auto near = similar_names(name, names);
  throw InputError(fmt::format("there is no hardware \"{}\"; expected one of {}, or a .yaml file{}", name, fmt::join(names, ", "),
                               near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near.front())));
}

}  // namespace qb
