#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <algorithm>
#include <cctype>
#include <set>

#include "core/base/error.h"
#include "core/method/contracts.h"
#include "core/method/method.h"

using namespace qb;

namespace {

KnobInfo make_knob(KnobType type, KnobValue value, double low = 0, double high = 0, std::vector<std::string> choices = {}) {
  KnobInfo info;
  info.name = "knob";
  info.type = type;
  info.default_value = std::move(value);
  info.minimum = low;
  info.maximum = high;
  info.choices = std::move(choices);
  return info;
}

// "Grid steps": a capital first, words between single spaces, none of them capitalised like a heading's (MLP and SmoothQuant are names).
bool is_sentence_case(const std::string& title) {
  if (title.empty() || !std::isupper(static_cast<unsigned char>(title.front())) || title.find('_') != std::string::npos) return false;
  for (size_t i = 1; i < title.size(); ++i)
    if (title[i - 1] == ' ' && (title[i] == ' ' || (std::isupper(static_cast<unsigned char>(title[i])) && std::none_of(title.begin() + static_cast<std::ptrdiff_t>(i) + 1, title.end(), [](char c) { return std::isupper(static_cast<unsigned char>(c)); })))) return false;
  return title.back() != ' ' && title.back() != '.';
}

}  // namespace

class TestMethods : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void every_method_is_whole() {
    std::set<std::string> names;
    QVERIFY(!methods().empty());
    for (const MethodInfo& method : methods()) {
      QVERIFY2(names.insert(method.name).second, method.name.c_str());
      QVERIFY2(!method.title.empty() && !method.help.empty() && !method.source.empty(), method.name.c_str());
      std::set<std::string> titles;
      for (const KnobInfo& info : method.knobs) {
        QVERIFY2(knob_problem(info, info.default_value).empty(), (method.name + "." + info.name).c_str());
        QVERIFY2(!info.help.empty() && !info.source.empty(), (method.name + "." + info.name).c_str());
        // A title for people: "Grid steps", not "n_grid".
        QVERIFY2(is_sentence_case(info.title), (method.name + "." + info.name + ": " + info.title).c_str());
        QVERIFY2(titles.insert(info.title).second, (method.name + "." + info.name + ": " + info.title).c_str());
        QVERIFY(knob({method.name, {}}, info.name) == info.default_value);
      }
      QVERIFY(find_method(method.name) == &method);
      QVERIFY(make_method({method.name, {}}) != nullptr);
      // A method that asks for statistics says so where views and preflight look.
      if (make_method({method.name, {}})->needs() != 0) QVERIFY2(method.needs_calibration, method.name.c_str());
    }
    QVERIFY(names.contains("rtn"));
  }

  void knobs_say_what_they_expect() {
    const KnobInfo flag = make_knob(KnobType::boolean, true);
    QVERIFY(knob_problem(flag, false).empty());
    QVERIFY(!knob_problem(flag, int64_t{1}).empty());
    const KnobInfo count = make_knob(KnobType::integer, int64_t{5}, 1, 10);
    QVERIFY(knob_problem(count, int64_t{10}).empty());
    const std::string above = knob_problem(count, int64_t{11});
    QVERIFY(above.find("11") != std::string::npos && above.find("10") != std::string::npos);
    QVERIFY(!knob_problem(count, 5.0).empty());
    const KnobInfo ratio = make_knob(KnobType::real, 0.5, 0, 1);
    QVERIFY(knob_problem(ratio, 1.0).empty());
    QVERIFY(knob_problem(ratio, int64_t{1}).empty());  // YAML writes 1 for 1.0
    QVERIFY(!knob_problem(ratio, 1.01).empty());
    QVERIFY(!knob_problem(ratio, std::numeric_limits<double>::quiet_NaN()).empty());
    const KnobInfo choice = make_knob(KnobType::choice, std::string("v1"), 0, 0, {"v1", "v2"});
    QVERIFY(knob_problem(choice, std::string("v2")).empty());
    QVERIFY(knob_problem(choice, std::string("v3")).find("v2") != std::string::npos);
  }

  void a_misspelled_name_finds_its_neighbours() {
    const std::vector<std::string> names = {"rtn", "gptq", "awq", "smoothquant", "quarot"};
    QCOMPARE(similar_names("gtpq", names).front(), std::string("gptq"));
    QCOMPARE(similar_names("SmoothQuant", names).front(), std::string("smoothquant"));
    QVERIFY(similar_names("something else", names).empty());
    QVERIFY(similar_names(std::string(1'000'000, 'x'), names).empty());
  }

  void unknown_methods_and_knobs_are_refused_by_name() {
    QVERIFY(stage_problem({"rtn", {}}).empty());
    const std::string method = stage_problem({"rtm", {}});
    QVERIFY2(method.find("rtm") != std::string::npos && method.find("\"rtn\"") != std::string::npos, method.c_str());
    const std::string with_knob = stage_problem({"rtn", {{"damping", 0.01}}});
    QVERIFY2(with_knob.find("damping") != std::string::npos, with_knob.c_str());
    QVERIFY_EXCEPTION_THROWN(make_method({"nothing", {}}), InputError);
    QVERIFY_EXCEPTION_THROWN(knob({"rtn", {}}, "nothing"), InternalError);
  }

  void stages_that_undo_each_other_are_refused_by_name_data() {
    QTest::addColumn<QStringList>("methods");
    QTest::addColumn<int>("stage");
    QTest::addColumn<QStringList>("says");  // nothing: legal
    auto row = [](const QStringList& methods, int stage = -1, const QStringList& says = {}) { QTest::addRow("%s", qPrintable(methods.join(','))) << methods << stage << says; };
    row({});
    row({"quarot", "smoothquant", "awq", "wanda", "clip", "gptq", "norm_tweaking", "e2e_tuning"});
    row({"shortgpt", "quarot", "shortgpt", "awq", "magnitude", "hqq"});
    row({"norm_tweaking"});
    row({"e2e_tuning"});
    row({"awq", "clip", "norm_tweaking", "e2e_tuning"});
    row({"clip", "e2e_tuning"});
    row({"norm_tweaking", "awq"}, 1, {"awq", "norm_tweaking", "put awq before norm_tweaking"});
    row({"clip", "wanda", "spqr", "norm_tweaking"});
    row({"rtn", "gptq"}, 1, {"gptq", "rtn", "already"});
    row({"spqr", "gptq"}, 1, {"gptq", "spqr", "already"});
    row({"rtn", "norm_tweaking", "gptq"}, 2, {"gptq", "rtn", "already"});
    row({"gptq", "awq"}, 1, {"awq", "gptq", "put awq before gptq"});
    row({"gptq", "clip"}, 1, {"clip", "gptq", "put clip before gptq"});
    row({"gptq", "norm_tweaking", "wanda"}, 2, {"wanda", "gptq", "put wanda before gptq"});
    row({"clip", "awq"}, 1, {"awq", "clip", "ranges", "put awq before clip"});
    row({"clip", "wanda", "smoothquant", "rtn"}, 2, {"smoothquant", "clip", "ranges"});
    row({"clip", "clip"}, 1, {"clip", "already"});
    row({"awq", "quarot"}, 1, {"quarot", "awq", "put quarot before awq"});
    row({"quarot", "awq", "shortgpt"}, 2, {"shortgpt", "awq", "put shortgpt before awq"});
    row({"quarot", "quarot"}, 1, {"quarot", "already"});
    row({"norm_tweaking", "rtn"}, 0, {"norm_tweaking", "rtn", "put norm_tweaking behind rtn"});
    row({"dgq", "e2e_tuning"}, 1, {"e2e_tuning", "dgq", "few bits"});
    row({"spqr", "norm_tweaking", "e2e_tuning"}, 2, {"e2e_tuning", "spqr", "few bits"});
    row({"rtn", "e2e_tuning", "norm_tweaking"}, 2, {"norm_tweaking", "e2e_tuning", "comes last"});
    row({"e2e_tuning", "e2e_tuning"}, 1, {"e2e_tuning", "already"});
  }
  void stages_that_undo_each_other_are_refused_by_name() {
    QFETCH(QStringList, methods);
    QFETCH(int, stage);
    QFETCH(QStringList, says);
    std::vector<StageSpec> pipeline;
    for (const QString& method : methods) pipeline.push_back({method.toStdString(), {}});
    const auto problem = pipeline_problem(pipeline, {});
    QCOMPARE(problem.has_value(), stage >= 0);
    if (!problem) return;
    QCOMPARE(problem->stage, size_t(stage));
    for (const QString& word : says) QVERIFY2(QString::fromStdString(problem->what).contains(word), problem->what.c_str());
  }

  void pruned_weights_need_an_exact_zero() {
    Scheme scheme;
    scheme.weights = QuantSpec{};
    scheme.weights->symmetric = false;
    const std::vector<StageSpec> pipeline{{"wanda", {}}, {"rtn", {}}};
    QVERIFY(!pipeline_problem(pipeline, scheme));
    Scheme floating = scheme;
    floating.weights->round_zero_point = false;
    QVERIFY(!pipeline_problem({{"rtn", {}}}, floating));
    const auto problem = pipeline_problem(pipeline, floating);
    QVERIFY(problem && problem->stage == 0 && problem->what.find("wanda") != std::string::npos && problem->what.find("round_zero_point") != std::string::npos);
    floating.weights->symmetric = true;  // codes count from zero
    QVERIFY(!pipeline_problem(pipeline, floating));
    Scheme part = scheme;
    part.overrides = {{"*.o_proj", scheme.weights}};
    part.overrides[0].weights->round_zero_point = false;
    QVERIFY(pipeline_problem(pipeline, part).has_value());
  }

  void plain_rounding_stands_before_what_learns_on_codes() {
    auto completed = [](std::vector<StageSpec> pipeline) {
      QStringList names;
      for (const StageSpec& stage : complete_pipeline(std::move(pipeline))) names << QString::fromStdString(stage.method);
      return names.join(',');
    };
    QCOMPARE(completed({}), QString("rtn"));
    QCOMPARE(completed({{"awq", {}}, {"clip", {}}}), QString("awq,clip,rtn"));
    QCOMPARE(completed({{"clip", {}}, {"norm_tweaking", {}}, {"e2e_tuning", {}}}), QString("clip,rtn,norm_tweaking,e2e_tuning"));
    QCOMPARE(completed({{"hqq", {}}, {"norm_tweaking", {}}}), QString("hqq,norm_tweaking"));
  }

  void a_further_stage_finds_a_legal_place() {
    auto place = [](const char* method, const std::vector<StageSpec>& pipeline) {
      const auto at = place_for({method, {}}, pipeline, {});
      return at ? static_cast<int>(*at) : -1;
    };
    const std::vector<StageSpec> usual{{"awq", {}}, {"clip", {}}, {"gptq", {}}};
    QCOMPARE(place("smoothquant", usual), 1);
    QCOMPARE(place("quarot", usual), 0);
    QCOMPARE(place("wanda", usual), 2);
    QCOMPARE(place("norm_tweaking", usual), 3);
    QCOMPARE(place("clip", usual), -1);
    QCOMPARE(place("rtn", usual), -1);
    QCOMPARE(place("clip", {}), 0);
  }
};

QTEST_GUILESS_MAIN(TestMethods)
#include "test_methods.moc"
