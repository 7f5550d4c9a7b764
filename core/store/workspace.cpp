#include "core/store/workspace.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sqlite3.h>

#include <atomic>
#include <chrono>
#include <limits>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/atomic_writer.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/measure/report_json.h"
#include "core/store/run_lock.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

std::string slug(const std::string& name) {
  std::string out;
  for (const char c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)))
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    else if (!out.empty() && out.back() != '-')
      out += '-';
    if (out.size() >= 40) break;
  }
  while (!out.empty() && out.back() == '-') out.pop_back();
  return out.empty() ? "run" : out;
}

// Failures of the file system in our words.
template <class F>
auto guarded(const fs::path& path, F action) {
  try {
    return action();
  } catch (const fs::filesystem_error& e) {
    throw ResourceError(fmt::format("{}: {}", path.string(), e.code().message()));
  } catch (const SQLite::Exception& e) {
    throw ResourceError(fmt::format("{}: {}", path.string(), e.what()));
  }
}

constexpr int kSchemaVersion = 1;
constexpr const char* kSchema = R"(
  CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, written INTEGER NOT NULL, report TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS perplexities (key TEXT PRIMARY KEY, report TEXT NOT NULL);
)";

class FolderWorkspace final : public Workspace {
 public:
  FolderWorkspace(const fs::path& folder, Absent absent, const Reading& reading) : folder_(fs::absolute(folder).lexically_normal()) {
    guarded(folder_, [&] {
      std::error_code error;
      if (absent == Absent::refuse && !fs::is_directory(folder_ / "runs", error)) throw InputError(fmt::format("{}: there is no workspace: {}", folder_.string(), fs::exists(folder_) ? "it has no folder \"runs\"" : "no such folder"));
      fs::create_directories(folder_ / "runs");
      try {
        open_index();
        {
          const std::scoped_lock lock(mutex_);
          refresh(reading);
        }
        reclaim();
      } catch (const SQLite::Exception& e) {
        if (!refuses_writing(e.getErrorCode())) throw;
        keep_index_in_memory();
      } catch (const ResourceError&) {
        keep_index_in_memory();  // the index could be written, a run could not
      }
      return 0;
    });
  }

  const fs::path& folder() const override { return folder_; }
  bool writable() const override { return writable_; }
  fs::path run_folder(const std::string& id) const override { return folder_ / "runs" / id; }

  std::string create_run(const Recipe& recipe, const std::string& sweep) override {
    return guarded(folder_, [&] {
      const std::time_t now = std::time(nullptr);
      std::tm utc{};
      ::gmtime_r(&now, &utc);
      const std::string stem = fmt::format("{:%Y%m%d-%H%M%S}-{}", utc, slug(recipe.name));
      std::string id = stem;
      // create_directory tells who was first, also across processes.
      for (int n = 2; !fs::create_directory(run_folder(id)); ++n) id = fmt::format("{}-{}", stem, n);
      write_atomically(run_folder(id) / "recipe.yaml", to_yaml(recipe));
      RunReport report;  // written last: until then other processes take the folder for one being made
      report.id = id;
      report.name = recipe.name.empty() ? id : recipe.name;
      report.model_path = recipe.model.string();
      report.model_name = recipe.model.filename().string();
      report.scheme = describe(recipe.scheme);
      report.seed = recipe.seed;
      report.sweep = sweep;
      report.recipe_hash = recipe_hash(recipe);
      report.style = free_style(report);
      for (const StageSpec& stage : recipe.pipeline) report.pipeline += (report.pipeline.empty() ? "" : " → ") + stage.method;
      if (report.pipeline.empty()) report.pipeline = recipe.checkpoint.empty() ? "rtn" : "imported";
      save(report);
      return id;
    });
  }

  std::vector<RunReport> list() const override {
    std::vector<RunReport> runs = recorded();
    for (RunReport& run : runs)
      if (interrupted(run)) end(run);
    return runs;
  }

  std::map<std::string, int64_t> stamps() const override {
    return guarded(folder_, [&] {
      std::map<std::string, int64_t> stamps;
      for (const auto& entry : fs::directory_iterator(folder_ / "runs")) {
        const std::string id = entry.path().filename().string();
        if (!entry.is_directory() || being_made(entry)) continue;
        uint64_t stamp = 0;
        for (const fs::path& path : {report_path(id), name_path(id), run_folder(id) / "blocks"}) {
          std::error_code error;
          const auto time = fs::last_write_time(path, error);
          stamp = stamp * 1000003 + (error ? 0 : static_cast<uint64_t>(time.time_since_epoch().count()));
        }
        stamps[id] = static_cast<int64_t>(stamp);
      }
      return stamps;
    });
  }

  std::optional<RunOwner> owner(const std::string& id) const override { return RunLock::owner(run_folder(id)); }

  RunReport load(const std::string& id) const override {
    require_run(id);
    RunReport report = load_report(id);
    if (at_work(report) && !RunLock::held(run_folder(id))) report = load_report(id);  // it may have finished since it was read
    if (interrupted(report)) end(report);
    add_written_blocks(report);
    return report;
  }

  Recipe recipe(const std::string& id) const override {
    require_run(id);
    return load_recipe(run_folder(id) / "recipe.yaml");
  }

  void save(const RunReport& report) override {
    require_run(report.id);
    guarded(run_folder(report.id), [&] {
      const std::scoped_lock lock(mutex_);
      // A name given while the run works must outlive the next save of who works on it.
      RunReport named = report;
      named.name = name_of(report.id).value_or(report.name);
      write_atomically(report_path(report.id), to_json(named));
      put(named);
      return 0;
    });
  }

  void remove(const std::string& id) override {
    require_run(id);
    if (RunLock::held(run_folder(id))) throw InputError(fmt::format("{}: the run is being carried out; cancel it first", run_folder(id).string()));
    guarded(run_folder(id), [&] {
      fs::remove_all(run_folder(id));
      const std::scoped_lock lock(mutex_);
      SQLite::Statement statement(*index_, "DELETE FROM runs WHERE id = ?");
      statement.bind(1, id);
      statement.exec();
      return 0;
    });
  }

  void rename(const std::string& id, const std::string& name) override {
    require_run(id);
    guarded(run_folder(id), [&] {
      const std::scoped_lock lock(mutex_);
      write_atomically(name_path(id), name);
      put(load_report(id));
      return 0;
    });
  }

  std::optional<PerplexityResult> cached_perplexity(const std::string& key) const override {
    return guarded(folder_, [&]() -> std::optional<PerplexityResult> {
      const std::scoped_lock lock(mutex_);
      SQLite::Statement query(*index_, "SELECT report FROM perplexities WHERE key = ?");
      query.bind(1, key);
      if (!query.executeStep()) return std::nullopt;
      const RunReport holder = run_report_from_json(query.getColumn(0).getString(), index_path().string());
      return holder.perplexities.empty() ? std::nullopt : std::optional(holder.perplexities.front());
    });
  }

  void cache_perplexity(const std::string& key, const PerplexityResult& result) override {
    guarded(folder_, [&] {
      RunReport holder;  // reports know how to be stored
      holder.perplexities = {result};
      const std::scoped_lock lock(mutex_);
      SQLite::Statement statement(*index_, "INSERT OR REPLACE INTO perplexities VALUES (?, ?)");
      statement.bind(1, key);
      statement.bind(2, to_json(holder));
      statement.exec();
      return 0;
    });
  }

 private:
  // What the reports say, also of runs whose process is gone.
  std::vector<RunReport> recorded() const {
    return guarded(folder_, [&] {
      const std::scoped_lock lock(mutex_);
      try {
        refresh();
      } catch (const SQLite::Exception& e) {
        if (!refuses_writing(e.getErrorCode())) throw;
        keep_index_in_memory();  // the disk filled up, or became one for reading
        refresh();
      }
      std::vector<RunReport> runs;
      SQLite::Statement query(*index_, "SELECT id, report FROM runs ORDER BY id DESC");
      while (query.executeStep()) {
        const std::string id = query.getColumn(0).getString();
        try {
          runs.push_back(run_report_from_json(query.getColumn(1).getString(), index_path().string()));
        } catch (const InputError&) {
          runs.push_back(head_of(id));  // a row of an older program
        }
      }
      return runs;
    });
  }

  fs::path index_path() const { return folder_ / "index.db"; }
  fs::path report_path(const std::string& id) const { return run_folder(id) / "report.json"; }
  fs::path name_path(const std::string& id) const { return run_folder(id) / "name"; }

  // The first that no other run of the model has. A model that was moved is known by its name: nobody has read its contents yet.
  int free_style(const RunReport& report) const {
    std::set<int> taken;
    for (const RunReport& other : list())
      if (other.model_path == report.model_path || fs::path(other.model_path).filename() == report.model_name) taken.insert(other.style);
    int style = 0;
    while (taken.contains(style)) ++style;
    return style;
  }

  void require_run(const std::string& id) const {
    std::error_code error;
    if (id.empty() || id == "." || id == ".." || fs::path(id).filename() != id || !fs::is_directory(run_folder(id), error))
      throw InputError(fmt::format("{}: there is no run \"{}\"", folder_.string(), id));
  }

  // The name that rename() gave; who carries the run out never writes this file.
  std::optional<std::string> name_of(const std::string& id) const {
    if (!fs::exists(name_path(id))) return std::nullopt;
    return read_text(name_path(id), 1 << 16);
  }

  RunReport load_report(const std::string& id) const {
    RunReport report = run_report_from_json(read_text(report_path(id)), report_path(id).string());
    report.id = id;  // the folder may be a copy of another
    report.name = name_of(id).value_or(report.name);
    return report;
  }

  // Without blocks; of a damaged run, what is wrong with it.
  RunReport head_of(const std::string& id) const {
    try {
      RunReport report = load_report(id);
      report.blocks.clear();
      return report;
    } catch (const Error& e) {
      RunReport damaged;
      damaged.id = damaged.name = id;
      damaged.status = RunStatus::failed;
      damaged.error = e.what();
      return damaged;
    }
  }

  // A run that was killed wrote blocks since its report was saved last.
  void add_written_blocks(RunReport& report) const {
    if (report.status == RunStatus::finished) return;
    for (auto next = static_cast<int>(report.blocks.size());; ++next) {
      const fs::path path = block_report_path(run_folder(report.id), next);
      if (!fs::exists(path)) return;
      try {
        report.blocks.push_back(block_report_from_json(read_text(path), path.string()));
      } catch (const InputError&) {
        return;  // resuming makes it again, and says so
      }
    }
  }

  void open_index() const {
    auto open = [&] {
      index_ = std::make_unique<SQLite::Database>(index_path().string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, 5000);
      index_->exec("PRAGMA journal_mode = WAL");
      if (index_->execAndGet("PRAGMA quick_check").getString() != "ok") throw SQLite::Exception("damaged", SQLITE_CORRUPT);
      const int version = index_->execAndGet("PRAGMA user_version").getInt();
      if (version != 0 && version != kSchemaVersion) throw SQLite::Exception("of another version", SQLITE_CORRUPT);
      index_->exec(kSchema);
      if (version == 0) index_->exec(fmt::format("PRAGMA user_version = {}", kSchemaVersion));
    };
    try {
      open();
    } catch (const SQLite::Exception& e) {
      // Not a database, or a damaged one: run folders are the truth, the index is made again from them.
      if (e.getErrorCode() != SQLITE_CORRUPT && e.getErrorCode() != SQLITE_NOTADB) throw;
      index_.reset();
      for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(index_path().string() + suffix);
      open();
    }
  }

  void put(const RunReport& report) const {
    RunReport head = report;
    head.blocks.clear();
    SQLite::Statement statement(*index_, "INSERT OR REPLACE INTO runs VALUES (?, ?, ?)");
    statement.bind(1, report.id);
    statement.bind(2, written(report.id));
    statement.bind(3, to_json(head));
    statement.exec();
  }

  int64_t written(const std::string& id) const {
    int64_t latest = std::numeric_limits<int64_t>::min();
    for (const fs::path& path : {report_path(id), name_path(id)}) {
      std::error_code error;
      const auto time = fs::last_write_time(path, error);
      if (!error) latest = std::max<int64_t>(latest, time.time_since_epoch().count());
    }
    return latest;
  }

  // Brings the index up to what the run folders say: other processes write them too.
  void refresh(const Reading& reading = {}) const {
    std::map<std::string, int64_t> indexed;
    SQLite::Statement query(*index_, "SELECT id, written FROM runs");
    while (query.executeStep()) indexed[query.getColumn(0).getString()] = query.getColumn(1).getInt64();
    std::vector<std::string> behind;
    for (const auto& entry : fs::directory_iterator(folder_ / "runs")) {
      if (!entry.is_directory()) continue;
      const std::string id = entry.path().filename().string();
      const auto it = indexed.find(id);
      const bool current = it != indexed.end() && it->second == written(id);
      if (it != indexed.end()) indexed.erase(it);
      if (!current && !being_made(entry)) behind.push_back(id);
    }
    for (size_t i = 0; i < behind.size(); ++i) {
      if (reading) reading(static_cast<int>(i), static_cast<int>(behind.size()));
      put(head_of(behind[i]));
    }
    for (const auto& [id, time] : indexed) {
      SQLite::Statement statement(*index_, "DELETE FROM runs WHERE id = ?");
      statement.bind(1, id);
      statement.exec();
    }
  }

  // Its report is written last.
  bool being_made(const fs::directory_entry& run) const {
    std::error_code gone;
    return !fs::exists(report_path(run.path().filename().string()), gone) && fs::file_time_type::clock::now() - run.last_write_time(gone) < std::chrono::seconds(10);
  }

  static bool at_work(const RunReport& report) { return report.status == RunStatus::running || report.status == RunStatus::paused; }
  // Of a process that is gone.
  bool interrupted(const RunReport& report) const { return at_work(report) && !RunLock::held(run_folder(report.id)); }
  static void end(RunReport& report) {
    report.status = RunStatus::cancelled;
    report.error = "the program ended before the run did; it can be resumed";
  }

  void reclaim() {
    for (const RunReport& head : recorded()) {
      if (!interrupted(head)) continue;
      for (const fs::path& place : {run_folder(head.id), run_folder(head.id) / "blocks"}) remove_leftovers(place);
      RunReport report = load_report(head.id);
      end(report);
      save(report);
    }
  }

  static bool refuses_writing(int sqlite_error) { return sqlite_error == SQLITE_READONLY || sqlite_error == SQLITE_CANTOPEN || sqlite_error == SQLITE_FULL; }

  // The run folders say all that the index does.
  void keep_index_in_memory() const {
    writable_ = false;
    index_ = std::make_unique<SQLite::Database>(":memory:", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
    index_->exec(kSchema);
  }

  fs::path folder_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<SQLite::Database> index_;
  mutable std::atomic<bool> writable_ = true;
};

}  // namespace

fs::path vocabulary_report_path(const fs::path& run_folder, const std::string& name) { return run_folder / "blocks" / (name + ".json"); }
fs::path block_report_path(const fs::path& run_folder, int block) { return run_folder / "blocks" / fmt::format("block-{:04}.json", block); }

fs::path statistics_cache_path(const fs::path& workspace) { return workspace / "cache" / "statistics"; }

std::shared_ptr<Workspace> Workspace::open(const fs::path& folder, Absent absent, const Reading& reading) {
  return std::make_shared<FolderWorkspace>(folder, absent, reading);
}

}  // namespace qb
