#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <fstream>
#include <set>

#include "core/base/error.h"
#include "core/text/corpus.h"
#include "core/text/tokenizer.h"

namespace {

// A token a character, so that a sample's ids spell its text.
class CharacterTokenizer final : public qb::Tokenizer {
 public:
  std::vector<int32_t> encode(std::string_view text, bool) const override { return {text.begin(), text.end()}; }
  std::string decode(std::span<const int32_t> ids, bool) const override { return {ids.begin(), ids.end()}; }
  std::string token(int32_t id) const override { return std::string(1, static_cast<char>(id)); }
  std::optional<int32_t> id_of(std::string_view) const override { return std::nullopt; }
  int64_t vocabulary_size() const override { return 128; }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::optional<int32_t> eos() const override { return std::nullopt; }
  std::string description() const override { return "characters"; }
};

const CharacterTokenizer characters;

qb::Corpus of_documents(std::vector<std::string> documents) { return {"test", std::move(documents), "", {}}; }

std::vector<std::string> texts_of(const qb::TokenSet& set) {
  std::vector<std::string> out;
  for (const auto& s : set.samples) out.push_back(characters.decode(s, true));
  return out;
}

std::vector<std::string> draw(const qb::Corpus& corpus, const char* sampling, int64_t samples, int64_t seq_len, uint64_t seed = 1) {
  return texts_of(sample_tokens(corpus, characters, {sampling, samples, seq_len, seed}));
}

std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const qb::InputError& e) {
    return e.what();
  }
  return "";
}

#define VERIFY_ERROR(expression, ...)                                                                          \
  {                                                                                                            \
    const std::string message = error_of([&] { expression; });                                                 \
    for (const char* part : {__VA_ARGS__}) QVERIFY2(message.find(part) != std::string::npos, message.c_str()); \
  }

}  // namespace

class TestCorpus : public QObject {
  Q_OBJECT
  QTemporaryDir folder_;

  std::filesystem::path write(const std::string& name, const std::string& content) {
    const auto path = std::filesystem::path(folder_.path().toStdString()) / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

 private Q_SLOTS:
  void a_text_file_is_one_document() {
    const auto corpus = qb::load_corpus({"", write("plain.txt", "one\n\n two \nthree\n")});
    QCOMPARE(corpus.name, std::string("plain.txt"));
    QCOMPARE(corpus.documents, std::vector<std::string>{"one\n\n two \nthree\n"});
    QCOMPARE(sampling_documents(corpus), (std::vector<std::string>{"one", "two", "three"}));
    QCOMPARE(corpus.hash.size(), size_t{16});
  }

  void every_line_end_is_read_as_a_line_feed() {
    const auto path = write("ends.txt", "one\r\ntwo\r\r\nthree\n\rfour\r");
    QCOMPARE(qb::load_corpus({"", path}).documents, std::vector<std::string>{"one\ntwo\n\nthree\n\nfour\n"});
    QCOMPARE(qb::load_corpus({"", write("crlf.jsonl", "{\"text\": \"a\\r\\nb\"}\r\n")}).documents, std::vector<std::string>{"a\r\nb"});
  }

  void jsonl_takes_the_chosen_field() {
    const auto path = write("a.jsonl", "{\"text\": \"A\\nB\", \"query\": \"q1\"}\n\n{\"text\": \"C\", \"query\": \"q2\"}\r\n");
    const auto corpus = qb::load_corpus({"named", path});
    QCOMPARE(corpus.name, std::string("named"));
    QCOMPARE(corpus.documents, (std::vector<std::string>{"A\nB", "C"}));
    QCOMPARE(sampling_documents(corpus), corpus.documents);
    const auto queries = qb::load_corpus({"", path, "query"});
    QCOMPARE(queries.documents, (std::vector<std::string>{"q1", "q2"}));
    QVERIFY(queries.hash != corpus.hash);
  }

  void a_folder_is_read_in_name_order() {
    write("mixed/b.txt", "second\nfile");
    write("mixed/a.jsonl", "{\"text\": \"first\"}\n");
    write("mixed/ignored.bin", "x");
    const auto path = write("mixed/.hidden.txt", "x").parent_path();
    const auto corpus = qb::load_corpus({"", path});
    QCOMPARE(corpus.documents, (std::vector<std::string>{"first", "second\nfile"}));
    QCOMPARE(sampling_documents(corpus), (std::vector<std::string>{"first", "second", "file"}));
    QCOMPARE(corpus.name, std::string("mixed"));
  }

  void errors_name_file_and_line() {
    VERIFY_ERROR(qb::load_corpus({"", write("bad.jsonl", "{\"text\": \"A\"}\n{\"text\": \n")}), "bad.jsonl:2", "not valid JSON");
    VERIFY_ERROR(qb::load_corpus({"", write("field.jsonl", "{\"text\": \"A\"}\n\n{\"body\": \"B\"}\n")}), "field.jsonl:3", "'text' is missing");
    VERIFY_ERROR(qb::load_corpus({"", write("type.jsonl", "{\"text\": 7}")}), "type.jsonl:1", "text", "expected a string");
    VERIFY_ERROR(qb::load_corpus({"", write("list.jsonl", "[1]")}), "list.jsonl:1", "expected an object");
    VERIFY_ERROR(qb::load_corpus({"", write("empty.txt", " \n\n")}), "empty.txt", "no text");
    VERIFY_ERROR(qb::load_corpus({"", write("none.jsonl", "")}), "none.jsonl", "no text");
    VERIFY_ERROR(qb::load_corpus({"", write("set.parquet", "PAR1")}), "set.parquet", "a Parquet file: write its text as JSON lines");
    VERIFY_ERROR(qb::load_corpus({"", write("nothing/x.bin", "x").parent_path()}), "nothing", "no .jsonl, .json, .txt");
    VERIFY_ERROR(qb::load_corpus({"", "/nowhere/x.txt"}), "/nowhere/x.txt", "no such file");
  }

  void tokenizing_joins_documents() {
    QCOMPARE(characters.decode(tokenize_corpus(of_documents({"ab", "cd"}), characters), true), std::string("ab\n\ncd"));
    QCOMPARE(characters.decode(tokenize_corpus(of_documents({"ab", "cd"}), characters, " "), true), std::string("ab cd"));
  }

  // A tokenizer whose BOS is "^" and stands before every text.
  void bos_stands_where_it_is_asked_for() {
    class Begun final : public qb::Tokenizer {
     public:
      std::vector<int32_t> encode(std::string_view text, bool add_special) const override { return characters.encode(add_special ? "^" + std::string(text) : std::string(text), false); }
      std::string decode(std::span<const int32_t> ids, bool skip) const override { return characters.decode(ids, skip); }
      std::string token(int32_t id) const override { return characters.token(id); }
      std::optional<int32_t> id_of(std::string_view token) const override { return characters.id_of(token); }
      int64_t vocabulary_size() const override { return 128; }
      std::optional<int32_t> bos() const override { return '^'; }
      std::optional<int32_t> eos() const override { return std::nullopt; }
      std::string description() const override { return "begun"; }
    };
    const Begun begun;
    const auto corpus = of_documents({"abcdefgh"});
    auto windows = [&](qb::Bos bos) { return characters.decode(qb::evaluation_tokens(corpus, begun, bos, 4), false); };
    QCOMPARE(windows(qb::Bos::tokenizer), std::string("^abcdefgh"));
    QCOMPARE(windows(qb::Bos::none), std::string("abcdefgh"));
    QCOMPARE(windows(qb::Bos::every_window), std::string("^abc^def^gh"));
    auto samples = [&](qb::Bos bos, const char* sampling = "sequential") { return texts_of(sample_tokens(corpus, begun, {sampling, 2, 4, 1, bos})); };
    QCOMPARE(samples(qb::Bos::tokenizer), (std::vector<std::string>{"^abc", "defg"}));
    QCOMPARE(samples(qb::Bos::none), (std::vector<std::string>{"abcd", "efgh"}));
    QCOMPARE(samples(qb::Bos::every_window), (std::vector<std::string>{"^abc", "^def"}));
    for (const auto& text : samples(qb::Bos::every_window, "random_windows")) QVERIFY(text.size() == 4 && text[0] == '^' && text[1] != '^');
    QVERIFY(sample_tokens(corpus, begun, {"sequential", 2, 4, 1, qb::Bos::none}).hash != sample_tokens(corpus, begun, {"sequential", 2, 4, 1, qb::Bos::every_window}).hash);
    QCOMPARE(qb::bos_of(std::nullopt, "gemma2", begun), qb::Bos::every_window);
    QCOMPARE(qb::bos_of(std::nullopt, "llama", begun), qb::Bos::tokenizer);
    QCOMPARE(qb::bos_of(qb::Bos::none, "gemma2", begun), qb::Bos::none);
    QCOMPARE(qb::bos_of(std::nullopt, "gemma2", characters), qb::Bos::tokenizer);
    VERIFY_ERROR(qb::bos_of(qb::Bos::every_window, "llama", characters), "every_window", "has none");
    for (qb::Bos bos : {qb::Bos::tokenizer, qb::Bos::every_window, qb::Bos::none}) QVERIFY(qb::parse_bos(to_text(bos)) == bos);
    QVERIFY(!qb::parse_bos("always"));
  }

  void sequential_takes_the_beginning() {
    QCOMPARE(draw(of_documents({"abcdefghijk"}), "sequential", 3, 3), (std::vector<std::string>{"abc", "def", "ghi"}));
    VERIFY_ERROR(draw(of_documents({"abcdefghijk"}), "sequential", 4, 3), "it has 11 tokens, 12 are needed", "4 samples of 3");
  }

  void windows_come_from_anywhere_and_follow_the_seed() {
    std::string text;
    for (int i = 0; i < 100; ++i) text += static_cast<char>(' ' + i % 90);
    for (const char* name : {"random_windows", "wikitext2_gptq", "ptb_gptq", "random_truncate_txt"}) {
      const auto windows = draw(of_documents({text}), name, 200, 10);
      QCOMPARE(windows.size(), size_t{200});
      std::set<std::string> distinct;
      for (const auto& w : windows) {
        QCOMPARE(w.size(), size_t{10});
        QVERIFY(text.find(w) != std::string::npos);
        distinct.insert(w);
      }
      QVERIFY(distinct.size() > 50);
      QCOMPARE(draw(of_documents({text}), name, 200, 10), windows);
      QVERIFY(draw(of_documents({text}), name, 200, 10, 2) != windows);
      VERIFY_ERROR(draw(of_documents({text}), name, 1, 101), "it has 100 tokens, 101 are needed");
      QCOMPARE(draw(of_documents({text}), name, 1, 100), std::vector<std::string>{text});
    }
    QCOMPARE(draw(of_documents({"ab", "cd"}), "wikitext2_gptq", 1, 6), std::vector<std::string>{"ab\n\ncd"});
    QCOMPARE(draw(of_documents({"ab", "cd"}), "ptb_gptq", 1, 5), std::vector<std::string>{"ab cd"});
  }

  void documents_are_cut_but_not_joined() {
    auto found = draw(of_documents({"abc", "defghi", "jk"}), "documents", 3, 4);
    std::sort(found.begin(), found.end());
    QCOMPARE(found, (std::vector<std::string>{"abc", "defg", "jk"}));
    VERIFY_ERROR(draw(of_documents({"abc"}), "documents", 2, 4), "it has 1 documents, 2 are needed");
  }

  void c4_draws_long_documents_only() {
    const auto found = draw(of_documents({"abc", "defghi", "jk", "lmnop"}), "c4_gptq", 60, 5);
    QCOMPARE(std::set<std::string>(found.begin(), found.end()), (std::set<std::string>{"defgh", "efghi", "lmnop"}));
    VERIFY_ERROR(draw(of_documents({"abc", "defg"}), "c4_gptq", 1, 5), "none of its 2 documents has 5 tokens, the longest has 4");
  }

  void pileval_joins_short_documents() {
    const auto found = draw(of_documents({" abc ", "toolongforthis", "de", "fghi"}), "pileval_awq", 3, 4);
    QCOMPARE(found.size(), size_t{2});  // 9 tokens make 2 pieces of 4
    std::string joined = found[0] + found[1];
    QVERIFY(joined.find("tool") == std::string::npos);
    VERIFY_ERROR(draw(of_documents({"abcdef", "gh"}), "pileval_awq", 3, 4), "1 of its 2 documents", "together 2; 4 are needed");
  }

  void general_takes_the_beginnings_of_long_documents() {
    auto found = draw(of_documents({"abc", "defghi", "jklmn"}), "txt_general_preproc", 2, 5);
    std::sort(found.begin(), found.end());
    QCOMPARE(found, (std::vector<std::string>{"defgh", "jklmn"}));
    VERIFY_ERROR(draw(of_documents({"abc", "defghi", "jklmn"}), "txt_general_preproc", 3, 5), "2 of its 3 documents have 5 tokens or more, 3 are needed");
  }

  // The numbers of SplitMix64 are the same everywhere, so these are too.
  void a_seed_gives_the_same_order_on_every_machine() {
    QCOMPARE(draw(of_documents({"a", "b", "c", "d", "e", "f"}), "documents", 6, 1, 42), draw(of_documents({"a", "b", "c", "d", "e", "f"}), "documents", 6, 1, 42));
    const auto set = sample_tokens(of_documents({"abcdef"}), characters, {"sequential", 2, 3, 1});
    QCOMPARE(set.tokens(), int64_t{6});
    QCOMPARE(set.hash, sample_tokens(of_documents({"abcdef"}), characters, {"sequential", 2, 3, 9}).hash);
    QVERIFY(set.hash != sample_tokens(of_documents({"abcdef"}), characters, {"sequential", 3, 2, 1}).hash);
  }

  void bad_requests_are_refused() {
    VERIFY_ERROR(draw(of_documents({"abc"}), "alphabetical", 1, 1), "sampling 'alphabetical' is unknown", "pileval_awq");
    VERIFY_ERROR(draw(of_documents({"abc"}), "sequential", 0, 1), "at least 1 sample");
    for (const auto& name : qb::sampling_names()) QVERIFY(!draw(of_documents({"abc", "abc"}), name.c_str(), 1, 3).empty());
    std::stop_source stop;
    stop.request_stop();
    QVERIFY_EXCEPTION_THROWN(sample_tokens(of_documents({"abc"}), characters, {"sequential", 1, 1, 1}, {stop.get_token(), nullptr, {}}), qb::Cancelled);
  }
};

QTEST_GUILESS_MAIN(TestCorpus)
#include "test_corpus.moc"
