#include "core/model/gguf_config.h"

#include <fmt/format.h>

#include <cmath>
#include <set>

#include "core/base/error.h"
#include "core/model/families.h"

// Keys as gguf-py's constants name them; which configuration field each one came from is llama.cpp's conversion script's
// knowledge, checked in tests/conformance against files written with gguf-py.
namespace qb {
namespace {

class Translator {
 public:
  Translator(const GgufFile& file, std::string origin, std::string arch) : file_(file), origin_(std::move(origin)), arch_(std::move(arch)) {}

  // Copies "<arch>.<key>" under config.json's name ("rope_scaling.factor" in an object) when the file has it.
  void integer(const std::string& key, const std::string& name) {
    spell(key, name);
    if (const auto* list = per_layer(key)) {
      for (int64_t value : *list)
        if (value != list->front()) throw InputError(fmt::format("{}: key \"{}\" differs between blocks, which is not supported", origin_, full(key)));
      place(name) = list->empty() ? 0 : list->front();
      return;
    }
    if (auto value = file_.integer(full(key))) place(name) = *value;
  }
  void real(const std::string& key, const std::string& name) {
    spell(key, name);
    if (auto value = file_.real(full(key))) place(name) = *value;
  }
  void boolean(const std::string& key, const std::string& name) {
    spell(key, name);
    if (auto value = file_.boolean(full(key))) place(name) = *value;
  }
  void text(const std::string& key, const std::string& name) {
    spell(key, name);
    if (auto value = file_.text(full(key))) place(name) = *value;
  }
  // A key that this program cannot vary: it must say what is computed. expected 0: other keys do not say what that is.
  void must_be(const std::string& key, int64_t expected) {
    taken_.insert(key);
    if (auto value = file_.integer(full(key)); value && expected > 0 && *value != expected)
      throw InputError(fmt::format("{}: key \"{}\" is {}, expected {}", origin_, full(key), *value, expected));
  }
  // What the file says otherwise than by a key.
  template <typename T>
  void set(const std::string& name, T value) {
    place(name) = std::move(value);
    if (!spelled_.contains(name)) derived_.push_back(name);
  }
  void forget(const std::string& name) { config_.erase(name); }
  bool has(const std::string& name) const { return config_.contains(name); }
  std::optional<int64_t> integer_of(const std::string& key) const { return file_.integer(full(key)); }
  std::optional<double> real_of(const std::string& key) const { return file_.real(full(key)); }
  std::optional<std::string> text_of(const std::string& key) const { return file_.text(full(key)); }
  std::string full(const std::string& key) const { return arch_ + "." + key; }
  const std::string& arch() const { return arch_; }

  // With every key of the architecture that was not translated under its own name, to be refused unless it is harmless.
  ConfigFields done() && {
    for (const auto& [name, value] : file_.metadata()) {
      if (name.rfind(arch_ + ".", 0) != 0) continue;
      const std::string key = name.substr(arch_.size() + 1);
      if (taken_.contains(key)) continue;
      config_[key] = std::visit([](const auto& v) { return nlohmann::json(v); }, value.value);
      spelled_[key] = name;
    }
    ConfigFields fields(std::move(config_), origin_, std::move(spelled_));
    fields.without_effect(derived_);
    return fields;
  }

 private:
  const std::vector<int64_t>* per_layer(const std::string& key) const {
    auto it = file_.metadata().find(full(key));
    return it == file_.metadata().end() ? nullptr : std::get_if<std::vector<int64_t>>(&it->second.value);
  }
  void spell(const std::string& key, const std::string& name) {
    taken_.insert(key);
    spelled_[name] = full(key);
  }
  nlohmann::json& place(const std::string& name) {
    const size_t dot = name.find('.');
    return dot == std::string::npos ? config_[name] : config_[name.substr(0, dot)][name.substr(dot + 1)];
  }

  const GgufFile& file_;
  std::string origin_, arch_;
  nlohmann::json config_ = nlohmann::json::object();
  std::map<std::string, std::string> spelled_;  // config.json's name → the file's
  std::set<std::string> taken_;                 // keys without the architecture
  std::vector<std::string> derived_;
};

std::vector<double> divisors_of(const GgufFile& file, const std::string& tensor) {
  const at::Tensor values = file.read(tensor).to(at::kDouble).contiguous();
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

// RoPE: base, scaling and the tensors of frequency divisors. attn_factor multiplies what YaRN makes of its factor.
void translate_rope(const GgufFile& file, Translator& t) {
  t.real("rope.freq_base", t.arch() == "gptneox" ? "rotary_emb_base" : "rope_theta");
  if (file.contains("rope_freqs.weight")) {
    t.set("rope_scaling.rope_type", "divisors");
    t.set("rope_scaling.divisors", divisors_of(file, "rope_freqs.weight"));
  } else if (file.contains("rope_factors_long.weight") && file.contains("rope_factors_short.weight")) {
    t.set("rope_scaling.rope_type", "longrope");
    t.set("rope_scaling.long_factor", divisors_of(file, "rope_factors_long.weight"));
    t.set("rope_scaling.short_factor", divisors_of(file, "rope_factors_short.weight"));
    t.real("rope.scaling.attn_factor", "rope_scaling.attention_factor");
    t.integer("rope.scaling.original_context_length", "rope_scaling.original_max_position_embeddings");
  } else if (auto type = t.text_of("rope.scaling.type"); type && *type != "none") {
    t.text("rope.scaling.type", "rope_scaling.rope_type");
    t.real("rope.scaling.factor", "rope_scaling.factor");
    if (*type == "yarn") {
      t.integer("rope.scaling.original_context_length", "rope_scaling.original_max_position_embeddings");
      t.real("rope.scaling.yarn_beta_fast", "rope_scaling.beta_fast");
      t.real("rope.scaling.yarn_beta_slow", "rope_scaling.beta_slow");
      const double factor = t.real_of("rope.scaling.factor").value_or(1), attention = t.real_of("rope.scaling.attn_factor").value_or(1);
      t.real("rope.scaling.attn_factor", "rope_scaling.attention_factor");
      if (attention != 1 && factor > 1) t.set("rope_scaling.attention_factor", attention * (1 + 0.1 * std::log(factor)));
      if (attention == 1) t.set("rope_scaling.attention_factor", nullptr);
    }
  } else if (auto scale = t.real_of("rope.scale_linear"); scale && *scale != 1) {
    t.set("rope_scaling.rope_type", "linear");
    t.real("rope.scale_linear", "rope_scaling.factor");
  }
}

// dimension_count: how many of a head's dimensions rotate.
void translate_partial_rotation(Translator& t, int64_t head_dim) {
  if (const auto dim = t.integer_of("rope.dimension_count"); dim && head_dim > 0) {
    const std::string name = t.arch() == "gptneox" ? "rotary_pct" : "partial_rotary_factor";
    t.real("rope.dimension_count", name);
    // A little above, so that the product rounds down to exactly dim.
    t.set(name, std::min(1.0, (static_cast<double>(*dim) + 1e-6) / static_cast<double>(head_dim)));
  }
}

}  // namespace

ConfigFields config_from_gguf(const GgufFile& file, const std::string& origin) {
  const auto arch = file.text("general.architecture");
  if (!arch) throw InputError(fmt::format("{}: key \"general.architecture\" is missing", origin));
  const Family* family = nullptr;
  std::string known;
  for (const Family& candidate : families())
    for (const std::string& name : candidate.gguf) {
      if (name == *arch) family = &candidate;
      known += (known.empty() ? "" : ", ") + name;
    }
  if (!family) throw InputError(fmt::format("{}: general.architecture \"{}\" is not a known architecture, expected one of {}", origin, *arch, known));

  Translator t(file, origin, *arch);
  t.integer("block_count", "num_hidden_layers");
  t.integer("context_length", "max_position_embeddings");
  t.integer("embedding_length", "hidden_size");
  t.integer("feed_forward_length", "intermediate_size");
  t.integer("attention.head_count", "num_attention_heads");
  t.integer("vocab_size", "vocab_size");
  t.real("attention.layer_norm_rms_epsilon", "rms_norm_eps");
  if (!t.has("vocab_size"))
    if (const TensorInfo* embedding = file.find("token_embd.weight"); embedding && embedding->shape.size() == 2) t.set("vocab_size", embedding->shape[0]);
  t.set("tie_word_embeddings", !file.contains("output.weight"));
  translate_rope(file, t);
  // Heads as wide as hidden_size says, unless a key says otherwise; all of a head rotates, except in three families. 0 where
  // a key is missing or absurd, which is for the family to say.
  const int64_t hidden = std::max<int64_t>(0, t.integer_of("embedding_length").value_or(0));
  const int64_t heads = std::max<int64_t>(0, t.integer_of("attention.head_count").value_or(0));
  int64_t head_dim = heads > 0 ? hidden / heads : 0;
  const bool equal_heads = *arch == "bloom" || *arch == "falcon" || *arch == "gptneox" || *arch == "stablelm";
  if (equal_heads) {
    t.must_be("attention.key_length", head_dim);
  } else {
    head_dim = std::max<int64_t>(0, t.integer_of("attention.key_length").value_or(head_dim));
    t.integer("attention.key_length", "head_dim");
  }
  t.must_be("attention.value_length", head_dim);
  if (*arch == "phi3" || *arch == "gptneox" || *arch == "stablelm") {
    translate_partial_rotation(t, head_dim);
  } else {
    t.must_be("rope.dimension_count", head_dim);
  }
  if (*arch == "bloom" || *arch == "gptneox") {
    t.must_be("attention.head_count_kv", heads);
  } else {
    const std::string name = *arch == "falcon" ? "num_kv_heads" : "num_key_value_heads";
    t.integer("attention.head_count_kv", name);
    if (!t.has(name)) t.set(name, nullptr);  // as many as heads
  }

  std::string type = family->model_types.front();
  const bool qkv_bias = file.contains("blk.0.attn_q.bias") || file.contains("blk.0.attn_qkv.bias");
  const bool o_bias = file.contains("blk.0.attn_output.bias"), mlp_bias = file.contains("blk.0.ffn_up.bias");
  if (*arch == "llama" || *arch == "mistral" || *arch == "mixtral" || *arch == "granite") {
    t.set("attention_bias", qkv_bias);
    t.set("attention_output_bias", o_bias);
    t.set("mlp_bias", mlp_bias);
    t.integer("expert_count", "num_local_experts");
    t.integer("expert_used_count", "num_experts_per_tok");
    // llama.cpp calls Mistral and Mixtral "llama"; only the experts tell.
    if (t.integer_of("expert_count").value_or(0) > 0) type = "mixtral";
    t.set("sliding_window", nullptr);
    if (*arch == "granite") {
      t.real("embedding_scale", "embedding_multiplier");
      t.real("residual_scale", "residual_multiplier");
      t.real("attention.scale", "attention_multiplier");
      t.real("logit_scale", "logits_scaling");
    }
  } else if (*arch == "qwen2" || *arch == "qwen3") {
    t.set("attention_bias", qkv_bias);
  } else if (*arch == "qwen2moe" || *arch == "qwen3moe") {
    t.set("attention_bias", qkv_bias);
    t.set("qkv_bias", qkv_bias);
    t.integer("expert_count", "num_experts");
    t.integer("expert_used_count", "num_experts_per_tok");
    t.integer("expert_feed_forward_length", "moe_intermediate_size");
    t.integer("expert_shared_feed_forward_length", "shared_expert_intermediate_size");
    t.set("norm_topk_prob", *arch == "qwen3moe");
    if (!t.has("intermediate_size")) t.integer("expert_feed_forward_length", "intermediate_size");
  } else if (*arch == "phi3") {
    t.integer("attention.sliding_window", "sliding_window");
    if (auto window = t.integer_of("attention.sliding_window"); !window || *window == 0) t.set("sliding_window", nullptr);
    t.integer("rope.scaling.original_context_length", "original_max_position_embeddings");
    if (!t.has("original_max_position_embeddings")) t.set("original_max_position_embeddings", t.integer_of("context_length").value_or(0));
  } else if (*arch == "gemma2" || *arch == "gemma3") {
    t.integer("attention.sliding_window", "sliding_window");
    t.set("attn_logit_softcapping", nullptr);
    t.set("final_logit_softcapping", nullptr);
    t.real("attn_logit_softcapping", "attn_logit_softcapping");
    t.real("final_logit_softcapping", "final_logit_softcapping");
    // Not stored: head_dim, except in the two 27B models, whose scale is hidden_size / heads.
    const bool largest = (*arch == "gemma2" && t.integer_of("block_count") == 46) || (*arch == "gemma3" && t.integer_of("block_count") == 62);
    t.set("query_pre_attn_scalar", static_cast<double>(largest && heads > 0 ? hidden / heads : head_dim));
    if (*arch == "gemma3") {
      t.real("rope.freq_base_swa", "rope_local_base_freq");
      t.integer("attention.sliding_window_pattern", "sliding_window_pattern");
    }
  } else if (*arch == "bloom") {
    t.forget("intermediate_size");
    t.must_be("feed_forward_length", 4 * hidden);
    t.forget("max_position_embeddings");  // ALiBi has none
    t.real("attention.layer_norm_epsilon", "layer_norm_epsilon");
  } else if (*arch == "falcon") {
    t.real("attention.layer_norm_epsilon", "layer_norm_epsilon");
    t.forget("intermediate_size");
    t.integer("feed_forward_length", "ffn_hidden_size");
    const bool two_norms = file.contains("blk.0.attn_norm_2.weight");
    const int64_t kv = t.integer_of("attention.head_count_kv").value_or(1);
    t.set("new_decoder_architecture", two_norms || (kv != 1 && kv != heads));
    t.set("num_ln_in_parallel_attn", two_norms ? 2 : 1);
    t.set("multi_query", kv == 1);
    t.set("parallel_attn", true);
    t.set("bias", qkv_bias);
  } else if (*arch == "gptneox") {
    t.real("attention.layer_norm_epsilon", "layer_norm_eps");
    t.boolean("use_parallel_residual", "use_parallel_residual");
    t.set("attention_bias", qkv_bias);
  } else if (*arch == "starcoder2") {
    t.real("attention.layer_norm_epsilon", "norm_epsilon");
    t.integer("attention.sliding_window", "sliding_window");
    t.set("use_bias", qkv_bias);
  } else if (*arch == "stablelm") {
    t.real("attention.layer_norm_epsilon", "layer_norm_eps");
    t.boolean("use_parallel_residual", "use_parallel_residual");
    if (!file.contains("blk.0.ffn_norm.weight")) t.set("use_parallel_residual", true);
    t.set("use_qkv_bias", qkv_bias);
    t.set("qk_layernorm", file.contains("blk.0.attn_q_norm.weight"));
  } else if (*arch == "internlm2") {
    t.set("bias", qkv_bias);
  }
  t.set("model_type", type);
  return std::move(t).done();
}

}  // namespace qb
