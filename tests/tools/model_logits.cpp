// Logits of token ids: model_logits MODEL IN.safetensors OUT.safetensors [float32|bfloat16]
// or, one process for many: model_logits -, with lines "MODEL<tab>IN<tab>OUT" on standard input, each answered by a JSON
// line: {} or {"error": …, "kind": "input" | "other" | "foreign"}.
// IN holds "ids" [batch, seq] int64; OUT gets "logits" [batch, seq, vocabulary] float32 and "nll" [batch, seq - 1].
#include <iostream>

#include "core/base/error.h"
#include "core/engine/engine.h"
#include "core/exporting/checkpoint.h"
#include "core/format/safetensors.h"
#include "core/model/decoder.h"
#include "tests/tools/device.h"

namespace {

void write_logits(const std::string& path, const std::string& in, const std::string& out, at::ScalarType dtype) {
  // Codes as what they stand for, with activations rounded as the checkpoint asks.
  std::shared_ptr<const qb::Model> model;
  qb::ForwardContext context;
  if (qb::is_coded_checkpoint(path)) {
    const qb::QuantizedModel quantized = qb::open_checkpoint(path);
    model = quantized.model;
    context.at_linear = qb::activation_tap(quantized);
    context.at_cache = qb::cache_tap(quantized);
  } else {
    model = qb::Model::open(path);
  }
  const at::Tensor ids = qb::open_safetensors(in)->read("ids").clone();
  qb::Decoder decoder(model, nullptr, dtype, wanted_device());
  at::Tensor hidden = decoder.embed(ids);
  for (int b = 0; b < decoder.blocks(); ++b) hidden = decoder.forward(decoder.load_block(b), hidden, context);
  qb::write_safetensors(out, {{"logits", decoder.logits(hidden)}, {"nll", decoder.negative_log_likelihood(hidden, ids)}});
}

void answer_lines() {
  for (std::string line; std::getline(std::cin, line);) {
    const size_t first = line.find('\t'), second = line.find('\t', first + 1);
    nlohmann::json answer = nlohmann::json::object();
    try {
      write_logits(line.substr(0, first), line.substr(first + 1, second - first - 1), line.substr(second + 1), at::kFloat);
    } catch (const qb::Error& error) {
      answer = {{"error", error.what()}, {"kind", error.kind() == qb::ErrorKind::input ? "input" : "other"}};
    } catch (const std::exception& error) {
      answer = {{"error", error.what()}, {"kind", "foreign"}};
    }
    std::cout << answer.dump() << std::endl;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "-") {
    answer_lines();
    return 0;
  }
  if (argc < 4) return 2;
  try {
    write_logits(argv[1], argv[2], argv[3], argc > 4 && std::string(argv[4]) == "bfloat16" ? at::kBFloat16 : at::kFloat);
  } catch (const qb::Error& error) {
    std::cerr << (error.kind() == qb::ErrorKind::input ? "input error: " : "other error: ") << error.what() << "\n";
    return 1;
  }
  return 0;
}
