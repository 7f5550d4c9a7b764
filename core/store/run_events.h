#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include "core/base/control.h"
#include "core/measure/report.h"
#include "core/store/run_lock.h"

namespace qb {

// What happened to a run at work.
struct RunEvent {
  enum class Kind { begin, waiting, progress, block, estimate, log, paused, resumed, end };
  Kind kind = Kind::log;
  double time = 0;            // seconds since 1970
  RunOwner owner;             // begin
  Progress progress;          // progress
  int block = -1;             // block: whose report is written
  EvaluationResult estimate;  // estimate: running figure of an evaluation
  std::string text;           // waiting: for what; log: the line; end: the error, where it failed
  RunStatus status = RunStatus::finished;     // end
  ErrorKind error = ErrorKind::internal;      // end, of a run that failed
};

// Appends to "events.jsonl" of a run folder, a line an event: whoever is interested follows them, in any process on any machine that sees
// the folder. Each session begins a new file. Thread-safe. Never throws: on a full disk events are lost, and what the run itself
// writes says so.
class RunEventWriter {
 public:
  explicit RunEventWriter(const std::filesystem::path& run_folder);
  ~RunEventWriter();
  RunEventWriter(const RunEventWriter&) = delete;
  RunEventWriter& operator=(const RunEventWriter&) = delete;

  void write(const RunEvent& event);
  // At most a few times a second, and later once a second: the file of a long run stays small.
  void progress(const Progress& progress);

 private:
  void append(const std::string& text);

  std::mutex mutex_;
  int fd_ = -1;
  bool torn_ = false;  // the last line was not written whole
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), told_{};
  std::string phase_;
};

// Follows a run's events. A line that is still being written is left for the next time, a torn one is skipped.
class RunEventReader {
 public:
  enum class From { this_session, next_session };  // the events file that is there now, or the one that will take its place
  RunEventReader(std::filesystem::path run_folder, From from);
  ~RunEventReader();
  RunEventReader(const RunEventReader&) = delete;
  RunEventReader& operator=(const RunEventReader&) = delete;

  // What came since the last time, in order; of a new session too.
  std::vector<RunEvent> take();

 private:
  bool open_next();

  std::filesystem::path path_;
  int fd_ = -1;
  uint64_t file_ = 0;  // its number, so that a new one is noticed
  std::string rest_;
};

}  // namespace qb
