// A survey as a process: what it is asked for, how far it is, its end, its errors; what a workspace keeps. The process is a script.
#include <QTemporaryDir>
#include <QtTest/QtTest>
#include <fstream>
#include <thread>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/resources.h"
#include "core/run/sensitivity_job.h"

using namespace qb;
namespace fs = std::filesystem;

namespace {

// Writes to the folder behind --events what `told` says, then does `rest`.
fs::path program(const QTemporaryDir& folder, const std::string& told, const std::string& rest) {
  const fs::path path = fs::path(folder.path().toStdString()) / "program.sh";
  std::ofstream(path) << "#!/bin/sh\n"
                         "echo \"$@\" > " << folder.path().toStdString() << "/arguments\n"
                         "while [ \"$1\" != --events ]; do [ \"$1\" = --output ] && out=$2; shift; done\n"
                         "printf '" << told << "' > \"$2/new\"; mv \"$2/new\" \"$2/events.jsonl\"\n" << rest << "\n";
  fs::permissions(path, fs::perms::owner_all);
  return path;
}

SensitivityWish wish() {
  SensitivityWish wish;
  wish.recipe = load_recipe(resource("demo") / "recipes" / "w4.yaml");
  wish.candidates = {"int4g64", "int8g64"};
  return wish;
}

}  // namespace

class TestSensitivityJob : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void files_are_by_model_text_and_settings() {
    const SensitivityWish first = wish();
    const fs::path file = sensitivity_file("/w", first);
    QCOMPARE(sensitivity_file("/w", wish()), file);
    SensitivityWish other = first;
    other.recipe.name = "another";
    other.recipe.scheme.weights->group_size = 32;
    QCOMPARE(sensitivity_file("/w", other), file);  // nothing that a survey depends on
    other.recipe.calibration->sampling.samples += 1;
    QVERIFY(sensitivity_file("/w", other) != file);
    other = first;
    other.candidates.pop_back();
    QVERIFY(sensitivity_file("/w", other) != file);
    other = first;
    other.recipe.calibration.reset();
    QVERIFY_THROWS_EXCEPTION(InputError, sensitivity_file("/w", other));
  }

  void a_survey_is_followed_to_its_end() {
    QTemporaryDir folder;
    const fs::path workspace = folder.path().toStdString();
    std::vector<double> fractions;
    Control control;
    control.on_progress = [&](const Progress& progress) { fractions.push_back(progress.fraction); };
    const fs::path file = run_sensitivity(workspace, wish(), control,
                                          program(folder, R"({"event":"progress","time":1,"fraction":0.25}\n{"event":"progress","time":2,"fraction":0.5}\n{"event":"end","time":3,"status":"finished","text":""}\n)",
                                                  "echo '{}' > \"$out\""));
    QCOMPARE(file, sensitivity_file(workspace, wish()));
    QVERIFY(fs::exists(file));
    QCOMPARE(fractions, (std::vector<double>{0.25, 0.5}));
    const std::string arguments = read_text(workspace / "arguments");
    QVERIFY(arguments.find("--candidates int4g64,int8g64") != std::string::npos);
    // The recipe that it was given stays beside the result, and is whole.
    const Recipe given = load_recipe(fs::path(file).replace_extension() / "recipe.yaml");
    QCOMPARE(given.calibration->sampling.samples, wish().recipe.calibration->sampling.samples);
    QVERIFY(given.model.is_absolute());
    // Not a survey: told, not hidden.
    const auto stored = stored_sensitivities(workspace, "some model");
    QCOMPARE(stored.size(), size_t(1));
    QVERIFY(!stored[0].survey && stored[0].problem.find(file.filename().string()) != std::string::npos);
  }

  void its_errors_are_ours() {
    QTemporaryDir folder;
    const fs::path workspace = folder.path().toStdString();
    try {
      run_sensitivity(workspace, wish(), {}, program(folder, R"({"event":"end","time":3,"status":"failed","kind":"input","text":"candidate int4g64 fits no linear"}\n)", "exit 4"));
      QFAIL("it failed");
    } catch (const InputError& error) {
      QCOMPARE(std::string(error.what()), std::string("candidate int4g64 fits no linear"));
    }
    try {
      run_sensitivity(workspace, wish(), {}, program(folder, "", "echo no such device >&2; exit 5"));
      QFAIL("it died");
    } catch (const ResourceError& error) {
      QVERIFY(std::string(error.what()).find("no such device") != std::string::npos);
    }
  }

  void a_stop_ends_the_process_and_a_pause_holds_it() {
    QTemporaryDir folder;
    const fs::path workspace = folder.path().toStdString();
    std::stop_source stop;
    Control control;
    control.stop = stop.get_token();
    control.gate = std::make_shared<PauseGate>();
    std::jthread later([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      control.gate->pause();
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      stop.request_stop();  // a held process takes it, too
    });
    QElapsedTimer since;
    since.start();
    QVERIFY_THROWS_EXCEPTION(Cancelled, run_sensitivity(workspace, wish(), control, program(folder, "", "exec sleep 60")));
    QVERIFY(since.elapsed() < 5000);
    QVERIFY(!fs::exists(sensitivity_file(workspace, wish())));
  }
};

QTEST_GUILESS_MAIN(TestSensitivityJob)
#include "test_sensitivity_job.moc"
