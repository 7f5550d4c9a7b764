#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <fmt/format.h>

#include "core/base/control.h"
#include "core/format/gguf.h"
#include "format_files.h"

using namespace format_files;

class TestGguf : public QObject {
  Q_OBJECT
  QTemporaryDir folder_;
  std::filesystem::path path() const { return std::filesystem::path(folder_.path().toStdString()) / "model.gguf"; }

  std::shared_ptr<const qb::GgufFile> open(const FileBytes& file) const {
    write_file(path(), file.bytes);
    return qb::GgufFile::open(path());
  }
  std::string error_in(const FileBytes& file) const {
    write_file(path(), file.bytes);
    return error_of(path());
  }
  // The sample with one field replaced, found by its description.
  template <class T>
  std::string error_with(const std::string& what, T value) const {
    FileBytes file = gguf_file(sample_tensors());
    const auto field = std::find_if(file.fields.begin(), file.fields.end(), [&](const Field& f) { return f.what == what; });
    if (field == file.fields.end() || field->size != sizeof(T)) return "the test names no field: " + what;
    std::memcpy(file.bytes.data() + field->at, &value, sizeof(T));
    return error_in(file);
  }

 private Q_SLOTS:
  void reads_metadata_of_every_type() {
    for (uint32_t version : {2u, 3u}) {
      const auto file = open(gguf_file(sample_tensors(), version));
      QCOMPARE(*file->text("general.architecture"), std::string("llama"));
      QCOMPARE(*file->integer("x.u8"), 200);
      QCOMPARE(*file->integer("x.i8"), -7);
      QCOMPARE(*file->integer("x.u16"), 60000);
      QCOMPARE(*file->integer("x.i16"), -300);
      QCOMPARE(*file->integer("x.i32"), -70000);
      QCOMPARE(*file->integer("x.u64"), int64_t{1} << 40);
      QCOMPARE(*file->integer("x.i64"), -(int64_t{1} << 40));
      QCOMPARE(*file->real("x.f32"), 1.5);
      QCOMPARE(*file->real("x.f64"), -0.25);
      QCOMPARE(*file->real("x.u8"), 200.0);
      QCOMPARE(*file->boolean("x.bool"), true);
      QCOMPARE(*file->texts("x.texts"), (std::vector<std::string>{"ab", ""}));
      QCOMPARE(*file->integers("x.ints"), (std::vector<int64_t>{3, -4, 5}));
      QCOMPARE(*file->reals("x.reals"), (std::vector<double>{0.5, -2}));
      QVERIFY(!file->integer("absent") && !file->texts("absent"));
      QVERIFY_EXCEPTION_THROWN(file->integer("x.texts"), qb::InputError);
      QVERIFY_EXCEPTION_THROWN(file->texts("x.ints"), qb::InputError);
    }
  }

  void reads_tensors_of_any_rank_and_of_no_elements() {
    const auto file = open(gguf_file(sample_tensors()));
    QCOMPARE(file->find("a.weight")->shape, (std::vector<int64_t>{4, 8}));
    QCOMPARE(file->find("h")->shape, (std::vector<int64_t>{2, 3, 1, 5}));
    const at::Tensor a = file->read("a.weight");
    QCOMPARE(std::string(static_cast<const char*>(a.const_data_ptr()), a.nbytes()), pattern(128, 1));
    QCOMPARE(file->read("scalar").dim(), 0);
    QCOMPARE(file->read("empty").numel(), 0);
    QCOMPARE(file->read("k.weight").scalar_type(), at::kFloat);
    QVERIFY(file->find("absent") == nullptr);
    QVERIFY_EXCEPTION_THROWN(file->read("absent"), qb::InputError);
  }

  void a_tensor_outlives_its_file() {
    auto file = open(gguf_file(sample_tensors()));
    const at::Tensor a = file->read("a.weight");
    QCOMPARE(a.const_data_ptr(), file->read("a.weight").const_data_ptr());  // both look into the map
    file.reset();
    std::filesystem::remove(path());
    QCOMPARE(std::string(static_cast<const char*>(a.const_data_ptr()), a.nbytes()), pattern(128, 1));
  }

  void data_off_their_natural_alignment_are_copied() {
    const auto file = open(gguf_file({{"bytes", {3}, 24, "abc"}, {"x", {2}, 0, pattern(8, 9)}}, 3, 1));
    const at::Tensor x = file->read("x");
    QCOMPARE(reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 4, uintptr_t{0});
    QCOMPARE(std::string(static_cast<const char*>(x.const_data_ptr()), 8), pattern(8, 9));
  }

  void tensors_may_be_listed_in_another_order_than_they_lie() {
    auto file = gguf_file({{"x", {8}, 0, pattern(32, 1)}, {"y", {8}, 0, pattern(32, 2)}});
    for (auto [name, offset] : {std::pair{"offset of x", uint64_t{32}}, {"offset of y", uint64_t{0}}})
      for (const auto& field : file.fields)
        if (field.what == name) std::memcpy(file.bytes.data() + field.at, &offset, 8);
    const at::Tensor x = open(file)->read("x");
    QCOMPARE(std::string(static_cast<const char*>(x.const_data_ptr()), 32), pattern(32, 2));
  }

  void every_mistake_is_named() {
    const auto check = [](const std::string& message, const char* expected) {
      QVERIFY2(message.find(expected) != std::string::npos && message.find("model.gguf") != std::string::npos, (message + " — expected: " + expected).c_str());
    };
    check(error_with("magic", uint32_t{0x21212121}), "not a GGUF file");
    check(error_with("version", uint32_t{1}), "version 1, expected 2 or 3");
    check(error_with("version", uint32_t{4}), "version 4");
    check(error_with("version", uint32_t{3} << 24), "big-endian");
    check(error_with("tensor count", UINT64_MAX), "tensors do not fit");
    check(error_with("key count", uint64_t{1} << 60), "keys do not fit");
    check(error_with("key x.u8 (length)", UINT64_MAX), "bytes long");
    check(error_with("key x.u8 (length)", uint64_t{0}), "0 bytes, expected 1 to 65535");
    check(error_with("type of x.u8", uint32_t{13}), "unknown type 13");
    check(error_with("x.bool", uint8_t{2}), "a bool with value 2");
    check(error_with("x.u64", UINT64_MAX), "above 2^63");
    check(error_with("x.texts elements' type", uint32_t{9}), "array of type 9");
    check(error_with("x.ints count", uint64_t{1} << 61), "elements, more than");
    check(error_with("x.texts 0 (length)", uint64_t{1} << 50), "bytes long");
    check(error_with("general.alignment", uint32_t{0}), "general.alignment is 0");
    check(error_with("general.alignment", uint32_t{24}), "expected a power of two");
    check(error_with("general.alignment", uint32_t{1} << 31), "general.alignment");
    check(error_with("dimensions of a.weight", uint32_t{5}), "5 dimensions");
    check(error_with("a dimension of k.weight", uint64_t{255}), "do not divide");
    check(error_with("a dimension of k.weight", UINT64_MAX), "dimension 0 is");
    // By the names that files are called after, whether ggml still has the type or not.
    const std::pair<uint32_t, const char*> unread[] = {{4, "Q4_2"}, {9, "Q8_1"}, {16, "IQ2_XXS"}, {29, "IQ1_M"}, {31, "Q4_0_4_4"}, {40, "NVFP4"}, {97, "type 97, which ggml does not have,"}};
    for (const auto& [number, name] : unread) check(error_with("type of a.weight", number), (std::string(name) + " is not supported").c_str());
    check(error_with("offset of a.weight", uint64_t{1}), "not a multiple of 32");
    check(error_with("offset of h", uint64_t{1} << 40), "truncated");
    check(error_with("offset of h", UINT64_MAX - 31), "truncated");
    check(error_with("offset of b.weight", uint64_t{0}), "overlap");
    check(error_with("offset of a.weight", uint64_t{32}), "a hole");
    check(error_in(gguf_file({{"x", {8}, 0, pattern(32, 1)}, {"x", {8}, 0, pattern(32, 1)}})), "\"x\" appears twice");
    check(error_in(gguf_file({{std::string(65, 'n'), {8}, 0, pattern(32, 1)}})), "65 bytes, expected 1 to 64");
    check(error_in(gguf_file({{"\xff\xfe", {8}, 0, pattern(32, 1)}})), "not plain UTF-8 text: \"\\xff\\xfe\"");
    check(error_in(gguf_file({{"x", {uint64_t{1} << 40, uint64_t{1} << 40}, 0, ""}})), "too large");
    check(error_in(gguf_file({{"x", {0, uint64_t{1} << 40, uint64_t{1} << 40}, 0, ""}})), "too large");
    auto longer = gguf_file({{"x", {8}, 0, pattern(32, 1)}});
    longer.bytes += std::string(64, 'z');
    check(error_in(longer), "96 bytes of data, but its 1 tensors take 32");
    auto twice = gguf_file({});
    twice.bytes.replace(twice.bytes.find("x.i16"), 5, "x.u16");
    check(error_in(twice), "\"x.u16\" appears twice");
    check(error_of(path().parent_path() / "absent-model.gguf"), "No such file");
  }

  void a_part_of_a_split_model_asks_for_the_others() {
    auto file = gguf_file({});
    // Same length as the key it replaces.
    for (const auto& field : file.fields)
      if (field.what == "x.u16") std::memcpy(file.bytes.data() + field.at, "\3\0", 2);
    const auto at = file.bytes.find("x.u16");
    file.bytes.replace(at - 8, 13, std::string("\x0b\0\0\0\0\0\0\0split.count", 19));
    file.bytes.resize(file.header_end + 6);
    const auto message = error_in(file);
    QVERIFY2(message.find("key \"split.no\" is missing, expected 0") != std::string::npos, message.c_str());
  }

  // Without padding between tensors no wrong size can hide. With it, one that stays within the padding is legal.
  void every_damaged_field_is_refused_or_harmless() {
    for (uint32_t alignment : {1u, 32u}) {
      const FileBytes good = gguf_file(sample_tensors(), 3, alignment);
      write_file(path(), good.bytes);
      std::string expected;
      QCOMPARE(error_of(path(), &expected), std::string());
      int refused = 0, harmless = 0;
      for (const auto& field : good.fields)
        for (const auto& value : damaged_values(good.bytes.substr(field.at, field.size), field.number)) {
          std::string damaged = good.bytes;
          damaged.replace(field.at, field.size, value);
          if (damaged == good.bytes) continue;
          write_file(path(), damaged);
          std::string found;
          const auto message = error_of(path(), &found);
          QVERIFY2(message.empty() ? found == expected || alignment > 1 : is_clear(message, path()), (field.what + ": " + message).c_str());
          ++(message.empty() ? harmless : refused);
        }
      QVERIFY2(refused > 1000 && harmless > 500, fmt::format("{} refused, {} harmless", refused, harmless).c_str());
    }
  }

  void every_truncation_is_refused() {
    const FileBytes good = gguf_file(sample_tensors());
    for (size_t length = 0; length < good.bytes.size(); ++length) {
      write_file(path(), std::string_view(good.bytes).substr(0, length));
      const auto message = error_of(path());
      QVERIFY2(is_clear(message, path()), fmt::format("cut to {} bytes: \"{}\"", length, message).c_str());
    }
  }

  void a_lying_count_takes_no_memory() {
    const int64_t before = qb::peak_resident_bytes();
    QVERIFY(!error_with("x.texts count", uint64_t{1} << 40).empty());
    QVERIFY(!error_with("tensor count", uint64_t{1} << 40).empty());
    QVERIFY(qb::peak_resident_bytes() - before < (int64_t{64} << 20));
  }
};

QTEST_GUILESS_MAIN(TestGguf)
#include "test_gguf.moc"
