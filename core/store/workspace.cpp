#include "core/store/workspace.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/measure/report_json.h"

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

// "PID START": a number of a process alone can be another's by now, its start time in clock ticks cannot.
std::string process_identity(long pid) {
  std::ifstream stat(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(stat, text);
  // Fields count from behind the command's closing parenthesis, since a command may hold spaces.
  const size_t close = text.rfind(')');
  if (close == std::string::npos) return {};
  size_t at = close + 1;
  for (int field = 0; field < 20 && at != std::string::npos; ++field) at = text.find(' ', at + 1);
  if (at == std::string::npos) return {};
  return fmt::format("{} {}", pid, text.substr(text.rfind(' ', at - 1) + 1, at - text.rfind(' ', at - 1) - 1));
}

bool alive(const std::string& identity) {
  long pid = 0;
  try {
    pid = std::stol(identity);
  } catch (const std::exception&) {
    return false;
  }
  return process_identity(pid) == identity;
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

constexpr const char* kSchema = R"(
  CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, written INTEGER NOT NULL, report TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS perplexities (key TEXT PRIMARY KEY, report TEXT NOT NULL);
  PRAGMA user_version = 1;
)";

class FolderWorkspace final : public Workspace {
 public:
  explicit FolderWorkspace(const fs::path& folder) : folder_(fs::absolute(folder).lexically_normal()) {
    guarded(folder_, [&] {
      fs::create_directories(folder_ / "runs");
      open_index();
      return 0;
    });
    reclaim();
  }

  const fs::path& folder() const override { return folder_; }
  fs::path run_folder(const std::string& id) const override { return folder_ / "runs" / id; }

  std::string create_run(const Recipe& recipe) override {
    return guarded(folder_, [&] {
      const std::time_t now = std::time(nullptr);
      std::tm utc{};
      ::gmtime_r(&now, &utc);
      const std::string stem = fmt::format("{:%Y%m%d-%H%M%S}-{}", utc, slug(recipe.name));
      std::string id = stem;
      // create_directory tells who was first, also across processes.
      for (int n = 2; !fs::create_directory(run_folder(id)); ++n) id = fmt::format("{}-{}", stem, n);
      write_atomically(run_folder(id) / "recipe.yaml", to_yaml(recipe));
      RunReport report;
      report.id = id;
      report.name = recipe.name.empty() ? id : recipe.name;
      report.model_path = recipe.model.string();
      report.model_name = recipe.model.filename().string();
      report.scheme = describe(recipe.scheme);
      report.seed = recipe.seed;
      report.recipe_hash = recipe_hash(recipe);
      for (const StageSpec& stage : recipe.pipeline) report.pipeline += (report.pipeline.empty() ? "" : " → ") + stage.method;
      if (report.pipeline.empty()) report.pipeline = "rtn";
      save(report);
      return id;
    });
  }

  std::vector<RunReport> list() const override {
    return guarded(folder_, [&] {
      const std::scoped_lock lock(mutex_);
      refresh();
      std::vector<RunReport> runs;
      SQLite::Statement query(*index_, "SELECT report FROM runs ORDER BY id DESC");
      while (query.executeStep()) runs.push_back(run_report_from_json(query.getColumn(0).getString(), index_path().string()));
      return runs;
    });
  }

  RunReport load(const std::string& id) const override {
    const fs::path path = report_path(id);
    if (!fs::exists(path)) throw InputError(fmt::format("{}: there is no run \"{}\"", folder_.string(), id));
    return run_report_from_json(read_text(path), path.string());
  }

  Recipe recipe(const std::string& id) const override { return load_recipe(run_folder(id) / "recipe.yaml"); }

  void save(const RunReport& report) override {
    guarded(run_folder(report.id), [&] {
      write_atomically(report_path(report.id), to_json(report));
      if (report.status == RunStatus::running)
        write_atomically(run_folder(report.id) / "owner", process_identity(::getpid()));
      else
        fs::remove(run_folder(report.id) / "owner");
      const std::scoped_lock lock(mutex_);
      put(report);
      return 0;
    });
  }

  void remove(const std::string& id) override {
    if (id.empty() || fs::path(id).filename() != id || !fs::exists(run_folder(id)))
      throw InputError(fmt::format("{}: there is no run \"{}\"", folder_.string(), id));
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
    RunReport report = load(id);
    report.name = name;
    save(report);
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
  fs::path index_path() const { return folder_ / "index.db"; }
  fs::path report_path(const std::string& id) const { return run_folder(id) / "report.json"; }

  void open_index() {
    auto open = [&] {
      index_ = std::make_unique<SQLite::Database>(index_path().string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, 5000);
      index_->exec("PRAGMA journal_mode = WAL");
      if (index_->execAndGet("PRAGMA quick_check").getString() != "ok") throw SQLite::Exception("damaged", 11);
      index_->exec(kSchema);
    };
    try {
      open();
    } catch (const SQLite::Exception& e) {
      // Not a database, or a damaged one: run folders are the truth, the index is made again from them.
      if (e.getErrorCode() != 11 && e.getErrorCode() != 26) throw;
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
    std::error_code error;
    return fs::last_write_time(report_path(id), error).time_since_epoch().count();
  }

  // Brings the index up to what the run folders say: other processes write them too.
  void refresh() const {
    std::map<std::string, int64_t> indexed;
    SQLite::Statement query(*index_, "SELECT id, written FROM runs");
    while (query.executeStep()) indexed[query.getColumn(0).getString()] = query.getColumn(1).getInt64();
    for (const auto& entry : fs::directory_iterator(folder_ / "runs")) {
      if (!entry.is_directory()) continue;
      const std::string id = entry.path().filename().string();
      const auto it = indexed.find(id);
      const bool current = it != indexed.end() && it->second == written(id);
      if (it != indexed.end()) indexed.erase(it);
      if (current) continue;
      try {
        if (!fs::exists(report_path(id))) continue;  // being created
        put(load(id));
      } catch (const Error& e) {
        RunReport damaged;
        damaged.id = damaged.name = id;
        damaged.status = RunStatus::failed;
        damaged.error = e.what();
        put(damaged);
      }
    }
    for (const auto& [id, time] : indexed) {
      SQLite::Statement statement(*index_, "DELETE FROM runs WHERE id = ?");
      statement.bind(1, id);
      statement.exec();
    }
  }

  // Runs of processes that are gone were interrupted: they can be resumed.
  void reclaim() {
    for (RunReport& head : list()) {
      if (head.status != RunStatus::running && head.status != RunStatus::paused && head.status != RunStatus::queued) continue;
      const fs::path owner = run_folder(head.id) / "owner";
      if (head.status != RunStatus::queued && fs::exists(owner) && alive(read_text(owner))) continue;
      if (head.status == RunStatus::queued) continue;
      RunReport report = load(head.id);
      report.status = RunStatus::cancelled;
      report.error = "the program ended before the run did; it can be resumed";
      save(report);
    }
  }

  fs::path folder_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<SQLite::Database> index_;
};

}  // namespace

std::shared_ptr<Workspace> Workspace::open(const fs::path& folder) { return std::make_shared<FolderWorkspace>(folder); }

}  // namespace qb
