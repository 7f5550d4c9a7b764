// Sweeps: which recipes a file with lists stands for, their names and order, what is left out and what is refused where.
#include <QtTest/QtTest>
#include <algorithm>

#include "core/base/error.h"
#include "core/recipe/sweep.h"

using namespace qb;

namespace {

const std::string kHead = "model: m\ncalibration: {corpus: c.txt}\n";

std::vector<std::string> names(const Sweep& sweep) {
  std::vector<std::string> all;
  for (const SweepRecipe& entry : sweep.recipes) all.push_back(entry.recipe.name);
  return all;
}

using Names = std::vector<std::string>;

std::string problem(const std::string& yaml) {
  try {
    parse_sweep(yaml, "s.yaml");
  } catch (const RecipeError& e) {
    return e.what();
  }
  return "accepted";
}

#define REQUIRE_TEXT(found, part) QVERIFY2((found).find(part) != std::string::npos, (found).c_str())

}  // namespace

class TestSweep : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void lists_where_a_recipe_has_one_value_are_combined() {
    const Sweep sweep = parse_sweep(kHead + "scheme: {weights: {type: [int3, int4], group_size: [32, 64]}}\npipeline: [[rtn], [awq, gptq]]\n", "s.yaml");
    QCOMPARE(sweep.recipes.size(), size_t{8});
    QCOMPARE(names(sweep), (Names{"int3 g32 rtn", "int3 g64 rtn", "int4 g32 rtn", "int4 g64 rtn", "int3 g32 awq+gptq", "int3 g64 awq+gptq", "int4 g32 awq+gptq", "int4 g64 awq+gptq"}));
    QVERIFY(sweep.omitted.empty());
    const SweepRecipe& last = sweep.recipes.back();
    QCOMPARE(last.recipe.scheme.weights->type.bits, 4);
    QCOMPARE(last.recipe.pipeline.size(), size_t{2});
    QCOMPARE(last.differing, (std::vector<SweepValue>{{"scheme.weights.type", "int4"}, {"scheme.weights.group_size", "64"}, {"pipeline", "[awq, gptq]"}}));
  }

  void a_recipe_of_a_sweep_is_the_one_written_by_hand() {
    const Sweep sweep = parse_sweep("model: [a, b]\ndescription: \"it's \\\"quoted\\\": #1\"\ncalibration: {corpus: c.txt, seed: [1, 2]}\nscheme: {weights: {type: int4, symmetric: [true, false]}, activations: [float, {type: int8, granularity: token}]}\n"
                                    "pipeline: [{method: gptq, percdamp: [0.01, 0.1]}]\nseed: 7\n", "s.yaml", "/base");
    QCOMPARE(sweep.recipes.size(), size_t{32});
    const Recipe by_hand = parse_recipe("model: b\ndescription: 'it''s \"quoted\": #1'\ncalibration:\n  corpus: c.txt\n  seed: 2\nscheme:\n  weights:\n    type: int4\n    symmetric: false\n  activations:\n    type: int8\n    granularity: token\n"
                                        "pipeline:\n  - method: gptq\n    percdamp: 0.1\nseed: 7\n", "r.yaml", "/base");
    const auto found = std::find_if(sweep.recipes.begin(), sweep.recipes.end(), [&](const SweepRecipe& entry) { return recipe_hash(entry.recipe) == recipe_hash(by_hand); });
    QVERIFY(found != sweep.recipes.end());
    QCOMPARE(found->recipe.description, by_hand.description);
    QCOMPARE(QString::fromStdString(found->recipe.name), QString::fromStdString(std::string("b asymmetric A int8 per token symmetric percdamp 0.1 sampling seed 2")));
    Recipe named = by_hand;
    named.name = found->recipe.name;
    QVERIFY(named == found->recipe);
  }

  void lists_by_nature_are_swept_by_lists_of_lists_alone() {
    const std::string with = kHead + "scheme: {weights: {type: int4}, ignore: ";
    const std::string evaluation = "evaluation: [{corpus: a.txt}, {corpus: b.txt}]\n";
    const Sweep one = parse_sweep(with + "['*.q_proj', '*.k_proj']}\npipeline: [awq, gptq]\n" + evaluation, "s.yaml");
    QCOMPARE(one.recipes.size(), size_t{1});
    QCOMPARE(one.recipes.front().recipe.scheme.ignore.size(), size_t{2});
    QCOMPARE(one.recipes.front().recipe.evaluation.size(), size_t{2});
    const Sweep two = parse_sweep(with + "[[], ['*.q_proj', '*.k_proj']]}\n" + evaluation, "s.yaml");
    QCOMPARE(two.recipes.size(), size_t{2});
    QCOMPARE(two.recipes[0].recipe.scheme.ignore.size() + two.recipes[1].recipe.scheme.ignore.size(), size_t{2});
    REQUIRE_TEXT(problem(kHead + "scheme: {weights: {type: int4}}\npipeline: [awq, [gptq]]\n"), "s.yaml:4:1: pipeline: 1 of 2 entries are lists");
    REQUIRE_TEXT(problem(kHead + "scheme: {weights: {type: []}}\n"), "scheme.weights.type: an empty list");
    REQUIRE_TEXT(problem(kHead + "scheme: {weights: {type: [[int3, int4]]}}\n"), "found a list in a list");
  }

  void filters_leave_out_pairs_that_make_no_sense() {
    const std::string body = "calibration: {corpus: [data/own.txt, data/other.txt]}\nmodel: m\nscheme: {weights: {type: [int3, int4]}}\npipeline: [[rtn], [{method: gptq, percdamp: 0.1}]]\n";
    const Sweep excluded = parse_sweep("sweep:\n  name: night\n  exclude: [{pipeline: [rtn], calibration.corpus: other}, {scheme.weights.type: int3, pipeline: [gptq]}]\n" + body, "s.yaml");
    QCOMPARE(excluded.name, std::string("night"));
    QCOMPARE(names(excluded), (Names{"int3 rtn own", "int4 rtn own", "int4 gptq own", "int4 gptq other"}));
    QCOMPARE(excluded.omitted.size(), size_t{4});
    QVERIFY(excluded.omitted.front().filtered);
    REQUIRE_TEXT(excluded.omitted.front().reason, "sweep.exclude[1] {scheme.weights.type: int3, pipeline: [gptq]}");
    const Sweep only = parse_sweep("sweep: {only: {scheme.weights.type: [int4, int8], scheme.weights.symmetric: true, calibration.corpus: data/own.txt}}\n" + body, "s.yaml");
    QCOMPARE(names(only), (Names{"rtn", "gptq"}));  // type and text differ no more
    const Sweep idle = parse_sweep("sweep: {exclude: {scheme.weights.type: int2}}\n" + body, "s.yaml");
    QCOMPARE(idle.notes.size(), size_t{1});
    REQUIRE_TEXT(problem("sweep:\n  exclude:\n    - {scheme.weights.typ: int2}\n" + body), "s.yaml:3:7: sweep.exclude[0]: no recipe of the sweep has a key \"scheme.weights.typ\"; did you mean \"scheme.weights.type\"?");
    REQUIRE_TEXT(problem("sweep: {only: {scheme.weights.type: int2}}\n" + body), "sweep: the filters leave no recipe");
    REQUIRE_TEXT(problem("sweep: {excluded: []}\n" + body), "sweep.excluded: unknown key");
  }

  void combinations_that_validation_refuses_are_left_out_with_the_reason() {
    // The type fixes its groups: of four combinations two say otherwise, and one is left of the two that are its own.
    const std::string body = "model: m\nscheme: {weights: {type: [q4_0, int4], group_size: [32, 64]}}\n";
    const Sweep sweep = parse_sweep(body, "s.yaml");
    QCOMPARE(names(sweep), (Names{"q4_0 g32", "int4 g32", "int4 g64"}));
    QCOMPARE(sweep.omitted.size(), size_t{1});
    QCOMPARE(sweep.omitted.front().name, std::string("q4_0 g64"));
    REQUIRE_TEXT(sweep.omitted.front().reason, "scheme.weights.group_size: q4_0 fixes it at 32, found 64");
    QVERIFY(!sweep.omitted.front().filtered);
    REQUIRE_TEXT(problem("sweep: {strict: true}\n" + body), "s.yaml:3:57: scheme.weights.group_size[1]: q4_0 fixes it at 32");
    // The same recipe twice: a default that is written down.
    const Sweep twice = parse_sweep(kHead + "scheme: {weights: {type: int4}}\npipeline: [[gptq], [{method: gptq, percdamp: 0.01}], [rtn]]\n", "s.yaml");
    QCOMPARE(names(twice), (Names{"rtn", "gptq"}));
    QCOMPARE(twice.omitted.front().name, std::string("gptq(percdamp 0.01)"));
    REQUIRE_TEXT(twice.omitted.front().reason, "is the same recipe as \"gptq\"");
  }

  void what_no_recipe_takes_is_an_error_where_it_stands() {
    REQUIRE_TEXT(problem("model: m\nscheme:\n  weights:\n    type: [int4, int44]\n"), "s.yaml:4:18: scheme.weights.type[1]: ");
    REQUIRE_TEXT(problem("model: m\nscheme: {weights: {type: [int3, int4]}}\npipeline: [[rtn], [{method: gptq}]]\n"), "s.yaml:3:21: pipeline[1][0].method: gptq needs a calibration section");
    REQUIRE_TEXT(problem("model: m\nscheme: {weights: {type: [int3, int4]}}\nsed: 1\n"), "s.yaml:3:1: sed: unknown key; did you mean \"seed\"?");
    REQUIRE_TEXT(problem("model: m\nscheme: {weights: {type: int4}}\nseed: " + [] {
                   std::string many = "[0";
                   for (int i = 1; i < 200; ++i) many += ", " + std::to_string(i);
                   return many + "]\ncalibration: {corpus: c, seed: " + many + "]}\n";
                 }()), "40000 recipes, expected at most 10000");
  }

  void settings_hold_for_every_recipe() {
    const std::string body = kHead + "scheme: {weights: {type: [int3, int4], group_size: [32, 64]}}\n";
    const Sweep sweep = parse_sweep(body, "s.yaml", "/base", {"scheme.weights.type=int8", "calibration.corpus=own.txt"}, "/here");
    QCOMPARE(names(sweep), (Names{"g32", "g64"}));
    for (const SweepRecipe& entry : sweep.recipes) {
      QCOMPARE(entry.recipe.scheme.weights->type.bits, 8);
      QCOMPARE(entry.recipe.calibration->corpus.path.string(), std::string("/here/own.txt"));
    }
    try {
      parse_sweep(body, "s.yaml", "", {"scheme.weights.type=int9"}, "");
      QFAIL("taken");
    } catch (const RecipeError& e) {
      REQUIRE_TEXT(std::string(e.what()), "--set: scheme.weights.type");
    }
  }

  void what_shares_statistics_stands_together_and_cheap_recipes_come_first() {
    const Sweep sweep = parse_sweep("model: m\ncalibration: {corpus: [a.txt, b.txt]}\nscheme: {weights: {type: int4}}\npipeline: [[awq, gptq], [tesseraq], [gptq], [rtn], [awq, clip, gptq]]\n", "s.yaml");
    QCOMPARE(names(sweep), (Names{"rtn a", "gptq a", "awq+gptq a", "awq+clip+gptq a", "tesseraq a", "rtn b", "gptq b", "awq+gptq b", "awq+clip+gptq b", "tesseraq b"}));
    QCOMPARE(sweep.recipes.front().product_index, size_t{3});
  }

  void names_are_short_and_unique() {
    const Sweep knobs = parse_sweep(kHead + "scheme: {weights: {type: int4}}\npipeline: [[gptq], [{method: gptq, percdamp: 0.1}], [{method: gptq, percdamp: [0.2, 0.3]}]]\nseed: [1, 2]\n", "s.yaml");
    std::vector<std::string> sorted = names(knobs);
    std::sort(sorted.begin(), sorted.end());
    QCOMPARE(sorted, (Names{"gptq percdamp 0.2 seed 1", "gptq percdamp 0.2 seed 2", "gptq percdamp 0.3 seed 1", "gptq percdamp 0.3 seed 2", "gptq seed 1", "gptq seed 2", "gptq(percdamp 0.1) seed 1", "gptq(percdamp 0.1) seed 2"}));
    QCOMPARE(knobs.recipes.back().differing, (std::vector<SweepValue>{{"pipeline", "[{method: gptq, percdamp: 0.3}]"}, {"pipeline[0].percdamp", "0.3"}, {"seed", "2"}}));
    const Sweep twins = parse_sweep("model: [x/m, y/m, z/m]\nscheme: {weights: {type: int4}}\n", "s.yaml");
    QCOMPARE(names(twins), (Names{"m", "m (2)", "m (3)"}));
  }

  void a_sweep_is_told_from_a_recipe() {
    QVERIFY(is_sweep("model: [a, b]\nscheme: {weights: {type: int4}}\n"));
    QVERIFY(is_sweep("sweep: {name: one}\nmodel: a\n"));
    QVERIFY(is_sweep("model: a\npipeline: [[rtn], [gptq]]\n"));
    QVERIFY(is_sweep("model: a\npipeline: [{method: gptq, percdamp: [0.1]}]\n"));
    QVERIFY(!is_sweep("model: a\npipeline: [rtn, gptq]\nscheme: {ignore: [a, b]}\nevaluation: [{corpus: a}]\n"));
    QVERIFY(!is_sweep(": ["));
    QVERIFY(!is_sweep("text"));
  }
};

QTEST_GUILESS_MAIN(TestSweep)
#include "test_sweep.moc"
