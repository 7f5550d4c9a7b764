#include <QFileDialog>
#include <QRegularExpression>
#include <QTemporaryDir>
#include <QXmlStreamReader>
#include <QtTest/QtTest>

#include "core/base/error.h"
#include "demo_reports.h"
#include "views/report/Report.h"
#include "views/report/ReportJob.h"

using namespace qb;
using namespace qb::views;

namespace {

// Two runs with every kind of item; names that need escaping.
WrittenReport demoReport() {
  WrittenReport report;
  report.title = "Runs of <SmolLM2> & others";
  report.subtitle = "2026-11-29";
  ReportPart part{"SmolLM2-135M", {}, 1, {}};
  for (const test::DemoOptions& options : {test::DemoOptions{"a", "rtn <4> & more", 6, 4, 1.5, 1, true, 25.9}, test::DemoOptions{"b", "gptq", 6, 4, 0.9, 2, true, 23.6}})
    part.runs.push_back(*test::demo_run(options));
  part.items.emplace_back(ReportHeading{"Which one to take", 2});
  part.items.emplace_back(ReportParagraph{"Take gptq & go.", true});
  part.items.emplace_back(ReportTable{"Two runs", {"Run", "Perplexity"}, {{"rtn <4>", "25.9"}, {"gptq", "23.6"}}, {true, false}, 1});
  using Kind = ReportPicture::Kind;
  for (const Kind kind : {Kind::metric, Kind::pareto, Kind::differences}) part.items.emplace_back(ReportPicture{kind, 0, 1});
  part.items.emplace_back(ReportPicture{Kind::tokens, 0, 1});  // perplexity has none: left out
  for (const Kind kind : {Kind::errors, Kind::runs_heat, Kind::cost}) part.items.emplace_back(ReportPicture{kind, -1, -1});
  part.items.emplace_back(ReportPicture{Kind::heat_map, 0, -1});
  part.items.emplace_back(ReportCode{"recipe.yaml", "model: {path: \"<here>\"}\n", true});
  report.parts.push_back(std::move(part));
  return report;
}

}  // namespace

class TestReport : public QObject {
  Q_OBJECT
  QTemporaryDir m_folder;

 private Q_SLOTS:
  void pictures_are_the_windows_own_in_light_and_dark() {
    const WrittenReport report = demoReport();
    const ReportDrawings drawings = drawReport(report);
    QCOMPARE(drawings.size(), 8);
    for (qsizetype i = 0; i < drawings.size(); ++i) {
      QCOMPARE(drawings[i].has_value(), i != 3);
      if (!drawings[i]) continue;
      QVERIFY(drawings[i]->light != drawings[i]->dark && !drawings[i]->title.isEmpty());
    }
    QVERIFY(drawings[0]->conditions.contains(QLatin1String("wikitext2 test")));
    QVERIFY(drawings[7]->title.contains(QLatin1String("rtn <4> & more")));  // of the run that was asked for
    QVERIFY(drawings[0]->light.contains("gptq"));
  }

  void a_web_page_asks_for_no_other_file_and_is_well_formed() {
    const QString path = m_folder.filePath(QStringLiteral("report.html"));
    saveReport(demoReport(), path);
    QFile file(path);
    QVERIFY(file.open(QIODevice::ReadOnly));
    const QString html = QString::fromUtf8(file.readAll());
    QXmlStreamReader xml(html);
    int pictures = 0, tables = 0, marked = 0;
    QString text;
    while (!xml.atEnd()) {
      if (xml.readNext() == QXmlStreamReader::StartElement) {
        pictures += xml.name() == QLatin1String("img");
        tables += xml.name() == QLatin1String("table");
        marked += xml.attributes().value(QLatin1String("class")) == QLatin1String("marked");
        for (const char* reference : {"src", "srcset"})
          if (const auto value = xml.attributes().value(QLatin1String(reference)); !value.isEmpty()) QVERIFY(value.startsWith(QLatin1String("data:image/")));
        if (const auto link = xml.attributes().value(QLatin1String("href")); !link.isEmpty()) QVERIFY(link.startsWith(QLatin1Char('#')));
      } else if (xml.isCharacters()) {
        text += xml.text();
      }
    }
    QVERIFY2(!xml.hasError(), qPrintable(xml.errorString()));
    QCOMPARE(pictures, 7);
    QCOMPARE(tables, 1);
    QCOMPARE(marked, 1);
    QVERIFY(text.contains(QLatin1String("rtn <4>")) && text.contains(QLatin1String("model: {path: \"<here>\"}")) && text.contains(QLatin1String("Take gptq & go.")));
    QVERIFY(!html.contains(QLatin1String("url(")) && !html.contains(QLatin1String("@import")) && html.contains(QLatin1String("prefers-color-scheme: dark")));
  }

  void a_pdf_has_pages_of_a4() {
    const QString path = m_folder.filePath(QStringLiteral("report.PDF"));
    saveReport(demoReport(), path);
    QFile file(path);
    QVERIFY(file.open(QIODevice::ReadOnly));
    const QByteArray bytes = file.readAll();
    QVERIFY(bytes.startsWith("%PDF"));
    const QRegularExpression box(QStringLiteral("/MediaBox \\[0 0 (\\d+)[^ ]* (\\d+)"));
    const auto match = box.match(QString::fromLatin1(bytes));
    QVERIFY(match.hasMatch());
    QCOMPARE(match.captured(1), QStringLiteral("595"));
    QCOMPARE(match.captured(2), QStringLiteral("842"));
    const int pages = int(bytes.count("/Type /Page\n"));
    QVERIFY2(pages >= 3 && pages <= 8, qPrintable(QString::number(pages)));
  }

  void what_cannot_be_written_is_told_with_its_name() {
    const auto problem = [](const QString& path) {
      try {
        saveReport(demoReport(), path);
      } catch (const qb::Error& error) {
        return QString::fromUtf8(error.what());
      }
      return QString();
    };
    QVERIFY(problem(QStringLiteral("/nowhere/at all/report.html")).startsWith(QLatin1String("/nowhere/at all/report.html: cannot be written")));
    QVERIFY(problem(m_folder.filePath(QStringLiteral("report.txt"))).contains(QLatin1String(".html or .pdf")));
    QVERIFY(!QFile::exists(m_folder.filePath(QStringLiteral("report.txt"))));
  }

  void the_window_has_it_written_by_a_process() {
    const QString program = m_folder.filePath(QStringLiteral("program.sh"));
    QFile script(program);
    QVERIFY(script.open(QIODevice::WriteOnly));
    script.write("#!/bin/sh\nprintf '%s\\n' \"$@\" > \"$2\"\ncase \"$2\" in *bad*) echo 'Qt says something' >&2; echo 'bad.html: no room' >&2; exit 5;; esac\n");
    script.close();
    script.setPermissions(script.permissions() | QFileDevice::ExeOwner);
    qputenv("QBENCH_WORKBENCH", program.toUtf8());
    for (const QString& name : {QStringLiteral("good.html"), QStringLiteral("bad.html")}) {
      QWidget window;
      QString path, problem;
      ReportJob::ask(&window, QStringLiteral("/the/workspace"), {QStringLiteral("a"), QStringLiteral("b")}, QStringLiteral("a/b report"), [&](const QString& file, const QString& text) {
        path = file;
        problem = text;
      });
      auto* dialog = window.findChild<QFileDialog*>();
      QVERIFY(dialog);
      Q_EMIT dialog->fileSelected(m_folder.filePath(name));
      QTRY_COMPARE(path, m_folder.filePath(name));
      QCOMPARE(problem, name == QLatin1String("bad.html") ? QStringLiteral("bad.html: no room") : QString());
      QFile said(path);
      QVERIFY(said.open(QIODevice::ReadOnly));
      QCOMPARE(QString::fromUtf8(said.readAll()), QStringLiteral("--report\n%1\n--workspace\n/the/workspace\n--run\na\n--run\nb\n").arg(path));
    }
    qunsetenv("QBENCH_WORKBENCH");
  }
};

QTEST_MAIN(TestReport)
#include "test_report.moc"
