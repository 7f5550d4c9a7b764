#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <algorithm>
#include <cctype>
#include <set>

#include "core/base/error.h"
#include "core/quant/scheme.h"
#include "core/quant/spec_fields.h"

using namespace qb;

namespace {

QuantSpec group(int bits, int64_t size, bool symmetric) {
  QuantSpec s;
  s.type.bits = bits;
  s.group_size = size;
  s.symmetric = symmetric;
  return s;
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

class TestScheme : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void number_types_are_read_and_written() {
    for (const char* text : {"int1", "int4", "int8", "e4m3", "e5m2", "e3m2", "e2m1", "e4m7", "e3m0"}) QCOMPARE(NumberType::parse(text)->text(), std::string(text));
    for (const char* text : {"int0", "int9", "int", "e0m3", "e9m2", "e4", "4", "E4M3", "int4 ", "", "e4m11"}) QVERIFY2(!NumberType::parse(text), text);
    QCOMPARE(NumberType::parse("e4m3")->bits, 8);
  }

  void every_enumerator_has_a_text() {
    for (int i = 0; i <= static_cast<int>(Granularity::head); ++i) QVERIFY(parse_granularity(to_text(static_cast<Granularity>(i))) == static_cast<Granularity>(i));
    for (int i = 0; i <= static_cast<int>(RangeMethod::hqq); ++i) QVERIFY(parse_range_method(to_text(static_cast<RangeMethod>(i))) == static_cast<RangeMethod>(i));
    for (int i = 0; i <= static_cast<int>(HeadRounding::gptq); ++i) QVERIFY(parse_head_rounding(to_text(static_cast<HeadRounding>(i))) == static_cast<HeadRounding>(i));
    for (int i = 0; i <= static_cast<int>(ScaleType::e4m3); ++i) QVERIFY(parse_scale_type(to_text(static_cast<ScaleType>(i))) == static_cast<ScaleType>(i));
    QVERIFY(!parse_granularity("groups"));
  }

  void every_field_of_a_spec_is_whole() {
    for (const SpecRole role : {SpecRole::weights, SpecRole::activations, SpecRole::cache}) {
      std::set<std::string> names, titles;
      QCOMPARE(spec_fields(role).front().knob.name, std::string("type"));
      for (const SpecField& field : spec_fields(role)) {
        const KnobInfo& knob = field.knob;
        const std::string what = to_text(role) + "." + knob.name;
        QVERIFY2(names.insert(knob.name).second && titles.insert(knob.title).second, what.c_str());
        QVERIFY2(!knob.title.empty() && std::isupper(static_cast<unsigned char>(knob.title.front())) && knob.title.find('_') == std::string::npos && !knob.help.empty(), what.c_str());
        QVERIFY2(field.get && field.set && field.applies && field.written && field.stored, what.c_str());
        QVERIFY2(find_spec_field(role, knob.name) == &field, what.c_str());
        QVERIFY2(knob_problem(knob, knob.default_value).empty() || !field.offered, what.c_str());
        if (knob.type == KnobType::choice) QVERIFY2(!knob.choices.empty() && !field.expected.empty() && (field.choice_titles.empty() || field.choice_titles.size() == knob.choices.size()), what.c_str());
        else QVERIFY2(knob.choices.empty(), what.c_str());
        // What is set is what is got, and nothing else changes with it but what the type fixes.
        const std::vector<KnobValue> values = knob.type == KnobType::boolean   ? std::vector<KnobValue>{true, false}
                                              : knob.type == KnobType::integer ? std::vector<KnobValue>{static_cast<int64_t>(knob.minimum), static_cast<int64_t>(knob.maximum)}
                                              : knob.type == KnobType::real    ? std::vector<KnobValue>{knob.minimum, knob.maximum}
                                                                               : std::vector<KnobValue>(knob.choices.begin(), knob.choices.end());
        for (const KnobValue& value : values) {
          QuantSpec spec = default_spec(role);
          QVERIFY2(field.set(spec, value) && field.get(spec) == value, (what + " " + to_text(value)).c_str());
          for (const SpecField& other : spec_fields(role))
            if (&other != &field && knob.name != "type") QVERIFY2(other.get(spec) == other.get(default_spec(role)), (what + " changes " + other.knob.name).c_str());
        }
        QuantSpec spec = default_spec(role);
        if (knob.type == KnobType::choice) QVERIFY2(!field.set(spec, std::string("nonsense")) && spec == default_spec(role), what.c_str());
      }
    }
    QVERIFY(!find_spec_field(SpecRole::weights, "dynamic") && !find_spec_field(SpecRole::cache, "heads")->offered);
  }

  // Two specs differ only where a field of the table does: none was forgotten there.
  void the_table_has_every_member() {
    std::set<std::string> changed;
    const QuantSpec defaults = default_spec(SpecRole::activations);
    auto seen = [&](auto change) {
      QuantSpec spec = defaults;
      change(spec);
      QVERIFY(!(spec == defaults));
      for (const SpecField& field : spec_fields(SpecRole::activations))
        if (field.get(spec) != field.get(defaults)) changed.insert(field.knob.name);
    };
    seen([](QuantSpec& s) { s.type.bits = 3; });
    seen([](QuantSpec& s) { s.symmetric = false; });
    seen([](QuantSpec& s) { s.granularity = Granularity::head; });
    seen([](QuantSpec& s) { s.group_size = 7; });
    seen([](QuantSpec& s) { s.block_rows = 7; });
    seen([](QuantSpec& s) { s.block_cols = 7; });
    seen([](QuantSpec& s) { s.heads = 7; });
    seen([](QuantSpec& s) { s.round_zero_point = false; });
    seen([](QuantSpec& s) { s.narrow_range = true; });
    seen([](QuantSpec& s) { s.full_scale = false; });
    seen([](QuantSpec& s) { s.scale_type = ScaleType::bf16; });
    seen([](QuantSpec& s) { s.range = RangeMethod::mse; });
    seen([](QuantSpec& s) { s.mse_grid = 7; });
    seen([](QuantSpec& s) { s.mse_max_shrink = 0.1; });
    seen([](QuantSpec& s) { s.mse_norm = 1; });
    seen([](QuantSpec& s) { s.hqq_norm = 1; });
    seen([](QuantSpec& s) { s.hqq_beta = 1; });
    seen([](QuantSpec& s) { s.hqq_kappa = 2; });
    seen([](QuantSpec& s) { s.hqq_iterations = 7; });
    seen([](QuantSpec& s) { s.dynamic = false; });
    QCOMPARE(changed.size(), spec_fields(SpecRole::activations).size());
  }

  void a_choice_takes_what_would_contradict_it_along() {
    auto chosen = [](SpecRole role, QuantSpec spec, const char* name, const KnobValue& value) {
      if (!choose(spec, *find_spec_field(role, name), value)) throw InternalError(name);
      return spec;
    };
    const QuantSpec weights = default_spec(SpecRole::weights), inputs = default_spec(SpecRole::activations), cache = default_spec(SpecRole::cache);
    QuantSpec asymmetric = weights;
    asymmetric.symmetric = false;
    QVERIFY(chosen(SpecRole::weights, asymmetric, "type", std::string("e4m3")).symmetric);
    QVERIFY(chosen(SpecRole::weights, asymmetric, "type", std::string("Q4_k")) == spec_of(Storage::q4_k));
    QuantSpec three = weights;
    three.type.bits = 3;
    QVERIFY(chosen(SpecRole::weights, spec_of(Storage::q4_k), "type", std::string("int3")) == three);
    QVERIFY(chosen(SpecRole::activations, inputs, "type", std::string("nvfp4")) == input_spec_of(Storage::nvfp4));
    QuantSpec none = cache;
    QVERIFY(!choose(none, *find_spec_field(SpecRole::cache, "type"), std::string("q4_K")) && none == cache);
    const QuantSpec fixed = chosen(SpecRole::activations, inputs, "dynamic", false);
    QVERIFY(fixed.granularity == Granularity::tensor && !fixed.dynamic);
    QVERIFY(chosen(SpecRole::activations, fixed, "granularity", std::string("token")).dynamic);
    QVERIFY(chosen(SpecRole::cache, cache, "dynamic", false).granularity == Granularity::head);
    QVERIFY(!chosen(SpecRole::cache, cache, "granularity", std::string("tensor")).dynamic);
    QVERIFY(chosen(SpecRole::cache, chosen(SpecRole::cache, cache, "granularity", std::string("tensor")), "dynamic", true).granularity == Granularity::token);
    // Scales that are left to the target, and named again.
    QuantSpec named = chosen(SpecRole::weights, weights, "scale_type", std::string("bfloat16"));
    QVERIFY(named.scale_type == ScaleType::bf16 && !named.scale_type_open);
    QVERIFY(chosen(SpecRole::weights, named, "scale_type", std::string()) == weights);
  }

  void patterns_match_whole_module_names() {
    const std::string module = "model.layers.3.mlp.down_proj";
    for (const char* yes : {"*", "*down_proj", "model.layers.?.mlp.*", "model.*.3.*", "model.layers.3.mlp.down_proj", "re:.*\\.(down|up)_proj", "re:model\\.layers\\.[0-5]\\..*"})
      QVERIFY2(matches(yes, module), yes);
    for (const char* no : {"", "down_proj", "model.layers.3", "*up_proj", "model.layers.??.mlp.*", "re:down_proj", "re:model"}) QVERIFY2(!matches(no, module), no);
    QVERIFY_EXCEPTION_THROWN(matches("re:(", module), InputError);
  }

  void a_long_pattern_is_matched_in_reasonable_time() {
    QElapsedTimer timer;
    timer.start();
    QVERIFY(!matches("*a*a*a*a*a*a*a*a*a*a*a*b", std::string(2000, 'a')));
    QVERIFY(timer.elapsed() < 1000);
  }

  void ignore_goes_before_overrides_and_the_first_override_wins() {
    Scheme scheme;
    scheme.weights = group(4, 64, true);
    scheme.activations = group(8, 64, true);
    scheme.ignore = {"*.0.*"};
    scheme.overrides = {{"*down_proj", group(8, 64, true)}, {"*.mlp.*", group(3, 64, true)}, {"*o_proj", std::nullopt}};
    QVERIFY(!scheme.weights_of("model.layers.0.mlp.down_proj"));
    QCOMPARE(scheme.weights_of("model.layers.1.mlp.down_proj")->type.bits, 8);
    QCOMPARE(scheme.weights_of("model.layers.1.mlp.up_proj")->type.bits, 3);
    QCOMPARE(scheme.weights_of("model.layers.1.self_attn.q_proj")->type.bits, 4);
    QVERIFY(!scheme.weights_of("model.layers.1.self_attn.o_proj"));
    // Where the weight stays float, so does what enters.
    QVERIFY(!scheme.activations_of("model.layers.1.self_attn.o_proj"));
    QVERIFY(!scheme.activations_of("model.layers.0.mlp.down_proj"));
    QVERIFY(scheme.activations_of("model.layers.1.mlp.up_proj"));
  }

  void ignored_modules_keep_float_activations_without_weight_quantization() {
    Scheme scheme;
    scheme.activations = group(8, 64, true);
    scheme.ignore = {"*.0.*"};
    QVERIFY(scheme.activations_of("model.layers.1.mlp.up_proj"));
    QVERIFY(!scheme.activations_of("model.layers.0.mlp.up_proj"));
  }

  void a_misfit_names_what_was_found_and_the_sizes_that_fit() {
    const std::string text = misfit(group(4, 128, true), 576, 576);
    QVERIFY2(holds(text, "128") && holds(text, "576") && holds(text, "192") && holds(text, "64") && holds(text, "32"), text.c_str());
    QVERIFY(!holds(text.substr(text.find("do: ")), "128"));
    QVERIFY(misfit(group(4, 64, true), 576, 576).empty());
    QVERIFY(holds(misfit(group(4, 64, true), 8, 97), "do: 97"));  // a prime: the whole row is the only group
    QVERIFY(holds(misfit(group(4, 64, true), 8, 1031), "per channel"));
    QVERIFY(!misfit(group(4, 0, true), 8, 64).empty());
    QVERIFY(!misfit(group(4, -1, true), 8, 64).empty());
    QVERIFY(!misfit(group(1, 64, true), 8, 64).empty());
    QVERIFY(misfit(group(1, 64, false), 8, 64).empty());
    QuantSpec s = group(4, 64, true);
    s.range = RangeMethod::hqq;
    QVERIFY(holds(misfit(s, 8, 64), "asymmetric"));
    s.symmetric = false;
    QVERIFY(misfit(s, 8, 64).empty());
    s = group(4, 64, true);
    s.granularity = Granularity::head;
    s.heads = 3;
    QVERIFY(holds(misfit(s, 8, 64), "3 heads"));
    s.granularity = Granularity::block;
    QVERIFY(misfit(s, 100, 100).empty());  // ragged edges fit
    s.block_rows = 0;
    QVERIFY(!misfit(s, 100, 100).empty());
  }

  void activations_take_what_a_kernel_can_compute() {
    QuantSpec s = group(8, 64, true);
    s.granularity = Granularity::token;
    QVERIFY(activation_misfit(s, 576).empty());
    s.granularity = Granularity::channel;
    QVERIFY(holds(activation_misfit(s, 576), "channel"));
    s.granularity = Granularity::group;
    s.group_size = 128;
    QVERIFY(holds(activation_misfit(s, 576), "64"));
    s.granularity = Granularity::head;
    s.heads = 7;
    QVERIFY(holds(activation_misfit(s, 576), "7 heads"));
    s.granularity = Granularity::token;
    s.dynamic = false;
    QVERIFY(holds(activation_misfit(s, 576), "not one per token; use granularity tensor"));
    s.granularity = Granularity::tensor;
    QVERIFY(activation_misfit(s, 576).empty());
    s.symmetric = s.round_zero_point = false;
    QVERIFY(holds(activation_misfit(s, 576), "round_zero_point"));
  }

  void bits_per_weight_count_scales_and_zero_points() {
    QCOMPARE(bits_per_weight(group(4, 64, true), 576, 576), 4 + 16.0 / 64);
    QCOMPARE(bits_per_weight(group(4, 64, false), 576, 576), 4 + 20.0 / 64);
    QuantSpec s = group(4, 64, false);
    s.round_zero_point = false;
    QCOMPARE(bits_per_weight(s, 576, 576), 4 + 32.0 / 64);
    s.scale_type = ScaleType::f32;
    QCOMPARE(bits_per_weight(s, 576, 576), 4 + 64.0 / 64);
    s = group(8, 64, true);
    s.granularity = Granularity::channel;
    QCOMPARE(bits_per_weight(s, 100, 200), 8 + 16.0 / 200);
    s.granularity = Granularity::block;
    QCOMPARE(bits_per_weight(s, 129, 128), 8 + 2 * 16.0 / (129 * 128));
    s.granularity = Granularity::tensor;
    QCOMPARE(bits_per_weight(s, 100, 200), 8 + 16.0 / 20000);
  }

  void a_description_says_it_in_the_fields_terms() {
    Scheme scheme;
    QCOMPARE(describe(scheme), std::string("float"));
    scheme.weights = group(4, 64, false);
    QCOMPARE(describe(scheme), std::string("W4A16 g64 asymmetric"));
    scheme.activations = group(8, 64, true);
    scheme.activations->granularity = Granularity::token;
    scheme.weights->symmetric = true;
    scheme.weights->granularity = Granularity::channel;
    QCOMPARE(describe(scheme), std::string("W4A8 per channel symmetric"));
    QCOMPARE(describe(group(3, 32, false)), std::string("int3 g32 asymmetric"));
    scheme.embedding = group(4, 64, true);
    scheme.head_rounding = HeadRounding::gptq;  // of a matrix that is both
    QCOMPARE(describe(scheme), std::string("W4A8 per channel symmetric, embedding int4 g64 symmetric gptq"));
    scheme.embedding.reset();
    scheme.head = group(4, 64, true);
    scheme.head_rounding = HeadRounding::gptq;
    QCOMPARE(describe(scheme), std::string("W4A8 per channel symmetric, head int4 g64 symmetric gptq"));
    scheme.embedding = spec_of(Storage::q6_k);
    QCOMPARE(describe(scheme), std::string("W4A8 per channel symmetric, embedding q6_K, head int4 g64 symmetric gptq"));
    scheme.head = scheme.embedding;
    QCOMPARE(describe(scheme), std::string("W4A8 per channel symmetric, embedding and head q6_K gptq"));
  }
};

QTEST_GUILESS_MAIN(TestScheme)
#include "test_scheme.moc"
