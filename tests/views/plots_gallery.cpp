// Shows the pages with made-up runs, or grabs them into pictures:
// plots_gallery [--dark] [--empty] [--runs N] [--view 0|1|2] [--grab FOLDER] [--size WxH].
#include <QApplication>
#include <QComboBox>
#include <QCommandLineParser>
#include <QDir>
#include <QSplitter>
#include <QStyleFactory>
#include <QTimer>

#include "demo_reports.h"
#include "views/pages/AccuracyPage.h"
#include "views/pages/Inspector.h"
#include "views/pages/LayersPage.h"

namespace {

QPalette darkPalette() {
  QPalette palette(QColor(0x2c, 0x30, 0x35), QColor(0x20, 0x23, 0x27));
  palette.setColor(QPalette::Base, QColor(0x17, 0x19, 0x1c));
  palette.setColor(QPalette::AlternateBase, QColor(0x1c, 0x1f, 0x23));
  palette.setColor(QPalette::Text, QColor(0xe3, 0xe6, 0xea));
  palette.setColor(QPalette::PlaceholderText, QColor(0x8b, 0x92, 0x9b));
  palette.setColor(QPalette::Highlight, QColor(0x2b, 0x74, 0xc4));
  return palette;
}

}  // namespace

int main(int argc, char** argv) {
  QApplication app(argc, argv);
  QCommandLineParser parser;
  const QCommandLineOption dark("dark", "Dark palette."), empty("empty", "Without runs."), grab("grab", "Write PNG files and end.", "folder"),
      size("size", "Size of a page with the inspector.", "WxH", "980x560"), runs("runs", "So many runs.", "number"),
      view("view", "How the Layers page draws runs: 0 curves, 1 by linear, 2 by block.", "number", "0");
  parser.addOptions({dark, empty, grab, size, runs, view});
  parser.addHelpOption();
  parser.process(app);
  app.setStyle(QStyleFactory::create("Fusion"));
  if (parser.isSet(dark)) app.setPalette(darkPalette());

  qb::views::Selection selection;
  if (!parser.isSet(empty)) {
    if (parser.isSet(runs))
      qb::test::fill_many(selection, parser.value(runs).toInt(), 30, true);
    else
      qb::test::fill_demo(selection);
    selection.setCurrentLinear({1, "mlp.down_proj"});
  }
  const QStringList wanted = parser.value(size).split('x');
  const auto window = [&](QWidget* page, const QString& title) {
    auto* splitter = new QSplitter;
    splitter->setWindowTitle(title);
    splitter->addWidget(page);
    splitter->addWidget(new qb::views::Inspector(&selection));
    splitter->resize(wanted.value(0).toInt(), wanted.value(1).toInt());
    splitter->setSizes({splitter->width() - 280, 280});
    splitter->show();
    return splitter;
  };
  QWidget* layers = window(new qb::views::LayersPage(&selection), "layers");
  for (QComboBox* box : layers->findChildren<QComboBox*>())
    if (box->accessibleName() == QLatin1String("How runs are drawn")) {
      box->setCurrentIndex(parser.value(view).toInt());
      Q_EMIT box->activated(box->currentIndex());
    }
  QWidget* accuracy = window(new qb::views::AccuracyPage(&selection), "accuracy");
  qb::views::Inspector inspector(&selection);
  inspector.setWindowTitle("inspector");
  inspector.resize(280, 1900);
  inspector.show();
  if (parser.isSet(grab))
    QTimer::singleShot(500, &app, [&] {
      QDir().mkpath(parser.value(grab));
      for (QWidget* each : {layers, accuracy, static_cast<QWidget*>(&inspector)})
        each->grab().save(parser.value(grab) + '/' + each->windowTitle() + ".png");
      app.quit();
    });
  const int code = app.exec();
  delete layers;
  delete accuracy;
  return code;
}
