// qbench-workbench: argument parsing and wiring, nothing else.
#include <QApplication>
#include <QCommandLineParser>
#include <QDate>
#include <QEventLoop>
#include <QTimer>
#include <cstdio>

#include "core/base/error.h"
#include "core/run/written_report.h"
#include "views/MainWindow.h"
#include "views/Theme.h"
#include "views/report/Report.h"

namespace {

// Those of qbench.
int exitCode(const qb::Error& error) {
  return error.kind() == qb::ErrorKind::recipe ? 3 : error.kind() == qb::ErrorKind::input ? 4 : error.kind() == qb::ErrorKind::resource ? 5 : 1;
}

// What `qbench report` hands on.
struct ReportOptions {
  const QCommandLineOption file{QStringLiteral("report"), QApplication::tr("Write a report of the workspace's runs, and end"), QStringLiteral("file.html|.pdf")};
  const QCommandLineOption run{QStringLiteral("run"), QApplication::tr("A run of the report (may be repeated; default: all finished runs)"), QStringLiteral("id")};
  const QCommandLineOption title{QStringLiteral("report-title"), QApplication::tr("Title of the report"), QStringLiteral("text")};
  const QCommandLineOption measures{QStringLiteral("measures"), QApplication::tr("Figures that decide which run to take"), QStringLiteral("columns")};
  const QCommandLineOption engine{QStringLiteral("engine"), QApplication::tr("The run to take must load there"), QStringLiteral("name")};
  const QCommandLineOption gigabytes{QStringLiteral("gb"), QApplication::tr("Its model takes at most so many gigabytes"), QStringLiteral("number")};
  const QCommandLineOption hardware{QStringLiteral("hardware"), QApplication::tr("Speed is predicted for this profile"), QStringLiteral("name")};
  const QCommandLineOption batch{QStringLiteral("batch"), QApplication::tr("Sequences at once"), QStringLiteral("number"), QStringLiteral("1")};
  const QCommandLineOption context{QStringLiteral("context"), QApplication::tr("Tokens of each"), QStringLiteral("number"), QStringLiteral("4096")};
  QList<QCommandLineOption> all() const { return {file, run, title, measures, engine, gigabytes, hardware, batch, context}; }
};

int writeReport(const QCommandLineParser& parser, const ReportOptions& options, const QString& workspace) try {
  qb::ReportWanted wanted;
  wanted.title = parser.value(options.title).toStdString();
  wanted.program = "LLM-QBench Workbench " QBENCH_VERSION;
  wanted.date = QDate::currentDate().toString(Qt::ISODate).toStdString();
  if (parser.isSet(options.measures)) wanted.best.measures = qb::parse_run_columns(parser.value(options.measures).toStdString());
  if (parser.isSet(options.hardware)) wanted.best.hardware = qb::find_hardware(parser.value(options.hardware).toStdString());
  wanted.best.engine = parser.value(options.engine).toStdString();
  wanted.best.gigabytes = parser.value(options.gigabytes).toDouble();
  wanted.best.conditions = {parser.value(options.batch).toDouble(), parser.value(options.context).toDouble()};
  std::vector<std::string> runs;
  for (const QString& run : parser.values(options.run)) runs.push_back(run.toStdString());
  const auto opened = qb::Workspace::open(workspace.toStdString(), qb::Workspace::Absent::refuse);
  const QString path = parser.value(options.file);
  qb::views::saveReport(qb::written_report(*opened, runs, wanted), path);
  std::printf("%s\n", qPrintable(path));
  return 0;
} catch (const qb::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return exitCode(error);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  // Pictures are drawn and questions are answered without a display too.
  for (int i = 1; i < argc; ++i) {
    const QByteArray argument(argv[i]);
    const bool told = argument.startsWith("--export-pictures") || argument.startsWith("--report") || argument.startsWith("--help") || argument == "-h" || argument == "--version" || argument == "-v";
    if (told && qEnvironmentVariableIsEmpty("QT_QPA_PLATFORM")) qputenv("QT_QPA_PLATFORM", "offscreen");
  }
  QApplication app(argc, argv);
  QApplication::setApplicationName(QStringLiteral("qbench-workbench"));
  QApplication::setApplicationDisplayName(QStringLiteral("LLM-QBench Workbench"));
  QApplication::setApplicationVersion(QStringLiteral(QBENCH_VERSION));
  QApplication::setOrganizationName(QStringLiteral("llm-qbench"));
  QApplication::setDesktopFileName(QStringLiteral("llm-qbench-workbench"));

  QCommandLineParser parser;
  parser.setApplicationDescription(QApplication::tr("Quantize language models, see where it hurts, compare recipes."));
  parser.addHelpOption();
  parser.addVersionOption();
  parser.addPositionalArgument(QStringLiteral("paths"), QApplication::tr("Models, recipes (ours or LLMC's) and workspaces to open"), QStringLiteral("[paths…]"));
  const QCommandLineOption demo(QStringLiteral("demo"), QApplication::tr("Run two recipes on the demo model and show them"));
  const QCommandLineOption workspace({QStringLiteral("w"), QStringLiteral("workspace")}, QApplication::tr("Folder that keeps the runs"), QStringLiteral("folder"));
  const QCommandLineOption pictures(QStringLiteral("export-pictures"), QApplication::tr("Draw the workspace's runs as PNG files into a folder, and end"), QStringLiteral("folder"));
  const QCommandLineOption work(QStringLiteral("work"), QApplication::tr("Start what waits in the workspace's queue"));
  const ReportOptions report;
  parser.addOptions({demo, workspace, work, pictures});
  parser.addOptions(report.all());
  parser.process(app);

  qb::views::Settings settings;
  qb::views::Theme theme;
  theme.choose(parser.isSet(pictures) || parser.isSet(report.file) ? qb::views::ThemeChoice::Light : settings.theme());
  if (parser.isSet(report.file)) return writeReport(parser, report, parser.isSet(workspace) ? parser.value(workspace) : settings.workspace());
  theme.setTextScale(settings.textScale());
  qb::views::Workbench workbench(qb::views::coreServices());
  workbench.queue()->setPerDevice(settings.runsPerDevice());
  workbench.queue()->setThreads(settings.threads());
  qb::views::MainWindow window(&workbench, &settings, &theme);

  if (parser.isSet(pictures)) {
    QEventLoop opened;
    bool failed = false;
    QObject::connect(&workbench, &qb::views::Workbench::notice, &opened, [&](auto, auto, const QString& text) {
      std::fprintf(stderr, "%s\n", qPrintable(text));
      failed = true;
      opened.quit();
    });
    QObject::connect(&workbench, &qb::views::Workbench::workspaceChanged, &opened, &QEventLoop::quit);
    workbench.openWorkspace(parser.isSet(workspace) ? parser.value(workspace) : settings.workspace());
    opened.exec();
    if (failed) return 1;
    QStringList runs;
    for (const auto& run : workbench.selection()->runs()) runs << run.id;
    workbench.showOnly(runs);
    if (!runs.isEmpty()) workbench.makeCurrent(runs.front());
    while (!workbench.background()->idle()) QCoreApplication::processEvents(QEventLoop::WaitForMoreEvents);
    try {
      window.show();
      for (const QString& path : window.exportPictures(parser.value(pictures))) std::printf("%s\n", qPrintable(path));
      return 0;
    } catch (const qb::Error& error) {
      std::fprintf(stderr, "%s\n", error.what());
      return 1;
    }
  }

  if (parser.isSet(work)) QObject::connect(&workbench, &qb::views::Workbench::foundWaiting, workbench.queue(), &qb::views::RunQueue::startWaiting);
  window.restoreSession(parser.positionalArguments(), parser.value(workspace));
  window.show();
  workbench.prepare(settings.threads());
  if (parser.isSet(demo)) QTimer::singleShot(0, &window, &qb::views::MainWindow::tryDemo);
  return QApplication::exec();
}
