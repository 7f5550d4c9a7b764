#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <fmt/format.h>

#include "core/base/control.h"
#include "core/format/safetensors.h"
#include "format_files.h"

using namespace format_files;

class TestSafetensors : public QObject {
  Q_OBJECT
  QTemporaryDir folder_;
  std::filesystem::path folder() const { return folder_.path().toStdString(); }
  std::filesystem::path path() const { return folder() / "model.safetensors"; }

  std::string error_in(std::string_view header, size_t data_bytes) const {
    write_file(path(), safetensors_file(header, data_bytes).bytes);
    return error_of(path());
  }
  // A folder with shards x (tensor "x", 4 bytes) and y (tensor "y"), and an index.
  std::filesystem::path sharded(const std::string& name, std::string_view index) const {
    const auto folder = this->folder() / name;
    std::filesystem::create_directories(folder);
    for (std::string tensor : {"x", "y"})
      write_file(folder / (tensor + ".safetensors"),
                 safetensors_file(fmt::format(R"({{"{}":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}}})", tensor), 4).bytes);
    write_file(folder / "model.safetensors.index.json", index);
    return folder;
  }

 private Q_SLOTS:
  void reads_every_rank_and_no_elements() {
    write_file(path(), sample_safetensors().bytes);
    const auto source = qb::open_safetensors(path());
    QCOMPARE(source->tensors().size(), size_t{5});
    QCOMPARE(source->tensors()[0].name, std::string("a"));  // the header's order
    QCOMPARE(source->read("a").sizes().vec(), (std::vector<int64_t>{2, 3}));
    QCOMPARE(source->read("s").dim(), 0);
    QCOMPARE(source->read("e").sizes().vec(), (std::vector<int64_t>{0, 4}));
    QCOMPARE(source->read("o").scalar_type(), at::kFloat8_e4m3fn);
    QCOMPARE(all_data(*source), pattern(45, 6));  // "u" lies unaligned
    QVERIFY_EXCEPTION_THROWN(source->read("absent"), qb::InputError);
  }

  void a_tensor_outlives_its_source() {
    write_file(path(), sample_safetensors().bytes);
    auto source = qb::open_safetensors(path());
    const at::Tensor a = source->read("a");
    source.reset();
    QCOMPARE(std::string(static_cast<const char*>(a.const_data_ptr()), a.nbytes()), pattern(45, 6).substr(0, 24));
  }

  void every_mistake_is_named() {
    const auto check = [](const std::string& message, const char* expected) {
      QVERIFY2(message.find(expected) != std::string::npos && message.find("model.safetensors") != std::string::npos,
               (message + " — expected: " + expected).c_str());
    };
    check(error_in("", 0), "not valid JSON");
    check(error_in("[]", 0), "header is an array");
    check(error_in("7", 0), "header is 7");
    check(error_in("null", 0), "header is null");
    check(error_in("{\"x\":", 0), "not valid JSON");
    check(error_in("{} {}", 0), "not valid JSON");
    check(error_in("{\"\xff\":1}", 0), "not valid JSON");
    check(error_in(R"({"x":1})", 0), "tensor \"x\": is 1, expected an object");
    check(error_in(R"({"x":[]})", 0), "is an array");
    check(error_in(R"({"__metadata__":{"a":1}})", 0), "__metadata__ holds 1, expected only texts");
    check(error_in(R"({"__metadata__":{"a":{}}})", 0), "__metadata__ holds an object");
    check(error_in(R"({"__metadata__":{"a":"1","a":"2"}})", 0), "\"a\" appears twice");
    check(error_in(R"({"x":{"shape":[1],"data_offsets":[0,1]}})", 1), "dtype is missing");
    check(error_in(R"({"x":{"dtype":"U8","data_offsets":[0,1]}})", 1), "shape is missing");
    check(error_in(R"({"x":{"dtype":"U8","shape":[1]}})", 1), "data_offsets is missing");
    check(error_in(R"({"x":{"dtype":8,"shape":[1],"data_offsets":[0,1]}})", 1), "dtype is 8");
    check(error_in(R"({"x":{"dtype":"Q9","shape":[1],"data_offsets":[0,1]}})", 1), "unknown dtype \"Q9\"");
    check(error_in(R"({"x":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", 1), "shape is 1");
    check(error_in(R"({"x":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1), "shape has -1");
    check(error_in(R"({"x":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})", 1), "shape has 1.5");
    check(error_in(R"({"x":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}})", 1), "shape has \"1\"");
    check(error_in(R"({"x":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]}})", 1), "shape has 18446744073709551615");
    check(error_in(R"({"x":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", 1), "shape has an array");
    check(error_in(R"({"x":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,1]}})", 1), "too large");
    check(error_in(R"({"x":{"dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}})", 0), "too large");
    check(error_in(R"({"x":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0), "too large");
    check(error_in(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1), "not a pair");
    check(error_in(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", 1), "data_offsets has 2");
    check(error_in(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", 1), "run backwards");
    check(error_in(R"({"x":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}})", 1), "1 bytes of data, but U8 of shape [2] need 2");
    check(error_in(R"({"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 1), "truncated");
    check(error_in(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 2), "2 bytes of data, but its tensors take 1");
    check(error_in(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2), "expected 0");
    check(error_in(R"({"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"y":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", 3), "overlap");
    check(error_in(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2), "\"x\": appears twice");
    check(error_in(R"({"x":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1), "\"dtype\" appears twice");
    check(error_in(R"({"x":{"k":)" + std::string(100000, '['), 0), "nested deeper");
    check(error_in(std::string(100000, '['), 0), "header is an array");
    check(error_in(R"({"x":{"dtype":"U8","shape":[)" + std::string(128, '1') + R"(],"data_offsets":[0,1]}})", 1), "shape has 1");
    auto huge = safetensors_file("{}", 0);
    huge.bytes.replace(0, 8, std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8));
    write_file(path(), huge.bytes);
    check(error_of(path()), "expected at most 100000000");
    std::filesystem::remove(path());
    check(error_of(path()), "No such file");
  }

  void unsorted_data_and_unknown_keys_are_legal() {
    QCOMPARE(error_in(R"({"y":{"dtype":"U8","shape":[1],"data_offsets":[2,3],"note":[1,{"deep":[null,true,-1,0.5]}]},)"
                      R"("x":{"dtype":"U16","shape":[1],"data_offsets":[0,2]}} )", 3), std::string());
    QCOMPARE(error_in("{}", 0), std::string());
  }

  void every_damaged_byte_is_refused_or_harmless() {
    const FileBytes good = sample_safetensors();
    write_file(path(), good.bytes);
    std::string expected;
    QCOMPARE(error_of(path(), &expected), std::string());
    int refused = 0, harmless = 0;
    for (size_t at = 0; at < good.header_end; ++at)
      for (const auto& value : damaged_values(good.bytes.substr(at, 1), true)) {
        std::string damaged = good.bytes;
        damaged.replace(at, 1, value);
        if (damaged == good.bytes) continue;
        write_file(path(), damaged);
        std::string found;
        const auto message = error_of(path(), &found);
        QVERIFY2(message.empty() ? found == expected : is_clear(message, path()), fmt::format("byte {}: {}", at, message).c_str());
        ++(message.empty() ? harmless : refused);
      }
    QVERIFY2(refused > 1000 && harmless > 50, fmt::format("{} refused, {} harmless", refused, harmless).c_str());
  }

  void every_truncation_is_refused() {
    const FileBytes good = sample_safetensors();
    for (size_t length = 0; length < good.bytes.size(); ++length) {
      write_file(path(), std::string_view(good.bytes).substr(0, length));
      const auto message = error_of(path());
      QVERIFY2(is_clear(message, path()), fmt::format("cut to {} bytes: \"{}\"", length, message).c_str());
    }
  }

  void shards_are_joined() {
    const auto folder = sharded("good", R"({"metadata":{"total_size":8},"weight_map":{"y":"y.safetensors","x":"x.safetensors"}})");
    const auto source = qb::open_safetensors(folder);
    QCOMPARE(source->files().size(), size_t{2});
    QCOMPARE(source->files()[static_cast<size_t>(source->find("y")->file)].filename().string(), std::string("y.safetensors"));
    QCOMPARE(source->read("x").numel(), 4);
  }

  void a_lying_index_is_refused() {
    const auto check = [&](std::string_view index, const char* expected) {
      const auto message = error_of(sharded("bad", index));
      QVERIFY2(message.find(expected) != std::string::npos, (message + " — expected: " + expected).c_str());
    };
    check(R"({"weight_map":{"x":"x.safetensors","z":"x.safetensors"}})", "tensor \"z\" is not in x.safetensors");
    check(R"({"weight_map":{"x":"x.safetensors","y":"gone.safetensors"}})", "gone.safetensors: cannot open");
    check(R"({"weight_map":{"x":"y.safetensors","y":"x.safetensors"}})", "is in x.safetensors, expected in y.safetensors");
    check(R"({"weight_map":{"x":"../good/x.safetensors"}})", "expected a file beside the index");
    check(R"({"weight_map":{"x":"/etc/passwd"}})", "expected a file beside the index");
    check(R"({"weight_map":{"x":".."}})", "expected a file beside the index");
    check(R"({"weight_map":{"x":"x.safetensors\u0000"}})", "expected a file beside the index");
    check(R"({"weight_map":{"x":""}})", "expected a file beside the index");
    check(R"({"weight_map":{"x":7}})", "weight_map[\"x\"] is a number");
    check(R"({"weight_map":{"x":{"x":"x.safetensors"}}})", "weight_map[\"x\"] is an object");
    check(R"({"weight_map":{"x":"x.safetensors","x":"y.safetensors"}})", "\"x\" appears twice");
    check(R"({"weight_map":{"x":"x.safetensors"},"weight_map":{}})", "\"weight_map\" appears twice");
    check(R"({"weight_map":[]})", "weight_map is an array");
    check(R"({"weight_map":{}})", "weight_map is empty");
    check(R"({})", "weight_map is missing");
    check(R"({"metadata":{"weight_map":{"x":"x.safetensors"}}})", "weight_map is missing");
    check(R"([])", "is an array");
    check("", "not valid JSON");
    check(std::string(R"({"a":)") + std::string(100000, '['), "nested deeper");
    const auto folder = sharded("twice", R"({"weight_map":{"x":"x.safetensors","y":"y.safetensors"}})");
    std::filesystem::copy_file(folder / "x.safetensors", folder / "y.safetensors", std::filesystem::copy_options::overwrite_existing);
    QVERIFY(error_of(folder).find("stands in") != std::string::npos);
    std::filesystem::create_directories(this->folder() / "empty");
    QVERIFY(error_of(this->folder() / "empty").find("neither") != std::string::npos);
  }

  void what_is_written_reads_back() {
    const std::vector<std::pair<std::string, at::Tensor>> tensors = {
        {"flag", at::ones({3}, at::kBool)},          {"x \"quoted\" é", at::rand({4, 3}).t()}, {"scalar", at::full({}, 2.5, at::kDouble)},
        {"empty", at::empty({0, 3})},                {"wide", at::rand({1, 5}).expand({4, 5})}, {"half", at::rand({5}).to(at::kBFloat16)},
        {"words", at::arange(6, at::kInt).view({2, 3})}};
    qb::write_safetensors(path(), tensors, {{"made_by", "a \"test\""}});
    const auto source = qb::open_safetensors(path());
    QCOMPARE(source->tensors().size(), tensors.size());
    for (const auto& [name, tensor] : tensors) {
      QVERIFY2(source->read(name).equal(tensor), name.c_str());
      QVERIFY2(source->find(name)->offset % tensor.element_size() == 0, name.c_str());  // aligned, so that reading is free
    }
    QCOMPARE(source->tensors()[0].name, std::string("flag"));
    QVERIFY_EXCEPTION_THROWN(qb::write_safetensors(path(), {{"x", at::ones(1)}, {"x", at::ones(1)}}), qb::InternalError);
    QVERIFY_EXCEPTION_THROWN(qb::write_safetensors(path(), {{"\xff", at::ones(1)}}), qb::InternalError);
    QVERIFY_EXCEPTION_THROWN(qb::write_safetensors(path(), {{"x", at::Tensor()}}), qb::InternalError);
    QCOMPARE(qb::open_safetensors(path())->tensors().size(), tensors.size());  // refused before the old file was touched
  }

  void opening_touches_headers_only() {
    const uint64_t size = uint64_t{100} << 30;
    write_file(path(), safetensors_file(fmt::format(R"({{"x":{{"dtype":"U8","shape":[{}],"data_offsets":[0,{}]}}}})", size, size), 0).bytes);
    std::error_code error;
    std::filesystem::resize_file(path(), std::filesystem::file_size(path()) + size, error);
    if (error) QSKIP("the file system has no sparse files");
    const int64_t before = qb::peak_resident_bytes();
    QElapsedTimer timer;
    timer.start();
    const auto source = qb::open_safetensors(path());
    const double ms = static_cast<double>(timer.nsecsElapsed()) / 1e6;
    QCOMPARE(source->read("x")[int64_t{99} << 30].item<int>(), 0);
    QVERIFY(qb::peak_resident_bytes() - before < (int64_t{64} << 20));
    qInfo("100 GiB opened in %.2f ms", ms);
  }

  // Time grows with the number of tensors, not with its square. Best of several, since other work disturbs.
  void opening_takes_linear_time() {
    const auto milliseconds = [&](int tensors) {
      std::string header = "{";
      for (int i = 0; i < tensors; ++i)
        header += fmt::format(R"({}"model.layers.{}.self_attn.q_proj.weight":{{"dtype":"BF16","shape":[1,1],"data_offsets":[{},{}]}})", i ? "," : "", i, 2 * i, 2 * i + 2);
      write_file(path(), safetensors_file(header + "}", static_cast<size_t>(tensors) * 2).bytes);
      double best = 1e9;
      for (int i = 0; i < 5; ++i) {
        QElapsedTimer timer;
        timer.start();
        if (qb::open_safetensors(path())->tensors().size() != static_cast<size_t>(tensors)) return 1e9;
        best = std::min(best, static_cast<double>(timer.nsecsElapsed()) / 1e6);
      }
      return best;
    };
    const double few = milliseconds(2500), many = milliseconds(20000);
    qInfo("2500 tensors in %.2f ms, 20000 in %.2f ms", few, many);
    QVERIFY2(many < few * 32, fmt::format("{} ms, then {} ms for 8 times as many", few, many).c_str());
  }
};

QTEST_GUILESS_MAIN(TestSafetensors)
#include "test_safetensors.moc"
