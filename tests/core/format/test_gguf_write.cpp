#include <ATen/ATen.h>

#include <QtTest/QtTest>

#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <csignal>
#include <ctime>

#include "core/format/ggml_pack.h"
#include "core/format/gguf_write.h"
#include "format_files.h"

using namespace format_files;

class TestGgufWrite : public QObject {
  Q_OBJECT
  QTemporaryDir folder_;
  std::filesystem::path folder() const { return folder_.path().toStdString(); }
  std::filesystem::path path() const { return folder() / "model.gguf"; }
  bool empty() const { return std::filesystem::is_empty(folder()); }

  static std::string written(const std::vector<qb::TensorInfo>& tensors, const std::filesystem::path& path, const qb::GgufMetadata& metadata = {}) {
    try {
      qb::GgufWriter writer(path, metadata, tensors);
      return "";
    } catch (const qb::InternalError& error) {
      return error.what();
    }
  }
  static std::span<const std::byte> as_bytes(const std::string& text) { return std::as_bytes(std::span(text.data(), text.size())); }

 private Q_SLOTS:
  void cleanup() { std::filesystem::remove(path()); }

  void reads_back_equal() {
    qb::GgufMetadata metadata;
    metadata.text("general.architecture", "llama");
    metadata.u32("x.u32", 4000000000);
    metadata.u64("x.u64", int64_t{1} << 40);
    metadata.f32("x.f32", 0.1);
    metadata.boolean("x.bool", true);
    metadata.add("x.i8", {int64_t{-7}, qb::GgufType::i8});
    metadata.add("x.f64", {0.1, qb::GgufType::f64});
    metadata.texts("x.texts", {"ab", "", "ü"});
    metadata.i32s("x.ints", {3, -4});
    metadata.f32s("x.reals", {0.5, 0.1});
    metadata.booleans("x.flags", {true, false});
    metadata.u32("x.u32", 7);  // the later one counts
    const std::vector<qb::TensorInfo> tensors = {{"a", qb::DType::f32, {2, 3}}, {"empty", qb::DType::f16, {0, 4}}, {"b", qb::DType::q4_0, {2, 2, 32}}, {"scalar", qb::DType::bf16, {}}};
    const std::vector<std::string> data = {pattern(24, 1), "", pattern(72, 2), pattern(2, 3)};
    qb::GgufWriter writer(path(), metadata, tensors);
    QVERIFY(!std::filesystem::exists(path()));
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].name == "empty") continue;
      writer.write(tensors[i].name, as_bytes(data[i].substr(0, 1)));
      writer.write(tensors[i].name, as_bytes(data[i].substr(1)));
    }
    writer.commit();
    const auto file = qb::GgufFile::open(path());
    QCOMPARE(file->metadata().size(), metadata.all().size());
    for (const auto& [key, value] : metadata.all()) QVERIFY2(file->metadata().at(key) == value, key.c_str());
    QCOMPARE(file->tensors().size(), tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      const qb::TensorInfo &read = file->tensors()[i], &told = writer.tensors()[i];
      QCOMPARE(read.name, tensors[i].name);
      QVERIFY(read.dtype == tensors[i].dtype && read.shape == tensors[i].shape && read.offset == told.offset && read.bytes == told.bytes);
      const at::Tensor bytes = file->bytes(read.name);
      QCOMPARE(std::string(static_cast<const char*>(bytes.const_data_ptr()), bytes.nbytes()), data[i]);
    }
    QCOMPARE(file->bytes("b").sizes().vec(), (std::vector<int64_t>{4, 18}));
  }

  void what_the_format_cannot_hold_is_refused() {
    const auto tensor = [](const std::string& name, qb::DType dtype = qb::DType::f32, std::vector<int64_t> shape = {32}) { return qb::TensorInfo{name, dtype, shape}; };
    QVERIFY(written({tensor(std::string(63, 'n'))}, path()).empty());
    QVERIFY(written({tensor(std::string(64, 'n'))}, path()).find("64 bytes") != std::string::npos);
    QVERIFY(written({tensor("")}, path()).find("0 bytes") != std::string::npos);
    QVERIFY(written({tensor("a"), tensor("a")}, path()).find("given twice") != std::string::npos);
    QVERIFY(written({tensor("a", qb::DType::u64)}, path()).find("U64") != std::string::npos);
    QVERIFY(written({tensor("a", qb::DType::q4_k, {2, 288})}, path()).find("288") != std::string::npos);
    QVERIFY(written({tensor("a", qb::DType::f32, {1, 1, 1, 1, 1})}, path()).find("5 dimensions") != std::string::npos);
    const auto key = [&](const std::string& name, qb::GgufValue value) {
      qb::GgufMetadata metadata;
      metadata.add(name, std::move(value));
      return written({}, path(), metadata);
    };
    QVERIFY(key("x", {int64_t{-1}, qb::GgufType::u32}).find("-1") != std::string::npos);
    QVERIFY(key("x", {int64_t{256}, qb::GgufType::u8}).find("256") != std::string::npos);
    QVERIFY(key("x", {0.1, qb::GgufType::f32}).find("float32") != std::string::npos);
    QVERIFY(key("x", {0.5, qb::GgufType::u32}).find("another type") != std::string::npos);
    QVERIFY(key("x", {std::string("a"), qb::GgufType::u32}).find("another type") != std::string::npos);
    QVERIFY(key("general.alignment", {int64_t{64}, qb::GgufType::u32}).find("32") != std::string::npos);
    QVERIFY(empty());
  }

  void wrong_counts_and_orders_are_refused_and_leave_nothing() {
    const std::vector<qb::TensorInfo> tensors = {{"a", qb::DType::f32, {4}}, {"b", qb::DType::f32, {4}}};
    const std::string data(16, 'x');
    {
      qb::GgufWriter writer(path(), {}, tensors);
      QVERIFY_EXCEPTION_THROWN(writer.write("b", as_bytes(data)), qb::InternalError);
      QVERIFY_EXCEPTION_THROWN(writer.write("a", as_bytes(data + "y")), qb::InternalError);
      QVERIFY_EXCEPTION_THROWN(writer.commit(), qb::InternalError);
      writer.write("a", as_bytes(data));
      QVERIFY_EXCEPTION_THROWN(writer.write("a", as_bytes(data)), qb::InternalError);
      writer.write("b", as_bytes(data.substr(0, 15)));
      QVERIFY_EXCEPTION_THROWN(writer.commit(), qb::InternalError);
      QVERIFY(!std::filesystem::exists(path()));
    }
    QVERIFY(empty());
  }

  void a_full_disk_leaves_nothing() {
    rlimit limit{}, small{};
    QCOMPARE(::getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit, small.rlim_cur = 4096;
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &small);
    std::string error;
    try {
      qb::GgufWriter writer(path(), {}, {{"a", qb::DType::f32, {4096}}});
      writer.write("a", as_bytes(std::string(16384, 'x')));
      writer.commit();
    } catch (const qb::ResourceError& refused) {
      error = refused.what();
    }
    ::setrlimit(RLIMIT_FSIZE, &limit);
    std::signal(SIGXFSZ, handler);
    QVERIFY(error.find("model.gguf") != std::string::npos);
    QVERIFY(empty());
  }

  void parts_out_of_their_range_are_refused() {
    for (const qb::DType dtype : {qb::DType::q4_0, qb::DType::q4_1, qb::DType::q5_0, qb::DType::q5_1, qb::DType::q8_0, qb::DType::iq4_nl, qb::DType::mxfp4, qb::DType::q2_k, qb::DType::q3_k,
                                  qb::DType::q4_k, qb::DType::q5_k, qb::DType::q6_k}) {
      const qb::GgmlLayout layout = qb::ggml_layout(dtype);
      QCOMPARE(layout.block, qb::block_elements(dtype));
      const int64_t blocks = 2, columns = blocks * layout.block, subs = layout.sub_block > 0 ? columns / layout.sub_block : 0;
      const auto whole = [](int low, int high, int64_t n) { return at::arange(3 * n).remainder(high - low + 1).add(low).view({3, n}).to(at::kChar); };
      qb::GgmlParts good;
      good.codes = whole(layout.lowest, layout.highest, columns);
      good.d = at::full({3, blocks}, 0.25f);
      if (layout.m) good.m = at::full({3, blocks}, 0.375f);
      if (subs > 0) good.scales = whole(layout.lowest_scale, layout.highest_scale, subs);
      if (layout.highest_min > 0) good.mins = whole(0, layout.highest_min, subs);
      const qb::GgmlParts back = qb::unpack_ggml(dtype, qb::pack_ggml(dtype, good));
      QVERIFY(back.codes.equal(good.codes) && back.d.equal(good.d));
      QVERIFY(!layout.m || back.m.equal(good.m));
      QVERIFY(subs == 0 || back.scales.equal(good.scales));
      QVERIFY(layout.highest_min == 0 || back.mins.equal(good.mins));

      const auto refused = [&](auto change) {
        qb::GgmlParts bad{good.codes.clone(), good.d.clone(), good.m.defined() ? good.m.clone() : good.m, good.scales.defined() ? good.scales.clone() : good.scales,
                          good.mins.defined() ? good.mins.clone() : good.mins};
        change(bad);
        QVERIFY_EXCEPTION_THROWN(qb::pack_ggml(dtype, bad), qb::InternalError);
      };
      refused([](qb::GgmlParts& p) { p.d.select(0, 2).fill_(0.1f); });
      refused([](qb::GgmlParts& p) { p.d = p.d.narrow(1, 0, 1); });
      refused([](qb::GgmlParts& p) { p.d = p.d.to(at::kDouble); });
      refused([](qb::GgmlParts& p) { p.codes = p.codes.to(at::kInt); });
      refused([](qb::GgmlParts& p) { p.codes = p.codes.narrow(1, 0, 16); });
      if (layout.highest < 127) refused([&](qb::GgmlParts& p) { p.codes.select(0, 2).fill_(layout.highest + 1); });
      if (layout.lowest > -128) refused([&](qb::GgmlParts& p) { p.codes.select(0, 2).fill_(layout.lowest - 1); });
      if (layout.m) refused([](qb::GgmlParts& p) { p.m = at::Tensor(); });
      if (subs > 0) refused([](qb::GgmlParts& p) { p.scales = at::Tensor(); });
      if (subs > 0 && layout.highest_scale < 127) refused([&](qb::GgmlParts& p) { p.scales.fill_(layout.highest_scale + 1); });
      if (layout.highest_min > 0) refused([&](qb::GgmlParts& p) { p.mins.fill_(layout.highest_min + 1); });
      if (layout.highest_min > 0) refused([](qb::GgmlParts& p) { p.mins.fill_(-1); });
    }
    QVERIFY_EXCEPTION_THROWN(qb::ggml_layout(qb::DType::f16), qb::InternalError);
  }

  // Seconds of one core, so that a busy machine does not count.
  void packs_400_megabytes_of_floats_a_second() {
    const int threads = at::get_num_threads();
    at::set_num_threads(1);
    for (const qb::DType dtype : {qb::DType::q4_0, qb::DType::q4_k}) {
      const int64_t rows = 1024, columns = 4096;
      qb::GgmlParts parts;
      parts.codes = at::randint(0, 8, {rows, columns}, at::kChar);
      parts.d = parts.m = at::full({rows, columns / qb::ggml_layout(dtype).block}, 0.5f);
      if (dtype == qb::DType::q4_k) parts.scales = parts.mins = at::full({rows, columns / 32}, 33, at::kChar);
      double best = 1e9;
      for (int i = 0; i < 5; ++i) {
        const std::clock_t start = std::clock();
        qb::pack_ggml(dtype, parts);
        best = std::min(best, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
      }
      const double speed = static_cast<double>(rows * columns * 4) / best / 1e6;
      qInfo("%s: %.0f MB/s", std::string(qb::name_of(dtype)).c_str(), speed);
#ifndef __SANITIZE_ADDRESS__
      QVERIFY(speed > 400);
#endif
    }
    at::set_num_threads(threads);
  }
};

QTEST_GUILESS_MAIN(TestGgufWrite)
#include "test_gguf_write.moc"
