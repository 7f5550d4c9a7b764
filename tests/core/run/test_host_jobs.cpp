#include <QtTest/QtTest>
#include <fstream>
#include <optional>
#include <thread>

#include "core/base/error.h"
#include "core/base/host_memory.h"
#include "core/run/host_jobs.h"

// Who waits for whom on one host. Two jobs of one process exclude each other as those of two do: the locks belong to open files.
class TestHostJobs : public QObject {
  Q_OBJECT
  std::unique_ptr<QTemporaryDir> place_;

  // Another job that is made on a thread of its own.
  struct Other {
    std::stop_source stop;
    std::atomic<bool> there{false}, cancelled{false};
    std::mutex mutex;
    std::vector<std::string> reasons;
    std::unique_ptr<qb::HostJob> job;
    std::jthread thread;

    Other(const std::string& device, double bytes) {
      thread = std::jthread([this, device, bytes] {
        const qb::Control control{stop.get_token(), {}, {}};
        const auto waiting = [this](const std::string& reason) {
          const std::lock_guard lock(mutex);
          reasons.push_back(reason);
        };
        try {
          job = std::make_unique<qb::HostJob>(device, control, waiting);
          if (bytes > 0) job->reserve(bytes, 0, control, waiting);
          there = true;
        } catch (const qb::Cancelled&) {
          cancelled = true;
        }
      });
    }
    std::string reason() {
      const std::lock_guard lock(mutex);
      return reasons.empty() ? std::string() : reasons.back();
    }
  };

 private Q_SLOTS:
  void init() {
    place_ = std::make_unique<QTemporaryDir>();
    qputenv("XDG_RUNTIME_DIR", place_->path().toUtf8());
  }
  void a_gpu_takes_one_run_at_a_time() {
    std::optional<qb::HostJob> first;
    first.emplace("cuda:0", qb::Control{}, nullptr);
    Other second("cuda:0", 0), elsewhere("cuda:1", 0), cpu("cpu", 0);
    QTRY_VERIFY(elsewhere.there && cpu.there);
    QTRY_VERIFY(second.reason().find("cuda:0 is taken by the run of process " + std::to_string(QCoreApplication::applicationPid())) != std::string::npos);
    QVERIFY(!second.there);
    first.reset();
    QTRY_VERIFY(second.there);
  }
  void memory_that_was_granted_is_not_granted_again() {
    const auto available = static_cast<double>(qb::host_memory().available);
    qb::HostJob first("cpu", {}, nullptr);
    first.reserve(0.8 * available, 0, {}, nullptr);
    Other second("cpu", 0.5 * available), small("cpu", 0.05 * available);
    QTRY_VERIFY(small.there);
    QTRY_VERIFY(second.reason().find("it needs") != std::string::npos && second.reason().find("promised to other runs") != std::string::npos);
    second.stop.request_stop();
    QTRY_VERIFY(second.cancelled);
  }
  void who_waits_for_memory_goes_on_when_it_is_there() {
    const auto available = static_cast<double>(qb::host_memory().available);
    auto first = std::make_unique<qb::HostJob>("cpu", qb::Control{}, nullptr);
    first->reserve(0.8 * available, 0, {}, nullptr);
    Other second("cpu", 0.5 * available);
    QTRY_VERIFY(!second.reason().empty());
    first.reset();
    QTRY_VERIFY(second.there);
  }
  void entries_of_processes_that_are_gone_count_for_nothing() {
    const auto folder = std::filesystem::path(place_->path().toStdString()) / ("llm-qbench-jobs-" + std::to_string(::getuid()));
    std::filesystem::create_directory(folder);
    std::ofstream(folder / "4711-0.job") << R"({"process": 4711, "device": "cuda:0", "bytes": 1e15})";
    qb::HostJob job("cuda:0", {}, [](const std::string& reason) { QFAIL(reason.c_str()); });
    job.reserve(1e6, 0, {}, [](const std::string& reason) { QFAIL(reason.c_str()); });
    QVERIFY(!std::filesystem::exists(folder / "4711-0.job"));
  }
  void a_container_has_the_memory_that_its_limit_says() {
    const auto root = std::filesystem::path(place_->path().toStdString());
    const auto put = [&](const std::string& path, const std::string& text) {
      std::filesystem::create_directories((root / path).parent_path());
      std::ofstream(root / path) << text;
    };
    put("proc/meminfo", "MemTotal:       16000000 kB\nMemAvailable:   12000000 kB\n");
    put("proc/self/cgroup", "0::/a/b\n");
    QCOMPARE(qb::host_memory(root).total, int64_t{16000000} * 1024);
    QCOMPARE(qb::host_memory(root).available, int64_t{12000000} * 1024);
    put("sys/fs/cgroup/a/memory.max", "4000000000\n");
    put("sys/fs/cgroup/a/memory.current", "3500000000\n");
    put("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 500000000\n");
    put("sys/fs/cgroup/a/b/memory.max", "max\n");
    put("sys/fs/cgroup/a/b/memory.current", "100\n");
    QCOMPARE(qb::host_memory(root).total, int64_t{4000000000});
    QCOMPARE(qb::host_memory(root).available, int64_t{1000000000});
  }
};

QTEST_GUILESS_MAIN(TestHostJobs)
#include "test_host_jobs.moc"
