#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <algorithm>
#include <csignal>
#include <fmt/ranges.h>
#include <sys/resource.h>
#include <thread>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/device.h"
#include "core/engine/run_state.h"
#include "core/engine/statistics_cache.h"
#include "core/engine/vocabulary.h"
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
  std::vector<std::string> messages, taken;  // what went wrong with the cache; what came from it
  std::vector<size_t> choices;               // stages whose choices did, of each block

  bool took(const std::string& what) const { return std::find(taken.begin(), taken.end(), what + " came from the cache") != taken.end(); }
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
    if (!p.message.empty()) (p.message.ends_with(" came from the cache") ? outcome.taken : outcome.messages).push_back(p.message);
  };
  run_engine(job, control, [&](const BlockView& view) {
    outcome.cached.push_back(view.statistics_cached);
    outcome.choices.push_back(view.choices_cached.size());
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
    for (const auto& folder : folders()) return folder / block_path("", block).filename();
    return {};
  }
  // Of keys: what is shared between them is apart.
  std::vector<fs::path> folders() const {
    std::vector<fs::path> all;
    for (const auto& folder : fs::directory_iterator(cache_))
      if (folder.path().filename() != "passed" && folder.path().filename() != "choices") all.push_back(folder.path());
    return all;
  }
  int64_t keys() const { return static_cast<int64_t>(folders().size()); }
  static int64_t bytes_in(const fs::path& folder) {
    int64_t bytes = 0;
    for (const auto& file : fs::recursive_directory_iterator(folder))
      if (file.is_regular_file()) bytes += static_cast<int64_t>(file.file_size());
    return bytes;
  }
  std::vector<fs::path> files_in(const char* part) const {
    std::vector<fs::path> all;
    if (fs::exists(cache_ / part))
      for (const auto& file : fs::directory_iterator(cache_ / part)) all.push_back(file.path());
    std::sort(all.begin(), all.end());
    return all;
  }
  // Where errors are passed on; more text than the measured sample, in samples that fill batches unevenly.
  EngineJob passing(std::vector<StageSpec> pipeline, bool caching = true) {
    EngineJob one = job(std::move(pipeline), caching);
    one.propagate_quantized = true;
    one.calibration = tiny_tokens(45, 60);
    one.fingerprint["calibration"] = "long";
    return one;
  }
  static void change_block(EngineJob& job, int block, const std::function<void(SchemeOverride&)>& change) {
    SchemeOverride other{"model.layers." + std::to_string(block) + ".*", job.scheme.weights};
    change(other);
    job.scheme.overrides.push_back(other);
  }

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
      QVERIFY(cached.messages.empty() && plain.messages.empty() && plain.taken.empty());
      QVERIFY(cached.took("float hidden states of 3 of 3 blocks"));
      QCOMPARE(cached.took("choices of awq of 3 of 3 blocks"), pipeline.front().method == "awq");
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

  void stages_with_passes_of_their_own_give_to_others() {
    const std::vector<StageSpec> sequential{{"gptq", {{"true_sequential", true}}}};
    const Outcome own = carried_out(job(sequential));
    QVERIFY(own.cached == kNone && own.same_result(carried_out(job(sequential, false))));
    QVERIFY(carried_out(job({{"gptq", {}}})).cached == kAll);
    QVERIFY(carried_out(job(sequential)).same_result(own));
  }

  void what_learns_nothing_keeps_its_sample() {
    const std::vector<StageSpec> gptq{{"gptq", {}}}, pruned{{"magnitude", {}}};
    QVERIFY(carried_out(job(gptq)).cached == kNone);
    const Outcome first = carried_out(job({}));
    QVERIFY(first.cached == kNone && first.took("float hidden states of 3 of 3 blocks"));  // its statistics are of other tokens
    for (const auto& pipeline : {std::vector<StageSpec>{}, pruned}) {
      const Outcome cached = carried_out(job(pipeline));
      QVERIFY(cached.cached == kAll && cached.same_result(carried_out(job(pipeline, false))));
    }
    QVERIFY(carried_out(job(gptq)).cached == kAll);
    // Where errors are passed on, the first block sees what the float model's does; the others are not worth their place.
    for (int i = 0; i < 2; ++i) {
      EngineJob one = job({}), plain = job({}, false);
      one.propagate_quantized = plain.propagate_quantized = true;
      const Outcome cached = carried_out(one);
      QVERIFY(cached.cached == (std::vector<bool>{true, false, false}) && cached.same_result(carried_out(plain)));
    }
    QVERIFY(files_in("passed").empty());
  }

  void where_errors_are_passed_on_statistics_are_shared_up_to_the_first_block_that_differs() {
    const std::vector<StageSpec> gptq{{"gptq", {}}};
    QVERIFY(carried_out(passing(gptq)).cached == kNone);
    QCOMPARE(files_in("passed").size(), size_t{2});
    auto expect = [&](const std::function<void(EngineJob&)>& change, const std::vector<bool>& cached) {
      EngineJob one = passing(gptq), plain = passing(gptq, false);
      change(one);
      change(plain);
      const Outcome outcome = carried_out(one);
      QVERIFY(outcome.cached == cached);
      QVERIFY(outcome.messages.empty() && outcome.same_result(carried_out(plain)));
    };
    const std::vector<bool> first{true, false, false}, two{true, true, false};
    expect([](EngineJob&) {}, kAll);
    for (int block : {0, 1, 2})
      expect([&](EngineJob& j) { change_block(j, block, [](SchemeOverride& o) { o.weights->type.bits = 4; }); }, block == 0 ? first : block == 1 ? two : kAll);
    expect([](EngineJob& j) { j.scheme.activations->type.bits = 6; }, first);
    expect([](EngineJob& j) { change_block(j, 1, [](SchemeOverride& o) { o.weights.reset(); }); }, two);
    expect([](EngineJob& j) { j.scheme.weights->symmetric = false; }, first);
    expect([](EngineJob& j) { j.pipeline = {{"awq", {}}, {"gptq", {}}}; }, first);
    expect([](EngineJob& j) { j.pipeline = {{"gptq", {{"percdamp", 0.02}}}}; }, first);
    expect([](EngineJob& j) { j.seed = 5; }, kAll);  // gptq draws nothing
    expect([](EngineJob& j) { j.fingerprint["calibration"] = "c2"; }, kNone);
    // A stage that passes the text through the block itself still needs no first pass.
    expect([](EngineJob& j) { j.pipeline = {{"gptq", {{"true_sequential", true}}}}; }, first);
    expect([](EngineJob& j) { j.pipeline = {{"gptq", {{"true_sequential", true}}}}; }, kAll);
  }

  void where_errors_are_passed_on_a_resumed_run_and_a_hole_give_the_same_bits() {
    const std::vector<StageSpec> best{{"awq", {}}, {"clip", {}}, {"gptq", {}}};
    const Outcome plain = carried_out(passing(best, false));
    QVERIFY(carried_out(passing(best)).same_result(plain));
    for (int hole : {-1, 0, 1}) {
      if (hole >= 0) fs::remove(files_in("passed")[static_cast<size_t>(hole)]);
      const EngineJob cut = passing(best);
      std::stop_source stop;
      QVERIFY_EXCEPTION_THROWN(run_engine(cut, Control{stop.get_token(), {}, [&](const Progress& p) { if (p.block == 1 && p.stage == "propagate") stop.request_stop(); }}, {}),
                               Cancelled);
      QVERIFY(carried_out(cut).files == plain.files);
      if (hole >= 0) fs::remove(files_in("passed")[static_cast<size_t>(hole)]);
      const Outcome again = carried_out(passing(best));
      QVERIFY(again.cached == (std::vector<bool>{true, hole != 0, hole != 1}) && again.same_result(plain));
    }
  }

  void the_head_by_gptq_sees_all_of_the_text_behind_cached_blocks() {
    for (bool propagate : {true, false}) {
      auto with_head = [&](bool caching) {
        EngineJob one = passing({{"gptq", {}}}, caching);
        one.propagate_quantized = propagate;
        one.scheme.head = one.scheme.weights;
        one.scheme.head_rounding = HeadRounding::gptq;
        one.scheme = with_tied_vocabulary(one.scheme, one.model->architecture);
        const Outcome outcome = carried_out(one);
        std::string head;
        for (const auto& path : vocabulary_paths(one.folder)) head += read_text(path);
        return std::pair(outcome, head);
      };
      const auto plain = with_head(false), first = with_head(true), second = with_head(true);
      QVERIFY(!plain.second.empty() && first.second == plain.second && second.second == plain.second);
      QVERIFY(second.first.cached == kAll && second.first.same_result(plain.first));
      fs::remove_all(cache_);
    }
  }

  void choices_are_taken_where_all_that_they_depend_on_is_the_same() {
    for (bool propagate : {false, true}) {
      auto with = [&](std::vector<StageSpec> pipeline, const std::function<void(EngineJob&)>& change = {}) {
        EngineJob one = job(pipeline), plain = job(pipeline, false);
        for (EngineJob* each : {&one, &plain}) {
          each->propagate_quantized = propagate;
          if (change) change(*each);
        }
        const Outcome outcome = carried_out(one);
        if (!outcome.same_result(carried_out(plain))) return QString("other bits");
        return QString::fromStdString(outcome.messages.empty() ? fmt::format("{}", fmt::join(outcome.choices, " ")) : outcome.messages.front());
      };
      const StageSpec awq{"awq", {}}, clip{"clip", {}}, gptq{"gptq", {}}, rtn{"rtn", {}};
      QCOMPARE(with({awq}), QString("0 0 0"));
      QCOMPARE(with({awq, rtn}), QString("1 1 1"));
      // Errors that are passed on are other ones from the second block on.
      QCOMPARE(with({awq, clip}), QString(propagate ? "1 0 0" : "1 1 1"));
      QCOMPARE(with({awq, clip, gptq}), QString(propagate ? "2 0 0" : "2 2 2"));
      QCOMPARE(with({awq, clip, gptq}), QString("2 2 2"));
      const std::vector<StageSpec> all{awq, clip, gptq};
      QCOMPARE(with({awq, {"clip", {{"n_grid", int64_t{10}}}}, gptq}), QString(propagate ? "1 0 0" : "1 1 1"));
      QCOMPARE(with({{"awq", {{"grid", int64_t{10}}}}, clip, gptq}), QString("0 0 0"));
      QCOMPARE(with({clip, gptq}), QString("0 0 0"));
      QCOMPARE(with(all, [](EngineJob& j) { j.scheme.weights->type.bits = 4; }), QString("0 0 0"));
      QCOMPARE(with(all, [](EngineJob& j) { j.scheme.weights->symmetric = false; }), QString("0 0 0"));
      QCOMPARE(with(all, [](EngineJob& j) { j.scheme.weights->range = RangeMethod::mse; }), QString("0 0 0"));
      QCOMPARE(with(all, [](EngineJob& j) { j.scheme.weights->range = RangeMethod::mse, j.scheme.weights->mse_norm = 2; }), QString("0 0 0"));
      QCOMPARE(with(all, [](EngineJob& j) { j.scheme.activations->type.bits = 6; }), QString("0 0 0"));
      QCOMPARE(with(all, [](EngineJob& j) { j.seed = 7; }), QString("0 0 0"));
      QCOMPARE(with(all, [](EngineJob& j) { j.fingerprint["calibration"] = "c2"; }), QString("0 0 0"));
      QCOMPARE(with(all, [](EngineJob& j) { change_block(j, 1, [](SchemeOverride& o) { o.weights->type.bits = 5; }); }), QString(propagate ? "2 0 0" : "2 0 2"));
      QCOMPARE(with(all), QString("2 2 2"));
      fs::remove_all(cache_);
    }
  }

  void damaged_choices_are_made_anew() {
    const std::vector<StageSpec> best{{"awq", {}}, {"clip", {}}, {"gptq", {}}};
    const Outcome first = carried_out(job(best));
    QCOMPARE(files_in("choices").size(), size_t{6});
    for (const fs::path& path : files_in("choices")) {
      std::string bytes = read_text(path);
      bytes[bytes.size() - 3] ^= 8;
      write_atomically(path, bytes);
      const Outcome again = carried_out(job(best));
      QVERIFY(again.same_result(first));
      QCOMPARE(again.messages.size(), size_t{1});
      QVERIFY2(again.messages[0].find(path.string()) != std::string::npos, again.messages[0].c_str());
      QVERIFY(carried_out(job(best)).choices == (std::vector<size_t>{2, 2, 2}));
    }
    for (int block = 0; block < 3; ++block) {
      const fs::path path = folders().front() / ("states-000" + std::to_string(block) + ".safetensors");
      fs::resize_file(path, fs::file_size(path) - 7);
      const Outcome again = carried_out(job(best));
      QVERIFY(again.same_result(first) && again.messages.size() == 1);
      QVERIFY(carried_out(job(best)).took("float hidden states of 3 of 3 blocks"));
    }
  }

  void all_that_is_kept_stays_under_the_limit() {
    const std::vector<StageSpec> best{{"awq", {}}, {"clip", {}}, {"gptq", {}}};
    auto with = [&](int bits, int64_t limit) {
      EngineJob one = passing(best);
      one.scheme.weights->type.bits = bits;
      one.statistics_bytes = limit;
      return carried_out(one);
    };
    carried_out(job(best));
    with(3, int64_t{1} << 40);
    // Of one recipe that passes its errors on all fits, of two not: the older one goes.
    const int64_t limit = 4 * (bytes_in(cache_ / "passed") + 4096);
    const auto before = files_in("passed");
    QVERIFY(with(4, limit).messages.empty());
    QVERIFY(bytes_in(cache_ / "passed") <= limit / 4 && bytes_in(cache_) <= limit);
    for (const fs::path& path : before) QVERIFY(!fs::exists(path));
    QVERIFY(with(4, limit).cached == kAll);
    QVERIFY(with(3, limit).cached == (std::vector<bool>{true, false, false}));
    // Of half of one the first blocks stay.
    for (int i = 0; i < 2; ++i) {
      const Outcome half = with(5, limit / 2);
      QVERIFY(half.messages.empty() && half.cached == (i == 0 ? std::vector<bool>{true, false, false} : std::vector<bool>{true, true, false}));
      QVERIFY(bytes_in(cache_ / "passed") <= limit / 8 && bytes_in(cache_) <= limit / 2);
    }
  }

  void threads_share_a_cache_and_give_the_same_bits() {
    const std::vector<StageSpec> best{{"awq", {}}, {"clip", {}}, {"gptq", {}}};
    const Outcome plain = carried_out(passing(best, false));
    std::vector<EngineJob> jobs;
    for (int i = 0; i < 4; ++i) {
      jobs.push_back(passing(best));
      jobs.back().statistics_bytes = i % 2 ? 400'000 : int64_t{1} << 40;  // some remove what others are about to read
    }
    std::vector<Outcome> outcomes(jobs.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < jobs.size(); ++i) threads.emplace_back([&, i] { outcomes[i] = carried_out(jobs[i]); });
    for (std::thread& thread : threads) thread.join();
    for (const Outcome& outcome : outcomes) QVERIFY(outcome.same_result(plain));
    QVERIFY(carried_out(passing(best)).same_result(plain));
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
    const int64_t one = bytes_in(cache_);
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
