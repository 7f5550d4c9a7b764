// qbench-workbench: argument parsing and wiring, nothing else.
#include <QApplication>
#include <QCommandLineParser>
#include <QEventLoop>
#include <QTimer>
#include <cstdio>

#include "views/MainWindow.h"
#include "views/Theme.h"

int main(int argc, char** argv) {
  // Pictures are drawn and questions are answered without a display too.
  for (int i = 1; i < argc; ++i) {
    const QByteArray argument(argv[i]);
    const bool told = argument.startsWith("--export-pictures") || argument.startsWith("--help") || argument == "-h" || argument == "--version" || argument == "-v";
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
  parser.addOptions({demo, workspace, work, pictures});
  parser.process(app);

  qb::views::Settings settings;
  qb::views::Theme theme;
  theme.choose(parser.isSet(pictures) ? qb::views::ThemeChoice::Light : settings.theme());
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
