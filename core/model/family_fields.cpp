#include "core/model/family_fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

namespace qb {

Activation read_activation(const ConfigFields& f, const std::vector<std::string>& keys, std::optional<std::string> fallback) {
  static const std::map<std::string, Activation> known = {
      {"silu", Activation::silu}, {"swish", Activation::silu}, {"gelu", Activation::gelu}, {"gelu_python", Activation::gelu},
      {"gelu_new", Activation::gelu_tanh}, {"gelu_pytorch_tanh", Activation::gelu_tanh}, {"gelu_fast", Activation::gelu_tanh},
      {"quick_gelu", Activation::quick_gelu}, {"relu", Activation::relu}, {"relu2", Activation::relu_squared}};
  const std::string name = f.text(keys, fallback);
  auto it = known.find(name);
  if (it != known.end()) return it->second;
  std::vector<std::string> names;
  for (const auto& [key, value] : known) names.push_back(key);
  f.fail(f.has(keys.front()) ? keys.front() : keys.back(), fmt::format("one of {}", fmt::join(names, ", ")));
}

namespace {

std::vector<std::string> with(std::vector<std::string> keys, const std::string& key) {
  keys.push_back(key);
  return keys;
}

void finish_dimensions(const ConfigFields& f, Architecture& a) {
  if (a.heads % a.kv_heads != 0) f.fail("num_key_value_heads", fmt::format("a divisor of the {} attention heads", a.heads));
  if (a.head_dim == 0) {
    if (a.hidden_size % a.heads != 0)
      f.fail(f.has("n_embed") ? "n_embed" : "hidden_size", fmt::format("a multiple of the {} attention heads, or a head_dim", a.heads));
    a.head_dim = a.hidden_size / a.heads;
  }
  a.embedding_size = a.hidden_size;
  a.attention_scale = 1 / std::sqrt(static_cast<double>(a.head_dim));
  a.layers.resize(a.blocks);
}

void read_sizes(const ConfigFields& f, Architecture& a, const OlderNames& older) {
  a.vocabulary = f.integer({"vocab_size"}, {}, 1, kMaxVocabulary);
  a.hidden_size = f.integer(with(older.hidden_size, "hidden_size"), {}, 1, kMaxWidth);
  a.blocks = f.integer(with(older.blocks, "num_hidden_layers"), {}, 1, kMaxBlocks);
  a.heads = f.integer(with(older.heads, "num_attention_heads"), {}, 1, kMaxHeads);
}

}  // namespace

void read_dimensions(const ConfigFields& f, Architecture& a, int64_t kv_heads) {
  read_sizes(f, a, {});
  std::optional<int64_t> fallback;
  if (kv_heads >= 0) fallback = kv_heads == 0 || f.json().contains("num_key_value_heads") ? a.heads : kv_heads;
  a.kv_heads = f.integer({"num_key_value_heads"}, fallback, 1, kMaxHeads);
  a.head_dim = f.integer({"head_dim"}, 0, 1, 1 << 14);
  finish_dimensions(f, a);
}

void read_plain_dimensions(const ConfigFields& f, Architecture& a, const OlderNames& older) {
  read_sizes(f, a, older);
  a.kv_heads = a.heads;
  finish_dimensions(f, a);
}

void read_intermediate(const ConfigFields& f, Architecture& a) { a.intermediate_size = f.integer({"intermediate_size"}, {}, 1, kMaxWidth); }

void read_context(const ConfigFields& f, Architecture& a) { a.context_length = f.integer({"max_position_embeddings"}, {}, 1, int64_t{1} << 31); }

void read_tied(const ConfigFields& f, Architecture& a, bool fallback) { a.tied_embeddings = f.boolean("tie_word_embeddings", fallback); }

RopeDefaults whole_rotation(double theta) {
  RopeDefaults rope;
  rope.theta = theta;
  rope.fraction_keys.clear();
  return rope;
}

}  // namespace qb
