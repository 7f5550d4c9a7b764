#include "core/store/run_events.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/atomic_writer.h"
#include "core/measure/report_json.h"

namespace qb {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Kind = RunEvent::Kind;

constexpr std::pair<Kind, const char*> kKinds[] = {{Kind::begin, "begin"}, {Kind::waiting, "waiting"}, {Kind::progress, "progress"}, {Kind::block, "block"}, {Kind::estimate, "estimate"},
                                                   {Kind::log, "log"}, {Kind::paused, "paused"}, {Kind::resumed, "resumed"}, {Kind::end, "end"}};
constexpr std::pair<ErrorKind, const char*> kErrors[] = {{ErrorKind::input, "input"}, {ErrorKind::recipe, "recipe"}, {ErrorKind::resource, "resource"}, {ErrorKind::cancelled, "cancelled"},
                                                         {ErrorKind::internal, "internal"}};

// A progress is written and read by the same list; what is at its default stays out of the line.
template <class Each>
void fields(Progress& p, Each each) {
  each("phase", p.phase);
  each("stage", p.stage);
  each("block", p.block);
  each("blocks", p.blocks);
  each("linear", p.linear);
  each("fraction", p.fraction);
  each("elapsed", p.elapsed_s);
  each("eta", p.eta_s);
  each("rss", p.rss_bytes);
  each("peak_rss", p.peak_rss_bytes);
  each("device", p.device_bytes);
}

Json to_line(const RunEvent& event) {
  Json line = {{"time", event.time}};
  for (const auto& [kind, name] : kKinds)
    if (kind == event.kind) line["event"] = name;
  switch (event.kind) {
    case Kind::begin:
      line["process"] = event.owner.process;
      line["host"] = event.owner.host;
      break;
    case Kind::progress: {
      Progress told = event.progress, plain;
      std::vector<Json> defaults;
      fields(plain, [&](const char*, const auto& value) { defaults.push_back(value); });
      size_t i = 0;
      fields(told, [&](const char* name, const auto& value) {
        if (Json(value) != defaults[i++]) line[name] = value;
      });
      break;
    }
    case Kind::block: line["block"] = event.block; break;
    case Kind::estimate: line["estimate"] = Json::parse(to_json(event.estimate)); break;
    case Kind::end:
      line["status"] = to_text(event.status);
      if (event.status == RunStatus::failed)
        for (const auto& [kind, name] : kErrors)
          if (kind == event.error) line["kind"] = name;
      [[fallthrough]];
    case Kind::waiting:
    case Kind::log: line["text"] = event.text; break;
    case Kind::paused:
    case Kind::resumed: break;
  }
  return line;
}

// nullopt: not a line that this version knows.
std::optional<RunEvent> from_line(const std::string& text) try {
  const Json line = Json::parse(text);
  RunEvent event;
  const std::string name = line.at("event");
  const auto known = std::find_if(std::begin(kKinds), std::end(kKinds), [&](const auto& kind) { return name == kind.second; });
  if (known == std::end(kKinds)) return std::nullopt;
  event.kind = known->first;
  event.time = line.at("time");
  switch (event.kind) {
    case Kind::begin: event.owner = {line.at("process"), line.at("host")}; break;
    case Kind::progress:
      fields(event.progress, [&](const char* field, auto& value) {
        if (const auto found = line.find(field); found != line.end()) found->get_to(value);
      });
      break;
    case Kind::block: event.block = line.at("block"); break;
    case Kind::estimate: event.estimate = evaluation_from_json(line.at("estimate").dump(), "an event"); break;
    case Kind::end: {
      event.status = parse_run_status(line.at("status")).value_or(RunStatus::failed);
      const std::string kind = line.value("kind", "");
      for (const auto& [value, error] : kErrors)
        if (kind == error) event.error = value;
      [[fallthrough]];
    }
    case Kind::waiting:
    case Kind::log: event.text = line.at("text"); break;
    case Kind::paused:
    case Kind::resumed: break;
  }
  return event;
} catch (const std::exception&) {
  return std::nullopt;
}

fs::path events_path(const fs::path& run_folder) { return run_folder / "events.jsonl"; }

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace

RunEventWriter::RunEventWriter(const fs::path& run_folder) {
  // Put into its place by renaming: followers see the old session's file or the new one's.
  const fs::path path = events_path(run_folder), temporary = temporary_name(path);
  fd_ = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ >= 0 && ::rename(temporary.c_str(), path.c_str()) != 0) {
    ::unlink(temporary.c_str());
    ::close(std::exchange(fd_, -1));
  }
}

RunEventWriter::~RunEventWriter() {
  if (fd_ >= 0) ::close(fd_);
}

void RunEventWriter::write(const RunEvent& event) {
  RunEvent timed = event;
  if (timed.time == 0) timed.time = now();
  append(to_line(timed).dump(-1, ' ', false, Json::error_handler_t::replace));
}

void RunEventWriter::progress(const Progress& progress) {
  {
    const std::lock_guard lock(mutex_);
    const auto time = std::chrono::steady_clock::now();
    const double pause = std::clamp(std::chrono::duration<double>(time - start_).count() / 300, 0.1, 1.0);
    if (progress.phase == phase_ && std::chrono::duration<double>(time - told_).count() < pause && progress.fraction < 1) return;
    told_ = time;
    phase_ = progress.phase;
  }
  RunEvent event;
  event.kind = Kind::progress;
  event.progress = progress;
  write(event);
}

void RunEventWriter::append(const std::string& text) {
  const std::lock_guard lock(mutex_);
  if (fd_ < 0) return;
  std::string line;
  if (torn_) line += '\n';
  line += text;
  line += '\n';
  // One call a line: two lines never mix.
  const ssize_t n = ::write(fd_, line.data(), line.size());
  if (n == static_cast<ssize_t>(line.size())) torn_ = false;
  else if (n > 0) torn_ = true;
}

RunEventReader::RunEventReader(fs::path run_folder, From from) : path_(events_path(run_folder)) {
  struct stat about {};
  if (from == From::next_session && ::stat(path_.c_str(), &about) == 0) {
    file_ = about.st_ino;
    fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);  // held, so that no new file gets its number
    if (fd_ >= 0) ::lseek(fd_, 0, SEEK_END);
  } else {
    open_next();
  }
}

RunEventReader::~RunEventReader() {
  if (fd_ >= 0) ::close(fd_);
}

bool RunEventReader::open_next() {
  struct stat about {};
  if (::stat(path_.c_str(), &about) != 0 || (fd_ >= 0 && about.st_ino == file_)) return false;
  const int next = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (next < 0) return false;
  ::fstat(next, &about);
  if (fd_ >= 0) ::close(fd_);
  fd_ = next;
  file_ = about.st_ino;
  rest_.clear();
  return true;
}

std::vector<RunEvent> RunEventReader::take() {
  std::vector<RunEvent> events;
  const auto drain = [&] {
    char buffer[1 << 16];
    for (ssize_t n; fd_ >= 0 && (n = ::read(fd_, buffer, sizeof buffer)) > 0;) rest_.append(buffer, static_cast<size_t>(n));
    size_t start = 0;
    for (size_t end; (end = rest_.find('\n', start)) != std::string::npos; start = end + 1)
      if (auto event = from_line(rest_.substr(start, end - start))) events.push_back(*std::move(event));
    rest_.erase(0, start);
  };
  drain();  // what the old session still had to say, before a new one's
  while (open_next()) drain();
  return events;
}

}  // namespace qb
