#include <QtTest/QtTest>
#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "core/base/error.h"
#include "core/store/run_events.h"
#include "core/store/run_request.h"

using Kind = qb::RunEvent::Kind;

class TestRunEvents : public QObject {
  Q_OBJECT
  std::unique_ptr<QTemporaryDir> place_;
  std::filesystem::path folder() const { return place_->path().toStdString(); }

  // With " in place of ': moc does not read raw strings.
  static std::string json(std::string text) {
    std::replace(text.begin(), text.end(), '\'', '"');
    return text;
  }

  static qb::RunEvent line(const std::string& text) {
    qb::RunEvent event;
    event.text = text;
    return event;
  }

 private Q_SLOTS:
  void init() { place_ = std::make_unique<QTemporaryDir>(); }
  void what_is_written_is_read() {
    qb::RunEventWriter writer(folder());
    qb::RunEventReader reader(folder(), qb::RunEventReader::From::this_session);
    qb::RunEvent begin, estimate, end;
    begin.kind = Kind::begin;
    begin.owner = {4711, "a host"};
    writer.write(begin);
    qb::Progress progress;
    progress.phase = "quantize";
    progress.stage = "gptq";
    progress.linear = "mlp.up_proj";
    progress.block = 0;
    progress.blocks = 30;
    progress.fraction = 0.25;
    progress.eta_s = 12.5;
    progress.rss_bytes = int64_t{5} << 33;
    writer.progress(progress);
    estimate.kind = Kind::estimate;
    estimate.estimate.corpus = "w\xff.txt";  // not UTF-8
    estimate.estimate.put({"perplexity", std::numeric_limits<double>::infinity()});
    writer.write(estimate);
    writer.write(line("two\nlines \"quoted\""));
    end.kind = Kind::end;
    end.status = qb::RunStatus::failed;
    end.error = qb::ErrorKind::resource;
    end.text = "no space";
    writer.write(end);
    const auto events = reader.take();
    QCOMPARE(events.size(), size_t{5});
    QVERIFY((events[0].owner == qb::RunOwner{4711, "a host"}));
    QVERIFY(events[0].time > 1.7e9);
    QCOMPARE(events[1].progress.linear, progress.linear);
    QCOMPARE(events[1].progress.block, 0);
    QCOMPARE(events[1].progress.eta_s, 12.5);
    QCOMPARE(events[1].progress.rss_bytes, progress.rss_bytes);
    QVERIFY(std::isinf(events[2].estimate.value("perplexity")));
    QCOMPARE(events[3].text, std::string("two\nlines \"quoted\""));
    QVERIFY(events[4].kind == Kind::end && events[4].status == qb::RunStatus::failed && events[4].error == qb::ErrorKind::resource);
    QVERIFY(reader.take().empty());
  }
  void a_new_session_takes_the_place_of_an_old_one() {
    auto first = std::make_unique<qb::RunEventWriter>(folder());
    first->write(line("old"));
    qb::RunEventReader follower(folder(), qb::RunEventReader::From::this_session), next(folder(), qb::RunEventReader::From::next_session);
    first->write(line("last"));
    qb::RunEventWriter second(folder());
    second.write(line("new"));
    first->write(line("too late"));  // of who has lost the run: the follower still has its file open
    const auto all = follower.take();
    QCOMPARE(all.size(), size_t{4});
    QCOMPARE(all[0].text + all[1].text + all[3].text, std::string("oldlastnew"));
    const auto later = next.take();
    QCOMPARE(later.back().text, std::string("new"));
    QVERIFY(std::none_of(later.begin(), later.end(), [](const qb::RunEvent& event) { return event.text == "old"; }));
  }
  void half_a_line_is_left_and_a_torn_one_is_skipped() {
    { qb::RunEventWriter writer(folder()); }
    std::ofstream file(folder() / "events.jsonl", std::ios::app);
    qb::RunEventReader reader(folder(), qb::RunEventReader::From::this_session);
    file << json("{'event':'log','time':1,'te") << std::flush;
    QVERIFY(reader.take().empty());
    file << json("xt':'whole'}") << "\n" << json("{'event':'log','ti") << "\n" << json("{'event':'of a later version','time':1}") << "\n" << json("{'event':'log','time':1,'text':'next'}") << "\n" << std::flush;
    const auto events = reader.take();
    QCOMPARE(events.size(), size_t{2});
    QCOMPARE(events[0].text + events[1].text, std::string("wholenext"));
  }
  void progress_is_thinned_but_the_last_is_told() {
    qb::RunEventWriter writer(folder());
    for (int i = 0; i <= 1000; ++i) {
      qb::Progress progress;
      progress.phase = i < 500 ? "quantize" : "evaluate";
      progress.fraction = i / 1000.0;
      writer.progress(progress);
    }
    const auto events = qb::RunEventReader(folder(), qb::RunEventReader::From::this_session).take();
    QVERIFY(events.size() >= 3 && events.size() < 50);
    QCOMPARE(events.back().progress.fraction, 1.0);
  }
  void a_request_is_kept_and_a_damaged_one_is_told() {
    QVERIFY(!qb::load_request(folder()));
    const qb::RunRequest request{qb::Wish::hold, "cuda:1", 3, 1.25, "12_3", 2};
    qb::save_request(folder(), request);
    QVERIFY(qb::load_request(folder()) == request);
    qb::RequestWatch watch(folder());
    QVERIFY(watch.look() == request);
    for (qb::Wish wish : {qb::Wish::run, qb::Wish::stop_soon, qb::Wish::stop, qb::Wish::hold}) {
      qb::wish(folder(), wish);
      QVERIFY(watch.look() && watch.look()->wish == wish && watch.look()->device == "cuda:1");
    }
    for (const auto& [text, part] : {std::pair<std::string, std::string>{"{", "not a JSON object"}, {json("{'wish': 'fly'}"), "wish: found \"fly\""}, {json("{'wish': 'run', 'priority': 'x'}"), "priority"}}) {
      std::ofstream(folder() / "request.json", std::ios::trunc) << text;
      try {
        qb::load_request(folder());
        QFAIL("a damaged request was read");
      } catch (const qb::InputError& e) {
        QVERIFY(QString(e.what()).contains(QString::fromStdString((folder() / "request.json").string())) && QString(e.what()).contains(QString::fromStdString(part)));
      }
    }
    QVERIFY(watch.look() == request);  // what was known holds until somebody makes the file good
    qb::drop_request(folder());
    QVERIFY(!watch.look() && !qb::load_request(folder()));
  }
};

QTEST_GUILESS_MAIN(TestRunEvents)
#include "test_run_events.moc"
