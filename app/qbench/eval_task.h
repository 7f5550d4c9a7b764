#pragma once
#include "cli.h"
#include "core/measure/task.h"

namespace cli {

struct TaskArguments {
  std::string file, few_shot_file, items, compared_to;
  std::optional<int64_t> few_shot;
  int64_t limit = 0;
};

void add_task_options(CLI::App& command, TaskArguments& arguments);
int eval_task(const std::shared_ptr<const qb::Model>& model, const qb::Tokenizer& tokenizer, const TaskArguments& arguments, const qb::ContinuationSpec& spec,
              const Options& options);

}  // namespace cli
