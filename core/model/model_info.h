#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/base/control.h"

namespace qb {

// One quantizable weight matrix [out_features, in_features].
struct LinearInfo {
  std::string name;      // inside its block: "self_attn.q_proj", "mlp.experts.3.down_proj"
  std::string tensor;    // canonical (Hugging Face) name: "model.layers.0.self_attn.q_proj.weight"
  std::string subset;    // kind of its input, for people: "qkv", "o", "gate_up", "down", …
  int input = 0;         // the value of its layer that it reads: linears of a block with the same one share their input
  int64_t out_features = 0;
  int64_t in_features = 0;
  std::string dtype;     // as stored
  uint64_t bytes = 0;
};

// A tensor that is no linear of a block: embeddings, positions, norms, routers, biases, the head.
struct OtherTensor {
  std::string name;      // inside its block; outside of blocks the whole: "model.embed_tokens.weight"
  std::string tensor;    // canonical name of what is stored; of a tied head that is the embedding
  std::string kind;      // "embedding", "positions", "norm", "router", "head", else empty
  std::vector<int64_t> shape;
  std::string dtype;
  uint64_t bytes = 0;    // of its own: none of a tied head
  bool tied = false;     // a head whose rows are the embedding's
};

struct BlockInfo {
  int index = 0;
  std::vector<LinearInfo> linears;
  std::vector<OtherTensor> others;
};

// What a model is, from its headers only (milliseconds, whatever its size). Torch-free: views and the CLI show it.
struct ModelInfo {
  std::filesystem::path path;
  std::string name;             // folder's or file's name, or general.name
  std::string hash;             // model_hash(); empty where nobody asked for it
  std::string family;           // "llama", "qwen2", "gemma2", …
  std::string format;           // "safetensors" | "gguf"
  int64_t parameters = 0;
  uint64_t bytes = 0;           // of all tensors on disk
  int64_t hidden_size = 0, intermediate_size = 0, heads = 0, kv_heads = 0, head_dim = 0, vocabulary = 0, context_length = 0;
  int64_t experts = 0, experts_per_token = 0;
  bool tied_embeddings = false;
  std::string dtype;            // of most weights
  std::string tokenizer;        // Tokenizer::description(), or why there is none
  std::vector<BlockInfo> blocks;
  std::vector<OtherTensor> before, after;  // outside of blocks, as the forward pass reads them: embeddings; final norm, head
  std::vector<std::pair<std::string, std::string>> facts;  // further lines to show: rope, norm, activation, …
};

// A row of the table of architectures.
struct FamilyInfo {
  std::string name, title;               // "qwen2_moe", "Qwen2-MoE"
  std::vector<std::string> model_types;  // of config.json
  std::vector<std::string> gguf;         // general.architecture; empty: not as GGUF
};
std::vector<FamilyInfo> known_families();

// Opens headers only. Throws InputError naming the file, key or tensor, what was found and what was expected.
ModelInfo inspect_model(const std::filesystem::path& path);

// Content identity of a model: names, shapes, sizes and sampled bytes of every tensor. Milliseconds to seconds.
std::string model_hash(const std::filesystem::path& path);

}  // namespace qb
