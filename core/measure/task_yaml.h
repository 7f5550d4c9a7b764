#pragma once
#include "core/measure/task_files.h"

namespace qb {

// A task of lm-evaluation-harness whose documents are local: output_type multiple_choice, dataset_path json with
// dataset_kwargs.data_files, doc_to_text, doc_to_choice and doc_to_target as fields, values or Jinja templates,
// target_delimiter, description, fewshot_delimiter, num_fewshot with the sampler first_n. Paths are relative to the YAML.
// few_shot: how many examples are wanted beside what the file says. Whatever else changes what is measured is refused by its key.
// Throws InputError naming the file and the key, or the document.
TaskItems read_task_yaml(const std::filesystem::path& path, const std::optional<int64_t>& few_shot);

}  // namespace qb
