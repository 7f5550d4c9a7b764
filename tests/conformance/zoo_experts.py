"""Small random models with experts or latent attention, made by transformers in a folder."""
import json

import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from model_zoo import BASE, perturb, rope

# Every kind of layer occurs; hidden states and experts' inputs are multiples of 32, so that GGUF's Q8_0 can hold them.
SIZES = BASE | dict(hidden_size=64, intermediate_size=96, vocab_size=256)
YARN = dict(factor=4.0, original_max_position_embeddings=32)
# 8 experts in 4 groups of 2, of which the best 2 groups may be used.
GROUPS = dict(n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2)
ONE_GROUP = dict(n_routed_experts=6, num_experts_per_tok=2, n_group=1, topk_group=1)
# Query and key heads of 16 + 8, value heads of 12: all three differ.
LATENT = dict(num_key_value_heads=4, kv_lora_rank=32, q_lora_rank=48, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12)


def sized(**changes):
    return {**SIZES, **changes}


def deepseek(**changes):
    return sized(**(LATENT | dict(moe_intermediate_size=32, n_shared_experts=2, first_k_dense_replace=1) | changes))


LLAMA4 = dict(num_hidden_layers=4, head_dim=16, intermediate_size=32, intermediate_size_mlp=96, num_local_experts=4, interleave_moe_layer_step=2,
              no_rope_layers=[1, 0, 1, 0], attention_chunk_size=24, floor_scale=16, attn_scale=0.4)

# name: (model class, config class, config arguments), as in model_zoo. Sequences of 80 tokens pass windows and chunks of 24 and contexts of 32.
MODELS = {
    "phimoe": (hf.PhimoeForCausalLM, hf.PhimoeConfig, sized(num_local_experts=4, attention_bias=True, lm_head_bias=True, router_jitter_noise=0.2)),
    "phimoe-window": (hf.PhimoeForCausalLM, hf.PhimoeConfig, sized(num_local_experts=4, sliding_window=24)),
    "phimoe-longrope": (hf.PhimoeForCausalLM, hf.PhimoeConfig, sized(num_local_experts=4, attention_bias=True, lm_head_bias=True, rope_parameters=rope(
        "longrope", factor=4.0, original_max_position_embeddings=32, short_mscale=1.1, long_mscale=1.3,
        short_factor=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7], long_factor=[1.5, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]))),
    "olmoe": (hf.OlmoeForCausalLM, hf.OlmoeConfig, sized(num_experts=6, num_experts_per_tok=3, intermediate_size=32)),
    "olmoe-normalised": (hf.OlmoeForCausalLM, hf.OlmoeConfig, sized(num_experts=6, num_experts_per_tok=3, intermediate_size=32, norm_topk_prob=True,
                         attention_bias=True, clip_qkv=1.0)),
    "granitemoe": (hf.GraniteMoeForCausalLM, hf.GraniteMoeConfig, sized(num_local_experts=4, num_experts_per_tok=2, intermediate_size=32, tie_word_embeddings=True,
                   embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.2, logits_scaling=2.5)),
    "granitemoeshared": (hf.GraniteMoeSharedForCausalLM, hf.GraniteMoeSharedConfig, sized(num_local_experts=4, num_experts_per_tok=2, intermediate_size=32,
                         shared_intermediate_size=64, embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.2, logits_scaling=2.5)),
    "granitemoeshared-none": (hf.GraniteMoeSharedForCausalLM, hf.GraniteMoeSharedConfig, sized(num_local_experts=4, intermediate_size=32, attention_bias=True)),
    "glm4-moe": (hf.Glm4MoeForCausalLM, hf.Glm4MoeConfig, sized(head_dim=24, moe_intermediate_size=32, attention_bias=True, use_qk_norm=True,
                 routed_scaling_factor=2.5, **ONE_GROUP)),
    "glm4-moe-groups": (hf.Glm4MoeForCausalLM, hf.Glm4MoeConfig, sized(head_dim=16, moe_intermediate_size=32, norm_topk_prob=False, n_shared_experts=2,
                        first_k_dense_replace=2, **GROUPS)),
    "ernie4-5-moe": (hf.Ernie4_5_MoeForCausalLM, hf.Ernie4_5_MoeConfig, sized(moe_num_experts=6, moe_k=3, moe_intermediate_size=32, moe_num_shared_experts=2)),
    "ernie4-5-moe-biased": (hf.Ernie4_5_MoeForCausalLM, hf.Ernie4_5_MoeConfig, sized(num_hidden_layers=4, moe_num_experts=4, moe_k=2, moe_intermediate_size=32,
                            moe_num_shared_experts=0, moe_layer_start_index=0, moe_layer_end_index=2, moe_layer_interval=2, use_bias=True, tie_word_embeddings=False)),
    "hunyuan-moe": (hf.HunYuanMoEV1ForCausalLM, hf.HunYuanMoEV1Config, sized(num_experts=4, moe_topk=2, head_dim=16, attention_bias=True)),
    "hunyuan-moe-alpha": (hf.HunYuanMoEV1ForCausalLM, hf.HunYuanMoEV1Config, sized(num_experts=4, moe_topk=1, head_dim=16, tie_word_embeddings=True,
                          rope_parameters=rope("dynamic", alpha=1000.0, factor=1.0))),
    "deepseek-v2": (hf.DeepseekV2ForCausalLM, hf.DeepseekV2Config, deepseek(topk_method="group_limited_greedy", routed_scaling_factor=4.0, rms_norm_eps=0.05,
                    attention_bias=True, mlp_bias=True, rope_parameters=rope("yarn", mscale=0.7, mscale_all_dim=0.5, **YARN), **GROUPS)),
    "deepseek-v2-lite": (hf.DeepseekV2ForCausalLM, hf.DeepseekV2Config, deepseek(q_lora_rank=None, topk_method="greedy", n_routed_experts=6, num_experts_per_tok=3)),
    "deepseek-v3": (hf.DeepseekV3ForCausalLM, hf.DeepseekV3Config, deepseek(rms_norm_eps=0.05, rope_parameters=rope("yarn", mscale=1.0,
                    mscale_all_dim=1.0, **YARN), **GROUPS)),
    "deepseek-v3-half-rope": (hf.DeepseekV3ForCausalLM, hf.DeepseekV3Config, deepseek(q_lora_rank=None, rope_interleave=False, norm_topk_prob=False,
                              attention_bias=True, routed_scaling_factor=1.5, n_shared_experts=1, **ONE_GROUP)),
    "glm4-moe-lite": (hf.Glm4MoeLiteForCausalLM, hf.Glm4MoeLiteConfig, sized(moe_intermediate_size=32, rms_norm_eps=0.05, mlp_layer_types=["dense", "sparse", "sparse"],
                      **LATENT, **ONE_GROUP)),
    "youtu": (hf.YoutuForCausalLM, hf.YoutuConfig, sized(**LATENT)),
    "mistral4": (hf.Mistral4ForCausalLM, hf.Mistral4Config, sized(moe_intermediate_size=32, first_k_dense_replace=1, routed_scaling_factor=1.5, rope_parameters=rope(
        "yarn", mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.1, **YARN), **LATENT, **GROUPS)),
    "dots1": (hf.Dots1ForCausalLM, hf.Dots1Config, sized(head_dim=16, moe_intermediate_size=32, n_shared_experts=2, first_k_dense_replace=1,
              norm_topk_prob=True, routed_scaling_factor=2.5, sliding_window=24, max_window_layers=2, attention_bias=True, **ONE_GROUP)),
    "solar-open": (hf.SolarOpenForCausalLM, hf.SolarOpenConfig, sized(head_dim=16, moe_intermediate_size=32, n_shared_experts=1, **ONE_GROUP)),
    "gpt-oss": (hf.GptOssForCausalLM, hf.GptOssConfig, sized(num_local_experts=4, num_experts_per_tok=2, head_dim=16, intermediate_size=32, sliding_window=24,
                rope_parameters=rope("yarn", beta_fast=32.0, beta_slow=1.0, truncate=False, **YARN))),
    "gpt-oss-all-full": (hf.GptOssForCausalLM, hf.GptOssConfig, sized(num_local_experts=4, num_experts_per_tok=2, head_dim=16, intermediate_size=32,
                         layer_types=["full_attention"] * 3, attention_bias=False, rope_parameters=rope("default"))),
    "llama4": (hf.Llama4ForCausalLM, hf.Llama4TextConfig, sized(**LLAMA4)),
    "llama4-two-experts": (hf.Llama4ForCausalLM, hf.Llama4TextConfig, sized(**(LLAMA4 | dict(num_experts_per_tok=2, use_qk_norm=False, moe_layers=[0, 3],
                           attention_bias=True, attn_temperature_tuning=False, rope_parameters=rope("llama3", factor=8.0, low_freq_factor=1.0,
                           high_freq_factor=4.0, original_max_position_embeddings=32))))),
    "minimax-m2": (hf.MiniMaxM2ForCausalLM, hf.MiniMaxM2Config, sized(num_local_experts=6, num_experts_per_tok=3, head_dim=24, intermediate_size=32,
                   rope_parameters=rope("default", partial_rotary_factor=0.5))),
    # What GGUF does not store is what llama.cpp takes it to be.
    "phimoe-plain": (hf.PhimoeForCausalLM, hf.PhimoeConfig, sized(num_local_experts=4, attention_bias=True, lm_head_bias=True)),
    "deepseek-v2-plain": (hf.DeepseekV2ForCausalLM, hf.DeepseekV2Config, deepseek(topk_method="group_limited_greedy", routed_scaling_factor=4.0,
                          rope_parameters=rope("yarn", mscale=0.7, mscale_all_dim=0.7, **YARN), **GROUPS)),
    "dots1-plain": (hf.Dots1ForCausalLM, hf.Dots1Config, sized(head_dim=16, moe_intermediate_size=32, n_shared_experts=2, first_k_dense_replace=1,
                    norm_topk_prob=True, routed_scaling_factor=2.5, sliding_window=None, **ONE_GROUP)),
    "llama4-plain": (hf.Llama4ForCausalLM, hf.Llama4TextConfig, sized(**(LLAMA4 | dict(no_rope_layers=[1, 1, 1, 0], attention_chunk_size=8192, floor_scale=8192,
                     attn_scale=0.1)))),
}


def make_model(name, seed=0, **changes):
    cls, config_cls, arguments = MODELS[name]
    torch.manual_seed(seed)
    # Experts of gpt-oss and Llama 4 are stored [experts, in, out].
    turned = cls in (hf.GptOssForCausalLM, hf.Llama4ForCausalLM)
    model = perturb(cls._from_config(config_cls(**arguments | changes), attn_implementation="eager").float().eval(),
                    lambda value: value.shape[-2] if turned and value.dim() == 3 else value.shape[-1])
    if cls is hf.GptOssForCausalLM:
        with torch.no_grad():
            for key, value in model.named_parameters():
                if key.endswith(".gate_up_proj"):
                    value.mul_(8)  # so that its clamp at 7 acts
    return model


def save_model(name, folder, seed=0):
    """As transformers 5 writes it: experts one by one where its conversion knows how, else fused."""
    model = make_model(name, seed)
    model.save_pretrained(folder)
    return model


FP4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])


def mxfp4(weight):
    """[experts, in, out] → blocks [experts, out, in / 32, 16], scales [experts, out, in / 32] (both uint8) and the weight they stand for."""
    rows = weight.transpose(1, 2)
    groups = rows.reshape(*rows.shape[:2], -1, 32)
    exponent = torch.floor(torch.log2(groups.abs().amax(-1, keepdim=True))) - 2
    codes = (groups[..., None] / torch.exp2(exponent)[..., None] - FP4).abs().argmin(-1)
    value = (FP4[codes] * torch.exp2(exponent)).reshape(rows.shape).transpose(1, 2).contiguous()
    blocks = (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)  # the even element in the low nibble
    return blocks.contiguous(), (exponent.squeeze(-1) + 127).to(torch.uint8).contiguous(), value


def save_gpt_oss_mxfp4(folder, name="gpt-oss", seed=0):
    """As openai/gpt-oss-20b is published: experts as …_blocks and …_scales. Returns the model of the rounded weights."""
    model = save_model(name, folder, seed)
    tensors = load_file(folder / "model.safetensors")
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith((".gate_up_proj", ".down_proj")):
                tensors.pop(key)
                tensors[key + "_blocks"], tensors[key + "_scales"], rounded = mxfp4(value)
                value.copy_(rounded)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": [
        "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}
    path.write_text(json.dumps(config))
    return model
