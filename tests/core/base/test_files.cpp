#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <csignal>
#include <filesystem>
#include <set>
#include <sys/resource.h>
#include <sys/stat.h>

#include "core/base/atomic_writer.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/utf8.h"
#include "core/format/safetensors.h"

namespace fs = std::filesystem;

class TestFiles : public QObject {
  Q_OBJECT
  QTemporaryDir folder_;
  fs::path folder() const { return folder_.path().toStdString(); }
  fs::path path() const { return folder() / "file.bin"; }
  size_t files_here() const { return static_cast<size_t>(std::distance(fs::directory_iterator(folder()), fs::directory_iterator())); }

  // Runs `write` while no file may grow above `bytes`, as on a full disk; the message of its ResourceError.
  template <class F>
  static std::string error_on_full_disk(rlim_t bytes, F write) {
    auto* const previous = std::signal(SIGXFSZ, SIG_IGN);
    rlimit old{};
    getrlimit(RLIMIT_FSIZE, &old);
    const rlimit tight{bytes, old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &tight);
    std::string message;
    try {
      write();
    } catch (const qb::ResourceError& error) {
      message = error.what();
    }
    setrlimit(RLIMIT_FSIZE, &old);
    std::signal(SIGXFSZ, previous);
    return message;
  }

 private Q_SLOTS:
  void init() {
    for (const auto& entry : fs::directory_iterator(folder())) fs::remove_all(entry.path());
  }

  void a_written_file_replaces_the_old_one_whole() {
    qb::write_atomically(path(), "old");
    {
      qb::AtomicWriter writer(path());
      writer.write(std::string_view("ne"));
      QCOMPARE(qb::read_text(path()), std::string("old"));
      writer.write(std::string_view("w"));
      writer.commit();
    }
    QCOMPARE(qb::read_text(path()), std::string("new"));
    QCOMPARE(files_here(), size_t{1});
  }

  void without_commit_nothing_changes() {
    qb::write_atomically(path(), "old");
    { qb::AtomicWriter(path()).write(std::string_view("new")); }
    QCOMPARE(qb::read_text(path()), std::string("old"));
    QCOMPARE(files_here(), size_t{1});
  }

  void a_full_disk_leaves_the_old_file() {
    qb::write_atomically(path(), "old");
    const auto text_error = error_on_full_disk(4096, [&] { qb::write_atomically(path(), std::string(100000, 'x')); });
    QVERIFY2(text_error.find(path().string() + ": cannot write: ") == 0, text_error.c_str());
    const auto tensor_error = error_on_full_disk(4096, [&] { qb::write_safetensors(path(), {{"x", at::zeros({10000})}}); });
    QVERIFY2(tensor_error.find(path().string() + ": cannot write: ") == 0, tensor_error.c_str());
    QCOMPARE(qb::read_text(path()), std::string("old"));
    QCOMPARE(files_here(), size_t{1});
  }

  void where_nothing_can_be_written_the_path_is_named() {
    for (const fs::path& bad : {folder() / "absent" / "file.bin", folder() / std::string(300, 'n')}) {
      try {
        qb::write_atomically(bad, "x");
        QFAIL("written");
      } catch (const qb::ResourceError& error) {
        QVERIFY(std::string(error.what()).find(bad.string()) == 0);
      }
    }
    fs::create_directories(path() / "inside");  // a folder stands where the file should
    QVERIFY_EXCEPTION_THROWN(qb::write_atomically(path(), "x"), qb::ResourceError);
    QCOMPARE(files_here(), size_t{1});
  }

  void what_is_not_a_file_is_refused_at_once() {
    QVERIFY_EXCEPTION_THROWN(qb::MappedFile::open(folder()), qb::InputError);
    QVERIFY_EXCEPTION_THROWN(qb::read_text(folder()), qb::InputError);
    QVERIFY_EXCEPTION_THROWN(qb::MappedFile::open(path()), qb::InputError);
    QCOMPARE(::mkfifo(path().c_str(), 0600), 0);
    QVERIFY_EXCEPTION_THROWN(qb::MappedFile::open(path()), qb::InputError);  // a pipe nobody writes to must not block
  }

  void a_range_beyond_the_end_is_refused() {
    qb::write_atomically(path(), "12345678");
    const auto file = qb::MappedFile::open(path());
    QCOMPARE(file->bytes(2, 6, "all").size(), size_t{6});
    QCOMPARE(file->bytes(8, 0, "nothing").size(), size_t{0});
    for (auto [offset, length] : {std::pair<uint64_t, uint64_t>{2, 7}, {9, 0}, {UINT64_MAX, 2}, {2, UINT64_MAX}})
      QVERIFY_EXCEPTION_THROWN(file->bytes(offset, length, "the header"), qb::InputError);
    qb::write_atomically(path(), "");
    QCOMPARE(qb::MappedFile::open(path())->size(), uint64_t{0});
    QCOMPARE(qb::read_text(path()), std::string());
  }

  void a_map_keeps_a_replaced_file() {
    qb::write_atomically(path(), "before");
    const auto file = qb::MappedFile::open(path());
    qb::write_atomically(path(), "after!");
    QCOMPARE(static_cast<char>(file->bytes()[0]), 'b');
  }

  void a_text_above_the_limit_is_refused() {
    qb::write_atomically(path(), "12345");
    QCOMPARE(qb::read_text(path(), 5), std::string("12345"));
    QVERIFY_EXCEPTION_THROWN(qb::read_text(path(), 4), qb::InputError);
  }

  void hashes_tell_contents_apart() {
    const auto hash = [](auto... parts) {
      qb::Hasher hasher;
      (hasher.update(parts), ...);
      return hasher.hex();
    };
    using namespace std::string_view_literals;
    QCOMPARE(hash("abc"sv), hash("abc"sv));
    QCOMPARE(hash(), std::string("2d06800538d394c2"));  // XXH3_64bits of nothing, as xxHash's own tests have it
    qb::Hasher parts;  // where a call ends does not matter
    for (char c : "abc"sv) parts.update(std::as_bytes(std::span(&c, 1)));
    qb::Hasher whole;
    whole.update(std::as_bytes(std::span("abc"sv)));
    QCOMPARE(parts.hex(), whole.hex());
    std::set<std::string> hashes;
    for (const auto& h : {hash(), hash(""sv), hash("abc"sv), hash("abd"sv), hash("ab"sv, "c"sv), hash("a"sv, "bc"sv), hash("\0"sv), hash("\0\0"sv),
                          hash(int64_t{0}), hash(int64_t{1}), hash(int64_t{1}, int64_t{0}), hash(int64_t{0}, int64_t{1})})
      QVERIFY(hashes.insert(h).second);
  }

  void utf8_is_what_unicode_says() {
    using namespace std::string_view_literals;
    for (auto good : {""sv, "abc"sv, "\0"sv, "\xC2\x80"sv, "\xE0\xA0\x80"sv, "\xED\x9F\xBF"sv, "\xEF\xBF\xBF"sv, "\xF0\x90\x80\x80"sv, "\xF4\x8F\xBF\xBF"sv})
      QVERIFY2(qb::is_utf8(good), qb::printable(good).c_str());
    for (auto bad : {"\x80"sv, "\xC0\x80"sv, "\xC1\xBF"sv, "\xC2"sv, "\xC2z"sv, "\xE0\x9F\xBF"sv, "\xED\xA0\x80"sv, "\xE1\x80"sv, "\xF0\x8F\xBF\xBF"sv,
                     "\xF4\x90\x80\x80"sv, "\xF5\x80\x80\x80"sv, "\xF1\x80\x80"sv, "ok\xFF"sv})
      QVERIFY2(!qb::is_utf8(bad), qb::printable(bad).c_str());
  }

  void a_message_stays_on_its_line() {
    QCOMPARE(qb::quoted("a\n\x7f\xff é"), std::string("\"a\\x0a\\x7f\\xff é\""));
    QCOMPARE(qb::printable("abcdef", 3), std::string("abc…"));
  }
};

QTEST_GUILESS_MAIN(TestFiles)
#include "test_files.moc"
