#include <ATen/ATen.h>
#include <fmt/format.h>

#include <iostream>

#include "calibration_text.h"
#include "cli.h"
#include "core/base/error.h"
#include "core/engine/importance.h"

namespace cli {
namespace {

struct Arguments {
  std::string model, text, field = "text", bos, output, dtype = "bfloat16", device = "cpu";
  int64_t samples = 128, seq_len = 512;
};

int imatrix(const Arguments& a, const Options& options) {
  const auto model = qb::Model::open(a.model);
  ProgressBar bar("imatrix");
  const qb::Control control{interrupt_token(), nullptr, [&](const qb::Progress& p) { bar.show(p); }};
  const auto [corpus, tokens] = calibration_tokens({a.model, a.text, a.field, a.bos, a.samples, a.seq_len}, *model, control);
  const auto folder = std::filesystem::absolute(a.output).parent_path();
  qb::ImportanceMatrix matrix = qb::importance_matrix(model, tokens, a.dtype == "float32" ? at::kFloat : at::kBFloat16, at::Device(a.device), folder, control);
  matrix.datasets = {corpus};
  qb::write_imatrix(a.output, matrix);
  bar.clear();
  if (options.json)
    std::cout << nlohmann::json{{"path", a.output}, {"entries", matrix.entries.size()}, {"tokens", tokens.tokens()}}.dump(2) << '\n';
  else
    std::cout << fmt::format("{}  {} matrices, {} tokens of {}\n", bold(a.output), matrix.entries.size(), tokens.tokens(), corpus);
  return ok;
}

}  // namespace

void add_imatrix(CLI::App& app, const Options& options, Action& action) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("imatrix", "Write a model's importance matrix on a text, as llama.cpp's quantizer reads it");
  command->add_option("model", a->model, "Model folder or .gguf file")->required();
  command->add_option("--text,-t", a->text, "Text file, .jsonl or .json file, or folder of them")->required();
  command->add_option("--output,-o", a->output, "File to write (.gguf)")->required();
  command->add_option("--field", a->field, "Field of JSON objects that holds the text or the conversation")->capture_default_str();
  command->add_option("--samples", a->samples, "Windows of text")->check(CLI::Range(int64_t{1}, int64_t{1} << 24))->capture_default_str();
  command->add_option("--seq-len", a->seq_len, "Tokens a window")->check(CLI::Range(int64_t{1}, int64_t{1} << 24))->capture_default_str();
  add_bos_option(*command, a->bos);
  command->add_option("--dtype", a->dtype, "float32 or bfloat16")->check(CLI::IsMember({"float32", "bfloat16"}))->capture_default_str();
  command->add_option("--device,-d", a->device, "cpu, cuda:0 …")->envname("QBENCH_DEVICE")->capture_default_str();
  command->callback([a, &options, &action] { action = [a, &options] { return imatrix(*a, options); }; });
}

}  // namespace cli
