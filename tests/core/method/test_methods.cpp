#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <set>

#include "core/base/error.h"
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
      for (const KnobInfo& info : method.knobs) {
        QVERIFY2(knob_problem(info, info.default_value).empty(), (method.name + "." + info.name).c_str());
        QVERIFY2(!info.help.empty() && !info.source.empty(), (method.name + "." + info.name).c_str());
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
};

QTEST_GUILESS_MAIN(TestMethods)
#include "test_methods.moc"
