#include <QtTest>

#include <cmath>

#include "core/base/error.h"
#include "core/recipe/hardware.h"
#include "core/recipe/roofline.h"

using namespace qb;

namespace {

HardwareProfile machine() { return {"m", "M", "", 10e9, 100e9, {{"float32", 1e12}, {"bfloat16", 2e12}, {"int8", 4e12}}}; }

bool near(double a, double b) { return std::abs(a - b) <= 1e-12 * std::abs(b); }

}  // namespace

class TestRoofline : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void decode_moves_all_weights_and_the_cache() {
    // 1e9 weights of 4 bits; two layers, 1000 bytes of cache a token, 50 operations a pair.
    const ServedModel model{{{1e9, 0.5e9, "bfloat16", 1}}, {{2, 50, 1000, 0}}, 0};
    const SpeedPrediction p = predict_speed(machine(), model, {1, 2000});
    QVERIFY(near(p.decode, 1 / (0.5e9 / 100e9 + 2 * 2000 * 1000 / 100e9)));
    QVERIFY(!p.decode_by_compute);
    QVERIFY(near(p.memory_bytes, 0.5e9 + 2 * 2000 * 1000));
    // A prompt: 2·1e9·2000 operations against 5 ms of moving; pairs 2000·2001/2.
    const double attention = std::max(2 * 50 * 2000.0 * 2001 / 2 / 2e12, 2 * 1000 * 2000 / 100e9);
    QVERIFY(near(p.prefill_seconds, 2e9 * 2000 / 2e12 + attention));
    QVERIFY(p.prefill_by_compute);
  }

  void a_batch_reads_weights_once() {
    const ServedModel model{{{1e9, 0.5e9, "bfloat16", 1}}, {}, 0};
    const double one = predict_speed(machine(), model, {1, 10}).decode, four = predict_speed(machine(), model, {4, 10}).decode;
    QVERIFY(near(four, 4 * one));
    const SpeedPrediction many = predict_speed(machine(), model, {1000, 10});  // 2e12 operations take 1 s
    QVERIFY(near(many.decode, 1000.0) && many.decode_by_compute);
  }

  void codes_with_codes_compute_in_their_type_or_the_next_wider() {
    ServedModel model{{{1e9, 1e6, "int8", 1}}, {}, 0};
    QVERIFY(near(predict_speed(machine(), model, {1, 100}).prefill_seconds, 2e9 * 100 / 4e12));
    model.parts[0].computes = "int4";  // it has none: int8
    QVERIFY(near(predict_speed(machine(), model, {1, 100}).prefill_seconds, 2e9 * 100 / 4e12));
    model.parts[0].computes = "fp4";  // fp8, bfloat16
    QVERIFY(near(predict_speed(machine(), model, {1, 100}).prefill_seconds, 2e9 * 100 / 2e12));
  }

  void experts_are_read_as_often_as_they_are_chosen() {
    const ServedModel model{{{8e9, 8e9, "bfloat16", 0.25}}, {}, 0};
    QVERIFY(near(1 / predict_speed(machine(), model, {1, 10}).decode, 8e9 * 0.25 / 100e9));
    QVERIFY(near(2 / predict_speed(machine(), model, {2, 10}).decode, 8e9 * (1 - 0.75 * 0.75) / 100e9));
  }

  void a_window_bounds_cache_and_pairs() {
    const ServedModel model{{}, {{1, 1e9, 1000, 4}}, 0};
    QVERIFY(near(model.cache_bytes(10), 4000.0) && near(model.cache_bytes(3), 3000.0));
    QVERIFY(near(predict_speed(machine(), model, {1, 10}).prefill_seconds, (1 + 2 + 3 + 4 * 7) * 1e9 / 2e12));  // keys of queries 1 … 10
  }

  void what_does_not_fit_is_told() {
    QVERIFY(!predict_speed(machine(), {{{1e9, 10.1e9, "bfloat16", 1}}, {}, 0}, {1, 1}).fits);
    QVERIFY(predict_speed(machine(), {{{1e9, 9.9e9, "bfloat16", 1}}, {}, 0}, {1, 1}).fits);
  }

  void every_profile_is_whole() {
    const auto all = hardware_profiles();
    QVERIFY(all.size() >= 10);
    for (const HardwareProfile& profile : all) {
      QVERIFY2(profile.memory_bytes >= 8e9 && profile.bandwidth >= 50e9 && !profile.source.empty() && !profile.title.empty(), profile.name.c_str());
      QVERIFY2(profile.compute.at("bfloat16") >= profile.compute.at("float32"), profile.name.c_str());
      for (const char* type : {"int4", "int8", "fp4", "fp8"}) computes_in(profile, type);
    }
  }

  void errors_name_file_line_and_key() {
    QTemporaryDir folder;
    const auto write = [&](const char* text) {
      QFile file(folder.filePath(QStringLiteral("mine.yaml")));
      if (!file.open(QIODevice::WriteOnly)) qFatal("cannot write");
      file.write(text);
      return folder.filePath(QStringLiteral("mine.yaml")).toStdString();
    };
    QCOMPARE(find_hardware(write("memory_gb: 8\nbandwidth_gb_s: 100\ncompute_tflops: {float32: 1}\n")).name, std::string("mine"));
    const auto message = [&](const char* text) {
      try {
        find_hardware(write(text));
      } catch (const Error& e) {
        return std::string(e.what());
      }
      return std::string();
    };
    const std::string unknown = message("memory_gb: 8\nbandwidth_gb_s: 100\ncompute_tflops: {float32: 1, bf16: 2}\n");
    QVERIFY2(unknown.find("mine.yaml:3") != std::string::npos && unknown.find("bf16") != std::string::npos, unknown.c_str());
    const std::string missing = message("memory_gb: 8\ncompute_tflops: {float32: 1}\n");
    QVERIFY2(missing.find("bandwidth_gb_s") != std::string::npos, missing.c_str());
    const std::string negative = message("memory_gb: -8\nbandwidth_gb_s: 100\ncompute_tflops: {float32: 1}\n");
    QVERIFY2(negative.find("memory_gb") != std::string::npos, negative.c_str());
    try {
      find_hardware("h100");
      QFAIL("found");
    } catch (const InputError& e) {
      QVERIFY2(std::string(e.what()).find("h100-sxm") != std::string::npos, e.what());
    }
  }
};

QTEST_GUILESS_MAIN(TestRoofline)
#include "test_roofline.moc"
