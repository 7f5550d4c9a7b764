#include "core/recipe/recipe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <tuple>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/exporting/formats.h"
#include "core/measure/evaluators.h"
#include "core/method/contracts.h"
#include "core/method/stored_form.h"
#include "core/quant/stored_spec.h"
#include "core/recipe/importance.h"
#include "core/recipe/recipe_read.h"
#include "core/quant/mixes.h"
#include "core/quant/spec_fields.h"

namespace qb {
namespace {

void emit(YAML::Emitter& out, const QuantSpec& spec, SpecRole role) {
  out << YAML::BeginMap;
  for (const SpecField& field : spec_fields(role))
    if (is_written(field, spec)) out << YAML::Key << field.knob.name << YAML::Value << to_text(field.get(spec));
  out << YAML::EndMap;
}

void emit(YAML::Emitter& out, const CorpusSpec& corpus) {
  out << YAML::Key << "corpus" << YAML::Value << corpus.path.string();
  if (!corpus.name.empty()) out << YAML::Key << "name" << YAML::Value << corpus.name;
  if (corpus.field != CorpusSpec{}.field) out << YAML::Key << "field" << YAML::Value << corpus.field;
}

void emit(YAML::Emitter& out, const Scheme& scheme) {
  out << YAML::BeginMap;
  if (!scheme.mix.empty()) {
    out << YAML::Key << "mix" << YAML::Value << scheme.mix;
  } else if (scheme.weights) {
    out << YAML::Key << "weights" << YAML::Value;
    emit(out, *scheme.weights, SpecRole::weights);
  }
  if (scheme.activations) {
    out << YAML::Key << "activations" << YAML::Value;
    emit(out, *scheme.activations, SpecRole::activations);
  }
  if (scheme.kv_cache) {
    out << YAML::Key << "kv_cache" << YAML::Value;
    emit(out, *scheme.kv_cache, SpecRole::cache);
  }
  for (const auto& [key, spec] : {std::pair{"embedding", &scheme.embedding}, {"head", &scheme.head}})
    if (*spec) {
      out << YAML::Key << key << YAML::Value;
      emit(out, **spec, SpecRole::weights);
    }
  if (scheme.head_rounding != HeadRounding::rtn) out << YAML::Key << "head_rounding" << YAML::Value << to_text(scheme.head_rounding);
  if (!scheme.ignore.empty()) out << YAML::Key << "ignore" << YAML::Value << scheme.ignore;
  if (!scheme.overrides.empty()) {
    out << YAML::Key << "overrides" << YAML::Value << YAML::BeginSeq;
    for (const SchemeOverride& entry : scheme.overrides) {
      out << YAML::BeginMap << YAML::Key << "match" << YAML::Value << entry.match << YAML::Key << "weights" << YAML::Value;
      if (entry.weights)
        emit(out, *entry.weights, SpecRole::weights);
      else
        out << "float";
      out << YAML::EndMap;
    }
    out << YAML::EndSeq;
  }
  out << YAML::EndMap;
}

void emit(YAML::Emitter& out, const StageSpec& stage) {
  out << YAML::BeginMap << YAML::Key << "method" << YAML::Value << stage.method;
  const MethodInfo* method = find_method(stage.method);
  for (const KnobInfo& info : method ? method->knobs : std::vector<KnobInfo>{})
    out << YAML::Key << info.name << YAML::Value << to_text(knob(stage, info.name));
  out << YAML::EndMap;
}

std::string to_yaml_text(const Recipe& recipe, bool with_names) {
  YAML::Emitter out;
  out << YAML::BeginMap;
  if (with_names) {
    out << YAML::Key << "name" << YAML::Value << recipe.name;
    if (!recipe.description.empty()) out << YAML::Key << "description" << YAML::Value << recipe.description;
  }
  out << YAML::Key << "model" << YAML::Value << YAML::BeginMap;
  out << YAML::Key << "path" << YAML::Value << recipe.model.string() << YAML::Key << "dtype" << YAML::Value << recipe.dtype;
  if (recipe.dequantize) out << YAML::Key << "dequantize" << YAML::Value << true;
  out << YAML::EndMap;
  if (with_names && recipe.target) {
    out << YAML::Key << "target" << YAML::Value << YAML::BeginMap << YAML::Key << "format" << YAML::Value << recipe.target->format;
    if (!recipe.target->engine.empty()) out << YAML::Key << "engine" << YAML::Value << recipe.target->engine;
    out << YAML::EndMap;
  }
  if (!recipe.checkpoint.empty()) out << YAML::Key << "checkpoint" << YAML::Value << recipe.checkpoint.string();
  if (recipe.calibration || !recipe.importance.empty()) {
    out << YAML::Key << "calibration" << YAML::Value << YAML::BeginMap;
    if (recipe.calibration) {
      const SamplingSpec& sampling = recipe.calibration->sampling;
      emit(out, recipe.calibration->corpus);
      out << YAML::Key << "sampling" << YAML::Value << sampling.sampling << YAML::Key << "samples" << YAML::Value << sampling.samples;
      out << YAML::Key << "seq_len" << YAML::Value << sampling.seq_len << YAML::Key << "seed" << YAML::Value << std::to_string(sampling.seed);
      if (sampling.bos) out << YAML::Key << "bos" << YAML::Value << to_text(*sampling.bos);
    }
    if (!recipe.importance.empty()) out << YAML::Key << "importance" << YAML::Value << recipe.importance.string();
    out << YAML::EndMap;
  }
  if (recipe.checkpoint.empty()) {
    out << YAML::Key << "scheme" << YAML::Value;
    emit(out, recipe.scheme);
    out << YAML::Key << "pipeline" << YAML::Value << YAML::BeginSeq;
    for (const StageSpec& stage : recipe.pipeline) emit(out, stage);
    out << YAML::EndSeq;
  }
  out << YAML::Key << "propagate_quantized" << YAML::Value << recipe.propagate_quantized;
  out << YAML::Key << "evaluation" << YAML::Value << YAML::BeginSeq;
  for (const EvaluationSpec& spec : recipe.evaluation) {
    const EvaluatorInfo* evaluator = find_evaluator(spec.evaluator);
    out << YAML::BeginMap;
    if (spec.evaluator != EvaluationSpec().evaluator) out << YAML::Key << "evaluator" << YAML::Value << spec.evaluator;
    emit(out, spec.corpus);
    if (!evaluator || evaluator->data == EvaluationData::text) out << YAML::Key << "seq_len" << YAML::Value << spec.seq_len << YAML::Key << "windows" << YAML::Value << spec.windows;
    out << YAML::Key << "dtype" << YAML::Value << spec.dtype;
    if (spec.bos) out << YAML::Key << "bos" << YAML::Value << to_text(*spec.bos);
    for (const auto& [name, value] : all_knobs(spec)) out << YAML::Key << name << YAML::Value << to_text(value);
    out << YAML::EndMap;
  }
  out << YAML::EndSeq;
  out << YAML::Key << "evaluate_float" << YAML::Value << recipe.evaluate_float;
  out << YAML::Key << "seed" << YAML::Value << std::to_string(recipe.seed);
  out << YAML::EndMap;
  return std::string(out.c_str()) + "\n";
}

[[noreturn]] void fail(const std::string& key, const std::string& what) { throw RecipeError("", 0, 0, key, what); }

template <class Infos>
std::string unknown_name(const char* what, const std::string& found, const Infos& infos) {
  std::vector<std::string> names;
  for (const auto& info : infos) names.push_back(info.name);
  const auto near = similar_names(found, names);
  return near.empty() ? fmt::format("there is no {} \"{}\"; expected {}", what, found, fmt::join(names, ", ")) : fmt::format("there is no {} \"{}\"; did you mean \"{}\"?", what, found, near.front());
}

// What can be said of a quantization without knowing the matrix.
void validate_spec(const QuantSpec& spec, const std::string& key, bool activations) {
  if (spec.storage != Storage::none) {
    if (const std::string problem = activations ? activation_misfit(spec, spec.group_size) : ""; !problem.empty()) fail(key + ".type", problem);
    QuantSpec fixed = activations ? input_spec_of(spec.storage) : spec_of(spec.storage);
    for (const SpecField& field : spec_fields(activations ? SpecRole::activations : SpecRole::weights))
      if (field.by_type == SpecField::ByType::free && field.knob.name != "type") field.set(fixed, field.get(spec));
    if (spec != fixed) fail(key + ".type", fmt::format("{} fixes group size, symmetry and scales, and the scheme says others", type_text(spec)));
    if (spec.range == RangeMethod::minmax) fail(key + ".range", fmt::format("{} has searched grids; leave range out", type_text(spec)));
    if (const std::string problem = misfit(spec, 1, grid_width(spec, 0)); !problem.empty()) fail(key + ".range", problem);
    return;
  }
  QuantSpec flexible = spec;
  // A size that the group, heads and blocks divide: leaves misfit() with what does not depend on the matrix.
  const int64_t in = std::max<int64_t>(1, spec.group_size) * 4, out = std::max<int64_t>(1, spec.heads) * 4;
  if (const std::string problem = misfit(flexible, out, in); !problem.empty()) {
    if (spec.scale_type == ScaleType::e8m0 || spec.scale_type == ScaleType::e4m3) fail(key + ".scale_type", problem);
    const bool range = spec.range == RangeMethod::hqq;
    fail(key + (range ? ".range" : spec.granularity == Granularity::head ? ".heads" : ".symmetric"), problem);
  }
  const bool for_tokens = spec.granularity == Granularity::token;
  if (!activations && for_tokens) fail(key + ".granularity", "token is for activations; weights have channel");
  if (activations && (spec.granularity == Granularity::channel || spec.granularity == Granularity::block))
    fail(key + ".granularity", fmt::format("activations have token, tensor, group or head, not {}", to_text(spec.granularity)));
  if (activations && spec.range != RangeMethod::minmax) fail(key + ".range", "activations have minmax");
  if (activations && !spec.dynamic)
    if (const std::string problem = activation_misfit(spec, in); !problem.empty()) fail(key + (spec.granularity != Granularity::tensor ? ".granularity" : ".round_zero_point"), problem);
  if (spec.type.kind == NumberType::Kind::floating && !spec.symmetric) fail(key + ".symmetric", "float types are symmetric");
}

// The same for keys and values: which heads there are is the model's to say.
void validate_cache(const QuantSpec& spec, const std::string& key) {
  const std::string problem = cache_misfit(spec, std::max<int64_t>(1, spec.group_size) * 4);
  if (spec.storage != Storage::none) fail(key + ".type", problem);
  if (spec.type.kind == NumberType::Kind::floating && !spec.symmetric) fail(key + ".symmetric", "float types are symmetric");
  if (problem.empty()) return;
  const bool placed = spec.granularity == Granularity::head || spec.granularity == Granularity::token || spec.granularity == Granularity::group || (spec.granularity == Granularity::tensor && !spec.dynamic);
  if (!placed || (!spec.dynamic && spec.granularity != Granularity::head && spec.granularity != Granularity::tensor)) fail(key + ".granularity", problem);
  if (spec.heads != 0) fail(key + ".heads", problem);
  if (spec.range != RangeMethod::minmax) fail(key + ".range", problem);
  if (spec.scale_type == ScaleType::e8m0 || spec.scale_type == ScaleType::e4m3) fail(key + ".scale_type", problem);
  fail(key + (!spec.symmetric && !spec.round_zero_point ? ".round_zero_point" : ".symmetric"), problem);
}

}  // namespace

bool weighs_by_inputs(const StageSpec& stage) { return stage.method == "rtn" && knob<bool>(stage, "importance"); }

namespace {

// What weighs errors by the inputs' mean squares needs them from somewhere, and a file of them somebody who reads it.
void check_importance(const Recipe& recipe) {
  bool read = false;
  for (size_t i = 0; i < recipe.pipeline.size(); ++i) {
    const bool weighs = weighs_by_inputs(recipe.pipeline[i]);
    read = read || weighs;
    if (weighs && !recipe.calibration && recipe.importance.empty())
      fail(fmt::format("pipeline[{}].importance", i), "the inputs' mean squares are unknown: give a calibration section, with a text or \"importance: FILE\"");
    if (!recipe.importance.empty() && find_method(recipe.pipeline[i].method)->contract.place == Place::model)
      fail("calibration.importance", fmt::format("is of the model as it is, but {} makes another one of it before anything is rounded; leave one of the two out", recipe.pipeline[i].method));
  }
  if (!recipe.importance.empty() && !read) fail("calibration.importance", "no stage reads it; expected rtn with \"importance: true\" in the pipeline");
}

// A linear of any size that nothing in the spec rules out.
StoredScheme any_linear(const QuantSpec& spec, const std::optional<QuantSpec>& activations, const std::vector<StageSpec>& pipeline) {
  StoredScheme linear;
  linear.in_features = std::max<int64_t>(1, spec.group_size) * 1024;
  linear.out_features = std::max<int64_t>(1, spec.heads) * std::max<int64_t>(1, spec.group_size) * 1024;
  StoredForm form = stored_form(pipeline, spec, linear.out_features, linear.in_features);
  linear.weights = meaning_of(form.weights);
  linear.exceptions = form.exceptions;
  linear.made_by = std::move(form.made_by);
  linear.activations = activations;
  return linear;
}

// What the target does not take whatever the model's sizes are, at the key that would have to change.
void check_target(const Recipe& recipe) {
  if (!recipe.target) return;
  const FormatInfo* format = find_format(recipe.target->format);
  const EngineInfo* engine = find_engine(recipe.target->engine);
  if (!format) fail("target.format", unknown_name("format", recipe.target->format, export_formats()));
  if (!engine && !recipe.target->engine.empty()) fail("target.engine", unknown_name("engine", recipe.target->engine, export_engines()));
  if (const auto against = obstacles(*format, engine, {}); !against.empty()) fail("target.engine", against.front());
  const Scheme& scheme = recipe.scheme;
  if (format->codes && !scheme.weights && scheme.overrides.empty() && scheme.activations)
    fail("scheme.activations", fmt::format("{} has no place for quantized activations on weights that stay float; nearest that it can: weights quantized too", format->title));
  if (scheme.kv_cache) {
    const StoredCache cache{*scheme.kv_cache};
    if (const auto against = obstacles(*format, engine, {}, {}, {}, &cache); !against.empty()) fail("scheme.kv_cache", against.front());
  }
  auto check = [&](const QuantSpec& spec, const std::string& key) {
    const bool head = scheme.head && &spec == &*scheme.head, embedding = scheme.embedding && &spec == &*scheme.embedding;
    auto against = [&](const std::vector<StageSpec>& pipeline, const std::optional<QuantSpec>& activations) {
      std::vector<StoredScheme> linears = {head || embedding ? any_linear(spec, {}, {}) : any_linear(spec, activations, pipeline)};
      linears.front().head = head;
      linears.front().embedding = embedding;
      if (scheme.weights && &spec != &*scheme.weights) {
        linears.insert(linears.begin(), any_linear(*scheme.weights, activations, pipeline));
        linears.front().module = "scheme.weights";
        linears.front().input = -1;  // who shares an input with whom is the model's to say
      }
      return obstacles(*format, engine, linears);
    };
    const auto found = against(recipe.pipeline, scheme.activations);
    if (found.empty()) return;
    if (against({}, scheme.activations).empty()) {  // the method leaves something else than the scheme says
      for (size_t i = 0; i < recipe.pipeline.size(); ++i)
        if (find_method(recipe.pipeline[i].method)->contract.leaves.has(Trace::codes)) fail(fmt::format("pipeline[{}].method", i), found.front());
    }
    if (scheme.activations && against({}, std::nullopt).empty()) fail("scheme.activations", found.front());
    fail(key, found.front());
  };
  if (scheme.weights) check(*scheme.weights, "scheme.weights");
  if (scheme.embedding) check(*scheme.embedding, "scheme.embedding");
  if (scheme.head) check(*scheme.head, "scheme.head");
  for (size_t i = 0; i < scheme.overrides.size(); ++i)
    if (scheme.overrides[i].weights) check(*scheme.overrides[i].weights, fmt::format("scheme.overrides[{}].weights", i));
}

void check_evaluation(const EvaluationSpec& spec, const std::string& key) {
  const EvaluatorInfo* evaluator = find_evaluator(spec.evaluator);
  if (!evaluator) fail(key + ".evaluator", unknown_evaluator(spec.evaluator));
  for (const auto& [name, value] : spec.knobs) {
    const KnobInfo* info = find_knob(*evaluator, name);
    if (!info) fail(key + "." + name, fmt::format("{} has no such key", evaluator->name));
    if (const std::string problem = knob_problem(*info, value); !problem.empty()) fail(key + "." + name, problem);
  }
}

}  // namespace

std::map<std::string, KnobValue> all_knobs(const EvaluationSpec& spec) {
  std::map<std::string, KnobValue> all = spec.knobs;
  if (const EvaluatorInfo* evaluator = find_evaluator(spec.evaluator))
    for (const KnobInfo& info : evaluator->knobs) all.try_emplace(info.name, info.default_value);
  return all;
}

KnobValue knob(const EvaluationSpec& spec, const std::string& name) {
  const auto all = all_knobs(spec);
  const auto found = all.find(name);
  if (found == all.end()) throw InternalError(fmt::format("{} has no knob {}", spec.evaluator, name));
  return found->second;
}

bool EvaluationSpec::operator==(const EvaluationSpec& other) const {
  return std::tie(evaluator, corpus, seq_len, windows, dtype, bos) == std::tie(other.evaluator, other.corpus, other.seq_len, other.windows, other.dtype, other.bos) && all_knobs(*this) == all_knobs(other);
}

std::string to_yaml(const Recipe& recipe) { return to_yaml_text(recipe, true); }

void check_consistency(const Recipe& recipe, Mistakes& mistakes) {
  // Checked is what could be read: the rest has its mistake already.
  const auto sound = [read = mistakes](std::initializer_list<const char*> keys) { return std::none_of(keys.begin(), keys.end(), [&](const char* key) { return read.inside(key); }); };
  const auto check = [&](std::initializer_list<const char*> on, auto step) {
    if (sound(on)) mistakes.take(step);
  };
  const Scheme& scheme = recipe.scheme;
  check({"model"}, [&] {
    if (recipe.model.empty()) fail("model.path", "is missing; expected a model folder or .gguf file");
  });
  for (size_t i = 0; i < recipe.evaluation.size(); ++i) {
    const std::string key = fmt::format("evaluation[{}]", i);
    if (sound({key.c_str()})) mistakes.take([&] { check_evaluation(recipe.evaluation[i], key); });
  }
  if (!recipe.checkpoint.empty()) {
    check({"scheme"}, [&] {
      if (!(scheme == Scheme{})) fail("scheme", "a checkpoint has its own: expected none beside \"checkpoint\"");
    });
    check({"pipeline"}, [&] {
      if (!recipe.pipeline.empty()) fail("pipeline", "a checkpoint is quantized already: expected no stages beside \"checkpoint\"");
    });
    check({"target"}, [&] {
      if (recipe.target) fail("target", "a checkpoint has its format already: expected none beside \"checkpoint\"");
    });
    check({"calibration"}, [&] {
      if (!recipe.importance.empty()) fail("calibration.importance", "a checkpoint is quantized already: expected none beside \"checkpoint\"");
    });
    return;
  }
  check({"scheme"}, [&] {
    if (!scheme.weights && !scheme.activations && !scheme.kv_cache && !scheme.has_vocabulary() && scheme.overrides.empty())
      fail("scheme", "quantizes nothing; give weights, activations, kv_cache, embedding or head");
  });
  check({"scheme"}, [&] {
    if (scheme.mix.empty()) return;
    if (!is_mix(scheme.mix)) fail("scheme.mix", fmt::format("expected one of {}, found \"{}\"", fmt::join(mix_names(), ", "), scheme.mix));
    if (scheme.weights != spec_of(first_type(scheme.mix))) fail("scheme.weights", fmt::format("mix {} says which types weights have", scheme.mix));
  });
  check({"scheme.weights"}, [&] {
    if (scheme.weights) validate_spec(*scheme.weights, "scheme.weights", false);
  });
  check({"scheme.activations"}, [&] {
    if (scheme.activations) validate_spec(*scheme.activations, "scheme.activations", true);
  });
  check({"scheme.kv_cache"}, [&] {
    if (scheme.kv_cache) validate_cache(*scheme.kv_cache, "scheme.kv_cache");
  });
  check({"scheme.embedding"}, [&] {
    if (scheme.embedding) validate_spec(*scheme.embedding, "scheme.embedding", false);
  });
  check({"scheme.head"}, [&] {
    if (scheme.head) validate_spec(*scheme.head, "scheme.head", false);
  });
  check({"scheme.head", "scheme.embedding", "scheme.head_rounding", "calibration"}, [&] {
    if (scheme.head_rounding == HeadRounding::rtn) return;
    if (!scheme.has_vocabulary()) fail("scheme.head_rounding", "is of a head in codes: give head, or embedding where the model ties the two");
    if (!recipe.calibration) fail("scheme.head_rounding", "gptq needs a calibration section");
  });
  check({"scheme.kv_cache", "calibration"}, [&] {
    if (scheme.has_static_cache() && !recipe.calibration) fail("scheme.kv_cache.dynamic", "static ranges are taken from calibration text: give a calibration section, or use dynamic ranges");
  });
  check({"scheme.activations", "scheme.weights", "calibration"}, [&] {
    if (!scheme.has_static_activations()) return;
    if (!scheme.weights) fail("scheme.activations.dynamic", "static ranges are stored with codes: give weights too, or use dynamic ranges");
    if (recipe.calibration) return;
    if (scheme.activations->storage != Storage::none) fail("scheme.activations.type", "nvfp4's factor of all inputs is taken from calibration text: give a calibration section");
    fail("scheme.activations.dynamic", "static ranges are taken from calibration text: give a calibration section, or use dynamic ranges");
  });
  for (size_t i = 0; i < scheme.overrides.size(); ++i) {
    const std::string key = fmt::format("scheme.overrides[{}]", i);
    if (sound({key.c_str()})) mistakes.take([&] {
      if (const auto& spec = scheme.overrides[i].weights) validate_spec(*spec, key + ".weights", false);
    });
  }
  const auto check_pattern = [&](const std::string& pattern, const std::string& key) {
    if (sound({key.c_str()})) mistakes.take([&] {
      try {
        matches(pattern, "");
      } catch (const InputError& e) {
        fail(key, e.what());
      }
    });
  };
  for (size_t i = 0; i < scheme.ignore.size(); ++i) check_pattern(scheme.ignore[i], fmt::format("scheme.ignore[{}]", i));
  for (size_t i = 0; i < scheme.overrides.size(); ++i) check_pattern(scheme.overrides[i].match, fmt::format("scheme.overrides[{}].match", i));
  for (size_t i = 0; i < recipe.pipeline.size(); ++i) {
    const std::string key = fmt::format("pipeline[{}]", i);
    if (sound({key.c_str()})) mistakes.take([&] {
      if (const std::string problem = stage_problem(recipe.pipeline[i]); !problem.empty()) fail(key, problem);
      const MethodInfo& method = *find_method(recipe.pipeline[i].method);
      if (method.needs_calibration && !recipe.calibration && sound({"calibration"})) fail(key + ".method", fmt::format("{} needs a calibration section", method.name));
    });
  }
  // What looks at several parts at once takes each of them for sound.
  if (mistakes.inside("pipeline") || mistakes.inside("scheme")) return;
  mistakes.take([&] {
    if (const auto problem = pipeline_problem(recipe.pipeline, scheme)) fail(fmt::format("pipeline[{}].method", problem->stage), problem->what);
  });
  check({"calibration"}, [&] { check_importance(recipe); });
  if (!mistakes.inside("pipeline") && !mistakes.inside("target")) mistakes.take([&] { check_target(recipe); });
}

std::string recipe_hash(const Recipe& recipe) {
  Hasher hasher;
  hasher.update(to_yaml_text(recipe, false));
  return hasher.hex();
}

}  // namespace qb
