"""Small GGUF files of zoo_hybrid's models: names by gguf-py's own table, values as llama.cpp's converter arranges them."""
import re

import gguf
import torch

from gguf_zoo import finish, one_of_gates_and_ups

# model of zoo_hybrid → general.architecture
CONVERTED = {"qwen3-next-plain": "qwen3next", "qwen3-5": "qwen35", "qwen3-5-mrope": "qwen35", "qwen3-5-moe": "qwen35moe", "lfm2": "lfm2", "lfm2-biased": "lfm2",
             "lfm2-moe-plain": "lfm2moe"}


def tiled(value, config, axis=0, width=1):
    """Value heads grouped by key head → key heads in turn, along an axis of [value heads · width]."""
    keys, ratio = config.linear_num_key_heads, config.linear_num_value_heads // config.linear_num_key_heads
    return value.unflatten(axis, (keys, ratio, width)).transpose(axis, axis + 1).flatten(axis, axis + 2)


def delta_tensor(arch, config, key, value, older):
    """GGUF's (suffix of the name, value)s of one tensor of linear attention. older: as the first files of Qwen3-Next hold it."""
    dk, dv = config.linear_key_head_dim, config.linear_value_head_dim
    keys, ratio = dk * config.linear_num_key_heads, config.linear_num_value_heads // config.linear_num_key_heads
    turn = arch != "qwen3next"
    heads = (lambda v, axis=0, width=1: tiled(v, config, axis, width)) if turn else lambda v, axis=0, width=1: v
    values_last = lambda v: torch.cat([v[:2 * keys], heads(v[2 * keys:], 0, dv)])
    name = key.split("linear_attn.")[1].removesuffix(".weight")
    if name == "in_proj_qkvz":
        if older:
            return [("ssm_in.weight", value)]
        parts = value.unflatten(0, (config.linear_num_key_heads, -1)).split([dk, dk, ratio * dv, ratio * dv], 1)
        return [("attn_qkv.weight", torch.cat([p.flatten(0, 1) for p in parts[:3]])), ("attn_gate.weight", parts[3].flatten(0, 1))]
    return {
        "A_log": lambda: [("ssm_a", heads(-value.exp()))],
        "dt_bias": lambda: [("ssm_dt.bias", heads(value))],
        "conv1d": lambda: [("ssm_conv1d.weight", values_last(value.squeeze(1)))],
        "in_proj_qkv": lambda: [("attn_qkv.weight", values_last(value))],
        "in_proj_z": lambda: [("attn_gate.weight", heads(value, 0, dv))],
        "in_proj_ba": lambda: [("ssm_ba.weight", value)],
        "in_proj_b": lambda: [("ssm_beta.weight", heads(value))],
        "in_proj_a": lambda: [("ssm_alpha.weight", heads(value))],
        "norm": lambda: [("ssm_norm.weight", value)],
        "out_proj": lambda: [("ssm_out.weight", heads(value, 1, dv))],
    }[name]()


def converted_tensors(arch, model, older=False):
    """GGUF name → value."""
    config, out = model.config, {}
    table = gguf.get_tensor_name_map(next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch), config.num_hidden_layers)
    for key, value in model.state_dict().items():
        block = re.search(r"layers\.(\d+)\.", key)
        blk = f"blk.{block[1]}." if block else ""
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if "linear_attn" in key:
            out |= {blk + name: part for name, part in delta_tensor(arch, config, key, value, older)}
            continue
        if arch.startswith("qwen") and key.endswith("norm.weight"):
            value = value + 1
        if key.endswith("experts.gate_up_proj"):
            out[blk + "ffn_gate_exps.weight"], out[blk + "ffn_up_exps.weight"] = value.chunk(2, 1)
        elif key.endswith("experts.down_proj"):
            out[blk + "ffn_down_exps.weight"] = value
        elif key.endswith("expert_bias"):
            out[blk + "exp_probs_b.bias"] = value
        else:
            name = table.get_name(key, try_suffixes=(".weight", ".bias"))
            assert name, f"{arch} has no name for {key}"
            out[name] = value.squeeze(1) if "conv.conv.weight" in key else value
    return out


def write(name, model, path, quantize=None, older=False, fuse=False):
    """fuse: experts' gates and up sides in one tensor. quantize: a ggml type for the matrices whose rows are multiples of 32 (experts included)."""
    arch, config = CONVERTED[name], model.config
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    head_dim = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    writer.add_rope_dimension_count(int(head_dim * config.rope_parameters.get("partial_rotary_factor", 1.0)))
    if arch.startswith("lfm2"):
        writer.add_feed_forward_length(model.model.layers[0].feed_forward.w1.out_features)
        writer.add_head_count_kv([config.num_key_value_heads if t == "full_attention" else 0 for t in config.layer_types])
        writer.add_layer_norm_rms_eps(config.norm_eps)
        writer.add_shortconv_l_cache(config.conv_L_cache)
    else:
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
        writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
        writer.add_ssm_state_size(config.linear_key_head_dim)
        writer.add_ssm_group_count(config.linear_num_key_heads)
        writer.add_ssm_time_step_rank(config.linear_num_value_heads)
        writer.add_ssm_inner_size(config.linear_value_head_dim * config.linear_num_value_heads)
        writer.add_full_attention_interval(config.layer_types.index("full_attention") + 1)
        if arch != "qwen3next":
            writer.add_rope_dimension_sections([2, 0, 0, 0])
    if getattr(config, "num_experts", None):
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
        if arch == "lfm2moe":
            writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
            writer.add_leading_dense_block_count(config.num_dense_layers)
        else:
            writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    tensors = converted_tensors(arch, model, older)
    finish(writer, one_of_gates_and_ups(tensors) if fuse else tensors, quantize, lambda name: not any(part in name for part in ("conv", "ffn_gate_inp")))
