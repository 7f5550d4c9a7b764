// A configuration's keys: those that were read are understood, some are harmless at some values, and all others are refused.
#include <QtTest/QtTest>
#include <algorithm>

#include "core/base/error.h"
#include "core/model/families.h"
#include "core/model/model.h"

namespace {

using nlohmann::json;

json llama(const json& changes = json::object()) {
  json config = {{"model_type", "llama"}, {"vocab_size", 40}, {"hidden_size", 16}, {"intermediate_size", 24}, {"num_hidden_layers", 2},
                 {"num_attention_heads", 2}, {"max_position_embeddings", 64}};
  config.update(changes);
  return config;
}

// The refusal's text, or "" when the configuration is accepted.
std::string refusal(const json& config) {
  try {
    qb::architecture_from_config(qb::ConfigFields(config, "config.json"));
    return "";
  } catch (const qb::InputError& error) {
    return error.what();
  }
}

std::vector<std::string> unread(const qb::ConfigFields& fields) {
  std::vector<std::string> keys;
  for (const auto& key : fields.unread()) keys.push_back(key.spelled);
  return keys;
}

}  // namespace

class TestKnownKeys : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void what_is_read_is_remembered_through_children_and_copies();
  void other_names_count_as_read_where_they_say_the_same();
  void unknown_keys_are_refused_with_their_value();
  void harmless_keys_are_harmless_at_some_values_only_data();
  void harmless_keys_are_harmless_at_some_values_only();
  void keys_that_another_switches_off_mean_nothing();
  void keys_beside_the_text_part();
  void the_flag_of_tied_embeddings_beside_the_text_part();
  void a_value_in_two_places_must_be_the_same();
  void dynamic_ropes_have_no_longest_sequence();
};

void TestKnownKeys::what_is_read_is_remembered_through_children_and_copies() {
  const qb::ConfigFields fields({{"a", 1}, {"b", 2}, {"nothing", nullptr}, {"inner", {{"c", 3}, {"d", 4}}}, {"unopened", {{"e", 5}}}}, "config.json");
  QCOMPARE(unread(fields), (std::vector<std::string>{"a", "b", "inner", "unopened"}));
  const qb::ConfigFields copy = fields;
  QCOMPARE(copy.integer({"a"}), 1);
  QCOMPARE(fields.child("inner").integer({"c"}), 3);
  QCOMPARE(unread(fields), (std::vector<std::string>{"b", "inner.d", "unopened"}));
  fields.without_effect({"unopened", "b"});
  QCOMPARE(unread(fields), std::vector<std::string>{"inner.d"});
  QVERIFY(!fields.asked("elsewhere"));
  QCOMPARE(fields.integer({"elsewhere"}, 7), 7);
  QVERIFY(fields.asked("elsewhere"));
}

void TestKnownKeys::other_names_count_as_read_where_they_say_the_same() {
  const qb::ConfigFields same({{"n_layer", 2}, {"num_hidden_layers", 2}}, "config.json");
  QCOMPARE(same.integer({"n_layer", "num_hidden_layers"}), 2);
  QVERIFY(same.unread().empty());
  const qb::ConfigFields different({{"n_layer", 2}, {"num_hidden_layers", 3}}, "config.json");
  QCOMPARE(different.integer({"n_layer", "num_hidden_layers"}), 2);
  QCOMPARE(unread(different), std::vector<std::string>{"num_hidden_layers"});
}

void TestKnownKeys::unknown_keys_are_refused_with_their_value() {
  QCOMPARE(refusal(llama()), std::string());
  const std::string text = refusal(llama({{"residual_multiplier", 0.5}}));
  for (const char* part : {"config.json", "\"residual_multiplier\"", "0.5", "expected", "llama"}) QVERIFY2(text.find(part) != std::string::npos, text.c_str());
  QVERIFY(refusal(llama({{"rope_parameters", {{"rope_theta", 1e4}, {"alpha", 1000.0}}}})).find("\"rope_parameters.alpha\" is 1000.0") != std::string::npos);
  QCOMPARE(refusal(llama({{"residual_multiplier", nullptr}})), std::string());  // null is absent
  json granite = llama({{"residual_multiplier", 0.5}});
  granite["model_type"] = "granite";
  QCOMPARE(refusal(granite), std::string());
}

void TestKnownKeys::harmless_keys_are_harmless_at_some_values_only_data() {
  QTest::addColumn<QString>("changes");
  QTest::addColumn<QString>("refused");  // part of the message; empty: accepted
  auto row = [](const char* changes, const char* refused) { QTest::newRow(changes) << changes << refused; };
  row(R"({"torch_dtype": "bfloat16", "transformers_version": "4.40.0", "use_cache": true, "bos_token_id": 1, "image_token_id": 5})", "");
  row(R"({"attention_dropout": 0.1, "initializer_range": 0.02, "pretraining_tp": 2, "unsloth_fixed": true, "temperature": 0.6})", "");
  row(R"({"is_causal": true})", "");
  row(R"({"is_causal": false})", "\"is_causal\" is false, expected true");
  row(R"({"is_encoder_decoder": true})", "\"is_encoder_decoder\" is true, expected false");
  row(R"({"chunk_size_feed_forward": 0, "add_cross_attention": false, "pruned_heads": {}})", "");
  row(R"({"chunk_size_feed_forward": 8})", "\"chunk_size_feed_forward\" is 8, expected 0");
  row(R"({"pruned_heads": {"0": [1]}})", "pruned_heads");
  row(R"({"layer_types": ["full_attention", "full_attention"]})", "");
  row(R"({"layer_types": ["full_attention", "sliding_attention"]})", "\"layer_types\" is [\"full_attention\",\"sliding_attention\"], expected every entry \"full_attention\"");
  row(R"({"partial_rotary_factor": 1.0})", "");
  row(R"({"partial_rotary_factor": 0.5})", "\"partial_rotary_factor\" is 0.5, expected 1");
  row(R"({"sliding_window": null})", "");
  row(R"({"sliding_window": 4096})", "\"sliding_window\" is 4096");
}

void TestKnownKeys::harmless_keys_are_harmless_at_some_values_only() {
  QFETCH(QString, changes);
  QFETCH(QString, refused);
  const std::string text = refusal(llama(json::parse(changes.toStdString())));
  if (refused.isEmpty()) QCOMPARE(text, std::string());
  QVERIFY2(text.find(refused.toStdString()) != std::string::npos, text.c_str());
}

void TestKnownKeys::keys_that_another_switches_off_mean_nothing() {
  json qwen = llama({{"use_sliding_window", false}, {"sliding_window", 32}, {"max_window_layers", 1}, {"num_key_value_heads", 2}});
  qwen["model_type"] = "qwen2";
  QCOMPARE(refusal(qwen), std::string());
  qwen["use_sliding_window"] = true;
  QCOMPARE(refusal(qwen), std::string());
  qwen["layer_types"] = {"full_attention", "chunked_attention"};
  QVERIFY(refusal(qwen).find("layer_types") != std::string::npos);
}

void TestKnownKeys::keys_beside_the_text_part() {
  json outer = {{"model_type", "llava"}, {"text_config", llama()}, {"vision_config", {{"hidden_size", 8}}}, {"image_token_index", 3}, {"projector_hidden_act", "gelu"}};
  QCOMPARE(refusal(outer), std::string());
  outer["vocab_size"] = 40;
  QCOMPARE(refusal(outer), std::string());
  outer["vocab_size"] = 41;
  QVERIFY2(refusal(outer).find("\"vocab_size\" is 41, expected 40, as text_config says") != std::string::npos, refusal(outer).c_str());
  outer.erase("vocab_size");
  outer["rms_norm_eps"] = 1e-5;  // silent in text_config
  QVERIFY2(refusal(outer).find("\"rms_norm_eps\"") != std::string::npos, refusal(outer).c_str());
  outer.erase("rms_norm_eps");
  outer["is_causal"] = false;
  QVERIFY(refusal(outer).find("is_causal") != std::string::npos);
  outer.erase("is_causal");
  outer["text_config"]["a_key_of_tomorrow"] = 1;
  QVERIFY(refusal(outer).find("\"text_config.a_key_of_tomorrow\" is 1") != std::string::npos);
}

void TestKnownKeys::the_flag_of_tied_embeddings_beside_the_text_part() {
  auto tied = [](const json& outer, const json& inner) {
    json config = {{"model_type", "llava"}, {"text_config", llama(inner)}};
    config.update(outer);
    return qb::architecture_from_config(qb::ConfigFields(config, "config.json")).tied_embeddings;
  };
  const json yes = {{"tie_word_embeddings", true}}, no = {{"tie_word_embeddings", false}}, silent = json::object();
  QVERIFY(tied(yes, no));    // the whole model's flag decides
  QVERIFY(tied(yes, silent));
  QVERIFY(tied(no, yes));    // except in checkpoints from before it was one
  QVERIFY(!tied(no, silent));
  QVERIFY(!tied(no, no));
  QVERIFY(tied(silent, yes));
  QVERIFY(!tied(silent, silent));
}

void TestKnownKeys::a_value_in_two_places_must_be_the_same() {
  QCOMPARE(refusal(llama({{"rope_theta", 500.0}, {"rope_parameters", {{"rope_theta", 500.0}}}})), std::string());
  QVERIFY(refusal(llama({{"rope_theta", 400.0}, {"rope_parameters", {{"rope_theta", 500.0}}}})).find("\"rope_theta\" is 400.0, expected 500, as rope_parameters.rope_theta says") !=
          std::string::npos);
}

void TestKnownKeys::dynamic_ropes_have_no_longest_sequence() {
  auto longest = [](const json& rope) {
    return qb::longest_sequence(qb::architecture_from_config(qb::ConfigFields(llama({{"rope_scaling", rope}}), "config.json")));
  };
  QCOMPARE(longest(nullptr), 64);
  QCOMPARE(longest({{"type", "linear"}, {"factor", 2.0}}), 64);
  QCOMPARE(longest({{"type", "dynamic"}, {"factor", 2.0}}), 0);
}

QTEST_GUILESS_MAIN(TestKnownKeys)
#include "test_known_keys.moc"
