#pragma once
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace qb {

// One question of a multiple choice: which continuation is likeliest behind its context?
struct TaskItem {
  std::vector<std::string> contexts;       // one for all choices, or one each
  std::vector<std::string> continuations;  // one for all contexts, or one each
  int64_t gold = 0;
  std::vector<int64_t> characters, bytes;  // by choice: what acc_norm and acc_bytes divide by
  std::string where;                       // "piqa.jsonl:12"
  size_t choices() const { return std::max(contexts.size(), continuations.size()); }
  const std::string& context(size_t choice) const { return contexts.size() == 1 ? contexts.front() : contexts[choice]; }
  const std::string& continuation(size_t choice) const { return continuations.size() == 1 ? continuations.front() : continuations[choice]; }
};

// Items as they stand in a file, and what a few-shot prompt puts between them.
struct TaskItems {
  std::vector<TaskItem> items, shots;  // shots: another split that examples come from; empty: the items themselves
  std::string description;             // before all
  std::string shot_delimiter = "\n\n";
  int64_t few_shot = 0;                // as the file says
  bool without_itself = true;          // an item is none of its own examples
  std::vector<std::filesystem::path> files;  // that were read
};

struct TaskFileSpec {
  std::filesystem::path path;           // .jsonl, .json (an array of objects), or .yaml of lm-evaluation-harness
  std::optional<int64_t> few_shot = {}; // examples before each item; absent: as the file says, else none
  std::filesystem::path few_shot_file = {};  // where they come from; empty: the task's own
  int64_t limit = 0;                    // the first so many items; 0: all
};

struct Task {
  std::string name, hash;
  int64_t few_shot = 0, total = 0;      // total: items in the file
  std::vector<TaskItem> items;          // contexts with their examples
  std::vector<std::string> notes;       // what a person should know of how it was read
};

// Objects with `query`, `choices` and `gold` (an index), or with `queries` (one a choice), `continuation` and `gold`; texts
// are put together as they are. A YAML file is read as task_yaml.h says. Examples are the first of their file, without the
// item itself, in order (lm-evaluation-harness's sampler `first_n`), so that items share them.
// Throws InputError naming file, line or key.
Task load_task(const TaskFileSpec& spec);

// The items of one .jsonl or .json file.
std::vector<TaskItem> read_task_items(const std::filesystem::path& path);

}  // namespace qb
