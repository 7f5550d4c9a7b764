"""Small GGUF files made from transformers models: names by gguf-py's own table, values as llama.cpp's converter arranges them."""
import math

import gguf
import numpy
import torch

# model of model_zoo → general.architecture
CONVERTED = {
    "llama": "llama", "llama-tied-biased": "llama", "llama-llama3": "llama", "llama-linear": "llama", "llama-yarn": "llama", "mixtral": "llama",
    "granite": "granite", "qwen2-plain": "qwen2", "qwen2-moe-plain": "qwen2moe", "qwen3": "qwen3", "qwen3-moe-plain": "qwen3moe", "phi3": "phi3",
    "phi3-longrope": "phi3", "gemma2-plain": "gemma2", "gemma3-plain": "gemma3", "bloom": "bloom", "falcon-7b": "falcon", "falcon-40b": "falcon",
    "gpt-neox": "gptneox", "starcoder2": "starcoder2", "stablelm": "stablelm", "stablelm-2-12b": "stablelm", "internlm2": "internlm2",
}


def permute(weight, heads):
    """Rotary pairs of a head side by side, as llama.cpp's NORM rotation wants them."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def split_groups(fused, kv_heads, group, dim):
    """[kv heads][queries, key, value] → all queries, all keys, all values."""
    rows = fused.reshape(kv_heads, group + 2, dim, *fused.shape[1:])
    return torch.cat([rows[:, :-2].flatten(0, 2), rows[:, -2].flatten(0, 1), rows[:, -1].flatten(0, 1)])


def converted_tensors(arch, model):
    config = model.config
    heads = config.num_attention_heads
    kv = getattr(config, "num_key_value_heads", None) or heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    if arch == "falcon" and not config.new_decoder_architecture:
        kv = 1
    elif arch == "falcon":
        kv = config.num_kv_heads
    tensors = {}
    for key, value in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if arch in ("llama", "granite", "internlm2") and (".q_proj." in key or ".k_proj." in key):
            value = permute(value, heads if ".q_proj." in key else kv)
        if arch in ("bloom", "gptneox", "falcon") and "query_key_value" in key:
            value = split_groups(value, kv, heads // kv, dim)
        if arch.startswith("gemma") and key.endswith("norm.weight"):
            value = value + 1
        if key.endswith("experts.gate_up_proj"):
            gate, up = value.chunk(2, dim=1)
            base = key.removesuffix("gate_up_proj")
            tensors[base + "gate_proj.weight"], tensors[base + "up_proj.weight"] = gate, up
            continue
        if key.endswith("experts.down_proj"):
            key += ".weight"
        if "_layernorm.norms." in key:
            base = key[:key.index(".norms.")] + ".weight"
            tensors[base] = torch.cat([tensors.get(base, value.new_empty(0, dim)), value[None]])
            continue
        tensors[key] = value
    return tensors


def round_to(model, kind):
    """Replaces every matrix that `write(…, quantize=kind)` quantizes by what its codes stand for."""
    with torch.no_grad():
        for value in model.parameters():
            if quantizable(value):
                value.copy_(torch.from_numpy(gguf.dequantize(gguf.quantize(value.numpy(), kind), kind)))


def quantizable(value):
    return value.dim() >= 2 and value.shape[-1] % 32 == 0


def one_of_gates_and_ups(tensors):
    """Experts' gates and up sides in one tensor of a block, as newer converters can put them."""
    joined = {}
    for name, value in tensors.items():
        if name.endswith("ffn_gate_exps.weight"):
            joined[name.replace("gate", "gate_up")] = torch.cat([value, tensors[name.replace("gate", "up")]], 1)
        elif not name.endswith("ffn_up_exps.weight"):
            joined[name] = value
    return joined


def finish(writer, tensors, quantize=None, chosen=lambda name: True):
    """Writes everything. quantize: a ggml type for the matrices whose names are chosen and whose rows are multiples of 32."""
    for name, value in tensors.items():
        data = numpy.ascontiguousarray(value.detach().float().numpy())
        if quantize is not None and quantizable(value) and name.endswith(".weight") and chosen(name):
            writer.add_tensor(name, gguf.quantize(data, quantize), raw_dtype=quantize)
        else:
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write(name, model, path, quantize=None, pattern=None):
    """pattern: of sliding blocks, as a list of booleans or a period."""
    arch = CONVERTED[name]
    config = model.config
    writer = gguf.GGUFWriter(path, arch)
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv = getattr(config, "num_key_value_heads", None) or heads
    if arch == "falcon":
        kv = config.num_kv_heads if config.new_decoder_architecture else 1
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(getattr(config, "max_position_embeddings", 128))
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_vocab_size(config.vocab_size)
    if hasattr(config, "rms_norm_eps"):
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(next(getattr(config, key) for key in ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon") if hasattr(config, key)))
    rope = getattr(config, "rope_parameters", None) or {}
    local = rope.get("sliding_attention")
    rope = rope.get("full_attention", rope)
    if rope:
        writer.add_rope_freq_base(rope["rope_theta"])
        rotated = int(head_dim * rope.get("partial_rotary_factor", 1.0))
        writer.add_rope_dimension_count(rotated)
        kind = rope["rope_type"]
        if kind in ("linear", "yarn"):
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR if kind == "linear" else gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(rope["factor"])
        if kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
            if "beta_fast" in rope:
                writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
                writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
            if "attention_factor" in rope:  # llama.cpp multiplies by YaRN's own magnitude
                writer.add_rope_scaling_attn_factors(rope["attention_factor"] / (1 + 0.1 * math.log(rope["factor"])))
        if kind == "llama3":
            plain = rope["rope_theta"] ** -(torch.arange(0, rotated, 2).double() / rotated)
            writer.add_tensor("rope_freqs.weight", (plain / model.model.rotary_emb.inv_freq.double()).float().numpy())
        if kind == "longrope":
            writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
            writer.add_rope_scaling_attn_factors(model.model.rotary_emb.attention_scaling)
            writer.add_tensor("rope_factors_long.weight", numpy.array(rope["long_factor"], dtype=numpy.float32))
            writer.add_tensor("rope_factors_short.weight", numpy.array(rope["short_factor"], dtype=numpy.float32))
    if arch in ("qwen3", "qwen3moe", "gemma2", "gemma3") or name == "llama-tied-biased":
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if getattr(config, "sliding_window", None) and arch in ("phi3", "gemma2", "gemma3", "starcoder2"):
        writer.add_sliding_window(config.sliding_window)
    if pattern is not None:
        writer.add_sliding_window_pattern(pattern)
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        if hasattr(config, "moe_intermediate_size"):
            writer.add_expert_feed_forward_length(config.moe_intermediate_size)
        if hasattr(config, "shared_expert_intermediate_size"):
            writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    if arch == "granite":
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    if arch in ("gptneox", "stablelm"):
        writer.add_parallel_residual(config.use_parallel_residual)

    names = gguf.get_tensor_name_map(next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch), config.num_hidden_layers)
    tensors = {}
    for key, value in converted_tensors(arch, model).items():
        if arch == "bloom":  # the table knows Bloom's names without their prefix
            key = key.removeprefix("transformer.")
        stored = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert stored, f"gguf-py has no name for {key} in {arch}"
        tensors[stored] = value
    finish(writer, tensors, quantize)
