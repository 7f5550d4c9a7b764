"""Small random models of every family, made by transformers in a folder."""
import json

import torch
import transformers as hf
from safetensors.torch import save_file

VOCABULARY = 96
BASE = dict(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, pad_token_id=None, bos_token_id=None, eos_token_id=None)
FALCON = dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128,
              bos_token_id=None, eos_token_id=None)


def rope(kind, **values):
    return {"rope_theta": 10000.0, "rope_type": kind, **values}


def plain(**changes):
    return {**BASE, **changes}


# name: (model class, config class, config arguments). Sequences of 80 tokens pass windows of 24 and contexts of 32.
MODELS = {
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig, plain()),
    "llama-tied-biased": (hf.LlamaForCausalLM, hf.LlamaConfig, plain(tie_word_embeddings=True, attention_bias=True, mlp_bias=True, head_dim=12)),
    "llama-biased": (hf.LlamaForCausalLM, hf.LlamaConfig, plain(attention_bias=True)),
    "llama-linear": (hf.LlamaForCausalLM, hf.LlamaConfig, plain(rope_parameters=rope("linear", factor=4.0))),
    "llama-dynamic": (hf.LlamaForCausalLM, hf.LlamaConfig, plain(rope_parameters=rope("dynamic", factor=2.0), max_position_embeddings=32)),
    "llama-llama3": (hf.LlamaForCausalLM, hf.LlamaConfig, plain(rope_parameters=rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32))),
    "llama-yarn": (hf.LlamaForCausalLM, hf.LlamaConfig, plain(rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=32))),
    "llama-yarn-mscale": (hf.LlamaForCausalLM, hf.LlamaConfig, plain(rope_parameters=rope(
        "yarn", factor=4.0, original_max_position_embeddings=32, mscale=0.8, mscale_all_dim=0.5, beta_fast=16, beta_slow=2, truncate=False))),
    "mistral": (hf.MistralForCausalLM, hf.MistralConfig, plain(sliding_window=24)),
    "mixtral": (hf.MixtralForCausalLM, hf.MixtralConfig, plain(num_local_experts=4, num_experts_per_tok=2)),
    "granite": (hf.GraniteForCausalLM, hf.GraniteConfig, plain(embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.2, logits_scaling=2.5)),
    "qwen2": (hf.Qwen2ForCausalLM, hf.Qwen2Config, plain(use_sliding_window=True, sliding_window=24, max_window_layers=1)),
    "qwen2-moe": (hf.Qwen2MoeForCausalLM, hf.Qwen2MoeConfig, plain(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
                  shared_expert_intermediate_size=40, mlp_only_layers=[1])),
    "qwen3": (hf.Qwen3ForCausalLM, hf.Qwen3Config, plain(head_dim=12)),
    "qwen3-moe": (hf.Qwen3MoeForCausalLM, hf.Qwen3MoeConfig, plain(num_experts=5, num_experts_per_tok=3, moe_intermediate_size=16,
                  norm_topk_prob=True, decoder_sparse_step=2, head_dim=8)),
    "qwen2-plain": (hf.Qwen2ForCausalLM, hf.Qwen2Config, plain(tie_word_embeddings=True)),
    "qwen2-moe-plain": (hf.Qwen2MoeForCausalLM, hf.Qwen2MoeConfig, plain(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
                        shared_expert_intermediate_size=40)),
    "qwen3-moe-plain": (hf.Qwen3MoeForCausalLM, hf.Qwen3MoeConfig, plain(num_experts=5, num_experts_per_tok=3, moe_intermediate_size=16,
                        norm_topk_prob=True, head_dim=8)),
    "phi3": (hf.Phi3ForCausalLM, hf.Phi3Config, plain(sliding_window=24)),
    "phi3-longrope": (hf.Phi3ForCausalLM, hf.Phi3Config, plain(original_max_position_embeddings=32, rope_parameters=rope(
        "longrope", partial_rotary_factor=0.75, short_factor=[1.0, 1.1, 1.2], long_factor=[1.5, 2.0, 4.0]))),
    "phi3-longrope-short": (hf.Phi3ForCausalLM, hf.Phi3Config, plain(original_max_position_embeddings=96, rope_parameters=rope(
        "longrope", short_factor=[1.0, 1.1, 1.2, 1.3], long_factor=[1.5, 2.0, 4.0, 5.0]))),
    "gemma2": (hf.Gemma2ForCausalLM, hf.Gemma2Config, plain(num_hidden_layers=4, head_dim=12, query_pre_attn_scalar=10, sliding_window=24,
               attn_logit_softcapping=5.0, final_logit_softcapping=3.0)),
    "gemma3": (hf.Gemma3ForCausalLM, hf.Gemma3TextConfig, plain(num_hidden_layers=4, head_dim=12, query_pre_attn_scalar=10, sliding_window=24,
               sliding_window_pattern=3, rope_parameters={"full_attention": rope("linear", factor=8.0) | {"rope_theta": 1e6},
                                                          "sliding_attention": rope("default")})),
    # GGUF does not store the pattern of sliding blocks or the scale of queries: what llama.cpp takes them to be.
    "gemma2-plain": (hf.Gemma2ForCausalLM, hf.Gemma2Config, plain(head_dim=12, query_pre_attn_scalar=12, sliding_window=24)),
    "gemma3-plain": (hf.Gemma3ForCausalLM, hf.Gemma3TextConfig, plain(num_hidden_layers=7, head_dim=12, query_pre_attn_scalar=12, sliding_window=24,
                     rope_parameters={"full_attention": rope("linear", factor=8.0) | {"rope_theta": 1e6}, "sliding_attention": rope("default")})),
    "opt": (hf.OPTForCausalLM, hf.OPTConfig, dict(vocab_size=VOCABULARY, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=128, dropout=0.0, word_embed_proj_dim=32)),
    "opt-350m": (hf.OPTForCausalLM, hf.OPTConfig, dict(vocab_size=VOCABULARY, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
                 max_position_embeddings=128, dropout=0.0, word_embed_proj_dim=16, do_layer_norm_before=False)),
    "bloom": (hf.BloomForCausalLM, hf.BloomConfig, dict(vocab_size=VOCABULARY, hidden_size=48, n_layer=2, n_head=6)),
    "bloom-post-norm-residual": (hf.BloomForCausalLM, hf.BloomConfig, dict(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4,
                                 apply_residual_connection_post_layernorm=True)),
    "falcon-7b": (hf.FalconForCausalLM, hf.FalconConfig, FALCON),
    "falcon-40b": (hf.FalconForCausalLM, hf.FalconConfig, FALCON | dict(new_decoder_architecture=True, num_kv_heads=2)),
    "falcon-11b": (hf.FalconForCausalLM, hf.FalconConfig, FALCON | dict(new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1)),
    "falcon-rw": (hf.FalconForCausalLM, hf.FalconConfig, FALCON | dict(alibi=True, multi_query=False, parallel_attn=False, bias=True)),
    "gpt-neox": (hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, {k: v for k, v in plain().items() if k != "num_key_value_heads"} | dict(
        rope_parameters=rope("default", partial_rotary_factor=0.5))),
    "gpt-neox-sequential": (hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, {k: v for k, v in plain().items() if k != "num_key_value_heads"} | dict(
        rope_parameters=rope("default", partial_rotary_factor=1.0), use_parallel_residual=False, attention_bias=False)),
    "starcoder2": (hf.Starcoder2ForCausalLM, hf.Starcoder2Config, plain(sliding_window=24)),
    "stablelm": (hf.StableLmForCausalLM, hf.StableLmConfig, plain(partial_rotary_factor=0.5, use_qkv_bias=True)),
    "stablelm-2-12b": (hf.StableLmForCausalLM, hf.StableLmConfig, plain(partial_rotary_factor=0.25, qk_layernorm=True, use_parallel_residual=True)),
}


CHOICE = (".e_score_correction_bias", ".expert_bias")  # added to a router's scores for the choice only


def perturb(model, inputs=lambda value: value.shape[-1]):
    """Larger than usual weights, uneven norms and biases, those of a choice of experts too, so that every part of the block shows in the logits.
    inputs: how many a matrix has."""
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith(CHOICE):  # ERNIE keeps it as a parameter
                value.copy_(0.1 * torch.randn_like(value))
            elif value.dim() >= 2 and "norm" not in key:
                value.normal_(0, 0.7 / inputs(value) ** 0.5 if not any(x in key for x in ("embed", "wte", "wpe")) else 0.5)
                if "modality_router" in key:
                    value.mul_(value.shape[-1] / 2)  # what Gemma 3n's reads is divided by the width
            else:
                value.copy_(value + 0.3 * torch.randn_like(value))
        for key, value in model.named_buffers():
            if key.endswith(CHOICE):
                value.copy_(0.1 * torch.randn_like(value))
    return model


def make_model(name, seed=0, **changes):
    """The random model in float32. Eager attention knows soft caps, but counts ALiBi twice in Falcon."""
    cls, config_cls, arguments = MODELS[name]
    torch.manual_seed(seed)
    attention = "sdpa" if cls is hf.FalconForCausalLM else "eager"
    return perturb(cls._from_config(config_cls(**arguments | changes), attn_implementation=attention).float().eval())


def save_model(name, folder, seed=0):
    model = make_model(name, seed)
    model.save_pretrained(folder)
    return model


def fuse(model, folder):
    """Saves the tensors as the modules hold them: experts in one tensor, biases of routers where the modules keep them."""
    tied = {"lm_head.weight"} if getattr(model.config, "tie_word_embeddings", False) else set()
    save_file({k: v.contiguous() for k, v in model.state_dict().items() if k not in tied}, folder / "model.safetensors", metadata={"format": "pt"})
    return model


def make_internlm2(seed=0):
    """InternLM2 computes what a Llama with the same matrices computes."""
    return make_model("llama", seed)


def save_internlm2(folder, bias=False):
    """A Llama saved as InternLM2: wqkv holds, per key/value head, its query heads, its key, its value."""
    model = make_model("llama-biased" if bias else "llama")
    config = model.config
    group, dim = config.num_attention_heads // config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    state, tensors = model.state_dict(), {}
    names = {"model.embed_tokens": "model.tok_embeddings", "lm_head": "output", "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1",
             "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm"}
    for key, value in state.items():
        if any(part in key for part in ("q_proj", "k_proj", "v_proj")):
            continue
        for old, new in names.items():
            key = key.replace(old, new)
        tensors[key] = value.contiguous()
    for i in range(config.num_hidden_layers):
        for suffix in (".weight", ".bias") if bias else (".weight",):
            q, k, v = (state[f"model.layers.{i}.self_attn.{x}_proj{suffix}"].reshape(config.num_key_value_heads, -1, dim, *(() if suffix == ".bias" else (config.hidden_size,)))
                       for x in "qkv")
            assert q.shape[1] == group
            tensors[f"model.layers.{i}.attention.wqkv{suffix}"] = torch.cat([q, k, v], 1).flatten(0, 2).contiguous()
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    values = config.to_dict()
    (folder / "config.json").write_text(json.dumps({k: values[k] for k in BASE} | dict(
        model_type="internlm2", architectures=["InternLM2ForCausalLM"], bias=bias, rms_norm_eps=config.rms_norm_eps, hidden_act="silu",
        rope_theta=10000.0, tie_word_embeddings=False)))
    return model


def reference_logits(model, ids):
    with torch.no_grad():
        return model(ids).logits.float()


def edit_config(folder, change):
    """Rewrites config.json by change(dict)."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
