#include "core/run/slurm.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <ctime>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/command.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/store/run_request.h"

namespace qb {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

CommandResult require(const std::vector<std::string>& words) {
  CommandResult done = run_command(words);
  if (done.code == 0) return done;
  std::string said = done.err.empty() ? done.out : done.err;
  while (!said.empty() && said.back() == '\n') said.pop_back();
  throw ResourceError(fmt::format("{}: {}", words.front(), said.empty() ? fmt::format("ended with code {}", done.code) : said));
}

// For a shell, whatever stands in it.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) c == '\'' ? out += "'\\''" : out += c;
  return out + "'";
}

std::string now_utc(const char* form) {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  return fmt::format(fmt::runtime(form), utc);
}

// A number of squeue's: plain, or with a mark whether it is set.
int64_t number(const Json& job, const char* key) {
  const auto found = job.find(key);
  if (found == job.end()) return -1;
  if (found->is_number()) return found->get<int64_t>();
  if (found->is_object() && found->value("set", false)) return found->value("number", int64_t{-1});
  return -1;
}

std::string word(const Json& job, const char* key) {
  const auto found = job.find(key);
  if (found == job.end()) return {};
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array() && !found->empty() && found->front().is_string()) return found->front().get<std::string>();
  return {};
}

std::string script(const SlurmJob& job, const fs::path& workspace, const std::string& device, const SlurmOptions& options, const std::vector<std::string>& work_options, const fs::path& qbench) {
  std::string text = "#!/bin/bash\n";
  text += fmt::format("# The sweep \"{}\": a run an index, each in a worker of its own. Submit again by hand: sbatch job.sh\n", job.sweep);
  text += fmt::format("#SBATCH --job-name={}\n", job.folder.filename().string());
  text += fmt::format("#SBATCH --array=0-{}\n", job.runs.size() - 1);
  text += "#SBATCH --requeue\n#SBATCH --open-mode=append\n";
  text += fmt::format("#SBATCH --signal=B:USR1@{}\n", options.grace_s);
  text += fmt::format("#SBATCH --output={}/task-%a.txt\n", job.folder.string());
  for (const auto& [key, value] : options.directives) text += value.empty() ? fmt::format("#SBATCH --{}\n", key) : fmt::format("#SBATCH --{}={}\n", key, value);
  text += "\nruns=(\n";
  for (const std::string& run : job.runs) text += "  " + quoted(run) + "\n";
  text += ")\nrun=${runs[$SLURM_ARRAY_TASK_ID]}\n\n";
  std::string call = fmt::format("{} work --workspace {} --run \"$run\" --device {} --wait", quoted(qbench.string()), quoted(workspace.string()), quoted(device));
  for (const std::string& option : work_options) call += " " + quoted(option);
  text += call + R"( &
worker=$!
# The time limit is near, or the node is wanted: the run ends after its block.
trap 'kill -USR1 $worker' USR1 TERM
code=0
wait $worker || code=$?
while kill -0 $worker 2>/dev/null; do code=0; wait $worker || code=$?; done

# 75: it made room and goes on later. 128 and above: it was killed; three times it is tried again.
if [ $code -eq 75 ] || { [ $code -gt 128 ] && [ $code -ne 130 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; }; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit $code
)";
  return text;
}

}  // namespace

bool SlurmOptions::gpu() const {
  return std::any_of(directives.begin(), directives.end(), [](const auto& directive) { return directive.first.starts_with("gpus") || (directive.first == "gres" && directive.second.find("gpu") != std::string::npos); });
}

SlurmOptions parse_slurm_options(const std::vector<std::string>& texts) {
  static const std::set<std::string> ours = {"array", "requeue", "no-requeue", "signal", "output", "error", "open-mode", "job-name", "wrap", "parsable"};
  SlurmOptions options;
  for (const std::string& text : texts)
    for (size_t start = 0; start <= text.size();) {
      const size_t end = std::min(text.find(',', start), text.size());
      const std::string item = text.substr(start, end - start);
      start = end + 1;
      if (item.empty()) continue;
      const size_t equals = item.find('=');
      const std::string key = item.substr(0, equals), value = equals == std::string::npos ? "" : item.substr(equals + 1);
      const bool named = !key.empty() && key.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
      if (!named || value.find_first_of("\n\r") != std::string::npos) throw InputError(fmt::format("--slurm: found \"{}\", expected options of sbatch as key=value, for example partition=gpu,gres=gpu:1,time=4:00:00", item));
      if (ours.contains(key)) throw InputError(fmt::format("--slurm: {} is set by the sweep itself; the time before the limit is grace=SECONDS", key));
      if (key == "grace") {
        const auto [rest, error] = std::from_chars(value.data(), value.data() + value.size(), options.grace_s);
        if (error != std::errc() || rest != value.data() + value.size() || options.grace_s < 1 || options.grace_s > 65535) throw InputError(fmt::format("--slurm: grace: found \"{}\", expected seconds from 1 to 65535", value));
        continue;
      }
      options.directives.emplace_back(key, value);
    }
  return options;
}

std::string SlurmJob::task(size_t index) const { return fmt::format("{}_{}", job, index); }

SlurmJob submit_to_slurm(const fs::path& workspace, const std::string& sweep, const std::vector<std::string>& runs, const std::string& device, const SlurmOptions& options,
                         const std::vector<std::string>& work_options, const fs::path& qbench) {
  SlurmJob job;
  job.sweep = sweep;
  job.submitted = now_utc("{:%Y-%m-%dT%H:%M:%SZ}");
  job.runs = runs;
  std::string slug;
  for (const char c : sweep) slug += std::isalnum(static_cast<unsigned char>(c)) ? c : '-';
  const fs::path root = fs::absolute(workspace).lexically_normal();
  try {
    fs::create_directories(root / "slurm");
    const std::string stem = slug.substr(0, 40) + now_utc("-{:%Y%m%d-%H%M%S}");
    job.folder = root / "slurm" / stem;
    for (int n = 2; !fs::create_directory(job.folder); ++n) job.folder = root / "slurm" / fmt::format("{}-{}", stem, n);
  } catch (const fs::filesystem_error& e) {
    throw ResourceError(fmt::format("{}: {}", e.path1().string(), e.code().message()));
  }
  const fs::path file = job.folder / "job.sh";
  write_atomically(file, script(job, root, device, options, work_options, qbench));
  ::chmod(file.c_str(), 0755);
  // Before the first task begins: it takes its request away when it ends.
  for (size_t i = 0; i < runs.size(); ++i) {
    RunRequest request;
    request.device = "slurm";
    request.place = static_cast<double>(std::time(nullptr)) + static_cast<double>(i) / 1e4;
    save_request(root / "runs" / runs[i], request);
  }
  CommandResult done;
  try {
    done = require({"sbatch", "--parsable", file.string()});
  } catch (const ResourceError&) {
    for (const std::string& run : runs) drop_request(root / "runs" / run);
    throw;
  }
  std::from_chars(done.out.data(), done.out.data() + done.out.size(), job.job);  // "12" or "12;cluster"
  if (job.job <= 0) throw ResourceError(fmt::format("sbatch: found \"{}\", expected a job's number", done.out));
  write_atomically(job.folder / "job.json", Json{{"job", job.job}, {"sweep", job.sweep}, {"submitted", job.submitted}, {"runs", job.runs}}.dump(1) + "\n");
  for (size_t i = 0; i < runs.size(); ++i) {
    const fs::path folder = root / "runs" / runs[i];
    if (auto request = load_request(folder)) {  // none: a quick one that has ended already
      request->task = job.task(i);
      save_request(folder, *request);
    }
  }
  return job;
}

std::vector<SlurmJob> slurm_jobs(const fs::path& workspace) {
  std::vector<SlurmJob> jobs;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(fs::absolute(workspace) / "slurm", none)) try {
      const Json json = Json::parse(read_text(entry.path() / "job.json", 1 << 24));
      SlurmJob job;
      job.folder = entry.path();
      json.at("job").get_to(job.job);
      json.at("sweep").get_to(job.sweep);
      json.at("submitted").get_to(job.submitted);
      json.at("runs").get_to(job.runs);
      jobs.push_back(std::move(job));
    } catch (const std::exception&) {
      // Not submitted, or not ours.
    }
  std::sort(jobs.begin(), jobs.end(), [](const SlurmJob& a, const SlurmJob& b) { return std::tie(a.submitted, a.job) < std::tie(b.submitted, b.job); });
  return jobs;
}

std::map<std::string, SlurmTask> slurm_tasks_from_json(const std::string& text) {
  std::map<std::string, SlurmTask> tasks;
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("jobs") || !json["jobs"].is_array()) throw ResourceError("squeue: found no list \"jobs\" in what it said, expected that of --json");
  for (const Json& job : json["jobs"]) {
    const int64_t array = number(job, "array_job_id"), index = number(job, "array_task_id");
    if (array <= 0) continue;
    SlurmTask task{word(job, "job_state"), word(job, "state_reason"), word(job, "nodes")};
    if (task.reason == "None") task.reason.clear();
    if (index >= 0) {
      tasks[fmt::format("{}_{}", array, index)] = task;
      continue;
    }
    // Those that wait together: "0-5", "1,3-4", "0-5%2".
    const std::string range = word(job, "array_task_string");
    for (size_t at = 0; at < range.size() && range[at] != '%';) {
      int64_t first = 0;
      auto parsed = std::from_chars(range.data() + at, range.data() + range.size(), first);
      if (parsed.ec != std::errc()) break;
      int64_t last = first;
      if (parsed.ptr != range.data() + range.size() && *parsed.ptr == '-') parsed = std::from_chars(parsed.ptr + 1, range.data() + range.size(), last);
      for (int64_t i = first; i <= std::min(last, first + 100000); ++i) tasks[fmt::format("{}_{}", array, i)] = task;
      at = static_cast<size_t>(parsed.ptr - range.data());
      if (at < range.size() && range[at] == ',') ++at;
    }
  }
  return tasks;
}

std::map<std::string, SlurmTask> slurm_tasks() { return slurm_tasks_from_json(require({"squeue", "--json"}).out); }

void cancel_slurm_tasks(const std::vector<std::string>& tasks) {
  if (tasks.empty()) return;
  std::vector<std::string> words = {"scancel", "--quiet"};
  words.insert(words.end(), tasks.begin(), tasks.end());
  require(words);
}

}  // namespace qb
