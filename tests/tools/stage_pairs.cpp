// Pipelines on small models, many in one process. Each line of standard input is a JSON object, answered by one:
// {"recipe": YAML, "ids": FILE, "folder": OUT}; FILE holds "ids" [samples, length] int64, which stand for the recipe's corpus.
// With "brief": true the answer is {"errors": of the blocks' outputs, "seconds": …} and OUT/work.safetensors holds "logits" alone.
// Answers: {"refused": why} before any work, {"failed": why}, or {"blocks": reports, "seconds": …}. OUT gets the run's blocks and
// work.safetensors: of every linear what it was (TENSOR.original), became before rounding (.weight, .kept, .low, .high, .input_scale,
// .output_scale) and read (.rows); of every block N.float_output and N.quantized_output; "logits" of the quantized model on ids.
#include <ATen/core/grad_mode.h>

#include <chrono>
#include <iostream>

#include "core/base/error.h"
#include "core/engine/engine.h"
#include "core/format/safetensors.h"
#include "core/measure/block_measure.h"
#include "core/measure/report_json.h"
#include "core/recipe/recipe.h"
#include "tests/tools/device.h"

namespace {

using nlohmann::json;

qb::EngineJob job_of(const qb::Recipe& recipe, const at::Tensor& ids, const std::filesystem::path& folder) {
  qb::EngineJob job;
  job.model = qb::Model::open(recipe.model);
  for (int64_t s = 0; s < ids.size(0); ++s) {
    const auto* row = ids[s].const_data_ptr<int64_t>();
    job.calibration.samples.emplace_back(row, row + ids.size(1));
  }
  job.scheme = recipe.scheme;
  job.pipeline = recipe.pipeline;
  job.dtype = at::kFloat;
  job.device = wanted_device();
  job.propagate_quantized = recipe.propagate_quantized;
  job.seed = recipe.seed;
  job.folder = folder;
  job.model = qb::changed_model(job, {});
  return job;
}

at::Tensor logits_of(const qb::EngineJob& job, const at::Tensor& ids) {
  qb::Decoder decoder(job.model, qb::quantized_source(job.model, job.folder), at::kFloat, job.device);
  at::Tensor hidden = decoder.embed(ids.to(job.device));
  for (int b = 0; b < decoder.blocks(); ++b) hidden = decoder.forward(decoder.load_block(b), hidden, {.at_linear = qb::activation_tap(job.scheme), .at_cache = qb::cache_tap(job.scheme)});
  return decoder.logits(hidden);
}

json carry_out(const json& line) {
  const std::filesystem::path folder = line.at("folder").get<std::string>();
  qb::Recipe recipe;
  qb::EngineJob job;
  const at::Tensor ids = qb::open_safetensors(line.at("ids").get<std::string>())->read("ids").clone();
  try {
    recipe = qb::parse_recipe(line.at("recipe").get<std::string>(), "recipe");
    std::filesystem::create_directories(folder);
    job = job_of(recipe, ids, folder);
    qb::preflight(job);
  } catch (const qb::Error& error) {
    return {{"refused", error.what()}};
  }
  const auto start = std::chrono::steady_clock::now();
  const bool brief = line.value("brief", false);
  json blocks = json::array(), errors = json::array();
  std::vector<std::pair<std::string, at::Tensor>> seen;
  auto add = [&](const std::string& name, const at::Tensor& value) {
    if (value.defined()) seen.emplace_back(name, (value.scalar_type() == at::kBool ? value.to(at::kByte) : value).to(at::kCPU).clone());
  };
  try {
    qb::run_engine(job, {}, [&](const qb::BlockView& view) {
      blocks.push_back(json::parse(qb::to_json(qb::measure_block(view, job.scheme))));
      errors.push_back(blocks.back().at("output_relative_error"));
      if (brief) return;
      for (const qb::LinearWork& linear : view.work.linears) {
        const std::string& name = linear.info.tensor;
        add(name + ".original", job.model->source->read(name).to(at::kFloat));
        add(name + ".weight", linear.weight);
        add(name + ".kept", linear.kept);
        if (linear.range) add(name + ".low", linear.range->low);
        if (linear.range) add(name + ".high", linear.range->high);
        add(name + ".input_scale", linear.input_scale);
        add(name + ".output_scale", linear.output_scale);
        if (const auto it = view.work.statistics.find(linear.info.input); it != view.work.statistics.end()) add(name + ".rows", it->second.rows);
      }
      const std::string block = std::to_string(view.work.block.index);
      add(block + ".float_output", view.float_output);
      add(block + ".quantized_output", view.quantized_output);
    });
    add("logits", logits_of(job, ids));
  } catch (const std::exception& error) {
    return {{"failed", error.what()}};
  }
  qb::write_safetensors(folder / "work.safetensors", seen);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (brief) return {{"errors", errors}, {"seconds", seconds}};
  return {{"blocks", blocks}, {"seconds", seconds}};
}

}  // namespace

int main() {
  const at::NoGradGuard no_grad;
  for (std::string line; std::getline(std::cin, line);) {
    json answer;
    try {
      answer = carry_out(json::parse(line));
    } catch (const std::exception& error) {
      answer = {{"failed", error.what()}};
    }
    std::cout << answer.dump(-1, ' ', false, json::error_handler_t::replace) << std::endl;
  }
  return 0;
}
