#include "core/recipe/recipe_read.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <limits>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/exporting/formats.h"
#include "core/quant/mixes.h"
#include "core/quant/spec_fields.h"

namespace qb {
namespace {

constexpr int64_t kLarge = int64_t{1} << 40;

KnobValue read_knob(YamlMap& map, const KnobInfo& knob) {
  KnobValue value;
  switch (knob.type) {
    case KnobType::boolean: value = *map.boolean(knob.name); break;
    case KnobType::integer: value = *map.integer(knob.name, std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()); break;
    case KnobType::real: value = *map.real(knob.name, -std::numeric_limits<double>::max(), std::numeric_limits<double>::max()); break;
    case KnobType::choice: value = *map.text(knob.name); break;
  }
  return value;
}

KnobValue read_valid_knob(YamlMap& map, const KnobInfo& knob) {
  const KnobValue value = read_knob(map, knob);
  if (const std::string problem = knob_problem(knob, value); !problem.empty()) map.fail(knob.name, problem);
  return value;
}

void read_field(YamlMap& map, const SpecField& field, QuantSpec& spec) {
  if (field.knob.type != KnobType::choice) {
    field.set(spec, read_valid_knob(map, field.knob));
    return;
  }
  const KnobValue value = read_knob(map, field.knob);
  if (to_text(value).empty() || !field.set(spec, value)) map.fail(field.knob.name, fmt::format("expected {}, found \"{}\"", field.expected, to_text(value)));
}

QuantSpec read_spec(YamlMap map, SpecRole role) {
  const std::vector<SpecField>& fields = spec_fields(role);
  QuantSpec spec = default_spec(role);
  if (!map.has("type")) map.fail("type", fmt::format("is missing; expected {}", fields.front().expected));
  if (const auto storage = parse_storage(map.text("type").value_or(""))) {
    if (role == SpecRole::cache) map.fail("type", cache_misfit(spec_of(*storage), 1));
    const QuantSpec given = input_spec_of(*storage);
    if (const std::string problem = role == SpecRole::activations ? activation_misfit(given, given.group_size) : ""; !problem.empty()) map.fail("type", problem);
  }
  read_field(map, fields.front(), spec);
  const QuantSpec fixed = spec;
  for (const SpecField& field : fields) {
    map.node(field.knob.name);  // known, whether it stands there or not
    if (&field == &fields.front() || !map.has(field.knob.name)) continue;
    read_field(map, field, spec);
    if (fixed.storage == Storage::none || field.by_type == SpecField::ByType::free) continue;
    // What the type fixes may be said, not changed.
    if (field.by_type == SpecField::ByType::own_search) map.fail(field.knob.name, fmt::format("{} has a search of its own", type_text(fixed)));
    const KnobValue given = field.get(spec), by_type = field.get(fixed);
    if (given != by_type) map.fail(field.knob.name, fmt::format("{} fixes it at {}, found {}: leave it out", type_text(fixed), to_text(by_type), to_text(given)));
  }
  map.finish();
  return spec;
}

std::optional<QuantSpec> read_optional_spec(YamlMap& map, const std::string& key, SpecRole role) {
  const YAML::Node node = map.node(key);
  if (!node.IsDefined() || node.IsNull() || (node.IsScalar() && node.Scalar() == "float")) return std::nullopt;
  return read_spec(YamlMap(node, map.place(key)), role);
}

std::filesystem::path resolve(const std::string& text, const std::filesystem::path& base) {
  const std::filesystem::path path = text;
  return base.empty() || path.is_absolute() || text.empty() ? path : (base / path).lexically_normal();
}

// The corpus keys stand beside the other keys of their section.
CorpusSpec read_corpus(YamlMap& map, const std::filesystem::path& base) {
  CorpusSpec corpus;
  const auto path = map.text("corpus");
  if (!path || path->empty()) map.fail("corpus", "is missing; expected a text file, a .jsonl or .json file, or a folder of them");
  corpus.path = resolve(*path, base);
  corpus.name = map.text("name").value_or("");
  corpus.field = map.text("field").value_or(corpus.field);
  return corpus;
}

std::optional<Bos> read_bos(YamlMap& map) {
  const auto text = map.text("bos");
  if (!text) return std::nullopt;
  const auto bos = parse_bos(*text);
  if (!bos) map.fail("bos", fmt::format("expected tokenizer, every_window or none, found \"{}\"", *text));
  return bos;
}

std::string read_dtype(YamlMap& map, const std::string& otherwise) {
  const std::string dtype = map.text("dtype").value_or(otherwise);
  if (dtype != "float32" && dtype != "bfloat16") map.fail("dtype", fmt::format("expected float32 or bfloat16, found \"{}\"", dtype));
  return dtype;
}

// A text, a file of the inputs' mean squares, or both.
void read_calibration(YamlMap map, const std::filesystem::path& base, Recipe& recipe) {
  if (const auto file = map.text("importance")) {
    if (file->empty()) map.fail("importance", "expected a file, as \"qbench imatrix\" or llama.cpp writes it");
    recipe.importance = resolve(*file, base);
  }
  if (!recipe.importance.empty() && !map.has("corpus")) {
    for (const char* key : {"name", "field", "sampling", "samples", "seq_len", "seed", "bos"})
      if (map.has(key)) map.fail(key, "is of a text: leave it out, or give a corpus beside the importance matrix");
    map.finish();
    return;
  }
  CalibrationSpec& spec = recipe.calibration.emplace();
  spec.corpus = read_corpus(map, base);
  if (const auto sampling = map.text("sampling")) {
    const auto& names = sampling_names();
    if (std::find(names.begin(), names.end(), *sampling) == names.end())
      map.fail("sampling", fmt::format("expected one of {}, found \"{}\"", fmt::join(names, ", "), *sampling));
    spec.sampling.sampling = *sampling;
  }
  spec.sampling.samples = map.integer("samples", 1, kLarge).value_or(spec.sampling.samples);
  spec.sampling.seq_len = map.integer("seq_len", 1, kLarge).value_or(spec.sampling.seq_len);
  spec.sampling.seed = map.unsigned_integer("seed").value_or(spec.sampling.seed);
  spec.sampling.bos = read_bos(map);
  map.finish();
}

EvaluationSpec read_evaluation(YamlMap map, const std::filesystem::path& base) {
  EvaluationSpec spec;
  spec.corpus = read_corpus(map, base);
  spec.seq_len = map.integer("seq_len", 2, kLarge).value_or(spec.seq_len);
  spec.windows = map.integer("windows", 0, kLarge).value_or(spec.windows);
  spec.dtype = read_dtype(map, spec.dtype);
  spec.bos = read_bos(map);
  map.finish();
  return spec;
}

std::optional<TargetSpec> read_target(YamlMap& map) {
  auto target = map.map("target");
  if (!target) return std::nullopt;
  TargetSpec spec{target->text("format").value_or(""), target->text("engine").value_or("")};
  if (spec.format.empty()) target->fail("format", fmt::format("is missing; expected one of {}", known_format_names()));
  target->finish();
  return spec;
}

Recipe read_recipe(const YAML::Node& root, const std::filesystem::path& base) {
  Recipe recipe;
  YamlMap map(root, "");
  recipe.name = map.text("name").value_or("");
  recipe.description = map.text("description").value_or("");
  if (!map.has("model")) map.fail("model", "is missing; expected the path of a model folder or .gguf file");
  if (map.node("model").IsScalar()) {
    recipe.model = resolve(*map.text("model"), base);
  } else {
    YamlMap model = *map.map("model");
    const auto path = model.text("path");
    if (!path || path->empty()) model.fail("path", "is missing; expected a model folder or .gguf file");
    recipe.model = resolve(*path, base);
    recipe.dtype = read_dtype(model, recipe.dtype);
    recipe.dequantize = model.boolean("dequantize").value_or(false);
    model.finish();
  }
  if (auto calibration = map.map("calibration")) read_calibration(*calibration, base, recipe);
  recipe.target = read_target(map);
  if (const auto checkpoint = map.text("checkpoint")) recipe.checkpoint = resolve(*checkpoint, base);
  if (!map.has("scheme") && recipe.checkpoint.empty()) map.fail("scheme", "is missing; expected what to quantize (weights, activations, kv_cache)");
  if (auto scheme = map.map("scheme")) recipe.scheme = read_scheme(*scheme);
  recipe.pipeline = read_pipeline(map.list("pipeline"), "pipeline");
  recipe.propagate_quantized = map.boolean("propagate_quantized").value_or(recipe.propagate_quantized);
  const auto evaluation = map.list("evaluation");
  for (size_t i = 0; i < evaluation.size(); ++i) recipe.evaluation.push_back(read_evaluation(YamlMap(evaluation[i], fmt::format("evaluation[{}]", i)), base));
  recipe.evaluate_float = map.boolean("evaluate_float").value_or(recipe.evaluate_float);
  recipe.seed = map.unsigned_integer("seed").value_or(recipe.seed);
  map.finish();
  return recipe;
}

// Aliases let a few lines stand for billions of nodes: the walk ends where no recipe reaches.
constexpr size_t kMostPositions = 20000;

void walk(const YAML::Node& node, const std::string& key, std::map<std::string, Position>& positions, int depth) {
  if (depth > 32 || positions.size() > kMostPositions) return;
  auto put = [&](const std::string& name, const YAML::Mark& mark) {
    if (mark.line >= 0) positions.try_emplace(name, Position{mark.line + 1, mark.column + 1});
  };
  if (node.IsMap())
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) continue;
      const std::string name = key.empty() ? entry.first.Scalar() : key + "." + entry.first.Scalar();
      // The second of two equal keys is the one to point at.
      if (positions.count(name)) positions.erase(name);
      put(name, entry.first.Mark());
      walk(entry.second, name, positions, depth + 1);
    }
  if (node.IsSequence())
    for (size_t i = 0; i < node.size(); ++i) {
      const std::string name = fmt::format("{}[{}]", key, i);
      put(name, node[i].Mark());
      walk(node[i], name, positions, depth + 1);
    }
}

}  // namespace

Scheme read_scheme(YamlMap map) {
  Scheme scheme;
  if (const auto mix = map.text("mix")) {
    if (!is_mix(*mix)) map.fail("mix", fmt::format("expected one of {}, found \"{}\"", fmt::join(mix_names(), ", "), *mix));
    if (map.has("weights")) map.fail("weights", fmt::format("mix {} says which types weights have: leave it out, or leave out mix", mix_name(*mix)));
    scheme.mix = mix_name(*mix);
    scheme.weights = spec_of(first_type(*mix));
  }
  if (scheme.mix.empty()) scheme.weights = read_optional_spec(map, "weights", SpecRole::weights);
  scheme.activations = read_optional_spec(map, "activations", SpecRole::activations);
  scheme.kv_cache = read_optional_spec(map, "kv_cache", SpecRole::cache);
  const auto ignore = map.list("ignore");
  for (size_t i = 0; i < ignore.size(); ++i) {
    if (!ignore[i].IsScalar()) fail_at(fmt::format("{}[{}]", map.place("ignore"), i), "expected a pattern such as \"*.down_proj\"");
    scheme.ignore.push_back(ignore[i].Scalar());
  }
  const auto overrides = map.list("overrides");
  for (size_t i = 0; i < overrides.size(); ++i) {
    YamlMap entry(overrides[i], fmt::format("{}[{}]", map.place("overrides"), i));
    SchemeOverride override;
    const auto match = entry.text("match");
    if (!match || match->empty()) entry.fail("match", "is missing; expected a pattern such as \"*.down_proj\"");
    override.match = *match;
    if (!entry.has("weights")) entry.fail("weights", "is missing; expected a quantization, or \"float\"");
    override.weights = read_optional_spec(entry, "weights", SpecRole::weights);
    entry.finish();
    scheme.overrides.push_back(std::move(override));
  }
  map.finish();
  return scheme;
}

std::vector<StageSpec> read_pipeline(const std::vector<YAML::Node>& list, const std::string& place) {
  std::vector<StageSpec> pipeline;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", place, i);
    StageSpec stage;
    if (list[i].IsScalar()) {  // "- rtn" stands for "- method: rtn"
      stage.method = list[i].Scalar();
      if (const std::string problem = stage_problem(stage); !problem.empty()) fail_at(at, problem);
    } else {
      YamlMap map(list[i], at);
      stage.method = map.text("method").value_or("");
      const MethodInfo* method = find_method(stage.method);
      if (stage.method.empty()) map.fail("method", "is missing");
      if (!method) map.fail("method", stage_problem(stage));
      for (const KnobInfo& knob : method->knobs) {
        if (!map.has(knob.name)) {
          map.node(knob.name);
          continue;
        }
        // A default written out and one left out are the same recipe.
        if (KnobValue value = read_valid_knob(map, knob); value != knob.default_value) stage.knobs[knob.name] = std::move(value);
      }
      map.finish();
    }
    pipeline.push_back(std::move(stage));
  }
  return pipeline;
}

YAML::Node load_document(const std::string& yaml, const std::string& origin) {
  constexpr size_t kLimit = 4 << 20;
  if (yaml.size() > kLimit) throw RecipeError(origin, 0, 0, "", fmt::format("{} bytes, expected a recipe of at most {}", yaml.size(), kLimit));
  // yaml-cpp's parser recurses: refuse nesting that no recipe has before it meets it.
  int depth = 0, deepest = 0;
  for (char c : yaml) {
    if (c == '[' || c == '{') deepest = std::max(deepest, ++depth);
    if (c == ']' || c == '}') --depth;
  }
  if (deepest > 64) throw RecipeError(origin, 0, 0, "", fmt::format("brackets nested {} deep, expected at most 64", deepest));
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(yaml);
    if (documents.size() > 1) throw RecipeError(origin, documents[1].Mark().line + 1, 1, "", fmt::format("{} YAML documents, expected one", documents.size()));
    if (documents.empty() || documents[0].IsNull()) throw RecipeError(origin, 0, 0, "", "is empty");
    return documents[0];
  } catch (const YAML::Exception& e) {
    throw RecipeError(origin, e.mark.line + 1, e.mark.column + 1, "", "not valid YAML: " + e.msg);
  }
}

Recipe parse_recipe(const std::string& yaml, const std::string& origin, const std::filesystem::path& base) {
  const YAML::Node root = load_document(yaml, origin);
  return with_positions(yaml, origin, [&] {
    Recipe recipe = read_recipe(root, base);
    check_consistency(recipe);
    return recipe;
  });
}

void validate(const Recipe& recipe) {
  // Ranges and choices stand once, where recipes are read.
  read_recipe(load_document(to_yaml(recipe), "recipe"), {});
  check_consistency(recipe);
}

Recipe load_recipe(const std::filesystem::path& path) {
  Recipe recipe = parse_recipe(read_text(path, 4 << 20), path.string(), std::filesystem::absolute(path).parent_path());
  if (recipe.name.empty()) recipe.name = path.stem().string();
  return recipe;
}

Position position_of(const std::string& yaml, const std::string& key) {
  std::map<std::string, Position> positions;
  try {
    walk(YAML::Load(yaml), "", positions, 0);
  } catch (const YAML::Exception&) {
    return {};
  }
  for (std::string name = key; !name.empty();) {
    if (const auto it = positions.find(name); it != positions.end()) return it->second;
    const size_t cut = name.find_last_of(".[");
    if (cut == std::string::npos) break;
    name.resize(cut);
  }
  return {1, 1};
}

}  // namespace qb
