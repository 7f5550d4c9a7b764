#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace qb {

// Runs of a workspace as an array job of Slurm, a run an index. The nodes share the workspace's file system; each task is the same worker
// that this machine's queue starts.

// What sbatch is told beside what we tell it ourselves: "partition=gpu,gres=gpu:1,time=4:00:00".
struct SlurmOptions {
  std::vector<std::pair<std::string, std::string>> directives;
  int grace_s = 120;  // before the time limit, when a task is told to end after its block ("grace=SECONDS")
  bool gpu() const;   // asks for one
};
// Throws InputError naming what cannot be understood, or what we set ourselves.
SlurmOptions parse_slurm_options(const std::vector<std::string>& texts);

struct SlurmJob {
  int64_t job = 0;
  std::string sweep, submitted;      // ISO 8601, UTC
  std::vector<std::string> runs;     // by index
  std::filesystem::path folder;      // workspace/slurm/…: job.sh, job.json, what tasks said
  std::string task(size_t index) const;  // "12_3"
};

// Writes the job script and submits it; the runs' requests name their tasks. Throws ResourceError with what sbatch said.
SlurmJob submit_to_slurm(const std::filesystem::path& workspace, const std::string& sweep, const std::vector<std::string>& runs, const std::string& device, const SlurmOptions& options,
                         const std::vector<std::string>& work_options, const std::filesystem::path& qbench);
// Of a workspace, oldest first; damaged records are passed over.
std::vector<SlurmJob> slurm_jobs(const std::filesystem::path& workspace);

struct SlurmTask {
  std::string state;   // Slurm's: "PENDING", "RUNNING", "COMPLETING" …
  std::string reason;  // why it is pending
  std::string node;
};
// What squeue knows now, by "12_3"; who has ended is not there any more. Throws ResourceError with what squeue said.
std::map<std::string, SlurmTask> slurm_tasks();
void cancel_slurm_tasks(const std::vector<std::string>& tasks);  // "12_3"
// From squeue --json, of Slurm 21 to 24.
std::map<std::string, SlurmTask> slurm_tasks_from_json(const std::string& json);

}  // namespace qb
