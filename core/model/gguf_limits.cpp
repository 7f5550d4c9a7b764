#include "core/model/gguf_limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace qb {
namespace {

struct Limit {
  std::vector<std::string> architectures;
  bool (*met)(const Architecture& a);  // by a model that cannot be run
  const char* sentence;
};

bool has_window(const Architecture& a) {
  return std::any_of(a.layers.begin(), a.layers.end(), [](const LayerSpec& layer) { return layer.window > 0; });
}

// The first layer that takes keys and values of earlier ones; as many as there are: none does.
int64_t first_sharing(const Architecture& a) {
  return std::find_if(a.layers.begin(), a.layers.end(), [](const LayerSpec& layer) { return layer.takes_kv >= 0; }) - a.layers.begin();
}

bool slides_but_every(const Architecture& a, size_t period) {
  for (size_t i = 0; i < a.layers.size(); ++i)
    if ((a.layers[i].window > 0) == ((i + 1) % period == 0)) return false;
  return true;
}

bool other_sparsity(const Architecture& a) {
  constexpr size_t kSparse = 10;
  constexpr double kDeviations = 1.6448536;
  for (size_t i = 0; i < a.layers.size(); ++i) {
    const auto& gate = a.layers[i].gate_deviations;
    if (i < kSparse ? !gate || std::abs(*gate - kDeviations) > 1e-5 : gate.has_value()) return true;
  }
  return false;
}

const std::vector<Limit>& limits() {
  static const std::vector<Limit> all = {
      {{"gemma3n"}, [](const Architecture& a) { return first_sharing(a) != std::min<int64_t>(a.blocks, 20); }, "of its layers the first 20 have keys and values of their own, all others take those"},
      {{"gemma3n"}, other_sparsity, "gates of its first 10 layers keep the largest 5 % of their channels, those of all others all"},
      {{"gemma3n"}, [](const Architecture& a) { return !slides_but_every(a, 5); }, "every fifth layer of it sees everything, the others have a sliding window"},
      {{"gemma3n"}, [](const Architecture& a) { return a.streams.count != 4 || a.streams.active != 0 || a.streams.laurel_rank != 64 || a.streams.token_width != 256; },
       "it has four streams (altup_num_inputs), of which it computes the first, a laurel_rank of 64, and a hidden_size_per_layer_input of 256"},
      {{"gemma3n"}, [](const Architecture& a) { return a.logit_softcap != 30; }, "its logits are capped at 30"},
      {{"gemma", "gemma2", "command-r", "cohere2"}, [](const Architecture& a) { return !a.tied_embeddings; }, "it has no output matrix of its own, the model has one"},
      {{"nemotron", "olmo2", "gpt-oss", "qwen2moe", "gptneox", "stablelm", "phi2", "minimax-m2"}, [](const Architecture& a) { return a.tied_embeddings; }, "it needs an output matrix of its own, the model's is that of the embedding"},
      {{"arcee", "seed_oss", "olmo", "olmo2", "hunyuan-dense", "hunyuan-moe", "ernie4_5-moe", "command-r", "cohere2", "gemma", "gemma3n", "qwen3", "qwen3moe", "smollm3", "falcon", "llama4", "mistral4", "deepseek2"}, [](const Architecture& a) { return a.o_bias; }, "attention's output has no bias there"},
      {{"arcee", "seed_oss", "ernie4_5", "ernie4_5-moe", "smollm3"}, [](const Architecture& a) { return a.mlp_bias; }, "the MLP has no biases there"},
      {{"gptneox", "starcoder2", "gpt-oss"}, [](const Architecture& a) { return !a.qkv_bias; }, "attention needs biases there"},
      {{"lfm2", "lfm2moe"}, [](const Architecture& a) { return a.convolution_bias; }, "convolutions have no biases there"},
      {{"olmoe", "dots1"}, [](const Architecture& a) { return a.kv_heads != a.heads; }, "it has as many key/value heads as query heads"},
      {{"command-r"}, [](const Architecture& a) { return a.head_norm != HeadNorm::none && a.blocks < 64; }, "only its models of 64 blocks and more have norms of queries and keys"},
      {{"chatglm", "nemotron"}, [](const Architecture& a) { return a.head_dim * a.heads != a.hidden_size; }, "its heads are hidden_size / num_attention_heads wide"},
      {{"gpt-oss"}, [](const Architecture& a) { return !has_window(a); }, "every other block of it has a sliding window"},
      {{"exaone4"}, [](const Architecture& a) { return has_window(a) && a.blocks != 64; }, "only its model of 64 blocks has sliding windows"},
      {{"phimoe"}, [](const Architecture& a) { return a.router.score == RouterScore::sparse_mixer; }, "it weighs experts by a softmax, not by a sparse mixer"},
      {{"baichuan"}, [](const Architecture& a) { return a.position == PositionKind::rotary && a.blocks != 32; }, "only its model of 32 blocks has a rotation"},
      {{"qwen35", "qwen35moe"}, [](const Architecture& a) { return a.delta.key_dim != a.delta.value_dim; }, "key and value heads of linear attention are equally wide there"},
      {{"deepseek2"}, [](const Architecture& a) { return a.latent.q_rank == 0 && a.blocks != 26 && a.blocks != 27; }, "only its models of 26 and 27 blocks make queries without a narrow vector"},
      {{"deepseek2"}, [](const Architecture& a) { return a.router.groups > 1 && !a.router.group_by_two; }, "it chooses groups of experts by their best two, not by the best one"},
      // With narrow vectors as long as a norm makes them, an epsilon of up to 1e-5 is not seen.
      {{"deepseek2", "mistral4"}, [](const Architecture& a) { return std::abs(a.latent.norm_eps - a.norm_eps) > 2e-5; }, "norms of narrow vectors have the epsilon of the others there"},
  };
  return all;
}

}  // namespace

std::string llama_cpp_limit(const std::string& arch, const Architecture& a) {
  for (const Limit& limit : limits())
    if (std::find(limit.architectures.begin(), limit.architectures.end(), arch) != limit.architectures.end() && limit.met(a)) return fmt::format("llama.cpp's {}: {}", arch, limit.sentence);
  return "";
}

bool llama_cpp_ignores_window(const std::string& arch) { return arch == "phi3" || arch == "starcoder2" || arch == "mistral3"; }

}  // namespace qb
