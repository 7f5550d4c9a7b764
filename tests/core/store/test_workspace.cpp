#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <csignal>
#include <fstream>
#include <set>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/measure/report_head.h"
#include "core/measure/report_json.h"
#include "core/store/run_index.h"
#include "core/store/run_lock.h"
#include "core/store/workspace.h"

namespace fs = std::filesystem;

class TestWorkspace : public QObject {
  Q_OBJECT
  std::unique_ptr<QTemporaryDir> place_;
  fs::path folder() const { return fs::path(place_->path().toStdString()) / "ws"; }

  static qb::Recipe recipe(const std::string& name) {
    qb::Recipe r;
    r.name = name;
    r.model = "/models/tiny";
    r.scheme.weights = qb::QuantSpec{};
    return r;
  }
  template <class F>
  static std::string error_of(F action) {
    try {
      action();
    } catch (const qb::Error& e) {
      return e.what();
    }
    return {};
  }
  static qb::RunReport marked(qb::Workspace& workspace, const std::string& id, qb::RunStatus status) {
    qb::RunReport report = workspace.load(id);
    report.status = status;
    workspace.save(report);
    return report;
  }

 private Q_SLOTS:
  void init() { place_ = std::make_unique<QTemporaryDir>(); }

  void runs_of_a_model_have_styles_of_their_own() {
    const auto workspace = qb::Workspace::open(folder());
    std::vector<std::string> ids;
    for (int i = 0; i < 3; ++i) ids.push_back(workspace->create_run(recipe("same second")));
    for (int i = 0; i < 3; ++i) QCOMPARE(workspace->load(ids[i]).style, i);
    qb::Recipe other = recipe("other model");
    other.model = "/models/other";
    QCOMPARE(workspace->load(workspace->create_run(other)).style, 0);
    qb::Recipe moved = recipe("moved");  // the same model, in another place
    moved.model = "/elsewhere/tiny";
    QCOMPARE(workspace->load(workspace->create_run(moved)).style, 3);
    workspace->remove(ids[1]);
    QCOMPARE(workspace->load(workspace->create_run(recipe("again"))).style, 1);
    QCOMPARE(qb::Workspace::open(folder())->load(ids[2]).style, 2);
  }

  void a_run_is_made_saved_listed_and_loaded() {
    const auto workspace = qb::Workspace::open(folder());
    const std::string id = workspace->create_run(recipe("4 bits, Größe 64!"));
    QVERIFY2(id.ends_with("-4-bits-gr-e-64"), id.c_str());
    QCOMPARE(workspace->recipe(id).name, std::string("4 bits, Größe 64!"));
    qb::RunReport report = workspace->load(id);
    QCOMPARE(report.status, qb::RunStatus::queued);
    report.status = qb::RunStatus::finished;
    report.blocks.resize(2);
    workspace->save(report);
    QCOMPARE(workspace->load(id).blocks.size(), size_t{2});
    const auto heads = workspace->list();
    QCOMPARE(heads.size(), size_t{1});
    QCOMPARE(heads[0].status, qb::RunStatus::finished);
    QVERIFY(heads[0].blocks.empty());
  }
  void names_may_repeat_ids_do_not() {
    const auto workspace = qb::Workspace::open(folder());
    std::set<std::string> ids;
    for (int i = 0; i < 5; ++i) ids.insert(workspace->create_run(recipe("same")));
    QCOMPARE(ids.size(), size_t{5});
    QCOMPARE(workspace->list().size(), size_t{5});
  }
  void blocks_written_after_the_last_save_are_loaded() {
    const auto workspace = qb::Workspace::open(folder());
    const std::string id = workspace->create_run(recipe("r"));
    marked(*workspace, id, qb::RunStatus::cancelled);
    fs::create_directories(workspace->run_folder(id) / "blocks");
    qb::BlockReport block;
    block.seconds = 7;
    qb::write_atomically(qb::block_report_path(workspace->run_folder(id), 0), qb::to_json(block));
    QCOMPARE(workspace->load(id).blocks.at(0).seconds, 7.0);
  }
  void a_missing_damaged_or_foreign_index_is_made_again() {
    std::string id;
    {
      const auto workspace = qb::Workspace::open(folder());
      id = workspace->create_run(recipe("r"));
    }
    const fs::path index = qb::RunIndex::file(folder());
    const auto again = [&] {
      const auto list = qb::Workspace::open(folder())->list();
      QCOMPARE(list.size(), size_t{1});
      QCOMPARE(list[0].id, id);
    };
    again();
    QVERIFY(fs::remove(index));
    again();
    std::ofstream(index, std::ios::trunc) << std::string(20000, 'x');
    again();
    {
      std::fstream file(index, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(60);  // the database header's user version
      file.write("\0\0\0\x63", 4);
    }
    again();
    QVERIFY(qb::RunIndex(folder()).read().contains(id));
  }
  void each_host_has_an_index_of_its_own_and_the_one_of_older_programs_goes() {
    qb::Workspace::open(folder())->create_run(recipe("r"));
    char host[256] = {};
    QCOMPARE(::gethostname(host, sizeof host - 1), 0);
    QCOMPARE(qb::RunIndex::file(folder()).parent_path(), folder() / "cache");
    QVERIFY(qb::RunIndex::file(folder()).filename().string().find(host) != std::string::npos);
    std::ofstream(folder() / "index.db") << "of all hosts";
    QCOMPARE(qb::Workspace::open(folder())->list().size(), size_t{1});
    QVERIFY(!fs::exists(folder() / "index.db"));
    // Containers have a new name each time: what they leave does not pile up. What another host uses is left alone.
    for (const char* name : {"index-gone.db", "index-there.db"}) std::ofstream(folder() / "cache" / name) << "x";
    fs::last_write_time(folder() / "cache" / "index-gone.db", fs::file_time_type::clock::now() - std::chrono::hours(24 * 40));
    QVERIFY(fs::remove(qb::RunIndex::file(folder())));
    QCOMPARE(qb::Workspace::open(folder())->list().size(), size_t{1});
    QVERIFY(!fs::exists(folder() / "cache" / "index-gone.db") && fs::exists(folder() / "cache" / "index-there.db"));
  }
  void without_a_place_for_the_index_runs_are_listed_all_the_same() {
    fs::create_directories(folder() / "runs");
    std::ofstream(folder() / "cache") << "a file where a folder should be";
    QVERIFY(!qb::RunIndex(folder()).kept());
    const auto workspace = qb::Workspace::open(folder());
    const std::string id = workspace->create_run(recipe("r"));
    marked(*workspace, id, qb::RunStatus::finished);
    QCOMPARE(workspace->list().at(0).status, qb::RunStatus::finished);
    QCOMPARE(qb::Workspace::open(folder())->list().size(), size_t{1});
    QVERIFY(workspace->writable());
  }
  void writes_within_one_tick_of_the_clock_are_seen() {
    const auto one = qb::Workspace::open(folder()), two = qb::Workspace::open(folder());
    const std::string id = one->create_run(recipe("r"));
    qb::RunReport report = one->load(id);
    for (uint64_t seed = 1; seed <= 50; ++seed) {
      report.seed = seed;
      one->save(report);
      QCOMPARE(two->list().at(0).seed, seed);
    }
    QCOMPARE(qb::Workspace::open(folder())->list().at(0).seed, uint64_t{50});
  }
  void processes_of_one_host_share_the_index() {
    qb::Workspace::open(folder());
    std::vector<pid_t> children;
    for (int c = 0; c < 4; ++c)
      if (children.push_back(::fork()); children.back() == 0) {
        const auto workspace = qb::Workspace::open(folder());
        for (int i = 0; i < 10; ++i) {
          const std::string id = workspace->create_run(recipe("r" + std::to_string(c)));
          marked(*workspace, id, qb::RunStatus::finished);
          if (workspace->list().empty()) ::_exit(1);
        }
        ::_exit(0);
      }
    for (const pid_t child : children) {
      int status = -1;
      ::waitpid(child, &status, 0);
      QCOMPARE(status, 0);
    }
    const auto list = qb::Workspace::open(folder())->list();
    QCOMPARE(list.size(), size_t{40});
    for (const qb::RunReport& run : list) QCOMPARE(run.status, qb::RunStatus::finished);
    const auto indexed = qb::RunIndex(folder()).read();
    QCOMPARE(indexed.size(), size_t{40});
    for (const auto& [id, run] : indexed) QCOMPARE(qb::run_report_from_json(run.report, id).status, qb::RunStatus::finished);
  }
  void the_head_of_a_report_is_the_report_without_its_blocks() {
    qb::RunReport report;
    report.id = report.name = "a \"name\" with }]\\ in it";
    report.error = "blocks\": [{";
    report.blocks.resize(3);
    report.blocks[1].linears.resize(2);
    report.blocks[1].linears[0].name = "q]\"}\\";
    report.vocabulary.resize(1);
    report.evaluations.resize(1);
    report.evaluations[0].put({"nll", 2, 0.5, {1.5, 2.5}});
    const std::string whole = qb::to_json(report), head = qb::report_head(whole, "here");
    report.blocks.clear();
    report.vocabulary.clear();
    QCOMPARE(qb::to_json(qb::run_report_from_json(head, "here")), qb::to_json(report));
    QCOMPARE(qb::to_json(qb::run_report_from_json(qb::report_head(" {\n \"blocks\" : [ ] ," + qb::to_json(report).substr(1) + "\n", "here"), "here")), qb::to_json(report));
    for (size_t length = 0; length < whole.size(); ++length) QVERIFY2(error_of([&] { qb::report_head(whole.substr(0, length), "here"); }).starts_with("here: "), std::to_string(length).c_str());
    for (const char* bad : {"[]", "{\"a\" 1}", "{\"a\": }", "{\"a\": [}]}", "{\"a\": 1} b", "{a: 1}"}) QVERIFY2(!error_of([&] { qb::report_head(bad, "here"); }).empty(), bad);
  }
  void tags_and_notes_are_the_users_and_outlive_every_save() {
    const auto workspace = qb::Workspace::open(folder());
    const std::string id = workspace->create_run(recipe("r"));
    const qb::RunReport held = workspace->load(id);
    workspace->set_tags(id, {"paper", " table 3 ", "paper", "", "two\nlines"});
    workspace->set_notes(id, "The best so far.\nAgain with more text");
    workspace->save(held);  // by who carries it out
    const std::vector<std::string> tags{"paper", "table 3", "two lines"};
    for (const auto& opened : {workspace, qb::Workspace::open(folder())}) {
      QVERIFY(opened->load(id).tags == tags && opened->list().at(0).tags == tags);
      QCOMPARE(opened->list().at(0).notes, std::string("The best so far.\nAgain with more text"));
    }
    QVERIFY(qb::read_text(workspace->run_folder(id) / "report.json").find("paper") == std::string::npos);
    workspace->set_tags(id, {});
    workspace->set_notes(id, "");
    QVERIFY(workspace->list().at(0).tags.empty() && workspace->load(id).notes.empty());
  }
  void what_another_process_did_to_the_folders_is_seen() {
    const auto one = qb::Workspace::open(folder()), two = qb::Workspace::open(folder());
    const std::string id = one->create_run(recipe("r"));
    QCOMPARE(two->list().size(), size_t{1});
    marked(*one, id, qb::RunStatus::finished);
    QCOMPARE(two->list().at(0).status, qb::RunStatus::finished);
    fs::remove_all(one->run_folder(id));
    QVERIFY(two->list().empty());
  }
  void stamps_tell_which_runs_changed() {
    const auto one = qb::Workspace::open(folder()), two = qb::Workspace::open(folder());
    QVERIFY(two->stamps().empty());
    const std::string a = one->create_run(recipe("a")), b = one->create_run(recipe("b"));
    const auto first = two->stamps();
    QCOMPARE(first.size(), size_t{2});
    QVERIFY(two->stamps() == first);
    const auto changed = [&](auto change) {
      const auto before = two->stamps();
      QTest::qWait(20);  // the clock of files
      change();
      const auto after = two->stamps();
      return before.at(a) != after.at(a) && before.at(b) == after.at(b);
    };
    QVERIFY(changed([&] { marked(*one, a, qb::RunStatus::cancelled); }));
    QVERIFY(changed([&] { one->rename(a, "another"); }));
    QVERIFY(changed([&] { one->set_tags(a, {"t"}); }));
    QVERIFY(changed([&] { one->set_notes(a, "n"); }));
    QVERIFY(changed([&] { fs::create_directories(one->run_folder(a) / "blocks"); }));
    QVERIFY(changed([&] { qb::write_atomically(qb::block_report_path(one->run_folder(a), 0), qb::to_json(qb::BlockReport{})); }));
    one->remove(b);
    QCOMPARE(two->stamps().size(), size_t{1});
    fs::create_directories(folder() / "runs" / "being made");
    QCOMPARE(two->stamps().size(), size_t{1});
  }
  void who_carries_a_run_out_is_told_while_it_does() {
    const auto workspace = qb::Workspace::open(folder());
    const std::string id = workspace->create_run(recipe("r"));
    QVERIFY(!workspace->owner(id));
    {
      qb::RunLock lock(workspace->run_folder(id));
      marked(*workspace, id, qb::RunStatus::running);
      char host[256] = {};
      QCOMPARE(::gethostname(host, sizeof host - 1), 0);
      QVERIFY((workspace->owner(id) == qb::RunOwner{::getpid(), host}));
      QCOMPARE(workspace->list().at(0).status, qb::RunStatus::running);
    }
    QVERIFY(!workspace->owner(id));
    // Nothing was written since, yet nobody is at it: it can be resumed, also in a workspace that has long been open.
    QCOMPARE(workspace->list().at(0).status, qb::RunStatus::interrupted);
    QCOMPARE(workspace->load(id).status, qb::RunStatus::interrupted);
    std::ofstream(workspace->run_folder(id) / "owner", std::ios::trunc) << "123 456\n";  // of an older program
    QVERIFY(!workspace->owner(id));
  }
  void reading_run_folders_into_the_index_is_told() {
    {
      const auto workspace = qb::Workspace::open(folder());
      for (int i = 0; i < 3; ++i) workspace->create_run(recipe("r"));
      QCOMPARE(workspace->list().size(), size_t{3});
    }
    std::vector<std::pair<int, int>> told;
    const auto tell = [&](int done, int all) { told.emplace_back(done, all); };
    qb::Workspace::open(folder(), qb::Workspace::Absent::create, tell);
    QVERIFY(told.empty());  // the index has them
    QVERIFY(fs::remove(qb::RunIndex::file(folder())));
    QCOMPARE(qb::Workspace::open(folder(), qb::Workspace::Absent::create, tell)->list().size(), size_t{3});
    QVERIFY((told == std::vector<std::pair<int, int>>{{0, 3}, {1, 3}, {2, 3}}));
  }
  void a_damaged_run_is_listed_with_its_error() {
    const auto workspace = qb::Workspace::open(folder());
    const std::string good = workspace->create_run(recipe("good")), bad = workspace->create_run(recipe("bad"));
    std::ofstream(workspace->run_folder(bad) / "report.json", std::ios::trunc) << "{\"format\": 1, \"id\": ";
    QVERIFY(error_of([&] { workspace->load(bad); }).find("report.json") != std::string::npos);
    const auto reopened = qb::Workspace::open(folder());
    int failed = 0;
    for (const qb::RunReport& head : reopened->list())
      if (head.id == bad) {
        ++failed;
        QCOMPARE(head.status, qb::RunStatus::failed);
        QVERIFY(head.error.find("report.json") != std::string::npos);
      }
    QCOMPARE(failed, 1);
    QCOMPARE(reopened->list().size(), size_t{2});
    QCOMPARE(reopened->load(good).name, std::string("good"));
    reopened->remove(bad);
    QCOMPARE(reopened->list().size(), size_t{1});
  }
  void a_run_that_finishes_while_it_is_looked_at_is_finished() {
    const auto workspace = qb::Workspace::open(folder());
    const std::vector<std::string> ids{workspace->create_run(recipe("a")), workspace->create_run(recipe("b"))};
    const auto mark_all = [&](qb::RunStatus status) {
      for (const std::string& id : ids) marked(*workspace, id, status);
    };
    mark_all(qb::RunStatus::running);
    fs::remove_all(folder() / "cache");
    // When the first has been read as running, both finish, and nobody is at work any more.
    const auto other = qb::Workspace::open(folder(), qb::Workspace::Absent::refuse, [&](int done, int) {
      if (done == 1) mark_all(qb::RunStatus::finished);
    });
    for (const std::string& id : ids) QCOMPARE(other->load(id).status, qb::RunStatus::finished);
    for (const qb::RunReport& run : other->list()) QCOMPARE(run.status, qb::RunStatus::finished);
  }
  void a_run_whose_process_is_gone_can_be_resumed_and_a_living_one_is_left_alone() {
    std::string dead, alive;
    const auto workspace = qb::Workspace::open(folder());
    dead = workspace->create_run(recipe("dead"));
    alive = workspace->create_run(recipe("alive"));
    marked(*workspace, dead, qb::RunStatus::running);
    marked(*workspace, alive, qb::RunStatus::running);
    int ready[2];
    QCOMPARE(::pipe(ready), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(30);  // should the test fail meanwhile
      qb::RunLock lock(workspace->run_folder(alive));
      (void)!::write(ready[1], "x", 1);
      ::pause();
      ::_exit(0);
    }
    char byte;
    QCOMPARE(::read(ready[0], &byte, 1), ssize_t{1});
    {
      const auto other = qb::Workspace::open(folder());
      QCOMPARE(other->load(dead).status, qb::RunStatus::interrupted);
      QCOMPARE(other->load(alive).status, qb::RunStatus::running);
      const std::string held = error_of([&] { qb::RunLock lock(other->run_folder(alive)); });
      QVERIFY2(held.find(std::to_string(child)) != std::string::npos, held.c_str());
      QVERIFY(error_of([&] { other->remove(alive); }).find("cancel") != std::string::npos);
    }
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    QCOMPARE(qb::Workspace::open(folder())->load(alive).status, qb::RunStatus::interrupted);
    qb::RunLock free(workspace->run_folder(alive));
    QVERIFY(!error_of([&] { qb::RunLock twice(workspace->run_folder(alive)); }).empty());
  }
  void a_new_name_outlives_the_next_save_of_a_running_run() {
    const auto workspace = qb::Workspace::open(folder());
    const std::string id = workspace->create_run(recipe("old"));
    qb::RunReport held = workspace->load(id);
    workspace->rename(id, "new");
    QCOMPARE(workspace->list().at(0).name, std::string("new"));
    workspace->save(held);
    QCOMPARE(workspace->load(id).name, std::string("new"));
    QCOMPARE(qb::Workspace::open(folder())->list().at(0).name, std::string("new"));
  }
  void foreign_ids_are_refused() {
    const auto workspace = qb::Workspace::open(folder());
    for (const char* id : {"", ".", "..", "../ws", "a/b", "none"}) {
      QVERIFY(!error_of([&] { workspace->remove(id); }).empty());
      QVERIFY(!error_of([&] { workspace->load(id); }).empty());
    }
    QVERIFY(fs::exists(folder() / "runs"));
  }
  void float_perplexities_are_kept_by_key() {
    qb::EvaluationResult result;
    result.put({"perplexity", 20.968});
    result.put({"nll", 1.5, 0, {1, 2}});
    qb::Workspace::open(folder())->cache_evaluation("model text 2048", result);
    const auto workspace = qb::Workspace::open(folder());
    QVERIFY(!workspace->cached_evaluation("model text 1024"));
    const auto found = workspace->cached_evaluation("model text 2048");
    QVERIFY(found.has_value());
    QCOMPARE(found->value("perplexity"), 20.968);
    QCOMPARE(found->values("nll").size(), size_t{2});
    // A file for all hosts, which may be damaged.
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder() / "cache" / "evaluations")) files.push_back(entry.path());
    QCOMPARE(files.size(), size_t{1});
    const std::string whole = qb::read_text(files[0]);
    for (const std::string& damaged : {std::string(), whole.substr(0, whole.size() / 2), std::string("{}"), std::string("[1]")}) {
      std::ofstream(files[0], std::ios::trunc) << damaged;
      QVERIFY(!workspace->cached_evaluation("model text 2048"));
    }
    workspace->cache_evaluation("model text 2048", result);
    QVERIFY(workspace->cached_evaluation("model text 2048").has_value());
  }
  void a_place_that_cannot_be_written_is_named() {
    std::ofstream(folder()) << "a file, not a folder";
    const std::string what = error_of([&] { qb::Workspace::open(folder()); });
    QVERIFY2(what.find("ws") != std::string::npos, what.c_str());
  }
};

QTEST_GUILESS_MAIN(TestWorkspace)
#include "test_workspace.moc"
