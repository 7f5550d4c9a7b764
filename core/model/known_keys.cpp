#include "core/model/known_keys.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/model/shown_value.h"

namespace qb {
namespace {

bool begins_with(const std::string& text, const std::string& start) { return text.rfind(start, 0) == 0; }

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

bool names(const HarmlessKey& entry, const std::string& key) {
  if (entry.key.front() == '*') return ends_with(key, entry.key.substr(1));
  if (entry.key.back() == '*') return begins_with(key, entry.key.substr(0, entry.key.size() - 1));
  return key == entry.key;
}

bool allows(const HarmlessKey& entry, const nlohmann::json& value) {
  if (entry.values.empty()) return true;
  auto listed = [&](const nlohmann::json& item) { return std::find(entry.values.begin(), entry.values.end(), item) != entry.values.end(); };
  if (listed(value)) return true;
  return value.is_array() && std::all_of(value.begin(), value.end(), listed);
}

// The entry that decides about a key: the family's before the shared ones.
const HarmlessKey* find_entry(const std::string& key, const std::vector<HarmlessKey>& of_family) {
  for (const auto* list : {&of_family, &harmless_keys()})
    for (const HarmlessKey& entry : *list)
      if (names(entry, key)) return &entry;
  return nullptr;
}

[[noreturn]] void refuse(const std::string& origin, const std::string& key, const nlohmann::json& value, const std::string& expected) {
  throw InputError(fmt::format("{}: key \"{}\" is {}, expected {}", origin, key, shown(value), expected));
}

std::string one_of(const std::vector<nlohmann::json>& values, bool list) {
  std::vector<std::string> texts;
  for (const auto& value : values) texts.push_back(value.dump());
  return fmt::format("{}{}", list ? "every entry " : "", fmt::join(texts, " or "));
}

}  // namespace

const std::vector<HarmlessKey>& harmless_keys() {
  static const std::vector<HarmlessKey> keys = {
      // Who wrote it and with what.
      {"architectures", {}}, {"auto_map", {}}, {"transformers_version", {}}, {"torch_dtype", {}}, {"dtype", {}}, {"_name_or_path", {}}, {"_model_name_or_path", {}},
      {"name_or_path", {}}, {"_commit_hash", {}}, {"transformers.js_config", {}}, {"unsloth_*", {}}, {"is_llama_config", {}},
      {"tokenizer_class", {}}, {"license", {}}, {"language", {}}, {"custom_pipelines", {}}, {"trust_remote_code", {}}, {"base_model_*_plan", {}},
      // Tokens and limits that the tokenizer or a caller uses.
      {"*_token_id", {}}, {"*_token_ids", {}}, {"*_token_index", {}}, {"max_sequence_length", {}}, {"model_max_length", {}},
      {"tokenizer_model_max_length", {}}, {"tokenizer_padding_side", {}}, {"prefix", {}}, {"task_specific_params", {}},
      // Training.
      {"initializer_range", {}}, {"initializer_factor", {}}, {"init_std", {}}, {"init_method", {}}, {"*dropout", {}}, {"*_dropout_prob", {}},
      {"*_pdrop", {}}, {"layerdrop", {}}, {"pretraining_tp", {}}, {"gradient_checkpointing", {}}, {"router_aux_loss_coef", {}},
      {"router_z_loss_coef", {}}, {"router_jitter_noise", {}}, {"aux_loss_alpha", {}}, {"seq_aux", {}}, {"neftune_noise_alpha", {}},
      // Other heads than the one for the next token.
      {"id2label", {}}, {"label2id", {}}, {"num_labels", {}}, {"problem_type", {}}, {"finetuning_task", {}},
      // What a call returns, and which of several equal implementations computes it.
      {"use_cache", {}}, {"cache_implementation", {}}, {"return_dict", {}}, {"use_return_dict", {}}, {"output_attentions", {}},
      {"output_hidden_states", {}}, {"output_router_logits", {}}, {"output_scores", {}}, {"torchscript", {}}, {"tf_legacy_loss", {}}, {"attn_implementation", {}},
      {"_attn_implementation*", {}}, {"experts_implementation", {}}, {"_experts_implementation*", {}}, {"keys_to_ignore_at_inference", {}},
      {"use_flash_attn", {}}, {"_flash_attn_2_enabled", {}}, {"use_bfloat16", {}}, {"ep_size", {}}, {"is_decoder", {}},
      // Generation settings that older transformers kept here.
      {"bad_words_ids", {}}, {"begin_suppress_tokens", {}}, {"diversity_penalty", {}}, {"do_sample", {}}, {"early_stopping", {}},
      {"encoder_no_repeat_ngram_size", {}}, {"exponential_decay_length_penalty", {}}, {"length_penalty", {}}, {"max_length", {}},
      {"max_new_tokens", {}}, {"min_length", {}}, {"no_repeat_ngram_size", {}}, {"num_beam_groups", {}}, {"num_beams", {}},
      {"num_return_sequences", {}}, {"remove_invalid_values", {}}, {"repetition_penalty", {}}, {"return_dict_in_generate", {}},
      {"suppress_tokens", {}}, {"temperature", {}}, {"top_k", {}}, {"top_p", {}}, {"typical_p", {}},
      // Switches that change the forward pass, at the value where they do not.
      {"is_causal", {true}}, {"is_encoder_decoder", {false}}, {"add_cross_attention", {false}}, {"tie_encoder_decoder", {false}},
      {"chunk_size_feed_forward", {0}}, {"pruned_heads", {nlohmann::json::object()}}, {"use_bidirectional_attention", {false}},
      {"attention_bias", {false}}, {"attention_output_bias", {false}}, {"mlp_bias", {false}}, {"lm_head_bias", {false}}, {"qkv_bias", {false}},
      {"use_bias", {false}}, {"bias", {false}}, {"use_qk_norm", {false}}, {"qk_layernorm", {false}}, {"use_sliding_window", {false}},
      {"use_mrope", {false}}, {"rope_interleaved", {false}}, {"partial_rotary_factor", {1}}, {"layer_types", {"full_attention"}},
      {"mlp_only_layers", {nlohmann::json::array()}}, {"num_local_experts", {0}}, {"num_experts", {0}}, {"num_experts_per_tok", {0}},
      // GGUF, without the architecture before the key.
      {"rope.scaling.finetuned", {}}, {"rope.scaling.type", {"none", "longrope"}}, {"rope.scaling.original_context_length", {}}, {"tensor_data_layout", {}}, {"nextn_predict_layers", {}}, {"pooling_type", {0}}, {"attention.causal", {true}},
      {"attention.clamp_kqv", {0}}, {"attention.max_alibi_bias", {0}}, {"attention.sliding_window", {0}}, {"logit_scale", {1}},
      {"expert_count", {0}}, {"expert_used_count", {0}}, {"expert_shared_count", {0}}, {"expert_group_count", {0, 1}}, {"expert_group_used_count", {0, 1}},
      {"expert_weights_scale", {0, 1}}, {"expert_gating_func", {0, 1}}, {"leading_dense_block_count", {0}}, {"moe_every_n_layers", {0, 1}},
      {"interleave_moe_layer_step", {0, 1}}, {"swin_norm", {false}}, {"rope.scaling.attn_factor", {1}}, {"rope.scaling.yarn_attn_factor", {1}},
      {"rope.scaling.yarn_ext_factor", {1}}, {"rope.scaling.yarn_log_multiplier", {0}}, {"rope.scaling.factor", {1}}, {"rope.scale_linear", {1}},
  };
  return keys;
}

void require_understood(const ConfigFields& fields, const std::string& family, const std::vector<HarmlessKey>& of_family) {
  for (const UnreadKey& unread : fields.unread()) {
    const HarmlessKey* entry = find_entry(unread.key, of_family);
    if (!entry) refuse(fields.origin(), unread.spelled, unread.value, fmt::format("no such key: the forward pass of {} does not know what it asks for", family));
    if (!allows(*entry, unread.value))
      refuse(fields.origin(), unread.spelled, unread.value,
             fmt::format("{}: the forward pass of {} knows no other", one_of(entry->values, unread.value.is_array()), family));
  }
}

void require_understood_wrapper(const ConfigFields& outer, const ConfigFields& text, const std::string& family) {
  for (const UnreadKey& unread : outer.unread()) {
    if (text.asked(unread.key) && !(text.has(unread.key) && text.json().at(unread.key) == unread.value))
      refuse(outer.origin(), unread.spelled, unread.value, text.has(unread.key)
             ? fmt::format("{}, as text_config says", shown(text.json().at(unread.key))) : "it inside text_config");
    const HarmlessKey* entry = find_entry(unread.key, {});
    if (entry && !allows(*entry, unread.value))
      refuse(outer.origin(), unread.spelled, unread.value, fmt::format("{}: the forward pass of {} knows no other", one_of(entry->values, unread.value.is_array()), family));
  }
}

bool harmless_tensor(const std::string& name) {
  static const std::vector<std::string> ends = {
      // Tables and masks that early transformers stored with the weights.
      ".inv_freq", ".cos_cached", ".sin_cached", ".attn_rot_embd.weight", ".attn.masked_bias", ".attn.bias", ".attention.masked_bias", ".attention.bias",
      // Scales of quantized caches and activations: the float model has neither.
      ".k_scale", ".v_scale", ".kv_scale", ".q_scale", ".prob_scale", ".input_scale", ".output_scale", ".activation_scale", ".input_scale_ub"};
  return std::any_of(ends.begin(), ends.end(), [&](const std::string& end) { return ends_with(name, end); });
}

}  // namespace qb
