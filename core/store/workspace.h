#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/measure/report.h"
#include "core/recipe/recipe.h"
#include "core/store/run_lock.h"

namespace qb {

// The report of one block of a run, written as soon as the block is durable.
std::filesystem::path block_report_path(const std::filesystem::path& run_folder, int block);
// Of the embedding or the head ("embed_tokens"): a BlockReport of that one matrix.
std::filesystem::path vocabulary_report_path(const std::filesystem::path& run_folder, const std::string& name);
// Where a workspace keeps statistics for later runs; may be deleted at any time.
std::filesystem::path statistics_cache_path(const std::filesystem::path& workspace);

// A folder of runs: runs/<id>/{recipe.yaml, report.json, blocks/, log.txt}, what their user says of them (name, tags, notes: files
// that any process may write and no run does), and a cache folder. Each host keeps an index of the runs for itself, which is made
// again where it is missing, damaged or behind (store/run_index.h). A damaged run is listed as failed with what is wrong. Several
// processes may open one workspace. Thread-safe. Torch-free. File system failures are ResourceErrors that name the path.
class Workspace {
 public:
  enum class Absent { create, refuse };
  using Reading = std::function<void(int done, int all)>;  // run folders, while the index is brought up to them
  // Creates the folder when absent, or refuses it as an InputError. Runs that were "running" in a process that is gone become
  // "interrupted" (resumable). A workspace that cannot be written (permissions, a full disk) is opened for reading.
  static std::shared_ptr<Workspace> open(const std::filesystem::path& folder, Absent absent = Absent::create, const Reading& reading = {});
  virtual ~Workspace() = default;

  virtual const std::filesystem::path& folder() const = 0;
  virtual bool writable() const = 0;
  virtual std::string create_run(const Recipe& recipe, const std::string& sweep = {}) = 0;  // returns its id; status queued
  virtual std::filesystem::path run_folder(const std::string& id) const = 0;
  virtual std::vector<RunReport> list() const = 0;            // without blocks and vocabulary, newest first
  // Every run with a number that changes when its report, name, tags, notes, blocks or request do, whoever writes them. Reads no file.
  virtual std::map<std::string, int64_t> stamps() const = 0;
  virtual std::optional<RunOwner> owner(const std::string& id) const = 0;  // who carries it out now, this process or another
  // A run that says it is at work while nobody carries it out is given as interrupted, here and in list().
  virtual RunReport load(const std::string& id) const = 0;    // whole, with blocks written so far; InputError when absent or damaged
  virtual Recipe recipe(const std::string& id) const = 0;
  virtual void save(const RunReport& report) = 0;             // durable; a name given by rename() stays
  virtual void remove(const std::string& id) = 0;             // deletes the folder; InputError while it is being carried out
  virtual void rename(const std::string& id, const std::string& name) = 0;
  virtual void set_tags(const std::string& id, const std::vector<std::string>& tags) = 0;  // each once, in order; none: all are gone
  virtual void set_notes(const std::string& id, const std::string& notes) = 0;
  // Perplexity of a float model, measured once per (model, corpus, seq_len, windows, dtype) for all hosts.
  virtual std::optional<EvaluationResult> cached_evaluation(const std::string& key) const = 0;
  virtual void cache_evaluation(const std::string& key, const EvaluationResult& result) = 0;
};

}  // namespace qb
