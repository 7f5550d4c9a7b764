#include "core/store/run_index.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>
#include <sqlite3.h>
#include <unistd.h>

#include <cctype>
#include <chrono>
#include <system_error>

namespace qb {
namespace {

namespace fs = std::filesystem;

constexpr int kVersion = 2;  // 1 lay in workspace/index.db, for all hosts
constexpr auto kForgotten = std::chrono::days(30);
constexpr int kPatience = 2000;  // ms for another process of this host
constexpr const char* kSchema =
    "CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, stamp INTEGER NOT NULL, report TEXT NOT NULL, name TEXT NOT NULL, tags TEXT NOT NULL, notes TEXT NOT NULL, "
    "damage TEXT NOT NULL) WITHOUT ROWID";

std::string host_name() {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') return "host";
  std::string host = name;
  for (char& c : host)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '-') c = '_';
  return host;
}

// Of hosts that are gone: containers have a new name each time. One that is still in use is made again.
void remove_forgotten(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("index-") || (!name.ends_with(".db") && !name.ends_with(".db-journal"))) continue;
    if (fs::file_time_type::clock::now() - entry.last_write_time(error) > kForgotten && !error) fs::remove(entry.path(), error);
  }
}

}  // namespace

struct RunIndex::Database {
  explicit Database(const fs::path& path) : db(path.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, kPatience) {
    // A rollback journal rather than WAL: it needs no shared memory, which network file systems do not always give. What a
    // power failure may take is made again, so that nothing has to wait for the disk.
    db.exec("PRAGMA journal_mode = TRUNCATE");
    db.exec("PRAGMA synchronous = OFF");
    if (db.execAndGet("PRAGMA quick_check").getString() != "ok") throw SQLite::Exception("damaged", SQLITE_CORRUPT);
    const int version = db.execAndGet("PRAGMA user_version").getInt();
    if (version != 0 && version != kVersion) throw SQLite::Exception("of another version", SQLITE_CORRUPT);
    if (version == kVersion) return;
    db.exec(kSchema);
    db.exec(fmt::format("PRAGMA user_version = {}", kVersion));
  }
  SQLite::Database db;
};

fs::path RunIndex::file(const fs::path& workspace) { return workspace / "cache" / fmt::format("index-{}.db", host_name()); }

RunIndex::RunIndex(const fs::path& workspace) {
  const fs::path path = file(workspace);
  attempt([&] {
    fs::create_directories(path.parent_path());
    if (!fs::exists(path)) remove_forgotten(path.parent_path());
    try {
      database_ = std::make_unique<Database>(path);
    } catch (const SQLite::Exception& e) {
      if (e.getErrorCode() != SQLITE_CORRUPT && e.getErrorCode() != SQLITE_NOTADB) throw;
      for (const char* suffix : {"", "-journal"}) fs::remove(path.string() + suffix);
      database_ = std::make_unique<Database>(path);
    }
  });
}

RunIndex::~RunIndex() = default;

bool RunIndex::kept() const { return database_ != nullptr; }

template <class F>
void RunIndex::attempt(F action) {
  try {
    action();
  } catch (const SQLite::Exception& e) {
    disk_full_ = disk_full_ || e.getErrorCode() == SQLITE_FULL;
    database_.reset();
  } catch (const fs::filesystem_error& e) {
    disk_full_ = disk_full_ || e.code() == std::errc::no_space_on_device;
    database_.reset();
  }
}

std::map<std::string, IndexedRun> RunIndex::read() {
  std::map<std::string, IndexedRun> runs;
  if (!database_) return runs;
  attempt([&] {
    SQLite::Statement query(database_->db, "SELECT id, stamp, report, name, tags, notes, damage FROM runs ORDER BY id");
    while (query.executeStep()) {
      const auto text = [&](int column) { return query.getColumn(column).getString(); };
      runs.emplace_hint(runs.end(), text(0), IndexedRun{query.getColumn(1).getInt64(), text(2), text(3), text(4), text(5), text(6)});
    }
  });
  return runs;
}

void RunIndex::put(const std::vector<std::pair<std::string, IndexedRun>>& runs) {
  if (!database_ || runs.empty()) return;
  attempt([&] {
    SQLite::Transaction transaction(database_->db);
    SQLite::Statement statement(database_->db, "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)");
    for (const auto& [id, run] : runs) {
      statement.bind(1, id);
      statement.bind(2, run.stamp);
      int column = 3;
      for (const std::string* text : {&run.report, &run.name, &run.tags, &run.notes, &run.damage}) statement.bind(column++, *text);
      statement.exec();
      statement.reset();
    }
    transaction.commit();
  });
}

void RunIndex::remove(const std::vector<std::string>& ids) {
  if (!database_ || ids.empty()) return;
  attempt([&] {
    SQLite::Transaction transaction(database_->db);
    SQLite::Statement statement(database_->db, "DELETE FROM runs WHERE id = ?");
    for (const std::string& id : ids) {
      statement.bind(1, id);
      statement.exec();
      statement.reset();
    }
    transaction.commit();
  });
}

}  // namespace qb
