#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <cmath>
#include <limits>
#include <set>

#include "core/base/error.h"
#include "core/store/run_table.h"

using namespace qb;

class TestRunTable : public QObject {
  Q_OBJECT

  static RunReport run(const std::string& name, double perplexity, const std::string& model = "m") {
    RunReport report;
    report.id = "20260102-030405-" + name;
    report.name = name;
    report.status = RunStatus::finished;
    report.model_hash = model;
    EvaluationResult result;
    result.put({"perplexity", perplexity});
    report.evaluations.push_back(result);
    return report;
  }
  static std::string error_of(const std::string& condition) {
    try {
      RunQuery().add_condition(condition);
    } catch (const InputError& e) {
      return e.what();
    }
    return {};
  }
  static bool accepts(const std::string& query, const RunReport& report) { return RunQuery::parse(query).accepts(report); }
  static std::string delta(const RunReport& report, const RunReport* baseline) { return cell_text(run_column("delta"), run_column("delta").value(report, baseline)); }

 private Q_SLOTS:
  void columns_are_told_apart() {
    std::set<std::string> keys, headings;
    for (const RunColumn& column : run_columns()) {
      QVERIFY(keys.insert(column.key).second && headings.insert(column_heading(column)).second);
      QVERIFY(!column.help.empty() && column.value);
      QCOMPARE(&run_column(column.key), &column);
    }
    QCOMPARE(column_heading(run_column("size")), std::string("Size (MB)"));
    QVERIFY_THROWS_EXCEPTION(InputError, run_column("speed"));
    QVERIFY_THROWS_EXCEPTION(InputError, parse_run_columns("name,,ppl"));
    QCOMPARE(parse_run_columns("all").size(), run_columns().size());
  }
  void an_empty_report_has_nothing_rather_than_zeros() {
    const RunReport nothing;
    for (const char* key : {"ppl", "delta", "bits", "size", "time", "memory", "compression", "tokens", "date", "name"})
      QCOMPARE(cell_text(run_column(key), run_column(key).value(nothing, nullptr)), std::string("–"));
  }
  void a_delta_needs_equal_conditions_and_one_model() {
    const RunReport a = run("a", 20), b = run("b", 25.5), other = run("c", 30, "another");
    RunReport longer = run("d", 40);
    longer.evaluations[0].seq_len = 4096;
    QCOMPARE(delta(b, &a), std::string("+5.5000"));
    QCOMPARE(delta(a, &b), std::string("-5.5000"));
    QCOMPARE(delta(other, &a), std::string("–"));
    QCOMPARE(delta(longer, &a), std::string("–"));
    QCOMPARE(delta(a, nullptr), std::string("–"));  // no float model's figure
  }
  void figures_that_are_no_numbers_are_nothing_known() {
    RunReport broken = run("a", std::numeric_limits<double>::quiet_NaN()), endless = run("b", std::numeric_limits<double>::infinity()), good = run("c", 5);
    QVERIFY(!accepts("ppl<100", broken) && !accepts("ppl>1", broken) && accepts("ppl=", broken));
    QVERIFY(accepts("ppl>100", endless));
    QCOMPARE(cell_text(run_column("ppl"), run_column("ppl").value(endless, nullptr)), std::string("inf"));
    for (const char* order : {"ppl", "-ppl"}) {
      std::vector<const RunReport*> runs{&broken, &endless, &good};
      sort_runs(runs, parse_run_order(order));
      QCOMPARE(runs.back(), &broken);
      QCOMPARE(runs.front(), std::string(order) == "ppl" ? &good : &endless);
    }
    QVERIFY(runs_as_json({&broken}, parse_run_columns("ppl")) == R"([{"ppl":null}])");
  }
  void equal_runs_keep_their_order() {
    const RunReport a = run("a", 1), b = run("b", 1), c = run("c", 0.5);
    std::vector<const RunReport*> runs{&b, &a, &c};
    sort_runs(runs, parse_run_order("ppl"));
    QVERIFY((runs == std::vector<const RunReport*>{&c, &b, &a}));
    sort_runs(runs, parse_run_order("-ppl,name"));
    QVERIFY((runs == std::vector<const RunReport*>{&a, &b, &c}));
  }
  void words_and_conditions_stand_in_one_line() {
    RunReport report = run("Night shift", 25);
    report.scheme = "int4 g64";
    report.tags = {"paper", "table 3"};
    QVERIFY(accepts("night SHIFT int4", report) && accepts("'table 3' ppl<30", report) && accepts("name=\"night shift\"", report));
    QVERIFY(accepts("tags~\"table 3\" status=finished date=2026-01", report) && accepts("", report));
    QVERIFY(!accepts("night ppl<20", report) && !accepts("int3", report) && !accepts("tags!~paper", report) && !accepts("name!='night shift'", report));
    QVERIFY(accepts("ppl=25 ppl<=25 ppl>=25 ppl!=24", report) && !accepts("ppl<25", report) && !accepts("ppl>25", report));
    QVERIFY(accepts("notes= sweep=", report) && !accepts("notes!=", report) && accepts("sweep!=night", report));
    QVERIFY(accepts("date>=2026-01-02 date<=2026-01 date<2026-02", report) && !accepts("date>2026-01-02", report));
  }
  void mistakes_name_the_condition() {
    QVERIFY(error_of("ppl<x").find("ppl<x") == 0);
    QVERIFY(error_of("name<b").find("name<b") == 0);
    QVERIFY(error_of("ppl~1").find("ppl~1") == 0);
    QVERIFY(error_of("ppl>").find("ppl>") == 0);
    QVERIFY(error_of("speed=1").find("\"speed\"") != std::string::npos);
    QVERIFY(error_of("word").find("\"word\"") == 0 && error_of("=3").find("\"=3\"") == 0);
    QVERIFY(error_of("ppl=1").empty());
  }
  void cells_with_marks_stay_one_cell() {
    RunReport report = run("a|b, \"c\"\nd", 1);
    QCOMPARE(runs_as_csv({&report}, parse_run_columns("name,ppl")), std::string("name,ppl\r\n\"a|b, \"\"c\"\"\nd\",1\r\n"));
    QCOMPARE(runs_as_markdown({&report}, parse_run_columns("name,ppl")), std::string("| Name | Perplexity |\n|---|---:|\n| a\\|b, \"c\" d | 1.0000 |\n"));
  }
};

QTEST_GUILESS_MAIN(TestRunTable)
#include "test_run_table.moc"
