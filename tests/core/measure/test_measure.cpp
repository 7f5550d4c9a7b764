#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "core/measure/block_measure.h"
#include "core/measure/distribution.h"
#include "core/measure/report_json.h"

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

int64_t total(const qb::Histogram& h) {
  int64_t sum = h.below + h.above;
  for (int64_t count : h.counts) sum += count;
  return sum;
}

// One block of one linear whose weight stays as it is unless `after` says otherwise.
qb::LinearReport measured(const at::Tensor& weight, const at::Tensor& after, const at::Tensor& rows) {
  static const auto model = qb::Model::open(QBENCH_SOURCE_DIR "/resources/demo");
  static const qb::Decoder decoder(model, model->source, at::kFloat);
  qb::Block block;
  const qb::Control control;
  qb::BlockWork work{block, {}, {}, decoder, 0, control, {}};
  qb::LinearWork linear;
  linear.info.name = "proj";
  linear.info.subset = "proj";
  linear.info.out_features = weight.size(0);
  linear.info.in_features = weight.size(1);
  linear.original = linear.reference = weight;
  linear.weight = after;
  work.linears.push_back(linear);
  if (rows.defined()) {
    work.statistics[0].rows = rows;
    work.statistics[0].abs_max = rows.abs().amax(0);
  }
  return qb::measure_block({work, decoder, {}, {}, 0}, {}).linears.at(0);
}

qb::RunReport full_report() {
  qb::RunReport report;
  report.id = "20260101-000000-a";
  report.name = "ä \"quoted\"\n";
  report.status = qb::RunStatus::cancelled;
  report.model_float_bytes = uint64_t{3} << 41;
  report.model_bytes = 12345678901234;
  report.vocabulary.emplace_back().name = "lm_head";
  report.vocabulary.back().block = -1;
  report.vocabulary.back().bits_per_weight = 8.027;
  report.seed = std::numeric_limits<uint64_t>::max();
  report.load_seconds = 0.1;
  report.quantize_seconds = 1.0 / 3;
  report.float_bytes = uint64_t{1} << 60;
  qb::LinearReport linear;
  linear.name = "mlp.down_proj";
  linear.weight_sqnr_db = kInfinity;
  linear.output_sqnr_db = -kInfinity;
  linear.output_cosine = std::nextafter(1.0, 0.0);
  linear.weight_mse = 4.9e-324;
  linear.measured_tokens = 1024;
  linear.weight_error = {-0.1, 0.1, {1, 2, int64_t{1} << 40}, 3, 4};
  linear.outliers = {{7, 1e300, 0.7}};
  report.blocks.push_back({2, {linear}, 0.25, 4096, 1.5, 123});
  qb::EvaluationResult result;
  result.corpus = "wiki";
  result.float_model = true;
  result.put({"nll", 0.1, 0, {0.1, 0.2, 1e-17}});
  report.evaluations.push_back(result);
  report.environment = {"0.1.0", "2.11.0", "cpu", "a CPU", "host", 2};
  return report;
}

}  // namespace

class TestMeasure : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void bins_are_equal_and_their_edges_belong() {
    const at::Tensor values = at::tensor({-1.f, -0.9f, -0.4f, 0.1f, 0.6f, 1.f, 1.5f, -7.f});
    const qb::Histogram h = qb::histogram(values, -1, 1, 4);
    QCOMPARE(h.counts, (std::vector<int64_t>{2, 1, 1, 2}));
    QCOMPARE(h.below, 1);
    QCOMPARE(h.above, 1);
  }
  void a_constant_and_a_non_finite_range_still_have_bins() {
    const qb::Histogram constant = qb::histogram(at::zeros({10}), 0, 0);
    QVERIFY(constant.high > constant.low);
    QCOMPARE(total(constant), 10);
    const qb::Histogram infinite = qb::histogram(at::ones({3}), -kInfinity, kInfinity);
    QVERIFY(std::isfinite(infinite.low) && std::isfinite(infinite.high));
    const at::Tensor values = at::tensor({0.5f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()});
    const qb::Histogram mixed = qb::histogram(values, -1, 1);
    QCOMPARE(total(mixed), 2);
    QCOMPARE(mixed.above, 1);
  }
  void kurtosis_of_known_distributions() {
    QCOMPARE(qb::kurtosis(at::tensor({-1.f, 1.f, -1.f, 1.f})), 1.0);       // two points
    QVERIFY(std::abs(qb::kurtosis(at::linspace(0, 1, 100001)) - 1.8) < 1e-3);  // uniform
    QVERIFY(std::isnan(qb::kurtosis(at::full({5}, 3.f))));
    QVERIFY(std::isnan(qb::kurtosis(at::empty({0}))));
    // A mean that drowns the spread; rounding to float32 is then in the values themselves.
    QVERIFY(std::abs(qb::kurtosis(at::tensor({4095.f, 4097.f, 4095.f, 4097.f})) - 1) < 1e-6);
  }
  // Of more values than a thread takes at a time, and not a whole number of vectors.
  void sums_and_bins_of_many_values_are_those_of_float64() {
    const at::Tensor x = (at::randn({100003}) * 2 + 0.3).to(at::kFloat), wide = x.to(at::kDouble);
    const qb::Moments m = qb::moments(x);
    QCOMPARE(m.count, 100003);
    for (const auto& [found, expected] : {std::pair{m.sum, wide.sum()}, {m.squares, wide.pow(2).sum()}, {m.cubes, wide.pow(3).sum()}, {m.fourths, wide.pow(4).sum()}})
      QVERIFY(std::abs(found - expected.item<double>()) < 1e-9 * std::abs(expected.item<double>()));
    QCOMPARE(m.peak, wide.abs().max().item<double>());
    const qb::BinCounts bins = qb::count_bins(x, -3, 4, 70);
    const at::Tensor place = ((wide + 3) * 10).floor();
    QCOMPARE(bins.below, (wide < -3).sum().item<int64_t>());
    QCOMPARE(bins.above, (wide > 4).sum().item<int64_t>());
    for (int64_t b = 0; b < 70; ++b) QCOMPARE(bins.counts[static_cast<size_t>(b)], (place == b).sum().item<int64_t>());
    QVERIFY(!std::isfinite(qb::moments(at::tensor({1.f, std::numeric_limits<float>::quiet_NaN()})).peak));
  }
  void zero_weights_are_no_division_by_zero() {
    const auto r = measured(at::zeros({4, 8}), at::zeros({4, 8}), at::ones({3, 8}));
    QCOMPARE(r.weight_mse, 0.0);
    QCOMPARE(r.output_relative_error, 0.0);
    QCOMPARE(r.weight_sqnr_db, kInfinity);
    QVERIFY(std::isnan(r.weight_kurtosis));
    QCOMPARE(total(r.weight_before), 32);
    QCOMPARE(r.outliers.at(0).ratio, 1.0);
  }
  void zero_weights_that_became_something_are_infinitely_wrong() {
    const auto r = measured(at::zeros({4, 8}), at::ones({4, 8}), at::ones({3, 8}));
    QCOMPARE(r.weight_mse, 1.0);
    QCOMPARE(r.output_relative_error, kInfinity);
    QCOMPARE(r.weight_sqnr_db, -kInfinity);
  }
  void one_channel_and_one_token() {
    const auto r = measured(at::full({1, 1}, 2.f), at::full({1, 1}, 3.f), at::full({1, 1}, 5.f));
    QCOMPARE(r.weight_max_error, 1.0);
    QCOMPARE(r.output_relative_error, 0.5);
    QCOMPARE(r.outliers.size(), size_t{1});
    QCOMPARE(r.measured_tokens, 1);
  }
  void a_linear_without_tokens_has_no_output_figures() {
    const auto r = measured(at::ones({2, 2}), at::ones({2, 2}), {});
    QVERIFY(std::isnan(r.output_relative_error) && std::isnan(r.input_abs_max));
    QCOMPARE(r.measured_tokens, 0);
    QVERIFY(r.output_error.empty() && r.outliers.empty());
  }
  void overflown_inputs_are_measured_without_a_crash() {
    at::Tensor rows = at::randn({16, 8});
    rows[3][2] = std::numeric_limits<float>::quiet_NaN();
    rows[4][5] = std::numeric_limits<float>::infinity();
    const auto r = measured(at::ones({2, 8}), at::ones({2, 8}), rows);
    QVERIFY(r.input_before.high > 0.5 && r.input_before.high < 10);
    QCOMPARE(total(r.input_before), 16 * 8 - 1);
    QCOMPARE(r.outliers.size(), size_t{7});  // the channel with NaN has no peak
    QVERIFY(std::isnan(r.output_relative_error));
  }

  void a_large_embedding_is_measured_on_rows_of_it() {
    // 70 million weights: just above the size from which on a sample of rows is looked at.
    const at::Tensor stored = at::randn({273438, 256}, at::TensorOptions().dtype(at::kFloat)).mul_(0.02).to(at::kBFloat16);
    qb::QuantSpec spec;
    spec.type.bits = 4;
    spec.symmetric = false;
    spec.group_size = 64;
    const qb::QuantizedWeight codes = qb::quantize(stored.to(at::kFloat), spec);
    const qb::LinearReport report = qb::measure_vocabulary({"model.embed_tokens", stored, codes, {}, 1, {}});
    QCOMPARE(report.name, std::string("embed_tokens"));
    QCOMPARE(report.block, -1);
    QVERIFY(report.note.find("136719 of 273438 rows") != std::string::npos);
    const at::Tensor error = (codes.dequantize() - stored.to(at::kFloat)).slice(0, 0, 273438, 2);
    QVERIFY(std::abs(report.weight_mse / error.square().mean(at::kDouble).item<double>() - 1) < 1e-6);
    QCOMPARE(report.bits_per_weight, 4 + 20.0 / 64);
    QVERIFY(std::isnan(report.output_relative_error));
  }

  void a_report_comes_back_to_the_bit() {
    const qb::RunReport report = full_report();
    const std::string json = qb::to_json(report);
    const qb::RunReport back = qb::run_report_from_json(json, "memory");
    QCOMPARE(qb::to_json(back), json);
    const auto &a = report.blocks[0].linears[0], &b = back.blocks.at(0).linears.at(0);
    QCOMPARE(b.output_cosine, a.output_cosine);
    QVERIFY(b.output_cosine < 1.0);
    QVERIFY(b.weight_mse == 4.9e-324);
    QCOMPARE(b.weight_sqnr_db, kInfinity);
    QCOMPARE(b.weight_error.counts, a.weight_error.counts);
    QVERIFY(back.quantize_seconds == 1.0 / 3);
    QCOMPARE(back.seed, report.seed);
    QCOMPARE(back.status, qb::RunStatus::cancelled);
    QCOMPARE(back.name, report.name);
    QVERIFY(back.evaluations.at(0).float_model);
    QCOMPARE(back.environment.threads, 2);
  }
  void a_number_that_is_none_is_null() {
    qb::BlockReport block;
    block.output_relative_error = std::numeric_limits<double>::quiet_NaN();
    const auto json = nlohmann::json::parse(qb::to_json(block));
    QVERIFY(json["output_relative_error"].is_null());
    QVERIFY(std::isnan(qb::block_report_from_json(json.dump(), "memory").output_relative_error));
  }
  void every_missing_or_mistyped_field_is_named_and_unknown_ones_pass() {
    const auto whole = nlohmann::json::parse(qb::to_json(full_report()));
    for (const auto& [key, value] : whole.items()) {
      auto damaged = whole;
      damaged.erase(key);
      // Earlier reports lack these.
      if (key == "statistics_cached_blocks")
        QCOMPARE(qb::run_report_from_json(damaged.dump(), "memory").statistics_cached_blocks, int64_t{0});
      else if (key == "model_bytes")
        QCOMPARE(qb::run_report_from_json(damaged.dump(), "memory").model_bytes, uint64_t{0});
      else if (key == "model_float_bytes")
        QCOMPARE(qb::run_report_from_json(damaged.dump(), "memory").model_float_bytes, uint64_t{0});
      else if (key == "vocabulary")
        QVERIFY(qb::run_report_from_json(damaged.dump(), "memory").vocabulary.empty());
      else if (key == "costs")
        QVERIFY(qb::run_report_from_json(damaged.dump(), "memory").costs.empty());
      else if (key == "sweep")
        QVERIFY(qb::run_report_from_json(damaged.dump(), "memory").sweep.empty());
      else if (key == "style")
        QCOMPARE(qb::run_report_from_json(damaged.dump(), "memory").style, -1);
      else if (key == "peak_device_bytes")
        QCOMPARE(qb::run_report_from_json(damaged.dump(), "memory").peak_device_bytes, int64_t{0});
      else
        expect_error(damaged.dump(), key);
      damaged[key] = nlohmann::json{{"wrong", true}};
      expect_error(damaged.dump(), key);
    }
    auto deep = whole;
    deep["blocks"][0]["linears"][0]["weight_error"]["counts"][1] = "two";
    expect_error(deep.dump(), "blocks[0].linears[0].weight_error.counts[1]");
    deep = whole;
    deep["environment"]["threads"] = int64_t{1} << 40;
    expect_error(deep.dump(), "environment.threads");
    deep = whole;
    deep["seed"] = -1;
    expect_error(deep.dump(), "seed");
    deep = whole;
    deep["format"] = 2;
    expect_error(deep.dump(), "format");
    deep = whole;
    deep["of_a_later_version"] = 1;
    QCOMPARE(qb::run_report_from_json(deep.dump(), "memory").id, full_report().id);
    expect_error(qb::to_json(full_report()).substr(0, 100), "JSON");
    expect_error("[]", "object");
  }
  void a_message_that_is_not_utf8_is_written_all_the_same() {
    qb::RunReport report;
    report.error = "caf\xe9.txt: missing";
    QVERIFY(qb::run_report_from_json(qb::to_json(report), "memory").error.find(".txt: missing") != std::string::npos);
  }

 private:
  static void expect_error(const std::string& json, const std::string& field) {
    try {
      qb::run_report_from_json(json, "some/report.json");
    } catch (const qb::InputError& e) {
      const std::string what = e.what();
      QVERIFY2(what.find("some/report.json") != std::string::npos && what.find(field) != std::string::npos, what.c_str());
      return;
    }
    QFAIL(("no error for " + field).c_str());
  }
};

QTEST_GUILESS_MAIN(TestMeasure)
#include "test_measure.moc"
