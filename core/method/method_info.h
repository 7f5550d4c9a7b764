#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/base/knob.h"

namespace qb {

enum class MethodClass { transformation, clipping, reconstruction, sparsity, cache };
std::string to_text(MethodClass value);

// What a stage can leave for those behind it.
enum class Trace : unsigned {
  transforms = 1,  // hidden states that are rotated, some values at run time
  scaled = 2,      // channels divided where they are made and multiplied where they are read
  range = 4,       // a clip that the rounding must use
  zeros = 8,       // pruned weights that stay zero
  codes = 16,      // rounded weights
  grid = 32,       // scales and zero points in few bits, which cannot change any more
  tuned = 64,      // what was learned on the finished model
};
struct Traces {
  unsigned bits = 0;
  constexpr Traces() = default;
  constexpr Traces(Trace one) : bits(static_cast<unsigned>(one)) {}
  constexpr bool has(Trace one) const { return (bits & static_cast<unsigned>(one)) != 0; }
};
constexpr Traces operator|(Traces a, Traces b) {
  a.bits |= b.bits;
  return a;
}
std::string to_text(Trace trace);

// When a stage works: on the whole model before its blocks are walked, on one block after the other, on the finished model.
enum class Place { model, blocks, finished };

// Which storage types' grids (core/quant/storage.h) a stage can leave.
enum class StorageUse {
  any,
  even,     // evenly spaced codes, whose rounding it learns
  scales,   // float16 scales and minima, of a unit or a super-block: it changes them after the codes are chosen
  minimum,  // a float16 minimum a unit, which takes any zero point
  none,     // it keeps values beside the codes, or scales of its own kind
};

// What a stage asks of those before it and does for those behind it. A pipeline is legal when every stage takes or keeps what
// the stages before it left: core/method/contracts.h.
struct Contract {
  Place place = Place::blocks;
  Traces needs;   // must be there
  Traces takes;   // is used, and gone behind it
  Traces keeps;   // still holds behind it
  Traces leaves;
  StorageUse storage = StorageUse::any;
};
// Of a stage that makes codes.
constexpr Contract rounding(Traces also = {}, StorageUse storage = StorageUse::any) {
  Contract contract;
  contract.storage = storage;
  contract.takes = Trace::range;
  contract.keeps = Traces(Trace::transforms) | Trace::scaled | Trace::zeros;
  contract.leaves = Traces(Trace::codes) | also;
  return contract;
}

struct StageSpec;

// What a method is, torch-free.
struct MethodInfo {
  std::string name;    // as in recipes: "rtn", "gptq", "awq"
  std::string title;   // "Round to nearest"
  MethodClass kind = MethodClass::reconstruction;
  std::string help;    // one or two sentences
  std::string source;  // paper
  bool needs_calibration = false;
  Contract contract;
  std::vector<KnobInfo> knobs;
  // What is wrong with knobs that are each valid; empty: nothing.
  std::string (*problem)(const StageSpec&) = nullptr;
};

// A method with its knobs at its place in a pipeline. Knobs left out have their defaults.
struct StageSpec {
  std::string method;
  std::map<std::string, KnobValue> knobs;
  bool operator==(const StageSpec& other) const;  // a default that is written down is no difference
};

// All methods of this build, in the order of the paper's classes.
const std::vector<MethodInfo>& methods();
// nullptr when there is none of that name.
const MethodInfo* find_method(const std::string& name);
// Empty when the method exists and every knob given is known and valid; else one sentence.
std::string stage_problem(const StageSpec& stage);
// The stage's value or the default. Throws InternalError for a knob that the method does not have.
KnobValue knob(const StageSpec& stage, const std::string& name);
// The same as the type that its table gives it.
template <class T>
T knob(const StageSpec& stage, const std::string& name) {
  const KnobValue value = knob(stage, name);
  if constexpr (std::is_same_v<T, double>)
    if (const auto* integer = std::get_if<int64_t>(&value)) return static_cast<double>(*integer);  // 1 for 1.0
  return std::get<T>(value);
}

}  // namespace qb
