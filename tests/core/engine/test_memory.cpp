#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <malloc.h>

#include <atomic>
#include <filesystem>

#include "core/engine/engine.h"
#include "core/engine/gram.h"
#include "core/method/reconstruction/gptq.h"
#include "core/method/reconstruction/gptq_solver.h"
#include "core/method/reconstruction/refinement.h"
#include "tests/core/engine/tiny_model.h"

using namespace qb;
namespace fs = std::filesystem;

namespace {

std::atomic<int64_t> held = 0, most = 0;

// libtorch's own allocator with a book kept: what tensors take.
class Counting final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = c10::alloc_cpu(bytes);
    const int64_t now = held += size_of(memory);
    for (int64_t seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
    }
    return {memory, memory, &give_back, at::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

 private:
  static int64_t size_of(void* memory) { return static_cast<int64_t>(::malloc_usable_size(memory)); }
  static void give_back(void* memory) {
    held -= size_of(memory);
    c10::free_cpu(memory);
  }
};

// The most that was held at once while something ran, beside what was held before.
int64_t peak_of(const std::function<void()>& work) {
  const int64_t before = most = held.load();
  work();
  return most - before;
}

constexpr int64_t kIn = 2048, kGram = 4 * kIn * kIn;

double grams(int64_t bytes) { return static_cast<double>(bytes) / static_cast<double>(kGram); }

at::Tensor gram_of_random_inputs() {
  const at::Tensor x = at::randn({2 * kIn, kIn});
  return x.t().matmul(x);
}

}  // namespace

class TestMemory : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void initTestCase() {
    static Counting counting;
    c10::SetCPUAllocator(&counting, 1);
    at::manual_seed(3);
  }

  void a_factor_takes_one_matrix_beside_its_gram_matrix() {
    const at::Tensor gram = gram_of_random_inputs();
    GptqOptions options = gptq_options({"gptq", {}});
    options.shrinkage = 0.25;
    std::optional<GptqFactor> factor;
    const double taken = grams(peak_of([&] { factor = gptq_factor(gram, options, 0, at::arange(8)); }));
    QVERIFY(factor);
    // It is what it says: the shrunk, damped matrix in its order is the factor times its transpose.
    at::Tensor expected = gram.to(at::kDouble) * 0.75;
    expected.diagonal().copy_(gram.diagonal().to(at::kDouble) + 0.01 * gram.diagonal().mean(at::kDouble));
    expected = expected.index_select(0, factor->order).index_select(1, factor->order);
    const at::Tensor upper = factor->upper.to(at::kDouble).triu();
    QVERIFY(at::allclose(upper.matmul(upper.t()), expected, 1e-4, 1e-4 * expected.abs().max().item<double>()));
    QVERIFY2(taken >= 1 && taken < 1.3, qPrintable(QString::number(taken)));
  }

  void a_matrix_that_needs_more_damping_is_made_again_in_one_matrix() {
    at::Tensor gram = gram_of_random_inputs();
    gram.diagonal().slice(0, 0, 4).mul_(0.2);
    GptqOptions options = gptq_options({"gptq", {}});
    options.damping = 1e-3;
    std::optional<GptqFactor> factor;
    const double taken = grams(peak_of([&] { factor = gptq_factor(gram, options, 0); }));
    QVERIFY(factor && factor->attempts > 1);
    QVERIFY2(taken < 1.3, qPrintable(QString::number(taken)));
    gram.fill_(std::numeric_limits<float>::quiet_NaN());
    gram.diagonal().fill_(1);
    QVERIFY(!gptq_factor(gram, options, 0));
  }

  void rounding_and_refining_take_no_further_matrix() {
    const at::Tensor gram = gram_of_random_inputs(), weight = at::randn({64, kIn});
    QuantSpec spec;
    spec.type = NumberType::parse("int4").value();
    spec.symmetric = false;
    spec.granularity = Granularity::group;
    spec.group_size = 128;
    GptqOptions options = gptq_options({"gptq", {}});
    const auto factor = gptq_factor(gram, options, 0);
    const double taken = grams(peak_of([&] {
      GptqResult result = gptq(weight, *factor, spec, std::nullopt, {}, options, {});
      refine(result.weight, weight, gram, {}, {.sweeps = 1, .scales = true, .shrinkage = 0.25}, {});
    }));
    QVERIFY2(taken < 0.3, qPrintable(QString::number(taken)));
  }

  void a_gram_matrix_is_completed_where_it_is() {
    const at::Tensor gram = gram_of_random_inputs(), upper = gram.triu();
    const double taken = grams(peak_of([&] { complete_gram(upper); }));
    QVERIFY(at::equal(upper, gram.triu() + gram.triu(1).t()));
    QVERIFY2(taken < 0.1, qPrintable(QString::number(taken)));
  }

  void a_block_at_work_takes_two_and_a_half_gram_matrices_and_its_weights() {
    testing::TinyShape shape;
    shape.hidden = 128;
    shape.inner = kIn;
    shape.blocks = 1;
    const fs::path folder = fs::temp_directory_path() / "qbench-test-memory";
    fs::remove_all(folder);
    const auto model = testing::write_tiny_llama(folder / "model", shape, [](const std::string&, at::Tensor& t) { t = t.to(at::kBFloat16); });
    EngineJob job = testing::tiny_job(model, folder / "run");
    job.calibration = testing::tiny_tokens(4, 64);  // few: rows that are kept for measurement stay small beside a Gram matrix
    job.scheme.activations.reset();
    job.scheme.weights->type.bits = 4;
    job.scheme.weights->symmetric = false;
    job.scheme.weights->group_size = 128;
    job.dtype = at::kBFloat16;
    job.pipeline = {{"awq", {}}, {"clip", {}}, {"gptq", {{"sweeps", int64_t{1}}, {"shrinkage", 0.25}}}};
    double weights = 0;
    for (const LinearInfo& linear : job.model->info.blocks.front().linears) weights += 4.0 * static_cast<double>(linear.out_features * linear.in_features);
    const auto taken = static_cast<double>(peak_of([&] { run_engine(job, {}, {}); }));
    fs::remove_all(folder);
    const QString found = QString("%1 Gram matrices beside the weights").arg((taken - weights) / static_cast<double>(kGram));
    QVERIFY2(taken < 2.5 * static_cast<double>(kGram) + weights, qPrintable(found));
    QVERIFY2(taken < estimate(job).device_bytes + estimate(job).states_bytes, qPrintable(found));
  }
};

QTEST_GUILESS_MAIN(TestMemory)
#include "test_memory.moc"
