#include "core/method/method_info.h"

#include <fmt/format.h>

#include "core/base/error.h"

namespace qb {

bool StageSpec::operator==(const StageSpec& other) const {
  if (method != other.method) return false;
  const MethodInfo* info = find_method(method);
  auto complete = [&](std::map<std::string, KnobValue> all) {
    if (info)
      for (const KnobInfo& knob : info->knobs) all.try_emplace(knob.name, knob.default_value);
    return all;
  };
  return complete(knobs) == complete(other.knobs);
}

std::string to_text(MethodClass value) {
  switch (value) {
    case MethodClass::transformation: return "transformation";
    case MethodClass::clipping: return "clipping";
    case MethodClass::reconstruction: return "reconstruction";
    case MethodClass::sparsity: return "sparsity";
    case MethodClass::cache: return "cache";
  }
  throw InternalError("unknown method class");
}

const MethodInfo* find_method(const std::string& name) {
  for (const MethodInfo& method : methods())
    if (method.name == name) return &method;
  return nullptr;
}

KnobValue knob(const StageSpec& stage, const std::string& name) {
  if (const auto it = stage.knobs.find(name); it != stage.knobs.end()) return it->second;
  if (const MethodInfo* method = find_method(stage.method))
    for (const KnobInfo& info : method->knobs)
      if (info.name == name) return info.default_value;
  throw InternalError(fmt::format("method {} has no knob {}", stage.method, name));
}

}  // namespace qb
