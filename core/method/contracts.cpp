#include "core/method/contracts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace qb {
namespace {

struct Words {
  Trace trace;
  const char *name, *does;
  const char* has_done;  // and why that stands in another stage's way
};
// The strongest reason first.
constexpr std::array<Words, 7> kWords{{
    {Trace::tuned, "tuned", "learns on the finished model", "has learned on the finished model, and comes last"},
    {Trace::grid, "grid", "stores scales in few bits", "has stored scales in few bits, and they cannot change any more"},
    {Trace::codes, "codes", "rounds weights", "has rounded the weights, and codes do not change any more"},
    {Trace::range, "range", "chooses ranges", "has chosen ranges, and they would no longer fit"},
    {Trace::zeros, "zeros", "prunes weights", "has pruned weights, and they would not stay zero"},
    {Trace::scaled, "scaled", "scales channels", "has scaled channels, and they would not stay so"},
    {Trace::transforms, "transforms", "rotates hidden states", "has rotated hidden states, and the model undoes that at run time"},
}};

// What a stage is for, in words.
std::string does(const MethodInfo& method) {
  const Contract& contract = method.contract;
  std::string text;
  for (const Words& words : kWords)
    if (contract.leaves.has(words.trace) && words.trace != Trace::grid && text.empty()) text = words.does;
  if (text.empty()) text = contract.needs.has(Trace::codes) ? "learns on rounded weights" : "changes the model";
  return contract.place == Place::model ? text + " of the whole model" : text;
}

bool makes_codes(const StageSpec& stage) {
  const MethodInfo* method = find_method(stage.method);
  return method && method->contract.leaves.has(Trace::codes);
}

bool needs_codes(const StageSpec& stage) {
  const MethodInfo* method = find_method(stage.method);
  return method && method->contract.needs.has(Trace::codes);
}

bool has_float_zeros(const Scheme& scheme) {
  auto floats = [](const std::optional<QuantSpec>& spec) {
    return spec && spec->storage == Storage::none && !has_exact_zero(*spec);
  };
  return floats(scheme.weights) || std::any_of(scheme.overrides.begin(), scheme.overrides.end(), [&](const SchemeOverride& o) { return floats(o.weights); });
}

// The storage types that the scheme gives weights.
std::vector<Storage> storages(const Scheme& scheme) {
  std::vector<Storage> found;
  auto add = [&](const std::optional<QuantSpec>& spec) {
    if (spec && spec->storage != Storage::none) found.push_back(spec->storage);
  };
  add(scheme.weights);
  for (const SchemeOverride& entry : scheme.overrides) add(entry.weights);
  return found;
}

bool can_leave(StorageUse use, Storage storage) {
  const StorageInfo& info = info_of(storage);
  const bool even = spec_of(storage).type.kind == NumberType::Kind::integer && storage != Storage::iq4_nl;
  switch (use) {
    case StorageUse::any: return true;
    case StorageUse::even: return even;
    case StorageUse::scales: return spec_of(storage).scale_type == ScaleType::f16;
    case StorageUse::minimum: return info.super == 0 && info.minimum;
    case StorageUse::none: break;
  }
  return false;
}

// Why a stage cannot work on weights of this type; empty when it can.
std::string storage_problem(const MethodInfo& method, Storage storage) {
  const char* name = info_of(storage).name;
  if (method.contract.leaves.has(Trace::zeros) && !has_exact_zero(spec_of(storage)))
    return fmt::format("but the grids of {} hold no exact zero", name);
  if (can_leave(method.contract.storage, storage)) return {};
  switch (method.contract.storage) {
    case StorageUse::even: return fmt::format("and learns to round to evenly spaced codes, which {} does not have", name);
    case StorageUse::scales: return fmt::format("and changes scales after the codes are chosen, which in {} are no float16", name);
    case StorageUse::minimum: return fmt::format("and chooses zero points, which only types with a minimum of each group (q4_1, q5_1) store freely, not {}", name);
    default: return fmt::format("but what it leaves besides codes and scales has no place in {}", name);
  }
}

struct Conflict {
  enum class Kind { place, left, missing, scheme, storage } kind;
  size_t stage = 0, other = 0;   // that cannot stand there, and because of which
  const Words* words = nullptr;  // left: what the other one left
};

std::optional<Conflict> first_conflict(const std::vector<StageSpec>& given, const Scheme& scheme) {
  const std::vector<StageSpec> pipeline = complete_pipeline(given);
  // Rounding that nobody wrote belongs to the stage that asked for it.
  const size_t implied = pipeline.size() == given.size() ? pipeline.size() : static_cast<size_t>(std::find_if(pipeline.begin(), pipeline.end(), makes_codes) - pipeline.begin());
  auto conflict = [implied](Conflict::Kind kind, size_t stage, size_t other, const Words* words = nullptr) {
    return Conflict{kind, stage > implied ? stage - 1 : stage, other > implied ? other - 1 : other, words};
  };
  std::array<std::optional<size_t>, kWords.size()> left;  // by which stage
  std::optional<size_t> before;
  for (size_t i = 0; i < pipeline.size(); ++i) {
    const MethodInfo* method = find_method(pipeline[i].method);
    if (!method) continue;
    const Contract& contract = method->contract;
    if (before && find_method(pipeline[*before].method)->contract.place > contract.place) return conflict(Conflict::Kind::place, i, *before);
    // What it does once more says most.
    for (const bool again : {true, false})
      for (size_t t = 0; t < kWords.size(); ++t)
        if (const Trace trace = kWords[t].trace; left[t] && contract.leaves.has(trace) == again && !contract.takes.has(trace) && !contract.keeps.has(trace))
          return conflict(Conflict::Kind::left, i, *left[t], &kWords[t]);
    if (needs_codes(pipeline[i]))
      if (const auto maker = static_cast<size_t>(std::find_if(pipeline.begin(), pipeline.end(), makes_codes) - pipeline.begin()); maker > i)
        return conflict(Conflict::Kind::missing, i, maker);
    for (const Storage storage : storages(scheme))
      if (!storage_problem(*method, storage).empty()) return conflict(Conflict::Kind::storage, i, i);
    if (contract.leaves.has(Trace::zeros) && has_float_zeros(scheme)) return conflict(Conflict::Kind::scheme, i, i);
    for (size_t t = 0; t < kWords.size(); ++t) {
      if (contract.takes.has(kWords[t].trace)) left[t].reset();
      if (contract.leaves.has(kWords[t].trace)) left[t] = i;
    }
    before = i;
  }
  return std::nullopt;
}

std::string sentence(const std::vector<StageSpec>& pipeline, const Conflict& conflict, const Scheme& scheme) {
  const StageSpec &stage = pipeline[conflict.stage], &other = pipeline[conflict.other];
  const MethodInfo &method = *find_method(stage.method), &first = *find_method(other.method);
  std::string text = fmt::format("{} {}, ", stage.method, does(method));
  switch (conflict.kind) {
    case Conflict::Kind::storage:
      for (const Storage storage : storages(scheme))
        if (const std::string problem = storage_problem(method, storage); !problem.empty()) return text + problem;
      break;
    case Conflict::Kind::scheme:
      return text + "but the scheme's float zero points (round_zero_point: false) represent no exact zero; expected round_zero_point: true";
    case Conflict::Kind::missing:
      text += fmt::format("but {} makes the codes for it only afterwards", other.method);
      return first_conflict({other, stage}, {}) ? text : text + fmt::format("; put {} behind {}", stage.method, other.method);
    case Conflict::Kind::place:
      text += first.contract.place == Place::finished ? fmt::format("but {} {}", other.method, kWords.front().has_done)
                                                      : fmt::format("but {} works on its blocks before it", other.method);
      break;
    case Conflict::Kind::left:
      if (method.contract.leaves.has(conflict.words->trace)) return text + fmt::format("which {} has done already", other.method);
      text += fmt::format("but {} {}", other.method, conflict.words->has_done);
      break;
  }
  return first_conflict({stage, other}, {}) ? text : text + fmt::format("; put {} before {}", stage.method, other.method);
}

}  // namespace

std::string to_text(Trace trace) { return std::find_if(kWords.begin(), kWords.end(), [&](const Words& words) { return words.trace == trace; })->name; }

std::optional<PipelineProblem> pipeline_problem(const std::vector<StageSpec>& pipeline, const Scheme& scheme) {
  const auto conflict = first_conflict(pipeline, scheme);
  if (!conflict) return std::nullopt;
  return PipelineProblem{conflict->stage, sentence(pipeline, *conflict, scheme)};
}

std::optional<size_t> place_for(const StageSpec& stage, const std::vector<StageSpec>& pipeline, const Scheme& scheme) {
  auto fits = [&](size_t at) {
    std::vector<StageSpec> with = pipeline;
    with.insert(with.begin() + static_cast<std::ptrdiff_t>(at), stage);
    return !first_conflict(with, scheme);
  };
  size_t usual = pipeline.size();
  for (const MethodInfo* method = find_method(stage.method); method && usual > 0; --usual) {
    const MethodInfo* before = find_method(pipeline[usual - 1].method);
    if (!before || before->kind <= method->kind) break;
  }
  if (fits(usual)) return usual;
  for (size_t at = pipeline.size() + 1; at-- > 0;)
    if (fits(at)) return at;
  return std::nullopt;
}

std::vector<StageSpec> complete_pipeline(std::vector<StageSpec> pipeline) {
  if (std::none_of(pipeline.begin(), pipeline.end(), makes_codes)) pipeline.insert(std::find_if(pipeline.begin(), pipeline.end(), needs_codes), {"rtn", {}});
  return pipeline;
}

const StageSpec* finishing_stage(const std::vector<StageSpec>& pipeline) {
  return pipeline.empty() || find_method(pipeline.back().method)->contract.place != Place::finished ? nullptr : &pipeline.back();
}

}  // namespace qb
