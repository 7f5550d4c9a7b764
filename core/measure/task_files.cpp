#include "core/measure/task_files.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/measure/task_objects.h"
#include "core/measure/task_yaml.h"

namespace qb {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

std::string text_of(const Json& value, const std::string& where, const std::string& field) {
  if (!value.is_string()) throw InputError(fmt::format("{}: {}: expected a text, found {}", where, field, value.type_name()));
  return value.get<std::string>();
}

std::vector<std::string> texts_of(const Json& value, const std::string& where, const std::string& field) {
  if (!value.is_array()) throw InputError(fmt::format("{}: {}: expected a list of texts, found {}", where, field, value.type_name()));
  if (value.size() < 2) throw InputError(fmt::format("{}: {}: {} of them, expected at least 2 to choose from", where, field, value.size()));
  std::vector<std::string> texts;
  for (size_t i = 0; i < value.size(); ++i) texts.push_back(text_of(value[i], where, fmt::format("{}[{}]", field, i)));
  return texts;
}

TaskItem item_of(const PlacedObject& object) {
  const auto& [value, where] = object;
  auto field = [&, &value = value, &where = where](const char* name) -> const Json& {
    if (!value.contains(name)) throw InputError(fmt::format("{}: \"{}\" is missing; an item has query, choices and gold, or queries, continuation and gold", where, name));
    return value[name];
  };
  TaskItem item;
  item.where = where;
  const bool several = value.contains("queries");
  if (several && value.contains("query")) throw InputError(where + ": both query and queries; an item has query, choices and gold, or queries, continuation and gold");
  if (several) {
    item.contexts = texts_of(field("queries"), where, "queries");
    item.continuations = {text_of(field("continuation"), where, "continuation")};
  } else {
    item.contexts = {text_of(field("query"), where, "query")};
    item.continuations = texts_of(field("choices"), where, "choices");
  }
  for (size_t i = 0; i < item.choices(); ++i) {
    const std::string& text = item.continuation(i);
    if (text.empty()) throw InputError(fmt::format("{}: {} is empty", where, several ? std::string("continuation") : fmt::format("choices[{}]", i)));
    item.characters.push_back(characters_of(text));
    item.bytes.push_back(static_cast<int64_t>(text.size()));
  }
  const Json& gold = field("gold");
  const auto choices = static_cast<int64_t>(item.choices());
  if (!gold.is_number_integer()) throw InputError(fmt::format("{}: gold: expected the index of the right choice, found {}", where, gold.type_name()));
  item.gold = gold.get<int64_t>();
  if (item.gold < 0 || item.gold >= choices) throw InputError(fmt::format("{}: gold: {}, expected 0 … {}, for there are {} choices", where, item.gold, choices - 1, choices));
  return item;
}

bool same(const TaskItem& a, const TaskItem& b) { return a.contexts == b.contexts && a.continuations == b.continuations && a.gold == b.gold; }

bool ends_in_space(const std::string& text) { return text.empty() || text.back() == ' ' || text.back() == '\n' || text.back() == '\t'; }
bool begins_with_space(const std::string& text) { return text.front() == ' ' || text.front() == '\n' || text.front() == '\t'; }

std::string shot_text(const TaskItem& item, const std::string& delimiter) {
  const auto gold = static_cast<size_t>(item.gold);
  return item.context(gold) + item.continuation(gold) + delimiter;
}

}  // namespace

std::vector<TaskItem> read_task_items(const fs::path& path) {
  std::vector<TaskItem> items;
  for (const PlacedObject& object : read_objects(path)) items.push_back(item_of(object));
  return items;
}

Task load_task(const TaskFileSpec& spec) {
  if (spec.limit < 0) throw InputError(fmt::format("task: a limit of {} items, expected 0 (all) or more", spec.limit));
  const bool yaml = spec.path.extension() == ".yaml" || spec.path.extension() == ".yml";
  TaskItems read;
  if (yaml) {
    read = read_task_yaml(spec.path, spec.few_shot);
  } else {
    read.items = read_task_items(spec.path);
    read.files = {spec.path};
  }
  if (!spec.few_shot_file.empty()) {
    if (yaml) throw InputError(fmt::format("{}: examples of its own file come from fewshot_split; {} cannot be read as its documents", spec.path.string(), spec.few_shot_file.string()));
    read.shots = read_task_items(spec.few_shot_file);
    read.files.push_back(spec.few_shot_file);
  }
  Task task;
  task.name = spec.path.stem().string();
  Hasher hasher;
  for (const fs::path& file : read.files) hasher.update(read_text(file));
  task.hash = hasher.hex();
  task.total = static_cast<int64_t>(read.items.size());
  task.few_shot = spec.few_shot.value_or(read.few_shot);
  if (task.few_shot < 0) throw InputError(fmt::format("task: {} examples before an item, expected 0 or more", task.few_shot));

  const std::vector<TaskItem>& pool = read.shots.empty() ? read.items : read.shots;
  const int64_t count = spec.limit > 0 ? std::min(spec.limit, task.total) : task.total;
  bool touching = !yaml;  // no space between any query and its choices
  for (int64_t i = 0; i < count; ++i) {
    TaskItem item = read.items[static_cast<size_t>(i)];
    for (size_t c = 0; c < item.choices() && touching; ++c) touching = !ends_in_space(item.context(c)) && !begins_with_space(item.continuation(c));
    std::string before = read.description;
    int64_t shots = 0;
    for (const TaskItem& shot : pool) {
      if (shots == task.few_shot) break;
      if (read.without_itself && same(shot, item)) continue;
      before += shot_text(shot, read.shot_delimiter);
      ++shots;
    }
    if (shots < task.few_shot) throw InputError(fmt::format("{}: {} examples wanted before each item, but there are {} others to take them from", item.where, task.few_shot, shots));
    for (std::string& context : item.contexts) context.insert(0, before);
    task.items.push_back(std::move(item));
  }
  if (touching) task.notes.push_back(fmt::format("{}: no choice begins with a space, and each is put directly behind its query", spec.path.string()));
  return task;
}

}  // namespace qb
