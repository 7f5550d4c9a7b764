#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <csignal>
#include <sys/resource.h>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/device.h"
#include "core/engine/run_state.h"
#include "core/engine/statistics_cache.h"
#include "tests/core/engine/tiny_model.h"

using namespace qb;
using namespace qb::testing;
namespace fs = std::filesystem;

namespace {

// What a job gave, bit for bit, and how it came to it.
struct Outcome {
  std::map<std::string, std::string> files;
  std::vector<at::Tensor> outputs;
  std::vector<bool> cached;
  std::vector<std::string> messages;

  bool same_result(const Outcome& other) const {
    bool same = files == other.files && outputs.size() == other.outputs.size();
    for (size_t i = 0; same && i < outputs.size(); ++i) same = at::equal(outputs[i], other.outputs[i]);
    return same;
  }
};

Outcome carried_out(const EngineJob& job) {
  Outcome outcome;
  Control control;
  control.on_progress = [&](const Progress& p) {
    if (!p.message.empty()) outcome.messages.push_back(p.message);
  };
  run_engine(job, control, [&](const BlockView& view) {
    outcome.cached.push_back(view.statistics_cached);
    outcome.outputs.insert(outcome.outputs.end(), {view.float_output, view.quantized_output});
    for (const auto& [subset, s] : view.work.statistics)
      for (const at::Tensor& t : {s.gram, s.abs_max, s.mean_abs, s.sum_squares, s.rows})
        outcome.outputs.push_back(t.defined() ? t : at::empty({0}));
  });
  for (const auto& entry : fs::directory_iterator(job.folder / "blocks")) outcome.files[entry.path().filename().string()] = read_text(entry.path());
  return outcome;
}

const std::vector<bool> kAll(3, true), kNone(3, false);

}  // namespace

class TestStatisticsCache : public QObject {
  Q_OBJECT
  std::unique_ptr<QTemporaryDir> temporary_;
  fs::path root_, model_, cache_;
  int count_ = 0;

  EngineJob job(std::vector<StageSpec> pipeline, bool caching = true) {
    EngineJob job = tiny_job(model_, root_ / ("run-" + std::to_string(count_++)));
    job.pipeline = std::move(pipeline);
    job.propagate_quantized = false;
    job.dtype = at::kBFloat16;
    if (caching) job.statistics_folder = cache_;
    return job;
  }
  fs::path entry(int block) const {
    for (const auto& key : fs::directory_iterator(cache_)) return key.path() / block_path("", block).filename();
    return {};
  }
  int64_t keys() const { return std::distance(fs::directory_iterator(cache_), fs::directory_iterator()); }

 private Q_SLOTS:
  void init() {
    initialise_compute(1);
    temporary_ = std::make_unique<QTemporaryDir>();
    root_ = temporary_->path().toStdString();
    model_ = write_tiny_llama(root_ / "model");
    cache_ = root_ / "cache";
  }

  void the_second_recipe_finds_what_the_first_collected_and_gives_the_same_bits() {
    const std::vector<StageSpec> awq{{"awq", {}}}, best{{"awq", {}}, {"clip", {}}, {"gptq", {}}}, wanda{{"wanda", {}}}, smooth{{"smoothquant", {}}};
    QVERIFY(carried_out(job(awq)).cached == kNone);
    for (const auto& pipeline : {best, wanda, smooth, awq}) {
      const Outcome cached = carried_out(job(pipeline)), plain = carried_out(job(pipeline, false));
      QVERIFY(cached.cached == kAll && plain.cached == kNone);
      QVERIFY2(cached.same_result(plain), pipeline.back().method.c_str());
      QVERIFY(cached.messages.empty());
    }
  }

  void what_ran_before_does_not_change_a_bit() {
    // Sums in float32 depend on how the samples are cut into batches: more tokens than one holds, in samples that fill it unevenly.
    auto in_float = [&](std::vector<StageSpec> pipeline, bool caching) {
      EngineJob one = job(std::move(pipeline), caching);
      one.dtype = at::kFloat;
      one.calibration = tiny_tokens(95, 60);
      return carried_out(one);
    };
    const std::vector<StageSpec> learning{{"awq", {}}, {"autoround", {{"iters", int64_t{2}}}}}, gptq{{"gptq", {}}}, awq{{"awq", {}}};
    const Outcome learned = in_float(learning, false);
    for (const auto& pipeline : {gptq, awq}) {
      fs::remove_all(cache_);
      QVERIFY(in_float(learning, true).same_result(learned));
      const Outcome cached = in_float(pipeline, true);
      QVERIFY(cached.cached == kAll && cached.same_result(in_float(pipeline, false)));
      fs::remove_all(cache_);
      in_float(pipeline, true);
      QVERIFY(in_float(learning, true).same_result(learned));
    }
  }

  void who_wants_more_than_is_there_collects_it_for_all() {
    QVERIFY(carried_out(job({{"smoothquant", {}}})).cached == kNone);
    const Outcome more = carried_out(job({{"gptq", {}}}));
    QVERIFY(more.cached == kNone && more.same_result(carried_out(job({{"gptq", {}}}, false))));
    QVERIFY(carried_out(job({{"smoothquant", {}}})).cached == kAll);
    QVERIFY(carried_out(job({{"gptq", {}}})).cached == kAll);
  }

  void damaged_entries_are_collected_anew() {
    const Outcome first = carried_out(job({{"gptq", {}}}));
    auto expect_repair = [&](int block) {
      const Outcome again = carried_out(job({{"gptq", {}}}));
      std::vector<bool> expected = kAll;
      expected[block] = false;
      QVERIFY(again.cached == expected && again.same_result(first));
      QCOMPARE(again.messages.size(), size_t{1});
      QVERIFY2(again.messages[0].find(entry(block).string()) != std::string::npos, again.messages[0].c_str());
      QVERIFY(carried_out(job({{"gptq", {}}})).cached == kAll);
    };
    fs::resize_file(entry(1), fs::file_size(entry(1)) / 2);
    expect_repair(1);
    std::ofstream(entry(0)) << "nothing";
    expect_repair(0);
    std::string bytes = read_text(entry(2));
    bytes[bytes.size() / 2] ^= 4;
    write_atomically(entry(2), bytes);
    expect_repair(2);
    // A sound file of the same kind, with statistics of something else.
    write_safetensors(entry(1), {{"weight", at::ones({3})}});
    expect_repair(1);
    fs::remove(entry(1));
    QVERIFY(carried_out(job({{"gptq", {}}})).cached == (std::vector<bool>{true, false, true}));
  }

  void a_resumed_run_goes_on_from_the_cache() {
    const Outcome first = carried_out(job({{"gptq", {}}}));
    for (bool caching : {true, false}) {
      const EngineJob cut = job({{"gptq", {}}});
      if (!caching) fs::remove_all(cache_);
      std::stop_source stop;
      QVERIFY_EXCEPTION_THROWN(run_engine(cut, Control{stop.get_token(), {}, [&](const Progress& p) { if (p.block == 1 && p.stage == "propagate") stop.request_stop(); }}, {}),
                               Cancelled);
      QCOMPARE(finished_blocks(cut), 1);
      const Outcome rest = carried_out(cut);
      // Without a cache before, the interrupted session had kept blocks 0 and 1.
      QVERIFY(rest.cached == (std::vector<bool>{true, caching}));
      QVERIFY(rest.files == first.files);
    }
  }

  void only_the_float_path_is_cached() {
    EngineJob propagating = job({{"gptq", {}}});
    propagating.propagate_quantized = true;
    carried_out(propagating);
    carried_out(job({}));  // rounding alone wants no statistics
    QVERIFY(!fs::exists(cache_));
    // Stages with passes of their own still give to others.
    const std::vector<StageSpec> sequential{{"gptq", {{"true_sequential", true}}}};
    const Outcome own = carried_out(job(sequential));
    QVERIFY(own.cached == kNone && own.same_result(carried_out(job(sequential, false))));
    QVERIFY(carried_out(job({{"gptq", {}}})).cached == kAll);
    QVERIFY(carried_out(job(sequential)).same_result(own));
  }

  void another_model_text_type_or_rotation_has_its_own() {
    carried_out(job({{"gptq", {}}}));
    EngineJob other = job({{"gptq", {}}});
    other.fingerprint["calibration"] = "c2";
    QVERIFY(carried_out(other).cached == kNone);
    other = job({{"gptq", {}}});
    other.fingerprint["model"] = "m2";
    QVERIFY(carried_out(other).cached == kNone);
    other = job({{"gptq", {}}});
    other.dtype = at::kFloat;
    QVERIFY(carried_out(other).cached == kNone);
    for (uint64_t seed : {1, 2}) {
      other = job({{"quarot", {}}, {"gptq", {}}});
      other.seed = seed;
      fs::create_directories(other.folder);
      other.model = changed_model(other, {});
      QVERIFY(carried_out(other).cached == kNone);
    }
    QCOMPARE(keys(), int64_t{6});
    other = job({{"awq", {}}, {"gptq", {}}});
    other.seed = 3;  // of no consequence to the float model
    QVERIFY(carried_out(other).cached == kAll);
  }

  void the_oldest_key_makes_room() {
    EngineJob a = job({{"gptq", {}}});
    carried_out(a);
    int64_t one = 0;
    for (int i = 0; i < 3; ++i) one += static_cast<int64_t>(fs::file_size(entry(i)));
    auto with = [&](const char* text, int64_t bytes) {
      EngineJob other = job({{"gptq", {}}});
      other.fingerprint["calibration"] = text;
      other.statistics_bytes = bytes;
      return carried_out(other);
    };
    with("second", 5 * one / 2);
    with("c1", 5 * one / 2);  // used again: now the second is the oldest
    QVERIFY(with("third", 5 * one / 2).messages.empty());
    QCOMPARE(keys(), int64_t{2});
    QVERIFY(with("c1", 5 * one / 2).cached == kAll);
    QVERIFY(with("second", 5 * one / 2).cached == kNone);
    // Less than one model takes: what fits is kept, once told, and the run goes on.
    const Outcome small = with("fourth", one / 2);
    QCOMPARE(small.messages.size(), size_t{1});
    QVERIFY2(small.messages[0].find("not kept") != std::string::npos, small.messages[0].c_str());
    QVERIFY(with("fourth", one / 2).cached == (std::vector<bool>{true, false, false}));
  }

  void a_disk_that_refuses_only_ends_the_caching() {
    const Outcome plain = carried_out(job({{"gptq", {}}}, false));
    std::ofstream(cache_) << "a file where the folder should be";
    const Outcome refused = carried_out(job({{"gptq", {}}}));
    QVERIFY(refused.same_result(plain));
    QCOMPARE(refused.messages.size(), size_t{1});
    fs::remove(cache_);
    // A limit on file sizes fails writes as a full disk does: above a block's file, below that of its statistics.
    rlimit old{};
    ::getrlimit(RLIMIT_FSIZE, &old);
    rlimit small = old;
    small.rlim_cur = 48 << 10;
    std::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &small);
    const Outcome full = carried_out(job({{"gptq", {}}}));
    ::setrlimit(RLIMIT_FSIZE, &old);
    QVERIFY(full.same_result(plain));
    QCOMPARE(full.messages.size(), size_t{1});
    QVERIFY(!fs::exists(entry(0)));
  }
};

QTEST_GUILESS_MAIN(TestStatisticsCache)
#include "test_statistics_cache.moc"
