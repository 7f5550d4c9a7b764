#include "core/recipe/recipe_read.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <limits>
#include <set>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/exporting/formats.h"
#include "core/quant/mixes.h"

namespace qb {
namespace {

constexpr int64_t kLarge = int64_t{1} << 40;

// A text that must be one of an enumeration's, through its parse function.
template <class T, class Parse>
void read_choice(YamlMap& map, const std::string& key, T& value, Parse parse, const char* expected) {
  const auto text = map.text(key);
  if (!text) return;
  const auto parsed = parse(*text);
  if (!parsed) map.fail(key, fmt::format("expected {}, found \"{}\"", expected, *text));
  value = *parsed;
}

constexpr const char* kTypes = "int1 … int8, a float such as e4m3, or a storage type such as q4_K or nvfp4";

enum class Role { weights, activations, cache };

QuantSpec read_spec(YamlMap map, Role role) {
  const bool activations = role != Role::weights;
  QuantSpec spec;
  if (role == Role::activations) spec.granularity = Granularity::token;
  if (role == Role::cache) spec = default_cache_spec();
  if (!map.has("type")) map.fail("type", fmt::format("is missing; expected {}", kTypes));
  if (const auto storage = parse_storage(map.text("type").value_or(""))) {
    if (role == Role::cache) map.fail("type", cache_misfit(spec_of(*storage), 1));
    spec = activations ? input_spec_of(*storage) : spec_of(*storage);
    if (const std::string problem = activations ? activation_misfit(spec, spec.group_size) : ""; !problem.empty()) map.fail("type", problem);
  } else {
    read_choice(map, "type", spec.type, [](const std::string& t) { return NumberType::parse(t); }, kTypes);
  }
  const QuantSpec fixed = spec;
  spec.symmetric = map.boolean("symmetric").value_or(spec.symmetric);
  read_choice(map, "granularity", spec.granularity, parse_granularity, "tensor, channel, group, block, token or head");
  spec.group_size = map.integer("group_size", 1, 1 << 20).value_or(spec.group_size);
  spec.block_rows = map.integer("block_rows", 1, 1 << 20).value_or(spec.block_rows);
  spec.block_cols = map.integer("block_cols", 1, 1 << 20).value_or(spec.block_cols);
  spec.heads = map.integer("heads", 0, 1 << 16).value_or(spec.heads);
  spec.round_zero_point = map.boolean("round_zero_point").value_or(spec.round_zero_point);
  spec.narrow_range = map.boolean("narrow_range").value_or(spec.narrow_range);
  spec.full_scale = map.boolean("full_scale").value_or(spec.full_scale);
  read_choice(map, "scale_type", spec.scale_type, parse_scale_type, "float32, float16 or bfloat16");
  spec.scale_type_open = !activations && spec.storage == Storage::none && !map.has("scale_type");
  read_choice(map, "range", spec.range, parse_range_method, "minmax, mse or hqq");
  spec.mse_grid = map.integer("mse_grid", 1, 10000).value_or(spec.mse_grid);
  spec.mse_max_shrink = map.real("mse_max_shrink", 0, 0.999).value_or(spec.mse_max_shrink);
  spec.mse_norm = map.real("mse_norm", 0.1, 10).value_or(spec.mse_norm);
  spec.hqq_norm = map.real("hqq_norm", 0.05, 1).value_or(spec.hqq_norm);
  spec.hqq_beta = map.real("hqq_beta", 1e-6, 1e6).value_or(spec.hqq_beta);
  spec.hqq_kappa = map.real("hqq_kappa", 1, 100).value_or(spec.hqq_kappa);
  spec.hqq_iterations = map.integer("hqq_iterations", 0, 1000).value_or(spec.hqq_iterations);
  if (activations) spec.dynamic = map.boolean("dynamic").value_or(spec.dynamic);
  map.finish();
  if (fixed.storage == Storage::none) return spec;
  // What the type fixes may be said, not changed.
  auto same = [&](const char* key, const auto& given, const auto& fixed_to) {
    if (given != fixed_to) map.fail(key, fmt::format("{} fixes it: leave it out", type_text(fixed)));
  };
  same("symmetric", spec.symmetric, fixed.symmetric);
  same("granularity", spec.granularity, fixed.granularity);
  if (spec.group_size != fixed.group_size) map.fail("group_size", fmt::format("{} has groups of {}, found {}", type_text(fixed), fixed.group_size, spec.group_size));
  same("block_rows", spec.block_rows, fixed.block_rows);
  same("block_cols", spec.block_cols, fixed.block_cols);
  same("heads", spec.heads, fixed.heads);
  same("round_zero_point", spec.round_zero_point, fixed.round_zero_point);
  same("narrow_range", spec.narrow_range, fixed.narrow_range);
  same("full_scale", spec.full_scale, fixed.full_scale);
  same("scale_type", spec.scale_type, fixed.scale_type);
  same("dynamic", spec.dynamic, fixed.dynamic);
  for (const char* key : {"mse_grid", "mse_max_shrink", "mse_norm"})
    if (map.has(key)) map.fail(key, fmt::format("{} has a search of its own", type_text(fixed)));
  return spec;
}

std::optional<QuantSpec> read_optional_spec(YamlMap& map, const std::string& key, Role role) {
  const YAML::Node node = map.node(key);
  if (!node.IsDefined() || node.IsNull() || (node.IsScalar() && node.Scalar() == "float")) return std::nullopt;
  return read_spec(YamlMap(node, map.place(key)), role);
}

KnobValue read_knob(YamlMap& map, const KnobInfo& knob) {
  KnobValue value;
  switch (knob.type) {
    case KnobType::boolean: value = *map.boolean(knob.name); break;
    case KnobType::integer: value = *map.integer(knob.name, std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()); break;
    case KnobType::real: value = *map.real(knob.name, -std::numeric_limits<double>::max(), std::numeric_limits<double>::max()); break;
    case KnobType::choice: value = *map.text(knob.name); break;
  }
  if (const std::string problem = knob_problem(knob, value); !problem.empty()) map.fail(knob.name, problem);
  return value;
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

[[noreturn]] void fail_merge(const YAML::Mark& mark, const std::string& what) { throw RecipeError("", mark.line + 1, mark.column + 1, "", "merge key \"<<\": " + what); }

// Puts what "<<" names into the mappings that name it, where they do not say otherwise themselves; of several mappings the first
// wins. Entries keep the place where they stand. Aliases share nodes, which are told apart by their place in the text.
class Merges {
 public:
  void resolve(YAML::Node node, int depth = 0) {
    if (depth > 64 || !(node.IsMap() || node.IsSequence())) return;
    const std::pair<bool, int> place(node.IsMap(), node.Mark().pos);
    if (!seen_.insert(place).second) return;
    if (node.IsSequence()) {
      for (auto item : node) resolve(item, depth + 1);
      return;
    }
    YAML::Node merged;
    YAML::Mark here;
    for (const auto& entry : node) {
      if (!is_merge(entry.first)) continue;
      if (merged.IsMap() || merged.IsSequence()) fail_merge(entry.first.Mark(), "stands twice; expected one list of mappings");
      merged.reset(entry.second);
      here = entry.first.Mark();
      if (!merged.IsMap() && !merged.IsSequence()) fail_merge(here, "expected a mapping such as *base, or a list of them");
    }
    open_.insert(place);
    for (const auto& entry : node) resolve(entry.second, depth + 1);
    if (merged.IsMap() || merged.IsSequence()) {
      node.remove("<<");
      if (merged.IsMap())
        take(node, merged, here);
      else
        for (const auto& each : merged) take(node, each, here);
    }
    open_.erase(place);
  }

 private:
  static bool is_merge(const YAML::Node& key) { return key.IsScalar() && key.Scalar() == "<<" && key.Tag() != "!"; }  // quoted, it is a key

  void take(YAML::Node& into, const YAML::Node& from, const YAML::Mark& mark) {
    if (!from.IsMap()) fail_merge(mark, "expected a mapping such as *base, or a list of them");
    if (open_.count({true, from.Mark().pos})) fail_merge(mark, "a mapping cannot be merged into itself");
    for (const auto& entry : from) {
      if (!entry.first.IsScalar()) fail_merge(mark, "the mapping that it names has a key that is no text");
      if (!std::as_const(into)[entry.first.Scalar()].IsDefined()) into.force_insert(entry.first, entry.second);
    }
  }

  std::set<std::pair<bool, int>> seen_, open_;
};

// Parsers say of a tab that some other token is missing: the tab before the place where they gave up, in a line's indentation.
Position indenting_tab(const std::string& yaml, int until) {
  Position found{0, 0};
  int line = 1;
  for (size_t start = 0; start < yaml.size() && line <= until; ++line) {
    const size_t end = std::min(yaml.find('\n', start), yaml.size());
    for (size_t at = start; at < end && (yaml[at] == ' ' || yaml[at] == '\t' || (yaml[at] == '-' && at + 1 < end && (yaml[at + 1] == ' ' || yaml[at + 1] == '\t'))); ++at)
      if (yaml[at] == '\t') {
        found = {line, static_cast<int>(at - start) + 1};
        break;
      }
    start = end + 1;
  }
  return found;
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
  if (scheme.mix.empty()) scheme.weights = read_optional_spec(map, "weights", Role::weights);
  scheme.activations = read_optional_spec(map, "activations", Role::activations);
  scheme.kv_cache = read_optional_spec(map, "kv_cache", Role::cache);
  scheme.embedding = read_optional_spec(map, "embedding", Role::weights);
  scheme.head = read_optional_spec(map, "head", Role::weights);
  read_choice(map, "head_rounding", scheme.head_rounding, parse_head_rounding, "rtn or gptq");
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
    override.weights = read_optional_spec(entry, "weights", Role::weights);
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
        if (KnobValue value = read_knob(map, knob); value != knob.default_value) stage.knobs[knob.name] = std::move(value);
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
    try {
      if (yaml.find("<<") != std::string::npos) Merges().resolve(documents[0]);
    } catch (const RecipeError& e) {
      throw RecipeError(origin, e.line(), e.column(), "", e.detail());
    }
    return documents[0];
  } catch (const YAML::Exception& e) {
    if (const Position tab = indenting_tab(yaml, e.mark.line + 1); tab.line > 0) throw RecipeError(origin, tab.line, tab.column, "", "not valid YAML: a tab, expected spaces");
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
    const YAML::Node root = YAML::Load(yaml);
    if (yaml.find("<<") != std::string::npos) Merges().resolve(root);
    walk(root, "", positions, 0);
  } catch (const YAML::Exception&) {
    return {};
  } catch (const RecipeError&) {  // of a merge key, which has its own place
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
