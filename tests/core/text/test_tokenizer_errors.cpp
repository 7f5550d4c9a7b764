#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <functional>

#include "core/base/error.h"
#include "core/text/random.h"
#include "core/text/tokenizer.h"

using nlohmann::json;

namespace {

// A whole tokenizer.json of twelve tokens, good until a test breaks it.
json sample() {
  return json::parse(R"({
    "version": "1.0",
    "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
                     {"id": 12, "content": "<x>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace", "pattern": {"String": "~"}, "content": " "}]},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "\\p{N}"}, "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                       "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "unk_token": null, "vocab": {"<s>": 0, "a": 1, "b": 2, "c": 3, "Ġ": 4, "1": 5, "ab": 6, "abc": 7, "Ġa": 8, "Ġab": 9, "2": 10, "d": 11},
              "merges": [["a", "b"], "ab c", ["Ġ", "a"], "Ġa b"]}})");
}

struct Breakage {
  const char* name;
  std::function<void(json&)> apply;
  const char* expected;  // in the message
};

std::string message_of(const json& document) {
  try {
    qb::Tokenizer::from_json_text(document.dump(), "tokenizer.json");
  } catch (const qb::InputError& e) {
    return e.what();
  }
  return "";
}

}  // namespace

class TestTokenizerErrors : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void the_sample_is_good() {
    const auto t = qb::Tokenizer::from_json_text(sample().dump(), "tokenizer.json");
    QCOMPARE(t->encode("abc ab12<x>~a"), (std::vector<int32_t>{0, 7, 4, 6, 5, 10, 12, 8}));
    QCOMPARE(t->encode("abc", false), std::vector<int32_t>{7});
    QCOMPARE(t->decode(t->encode("abc ab<x>")), std::string("abc ab<x>"));
    QCOMPARE(t->vocabulary_size(), int64_t{13});
    QCOMPARE(t->token(8), std::string("Ġa"));
    QCOMPARE(t->token(99), std::string());
    QCOMPARE(t->id_of("<x>").value(), 12);
    QVERIFY(!t->id_of("zzz"));
    QCOMPARE(t->bos().value(), 0);
    QVERIFY(t->description().find("byte-level BPE") != std::string::npos);
  }

  void a_broken_file_is_refused_by_field_data() {
    QTest::addColumn<int>("index");
    for (size_t i = 0; i < breakages().size(); ++i) QTest::newRow(breakages()[i].name) << static_cast<int>(i);
  }
  void a_broken_file_is_refused_by_field() {
    QFETCH(int, index);
    const Breakage& breakage = breakages()[static_cast<size_t>(index)];
    json document = sample();
    breakage.apply(document);
    const std::string message = message_of(document);
    QVERIFY2(message.starts_with("tokenizer.json"), message.c_str());
    QVERIFY2(message.find(breakage.expected) != std::string::npos, message.c_str());
  }

  void every_required_field_is_missed() {
    for (const char* pointer : {"/model", "/model/vocab", "/model/merges", "/added_tokens/0/id", "/added_tokens/0/content", "/added_tokens/0/single_word",
                                "/added_tokens/0/lstrip", "/added_tokens/0/rstrip", "/added_tokens/0/normalized", "/added_tokens/0/special",
                                "/normalizer/type", "/normalizer/normalizers", "/normalizer/normalizers/1/pattern", "/normalizer/normalizers/1/content",
                                "/pre_tokenizer/type", "/pre_tokenizer/pretokenizers", "/pre_tokenizer/pretokenizers/0/pattern",
                                "/pre_tokenizer/pretokenizers/0/behavior", "/pre_tokenizer/pretokenizers/0/invert",
                                "/pre_tokenizer/pretokenizers/1/add_prefix_space", "/post_processor/type", "/post_processor/single",
                                "/post_processor/special_tokens", "/post_processor/special_tokens/<s>/ids", "/decoder/type"}) {
      const json::json_pointer at(pointer);
      json without = sample(), mistyped = sample();
      without.at(at.parent_pointer()).erase(at.back());
      mistyped[at] = 3.5;
      const std::string missing = message_of(without), wrong = message_of(mistyped);
      QVERIFY2(missing.find(at.back()) != std::string::npos && missing.find("missing") != std::string::npos, (pointer + (": " + missing)).c_str());
      QVERIFY2(wrong.find("expected") != std::string::npos && wrong.find("number") != std::string::npos, (pointer + (": " + wrong)).c_str());
    }
  }

  void deep_nesting_is_refused() {
    json document = sample();
    document["normalizer"] = "HERE";
    std::string text = document.dump(), open, close;
    for (int i = 0; i < 5000; ++i) {
      open += R"({"type":"Sequence","normalizers":[)";
      close += "]}";
    }
    text.replace(text.find("\"HERE\""), 6, open + R"({"type":"NFC"})" + close);
    try {
      qb::Tokenizer::from_json_text(text, "t.json");
      QFAIL("accepted");
    } catch (const qb::InputError& e) {
      QVERIFY(std::string(e.what()).find("nested too deeply") != std::string::npos);
    }
  }

  // Any value anywhere replaced, any byte changed: a tokenizer that works, or one clear error.
  void mutated_files_load_or_are_refused() {
    const json good = sample();
    std::vector<json::json_pointer> places;
    const json flat = good.flatten();
    for (const auto& [pointer, value] : flat.items()) {
      json::json_pointer at(pointer);
      for (; !at.empty(); at.pop_back()) places.push_back(at);
    }
    const std::vector<json> values = {nullptr, true, -1, 7, 1e300, 18446744073709551615u, "", "a", "Sequence", "Split", "\\p{", json::array(), json::object(),
                                      {{"type", "Metaspace"}, {"replacement", "▁"}}, {{"Regex", "(a|b)*[^\\s]+?$"}}, {"a", "b"}};
    const std::string texts[] = {"abc ab12<x>~a", "\xFF\xC3 e\u0301 中<s>", "", "\n\n  1 "};
    qb::Random random(5);
    int loaded = 0, refused = 0;
    auto attempt = [&](const std::string& text) {
      try {
        const auto t = qb::Tokenizer::from_json_text(text, "mutated");
        for (const auto& sample_text : texts) t->decode(t->encode(sample_text));
        ++loaded;
      } catch (const qb::InputError& e) {
        QVERIFY2(std::string(e.what()).starts_with("mutated"), e.what());
        ++refused;
      }
    };
    for (const auto& place : places) {
      for (const auto& value : values) {
        json changed = good;
        changed[place] = value;
        attempt(changed.dump());
      }
    }
    const std::string text = good.dump();
    for (int i = 0; i < 3000; ++i) {
      std::string changed = text;
      for (uint64_t n = 1 + random.below(3); n > 0; --n) changed[random.below(changed.size())] = static_cast<char>(random.below(256));
      if (random.below(8) == 0) changed.resize(random.below(changed.size()));
      attempt(changed);
    }
    QVERIFY(loaded > 100 && refused > 1000);
  }

  void text_that_is_no_json_names_the_byte() {
    for (const std::string& text : {std::string("{\"model\": "), std::string("[1,2"), std::string(), std::string("{\"a\": \"\xFF\"}")}) {
      try {
        qb::Tokenizer::from_json_text(text, "t.json");
        QFAIL("accepted");
      } catch (const qb::InputError& e) {
        QVERIFY(std::string(e.what()).find("t.json: not valid JSON at byte") != std::string::npos);
      }
    }
  }

  // tokenizers reads such files; the ids without a token decode to nothing.
  void holes_in_the_vocabulary_are_allowed() {
    json document = sample();
    document["added_tokens"].erase(1);
    document["model"]["vocab"]["d"] = 40;
    const auto t = qb::Tokenizer::from_json_text(document.dump(), "tokenizer.json");
    QCOMPARE(t->encode("d", false), std::vector<int32_t>{40});
    QCOMPARE(t->token(20), std::string());
    const std::vector<int32_t> ids{20, 40, -1, 1 << 20};
    QCOMPARE(t->decode(ids), std::string("d"));
    QCOMPARE(t->vocabulary_size(), int64_t{41});
  }

  void a_missing_file_or_folder_is_named() {
    QVERIFY_EXCEPTION_THROWN(qb::Tokenizer::load("/nowhere/tokenizer.json"), qb::InputError);
    QTemporaryDir folder;
    try {
      qb::Tokenizer::load(folder.path().toStdString());
      QFAIL("accepted");
    } catch (const qb::InputError& e) {
      QVERIFY(std::string(e.what()).find("no tokenizer.json") != std::string::npos);
    }
    const std::string model = folder.filePath("tokenizer.model").toStdString();
    QFile file(QString::fromStdString(model));
    QVERIFY(file.open(QIODevice::WriteOnly));
    file.write("this is no protobuf");
    file.close();
    try {
      qb::Tokenizer::load(model);
      QFAIL("accepted");
    } catch (const qb::InputError& e) {
      QVERIFY(std::string(e.what()).find("not a SentencePiece model") != std::string::npos);
    }
  }

 private:
  static const std::vector<Breakage>& breakages() {
    static const std::vector<Breakage> list = {
        {"version", [](json& j) { j["version"] = "2.0"; }, "version: expected '1.0'"},
        {"model type", [](json& j) { j["model"]["type"] = "WordPiece"; }, "model.type: expected BPE or Unigram, found 'WordPiece'"},
        {"merge of an unknown token", [](json& j) { j["model"]["merges"][1] = "ab z"; }, "model.merges[1]: the token 'z' is not in the vocabulary"},
        {"merge into an unknown token", [](json& j) { j["model"]["merges"][1] = "c d"; }, "model.merges[1]: the token 'cd' is not in the vocabulary"},
        {"merge of three", [](json& j) { j["model"]["merges"][1] = "a b c"; }, "model.merges[1]: expected two tokens"},
        {"merge of a number", [](json& j) { j["model"]["merges"][0] = {1, 2}; }, "model.merges[0]: expected two tokens"},
        {"id negative", [](json& j) { j["model"]["vocab"]["c"] = -1; }, "token 'c' has the id -1, expected 0 to"},
        {"id huge", [](json& j) { j["model"]["vocab"]["c"] = 4000000000u; }, "expected 0 to 16777215"},
        {"id no number", [](json& j) { j["model"]["vocab"]["c"] = "3"; }, "model.vocab.c: expected an integer, found string"},
        {"id twice", [](json& j) { j["model"]["vocab"]["c"] = 1; }, "have the same id 1"},
        {"added id of another token", [](json& j) { j["added_tokens"][1]["id"] = 3; }, "added_tokens[1].id: '<x>' has the id 3, expected 12"},
        {"added id past a hole", [](json& j) { j["added_tokens"][1]["id"] = 14; }, "expected 12"},
        {"added id against the vocabulary", [](json& j) { j["added_tokens"][0]["id"] = 1; }, "'<s>' has the id 1, but 0 in model.vocab"},
        {"normalizer", [](json& j) { j["normalizer"]["normalizers"][0]["type"] = "Shout"; }, "normalizer.normalizers[0].type: the normalizer 'Shout'"},
        {"pre-tokenizer", [](json& j) { j["pre_tokenizer"]["type"] = "Chop"; }, "the pre-tokenizer 'Chop' is not supported"},
        {"decoder", [](json& j) { j["decoder"]["type"] = "Guess"; }, "decoder.type: the decoder 'Guess' is not supported"},
        {"post-processor", [](json& j) { j["post_processor"]["type"] = "Wrap"; }, "the post-processor 'Wrap' is not supported"},
        {"template token", [](json& j) { j["post_processor"]["single"][0]["SpecialToken"]["id"] = "<t>"; }, "special_tokens: the field '<t>' is missing"},
        {"behaviour", [](json& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Eat"; }, "behavior: expected Removed, Isolated"},
        {"regular expression", [](json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a"; }, "regular expression '(a'"},
        {"character class", [](json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "[a"; }, "a set without its closing bracket"},
        {"property", [](json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\p{Nonsense}"; }, "regular expression"},
        {"precompiled map", [](json& j) { j["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", "AAAA"}}; }, "precompiled_charsmap"},
    };
    return list;
  }
};

QTEST_GUILESS_MAIN(TestTokenizerErrors)
#include "test_tokenizer_errors.moc"
