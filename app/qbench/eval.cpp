#include <ATen/ATen.h>
#include <fmt/format.h>

#include <iostream>

#include "cli.h"
#include "core/base/error.h"
#include "core/engine/device.h"
#include "core/engine/engine.h"
#include "core/exporting/checkpoint.h"
#include "core/measure/perplexity.h"
#include "core/model/model_files.h"
#include "core/text/chat_template.h"
#include "core/text/corpus.h"
#include "core/text/tokenizer.h"
#include "eval_task.h"

namespace cli {
namespace {

struct Arguments {
  std::string model, text, field = "text", bos, dtype = "float32", device = "cpu";
  int64_t seq_len = 2048, windows = 0;
  TaskArguments task;
};

void require_device(const std::string& name) {
  std::string known;
  for (const qb::DeviceInfo& device : qb::devices()) {
    if (device.name == name) return;
    known += (known.empty() ? "" : ", ") + device.name;
  }
  throw qb::ResourceError(fmt::format("device {} is not here; there is {}", name, known));
}

int eval(const Arguments& a, const Options& options) {
  require_device(a.device);
  // Codes are evaluated as what they stand for, with activations rounded as the checkpoint asks.
  std::shared_ptr<const qb::Model> model;
  qb::LinearTap tap;
  qb::CacheTap cache_tap;
  bool by_token = true;
  if (qb::is_coded_checkpoint(a.model)) {
    const qb::QuantizedModel quantized = qb::open_checkpoint(a.model);
    model = quantized.model;
    tap = qb::activation_tap(quantized);
    cache_tap = qb::cache_tap(quantized);
    by_token = qb::rounds_by_token(quantized);
  } else {
    model = qb::Model::open(a.model);
  }
  for (const std::string& note : qb::notes_of(model->info)) std::cerr << "note: " << note << '\n';
  const auto tokenizer = qb::Tokenizer::load(a.model);
  const at::ScalarType dtype = a.dtype == "float32" ? at::kFloat : at::kBFloat16;
  if (!a.task.file.empty()) {
    print_notes(tokenizer->notes());
    return eval_task(model, *tokenizer, a.task, {.dtype = dtype, .device = at::Device(a.device), .tap = tap, .cache_tap = cache_tap, .by_token = by_token}, options);
  }
  const auto chat = qb::ChatTemplate::load(a.model, *tokenizer);
  const qb::Corpus corpus = qb::load_corpus({"", a.text, a.field}, chat.get());
  print_notes(corpus.notes);
  print_notes(tokenizer->notes());
  const qb::Bos bos = qb::bos_of(qb::parse_bos(a.bos), model->info.family, *tokenizer);
  const std::vector<int32_t> ids = qb::evaluation_tokens(corpus, *tokenizer, bos, a.seq_len);
  ProgressBar bar("eval");
  const qb::Control control{interrupt_token(), nullptr, [&](const qb::Progress& p) { bar.show(p); }};
  qb::PerplexitySpec spec{a.seq_len, a.windows, dtype, at::Device(a.device), tap, cache_tap};
  qb::PerplexityResult result = qb::perplexity(model, model->source, ids, spec, control);
  bar.clear();
  result.corpus = corpus.name;
  result.bos = qb::to_text(bos);
  if (options.json)
    std::cout << nlohmann::json{{"perplexity", number(result.perplexity)}, {"standard_error", number(result.standard_error)}, {"mean_nll", number(result.mean_nll)},
                                {"corpus", result.corpus}, {"corpus_hash", corpus.hash}, {"seq_len", result.seq_len}, {"windows", result.windows},
                                {"corpus_tokens", result.corpus_tokens}, {"dtype", result.dtype}, {"bos", result.bos}, {"seconds", result.seconds}, {"window_nll", result.window_nll}}
                     .dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
              << '\n';
  else
    std::cout << fmt::format("perplexity {:.4f} ± {:.4f}  ({}; {} tokens in all)\n{}, {} a window\n", result.perplexity, result.standard_error,
                             qb::conditions_text(result), result.corpus_tokens,
                             seconds_text(result.seconds), seconds_text(result.seconds / static_cast<double>(result.windows)));
  return ok;
}

}  // namespace

void add_eval(CLI::App& app, const Options& options, Action& action) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("eval", "Measure a model's perplexity on a text, or its accuracy on a task");
  command->add_option("model", a->model, "Model folder or .gguf file")->required();
  command->add_option("--text,-t", a->text, "Text file, .jsonl or .json file, or folder of them");
  add_task_options(*command, a->task);
  command->get_option("--text")->excludes(command->get_option("--task"));
  command->add_option("--field", a->field, "Field of JSON objects that holds the text or the conversation")->capture_default_str();
  command->add_option("--seq-len", a->seq_len, "Tokens a window")->check(CLI::Range(int64_t{2}, int64_t{1} << 24))->capture_default_str();
  command->add_option("--windows", a->windows, "Windows from the start of the text; 0: all")->check(CLI::NonNegativeNumber)->capture_default_str();
  add_bos_option(*command, a->bos);
  command->add_option("--dtype", a->dtype, "float32 or bfloat16")->check(CLI::IsMember({"float32", "bfloat16"}))->capture_default_str();
  command->add_option("--device,-d", a->device, "cpu, cuda:0 …")->envname("QBENCH_DEVICE")->capture_default_str();
  command->callback([a, &options, &action] {
    if (a->text.empty() && a->task.file.empty()) throw CLI::RequiredError("--text or --task");
    action = [a, &options] { return eval(*a, options); };
  });
}

}  // namespace cli
