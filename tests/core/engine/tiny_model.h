#pragma once
#include <ATen/ATen.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "core/engine/engine.h"
#include "core/format/safetensors.h"
#include "core/model/families.h"

namespace qb::testing {

struct TinyShape {
  int64_t hidden = 64, inner = 96, heads = 4, kv_heads = 2, blocks = 3, vocabulary = 96, context = 64;
};

// Writes a random Llama as a Hugging Face folder. `edit` may change tensors by name before they are written.
inline std::filesystem::path write_tiny_llama(const std::filesystem::path& folder, const TinyShape& s = {},
                                              const std::function<void(const std::string&, at::Tensor&)>& edit = {}) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << nlohmann::json{
      {"architectures", {"LlamaForCausalLM"}}, {"model_type", "llama"}, {"hidden_size", s.hidden}, {"intermediate_size", s.inner},
      {"num_attention_heads", s.heads}, {"num_key_value_heads", s.kv_heads}, {"num_hidden_layers", s.blocks}, {"vocab_size", s.vocabulary},
      {"rms_norm_eps", 1e-5}, {"rope_theta", 10000.0}, {"max_position_embeddings", s.context}, {"tie_word_embeddings", true},
      {"hidden_act", "silu"}, {"torch_dtype", "float32"}};
  auto generator = at::detail::createCPUGenerator(11);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  auto add = [&](const std::string& name, at::IntArrayRef shape) {
    at::Tensor t = shape.size() == 1 ? at::rand(shape, generator).add_(0.5) : at::randn(shape, generator).mul_(1.5 / std::sqrt(static_cast<double>(shape[1])));
    if (edit) edit(name, t);
    tensors.emplace_back(name, t);
  };
  const int64_t kv = s.hidden / s.heads * s.kv_heads;
  add("model.embed_tokens.weight", {s.vocabulary, s.hidden});
  for (int64_t i = 0; i < s.blocks; ++i) {
    const std::string p = "model.layers." + std::to_string(i) + ".";
    add(p + "input_layernorm.weight", {s.hidden});
    add(p + "self_attn.q_proj.weight", {s.hidden, s.hidden});
    add(p + "self_attn.k_proj.weight", {kv, s.hidden});
    add(p + "self_attn.v_proj.weight", {kv, s.hidden});
    add(p + "self_attn.o_proj.weight", {s.hidden, s.hidden});
    add(p + "post_attention_layernorm.weight", {s.hidden});
    add(p + "mlp.gate_proj.weight", {s.inner, s.hidden});
    add(p + "mlp.up_proj.weight", {s.inner, s.hidden});
    add(p + "mlp.down_proj.weight", {s.hidden, s.inner});
  }
  add("model.norm.weight", {s.hidden});
  write_safetensors(folder / "model.safetensors", tensors);
  return folder;
}

// Random tensors for a configuration of any family, as a Hugging Face folder.
inline std::filesystem::path write_tiny(const std::filesystem::path& folder, const nlohmann::json& config) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << config;
  const Architecture a = architecture_from_config(ConfigFields(config, "config.json"));
  auto generator = at::detail::createCPUGenerator(11);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  auto add = [&](const std::string& name, at::IntArrayRef shape) {
    tensors.emplace_back(name, shape.size() == 1 ? at::rand(shape, generator).add_(0.5) : at::randn(shape, generator).mul_(1 / std::sqrt(static_cast<double>(shape[1]))));
  };
  for (const TensorSpec& spec : a.globals) add(spec.name, spec.shape);
  for (int64_t i = 0; i < a.blocks; ++i) {
    for (const LinearSpec& linear : a.layers[static_cast<size_t>(i)].linears) add(a.block_prefix(i) + linear.name + ".weight", {linear.out, linear.in});
    for (const TensorSpec& other : a.layers[static_cast<size_t>(i)].others) add(a.block_prefix(i) + other.name, other.shape);
  }
  write_safetensors(folder / "model.safetensors", tensors);
  return folder;
}

// Four streams of hidden states, and a last layer that takes the keys and values of the first: blocks hand on more than what is hidden states.
inline std::filesystem::path write_tiny_gemma3n(const std::filesystem::path& folder) {
  return write_tiny(folder, {{"model_type", "gemma3n_text"}, {"vocab_size", 96}, {"vocab_size_per_layer_input", 90}, {"hidden_size", 64}, {"intermediate_size", 96},
                             {"num_hidden_layers", 3}, {"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"head_dim", 16}, {"max_position_embeddings", 64},
                             {"layer_types", {"sliding_attention", "full_attention", "sliding_attention"}}, {"sliding_window", 8}, {"num_kv_shared_layers", 1},
                             {"hidden_size_per_layer_input", 32}, {"laurel_rank", 32}, {"activation_sparsity_pattern", {0.5, 0.0, 0.0}}});
}

// `samples` sequences of `length` pseudo-random ids below `vocabulary`.
inline TokenSet tiny_tokens(int64_t samples, int64_t length, int64_t vocabulary = 96) {
  TokenSet set;
  uint32_t state = 1;
  for (int64_t s = 0; s < samples; ++s) {
    auto& ids = set.samples.emplace_back();
    for (int64_t i = 0; i < length; ++i) ids.push_back(static_cast<int32_t>((state = state * 1664525u + 1013904223u) >> 8) % static_cast<int32_t>(vocabulary));
  }
  set.hash = "tiny";
  return set;
}

// W3A8 in groups of 32, which disturbs the hidden states enough to see.
inline EngineJob tiny_job(const std::filesystem::path& model, const std::filesystem::path& folder) {
  EngineJob job;
  job.model = Model::open(model);
  job.calibration = tiny_tokens(4, 24);
  job.scheme.weights = QuantSpec{};
  job.scheme.weights->type.bits = 3;
  job.scheme.weights->group_size = 32;
  job.scheme.activations = QuantSpec{};
  job.scheme.activations->type.bits = 8;
  job.scheme.activations->granularity = Granularity::token;
  job.scheme.activations->scale_type = ScaleType::f32;
  job.dtype = at::kFloat;
  job.folder = folder;
  job.fingerprint = {{"recipe", "r1"}, {"model", "m1"}, {"calibration", "c1"}};
  job.measured_tokens = 48;
  return job;
}

// What an error of this kind says, or that there was none.
template <class E>
std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const E& error) {
    return error.what();
  }
  return "(no error)";
}

inline bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace qb::testing
