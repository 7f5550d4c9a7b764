#include "core/store/workspace.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <sstream>

#include "core/base/atomic_writer.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/measure/report_head.h"
#include "core/measure/report_json.h"
#include "core/store/evaluation_cache.h"
#include "core/store/run_index.h"
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
  }
}

// Changes when a file is written or replaced, also within one tick of the file system's clock: by another inode then.
void stamp(uint64_t& sum, const fs::path& path) {
  struct stat file {};
  const bool there = ::stat(path.c_str(), &file) == 0;
  const auto time = [](const timespec& t) { return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec); };
  for (const uint64_t part : {there ? time(file.st_mtim) : 0, there ? time(file.st_ctim) : 0, there ? static_cast<uint64_t>(file.st_ino) : 0, there ? static_cast<uint64_t>(file.st_size) : 0})
    sum = (sum ^ part) * 0x9e3779b97f4a7c15u, sum ^= sum >> 29;
}

std::string trimmed(const std::string& text) {
  const size_t from = text.find_first_not_of(" \t\r\n"), to = text.find_last_not_of(" \t\r\n");
  return from == std::string::npos ? std::string() : text.substr(from, to - from + 1);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);)
    if (line = trimmed(line); !line.empty() && std::find(lines.begin(), lines.end(), line) == lines.end()) lines.push_back(line);
  return lines;
}

class FolderWorkspace final : public Workspace {
 public:
  FolderWorkspace(const fs::path& folder, Absent absent, const Reading& reading) : folder_(fs::absolute(folder).lexically_normal()) {
    guarded(folder_, [&] {
      std::error_code error;
      if (absent == Absent::refuse && !fs::is_directory(folder_ / "runs", error)) throw InputError(fmt::format("{}: there is no workspace: {}", folder_.string(), fs::exists(folder_) ? "it has no folder \"runs\"" : "no such folder"));
      fs::create_directories(folder_ / "runs");
      for (const char* file : {"index.db", "index.db-wal", "index.db-shm"}) fs::remove(folder_ / file, error);  // all hosts' one, of older programs
      index_ = std::make_unique<RunIndex>(folder_);
      {
        const std::scoped_lock lock(mutex_);
        refresh(reading);
      }
      try {
        reclaim();
      } catch (const ResourceError&) {
        refuses_writing_ = true;
      }
      return 0;
    });
  }

  const fs::path& folder() const override { return folder_; }
  bool writable() const override {
    if (refuses_writing_ || ::faccessat(AT_FDCWD, (folder_ / "runs").c_str(), W_OK, AT_EACCESS) != 0) return false;
    const std::scoped_lock lock(mutex_);
    return !index_->disk_full();
  }
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
    for (RunReport& run : runs) {
      if (!interrupted(run)) continue;
      try {
        run = load_report(run.id);  // it may have finished since it was read
      } catch (const Error&) {
        // Damaged: what was read is what is known.
      }
      if (at_work(run)) end(run);
      run.blocks.clear();
      run.vocabulary.clear();
    }
    return runs;
  }

  std::map<std::string, int64_t> stamps() const override {
    return guarded(folder_, [&] {
      std::map<std::string, int64_t> stamps;
      for (const auto& entry : fs::directory_iterator(folder_ / "runs")) {
        const std::string id = entry.path().filename().string();
        if (!entry.is_directory() || being_made(entry)) continue;
        auto sum = static_cast<uint64_t>(stamp_of(id));
        for (const char* part : {"blocks", "request.json"}) stamp(sum, run_folder(id) / part);
        stamps[id] = static_cast<int64_t>(sum);
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
      // A name given while the run works must outlive the next save of who works on it.
      const std::string given = label(report.id, "name");
      if (given.empty() || given == report.name) {
        write_atomically(report_path(report.id), to_json(report));
      } else {
        RunReport named = report;
        named.name = given;
        write_atomically(report_path(report.id), to_json(named));
      }
      return 0;
    });
  }

  void remove(const std::string& id) override {
    require_run(id);
    if (RunLock::held(run_folder(id))) throw InputError(fmt::format("{}: the run is being carried out; cancel it first", run_folder(id).string()));
    guarded(run_folder(id), [&] {
      fs::remove_all(run_folder(id));
      return 0;
    });
  }

  void rename(const std::string& id, const std::string& name) override { set_label(id, "name", name); }
  void set_tags(const std::string& id, const std::vector<std::string>& tags) override {
    // A line break inside of a tag would make two of it.
    std::vector<std::string> lines = tags;
    for (std::string& line : lines) std::replace_if(line.begin(), line.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
    set_label(id, "tags", lines.empty() ? std::string() : fmt::format("{}\n", fmt::join(lines_of(fmt::format("{}", fmt::join(lines, "\n"))), "\n")));
  }
  void set_notes(const std::string& id, const std::string& notes) override { set_label(id, "notes", notes); }

  std::optional<EvaluationResult> cached_evaluation(const std::string& key) const override { return kept_evaluation(folder_, key); }
  void cache_evaluation(const std::string& key, const EvaluationResult& result) override { keep_evaluation(folder_, key, result); }

 private:
  // What the reports say, also of runs whose process is gone.
  std::vector<RunReport> recorded() const {
    return guarded(folder_, [&] {
      const std::scoped_lock lock(mutex_);
      refresh({});
      std::vector<RunReport> runs;
      runs.reserve(known_.size());
      for (auto run = known_.rbegin(); run != known_.rend(); ++run) runs.push_back(run->second.head);
      return runs;
    });
  }

  fs::path report_path(const std::string& id) const { return run_folder(id) / "report.json"; }

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

  // What rename() and its like gave; who carries the run out never writes these files.
  std::string label(const std::string& id, const char* file) const {
    std::error_code error;
    const fs::path path = run_folder(id) / file;
    return fs::exists(path, error) ? read_text(path, 1 << 20) : std::string();
  }
  void set_label(const std::string& id, const char* file, const std::string& text) {
    require_run(id);
    guarded(run_folder(id), [&] {
      if (text.empty())
        fs::remove(run_folder(id) / file);
      else
        write_atomically(run_folder(id) / file, text);
      return 0;
    });
  }
  static void apply(RunReport& report, const std::string& id, const std::string& name, const std::string& tags, const std::string& notes) {
    report.id = id;  // the folder may be a copy of another
    if (!name.empty()) report.name = name;
    report.tags = lines_of(tags);
    report.notes = notes;
  }

  RunReport load_report(const std::string& id) const {
    RunReport report = run_report_from_json(read_text(report_path(id)), report_path(id).string());
    apply(report, id, label(id, "name"), label(id, "tags"), label(id, "notes"));
    return report;
  }

  // What the index keeps of a run. The stamp is taken first: what is written while the files are read is read the next time.
  IndexedRun read_run(const std::string& id) const {
    IndexedRun run;
    run.stamp = stamp_of(id);
    try {
      run.report = report_head(read_text(report_path(id)), report_path(id).string());
      run.name = label(id, "name");
      run.tags = label(id, "tags");
      run.notes = label(id, "notes");
    } catch (const Error& e) {
      run.damage = e.what();
    }
    return run;
  }

  // Without blocks; of a damaged run, what is wrong with it.
  RunReport head_of(const std::string& id, const IndexedRun& run) const {
    std::string damage = run.damage;
    if (damage.empty()) try {
        RunReport report = run_report_from_json(run.report, report_path(id).string());
        apply(report, id, run.name, run.tags, run.notes);
        return report;
      } catch (const Error& e) {
        damage = e.what();
      }
    RunReport damaged;
    damaged.id = damaged.name = id;
    damaged.status = RunStatus::failed;
    damaged.error = damage;
    return damaged;
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

  int64_t stamp_of(const std::string& id) const {
    uint64_t sum = 0;
    for (const char* file : {"report.json", "name", "tags", "notes"}) stamp(sum, run_folder(id) / file);
    return static_cast<int64_t>(sum);
  }

  // Brings what is known up to what the run folders say: other processes write them too.
  void refresh(const Reading& reading) const {
    if (!index_read_) {
      index_read_ = true;
      for (const auto& [id, run] : index_->read()) known_.emplace_hint(known_.end(), id, Known{run.stamp, head_of(id, run)});
    }
    std::vector<std::string> behind, gone;
    std::set<std::string> there;
    for (const auto& entry : fs::directory_iterator(folder_ / "runs")) {
      if (!entry.is_directory()) continue;
      const std::string id = entry.path().filename().string();
      const auto known = known_.find(id);
      if (known != known_.end() && known->second.stamp == stamp_of(id))
        there.insert(id);
      else if (!being_made(entry))
        behind.push_back(id), there.insert(id);
    }
    for (auto it = known_.begin(); it != known_.end();) {
      if (!there.contains(it->first)) gone.push_back(it->first);
      it = there.contains(it->first) ? std::next(it) : known_.erase(it);
    }
    index_->remove(gone);
    // A few at a time: who is killed meanwhile begins there, and nobody waits long for the index.
    constexpr size_t kAtOnce = 64;
    std::vector<std::pair<std::string, IndexedRun>> read;
    for (size_t i = 0; i < behind.size(); ++i) {
      if (reading) reading(static_cast<int>(i), static_cast<int>(behind.size()));
      read.emplace_back(behind[i], read_run(behind[i]));
      known_[behind[i]] = {read.back().second.stamp, head_of(behind[i], read.back().second)};
      if (read.size() < kAtOnce && i + 1 < behind.size()) continue;
      index_->put(read);
      read.clear();
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
    report.status = RunStatus::interrupted;
    report.error = "its process ended before the run did; it can be resumed";
  }

  void reclaim() {
    std::vector<std::string> gone;
    for (const auto& [id, run] : known_)
      if (interrupted(run.head)) gone.push_back(id);
    for (const std::string& id : gone) {
      const auto lock = RunLock::if_free(run_folder(id));
      if (!lock) continue;  // somebody goes on with it
      RunReport report = load_report(id);
      if (!at_work(report)) continue;  // it finished since it was read
      for (const fs::path& place : {run_folder(id), run_folder(id) / "blocks"}) remove_leftovers(place);
      end(report);
      save(report);
    }
  }

  struct Known {
    int64_t stamp = 0;
    RunReport head;
  };
  fs::path folder_;
  mutable std::mutex mutex_;  // of what follows
  mutable std::unique_ptr<RunIndex> index_;
  mutable std::map<std::string, Known> known_;
  mutable bool index_read_ = false;
  std::atomic<bool> refuses_writing_ = false;
};

}  // namespace

fs::path vocabulary_report_path(const fs::path& run_folder, const std::string& name) { return run_folder / "blocks" / (name + ".json"); }
fs::path block_report_path(const fs::path& run_folder, int block) { return run_folder / "blocks" / fmt::format("block-{:04}.json", block); }

fs::path statistics_cache_path(const fs::path& workspace) { return workspace / "cache" / "statistics"; }

std::shared_ptr<Workspace> Workspace::open(const fs::path& folder, Absent absent, const Reading& reading) {
  return std::make_shared<FolderWorkspace>(folder, absent, reading);
}

}  // namespace qb
