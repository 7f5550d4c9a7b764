#include "core/measure/task_yaml.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <map>
#include <set>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/utf8.h"
#include "core/measure/task_objects.h"
#include "core/text/document_template.h"

namespace qb {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

bool all_digits(const std::string& text) {
  return !text.empty() && text.size() < 10 && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// The keys of lm-evaluation-harness's TaskConfig that change nothing of what is asked here.
const std::set<std::string>& harmless() {
  static const std::set<std::string> keys = {"task", "task_alias", "tag", "group", "group_alias", "metadata", "should_decontaminate", "doc_to_decontamination_query"};
  return keys;
}

const std::set<std::string>& read_keys() {
  static const std::set<std::string> keys = {"dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split", "test_split", "fewshot_split",
                                             "output_type", "doc_to_text", "doc_to_choice", "doc_to_target", "description", "target_delimiter", "fewshot_delimiter",
                                             "num_fewshot", "fewshot_config", "metric_list", "repeats", "unsafe_code"};
  return keys;
}

class TaskYaml {
 public:
  explicit TaskYaml(const fs::path& path) : path_(path) {
    try {
      root_ = YAML::Load(read_text(path));
    } catch (const YAML::Exception& e) {
      throw InputError(fmt::format("{}:{}: not YAML: {}", path.string(), e.mark.line + 1, e.msg));
    }
    if (!root_.IsMap()) throw InputError(path.string() + ": expected a mapping of a task's keys");
    for (const auto& entry : root_) {
      const auto key = entry.first.as<std::string>();
      require_plain(entry.second, key);
      if (entry.second.IsNull() || harmless().contains(key)) continue;
      if (!read_keys().contains(key)) fail(key, "is not read; only multiple choice over local files with templates of documents is");
    }
    if (text("output_type", "generate_until") != "multiple_choice") fail("output_type", fmt::format("\"{}\", expected multiple_choice", text("output_type", "generate_until")));
    if (text("dataset_path", "") != "json") fail("dataset_path", fmt::format("\"{}\", expected json (documents in local files, given by dataset_kwargs.data_files)", text("dataset_path", "")));
    if (has("dataset_name")) fail("dataset_name", "expected none for local files");
    if (has("repeats") && integer("repeats", 1) != 1) fail("repeats", "expected 1");
    if (has("unsafe_code") && text("unsafe_code", "") != "false") fail("unsafe_code", "expected false");
    if (text("description", "").find("{{") != std::string::npos || text("description", "").find("{%") != std::string::npos) fail("description", "a template; expected plain text");
    check_metrics();
    read_data_files();
    if (has("doc_to_text") && root_["doc_to_text"].IsScalar()) text_template_.emplace(text("doc_to_text", ""), place("doc_to_text"));
    for (const char* key : {"doc_to_text", "doc_to_choice", "doc_to_target"})
      if (!has(key)) fail(key, "is missing");
    if (root_["doc_to_choice"].IsScalar()) choice_template_.emplace(text("doc_to_choice", ""), place("doc_to_choice"));
    if (!root_["doc_to_text"].IsScalar()) fail("doc_to_text", "expected a field, a number or a template");
    if (!root_["doc_to_target"].IsScalar()) fail("doc_to_target", "expected a field, a number or a template; several right answers are not read");
    target_template_.emplace(text("doc_to_target", ""), place("doc_to_target"));
  }

  TaskItems items(const std::optional<int64_t>& few_shot) {
    TaskItems result;
    const std::string eval_split = split("test_split", split("validation_split", ""));
    if (eval_split.empty()) fail("test_split", "neither it nor validation_split says which documents are asked");
    result.items = documents(eval_split, has("test_split") ? "test_split" : "validation_split", result.files);
    result.description = text("description", "");
    result.few_shot = has("num_fewshot") ? integer("num_fewshot", 0) : 0;
    result.shot_delimiter = text("fewshot_delimiter", "\n\n");
    if (few_shot.value_or(result.few_shot) > 0) {
      const std::string wanted = few_shot_setting("split", split("fewshot_split", ""));
      if (const std::string sampler = few_shot_setting("sampler", "default"); sampler != "first_n")
        fail("fewshot_config.sampler", fmt::format("\"{}\" draws other examples for each item; expected first_n", sampler));
      const std::string from = !wanted.empty() ? wanted : split("training_split", split("validation_split", split("test_split", "")));
      if (from != eval_split) result.shots = documents(from, "fewshot_split", result.files);
      result.without_itself = wanted == split("test_split", "");  // as lm-evaluation-harness decides it
    }
    result.files.insert(result.files.begin(), path_);
    return result;
  }

 private:
  std::string place(const std::string& key) const { return fmt::format("{}: {}", path_.string(), key); }
  [[noreturn]] void fail(const std::string& key, const std::string& what) const { throw InputError(fmt::format("{}: {}", place(key), what)); }

  // Python behind a tag (!function …) cannot be run here.
  void require_plain(const YAML::Node& node, const std::string& key) const {
    if (const std::string tag = node.Tag(); tag.size() > 1 && tag.front() == '!' && !tag.starts_with("!!")) fail(key, fmt::format("{} is Python, which is not read", tag));
    if (node.IsMap())
      for (const auto& entry : node) require_plain(entry.second, key + "." + entry.first.as<std::string>());
    if (node.IsSequence())
      for (const auto& item : node) require_plain(item, key);
  }

  bool has(const std::string& key) const { return root_[key] && !root_[key].IsNull(); }
  std::string text(const std::string& key, const std::string& otherwise) const {
    if (!has(key)) return otherwise;
    if (!root_[key].IsScalar()) fail(key, "expected a text");
    return root_[key].Scalar();
  }
  std::string split(const std::string& key, const std::string& otherwise) const { return text(key, otherwise); }
  int64_t integer(const std::string& key, int64_t low) const {
    const std::string value = text(key, "");
    if (!all_digits(value) || std::stoll(value) < low) fail(key, fmt::format("{}, expected a whole number from {}", qb::quoted(value), low));
    return std::stoll(value);
  }

  std::string few_shot_setting(const std::string& name, const std::string& otherwise) const {
    if (!has("fewshot_config")) return otherwise;
    const YAML::Node config = root_["fewshot_config"];
    if (!config.IsMap()) fail("fewshot_config", "expected a mapping");
    for (const auto& entry : config)
      if (const auto key = entry.first.as<std::string>(); key != "sampler" && key != "split" && !entry.second.IsNull()) fail("fewshot_config." + key, "is not read; sampler and split are");
    return config[name] && config[name].IsScalar() ? config[name].Scalar() : otherwise;
  }

  void check_metrics() const {
    if (!has("metric_list")) return;
    for (size_t i = 0; i < root_["metric_list"].size(); ++i) {
      const YAML::Node entry = root_["metric_list"][i];
      const std::string key = fmt::format("metric_list[{}]", i);
      if (!entry.IsMap() || !entry["metric"] || !entry["metric"].IsScalar()) fail(key, "expected a mapping with a metric");
      const std::string metric = entry["metric"].Scalar();
      if (metric != "acc" && metric != "acc_norm" && metric != "acc_bytes") fail(key + ".metric", fmt::format("{}, expected acc, acc_norm or acc_bytes", qb::quoted(metric)));
      if (entry["aggregation"] && entry["aggregation"].Scalar() != "mean") fail(key + ".aggregation", fmt::format("{}, expected mean", qb::quoted(entry["aggregation"].Scalar())));
    }
  }

  void read_data_files() {
    if (!has("dataset_kwargs") || !root_["dataset_kwargs"].IsMap()) fail("dataset_kwargs", "expected a mapping with data_files");
    for (const auto& entry : root_["dataset_kwargs"])
      if (const auto key = entry.first.as<std::string>(); key != "data_files") fail("dataset_kwargs." + key, "is not read; data_files is");
    const YAML::Node files = root_["dataset_kwargs"]["data_files"];
    if (!files) fail("dataset_kwargs.data_files", "is missing");
    auto add = [&](const std::string& split, const YAML::Node& node, const std::string& key) {
      if (!node.IsScalar() && !node.IsSequence()) fail(key, "expected a path or a list of paths");
      if (node.IsScalar()) files_[split] = {local(node.Scalar(), key)};
      if (node.IsSequence())
        for (const auto& item : node) files_[split].push_back(local(item.Scalar(), key));
    };
    if (files.IsMap()) {
      for (const auto& entry : files) add(entry.first.as<std::string>(), entry.second, "dataset_kwargs.data_files." + entry.first.as<std::string>());
    } else {
      add("train", files, "dataset_kwargs.data_files");  // what the datasets library calls files without a split
    }
  }

  fs::path local(const std::string& file, const std::string& key) const {
    if (file.find("://") != std::string::npos || file.find('*') != std::string::npos) fail(key, fmt::format("{}, expected a local file", qb::quoted(file)));
    const fs::path given = file;
    return given.is_absolute() ? given : path_.parent_path() / given;
  }

  std::vector<TaskItem> documents(const std::string& split, const std::string& key, std::vector<fs::path>& read) const {
    const auto found = files_.find(split);
    if (found == files_.end()) fail(key, fmt::format("{}, but dataset_kwargs.data_files has no such split", qb::quoted(split)));
    std::vector<TaskItem> items;
    for (const fs::path& file : found->second) {
      read.push_back(file);
      for (const PlacedObject& object : read_objects(file)) items.push_back(item_of(object));
    }
    return items;
  }

  [[noreturn]] void fail_at(const PlacedObject& object, const std::string& key, const std::string& what) const {
    throw InputError(fmt::format("{}: {} of {}: {}", object.where, key, path_.string(), what));
  }

  template <class F>
  auto of(const PlacedObject& object, F&& work) const {
    try {
      return work();
    } catch (const InputError& e) {
      throw InputError(fmt::format("{}: {}", object.where, e.what()));
    }
  }

  // A field of the document by its name, or what the template makes of it.
  Json value_of(const PlacedObject& object, const std::string& key, const DocumentTemplate& made) const {
    const std::string given = text(key, "");
    if (object.value.contains(given)) return object.value[given];
    return of(object, [&] { return Json(made.render(object.value)); });
  }

  std::vector<std::string> choices_of(const PlacedObject& object) const {
    const YAML::Node given = root_["doc_to_choice"];
    std::vector<std::string> choices;
    if (given.IsSequence()) {
      for (const auto& choice : given) choices.push_back(choice.Scalar());
    } else if (given.IsMap()) {
      for (const auto& choice : given) choices.push_back(choice.second.Scalar());
    } else {
      const Json list = object.value.contains(given.Scalar()) ? object.value[given.Scalar()] : of(object, [&] { return choice_template_->evaluate(object.value); });
      if (!list.is_array()) fail_at(object, "doc_to_choice", fmt::format("expected a list of texts, found {}", list.type_name()));
      for (const Json& choice : list) {
        if (!choice.is_string()) fail_at(object, "doc_to_choice", fmt::format("expected a list of texts, found {} in it", choice.type_name()));
        choices.push_back(choice.get<std::string>());
      }
    }
    if (choices.size() < 2) fail_at(object, "doc_to_choice", fmt::format("{} choices, expected at least 2", choices.size()));
    for (size_t i = 0; i < choices.size(); ++i)
      if (choices[i].empty()) fail_at(object, "doc_to_choice", fmt::format("choice {} is empty", i));
    return choices;
  }

  int64_t index_of(const PlacedObject& object, const std::string& key, int64_t value, size_t choices) const {
    if (value < 0 || value >= static_cast<int64_t>(choices)) fail_at(object, key, fmt::format("{}, expected 0 … {}, for there are {} choices", value, choices - 1, choices));
    return value;
  }

  TaskItem item_of(const PlacedObject& object) const {
    TaskItem item;
    item.where = object.where;
    const std::vector<std::string> choices = choices_of(object);
    for (const std::string& choice : choices) {
      item.characters.push_back(characters_of(choice));
      item.bytes.push_back(static_cast<int64_t>(choice.size()));
    }
    const std::string delimiter = text("target_delimiter", " ");
    const Json question = value_of(object, "doc_to_text", *text_template_), target = value_of(object, "doc_to_target", *target_template_);
    const bool index_asked = question.is_number_integer() || (question.is_string() && all_digits(question.get<std::string>()) && !object.value.contains(text("doc_to_text", "")));
    auto number = [](const Json& value) { return value.is_string() ? std::stoll(value.get<std::string>()) : value.get<int64_t>(); };
    if (index_asked) {
      // The choices are contexts, and what comes behind each is one.
      item.gold = index_of(object, "doc_to_text", number(question), choices.size());
      item.contexts = choices;
      if (!target.is_string()) fail_at(object, "doc_to_target", fmt::format("expected the text behind every choice, found {}", target.type_name()));
      item.continuations = {delimiter + target.get<std::string>()};
      if (item.continuations.front().empty()) fail_at(object, "doc_to_target", "expected the text behind every choice, found nothing");
      return item;
    }
    if (!question.is_string()) fail_at(object, "doc_to_text", fmt::format("expected a text, found {}", question.type_name()));
    item.contexts = {question.get<std::string>()};
    for (const std::string& choice : choices) item.continuations.push_back(delimiter + choice);
    if (target.is_number_integer() || (target.is_string() && all_digits(target.get<std::string>()) && !object.value.contains(text("doc_to_target", "")))) {
      item.gold = index_of(object, "doc_to_target", number(target), choices.size());
    } else if (target.is_string()) {
      const auto found = std::find(choices.begin(), choices.end(), target.get<std::string>());
      if (found == choices.end()) fail_at(object, "doc_to_target", fmt::format("{} is none of the choices", qb::quoted(target.get<std::string>())));
      item.gold = found - choices.begin();
    } else {
      fail_at(object, "doc_to_target", fmt::format("expected one right answer, found {}", target.type_name()));
    }
    return item;
  }

  fs::path path_;
  YAML::Node root_;
  std::map<std::string, std::vector<fs::path>> files_;
  std::optional<DocumentTemplate> text_template_, choice_template_, target_template_;
};

}  // namespace

TaskItems read_task_yaml(const fs::path& path, const std::optional<int64_t>& few_shot) { return TaskYaml(path).items(few_shot); }

}  // namespace qb
