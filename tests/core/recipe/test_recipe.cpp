// Recipes: what is read, what is refused and where, and that writing and reading are inverse.
#include <QtTest/QtTest>
#include <chrono>
#include <fstream>
#include <limits>
#include <random>

#include "core/base/error.h"
#include "core/recipe/preset.h"
#include "core/recipe/recipe.h"
#include "core/recipe/recipe_mistakes.h"
#include "core/recipe/settings.h"
#include "core/recipe/target.h"
#include "core/run/recipe_files.h"

using namespace qb;

namespace {

const std::string kSmall = "model: m\nscheme:\n  weights: {type: int4}\n";

struct Failure {
  int line, column;
  std::string key, what;
};

Failure failure(const std::string& yaml) {
  try {
    parse_recipe(yaml, "r.yaml");
  } catch (const RecipeError& e) {
    return {e.line(), e.column(), e.key(), e.what()};
  }
  return {-1, -1, "accepted", ""};
}

// Texts that YAML could take for something else.
std::string awkward(std::mt19937& random) {
  static const std::vector<std::string> texts = {"", "null", "~", "true", "0x1f", "1e3", "a: b", "# no comment", "- item", "'", "\"", "two\nlines", " edge ", "tab\there",
                                                 "{a}", "[a]", "*alias", "&anchor", "!tag", "%x", "@x", "naïve 文 🙂", "back\\slash", "trailing:", "---", "...", "a #b"};
  return texts[random() % texts.size()];
}

QuantSpec random_spec(std::mt19937& random, bool activations) {
  auto pick = [&](auto... values) { return std::vector{values...}[random() % sizeof...(values)]; };
  if (!activations && random() % 4 == 0) {
    QuantSpec stored = spec_of(storage_types()[random() % storage_types().size()].storage);
    if (stored.storage == Storage::q4_1 && random() % 2) {
      stored.range = RangeMethod::hqq;
      stored.hqq_norm = 0.5;
    }
    return stored;
  }
  QuantSpec spec;
  spec.type = *NumberType::parse(pick(std::string("int2"), std::string("int3"), std::string("int4"), std::string("int8"), std::string("e4m3"), std::string("e2m1")));
  const bool integer = spec.type.kind == NumberType::Kind::integer;
  spec.symmetric = !integer || random() % 2;
  spec.granularity = activations ? pick(Granularity::token, Granularity::tensor, Granularity::group)
                                 : pick(Granularity::tensor, Granularity::channel, Granularity::group, Granularity::head);
  spec.group_size = pick(int64_t{32}, int64_t{64}, int64_t{128});
  spec.block_rows = pick(int64_t{64}, int64_t{128});
  if (spec.granularity == Granularity::head) spec.heads = pick(int64_t{2}, int64_t{9});
  spec.round_zero_point = random() % 2;
  spec.narrow_range = random() % 2;
  spec.full_scale = random() % 2;
  spec.scale_type = pick(ScaleType::f32, ScaleType::f16, ScaleType::bf16);
  spec.scale_type_open = !activations && spec.scale_type == ScaleType::f16 && random() % 2;
  if (!activations) {
    spec.range = pick(RangeMethod::minmax, RangeMethod::mse, RangeMethod::hqq);
    if (spec.range == RangeMethod::hqq && (!integer || spec.symmetric)) spec.range = RangeMethod::mse;
    spec.mse_grid = 1 + static_cast<int64_t>(random() % 200);
    spec.mse_max_shrink = std::uniform_real_distribution(0.0, 0.9)(random);
    spec.mse_norm = std::uniform_real_distribution(0.5, 4.0)(random);
    spec.hqq_norm = std::uniform_real_distribution(0.1, 1.0)(random);
    spec.hqq_beta = pick(1e-6, 10.0, 1.0 / 3.0, 123456.789);
    spec.hqq_iterations = static_cast<int64_t>(random() % 50);
  }
  return spec;
}

Recipe random_recipe(std::mt19937& random) {
  auto pick = [&](auto... values) { return std::vector{values...}[random() % sizeof...(values)]; };
  Recipe r;
  r.name = awkward(random);
  r.description = awkward(random);
  r.model = "/models/" + awkward(random) + "x";
  r.dtype = pick(std::string("float32"), std::string("bfloat16"));
  if (random() % 2) {
    CalibrationSpec c;
    c.corpus = {awkward(random), "/data/" + awkward(random) + "y", "body" + awkward(random)};
    c.sampling.sampling = sampling_names()[random() % sampling_names().size()];
    c.sampling.samples = 1 + static_cast<int64_t>(random() % 1000);
    c.sampling.seq_len = 1 + static_cast<int64_t>(random() % 4096);
    c.sampling.seed = pick(uint64_t{0}, std::numeric_limits<uint64_t>::max());
    c.sampling.bos = pick(std::optional<Bos>{}, std::optional(Bos::tokenizer), std::optional(Bos::every_window));
    r.calibration = c;
  }
  r.scheme.weights = random_spec(random, false);
  if (random() % 2) r.scheme.activations = random_spec(random, true);
  if (random() % 3 == 0) r.scheme.activations = input_spec_of(pick(Storage::mxfp4, Storage::mxfp8));
  if (random() % 2) {
    QuantSpec& cache = r.scheme.kv_cache.emplace(random_spec(random, true));
    cache.round_zero_point = cache.symmetric || cache.round_zero_point;
    cache.dynamic = cache.granularity != Granularity::tensor;
    if (!cache.dynamic && !r.calibration) r.calibration = CalibrationSpec{{"c", "/c", "text"}, {}};
    if (!cache.dynamic) cache.round_zero_point = true;
  }
  for (size_t i = random() % 3; i > 0; --i) r.scheme.ignore.push_back(pick(std::string("*.down_proj"), std::string("re:.*\\.(q|k)_proj"), std::string("? #'\"")));
  for (size_t i = random() % 3; i > 0; --i) {
    SchemeOverride entry{pick(std::string("*"), std::string("*.0.*")), std::nullopt};
    if (random() % 2) entry.weights = random_spec(random, false);
    r.scheme.overrides.push_back(entry);
  }
  if (random() % 2) r.pipeline = {{"rtn", {}}};
  r.propagate_quantized = random() % 2;
  for (size_t i = random() % 3; i > 0; --i) r.evaluation.push_back({{awkward(random), "/e" + awkward(random), "text"}, 2 + static_cast<int64_t>(random() % 4096), static_cast<int64_t>(random() % 30), pick(std::string("float32"), std::string("bfloat16")), pick(std::optional<Bos>{}, std::optional(Bos::none))});
  r.evaluate_float = random() % 2;
  r.seed = random();
  return r;
}

}  // namespace

class TestRecipe : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void a_target_is_read_and_written() {
    const Recipe recipe = parse_recipe("model: m\ntarget: {format: compressed-tensors, engine: vllm}\nscheme:\n  weights: {type: int4, group_size: 64}\n", "r.yaml");
    QVERIFY(recipe.target == (TargetSpec{"compressed-tensors", "vllm"}));
    QVERIFY(parse_recipe(to_yaml(recipe), "r.yaml") == recipe);
    Recipe other = recipe;
    other.target.reset();
    QVERIFY(!(other == recipe));
    QCOMPARE(recipe_hash(other), recipe_hash(recipe));  // where it goes decides no weight
    QVERIFY(with_settings(other, {"target.format=gptq"}, "").target == (TargetSpec{"gptq", ""}));
    QVERIFY(!with_settings(recipe, {"target="}, "").target);
  }
  void scales_that_nothing_is_said_of_are_the_targets_to_choose() {
    const std::string rest = "scheme:\n  weights: {type: int4, group_size: 64}\n  overrides:\n    - {match: \"*.up_proj\", weights: {type: int8, scale_type: float32}}\n";
    const auto types = [](const Recipe& r) { return std::vector{r.scheme.weights->scale_type, r.scheme.overrides.front().weights->scale_type}; };
    const Recipe recipe = parse_recipe("model: m\ntarget: {format: compressed-tensors}\n" + rest, "r.yaml");
    QCOMPARE(types(recipe), (std::vector{ScaleType::f16, ScaleType::f32}));
    QVERIFY(parse_recipe(to_yaml(recipe), "r.yaml") == recipe);
    QCOMPARE(types(for_target(recipe, "BF16")), (std::vector{ScaleType::bf16, ScaleType::f32}));
    QVERIFY(chosen_scale_type(recipe, "BF16") == ScaleType::bf16 && !chosen_scale_type(recipe, "F32"));
    QVERIFY(parse_recipe(to_yaml(for_target(recipe, "BF16")), "r.yaml") == for_target(recipe, "BF16"));  // a run's record says them
    QCOMPARE(types(for_target(recipe, "F32")), (std::vector{ScaleType::f16, ScaleType::f32}));
    // Nothing is chosen without a target, for a format that has one type, where activations are codes, and where it was said.
    QCOMPARE(types(for_target(parse_recipe("model: m\n" + rest, "r.yaml"), "BF16")), (std::vector{ScaleType::f16, ScaleType::f32}));
    Recipe other = recipe;
    other.target->format = "gptq";
    QVERIFY(!chosen_scale_type(other, "BF16"));
    other = recipe;
    other.scheme.activations = QuantSpec{.type = {NumberType::Kind::integer, 8}, .granularity = Granularity::token};
    QVERIFY(!chosen_scale_type(other, "BF16"));
    other = with_settings(recipe, {"scheme.weights.scale_type=float16"}, "");
    QVERIFY(!chosen_scale_type(other, "BF16"));
    QCOMPARE(types(for_target(other, "BF16")), (std::vector{ScaleType::f16, ScaleType::f32}));
  }
  void what_a_target_does_not_take_is_said_where_it_stands_data() {
    QTest::addColumn<QString>("target");
    QTest::addColumn<QString>("rest");
    QTest::addColumn<QString>("key");
    QTest::addColumn<QString>("said");
    QTest::addColumn<int>("line");
    const QString plain = "scheme:\n  weights: {type: int4, group_size: 64}\n";
    QTest::newRow("format misspelled") << "{format: gtpq}" << plain << "target.format" << "did you mean \"gptq\"?" << 2;
    QTest::newRow("engine misspelled") << "{format: gptq, engine: vlm}" << plain << "target.engine" << "did you mean \"vllm\"?" << 2;
    QTest::newRow("key misspelled") << "{format: gptq, engin: vllm}" << plain << "target.engin" << "did you mean \"engine\"?" << 2;
    QTest::newRow("no format") << "{engine: vllm}" << plain << "target.format" << "is missing; expected one of compressed-tensors" << 2;
    QTest::newRow("engine without the format") << "{format: gptq_v2, engine: vllm}" << plain << "target.engine" << "does not load GPTQ, second layout (read in its source, 2026-10); it loads compressed-tensors" << 2;
    QTest::newRow("symmetry") << "{format: awq}" << plain << "scheme.weights" << "AWQ cannot hold int4 g64 symmetric weights; nearest that it can: symmetric: false" << 4;
    QTest::newRow("type") << "{format: gptq}" << "scheme:\n  weights: {type: int3, group_size: 64}\n" << "scheme.weights" << "nearest that it can: type int4" << 4;
    QTest::newRow("group") << "{format: compressed-tensors, engine: vllm}" << "scheme:\n  weights: {type: int4, group_size: 48}\n" << "scheme.weights"
                           << "vLLM 0.32 does not take int4 g48 symmetric weights in compressed-tensors (read in its source, 2026-10); nearest that it takes: group_size 32 or 64 or 128" << 4;
    QTest::newRow("scales") << "{format: gptq}" << "scheme:\n  weights: {type: int4, group_size: 64, scale_type: float32}\n" << "scheme.weights" << "scale_type float16" << 4;
    QTest::newRow("activations") << "{format: gptq}" << "scheme:\n  weights: {type: int4, group_size: 64}\n  activations: {type: int8}\n" << "scheme.activations" << "activations float" << 5;
    QTest::newRow("another scheme") << "{format: gptq}" << "scheme:\n  weights: {type: int4, group_size: 64}\n  overrides:\n    - {match: \"*.down_proj\", weights: {type: int8, group_size: 64}}\n"
                                    << "scheme.overrides[0].weights" << "has one scheme for all linears" << 6;
    QTest::newRow("kept beside the codes") << "{format: gptq}" << "calibration: {corpus: c}\n" + plain + "pipeline:\n  - {method: owq}\n" << "pipeline[0].method" << "(owq leaves it so)" << 7;
    QTest::newRow("zero points that stay floats") << "{format: compressed-tensors}" << "scheme:\n  weights: {type: int4, symmetric: false, group_size: 64}\npipeline: [hqq]\n" << "pipeline[0].method"
                                                  << "zero points as codes" << 5;
  }
  void what_a_target_does_not_take_is_said_where_it_stands() {
    QFETCH(QString, target);
    QFETCH(QString, rest);
    QFETCH(QString, key);
    QFETCH(QString, said);
    QFETCH(int, line);
    const Failure found = failure(("model: m\ntarget: " + target + "\n" + rest).toStdString());
    QCOMPARE(QString::fromStdString(found.key), key);
    QVERIFY2(QString::fromStdString(found.what).contains(said), found.what.c_str());
    QCOMPARE(found.line, line);
    QVERIFY(found.column >= 1);
  }
  void a_target_takes_what_it_can() {
    for (const char* rest : {"scheme: {weights: {type: int4, group_size: 64}}\n", "scheme: {weights: {type: int4, group_size: 64, range: mse}}\ncalibration: {corpus: c}\npipeline: [awq, clip, gptq]\n",
                             "scheme: {weights: {type: int4, group_size: 64}}\ncalibration: {corpus: c}\npipeline: [{method: owq, share: 0}]\n"})
      for (const char* target : {"{format: gptq}", "{format: gptq, engine: vllm}", "{format: gptq_v2, engine: gptqmodel}", "{format: compressed-tensors, engine: vllm-cpu}", "{format: dequantized}"})
        QCOMPARE(QString::fromStdString(failure(std::string("model: m\ntarget: ") + target + "\n" + rest).key), QString("accepted"));
  }
  void another_scheme_for_some_linears_is_for_the_model_to_judge() {
    const char* mixed = "model: m\ntarget: {format: compressed-tensors, engine: vllm}\nscheme:\n  weights: {type: int4, group_size: 64}\n"
                        "  overrides:\n    - {match: \"*.down_proj\", weights: {type: int8, group_size: 64}}\n";
    QCOMPARE(QString::fromStdString(failure(mixed).key), QString("accepted"));
  }
  void a_checkpoint_takes_the_place_of_scheme_and_pipeline() {
    const Recipe recipe = parse_recipe("name: theirs\nmodel: m\ncheckpoint: c\ncalibration: {corpus: t}\n", "r.yaml", "/base");
    QCOMPARE(recipe.checkpoint, std::filesystem::path("/base/c"));
    QVERIFY(parse_recipe(to_yaml(recipe), "r.yaml") == recipe);
    QCOMPARE(failure("model: m\ncheckpoint: c\nscheme: {weights: {type: int4}}\n").key, std::string("scheme"));
    QCOMPARE(failure("model: m\ncheckpoint: c\npipeline: [rtn]\n").key, std::string("pipeline"));
    QCOMPARE(failure("model: m\ncheckpoint: c\ntarget: {format: gptq}\n").key, std::string("target"));
    QCOMPARE(failure("model: m\n").key, std::string("scheme"));
  }
  void written_recipes_read_back_equal() {
    std::mt19937 random(7);
    for (int i = 0; i < 500; ++i) {
      const Recipe recipe = random_recipe(random);
      const std::string yaml = to_yaml(recipe);
      Recipe back;
      try {
        back = parse_recipe(yaml, "r.yaml");
      } catch (const Error& e) {
        QFAIL((std::string(e.what()) + "\n" + yaml).c_str());
      }
      QVERIFY2(back == recipe, (yaml + "\n---\n" + to_yaml(back)).c_str());
      QCOMPARE(to_yaml(back), yaml);
    }
  }

  // Runs are known by the hash of this text: it must not change by a byte.
  void canonical_yaml_stays_as_it_is_data() {
    QTest::addColumn<QString>("given");
    QTest::addColumn<QString>("written");
    QTest::newRow("integers") << "weights: {type: int4}" << "weights: {type: int4, symmetric: true, granularity: group, group_size: 128, round_zero_point: true, narrow_range: false, full_scale: true, range: minmax}";
    QTest::newRow("scales named, channels") << "weights: {type: int3, symmetric: false, granularity: channel, scale_type: float16}"
                                            << "weights: {type: int3, symmetric: false, granularity: channel, round_zero_point: true, narrow_range: false, full_scale: true, scale_type: float16, range: minmax}";
    QTest::newRow("floats in blocks") << "weights: {type: e4m3, granularity: block, block_rows: 64}" << "weights: {type: e4m3, symmetric: true, granularity: block, block_rows: 64, block_cols: 128, range: minmax}";
    QTest::newRow("a search's settings") << "weights: {type: int4, range: mse, group_size: 64}"
                                         << "weights: {type: int4, symmetric: true, granularity: group, group_size: 64, round_zero_point: true, narrow_range: false, full_scale: true, range: mse, mse_grid: 100, mse_max_shrink: 0.8, mse_norm: 2.4}";
    QTest::newRow("settings of another search") << "weights: {type: int4, granularity: tensor, hqq_kappa: 1.5, group_size: 32}"
                                                << "weights: {type: int4, symmetric: true, granularity: tensor, group_size: 32, round_zero_point: true, narrow_range: false, full_scale: true, range: minmax, hqq_norm: 0.7, hqq_beta: 10, "
                                                   "hqq_kappa: 1.5, hqq_iterations: 20}";
    QTest::newRow("heads") << "weights: {type: int8, granularity: head, heads: 9}" << "weights: {type: int8, symmetric: true, granularity: head, heads: 9, round_zero_point: true, narrow_range: false, full_scale: true, range: minmax}";
    QTest::newRow("a file format's type") << "weights: {type: q4_k, group_size: 32}" << "weights: {type: q4_K}";
    QTest::newRow("its other search") << "weights: {type: q4_1, range: hqq}" << "weights: {type: q4_1, range: hqq, hqq_norm: 0.7, hqq_beta: 10, hqq_kappa: 1.01, hqq_iterations: 20}";
    QTest::newRow("activations") << "activations: {type: int8}" << "activations: {type: int8, symmetric: true, granularity: token, round_zero_point: true, narrow_range: false, full_scale: true, scale_type: float16, range: minmax, dynamic: true}";
    QTest::newRow("activations of a type") << "activations: {type: mxfp4, dynamic: true}" << "activations: {type: mxfp4}";
    QTest::newRow("caches") << "kv_cache: {type: e4m3}" << "kv_cache: {type: e4m3, symmetric: true, granularity: head, scale_type: float32, range: minmax, dynamic: true}";
  }
  void canonical_yaml_stays_as_it_is() {
    QFETCH(QString, given);
    QFETCH(QString, written);
    const std::string yaml = to_yaml(parse_recipe("model: m\nscheme: {" + given.toStdString() + "}\n", "r.yaml"));
    const QString text = QString::fromStdString(yaml);
    // From flow to block style: a line a key.
    QString expected = "scheme:\n  " + written;
    expected.replace(": {", ":\n    ").replace("}", "").replace(", ", "\n    ");
    QVERIFY2(text.contains(expected + "\npipeline:"), yaml.c_str());
  }

  void all_mistakes_are_told_where_they_stand() {
    const std::string yaml =
        "name: five\n"
        "model: {path: m, dtyp: float32}\n"                                              // 2
        "calibration:\n"
        "  corpus: c\n"
        "  samples: many\n"                                                               // 5
        "scheme:\n"
        "  weights: {type: int4, group_size: 0, range: median}\n"                         // 7, twice
        "  activations: {type: int8, symetric: true}\n"                                   // 8
        "  overrides:\n"
        "    - {match: \"re:(\", weights: {type: int8, granularity: token}}\n"            // 10, twice
        "pipeline:\n"
        "  - {method: gptq, percdamp: 11}\n"                                              // 12
        "  - rtm\n"                                                                       // 13
        "evaluation:\n"
        "  - {corpus: e, seq_len: 1}\n"                                                   // 15
        "sede: 3\n";                                                                      // 16
    const RecipeReading reading = read_with_mistakes(yaml);
    QVERIFY(reading.has_keys);
    std::vector<std::pair<int, std::string>> found;
    for (const RecipeMistake& mistake : reading.mistakes) {
      found.emplace_back(mistake.line, mistake.key);
      QVERIFY(mistake.column >= 1 && !mistake.what.empty());
    }
    const std::vector<std::pair<int, std::string>> expected = {{2, "model.dtyp"}, {5, "calibration.samples"}, {7, "scheme.weights.group_size"}, {7, "scheme.weights.range"}, {8, "scheme.activations.symetric"},
                                                               {10, "scheme.overrides[0].match"}, {10, "scheme.overrides[0].weights.granularity"}, {12, "pipeline[0].percdamp"}, {13, "pipeline[1]"},
                                                               {15, "evaluation[0].seq_len"}, {16, "sede"}};
    QCOMPARE(found, expected);
    // What is right beside them is read.
    QCOMPARE(reading.recipe.name, std::string("five"));
    QCOMPARE(reading.recipe.model.string(), std::string("m"));
    QVERIFY(reading.recipe.calibration && reading.recipe.calibration->corpus.path == "c");
    QVERIFY(reading.recipe.scheme.weights && reading.recipe.scheme.activations && reading.recipe.scheme.activations->type.bits == 8);
    QCOMPARE(reading.recipe.pipeline.size(), size_t(2));
    QCOMPARE(failure(yaml).key, std::string("model.dtyp"));  // who wants one gets the first that is read
  }
  void a_text_without_mistakes_reads_as_ever() {
    std::mt19937 random(11);
    for (int i = 0; i < 50; ++i) {
      const std::string yaml = to_yaml(random_recipe(random));
      const RecipeReading reading = read_with_mistakes(yaml);
      QVERIFY2(reading.mistakes.empty() && reading.recipe == parse_recipe(yaml, "r.yaml"), yaml.c_str());
    }
  }
  void what_hangs_on_a_mistake_is_not_told_as_another() {
    auto keys = [](const std::string& yaml) {
      std::vector<std::string> found;
      for (const RecipeMistake& mistake : read_with_mistakes(yaml).mistakes) found.push_back(mistake.key);
      return found;
    };
    using Keys = std::vector<std::string>;
    QCOMPARE(keys("model: m\nscheme: {weights: {type: int44}}\n"), Keys{"scheme.weights.type"});            // not: quantizes nothing
    QCOMPARE(keys("model: m\nscheme: {weights: 4}\n"), Keys{"scheme.weights"});
    QCOMPARE(keys("model: m\nscheme: {weights: {type: int4}}\npipeline: [gptq]\ncalibration: {}\n"), Keys{"calibration.corpus"});  // not: gptq needs one
    QCOMPARE(keys("model: {dtype: float32}\nscheme: {weights: {type: int4}}\n"), Keys{"model.path"});
    QCOMPARE(keys("model: m\nscheme: {weights: {type: int4}}\npipeline: [rtm, rtn, rtn]\n"), Keys{"pipeline[0]"});
  }
  void a_text_that_is_no_yaml_has_one_mistake() {
    for (const char* yaml : {"model: m\nscheme: [\n", "model: m\n\tscheme: x\n", "- a\n- b\n", "", "word"}) {
      const RecipeReading reading = read_with_mistakes(yaml);
      QVERIFY2(!reading.has_keys && reading.mistakes.size() == 1 && !reading.mistakes.front().what.empty(), yaml);
    }
    QCOMPARE(read_with_mistakes("model: m\nscheme: {weights: {type: int4}\nseed: 3\n").has_keys, false);
  }
  void group_sizes_are_offered_that_divide_all_widths() {
    QCOMPARE(common_group_sizes({576, 1536}), (std::vector<int64_t>{192, 96, 64, 48, 32, 24, 16, 8}));
    QCOMPARE(common_group_sizes({64, 192}), (std::vector<int64_t>{64, 32, 16, 8}));
    QCOMPARE(common_group_sizes({12, 18}), (std::vector<int64_t>{6, 3, 2}));
    QVERIFY(common_group_sizes({7, 9}).empty() && common_group_sizes({}).empty());
  }
  void files_that_are_not_there_are_told_by_key() {
    QTemporaryDir folder;
    const std::filesystem::path there = folder.path().toStdString();
    std::ofstream(there / "text.txt") << "words";
    Recipe recipe = read_with_mistakes("model: gone\ncheckpoint: lost\ncalibration: {corpus: text.txt, importance: none.gguf}\nevaluation:\n  - {corpus: text.txt}\n  - {corpus: away.txt}\nscheme: ~\n", there).recipe;
    std::vector<std::string> keys;
    for (const RecipeFiles::Problem& problem : look_at_files(recipe).problems) {
      keys.push_back(problem.key);
      QVERIFY2(problem.what.find(there.string()) == 0 && problem.what.find("no such file or folder; expected") != std::string::npos, problem.what.c_str());
    }
    QCOMPARE(keys, (std::vector<std::string>{"model.path", "checkpoint", "evaluation[1].corpus", "calibration.importance"}));
    recipe.importance = there / "text.txt";
    QVERIFY(look_at_files(recipe).problems.back().key == "calibration.importance");  // there, and no such matrix
  }

  void a_storage_type_stands_alone() {
    const Recipe recipe = parse_recipe("model: m\nscheme:\n  weights: {type: Q4_k, group_size: 32}\n  overrides:\n    - {match: \"*.down_proj\", weights: {type: q6_K}}\n", "r.yaml");
    QVERIFY(recipe.scheme.weights == spec_of(Storage::q4_k));
    QVERIFY(recipe.scheme.overrides.front().weights == spec_of(Storage::q6_k));
    const std::string yaml = to_yaml(recipe);
    QVERIFY2(yaml.find("type: q4_K\n") != std::string::npos && yaml.find("group_size") == std::string::npos, yaml.c_str());
    Recipe other = recipe;
    other.scheme.weights->group_size = 64;
    QVERIFY_EXCEPTION_THROWN(validate(other), RecipeError);
  }

  void the_hash_is_of_what_decides_the_result() {
    std::mt19937 random(3);
    for (int i = 0; i < 20; ++i) {
      const Recipe recipe = random_recipe(random);
      Recipe other = recipe;
      other.name += "x";
      other.description += "x";
      QCOMPARE(recipe_hash(other), recipe_hash(recipe));
      other.seed ^= 1;
      QVERIFY(recipe_hash(other) != recipe_hash(recipe));
    }
  }

  void defaults_are_those_of_the_headers() {
    const Recipe r = parse_recipe(kSmall, "r.yaml");
    QCOMPARE(r.model.string(), std::string("m"));
    QuantSpec weights;
    weights.scale_type_open = true;
    QVERIFY(r.scheme.weights == weights);
    QVERIFY(!r.scheme.activations && !r.calibration && r.evaluation.empty() && r.evaluate_float && r.propagate_quantized);
    QCOMPARE(r.seed, uint64_t{42});
  }

  void errors_name_line_column_and_key_data() {
    QTest::addColumn<QString>("yaml");
    QTest::addColumn<int>("line");
    QTest::addColumn<int>("column");
    QTest::addColumn<QString>("key");
    QTest::addColumn<QString>("says");
    auto row = [](const char* name, const std::string& yaml, int line, int column, const char* key, const char* says) {
      QTest::newRow(name) << QString::fromStdString(yaml) << line << column << key << says;
    };
    row("unknown key", kSmall + "sede: 3\n", 4, 1, "sede", "did you mean \"seed\"?");
    row("unknown nested key", "model: m\nscheme:\n  weights:\n    type: int4\n    gruop_size: 64\n", 5, 5, "scheme.weights.gruop_size", "did you mean \"group_size\"?");
    row("unknown key far from any", kSmall + "zzzzzzzzzz: 3\n", 4, 1, "zzzzzzzzzz", "known are");
    row("a key twice", kSmall + "seed: 3\nseed: 4\n", 5, 1, "seed", "twice");
    row("a list for a number", kSmall + "seed: [3]\n", 4, 1, "seed", "found a list");
    row("a word for a number", kSmall + "seed: three\n", 4, 1, "seed", "found \"three\"");
    row("a fraction for an integer", kSmall + "calibration: {corpus: c, samples: 1.5}\n", 4, 26, "calibration.samples", "expected an integer, found \"1.5\"");
    row("out of range", kSmall + "evaluation:\n  - corpus: c\n    seq_len: 1\n", 6, 5, "evaluation[0].seq_len", "found 1");
    row("below zero", kSmall + "seed: -1\n", 4, 1, "seed", "0 or more");
    row("more than 64 bits", kSmall + "seed: 18446744073709551616\n", 4, 1, "seed", "18446744073709551616");
    row("yes is no boolean", kSmall + "evaluate_float: yes\n", 4, 1, "evaluate_float", "true or false");
    row("not a number", "model: m\nscheme:\n  weights: {type: int4, range: mse, mse_norm: .nan}\n", 3, 37, "scheme.weights.mse_norm", "expected a number");
    row("infinite", "model: m\nscheme:\n  weights: {type: int4, range: mse, mse_norm: inf}\n", 3, 37, "scheme.weights.mse_norm", "expected a number");
    row("unknown type", "model: m\nscheme:\n  weights: {type: int9}\n", 3, 13, "scheme.weights.type", "found \"int9\"");
    row("unknown sampling", kSmall + "calibration: {corpus: c, sampling: sometimes}\n", 4, 26, "calibration.sampling", "random_windows");
    row("unknown place of BOS", kSmall + "calibration: {corpus: c, bos: always}\n", 4, 26, "calibration.bos", "every_window");
    row("unknown method", kSmall + "pipeline:\n  - method: rtm\n", 5, 5, "pipeline[0].method", "rtm");
    row("unknown knob", kSmall + "pipeline:\n  - method: rtn\n    bits: 3\n", 6, 5, "pipeline[0].bits", "unknown key");
    row("rounds twice", kSmall + "pipeline:\n  - method: rtn\n  - method: rtn\n", 6, 5, "pipeline[1].method", "already");
    row("a scalar for a section", "model: m\nscheme: int4\n", 2, 1, "scheme", "expected a mapping");
    row("no model", "scheme:\n  weights: {type: int4}\n", 1, 1, "model", "is missing");
    row("no scheme", "model: m\n", 1, 1, "scheme", "is missing");
    row("nothing to quantize", "model: m\nscheme: {}\n", 2, 1, "scheme", "quantizes nothing");
    row("hqq needs zero points", "model: m\nscheme:\n  weights: {type: int4, range: hqq}\n", 3, 25, "scheme.weights.range", "asymmetric");
    row("asymmetric float", "model: m\nscheme:\n  weights: {type: e4m3, symmetric: false, granularity: channel}\n", 3, 25, "scheme.weights.symmetric", "float");
    row("token weights", "model: m\nscheme:\n  weights: {type: int4, granularity: token}\n", 3, 25, "scheme.weights.granularity", "channel");
    row("another group than the type's", "model: m\nscheme:\n  weights: {type: Q4_K, group_size: 64}\n", 3, 25, "scheme.weights.group_size", "q4_K fixes it at 32, found 64");
    row("another symmetry than the type's", "model: m\nscheme:\n  weights: {type: q4_0, symmetric: false}\n", 3, 25, "scheme.weights.symmetric", "q4_0 fixes it");
    row("scales of another type", "model: m\nscheme:\n  weights: {type: nvfp4, scale_type: float16}\n", 3, 26, "scheme.weights.scale_type", "nvfp4 fixes it");
    row("a search of another kind", "model: m\nscheme:\n  weights: {type: q4_K, range: hqq}\n", 3, 25, "scheme.weights.range", "q4_1");
    row("steps of another search", "model: m\nscheme:\n  weights: {type: q4_K, mse_grid: 20}\n", 3, 25, "scheme.weights.mse_grid", "search of its own");
    row("a storage type for activations", "model: m\nscheme:\n  activations: {type: q8_0}\n", 3, 17, "scheme.activations.type", "weights");
    row("nvfp4 activations without a text", "model: m\nscheme:\n  weights: {type: nvfp4}\n  activations: {type: nvfp4}\n", 4, 17, "scheme.activations.type", "calibration text");
    row("mxfp4 activations that are static", "model: m\nscheme:\n  weights: {type: mxfp4}\n  activations: {type: mxfp4, dynamic: false}\n", 4, 30, "scheme.activations.dynamic", "mxfp4 fixes it");
    row("a cache's ranges over all tokens", "model: m\nscheme:\n  kv_cache: {type: int8, granularity: tensor}\n", 3, 26, "scheme.kv_cache.granularity", "each new one");
    row("a cache's heads", "model: m\nscheme:\n  kv_cache: {type: int8, heads: 4}\n", 3, 26, "scheme.kv_cache.heads", "leave heads out");
    row("a storage type for a cache", "model: m\nscheme:\n  kv_cache: {type: q8_0}\n", 3, 14, "scheme.kv_cache.type", "weights");
    row("scales of a storage type alone", "model: m\nscheme:\n  weights: {type: int4, scale_type: e4m3}\n", 3, 25, "scheme.weights.scale_type", "nvfp4");
    row("bad pattern", "model: m\nscheme:\n  weights: {type: int4}\n  ignore:\n    - \"*.q_proj\"\n    - \"re:(\"\n", 6, 7, "scheme.ignore[1]", "regular expression");
    row("an empty file", "", 0, 0, "", "empty");
    row("a comment only", "# nothing\n", 0, 0, "", "empty");
    row("several documents", kSmall + "---\n" + kSmall, 5, 1, "", "2 YAML documents");
    row("a tab", "model: m\nscheme:\n\tweights: {type: int4}\n", 3, 1, "", "a tab, expected spaces");
    row("a tab behind spaces", "model: m\nscheme:\n  weights:\n  \t type: int4\n", 4, 3, "", "a tab, expected spaces");
    row("a tab behind a dash", "model: m\npipeline:\n  -\tmethod: rtn\n  \tpercdamp: 1\n", 3, 4, "", "a tab, expected spaces");
    row("no tab in sight", "model: m\t# comment\nscheme: [\n", 3, 1, "", "not valid YAML");
    row("a merge of a number", "model: m\nscheme:\n  <<: 3\n", 3, 3, "", "merge key \"<<\": expected a mapping");
    row("a merge of numbers", "model: m\nscheme:\n  <<: [3]\n", 3, 3, "", "merge key \"<<\": expected a mapping");
    row("two merge keys", "model: m\nscheme:\n  <<: {weights: {type: int4}}\n  <<: {}\n", 4, 3, "", "merge key \"<<\": stands twice");
    row("a merge into itself", "model: m\nscheme: &s\n  <<: *s\n", 3, 3, "", "itself");
    row("a wrong value that was merged", "model: m\nscheme:\n  weights: &w {type: int4, group_size: x}\n  activations: {<<: *w, type: int8}\n", 3, 28, "scheme.weights.group_size", "integer");
    row("a wrong value beside a merge", "model: m\nscheme:\n  weights: &w {type: int4}\n  activations:\n    <<: *w\n    group_sise: 3\n", 6, 5, "scheme.activations.group_sise", "group_size");
    row("a quoted merge key", "model: m\nscheme:\n  weights: {type: int4}\n  \"<<\": 1\n", 4, 3, "scheme.<<", "unknown key");
    row("an open bracket", "model: [m\n", 2, 1, "", "not valid YAML");
    row("an unknown alias", "model: *m\n", 1, 8, "", "not valid YAML");
    row("a list at the top", "- model\n", 1, 1, "", "expected a mapping");
    row("a complex key", "? [a]\n: b\n", 1, 1, "", "key");
  }
  void errors_name_line_column_and_key() {
    QFETCH(QString, yaml);
    QFETCH(int, line);
    QFETCH(int, column);
    QFETCH(QString, key);
    QFETCH(QString, says);
    const Failure f = failure(yaml.toStdString());
    QCOMPARE(QString::fromStdString(f.key), key);
    QVERIFY2(QString::fromStdString(f.what).contains(says), f.what.c_str());
    QVERIFY2(f.line == line && f.column == column, f.what.c_str());
    QVERIFY2(f.what.rfind("r.yaml", 0) == 0, f.what.c_str());
    QVERIFY2(f.what.find('\n') == std::string::npos, f.what.c_str());
  }

  void anchors_aliases_and_a_byte_order_mark_are_read() {
    const Recipe r = parse_recipe("\xef\xbb\xbfmodel: m\nseed: &s 9\nscheme:\n  weights: &w {type: int3}\n  overrides:\n    - {match: \"*\", weights: *w}\ncalibration: {corpus: c, seed: *s}\n", "r");
    QCOMPARE(r.calibration->sampling.seed, uint64_t{9});
    QVERIFY(r.scheme.overrides.at(0).weights == r.scheme.weights);
  }

  void hostile_texts_end_quickly_with_an_error() {
    const auto start = std::chrono::steady_clock::now();
    std::string laughs = "a0: &a0 [x, x]\n";
    for (int i = 1; i < 40; ++i) laughs += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [*a" + std::to_string(i - 1) + ", *a" + std::to_string(i - 1) + "]\n";
    QCOMPARE(failure(kSmall + laughs).key, std::string("a0"));
    QVERIFY(failure("model: &a [*a]\n").line >= 0);
    QVERIFY(failure("a: &a {b: *a, c: *a}\n").line >= 0);
    QVERIFY(failure(std::string(100000, '[')).line >= 0);
    QVERIFY(failure(std::string(100000, '{')).line >= 0);
    std::string dashes;
    for (int i = 0; i < 50000; ++i) dashes += "- ";
    QVERIFY(failure(dashes + "x\n").line >= 0);
    std::string stairs;
    for (int i = 0; i < 1200; ++i) stairs += std::string(static_cast<size_t>(i), ' ') + "a:\n";
    QVERIFY(failure(stairs).line >= 0);
    QVERIFY(failure(std::string(5 << 20, 'x')).line >= 0);
    QVERIFY(failure(std::string("model: \0\x01\xff\n", 11)).line >= 0);
    QVERIFY(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
  }

  void damaged_texts_never_escape_as_other_errors() {
    std::mt19937 random(11);
    for (int i = 0; i < 300; ++i) {
      std::string yaml = to_yaml(random_recipe(random));
      for (size_t k = 1 + random() % 4; k > 0; --k) {
        const size_t at = random() % yaml.size();
        if (random() % 2) yaml[at] = static_cast<char>(random());
        else yaml.erase(at, 1 + random() % 5);
      }
      try {
        parse_recipe(yaml, "r.yaml");
      } catch (const RecipeError&) {
      }
    }
  }

  void relative_paths_are_taken_from_the_recipes_folder() {
    QTemporaryDir dir;
    const std::filesystem::path file = std::filesystem::path(dir.path().toStdString()) / "first try.yaml";
    std::ofstream(file) << "model: ../m\nscheme:\n  weights: {type: int4}\nevaluation:\n  - {corpus: /abs/t.txt}\n  - {corpus: sub/t.txt}\n";
    const Recipe r = load_recipe(file);
    QCOMPARE(r.model.string(), (file.parent_path().parent_path() / "m").string());
    QCOMPARE(r.evaluation[0].corpus.path.string(), std::string("/abs/t.txt"));
    QCOMPARE(r.evaluation[1].corpus.path.string(), (file.parent_path() / "sub/t.txt").string());
    QCOMPARE(r.name, std::string("first try"));
    QVERIFY_THROWS_EXCEPTION(InputError, load_recipe(file.parent_path() / "absent.yaml"));
  }

  void recipes_made_in_code_are_checked_alike() {
    auto key_of = [](auto change) -> std::string {
      Recipe r = parse_recipe(kSmall + "calibration: {corpus: c}\nevaluation: [{corpus: c}]\n", "r");
      change(r);
      try {
        validate(r);
      } catch (const RecipeError& e) {
        return e.key();
      }
      return "accepted";
    };
    QCOMPARE(key_of([](Recipe&) {}), std::string("accepted"));
    QCOMPARE(key_of([](Recipe& r) { r.model.clear(); }), std::string("model.path"));
    QCOMPARE(key_of([](Recipe& r) { r.dtype = "half"; }), std::string("model.dtype"));
    QCOMPARE(key_of([](Recipe& r) { r.calibration->sampling.samples = 0; }), std::string("calibration.samples"));
    QCOMPARE(key_of([](Recipe& r) { r.calibration->sampling.sampling = "often"; }), std::string("calibration.sampling"));
    QCOMPARE(key_of([](Recipe& r) { r.calibration->corpus.path.clear(); }), std::string("calibration.corpus"));
    QCOMPARE(key_of([](Recipe& r) { r.evaluation[0].seq_len = 1; }), std::string("evaluation[0].seq_len"));
    QCOMPARE(key_of([](Recipe& r) { r.scheme.weights->group_size = -1; }), std::string("scheme.weights.group_size"));
    QCOMPARE(key_of([](Recipe& r) { r.scheme.weights->mse_norm = NAN; }), std::string("scheme.weights.mse_norm"));
    QCOMPARE(key_of([](Recipe& r) { r.pipeline = {{"gtpq", {}}}; }), std::string("pipeline[0].method"));
    QCOMPARE(key_of([](Recipe& r) { r.pipeline = {{"rtn", {{"speed", int64_t{1}}}}}; }), std::string("pipeline[0]"));
  }

  void merge_keys_fill_in_what_a_mapping_leaves_out() {
    const Recipe r = parse_recipe(
        "model: m\nscheme:\n  weights: &four {type: int4, symmetric: false, group_size: 64}\n  overrides:\n"
        "    - {match: \"*.v_proj\", weights: &eight {<<: *four, type: int8}}\n"
        "    - match: \"*.o_proj\"\n      weights:\n        group_size: 32\n        <<: [{symmetric: true}, *eight]\n"
        "evaluation:\n  - &e {corpus: a.txt, seq_len: 512}\n  - {<<: *e, corpus: b.txt}\n", "r.yaml");
    QCOMPARE(r.scheme.weights->type.bits, 4);
    const QuantSpec &v = *r.scheme.overrides[0].weights, &o = *r.scheme.overrides[1].weights;
    QVERIFY(v.type.bits == 8 && !v.symmetric && v.group_size == 64);     // its own key wins
    QVERIFY(o.type.bits == 8 && o.symmetric && o.group_size == 32);      // the first mapping of a list wins, its own key over both
    QCOMPARE(r.evaluation[1].seq_len, int64_t{512});
    QCOMPARE(r.evaluation[1].corpus.path.filename().string(), std::string("b.txt"));
    // The same as written out, and what is written has no merges.
    QVERIFY(parse_recipe(to_yaml(r), "r.yaml") == r);
    QVERIFY(to_yaml(r).find("<<") == std::string::npos);
    // Positions are those where values stand.
    const std::string bad = "model: m\nscheme:\n  weights: {type: int4}\nevaluation:\n  - &e {corpus: a.txt, seq_len: 512}\n  - {<<: *e, corpus: b.txt}\n";
    const Position p = position_of(bad, "evaluation[1].seq_len");
    QCOMPARE(std::pair(p.line, p.column), std::pair(5, 24));
    // Few lines that stand for very many nodes are read as quickly as others.
    std::string many = "a0: &a0 {x: 1}\n";
    for (int i = 1; i < 40; ++i) many += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " {<<: *a" + std::to_string(i - 1) + ", y: [*a" + std::to_string(i - 1) + ", *a" + std::to_string(i - 1) + "]}\n";
    QCOMPARE(failure("model: m\n" + many).key, std::string("scheme"));
  }

  void positions_are_found_for_the_form() {
    const std::string yaml = "# comment\nmodel: m\nscheme:\n  weights: {type: int4}\npipeline:\n  - method: rtn\n";
    auto at = [&](const char* key) {
      const Position p = position_of(yaml, key);
      return std::pair(p.line, p.column);
    };
    QCOMPARE(at("scheme.weights.type"), std::pair(4, 13));
    QCOMPARE(at("pipeline[0].method"), std::pair(6, 5));
    QCOMPARE(at("scheme.weights.group_size"), std::pair(4, 3));  // absent: its parent
    QCOMPARE(position_of("a: [", "a").line, 0);
  }

  void settings_change_single_keys() {
    const Recipe r = parse_recipe(kSmall + "evaluation: [{corpus: /c}]\n", "r");
    const Recipe s = with_settings(r, {"scheme.weights.group_size=64", "evaluation[0].windows=20", "evaluation[1].corpus=d.txt", "name=second: try", "model=/n", "calibration.corpus=/e"}, "/base");
    QCOMPARE(s.scheme.weights->group_size, int64_t{64});
    QCOMPARE(s.evaluation.at(0).windows, int64_t{20});
    QCOMPARE(s.evaluation.at(1).corpus.path.string(), std::string("/base/d.txt"));
    QCOMPARE(s.name, std::string("second: try"));
    QCOMPARE(with_settings(s, {"calibration=", "scheme.ignore=['*.q_proj', x]", "name='quoted'"}, {}).scheme.ignore, (std::vector<std::string>{"*.q_proj", "x"}));
    QVERIFY(!with_settings(s, {"calibration="}, {}).calibration);
    QCOMPARE(s.model.string(), std::string("/n"));
    QCOMPARE(s.dtype, r.dtype);
    QCOMPARE(s.calibration->corpus.path.string(), std::string("/e"));
    auto key_of = [&](const std::string& setting) -> std::string {
      try {
        with_settings(r, {setting}, "/base");
      } catch (const RecipeError& e) {
        return e.key() + "|" + e.detail();
      }
      return "accepted";
    };
    QVERIFY2(key_of("scheme.weights.gruop_size=64").rfind("scheme.weights.gruop_size|", 0) == 0, key_of("scheme.weights.gruop_size=64").c_str());
    QVERIFY(key_of("seed").find("key=value") != std::string::npos);
    QVERIFY(key_of("evaluation[5].windows=1").find("past the end") != std::string::npos);
    QVERIFY(key_of("seed.x=1").find("no keys") != std::string::npos);
    QVERIFY(key_of("seed=[").find("YAML") != std::string::npos);
    QVERIFY(key_of("evaluation[x].windows=1").find("number") != std::string::npos);
    QVERIFY(key_of("scheme..weights=1").find("empty part") != std::string::npos);
  }

  void presets_are_grouped_by_bits_and_purpose_and_say_what_they_cost() {
    ModelInfo model;
    model.name = "tiny";
    BlockInfo block;
    for (const auto& [name, out, in] : {std::tuple{"q_proj", 256, 256}, std::tuple{"down_proj", 256, 512}}) {
      LinearInfo linear;
      linear.tensor = std::string("model.layers.0.") + name + ".weight";
      linear.out_features = out;
      linear.in_features = in;
      linear.bytes = static_cast<uint64_t>(2 * out * in);
      block.linears.push_back(linear);
    }
    model.blocks = {block};
    for (const Preset& preset : presets()) {
      const auto& groups = preset_groups();
      QVERIFY2(std::find(groups.begin(), groups.end(), group_of(preset)) != groups.end(), preset.name.c_str());
      // What costs nothing needs no text, and what needs one is never said to cost nothing.
      Recipe recipe;
      recipe.model = "m";
      apply(preset, recipe);
      bool alone = true;
      try {
        validate(recipe);
      } catch (const RecipeError&) {
        alone = false;
      }
      QCOMPARE(cost_of(preset) == PresetCost::rounding, alone);
    }
    const std::vector<std::tuple<const char*, const char*, PresetCost>> expected = {
        {"w4-g64-asym", "4 bits, weights", PresetCost::rounding},         {"gptq-w4-g128-sym", "4 bits, weights", PresetCost::calibration}, {"best-w4-awq-clip-gptq", "4 bits, weights", PresetCost::search},
        {"best-w4-tuned", "4 bits, weights", PresetCost::training},       {"autoround-w4-g128-sym", "4 bits, weights", PresetCost::training}, {"w8-g128", "8 bits, weights", PresetCost::rounding},
        {"spqr-w3-g16", "3 and 2 bits, weights", PresetCost::calibration}, {"smoothquant-w8a8", "Weights and activations", PresetCost::calibration}, {"fp8-dynamic", "FP8 and FP4", PresetCost::rounding},
        {"nvfp4-gptq", "FP8 and FP4", PresetCost::calibration},           {"gguf-q6-k", "GGUF types", PresetCost::rounding},                {"gguf-q4-k-m-imatrix", "GGUF types", PresetCost::calibration},
        {"wanda-2-4-w4", "Sparse", PresetCost::calibration},              {"w8-kv8", "With the KV cache", PresetCost::rounding},            {"fp8-kv8-static", "With the KV cache", PresetCost::calibration}};
    for (const auto& [name, group, cost] : expected) {
      QCOMPARE(QString::fromStdString(group_of(find_preset(name))), QString(group));
      QVERIFY2(cost_of(find_preset(name)) == cost, name);
    }
    // 196608 weights of 4 bits, and for every 64 a float16 scale and a 4-bit zero point.
    const auto size = size_of(find_preset("w4-g64-asym"), model);
    QVERIFY(size);
    QCOMPARE(size->bits_per_weight, 4 + 20.0 / 64);
    QCOMPARE(size->bytes, 196608 * (4 + 20.0 / 64) / 8);
    QCOMPARE(size_of(find_preset("hqq-w4-g64"), model)->bits_per_weight, 4 + 32.0 / 64);  // its zero points stay floats
    const auto kept = size_of(find_preset("quik-w4-g128-sym"), model);
    QVERIFY(kept && kept->at_least && !size->at_least);
    QVERIFY(!size_of(find_preset("spqr-w3-g16"), model));  // scales in few bits
    const auto listed = presets_of("4 bits, weights", presets());
    QVERIFY(listed.size() > 10 && cost_of(listed.front()) == PresetCost::rounding && cost_of(listed.back()) == PresetCost::training);
    QVERIFY(!size_of(find_preset("gguf-q4-k-m-gptq"), model));  // each linear has a type of its own
    model.blocks.front().linears.front().in_features = 250;     // which only groups of 2, 5, 10 … divide
    QVERIFY(!size_of(find_preset("w4-g64-asym"), model));
  }

  void every_preset_makes_a_valid_recipe() {
    const std::vector<Preset> all = presets();
    QVERIFY(all.size() >= 10);
    for (const Preset& preset : all) {
      QVERIFY2(!preset.title.empty() && !preset.description.empty(), preset.name.c_str());
      Recipe r;
      r.model = "/m";
      apply(preset, r);
      r.calibration = CalibrationSpec{};
      r.calibration->corpus.path = "/c.txt";
      validate(r);
      QVERIFY2(parse_recipe(to_yaml(r), "r") == r, preset.name.c_str());
    }
    QCOMPARE(find_preset("w4-g64-asym").scheme.weights->group_size, int64_t{64});
    try {
      find_preset("w4-g64-asim");
      QFAIL("accepted");
    } catch (const InputError& e) {
      QVERIFY(std::string(e.what()).find("w4-g64-asym") != std::string::npos);
    }
  }
};

QTEST_GUILESS_MAIN(TestRecipe)
#include "test_recipe.moc"
