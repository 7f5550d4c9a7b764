#include "core/run/run_inputs.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/given_blocks.h"
#include "core/engine/vocabulary.h"
#include "core/exporting/checkpoint.h"
#include "core/format/imatrix.h"
#include "core/measure/divergence.h"
#include "core/measure/evaluators.h"
#include "core/measure/task.h"
#include "core/quant/mixes.h"
#include "core/run/run_import.h"
#include "core/text/chat_template.h"
#include "core/text/tokenizer.h"

namespace qb {

std::map<std::string, KnobValue> RunText::settings(const EvaluationSpec& spec) const {
  std::map<std::string, KnobValue> all = all_knobs(spec);
  if (task) all["few_shot"] = task->few_shot;
  return all;
}

double RunText::windows(const EvaluationSpec& spec) const {
  if (task) return static_cast<double>(task->items.size());
  const auto all = static_cast<int64_t>(ids.size()) / spec.seq_len;
  return static_cast<double>(spec.windows > 0 ? std::min(spec.windows, all) : all);
}

std::shared_ptr<const Model> open_model(const Recipe& recipe) {
  if (recipe.dequantize && is_coded_checkpoint(recipe.model)) return open_checkpoint(recipe.model).model;
  auto model = Model::open(recipe.model);
  if (!recipe.dequantize) require_numbers(*model);
  return model;
}

RunInputs load_inputs(const Recipe& recipe, const Control& control) {
  RunInputs inputs;
  if (!recipe.checkpoint.empty()) {
    auto checkpoint = std::make_shared<QuantizedModel>(open_checkpoint(recipe.checkpoint));
    scheme_of(*checkpoint);  // refuses one without codes
    inputs.checkpoint_hash = model_hash(recipe.checkpoint);
    if (!has_original(recipe)) inputs.model = checkpoint->model;
    inputs.checkpoint = std::move(checkpoint);
  }
  if (!inputs.model) inputs.model = open_model(recipe);
  if (inputs.checkpoint) require_same_architecture(*inputs.model, *inputs.checkpoint->model);
  inputs.model_hash = model_hash(recipe.model);
  control.checkpoint();
  if (!recipe.importance.empty()) {
    inputs.importance = std::make_shared<ImportanceMatrix>(read_imatrix(recipe.importance));
    Hasher hasher;
    hasher.update(MappedFile::open(recipe.importance)->bytes());
    inputs.importance_hash = hasher.hex();
  }
  if (!recipe.calibration && recipe.evaluation.empty()) return inputs;
  const auto tokenizer = Tokenizer::load(recipe.model);
  const auto chat = ChatTemplate::load(recipe.model, *tokenizer);
  inputs.notes = tokenizer->notes();
  auto load = [&](const CorpusSpec& spec) {
    Corpus corpus = load_corpus(spec, chat.get());
    inputs.notes.insert(inputs.notes.end(), corpus.notes.begin(), corpus.notes.end());
    return corpus;
  };
  const int64_t vocabulary = inputs.model->architecture.vocabulary;
  auto check_ids = [&](const std::vector<int32_t>& ids, const std::string& name) {
    for (int32_t id : ids)
      if (id < 0 || id >= vocabulary)
        throw InputError(fmt::format("{}: token id {} of {} is outside the model's vocabulary of {}; tokenizer of another model?",
                                     recipe.model.string(), id, name, vocabulary));
  };
  // Of a checkpoint without its original there are no errors to measure on it.
  if (recipe.calibration && (!inputs.checkpoint || inputs.checkpoint->model != inputs.model)) {
    const Corpus corpus = load(recipe.calibration->corpus);
    SamplingSpec sampling = recipe.calibration->sampling;
    sampling.bos = bos_of(sampling.bos, inputs.model->info.family, *tokenizer);
    inputs.calibration = sample_tokens(corpus, *tokenizer, sampling, control);
    for (const auto& sample : inputs.calibration.samples) check_ids(sample, corpus.name);
  }
  const int64_t context = longest_sequence(inputs.model->architecture);
  for (const EvaluationSpec& spec : recipe.evaluation) {
    control.checkpoint();
    if (find_evaluator(spec.evaluator)->data == EvaluationData::task) {
      const auto few_shot = std::get<int64_t>(knob(spec, "few_shot"));
      auto task = std::make_shared<Task>(load_task({spec.corpus.path, few_shot > 0 ? std::optional(few_shot) : std::nullopt, {}, std::get<int64_t>(knob(spec, "limit"))}));
      RunText text{spec.corpus.name.empty() ? task->name : spec.corpus.name, task->hash};
      inputs.notes.insert(inputs.notes.end(), task->notes.begin(), task->notes.end());
      for (const Continuation& c : task_continuations(*task, *tokenizer, context)) {
        check_ids(c.tokens, text.name);
        text.task_tokens += static_cast<int64_t>(c.tokens.size());
      }
      text.task = std::move(task);
      text.tokenizer = tokenizer;
      inputs.texts.push_back(std::move(text));
      continue;
    }
    if (context > 0 && spec.seq_len > context)
      throw InputError(fmt::format("evaluation: seq_len {} is above {}'s context of {} tokens", spec.seq_len, inputs.model->info.name, context));
    const Corpus corpus = load(spec.corpus);
    RunText text{corpus.name, corpus.hash};
    if (spec.evaluator == "divergence") {
      if (inputs.checkpoint && inputs.checkpoint->model == inputs.model)
        throw InputError(fmt::format("evaluation: divergence is measured from the float model, which {} lacks; name the original as model.path", recipe.checkpoint.string()));
      DivergenceText cut = divergence_tokens(corpus, *tokenizer, spec.bos, inputs.model->info.family, spec.seq_len, *parse_scored(to_text(knob(spec, "scored"))));
      text.ids = std::move(cut.ids);
      text.bos = cut.bos;
    } else {
      text.bos = bos_of(spec.bos, inputs.model->info.family, *tokenizer);
      text.ids = evaluation_tokens(corpus, *tokenizer, text.bos, spec.seq_len);
    }
    check_ids(text.ids, corpus.name);
    if (static_cast<int64_t>(text.ids.size()) < spec.seq_len)
      throw InputError(fmt::format("evaluation: {} has {} tokens, a window needs {}", corpus.name, text.ids.size(), spec.seq_len));
    inputs.texts.push_back(std::move(text));
  }
  return inputs;
}

EngineJob make_job(const Recipe& recipe, const RunInputs& inputs, const RunOptions& options, const std::filesystem::path& folder) {
  EngineJob job;
  job.model = inputs.model;
  job.calibration = inputs.calibration;
  job.scheme = with_tied_vocabulary(recipe.scheme.mix.empty() ? recipe.scheme : with_mix(recipe.scheme, recipe.scheme.mix, inputs.model->architecture), inputs.model->architecture);
  job.pipeline = recipe.pipeline;
  job.dtype = recipe.dtype == "float32" ? at::kFloat : at::kBFloat16;
  try {
    job.device = at::Device(options.device);
  } catch (const c10::Error&) {
    throw InputError(fmt::format("device \"{}\": expected cpu or cuda:0, cuda:1 …", options.device));
  }
  job.propagate_quantized = recipe.propagate_quantized;
  job.seed = recipe.seed;
  job.folder = folder;
  job.fingerprint = {{"recipe", recipe_hash(recipe)}, {"model", inputs.model_hash}, {"calibration", inputs.calibration.hash}, {"device", options.device}};
  if (inputs.importance) {
    job.importance = inputs.importance;
    job.importance_path = recipe.importance;
    job.fingerprint["importance"] = inputs.importance_hash;
  }
  if (inputs.checkpoint) {
    job.given = inputs.checkpoint;
    job.compared = inputs.checkpoint->model != inputs.model;
    job.scheme = scheme_of(*inputs.checkpoint);
    if (job.compared && !inputs.checkpoint->model->architecture.tied_embeddings) job.model = with_own_head(inputs.model, inputs.checkpoint->model->source);
    job.fingerprint["checkpoint"] = inputs.checkpoint_hash;
  }
  return job;
}

}  // namespace qb
