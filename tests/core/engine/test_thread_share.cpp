#include <ATen/Parallel.h>

#include <QtTest/QtTest>
#include <algorithm>
#include <barrier>
#include <memory>
#include <thread>
#include <vector>

#include "core/engine/thread_share.h"

// Numbers of threads do not need as many cores.
class TestThreadShare : public QObject {
  Q_OBJECT
  int before_ = 1;

  static int team() { return at::get_num_threads(); }  // of the calling thread, as OpenMP says

 private Q_SLOTS:
  void initTestCase() { before_ = at::get_num_threads(); }
  void cleanup() { qb::set_compute_threads(before_); }

  void a_job_alone_has_all_threads() {
    qb::set_compute_threads(5);
    const qb::ThreadShare share;
    QCOMPARE(share.threads(), 5);
    QCOMPARE(team(), 5);
  }

  void jobs_at_once_have_them_together_and_the_last_one_has_all() {
    qb::set_compute_threads(7);
    std::barrier all(3);
    std::vector<int> shared(3), teams(3);
    int alone = 0;
    {
      std::vector<std::jthread> jobs;
      for (size_t i = 0; i < 3; ++i)
        jobs.emplace_back([&, i] {
          auto share = std::make_unique<qb::ThreadShare>();
          all.arrive_and_wait();  // all are at work
          share->apply();
          shared[i] = share->threads();
          teams[i] = team();
          all.arrive_and_wait();
          if (i > 0) share.reset();
          all.arrive_and_wait();
          if (i > 0) return;
          share->apply();
          alone = team();
        });
    }
    std::sort(shared.begin(), shared.end());
    std::sort(teams.begin(), teams.end());
    QCOMPARE(shared, (std::vector<int>{2, 2, 3}));
    QCOMPARE(teams, shared);
    QCOMPARE(alone, 7);
  }

  void more_jobs_than_threads_have_one_each() {
    qb::set_compute_threads(2);
    const qb::ThreadShare first, second, third;
    QCOMPARE(first.threads(), 1);
    QCOMPARE(third.threads(), 1);
  }

  void a_paused_job_has_no_share() {
    qb::set_compute_threads(4);
    bool paused = false;
    const qb::ThreadShare working, pausing([&] { return paused; });
    QCOMPARE(working.threads(), 2);
    paused = true;
    QCOMPARE(working.threads(), 4);
    paused = false;
    QCOMPARE(working.threads(), 2);
  }

  void a_thread_that_had_a_job_has_all_threads_again() {
    qb::set_compute_threads(6);
    {
      const qb::ThreadShare other, mine;
      QCOMPARE(team(), 3);
    }
    QCOMPARE(team(), 6);
    QCOMPARE(qb::compute_threads(), 6);
  }
};

QTEST_GUILESS_MAIN(TestThreadShare)
#include "test_thread_share.moc"
