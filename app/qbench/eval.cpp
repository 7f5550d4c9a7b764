#include <ATen/ATen.h>
#include <fmt/format.h>

#include <iostream>
#include <optional>

#include "cli.h"
#include "core/base/error.h"
#include "core/engine/device.h"
#include "core/engine/engine.h"
#include "core/exporting/checkpoint.h"
#include "core/measure/divergence.h"
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
  std::string against, scored = "all", cache;
  bool noise_floor = false;
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

nlohmann::json json_of(const qb::EvaluationResult& result) {
  nlohmann::json metrics;
  for (const qb::Metric& metric : result.metrics) {
    nlohmann::json& one = metrics[metric.name] = {{"value", number(metric.value)}, {"standard_error", number(metric.standard_error)}};
    if (!metric.values.empty()) one["windows"] = metric.values;
    if (const qb::Histogram& h = metric.histogram; !h.empty()) one["histogram"] = {{"low", h.low}, {"high", h.high}, {"counts", h.counts}, {"below", h.below}, {"above", h.above}};
  }
  nlohmann::json settings = nlohmann::json::object();
  for (const auto& [name, value] : result.settings) settings[name] = qb::to_text(value);
  return {{"evaluator", result.evaluator}, {"corpus", result.corpus}, {"corpus_hash", result.corpus_hash}, {"seq_len", result.seq_len}, {"windows", result.windows}, {"windows_total", result.windows_total},
          {"corpus_tokens", result.corpus_tokens}, {"dtype", result.dtype}, {"bos", result.bos}, {"settings", settings}, {"float_model", result.float_model}, {"seconds", result.seconds}, {"metrics", metrics}};
}

void print_metrics(const qb::EvaluationResult& result) {
  std::vector<std::vector<std::string>> rows;
  for (const qb::MetricInfo& info : qb::divergence_metrics()) {
    const qb::Metric* metric = result.find(info.name);
    if (metric) rows.push_back({info.title, fmt::format("{:.6g}", metric->value), metric->standard_error > 0 ? fmt::format("± {:.2g}", metric->standard_error) : "", info.unit});
  }
  print_table({"", "", "", ""}, rows, {true, false, true, true});
}

// The model's divergence from another one, the float model it was made of.
int eval_against(const Arguments& a, const Options& options, const std::shared_ptr<const qb::Model>& model, const qb::WindowSpec& window, const qb::Corpus& corpus, const qb::Tokenizer& tokenizer) {
  std::shared_ptr<const qb::Model> reference;
  if (qb::is_coded_checkpoint(a.against)) {
    reference = qb::open_checkpoint(a.against).model;
    print_notes({fmt::format("{} is quantized: the divergence is from what its codes stand for", a.against)});
  } else {
    reference = qb::Model::open(a.against);
  }
  const qb::Scored scored = *qb::parse_scored(a.scored);
  const qb::DivergenceText text = qb::divergence_tokens(corpus, tokenizer, qb::parse_bos(a.bos), model->info.family, a.seq_len, scored);
  ProgressBar bar("eval");
  const qb::Control control{interrupt_token(), nullptr, [&](const qb::Progress& p) {
                              if (!p.message.empty()) {
                                bar.clear();
                                std::cerr << "note: " << p.message << '\n';
                                return;
                              }
                              bar.show(p);
                            }};
  const qb::DivergenceSpec spec{window, scored, a.cache, a.cache.empty() ? "" : qb::model_hash(a.against)};
  const auto named = [&](qb::EvaluationResult& result) {
    result.corpus = corpus.name;
    result.corpus_hash = corpus.hash;
    result.bos = qb::to_text(text.bos);
  };
  qb::EvaluationResult result = qb::divergence(model, nullptr, reference, text.ids, spec, control);
  named(result);
  std::optional<qb::NoiseFloor> floor;
  if (a.noise_floor) {
    floor = qb::noise_floor(reference, text.ids, spec, control);
    if (floor->dtype) named(*floor->dtype);
    named(floor->weights);
  }
  bar.clear();
  if (options.json) {
    nlohmann::json json = json_of(result);
    if (floor) json["noise_floor"] = {{"weights", json_of(floor->weights)}, {"dtype", floor->dtype ? json_of(*floor->dtype) : nlohmann::json(nullptr)}};
    std::cout << json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
    return ok;
  }
  std::cout << fmt::format("{} from {} in float32: {}, {} windows of {} tokens, {}, {}\n", bold(a.model), a.against, result.corpus, result.windows, result.seq_len, result.dtype,
                           scored == qb::Scored::all ? "all tokens scored" : "second halves scored");
  print_metrics(result);
  if (floor && floor->dtype) std::cout << fmt::format("noise floor: KL {:.3g} ± {:.2g} nats of {} in {}\n", floor->dtype->value("kl"), floor->dtype->find("kl")->standard_error, a.against, floor->dtype->dtype);
  if (floor) std::cout << fmt::format("noise floor: KL {:.3g} ± {:.2g} nats of {} with weights rounded to bfloat16\n", floor->weights.value("kl"), floor->weights.find("kl")->standard_error, a.against);
  std::cout << seconds_text(result.seconds) << '\n';
  return ok;
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
  if (!a.against.empty()) return eval_against(a, options, model, {a.seq_len, a.windows, dtype, at::Device(a.device), tap, cache_tap}, corpus, *tokenizer);
  const qb::Bos bos = qb::bos_of(qb::parse_bos(a.bos), model->info.family, *tokenizer);
  const std::vector<int32_t> ids = qb::evaluation_tokens(corpus, *tokenizer, bos, a.seq_len);
  ProgressBar bar("eval");
  const qb::Control control{interrupt_token(), nullptr, [&](const qb::Progress& p) { bar.show(p); }};
  qb::PerplexitySpec spec{a.seq_len, a.windows, dtype, at::Device(a.device), tap, cache_tap};
  qb::EvaluationResult result = qb::perplexity(model, model->source, ids, spec, control);
  bar.clear();
  result.corpus = corpus.name;
  result.bos = qb::to_text(bos);
  if (options.json)
    std::cout << nlohmann::json{{"perplexity", number(result.value("perplexity"))}, {"standard_error", number(result.error("perplexity"))}, {"mean_nll", number(result.value("nll"))},
                                {"corpus", result.corpus}, {"corpus_hash", corpus.hash}, {"seq_len", result.seq_len}, {"windows", result.windows},
                                {"corpus_tokens", result.corpus_tokens}, {"dtype", result.dtype}, {"bos", result.bos}, {"seconds", result.seconds}, {"window_nll", result.values("nll")}}
                     .dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
              << '\n';
  else
    std::cout << fmt::format("perplexity {:.4f} ± {:.4f}  ({}; {} tokens in all)\n{}, {} a window\n", result.value("perplexity"), result.error("perplexity"),
                             qb::conditions_text(result), result.corpus_tokens,
                             seconds_text(result.seconds), seconds_text(result.seconds / static_cast<double>(result.windows)));
  return ok;
}

}  // namespace

void add_eval(CLI::App& app, const Options& options, Action& action) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("eval", "Measure a model's perplexity on a text, its divergence from the float model, or its accuracy on a task");
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
  auto* against = command->add_option("--against", a->against, "The float model: measures how far MODEL's predictions are from its own (KL divergence and more)");
  command->add_option("--scored", a->scored, "all, or second_half of each window, as llama.cpp does")->check(CLI::IsMember({"all", "second_half"}))->capture_default_str()->needs(against);
  command->add_option("--cache", a->cache, "Folder that keeps the float model's states between calls")->needs(against);
  command->add_flag("--noise-floor", a->noise_floor, "Measures the float model in --dtype, and with bfloat16 weights, beside itself too")->needs(against);
  command->callback([a, &options, &action] {
    if (a->text.empty() && a->task.file.empty()) throw CLI::RequiredError("--text or --task");
    action = [a, &options] { return eval(*a, options); };
  });
}

}  // namespace cli
