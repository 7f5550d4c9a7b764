#include "eval_task.h"

#include <fmt/format.h>

#include <iostream>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/measure/paired.h"
#include "core/measure/task_objects.h"

namespace cli {
namespace {

constexpr const char* kFlags[] = {"acc", "acc_norm", "acc_bytes"};  // of write_items

// One object an item: what it says of the model, and of which task's contents.
nlohmann::ordered_json item_json(const qb::TaskResult& result, size_t i) {
  const qb::TaskAnswer& answer = result.answers[i];
  nlohmann::ordered_json item = {{"task", result.evaluation.corpus_hash}, {"few_shot", std::get<int64_t>(result.evaluation.settings.at("few_shot"))}, {"item", i}, {"where", answer.where},
                                 {"gold", answer.gold}, {"log_probabilities", answer.log_probabilities}, {"chosen", answer.chosen}, {"chosen_norm", answer.chosen_norm}, {"chosen_bytes", answer.chosen_bytes}};
  for (const qb::Metric& metric : result.evaluation.metrics) item[metric.name] = metric.values[i] > 0.5;
  return item;
}

void write_items(const qb::TaskResult& result, const std::string& path) {
  std::string text;
  for (size_t i = 0; i < result.answers.size(); ++i) text += item_json(result, i).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
  qb::write_atomically(path, text);
}

// The items that another evaluation of the same task wrote.
std::vector<qb::PlacedObject> others_items(const std::string& path, const qb::Task& task) {
  std::vector<qb::PlacedObject> items = qb::read_objects(path);
  if (items.size() != task.items.size()) throw qb::InputError(fmt::format("{}: {} items, but {} are evaluated here; give both the same --limit", path, items.size(), task.items.size()));
  for (const qb::PlacedObject& item : items) {
    for (const char* key : kFlags)
      if (!item.value.contains(key) || !item.value[key].is_boolean()) throw qb::InputError(fmt::format("{}: \"{}\" is missing; expected what qbench eval --items wrote", item.where, key));
    if (item.value.value("task", "") != task.hash || item.value.value("few_shot", int64_t{-1}) != task.few_shot)
      throw qb::InputError(fmt::format("{}: of another task or number of examples than {} with {}", item.where, task.name, task.few_shot));
  }
  return items;
}

struct Comparison {
  std::string metric;
  qb::PairedDifference difference;
  qb::McNemar test;
};

std::vector<Comparison> compare(const qb::TaskResult& result, const std::vector<qb::PlacedObject>& others) {
  std::vector<Comparison> comparisons;
  for (const qb::Metric& metric : result.evaluation.metrics) {
    std::vector<double> before;
    for (const qb::PlacedObject& item : others) before.push_back(item.value[metric.name].get<bool>() ? 1 : 0);
    comparisons.push_back({metric.name, qb::paired_difference(before, metric.values), qb::mcnemar(before, metric.values)});
  }
  return comparisons;
}

void print(const qb::TaskResult& result, const std::vector<Comparison>& comparisons, const std::string& compared_to) {
  const qb::EvaluationResult& e = result.evaluation;
  for (const qb::Metric& metric : e.metrics) std::cout << fmt::format("{:<9} {:.4f} ± {:.4f}\n", metric.name, metric.value, metric.standard_error);
  const int64_t few_shot = std::get<int64_t>(e.settings.at("few_shot"));
  std::cout << fmt::format("{}, {} of {} items, {}, {}; {}, {} an item\n", e.corpus, e.windows, e.windows_total, few_shot == 0 ? std::string("no examples") : fmt::format("{} examples before each", few_shot),
                           e.dtype, seconds_text(e.seconds), seconds_text(e.seconds / static_cast<double>(e.windows)));
  for (const Comparison& c : comparisons)
    std::cout << fmt::format("{:<9} {:+.4f} ± {:.4f} against {}: {} items right only here, {} only there; McNemar p = {:.3g}{}\n", c.metric, c.difference.difference, c.difference.standard_error,
                             compared_to, c.test.only_second, c.test.only_first, c.test.p_value, c.test.exact ? " (exact)" : "");
}

nlohmann::ordered_json as_json(const qb::TaskResult& result, const std::vector<Comparison>& comparisons) {
  const qb::EvaluationResult& e = result.evaluation;
  nlohmann::ordered_json json = {{"task", e.corpus}, {"task_hash", e.corpus_hash}, {"items", e.windows}, {"items_total", e.windows_total},
                                 {"few_shot", std::get<int64_t>(e.settings.at("few_shot"))}, {"tokens", e.corpus_tokens}, {"dtype", e.dtype}, {"seconds", e.seconds}};
  for (const qb::Metric& metric : e.metrics) json[metric.name] = {{"value", metric.value}, {"standard_error", metric.standard_error}};
  json["answers"] = nlohmann::ordered_json::array();
  for (size_t i = 0; i < result.answers.size(); ++i) json["answers"].push_back(item_json(result, i));
  for (const Comparison& c : comparisons)
    json["compared"][c.metric] = {{"difference", c.difference.difference}, {"standard_error", c.difference.standard_error}, {"only_here", c.test.only_second}, {"only_there", c.test.only_first},
                                  {"both", c.test.both}, {"neither", c.test.neither}, {"statistic", c.test.statistic}, {"p_value", c.test.p_value}, {"exact", c.test.exact}};
  return json;
}

}  // namespace

void add_task_options(CLI::App& command, TaskArguments& a) {
  CLI::Option* task = command.add_option("--task", a.file, "Multiple choice instead of a text: .jsonl or .json of query, choices, gold (or queries, continuation, gold), or a YAML task of lm-evaluation-harness over local files");
  command.add_option("--few-shot", a.few_shot, "Examples with their answers before each item (default: as the task says, else none)")->check(CLI::NonNegativeNumber)->needs(task);
  command.add_option("--few-shot-file", a.few_shot_file, "Where examples come from (default: the task's file)")->needs(task);
  command.add_option("--limit", a.limit, "Only the first items; 0: all")->check(CLI::NonNegativeNumber)->needs(task);
  command.add_option("--items", a.items, "Write log-probabilities and answers of every item to this .jsonl file")->needs(task);
  command.add_option("--compared-to", a.compared_to, "Compare item by item with what --items wrote for another model: paired difference and McNemar's test")->needs(task);
}

int eval_task(const std::shared_ptr<const qb::Model>& model, const qb::Tokenizer& tokenizer, const TaskArguments& a, const qb::ContinuationSpec& spec,
              const Options& options) {
  const qb::Task task = qb::load_task({a.file, a.few_shot, a.few_shot_file, a.limit});
  print_notes(task.notes);
  const std::vector<qb::PlacedObject> others = a.compared_to.empty() ? std::vector<qb::PlacedObject>() : others_items(a.compared_to, task);
  ProgressBar bar("eval");
  const qb::Control control{interrupt_token(), nullptr, [&](const qb::Progress& p) { bar.show(p); }};
  const qb::TaskResult result = qb::evaluate_task(model, model->source, tokenizer, task, spec, control);
  bar.clear();
  if (!a.items.empty()) write_items(result, a.items);
  const std::vector<Comparison> comparisons = others.empty() ? std::vector<Comparison>() : compare(result, others);
  if (options.json)
    std::cout << as_json(result, comparisons).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
  else
    print(result, comparisons, a.compared_to);
  return ok;
}

}  // namespace cli
