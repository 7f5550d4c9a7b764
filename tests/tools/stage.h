#pragma once
#include <map>
#include <string>

#include "core/base/error.h"
#include "core/method/method_info.h"

// A stage from words, each knob read as the method's table has it; those left out have its defaults.
inline qb::StageSpec stage_of(const std::string& method, const std::map<std::string, std::string>& given) {
  qb::StageSpec stage{method, {}};
  for (const qb::KnobInfo& knob : qb::find_method(method)->knobs) {
    const auto it = given.find(knob.name);
    if (it == given.end()) continue;
    switch (knob.type) {
      case qb::KnobType::boolean: stage.knobs[knob.name] = it->second == "true" || it->second == "1"; break;
      case qb::KnobType::integer: stage.knobs[knob.name] = static_cast<int64_t>(std::stoll(it->second)); break;
      case qb::KnobType::real: stage.knobs[knob.name] = std::stod(it->second); break;
      case qb::KnobType::choice: stage.knobs[knob.name] = it->second; break;
    }
  }
  for (const auto& [name, value] : given)
    if (!stage.knobs.contains(name)) throw qb::InputError(method + " has no knob " + name);
  return stage;
}
