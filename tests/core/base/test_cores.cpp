#include <QtTest/QtTest>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <sched.h>

#include "core/base/cores.h"

namespace fs = std::filesystem;

class TestCores : public QObject {
  Q_OBJECT
  std::unique_ptr<QTemporaryDir> root_;
  cpu_set_t mask_;

  void write(const std::string& file, const std::string& text) {
    const fs::path path = fs::path(root_->path().toStdString()) / file;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  int cores() { return qb::usable_cores(root_->path().toStdString()); }

 private Q_SLOTS:
  void init() {
    root_ = std::make_unique<QTemporaryDir>();
    QCOMPARE(sched_getaffinity(0, sizeof mask_, &mask_), 0);
  }
  void cleanup() { sched_setaffinity(0, sizeof mask_, &mask_); }

  void without_a_quota_it_is_the_affinity_mask() {
    QCOMPARE(cores(), CPU_COUNT(&mask_));
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int i = 0; CPU_COUNT(&one) == 0; ++i)
      if (CPU_ISSET(i, &mask_)) CPU_SET(i, &one);
    QCOMPARE(sched_setaffinity(0, sizeof one, &one), 0);
    QCOMPARE(cores(), 1);
  }

  void a_quota_of_the_group_or_of_one_above_it_bounds_it_data() {
    QTest::addColumn<QString>("groups");
    QTest::addColumn<QString>("file");
    QTest::addColumn<QString>("text");
    QTest::addColumn<bool>("bounds");
    QTest::addRow("version 2") << "0::/box/inner\n" << "box/inner/cpu.max" << "120000 100000\n" << true;
    QTest::addRow("version 2, above") << "0::/box/inner\n" << "box/cpu.max" << "100000 100000\n" << true;
    QTest::addRow("version 2, less than one") << "0::/\n" << "cpu.max" << "20000 100000\n" << true;
    QTest::addRow("version 2, none") << "0::/box\n" << "box/cpu.max" << "max 100000\n" << false;
    QTest::addRow("version 2, another group") << "0::/box\n" << "other/cpu.max" << "100000 100000\n" << false;
    QTest::addRow("version 2, more than there is") << "0::/\n" << "cpu.max" << "900000000 1000\n" << false;
    QTest::addRow("version 1, none") << "3:cpu:/box\n" << "cpu/box/cpu.cfs_quota_us" << "-1\n" << false;
    QTest::addRow("another controller") << "3:cpuset:/box\n" << "cpuset/box/cpu.max" << "100000 100000\n" << false;
  }
  void a_quota_of_the_group_or_of_one_above_it_bounds_it() {
    QFETCH(QString, groups);
    QFETCH(QString, file);
    QFETCH(QString, text);
    QFETCH(bool, bounds);
    write("proc/self/cgroup", groups.toStdString());
    write("sys/fs/cgroup/" + file.toStdString(), text.toStdString());
    QCOMPARE(cores(), bounds ? 1 : CPU_COUNT(&mask_));
  }

  void the_first_version_of_control_groups_keeps_quota_and_period_apart() {
    write("proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/docker/1a2b\n");
    write("sys/fs/cgroup/cpu,cpuacct/docker/1a2b/cpu.cfs_quota_us", "150000\n");
    write("sys/fs/cgroup/cpu,cpuacct/docker/1a2b/cpu.cfs_period_us", "100000\n");
    QCOMPARE(cores(), 1);
  }
};

QTEST_GUILESS_MAIN(TestCores)
#include "test_cores.moc"
