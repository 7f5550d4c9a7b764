#include "core/recipe/recipe_read.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <set>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/exporting/formats.h"
#include "core/measure/evaluators.h"
#include "core/quant/mixes.h"
#include "core/quant/spec_fields.h"
#include "core/recipe/recipe_mistakes.h"

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

QuantSpec read_spec(YamlMap map, SpecRole role, Mistakes& mistakes) {
  const std::vector<SpecField>& fields = spec_fields(role);
  QuantSpec spec = default_spec(role);
  mistakes.take([&] {
    const std::string text = map.text("type").value_or("");
    if (!map.has("type")) map.fail("type", fmt::format("is missing; expected {}", fields.front().expected));
    if (const auto storage = parse_storage(text)) {
      if (role == SpecRole::cache) map.fail("type", cache_misfit(spec_of(*storage), 1));
      const QuantSpec given = input_spec_of(*storage);
      if (const std::string problem = role == SpecRole::activations ? activation_misfit(given, given.group_size) : ""; !problem.empty()) map.fail("type", problem);
    }
    read_field(map, fields.front(), spec);
  });
  const QuantSpec fixed = spec;
  for (const SpecField& field : fields) {
    map.node(field.knob.name);  // known, whether it stands there or not
    if (&field == &fields.front() || !map.has(field.knob.name)) continue;
    mistakes.take([&] {
      read_field(map, field, spec);
      if (fixed.storage == Storage::none || field.by_type == SpecField::ByType::free) return;
      // What the type fixes may be said, not changed.
      if (field.by_type == SpecField::ByType::own_search) map.fail(field.knob.name, fmt::format("{} has a search of its own", type_text(fixed)));
      const KnobValue given = field.get(spec), by_type = field.get(fixed);
      field.set(spec, by_type);
      if (given != by_type) map.fail(field.knob.name, fmt::format("{} fixes it at {}, found {}: leave it out", type_text(fixed), to_text(by_type), to_text(given)));
    });
  }
  mistakes.unknown_keys(map);
  return spec;
}

// What cannot be read stands for a quantization all the same: the mistake is told once.
std::optional<QuantSpec> read_optional_spec(YamlMap& map, const std::string& key, SpecRole role, Mistakes& mistakes) {
  const YAML::Node node = map.node(key);
  if (!node.IsDefined() || node.IsNull() || (node.IsScalar() && node.Scalar() == "float")) return std::nullopt;
  QuantSpec spec = default_spec(role);
  mistakes.take([&] { spec = read_spec(YamlMap(node, map.place(key)), role, mistakes); });
  return spec;
}

std::filesystem::path resolve(const std::string& text, const std::filesystem::path& base) {
  const std::filesystem::path path = text;
  return base.empty() || path.is_absolute() || text.empty() ? path : (base / path).lexically_normal();
}

template <class T>
void put(T& value, std::optional<T> found) {
  if (found) value = std::move(*found);
}

// The corpus keys stand beside the other keys of their section.
void read_corpus(YamlMap& map, const std::filesystem::path& base, CorpusSpec& corpus, Mistakes& mistakes) {
  mistakes.take([&] {
    const auto path = map.text("corpus");
    if (!path || path->empty()) map.fail("corpus", "is missing; expected a text file, a .jsonl or .json file, or a folder of them");
    corpus.path = resolve(*path, base);
  });
  mistakes.take([&] { put(corpus.name, map.text("name")); });
  mistakes.take([&] { put(corpus.field, map.text("field")); });
}

std::optional<Bos> read_bos(YamlMap& map) {
  const auto text = map.text("bos");
  if (!text) return std::nullopt;
  const auto bos = parse_bos(*text);
  if (!bos) map.fail("bos", fmt::format("expected tokenizer, every_window or none, found \"{}\"", *text));
  return bos;
}

void read_dtype(YamlMap& map, std::string& dtype) {
  const std::string found = map.text("dtype").value_or(dtype);
  if (found != "float32" && found != "bfloat16") map.fail("dtype", fmt::format("expected float32 or bfloat16, found \"{}\"", found));
  dtype = found;
}

// A text, a file of the inputs' mean squares, or both.
void read_calibration(YamlMap map, const std::filesystem::path& base, Recipe& recipe, Mistakes& mistakes) {
  mistakes.take([&] {
    const auto file = map.text("importance");
    if (!file) return;
    if (file->empty()) map.fail("importance", "expected a file, as \"qbench imatrix\" or llama.cpp writes it");
    recipe.importance = resolve(*file, base);
  });
  if (!recipe.importance.empty() && !map.has("corpus")) {
    for (const char* key : {"name", "field", "sampling", "samples", "seq_len", "seed", "bos"}) {
      map.node(key);
      if (map.has(key)) mistakes.take([&] { map.fail(key, "is of a text: leave it out, or give a corpus beside the importance matrix"); });
    }
    mistakes.unknown_keys(map);
    return;
  }
  CalibrationSpec& spec = recipe.calibration.emplace();
  SamplingSpec& sampling = spec.sampling;
  read_corpus(map, base, spec.corpus, mistakes);
  mistakes.take([&] {
    const auto text = map.text("sampling");
    if (!text) return;
    const auto& names = sampling_names();
    if (std::find(names.begin(), names.end(), *text) == names.end()) map.fail("sampling", fmt::format("expected one of {}, found \"{}\"", fmt::join(names, ", "), *text));
    sampling.sampling = *text;
  });
  mistakes.take([&] { put(sampling.samples, map.integer("samples", 1, kLarge)); });
  mistakes.take([&] { put(sampling.seq_len, map.integer("seq_len", 1, kLarge)); });
  mistakes.take([&] { put(sampling.seed, map.unsigned_integer("seed")); });
  mistakes.take([&] { sampling.bos = read_bos(map); });
  mistakes.unknown_keys(map);
}

EvaluationSpec read_evaluation(YamlMap map, const std::filesystem::path& base, Mistakes& mistakes) {
  EvaluationSpec spec;
  const EvaluatorInfo* evaluator = find_evaluator(spec.evaluator);
  mistakes.take([&] {
    put(spec.evaluator, map.text("evaluator"));
    if (const EvaluatorInfo* named = find_evaluator(spec.evaluator))
      evaluator = named;
    else
      map.fail("evaluator", unknown_evaluator(spec.evaluator));
  });
  read_corpus(map, base, spec.corpus, mistakes);
  if (evaluator->data == EvaluationData::text) {
    mistakes.take([&] { put(spec.seq_len, map.integer("seq_len", 2, kLarge)); });
    mistakes.take([&] { put(spec.windows, map.integer("windows", 0, kLarge)); });
  }
  mistakes.take([&] { read_dtype(map, spec.dtype); });
  if (evaluator->data == EvaluationData::text) mistakes.take([&] { spec.bos = read_bos(map); });
  for (const KnobInfo& knob : evaluator->knobs)
    mistakes.take([&] {
      if (map.has(knob.name)) spec.knobs[knob.name] = read_valid_knob(map, knob);
    });
  mistakes.unknown_keys(map);
  return spec;
}

void read_model(YamlMap model, const std::filesystem::path& base, Recipe& recipe, Mistakes& mistakes) {
  mistakes.take([&] {
    const auto path = model.text("path");
    if (!path || path->empty()) model.fail("path", "is missing; expected a model folder or .gguf file");
    recipe.model = resolve(*path, base);
  });
  mistakes.take([&] { read_dtype(model, recipe.dtype); });
  mistakes.take([&] { put(recipe.dequantize, model.boolean("dequantize")); });
  mistakes.unknown_keys(model);
}

void read_target(YamlMap target, Recipe& recipe, Mistakes& mistakes) {
  TargetSpec& spec = recipe.target.emplace();
  mistakes.take([&] {
    put(spec.format, target.text("format"));
    if (spec.format.empty()) target.fail("format", fmt::format("is missing; expected one of {}", known_format_names()));
  });
  mistakes.take([&] { put(spec.engine, target.text("engine")); });
  mistakes.unknown_keys(target);
}

Recipe read_recipe(YamlMap map, const std::filesystem::path& base, Mistakes& mistakes) {
  Recipe recipe;
  mistakes.take([&] { put(recipe.name, map.text("name")); });
  mistakes.take([&] { put(recipe.description, map.text("description")); });
  mistakes.take([&] {
    if (!map.has("model")) map.fail("model", "is missing; expected the path of a model folder or .gguf file");
    if (map.node("model").IsScalar())
      recipe.model = resolve(*map.text("model"), base);
    else
      read_model(*map.map("model"), base, recipe, mistakes);
  });
  mistakes.take([&] {
    if (auto calibration = map.map("calibration")) read_calibration(*calibration, base, recipe, mistakes);
  });
  mistakes.take([&] {
    if (auto target = map.map("target")) read_target(*target, recipe, mistakes);
  });
  mistakes.take([&] {
    if (const auto checkpoint = map.text("checkpoint")) recipe.checkpoint = resolve(*checkpoint, base);
  });
  mistakes.take([&] {
    if (!map.has("scheme") && recipe.checkpoint.empty()) map.fail("scheme", "is missing; expected what to quantize (weights, activations, kv_cache)");
    if (auto scheme = map.map("scheme")) recipe.scheme = read_scheme(*scheme, mistakes);
  });
  mistakes.take([&] { recipe.pipeline = read_pipeline(map.list("pipeline"), "pipeline", mistakes); });
  mistakes.take([&] { put(recipe.propagate_quantized, map.boolean("propagate_quantized")); });
  mistakes.take([&] {
    const auto evaluation = map.list("evaluation");
    for (size_t i = 0; i < evaluation.size(); ++i) {
      EvaluationSpec& spec = recipe.evaluation.emplace_back();
      mistakes.take([&] { spec = read_evaluation(YamlMap(evaluation[i], fmt::format("evaluation[{}]", i)), base, mistakes); });
    }
  });
  mistakes.take([&] { put(recipe.evaluate_float, map.boolean("evaluate_float")); });
  mistakes.take([&] { put(recipe.seed, map.unsigned_integer("seed")); });
  for (const char* key : {"model", "calibration", "target", "checkpoint", "scheme", "pipeline", "evaluation"}) map.node(key);  // known, whatever came of them
  mistakes.unknown_keys(map);
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

bool Mistakes::inside(const std::string& key) const {
  return std::any_of(all_.begin(), all_.end(), [&](const RecipeError& e) { return e.key().compare(0, key.size(), key) == 0 && (e.key().size() == key.size() || e.key()[key.size()] == '.' || e.key()[key.size()] == '['); });
}

Scheme read_scheme(YamlMap map, Mistakes& mistakes) {
  Scheme scheme;
  mistakes.take([&] {
    const auto mix = map.text("mix");
    if (!mix) return;
    if (!is_mix(*mix)) map.fail("mix", fmt::format("expected one of {}, found \"{}\"", fmt::join(mix_names(), ", "), *mix));
    scheme.mix = mix_name(*mix);
    scheme.weights = spec_of(first_type(*mix));
    if (map.has("weights")) map.fail("weights", fmt::format("mix {} says which types weights have: leave it out, or leave out mix", mix_name(*mix)));
  });
  if (scheme.mix.empty()) scheme.weights = read_optional_spec(map, "weights", SpecRole::weights, mistakes);
  map.node("weights");
  scheme.activations = read_optional_spec(map, "activations", SpecRole::activations, mistakes);
  scheme.kv_cache = read_optional_spec(map, "kv_cache", SpecRole::cache, mistakes);
  scheme.embedding = read_optional_spec(map, "embedding", SpecRole::weights, mistakes);
  scheme.head = read_optional_spec(map, "head", SpecRole::weights, mistakes);
  mistakes.take([&] {
    const auto text = map.text("head_rounding");
    if (!text) return;
    const auto rounding = parse_head_rounding(*text);
    if (!rounding) map.fail("head_rounding", fmt::format("expected rtn or gptq, found \"{}\"", *text));
    scheme.head_rounding = *rounding;
  });
  mistakes.take([&] {
    const auto ignore = map.list("ignore");
    for (size_t i = 0; i < ignore.size(); ++i)
      mistakes.take([&] {
        if (!ignore[i].IsScalar()) fail_at(fmt::format("{}[{}]", map.place("ignore"), i), "expected a pattern such as \"*.down_proj\"");
        scheme.ignore.push_back(ignore[i].Scalar());
      });
  });
  mistakes.take([&] {
    const auto overrides = map.list("overrides");
    for (size_t i = 0; i < overrides.size(); ++i)
      mistakes.take([&] {
        YamlMap entry(overrides[i], fmt::format("{}[{}]", map.place("overrides"), i));
        SchemeOverride& override = scheme.overrides.emplace_back();
        mistakes.take([&] {
          const auto match = entry.text("match");
          if (!match || match->empty()) entry.fail("match", "is missing; expected a pattern such as \"*.down_proj\"");
          override.match = *match;
        });
        if (!entry.has("weights")) mistakes.take([&] { entry.fail("weights", "is missing; expected a quantization, or \"float\""); });
        override.weights = read_optional_spec(entry, "weights", SpecRole::weights, mistakes);
        mistakes.unknown_keys(entry);
      });
  });
  mistakes.unknown_keys(map);
  return scheme;
}

StageSpec read_stage(const YAML::Node& node, const std::string& at, Mistakes& mistakes) {
  StageSpec stage;
  if (node.IsScalar()) {  // "- rtn" stands for "- method: rtn"
    stage.method = node.Scalar();
    mistakes.take([&] {
      if (const std::string problem = stage_problem(stage); !problem.empty()) fail_at(at, problem);
    });
    return stage;
  }
  YamlMap map(node, at);
  const MethodInfo* method = nullptr;
  mistakes.take([&] {
    stage.method = map.text("method").value_or("");
    method = find_method(stage.method);
    if (stage.method.empty()) map.fail("method", "is missing");
    if (!method) map.fail("method", stage_problem(stage));
  });
  if (!method) return stage;  // whose knobs are not known
  for (const KnobInfo& knob : method->knobs) {
    map.node(knob.name);
    // A default written out and one left out are the same recipe.
    if (map.has(knob.name))
      mistakes.take([&] {
        if (KnobValue value = read_valid_knob(map, knob); value != knob.default_value) stage.knobs[knob.name] = std::move(value);
      });
  }
  mistakes.unknown_keys(map);
  return stage;
}

std::vector<StageSpec> read_pipeline(const std::vector<YAML::Node>& list, const std::string& place, Mistakes& mistakes) {
  std::vector<StageSpec> pipeline;
  for (size_t i = 0; i < list.size(); ++i)
    mistakes.take([&] { pipeline.push_back(read_stage(list[i], fmt::format("{}[{}]", place, i), mistakes)); });
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

namespace {

std::map<std::string, Position> positions_in(const YAML::Node& root) {
  std::map<std::string, Position> positions;
  walk(root, "", positions, 0);
  return positions;
}

Position nearest(const std::map<std::string, Position>& positions, const std::string& key) {
  for (std::string name = key; !name.empty();) {
    if (const auto it = positions.find(name); it != positions.end()) return it->second;
    const size_t cut = name.find_last_of(".[");
    if (cut == std::string::npos) break;
    name.resize(cut);
  }
  return {1, 1};
}

}  // namespace

Recipe read_whole(YamlMap map, const std::filesystem::path& base, Mistakes& mistakes) {
  Recipe recipe = read_recipe(std::move(map), base, mistakes);
  check_consistency(recipe, mistakes);
  return recipe;
}

Recipe parse_recipe(const std::string& yaml, const std::string& origin, const std::filesystem::path& base) {
  const YAML::Node root = load_document(yaml, origin);
  return with_positions(yaml, origin, [&] {
    Mistakes mistakes;
    Recipe recipe = read_whole(YamlMap(root, ""), base, mistakes);
    mistakes.throw_first();
    return recipe;
  });
}

RecipeReading read_with_mistakes(const std::string& yaml, const std::filesystem::path& base) {
  RecipeReading reading;
  Mistakes mistakes;
  std::map<std::string, Position> positions;
  try {
    const YAML::Node root = load_document(yaml, "");
    positions = positions_in(root);
    mistakes.take([&] {
      YamlMap map(root, "");  // or no mapping at all
      reading.has_keys = true;
      reading.recipe = read_whole(std::move(map), base, mistakes);
    });
  } catch (const RecipeError& e) {
    reading.mistakes.push_back({e.line(), e.column(), e.key(), e.detail()});
    return reading;
  }
  for (const RecipeError& e : mistakes.all()) {
    const Position at = nearest(positions, e.key());
    const RecipeMistake mistake{at.line, at.column, e.key(), e.detail()};
    if (std::find(reading.mistakes.begin(), reading.mistakes.end(), mistake) == reading.mistakes.end()) reading.mistakes.push_back(mistake);
  }
  std::stable_sort(reading.mistakes.begin(), reading.mistakes.end(), [](const RecipeMistake& a, const RecipeMistake& b) { return std::pair(a.line, a.column) < std::pair(b.line, b.column); });
  return reading;
}

void validate(const Recipe& recipe) {
  // Ranges and choices stand once, where recipes are read.
  Mistakes mistakes;
  read_recipe(YamlMap(load_document(to_yaml(recipe), "recipe"), ""), {}, mistakes);
  mistakes.throw_first();
  check_consistency(recipe, mistakes);  // as it is: what a text leaves out may be wrong in it
  mistakes.throw_first();
}

Recipe load_recipe(const std::filesystem::path& path) {
  Recipe recipe = parse_recipe(read_text(path, 4 << 20), path.string(), std::filesystem::absolute(path).parent_path());
  if (recipe.name.empty()) recipe.name = path.stem().string();
  return recipe;
}

Position position_of(const std::string& yaml, const std::string& key) {
  try {
    return nearest(positions_in(load_document(yaml, "")), key);
  } catch (const RecipeError&) {
    return {};
  }
}

}  // namespace qb
