// How long a workspace keeps its user waiting when it opens: the engine alone, then the window until its list of runs is
// filled and drawn. many_runs.py makes the workspace, runs this program and one of an older commit, and compares them.
//
//   many_runs_window engine|window WORKSPACE RUNS      (QT_QPA_PLATFORM=offscreen without a display)
//
// Prints one JSON object: seconds, how often progress was told, the longest time in which the window did not answer.
#include <QApplication>
#include <QElapsedTimer>
#include <QTableView>
#include <QTemporaryDir>
#include <QTimer>
#include <algorithm>
#include <cstdio>

#include "core/store/workspace.h"
#include "views/MainWindow.h"
#include "views/pages/Explorer.h"

using namespace qb;
using namespace qb::views;

namespace {

int engine(const std::filesystem::path& folder) {
  int told = 0;
  QElapsedTimer clock;
  clock.start();
  const auto workspace = Workspace::open(folder, Workspace::Absent::refuse, [&](int, int) { ++told; });
  const double opened = double(clock.nsecsElapsed()) / 1e9;
  const size_t runs = workspace->list().size();
  const double listed = double(clock.nsecsElapsed()) / 1e9;
  workspace->list();
  const double again = double(clock.nsecsElapsed()) / 1e9;
  std::printf("{\"open\": %.4f, \"list\": %.4f, \"list_again\": %.4f, \"runs\": %zu, \"progress\": %d}\n", opened, listed - opened, again - listed, runs, told);
  return 0;
}

int window(QApplication&, const QString& folder, int runs) {
  QTemporaryDir place;
  Settings settings(place.filePath("settings.ini"));
  Theme theme;
  Services services = coreServices();
  std::atomic<int> told = 0;
  services.openWorkspace = [&told, open = services.openWorkspace](const std::filesystem::path& path, const Workspace::Reading& reading) {
    return open(path, [&](int done, int all) {
      ++told;
      reading(done, all);
    });
  };
  Workbench workbench(services);
  MainWindow window(&workbench, &settings, &theme);
  QElapsedTimer clock, gap;
  clock.start();
  window.restoreSession({}, folder);
  window.show();
  window.showPage(QStringLiteral("runs"));  // where there is one
  qint64 longest = 0;
  QTimer tick;
  QObject::connect(&tick, &QTimer::timeout, [&] {
    longest = std::max(longest, gap.elapsed());
    gap.restart();
  });
  gap.start();
  tick.start(5);
  QAbstractItemView* table = window.findChild<QAbstractItemView*>(QStringLiteral("runTable"));
  if (!table) table = window.findChild<Explorer*>()->runView();
  while (table->model()->rowCount() < runs && clock.elapsed() < 1200000) QCoreApplication::processEvents(QEventLoop::AllEvents | QEventLoop::WaitForMoreEvents, 20);
  const double filled = double(clock.nsecsElapsed()) / 1e9;
  // Drawn, too: whatever is still to do after the last row came is done before two ticks pass in time.
  for (int quiet = 0; quiet < 10;) {
    const qint64 before = clock.elapsed();
    QCoreApplication::processEvents(QEventLoop::AllEvents | QEventLoop::WaitForMoreEvents, 20);
    quiet = clock.elapsed() - before < 15 ? quiet + 1 : 0;
  }
  longest = std::max(longest, gap.elapsed());
  std::printf("{\"filled\": %.3f, \"idle\": %.3f, \"longest_wait\": %.3f, \"rows\": %d, \"progress\": %d}\n", filled, double(clock.nsecsElapsed()) / 1e9, double(longest) / 1e3,
              table->model()->rowCount(), int(told));
  return table->model()->rowCount() == runs ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  QApplication app(argc, argv);
  if (argc != 4) {
    std::fprintf(stderr, "usage: many_runs_window engine|window WORKSPACE RUNS\n");
    return 2;
  }
  return QByteArray(argv[1]) == "engine" ? engine(argv[2]) : window(app, QString::fromLocal8Bit(argv[2]), QByteArray(argv[3]).toInt());
}
