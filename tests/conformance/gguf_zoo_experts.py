"""Small GGUF files of zoo_experts' models: names by gguf-py's own table, values as llama.cpp's converter arranges them."""
import re

import gguf

from gguf_zoo import finish, one_of_gates_and_ups, permute

# model of zoo_experts → general.architecture
CONVERTED = {
    "phimoe-plain": "phimoe", "olmoe": "olmoe", "granitemoe": "granitemoe", "granitemoeshared": "granitemoe", "glm4-moe": "glm4moe", "glm4-moe-groups": "glm4moe",
    "solar-open": "glm4moe", "ernie4-5-moe": "ernie4_5-moe", "hunyuan-moe": "hunyuan-moe", "hunyuan-moe-alpha": "hunyuan-moe", "deepseek-v2-plain": "deepseek2",
    "deepseek-v2-lite": "deepseek2", "deepseek-v3": "deepseek2", "glm4-moe-lite": "deepseek2", "youtu": "deepseek2", "mistral4": "mistral4", "dots1-plain": "dots1", "gpt-oss": "gpt-oss",
    "llama4-plain": "llama4", "minimax-m2": "minimax-m2",
}
SIGMOID = ("glm4_moe", "solar_open", "deepseek_v3", "glm4_moe_lite", "minimax_m2", "dots1")


def converted_tensors(arch, model, joined):
    """GGUF name → value."""
    config, out = model.config, {}
    table = gguf.get_tensor_name_map(next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch), config.num_hidden_layers)

    def put(key, value):
        name = table.get_name(key, try_suffixes=(".weight", ".bias"))
        assert name, f"{arch} has no name for {key}"
        out[name] = value

    for key, value in model.state_dict().items():
        block = re.search(r"layers\.(\d+)\.", key)
        blk = f"blk.{block[1]}." if block else ""
        folder = key[:key.index("experts.")] if ".experts." in key else ""
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if arch == "granitemoe" and (".q_proj." in key or ".k_proj." in key):
            value = permute(value, config.num_attention_heads if ".q_proj." in key else config.num_key_value_heads)
        # Experts, in transformers' fused form.
        if key.endswith("experts.gate_up_proj"):
            if arch in ("gpt-oss", "llama4"):
                value = value.transpose(1, 2)
            gate, up = (value[:, 0::2], value[:, 1::2]) if arch == "gpt-oss" else value.chunk(2, 1)
            out[blk + "ffn_gate_exps.weight"], out[blk + "ffn_up_exps.weight"] = gate, up
        elif key.endswith("experts.down_proj"):
            out[blk + "ffn_down_exps.weight"] = value.transpose(1, 2) if arch in ("gpt-oss", "llama4") else value
        elif key.endswith("gate_up_proj_bias"):
            out[blk + "ffn_gate_exps.bias"], out[blk + "ffn_up_exps.bias"] = value[:, 0::2], value[:, 1::2]
        elif key.endswith("down_proj_bias"):
            out[blk + "ffn_down_exps.bias"] = value
        elif key.endswith("e_score_correction_bias"):
            out[blk + "exp_probs_b.bias"] = value.flatten()
        elif "shared_mlp.input_linear" in key:
            out[blk + "ffn_gate_shexp.weight"], out[blk + "ffn_up_shexp.weight"] = value.chunk(2)
        elif key.endswith(".sinks"):
            out[blk + "attn_sinks.weight"] = value
        elif "block_sparse_moe.router.weight" in key or "mlp.router.weight" in key and arch == "phimoe":
            out[blk + "ffn_gate_inp.weight"] = value
        # Latent attention: keys and values apart, the keys transposed.
        elif key.endswith("kv_b_proj.weight") and not joined:
            both = value.unflatten(0, (config.num_attention_heads, -1))
            out[blk + "attn_k_b.weight"] = both[:, :config.qk_nope_head_dim].transpose(1, 2)
            out[blk + "attn_v_b.weight"] = both[:, config.qk_nope_head_dim:]
        else:
            assert not folder, key
            put(key, value)
    return out


def write(name, model, path, quantize=None, only="", joined=False, pattern=None, fuse=False):
    """`quantize`: a ggml type for the matrices with `only` in their names. joined: latent attention as files before April 2025 have it.
    pattern: of sliding blocks, a list of booleans or a period. fuse: experts' gates and up sides in one tensor."""
    arch, config = CONVERTED[name], model.config
    kind = config.model_type
    writer = gguf.GGUFWriter(path, arch)
    latent = hasattr(config, "kv_lora_rank")
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size_mlp if arch == "llama4" else
                                   getattr(config, "intermediate_size", None) or config.moe_intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(1 if latent and not joined else config.num_key_value_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)

    rope = config.rope_parameters
    base = rope["rope_theta"]
    if rope.get("alpha"):
        base *= rope["alpha"] ** (head_dim / (head_dim - 2))
    writer.add_rope_freq_base(base)
    writer.add_rope_dimension_count(config.qk_rope_head_dim if latent else int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if rope.get("mscale_all_dim"):
            writer.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])
    if latent:
        if config.q_lora_rank is not None:
            writer.add_q_lora_rank(config.q_lora_rank)
        writer.add_kv_lora_rank(config.kv_lora_rank)
        if joined:
            writer.add_key_length(config.qk_nope_head_dim + config.qk_rope_head_dim)
            writer.add_value_length(config.v_head_dim)
        else:
            writer.add_key_length(config.kv_lora_rank + config.qk_rope_head_dim)
            writer.add_value_length(config.kv_lora_rank)
            writer.add_key_length_mla(config.qk_nope_head_dim + config.qk_rope_head_dim)
            writer.add_value_length_mla(config.v_head_dim)
        if rope.get("llama_4_scaling_beta"):
            writer.add_attn_temperature_scale(rope["llama_4_scaling_beta"])
            writer.add_attn_temperature_length(rope["original_max_position_embeddings"])
    elif "head_dim" in config.to_dict():
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)

    get = lambda *names: next((getattr(config, n) for n in names if getattr(config, n, None) is not None), None)
    if experts := get("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"):
        writer.add_expert_count(experts)
        writer.add_expert_used_count(get("num_experts_per_tok", "moe_k", "moe_topk"))
        if arch not in ("phimoe", "olmoe", "granitemoe"):
            writer.add_expert_feed_forward_length(get("moe_intermediate_size") or config.intermediate_size)
        if (groups := get("n_group")) is not None:
            writer.add_expert_group_count(groups)
            writer.add_expert_group_used_count(config.topk_group)
        if kind in SIGMOID:
            writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        if arch in ("glm4moe", "deepseek2", "mistral4", "dots1"):
            writer.add_expert_shared_count(config.n_shared_experts)
            writer.add_expert_weights_scale(config.routed_scaling_factor)
            if config.norm_topk_prob:
                writer.add_expert_weights_norm(True)
        if arch in ("glm4moe", "deepseek2", "mistral4", "dots1", "ernie4_5-moe"):
            dense = config.mlp_layer_types.count("dense") if hasattr(config, "mlp_layer_types") else get("first_k_dense_replace", "moe_layer_start_index")
            writer.add_leading_dense_block_count(dense or 0)
        if arch == "ernie4_5-moe":
            writer.add_interleave_moe_layer_step(config.moe_layer_interval)
            writer.add_expert_shared_count(config.moe_num_shared_experts)
            writer.add_expert_shared_feed_forward_length(config.intermediate_size // config.num_key_value_heads)  # as the converter does
        if arch == "llama4":
            writer.add_interleave_moe_layer_step(2)
        shared = get("shared_intermediate_size") or (config.intermediate_size if arch == "hunyuan-moe" else None)
        if shared:
            writer.add_expert_shared_feed_forward_length(shared)
    if kind.startswith("granitemoe"):
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    if arch == "gpt-oss":
        writer.add_sliding_window(config.sliding_window)
    if pattern is not None:
        writer.add_sliding_window_pattern(pattern)

    tensors = converted_tensors(arch, model, joined)
    finish(writer, one_of_gates_and_ups(tensors) if fuse else tensors, quantize, lambda name: only in name and "ffn_gate_inp" not in name)
