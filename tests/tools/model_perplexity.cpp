// Perplexity of token ids: model_perplexity MODEL IDS.safetensors DTYPE WINDOWS SEQ_LEN [THREADS]
// IDS holds "ids" [tokens] int32 or int64. Prints one JSON line; running estimates go to standard error.
#include <ATen/Parallel.h>

#include <iostream>

#include "core/base/error.h"
#include "core/format/safetensors.h"
#include "core/measure/perplexity.h"

int main(int argc, char** argv) {
  if (argc < 6) return 2;
  try {
    if (argc > 6) at::set_num_threads(std::stoi(argv[6]));
    auto model = qb::Model::open(argv[1]);
    const at::Tensor tensor = qb::open_safetensors(argv[2])->read("ids").to(at::kInt).contiguous();
    const std::vector<int32_t> ids(tensor.const_data_ptr<int32_t>(), tensor.const_data_ptr<int32_t>() + tensor.numel());
    qb::PerplexitySpec spec;
    spec.dtype = std::string(argv[3]) == "bfloat16" ? at::kBFloat16 : std::string(argv[3]) == "float16" ? at::kHalf : at::kFloat;
    spec.windows = std::stoll(argv[4]);
    spec.seq_len = std::stoll(argv[5]);
    const qb::EvaluationResult result = qb::perplexity(model, nullptr, ids, spec, {}, [](const qb::EvaluationResult& so_far) {
      std::cerr << so_far.windows << " windows: " << so_far.value("perplexity") << " ± " << so_far.error("perplexity") << "\n";
    });
    std::cout << nlohmann::json{{"perplexity", result.value("perplexity")}, {"standard_error", result.error("perplexity")}, {"windows", result.windows}, {"seconds", result.seconds}, {"window_nll", result.values("nll")}, {"peak_rss", qb::peak_resident_bytes()}}.dump() << std::endl;
  } catch (const qb::Error& error) {
    std::cerr << (error.kind() == qb::ErrorKind::input ? "input error: " : "other error: ") << error.what() << "\n";
    return 1;
  }
  return 0;
}
