"""GGUF files of zoo_dense's models: names by gguf-py's own table, values as llama.cpp's converter arranges them."""
import gguf
import torch

from gguf_zoo import finish, permute
from zoo_dense import unused_keys_and_values

# model of zoo_dense → general.architecture. GGUF does not store every pattern: only variants that llama.cpp reads the same are here.
CONVERTED = {
    "gpt2": "gpt2", "phi": "phi2", "phi-2": "phi2", "olmo": "olmo", "olmo-clipped": "olmo", "olmo2": "olmo2", "olmo3": "olmo2", "olmo3-plain": "olmo2",
    "cohere": "command-r", "cohere-qk-norm": "command-r", "cohere2": "cohere2", "nemotron": "nemotron", "glm": "chatglm", "glm4": "glm4", "gemma": "gemma", "gemma3n": "gemma3n",
    "smollm3": "smollm3", "exaone4": "exaone4", "exaone4-full": "exaone4", "hunyuan-dense": "hunyuan-dense", "hunyuan-dense-alpha": "hunyuan-dense",
    "seed-oss": "seed_oss", "arcee": "arcee", "ministral3": "mistral3", "ernie4-5": "ernie4_5",
}
PERMUTED = ("llama", "granite", "internlm2", "olmo", "smollm3", "arcee", "mistral3", "minicpm", "baichuan")  # q and k rows, pairs side by side

# Command-R files have no output matrix: only tied models convert.
CHANGES = {"cohere-qk-norm": {"tie_word_embeddings": True}}


def converted_tensors(arch, model):
    config = model.config
    heads = config.num_attention_heads
    kv = getattr(config, "num_key_value_heads", None) or heads
    tensors = unused_keys_and_values(model) if arch == "gemma3n" else {}
    for key, value in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if arch in PERMUTED and (".q_proj." in key or ".k_proj." in key):
            value = permute(value, heads if ".q_proj." in key else kv)
        if arch == "gpt2" and key.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            value = value.T
        if arch in ("gemma", "nemotron") and key.endswith("norm.weight"):
            value = value + 1
        if arch == "gemma3n":
            if key.endswith("_scale"):
                key += ".weight"
            if part := next((part for part in ("altup_projections", "altup_unembed_projections") if part in key), None):
                key = f"model.{part}.weight"
                value = torch.cat([tensors.get(key, value.new_empty(0, *value.shape)), value[None]])
        tensors[key] = value
    return tensors


def write(name, model, path, arch=None, fuse=False, pattern=None):
    """fuse: queries, keys and values in one tensor, as newer converters can. pattern: of sliding blocks, a list of booleans or a period."""
    arch = arch or CONVERTED[name]
    config = model.config
    w = gguf.GGUFWriter(path, arch)
    heads, hidden = config.num_attention_heads, config.hidden_size
    kv = getattr(config, "num_key_value_heads", None) or heads
    dim = getattr(config, "head_dim", None) or hidden // heads
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden
    w.add_block_count(config.num_hidden_layers)
    w.add_context_length(config.max_position_embeddings)
    w.add_embedding_length(hidden)
    w.add_feed_forward_length(inner)
    w.add_head_count(heads)
    if arch != "gpt2":
        w.add_head_count_kv(kv)
    w.add_vocab_size(config.vocab_size)
    if getattr(config, "head_dim", None):
        w.add_key_length(dim)
        w.add_value_length(dim)
    if hasattr(config, "rms_norm_eps"):
        w.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        w.add_layer_norm_eps(next((getattr(config, k) for k in ("layer_norm_eps", "layer_norm_epsilon", "norm_eps") if hasattr(config, k)), 1e-5))
    both = getattr(config, "rope_parameters", None) or {}
    rope = both.get("full_attention", both)
    if rope:
        theta = rope["rope_theta"]
        if rope.get("alpha"):
            theta *= rope["alpha"] ** (dim / (dim - 2))
        w.add_rope_freq_base(theta)
        if "sliding_attention" in both:
            w.add_rope_freq_base_swa(both["sliding_attention"]["rope_theta"])
        if arch in ("phi2", "nemotron", "chatglm", "glm4", "cohere2", "llama", "mistral3"):
            w.add_rope_dimension_count(int(dim * rope.get("partial_rotary_factor", 1.0)))
        kind = rope["rope_type"]
        if arch in ("command-r", "cohere2", "nemotron") or rope.get("alpha"):
            w.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        elif kind in ("linear", "yarn"):
            w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR if kind == "linear" else gguf.RopeScalingType.YARN)
            w.add_rope_scaling_factor(rope["factor"])
        if kind == "yarn":
            w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
            for key, add in (("beta_fast", w.add_rope_scaling_yarn_beta_fast), ("beta_slow", w.add_rope_scaling_yarn_beta_slow)):
                if key in rope:
                    add(rope[key])
        if kind == "llama3":
            freqs = rope["rope_theta"] ** -(torch.arange(0, dim, 2).double() / dim)
            w.add_tensor("rope_freqs.weight", (freqs / model.model.rotary_emb.inv_freq.double()).float().numpy())
    if arch == "mistral3":
        w.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
        w.add_attn_temperature_scale(rope["llama_4_scaling_beta"])
    if arch in ("olmo2", "cohere2", "exaone4", "gemma3n") and getattr(config, "sliding_window", None):
        w.add_sliding_window(config.sliding_window)
    if pattern is not None:
        w.add_sliding_window_pattern(pattern)
    elif arch in ("olmo2", "exaone4", "gemma3n") and getattr(config, "sliding_window", None):  # cohere2: llama.cpp's pattern of 4
        w.add_sliding_window_pattern([t == "sliding_attention" for t in config.layer_types])
    if arch in ("command-r", "cohere2"):
        w.add_logit_scale(config.logit_scale)
    if arch == "minicpm":  # a Granite's scales
        w.add_embedding_scale(config.embedding_multiplier)
        w.add_residual_scale(config.residual_multiplier)
        w.add_logit_scale(config.logits_scaling)
    if arch == "olmo" and config.clip_qkv is not None:
        w.add_clamp_kqv(config.clip_qkv)
    if arch == "gemma3n":
        w.add_altup_active_idx(config.altup_active_idx)
        w.add_altup_num_inputs(config.altup_num_inputs)
        w.add_embedding_length_per_layer_input(config.hidden_size_per_layer_input)
        w.add_shared_kv_layers(config.num_kv_shared_layers)
        w.add_activation_sparsity_scale([torch.distributions.Normal(0, 1).icdf(torch.tensor(float(s))).item() for s in config.activation_sparsity_pattern])
        w.add_final_logit_softcapping(config.final_logit_softcapping)
    names = gguf.get_tensor_name_map(next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch), config.num_hidden_layers)
    tensors = {}
    for key, value in converted_tensors(arch, model).items():
        stored = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert stored, f"gguf-py has no name for {key} in {arch}"
        tensors[stored] = value
    for suffix in ("weight", "bias") if fuse else ():
        for i in range(config.num_hidden_layers):
            parts = [tensors.pop(f"blk.{i}.attn_{x}.{suffix}", None) for x in "qkv"]
            if parts[0] is not None:
                tensors[f"blk.{i}.attn_qkv.{suffix}"] = torch.cat(parts)
    finish(w, tensors)
