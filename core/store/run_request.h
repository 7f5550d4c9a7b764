#pragma once
#include <filesystem>
#include <optional>
#include <string>

namespace qb {

// What is wanted of a run: that it is carried out, that it waits, that it ends.
enum class Wish {
  run,
  hold,      // paused where it stands, or kept waiting
  stop_soon, // ended after the block at work
  stop,      // ended at the next linear
};
std::string to_text(Wish wish);

// The file "request.json" of a run folder: its place in the workspace's queue, and what whoever carries it out shall do. Any process that
// may write the folder may write it; it goes when the run ends. A run with a request that nobody works on waits for its turn.
struct RunRequest {
  Wish wish = Wish::run;
  std::string device = "cpu";
  int priority = 0;     // higher ones first
  double place = 0;     // among those of one priority, lower ones first
  std::string task;     // "12_3": of a cluster, which starts the run
  int attempts = 0;     // that ended with the death of the worker since a block was finished last
  bool operator==(const RunRequest&) const = default;
};

// nullopt: nothing is wanted. Throws InputError naming the file and the key when it is damaged.
std::optional<RunRequest> load_request(const std::filesystem::path& run_folder);
// The same; a damaged file says nothing, since whoever goes on with the run writes it anew.
std::optional<RunRequest> readable_request(const std::filesystem::path& run_folder);
// Durable. Throws ResourceError naming the file.
void save_request(const std::filesystem::path& run_folder, const RunRequest& request);
void drop_request(const std::filesystem::path& run_folder);

// Changes what is wanted of a run that is at work or waits; one without a request is left alone.
void wish(const std::filesystem::path& run_folder, Wish wish);

// Reads a request again when its file has changed.
class RequestWatch {
 public:
  explicit RequestWatch(std::filesystem::path run_folder) : folder_(std::move(run_folder)) {}
  // A damaged file says nothing: whoever writes it next makes it good.
  const std::optional<RunRequest>& look();

 private:
  std::filesystem::path folder_;
  std::optional<RunRequest> request_;
  long long seen_ = -1;  // its time
};

}  // namespace qb
