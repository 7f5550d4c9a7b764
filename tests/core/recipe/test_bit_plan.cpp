// Bits of each linear: read off a scheme, changed with what is tied, summed up, and written as a scheme that says just that.
#include <QtTest/QtTest>
#include <cmath>
#include <random>

#include "core/base/error.h"
#include "core/recipe/bit_plan.h"

using namespace qb;

namespace {

// Blocks with q and k (one input), o, two experts of two linears each.
ModelInfo made_up(int blocks = 4) {
  ModelInfo model;
  model.name = "made up";
  for (int b = 0; b < blocks; ++b) {
    BlockInfo block;
    block.index = b;
    const auto add = [&](const std::string& name, int input, int64_t out, int64_t in) {
      LinearInfo l;
      l.name = name;
      l.tensor = "model.layers." + std::to_string(b) + "." + name + ".weight";
      l.input = input;
      l.out_features = out;
      l.in_features = in;
      block.linears.push_back(l);
    };
    add("self_attn.q_proj", 0, 64, 128);
    add("self_attn.k_proj", 0, 32, 128);
    add("self_attn.o_proj", 1, 128, 64);
    for (const char* expert : {"mlp.experts.0.", "mlp.experts.1."}) {
      add(std::string(expert) + "up_proj", 2, 128, 128);
      add(std::string(expert) + "down_proj", 3 + (expert[12] - '0'), 128, 128);
    }
    block.others.push_back({"input_layernorm.weight", "", "norm", {128}, "F32", 512});
    model.blocks.push_back(block);
  }
  model.before.push_back({"model.embed_tokens.weight", "model.embed_tokens.weight", "embedding", {100, 128}, "BF16", 25600});
  return model;
}

Scheme four_bits() {
  Scheme scheme;
  scheme.weights = parse_candidate("int4g64");
  scheme.weights->range = RangeMethod::mse;  // what a candidate does not say
  return scheme;
}

size_t index_of(const BitPlan& plan, const std::string& module) {
  for (size_t i = 0; i < plan.linears.size(); ++i)
    if (plan.linears[i].module == module) return i;
  throw InternalError("no " + module);
}

}  // namespace

class TestBitPlan : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void a_plan_is_what_the_scheme_says_with_what_engines_join() {
    Scheme scheme = four_bits();
    scheme.ignore = {"*.0.self_attn.o_proj"};
    scheme.overrides = {{"*.experts.*", with_bits(*scheme.weights, 8)}};
    const BitPlan plan = bit_plan(made_up(), scheme);
    QCOMPARE(plan.linears.size(), size_t(4 * 7));
    QCOMPARE(plan.ties.size(), size_t(4 * 3));  // q with k; o; all experts
    QCOMPARE(plan.other_bytes, int64_t(4 * 512 + 25600));
    for (const PlannedLinear& l : plan.linears) QVERIFY(l.weights == scheme.weights_of(l.module));
    QVERIFY(plan.linears[2].ignored && !plan.linears[2].weights);
    QCOMPARE(plan.linears[3].kind, std::string("mlp.experts.*.up_proj"));
    // Sizes by hand: 64 more bits a group of 64 … one float16 scale and a 4-bit or 8-bit zero point.
    double bits = 0, weights = 0;
    for (const PlannedLinear& l : plan.linears) {
      const double count = double(l.out_features * l.in_features), width = l.weights ? l.weights->type.bits : 16;
      weights += count;
      bits += l.weights ? count * width + count / 64 * (16 + width) : count * 16;
    }
    const PlanTotal total = total_of(plan);
    QVERIFY(std::abs(total.bits_per_weight - bits / weights) < 1e-9);
    QCOMPARE(total.bytes, plan.other_bytes + int64_t(bits / 8));
    QVERIFY(std::isnan(total.predicted));
  }

  void changing_one_changes_what_is_tied_and_names_what_does_not_fit() {
    Scheme scheme = four_bits();
    scheme.ignore = {"*.0.self_attn.o_proj"};
    BitPlan plan = bit_plan(made_up(), scheme);
    const QuantSpec eight = *with_bits(*scheme.weights, 8);
    QCOMPARE(eight.type.text(), std::string("int8"));
    QVERIFY(eight.range == RangeMethod::mse);
    QCOMPARE(give(plan, index_of(plan, "model.layers.1.self_attn.k_proj"), eight).size(), size_t(2));
    QVERIFY(plan.linears[index_of(plan, "model.layers.1.self_attn.q_proj")].weights == eight);
    QCOMPARE(give(plan, index_of(plan, "model.layers.1.self_attn.q_proj"), eight).size(), size_t(0));
    QCOMPARE(give(plan, index_of(plan, "model.layers.2.mlp.experts.1.up_proj"), std::nullopt).size(), size_t(4));
    QuantSpec wide = eight;
    wide.group_size = 100;
    try {
      give(plan, index_of(plan, "model.layers.1.self_attn.k_proj"), wide);
      QFAIL("groups of 100 in 128 inputs");
    } catch (const InputError& error) {
      QVERIFY(QString::fromUtf8(error.what()).contains("model.layers.1.self_attn.q_proj"));
    }
    QVERIFY_THROWS_EXCEPTION(InputError, give(plan, index_of(plan, "model.layers.0.self_attn.o_proj"), eight));
  }

  void a_plan_is_written_as_a_scheme_that_says_just_that() {
    std::mt19937 random(7);
    const ModelInfo model = made_up(6);
    for (int round = 0; round < 30; ++round) {
      Scheme scheme = four_bits();
      scheme.ignore = {"*.5.self_attn.o_proj"};
      BitPlan plan = bit_plan(model, scheme);
      for (size_t i = 0; i < plan.linears.size(); ++i) {
        if (plan.linears[i].ignored || random() % 3 != 0) continue;
        const int bits[] = {0, 2, 3, 8};
        const int wanted = bits[random() % 4];
        give(plan, i, wanted == 0 ? std::nullopt : with_bits(*scheme.weights, wanted));
      }
      const Scheme written = planned_scheme(plan, scheme);
      for (const PlannedLinear& l : plan.linears) QVERIFY2(written.weights_of(l.module) == l.weights, l.module.c_str());
      QVERIFY(written.ignore == scheme.ignore);
    }
    // One block's q and k: one override. Nothing changed: none.
    Scheme scheme = four_bits();
    BitPlan plan = bit_plan(model, scheme);
    QVERIFY(planned_scheme(plan, scheme) == scheme);
    give(plan, 0, with_bits(*scheme.weights, 8));
    QCOMPARE(planned_scheme(plan, scheme).overrides.size(), size_t(1));
  }

  void one_override_stands_in_front_of_the_others_and_takes_its_own_place_again() {
    const ModelInfo model = made_up();
    Scheme scheme = four_bits();
    scheme.overrides = {{"*.self_attn.*", with_bits(*scheme.weights, 3)}};
    const QuantSpec eight = *with_bits(*scheme.weights, 8);
    Scheme next = with_override(model, scheme, "model.layers.2.self_attn.q_proj", eight);
    QCOMPARE(next.overrides.size(), size_t(2));
    for (const PlannedLinear& l : bit_plan(model, next).linears) {
      const bool given = l.block == 2 && (l.name == "self_attn.q_proj" || l.name == "self_attn.k_proj");
      QVERIFY2(l.weights == (given ? std::optional(eight) : scheme.weights_of(l.module)), l.module.c_str());
    }
    next = with_override(model, next, "model.layers.2.self_attn.k_proj", with_bits(*scheme.weights, 6));
    QCOMPARE(next.overrides.size(), size_t(2));
    QVERIFY(with_override(model, next, "model.layers.2.self_attn.q_proj", with_bits(*scheme.weights, 3)) == scheme);  // what the others say anyway
    next = with_override(model, scheme, "model.layers.0.mlp.experts.1.down_proj", eight);
    QVERIFY(next.weights_of("model.layers.0.mlp.experts.0.up_proj") == eight);
    QVERIFY(next.weights_of("model.layers.1.mlp.experts.0.up_proj") == scheme.weights);
    QVERIFY_THROWS_EXCEPTION(InputError, with_override(model, scheme, "model.layers.9.self_attn.q_proj", eight));
  }

  void what_a_survey_found_is_summed_where_it_tried_the_weights() {
    const ModelInfo model = made_up();
    const Scheme scheme = four_bits();
    BitPlan plan = bit_plan(model, scheme);
    Sensitivity survey;
    survey.candidates = {"int4g64", "int8g64"};
    for (const PlannedLinear& l : plan.linears) {
      LinearSensitivity found;
      found.module = l.module;
      for (const std::string& candidate : survey.candidates) {
        CandidateSensitivity c;
        c.candidate = candidate;
        c.guided = candidate == "int4g64" ? 0.5 : 0.25;
        c.relative_error = 0.125;
        found.candidates.push_back(c);
      }
      survey.linears.push_back(found);
    }
    QCOMPARE(total_of(plan, &survey).predicted, 0.5 * 28);
    QCOMPARE(total_of(plan, &survey, "gram").predicted, 0.125 * 28);
    give(plan, 0, with_bits(*scheme.weights, 8));
    give(plan, 2, std::nullopt);  // float costs nothing
    QCOMPARE(total_of(plan, &survey).predicted, 0.5 * 25 + 0.25 * 2);
    give(plan, 2, with_bits(*scheme.weights, 3));
    QCOMPARE(total_of(plan, &survey).unknown, int64_t(1));
    QVERIFY(std::isnan(total_of(plan, &survey).predicted));
    QVERIFY(std::isnan(total_of(plan, &survey, "measured").predicted));
  }

  void words_for_candidates_are_those_of_a_survey() {
    for (const char* text : {"int4g64", "int8c", "int4g128s", "e4m3c", "int3t", "q4_K", "mxfp4"}) QCOMPARE(candidate_text(*parse_candidate(text)), std::string(text));
    QCOMPARE(candidates_beside(*parse_candidate("int4g32s")), (std::vector<std::string>{"int2g32s", "int3g32s", "int4g32s", "int5g32s", "int6g32s", "int8g32s"}));
    QCOMPARE(candidates_beside(*parse_candidate("q4_K")), (std::vector<std::string>{"q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "q8_0"}));
    const QuantSpec base = *four_bits().weights;
    const QuantSpec spec = with_candidate(base, *parse_candidate("int3g32s"));
    QVERIFY(spec.symmetric && spec.group_size == 32 && spec.type.bits == 3 && spec.range == RangeMethod::mse);
    QVERIFY(with_candidate(base, *parse_candidate("q4_K")) == *parse_candidate("q4_K"));
  }
};

QTEST_GUILESS_MAIN(TestBitPlan)
#include "test_bit_plan.moc"
