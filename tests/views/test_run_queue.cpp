#include <QAbstractItemModelTester>
#include <QSignalSpy>
#include <QTemporaryDir>
#include <QtTest/QtTest>

#include "core/base/cores.h"
#include "fake_services.h"
#include "views/jobs/Background.h"
#include "views/models/JobList.h"

using namespace qb;
using namespace qb::views;

class TestRunQueue : public QObject {
  Q_OBJECT

  struct Bench {
    QTemporaryDir folder;
    std::shared_ptr<test::Pace> pace = std::make_shared<test::Pace>();
    WorkspacePtr workspace = Workspace::open(folder.path().toStdString());
    RunQueue queue{test::fake_services(pace).carryOut};
    JobList list{&queue};
    QAbstractItemModelTester tester{&list, QAbstractItemModelTester::FailureReportingMode::QtTest};

    int put(const QString& name, const QString& device = QStringLiteral("cpu")) {
      const std::string id = workspace->create_run(test::fake_recipe(name.toStdString()));
      return queue.enqueue(workspace, QString::fromStdString(id), name, device);
    }
    JobState state(int id) const { return queue.job(id)->state; }
  };

 private Q_SLOTS:
  void runs_follow_one_another_in_order() {
    Bench bench;
    QStringList ended;
    QObject::connect(&bench.queue, &RunQueue::ended, &bench.queue, [&](int id) { ended << bench.queue.job(id)->name; });
    for (const char* name : {"a", "b", "c"}) bench.put(name);
    QTRY_COMPARE(ended, (QStringList{"a", "b", "c"}));
    QCOMPARE(bench.pace->most.load(), 1);
    QVERIFY(!bench.queue.isBusy());
  }

  void two_devices_work_at_once_and_one_device_as_many_as_set() {
    Bench bench;
    bench.pace->milliseconds = 30;
    bench.put("a", "cpu");
    bench.put("b", "cuda:0");
    bench.put("c", "cpu");
    QTRY_COMPARE(bench.pace->running.load(), 2);
    QCOMPARE(bench.state(3), JobState::Queued);
    bench.queue.setPerDevice(2);
    QTRY_COMPARE(bench.pace->most.load(), 3);
    QTRY_VERIFY(!bench.queue.isBusy());
  }

  void cancelling_is_answered_at_once_and_the_next_run_starts() {
    Bench bench;
    bench.pace->milliseconds = 60000;
    const int first = bench.put("a"), second = bench.put("b");
    QTRY_COMPARE(bench.pace->running.load(), 1);
    bench.queue.cancel(first);
    QCOMPARE(bench.state(first), JobState::Stopping);  // the row says so before the worker has stopped
    QElapsedTimer time;
    time.start();
    QTRY_COMPARE(bench.state(first), JobState::Cancelled);
    QVERIFY(time.elapsed() < 1000);
    QTRY_COMPARE(bench.state(second), JobState::Running);
    bench.queue.cancel(second);
    QTRY_VERIFY(!bench.queue.isBusy());
  }

  void a_waiting_run_is_cancelled_without_starting() {
    Bench bench;
    bench.pace->milliseconds = 40;
    bench.put("a");
    const int second = bench.put("b");
    bench.queue.cancel(second);
    QCOMPARE(bench.state(second), JobState::Cancelled);
    QTRY_VERIFY(!bench.queue.isBusy());
    QCOMPARE(bench.pace->started.load(), 1);
  }

  void a_paused_run_stands_still_until_resumed() {
    Bench bench;
    bench.pace->milliseconds = 20;
    const int id = bench.put("a");
    QTRY_VERIFY(bench.queue.job(id)->report && !bench.queue.job(id)->report->blocks.empty());
    bench.queue.pause(id);
    QTest::qWait(60);  // what was under way arrives
    const auto blocks = bench.queue.job(id)->report->blocks.size();
    QTest::qWait(120);
    QCOMPARE(bench.queue.job(id)->report->blocks.size(), blocks);
    QCOMPARE(bench.state(id), JobState::Paused);
    bench.queue.resume(id);
    QTRY_COMPARE(bench.state(id), JobState::Finished);
    QCOMPARE(bench.queue.job(id)->report->blocks.size(), size_t(4));
  }

  void a_paused_run_can_be_cancelled() {
    Bench bench;
    bench.pace->milliseconds = 20;
    const int id = bench.put("a");
    QTRY_COMPARE(bench.pace->running.load(), 1);
    bench.queue.pause(id);
    bench.queue.cancel(id);
    QTRY_COMPARE(bench.state(id), JobState::Cancelled);
  }

  void a_held_run_lets_the_next_one_go_first() {
    Bench bench;
    bench.pace->milliseconds = 10;
    bench.queue.setReady(false);
    const int first = bench.put("a"), second = bench.put("b");
    bench.queue.pause(first);
    QCOMPARE(bench.state(first), JobState::Held);
    bench.queue.setReady(true);
    QTRY_COMPARE(bench.state(second), JobState::Finished);
    QCOMPARE(bench.state(first), JobState::Held);
    bench.queue.resume(first);
    QTRY_COMPARE(bench.state(first), JobState::Finished);
  }

  void nothing_starts_before_the_compute_library_is_ready() {
    Bench bench;
    bench.queue.setReady(false);
    bench.put("a");
    QTest::qWait(50);
    QCOMPARE(bench.pace->started.load(), 0);
    bench.queue.setReady(true);
    QTRY_COMPARE(bench.pace->ended.load(), 1);
  }

  void a_cancelled_run_resumes_after_its_last_block() {
    Bench bench;
    bench.pace->milliseconds = 200;
    const int id = bench.put("a");
    QTRY_VERIFY(bench.queue.job(id)->report && bench.queue.job(id)->report->blocks.size() >= 2);
    bench.queue.cancel(id);
    QTRY_COMPARE(bench.state(id), JobState::Cancelled);
    bench.pace->milliseconds = 1;
    QSignalSpy reported(&bench.queue, &RunQueue::reported);
    bench.queue.resume(id);
    QTRY_COMPARE(bench.state(id), JobState::Finished);
    // The plots never lose the blocks that were done: every snapshot has at least two.
    for (const auto& arguments : reported) QVERIFY(arguments[0].value<RunPtr>()->blocks.size() >= 2);
    QCOMPARE(bench.queue.job(id)->report->blocks.size(), size_t(4));
  }

  void runs_that_a_cluster_starts_are_shown_with_its_word_and_cancelled_there() {
    Bench bench;
    std::vector<std::string> cancelled;
    std::mutex mutex;
    bench.queue.setTaskCanceller([&](const std::vector<std::string>& tasks) {
      const std::lock_guard lock(mutex);
      cancelled.insert(cancelled.end(), tasks.begin(), tasks.end());
    });
    const std::string id = bench.workspace->create_run(test::fake_recipe("far"));
    RunRequest request;
    request.device = "slurm";
    request.task = "12_3";
    save_request(bench.workspace->run_folder(id), request);
    const int job = bench.queue.showWaiting(bench.workspace, QString::fromStdString(id), "far", request, {});
    bench.queue.startWaiting();
    QCOMPARE(bench.state(job), JobState::Queued);  // not ours to start
    QVERIFY(!bench.queue.job(job)->canResume() && bench.queue.waitsForCluster());
    const auto shown = [&] { return bench.list.index(0, JobList::Stage).data().toString(); };
    QCOMPARE(shown(), QString("Slurm 12_3"));
    bench.queue.setClusterStates({{"12_3", {"PENDING", "Resources", ""}}, {"12_4", {"RUNNING", "", "n1"}}});
    QCOMPARE(shown(), QString("Slurm 12_3: pending (Resources)"));
    bench.queue.setClusterStates({});
    QCOMPARE(shown(), QString("Slurm 12_3: not in Slurm any more"));
    bench.queue.cancel(job);
    QTRY_VERIFY(!load_request(bench.workspace->run_folder(id)));
    const auto told = [&] {
      const std::lock_guard lock(mutex);
      return cancelled;
    };
    QTRY_COMPARE(told(), std::vector<std::string>{"12_3"});
    QCOMPARE(bench.pace->started.load(), 0);
  }

  void as_many_go_on_as_memory_lets() {
    Bench bench;
    bench.pace->milliseconds = 100;
    bench.queue.setPerDevice(0);
    const int most = usable_cores();
    for (int i = 0; i < most + 1; ++i) bench.put(QString::number(i));
    QTRY_COMPARE(bench.pace->most.load(), most);  // a core each at most
    QTRY_VERIFY(!bench.queue.isBusy());
    QCOMPARE(bench.pace->most.load(), most);
    QCOMPARE(bench.pace->ended.load(), most + 1);
  }

  void a_run_whose_process_dies_goes_on_by_itself() {
    Bench bench;
    bench.pace->dies = true;
    const int id = bench.put("a");
    QTRY_COMPARE(bench.state(id), JobState::Finished);
    QCOMPARE(bench.pace->started.load(), 2);
    QVERIFY(bench.queue.job(id)->log.join('\n').contains("killed by SIGKILL"));
    QCOMPARE(bench.queue.job(id)->report->blocks.size(), size_t(4));
  }

  void a_failure_is_told_with_its_reason_and_the_next_run_starts() {
    Bench bench;
    bench.pace->fails = true;
    const int id = bench.put("a");
    QTRY_COMPARE(bench.state(id), JobState::Failed);
    QVERIFY(bench.queue.job(id)->error.contains("no memory left for block 0"));
    QVERIFY(bench.queue.job(id)->log.last().contains("no memory left"));
    QCOMPARE(bench.queue.job(id)->report->status, RunStatus::failed);
    bench.pace->fails = false;
    const int next = bench.put("b");
    QTRY_COMPARE(bench.state(next), JobState::Finished);
  }

  void a_flood_of_progress_reaches_the_window_as_a_trickle() {
    Bench bench;
    bench.pace->reports = 50000;
    bench.pace->blocks = 2;
    QSignalSpy changed(&bench.queue, &RunQueue::changed);
    const int id = bench.put("a");
    QTRY_COMPARE_WITH_TIMEOUT(bench.state(id), JobState::Finished, 20000);
    QVERIFY2(changed.size() < 50000, qPrintable(QString::number(changed.size())));
  }

  void memory_over_a_long_run_stays_a_short_line() {
    Bench bench;
    bench.pace->blocks = 30;
    bench.pace->milliseconds = 5;
    const int id = bench.put("a");
    QTRY_COMPARE_WITH_TIMEOUT(bench.state(id), JobState::Finished, 20000);
    QVERIFY(!bench.queue.job(id)->memory.isEmpty());
    QVERIFY(bench.queue.job(id)->memory.size() <= 256);
    QVERIFY(bench.list.index(0, JobList::Memory).data().toString().contains("200"));
  }

  void waiting_runs_change_places_and_active_ones_do_not() {
    Bench bench;
    bench.queue.setReady(false);
    const int a = bench.put("a"), b = bench.put("b"), c = bench.put("c");
    bench.queue.move(c, -2);
    QCOMPARE(bench.queue.rowOf(c), 0);
    bench.queue.move(c, 1);
    QCOMPARE(bench.queue.rowOf(a), 0);
    QCOMPARE(bench.queue.rowOf(c), 1);
    QCOMPARE(bench.queue.rowOf(b), 2);
    bench.queue.move(b, 5);  // out of the list: nothing happens
    QCOMPARE(bench.queue.rowOf(b), 2);
    bench.queue.cancelAll();
    bench.queue.removeFinished();
    QCOMPARE(bench.queue.jobs().size(), 0);
  }

  void the_destructor_stops_the_work_and_waits_for_it() {
    auto pace = std::make_shared<test::Pace>();
    pace->milliseconds = 60000;
    QTemporaryDir folder;
    const WorkspacePtr workspace = Workspace::open(folder.path().toStdString());
    {
      RunQueue queue(test::fake_services(pace).carryOut);
      queue.enqueue(workspace, QString::fromStdString(workspace->create_run(test::fake_recipe("a"))), "a", "cpu");
      QTRY_COMPARE(pace->running.load(), 1);
    }
    QCOMPARE(pace->running.load(), 0);
    QCoreApplication::processEvents();  // what was posted to the queue is gone with it
  }

  void a_later_task_of_a_slot_makes_the_earlier_one_stale() {
    Background background;
    QStringList told;
    std::atomic<bool> firstStopped{false};
    background.run(
        "search",
        [&](const std::stop_token& stop) {
          while (!stop.stop_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
          firstStopped = true;
          return QString("first");
        },
        [&](const QString& result) { told << result; }, [&](const QString&) {});
    background.run("search", [](const std::stop_token&) { return QString("second"); }, [&](const QString& result) { told << result; }, [&](const QString&) {});
    QTRY_VERIFY(background.idle());
    QVERIFY(firstStopped);
    QCOMPARE(told, QStringList{"second"});
  }

  void tasks_without_a_slot_are_all_delivered_and_failures_told() {
    Background background;
    int done = 0;
    QString failure;
    for (int i = 0; i < 20; ++i)
      background.run({}, [i](const std::stop_token&) { return i; }, [&](int) { ++done; }, [](const QString&) {});
    background.run({}, [](const std::stop_token&) -> int { throw InputError("the file x is empty"); }, [&](int) { ++done; }, [&](const QString& text) { failure = text; });
    QTRY_VERIFY(background.idle());
    QCOMPARE(done, 20);
    QCOMPARE(failure, QString("the file x is empty"));
  }

  void a_background_that_goes_delivers_nothing() {
    int delivered = 0;
    std::atomic<bool> over{false};
    {
      Background background;
      background.run(
          {},
          [&](const std::stop_token& stop) {
            while (!stop.stop_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
            over = true;
            return 1;
          },
          [&](int) { ++delivered; }, [&](const QString&) { ++delivered; });
      QTest::qWait(20);
    }
    QVERIFY(over);
    QCoreApplication::processEvents();
    QCOMPARE(delivered, 0);
  }
};

QTEST_GUILESS_MAIN(TestRunQueue)
#include "test_run_queue.moc"
