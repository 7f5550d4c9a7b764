#include <QtTest/QtTest>

#include "core/base/command.h"
#include "core/base/error.h"
#include "core/run/slurm.h"

class TestSlurm : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void squeue_of_several_versions_is_read() {
    // Numbers are plain up to 22.05, and marked as set or not from 23.02 on, where states are lists.
    const char* older = "{'jobs': [{'array_job_id': 4, 'array_task_id': null, 'array_task_string': '2,5-6%2', 'job_state': 'PENDING', 'state_reason': 'Resources', 'nodes': ''},"
                        "{'array_job_id': 4, 'array_task_id': 0, 'array_task_string': '', 'job_state': 'RUNNING', 'state_reason': 'None', 'nodes': 'n1'}, {'array_job_id': 0, 'job_id': 7, 'job_state': 'RUNNING'}]}";
    const char* newer = "{'jobs': [{'array_job_id': {'set': true, 'infinite': false, 'number': 4}, 'array_task_id': {'set': false, 'number': 0}, 'array_task_string': '2,5-6%2', 'job_state': ['PENDING'],"
                        "'state_reason': 'Resources', 'nodes': ''}, {'array_job_id': {'set': true, 'number': 4}, 'array_task_id': {'set': true, 'number': 0}, 'job_state': ['RUNNING'], 'state_reason': 'None', 'nodes': 'n1'}]}";
    for (const char* text : {older, newer}) {
      const auto tasks = qb::slurm_tasks_from_json(QString(text).replace('\'', '"').toStdString());
      QCOMPARE(tasks.size(), size_t{4});
      for (const char* waiting : {"4_2", "4_5", "4_6"}) QVERIFY(tasks.at(waiting).state == "PENDING" && tasks.at(waiting).reason == "Resources");
      QVERIFY(tasks.at("4_0").state == "RUNNING" && tasks.at("4_0").reason.empty() && tasks.at("4_0").node == "n1");
    }
    QVERIFY_EXCEPTION_THROWN(qb::slurm_tasks_from_json("no"), qb::ResourceError);
  }
  void options_of_sbatch() {
    const qb::SlurmOptions options = qb::parse_slurm_options({"partition=gpu,gres=gpu:1", "exclusive,grace=30"});
    QVERIFY((options.directives == std::vector<std::pair<std::string, std::string>>{{"partition", "gpu"}, {"gres", "gpu:1"}, {"exclusive", ""}}));
    QVERIFY(options.gpu() && options.grace_s == 30);
    QVERIFY(!qb::parse_slurm_options({"partition=gpu"}).gpu());
    for (const char* wrong : {"array=1", "a b=c", "=x", "grace=0", "grace=1x"}) QVERIFY_EXCEPTION_THROWN(qb::parse_slurm_options({wrong}), qb::InputError);
  }
  void a_program_is_run_with_what_it_says() {
    const auto done = qb::run_command({"sh", "-c", "printf '%s' \"$1\"; echo bad >&2; exit 3", "sh", "a 'b' $HOME"});
    QCOMPARE(done.code, 3);
    QCOMPARE(done.out, std::string("a 'b' $HOME"));
    QCOMPARE(done.err, std::string("bad\n"));
    QCOMPARE(qb::run_command({"sh", "-c", "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"}).out.size(), size_t{300000});
    QCOMPARE(qb::run_command({"there-is-no-such-program"}).code, 127);
  }
};

QTEST_GUILESS_MAIN(TestSlurm)
#include "test_slurm.moc"
