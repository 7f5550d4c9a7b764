#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <sys/resource.h>

#include <QtTest/QtTest>
#include <cmath>
#include <csignal>
#include <fstream>
#include <limits>

#include "core/base/error.h"
#include "core/measure/divergence.h"
#include "core/measure/reference_states.h"
#include "core/model/head.h"

namespace {

namespace fs = std::filesystem;

at::Tensor random(std::initializer_list<int64_t> shape, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed));
}

fs::path file_with(const fs::path& folder, const std::vector<at::Tensor>& windows) {
  qb::ReferenceStates states(folder, {"m", "t", 4, 5});
  states.begin_appending(static_cast<int64_t>(windows.size()));
  for (const at::Tensor& window : windows) states.append(window);
  states.end_appending();
  return states.path();
}

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void change(const fs::path& path, int64_t at) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(at);
  const char old = static_cast<char>(file.get());
  file.seekp(at);
  file.put(static_cast<char>(old ^ 1));
}

}  // namespace

class TestDivergence : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  // Beside the definition in float64, over several tiles of the vocabulary, with logits that are shifted and that grow along it.
  void heads_are_compared_by_the_definition() {
    const int64_t tokens = 9, vocabulary = 5000, width = 12;
    const at::Tensor x = random({tokens, width}, 1), other = x + 0.05 * random({tokens, width}, 2);
    const at::Tensor growth = at::linspace(-40, 40, vocabulary), bias = growth + random({vocabulary}, 3);
    const qb::HeadSpec reference{random({vocabulary, width}, 4), bias}, spec{reference.rows + 0.01 * random({vocabulary, width}, 5), bias + 300};
    const at::Tensor targets = at::arange(0, tokens, at::kLong) * 600;
    const qb::PredictionComparison found = qb::head_comparison(other, spec, x, reference, targets);

    const auto logarithms = [](const at::Tensor& states, const qb::HeadSpec& head) { return at::log_softmax(qb::head_logits(states, head).to(at::kDouble), 1); };
    const at::Tensor p = logarithms(x, reference), q = logarithms(other, spec);
    QVERIFY(at::allclose(found.divergence, (p.exp() * (p - q)).sum(1), 1e-4, 1e-6));
    QVERIFY(at::allclose(found.negative_log_likelihood, -q.gather(1, targets.unsqueeze(1)).squeeze(1), 1e-6, 1e-4));
    QVERIFY(at::allclose(found.reference_negative_log_likelihood, -p.gather(1, targets.unsqueeze(1)).squeeze(1), 1e-6, 1e-4));
    QVERIFY(at::equal(found.same_top, p.argmax(1) == q.argmax(1)));
    QVERIFY(found.divergence.min().item<double>() > 0);
  }

  void a_head_beside_itself_differs_by_nothing() {
    const qb::HeadSpec head{random({3001, 16}, 1)};
    const at::Tensor x = random({7, 16}, 2);
    const qb::PredictionComparison found = qb::head_comparison(x, head, x, head, at::zeros({7}, at::kLong));
    QVERIFY(at::equal(found.divergence, at::zeros({7}, at::kDouble)));
    QVERIFY(found.same_top.all().item<bool>());
  }

  void far_apart_and_tiny_divergences_keep_their_digits() {
    const int64_t vocabulary = 4099;
    const qb::HeadSpec head{at::eye(vocabulary)};
    const at::Tensor x = random({1, vocabulary}, 1), targets = at::zeros({1}, at::kLong);
    const auto expected = [&](const at::Tensor& y) {
      const at::Tensor p = at::log_softmax(x.to(at::kDouble), 1), q = at::log_softmax(y.to(at::kDouble), 1);
      return (p.exp() * (p - q)).sum().item<double>();
    };
    for (const double size : {1e-3, 1.0, 30.0}) {
      const at::Tensor y = x + size * random({1, vocabulary}, 2);
      const double found = qb::head_comparison(y, head, x, head, targets).divergence.item<double>();
      QVERIFY2(std::fabs(found - expected(y)) <= 1e-5 * expected(y) + 1e-9, qPrintable(QString("%1: %2 for %3").arg(size).arg(found).arg(expected(y))));
    }
  }

  void a_logit_that_is_no_number_makes_no_figure() {
    const qb::HeadSpec head{at::eye(2100)};
    at::Tensor x = random({2, 2100}, 1), y = x.clone();
    y[1][2070] = std::numeric_limits<float>::quiet_NaN();
    const qb::PredictionComparison found = qb::head_comparison(y, head, x, head, at::zeros({2}, at::kLong));
    QCOMPARE(found.divergence[0].item<double>(), 0.0);
    QVERIFY(std::isnan(found.divergence[1].item<double>()));
    QVERIFY(std::isnan(found.negative_log_likelihood[1].item<double>()));
  }

  // Worked out by hand: four tokens in two windows.
  void figures_are_those_of_the_formulas() {
    const double ln2 = std::log(2.0);
    const std::vector<qb::Metric> metrics = qb::divergence_figures({{0, 1e-3, 2e-3, 5e-3}, {ln2, 2 * ln2, ln2, 3 * ln2}, {ln2, ln2, ln2, 2 * ln2}, {1, 1, 0, 1}, 2});
    qb::EvaluationResult result;
    result.metrics = metrics;
    const auto near = [](double a, double b) { return std::fabs(a - b) < 1e-12; };
    QVERIFY(near(result.value("kl"), 2e-3));
    QVERIFY(near(result.find("kl")->standard_error, std::sqrt(14e-6 / 3 / 4)));
    QVERIFY(near(result.find("kl")->values.at(0), 0.5e-3) && near(result.find("kl")->values.at(1), 3.5e-3));
    QVERIFY(near(result.value("kl_median"), 1.5e-3));
    QVERIFY(near(result.value("kl_p90"), 2e-3 + 0.7 * 3e-3));
    QCOMPARE(result.value("kl_max"), 5e-3);
    QCOMPARE(result.value("same_top"), 75.0);
    QVERIFY(near(result.find("same_top")->standard_error, 100 * std::sqrt(0.75 * 0.25 / 3)));
    // Probabilities ½ ¼ ½ ⅛ for ½ ½ ½ ¼.
    QVERIFY(near(result.value("delta_p"), -9.375));
    QVERIFY(near(result.value("delta_p_rms"), std::sqrt((25.0 * 25 + 12.5 * 12.5) / 4)));
    QVERIFY(near(result.value("delta_p_min"), -25) && near(result.value("delta_p_max"), 0));
    QVERIFY(near(result.value("ln_ppl_ratio"), ln2 / 2));
    QVERIFY(near(result.value("ppl_ratio"), std::sqrt(2.0)));
    // Losses 1 2 1 3 and 1 1 1 2 in units of ln 2: sums of squares 2.75 and 0.75 about their means, of products 1.25.
    QVERIFY(std::fabs(result.value("ppl_correlation") - 125 / std::sqrt(2.75 * 0.75)) < 1e-9);
    const qb::Histogram& histogram = result.find("kl")->histogram;
    QCOMPARE(histogram.below, 1);
    QCOMPARE(histogram.counts.size(), size_t{110});
    QCOMPARE(histogram.counts.at(63), 1);  // log10 2e-3 = −2.699 is 6.301 decades above the lowest
  }

  void each_figure_has_its_row_in_the_table() {
    const std::vector<qb::Metric> metrics = qb::divergence_figures({{0, 1}, {1, 2}, {1, 1}, {1, 0}, 2});
    const std::vector<qb::MetricInfo> infos = qb::divergence_metrics();
    QCOMPARE(metrics.size(), infos.size());
    for (size_t i = 0; i < infos.size(); ++i) QCOMPARE(metrics[i].name, infos[i].name);
  }

  void states_come_back_and_go_on() {
    QTemporaryDir place;
    const fs::path folder = place.path().toStdString();
    const std::vector<at::Tensor> windows = {random({3, 5}, 1), random({3, 5}, 2), random({3, 5}, 3)};
    const fs::path whole = file_with(folder / "whole", windows);

    const fs::path path = file_with(folder / "parts", {windows[0]});
    {
      qb::ReferenceStates states(folder / "parts", {"m", "t", 4, 5});
      QCOMPARE(states.windows(), 1);
      states.begin_appending(3);
      states.append(windows[1]);
    }  // killed here: no end
    fs::resize_file(path, fs::file_size(path) - 7);
    qb::ReferenceStates states(folder / "parts", {"m", "t", 4, 5});
    QCOMPARE(states.windows(), 1);
    QVERIFY(states.damage().find("window 1") != std::string::npos);
    states.begin_appending(3);
    states.append(windows[1]);
    states.append(windows[2]);
    states.end_appending();
    QCOMPARE(states.windows(), 3);
    for (int64_t i = 0; i < 3; ++i) QVERIFY(at::equal(states.window(i), windows[static_cast<size_t>(i)]));
    QCOMPARE(bytes_of(path), bytes_of(whole));
  }

  void a_flipped_bit_is_noticed_and_made_again() {
    QTemporaryDir place;
    const fs::path folder = place.path().toStdString();
    const std::vector<at::Tensor> windows = {random({3, 5}, 1), random({3, 5}, 2), random({3, 5}, 3)};
    const fs::path path = file_with(folder, windows);
    const std::string before = bytes_of(path);
    for (const auto& [at, left] : std::vector<std::pair<int64_t, int64_t>>{{3, 0}, {128 + 4, 0}, {128 + 76 + 60, 1}, {128 + 2 * 76 + 75, 2}}) {
      change(path, at);
      qb::ReferenceStates states(folder, {"m", "t", 4, 5});
      QCOMPARE(states.windows(), left);
      QVERIFY(states.damage().find(path.string()) != std::string::npos);
      states.begin_appending(3);
      for (int64_t i = left; i < 3; ++i) states.append(windows[static_cast<size_t>(i)]);
      states.end_appending();
      QCOMPARE(bytes_of(path), before);
    }
  }

  void others_keys_have_others_files() {
    QTemporaryDir place;
    const fs::path folder = place.path().toStdString();
    file_with(folder, {random({3, 5}, 1)});
    QCOMPARE(qb::ReferenceStates(folder, {"m", "t", 4, 5}).windows(), 1);
    for (const qb::ReferenceStates::Key& key : {qb::ReferenceStates::Key{"n", "t", 4, 5}, {"m", "u", 4, 5}, {"m", "t", 5, 5}, {"m", "t", 4, 6}}) QCOMPARE(qb::ReferenceStates(folder, key).windows(), 0);
  }

  void a_full_disk_is_said_and_leaves_whole_windows() {
    QTemporaryDir place;
    const fs::path folder = place.path().toStdString();
    const fs::path path = file_with(folder, {random({3, 5}, 1)});
    qb::ReferenceStates states(folder, {"m", "t", 4, 5});
    states.begin_appending(2);
    rlimit old{}, small{};
    ::getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 128 + 76 + 40;
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &small);
    std::string message;
    try {
      states.append(random({3, 5}, 2));
    } catch (const qb::ResourceError& error) {
      message = error.what();
    }
    ::setrlimit(RLIMIT_FSIZE, &old);
    std::signal(SIGXFSZ, handler);
    QVERIFY2(message.find(path.string()) != std::string::npos, message.c_str());
    QCOMPARE(qb::ReferenceStates(folder, {"m", "t", 4, 5}).windows(), 1);
  }

  void more_than_the_disk_holds_is_refused_before_the_work() {
    QTemporaryDir place;
    qb::ReferenceStates states(place.path().toStdString(), {"m", "t", int64_t{1} << 30, int64_t{1} << 20});
    QVERIFY_THROWS_EXCEPTION(qb::ResourceError, states.begin_appending(1));
  }
};

QTEST_APPLESS_MAIN(TestDivergence)
#include "test_divergence.moc"
