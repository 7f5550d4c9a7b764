"""Small random models of the dense families that were added after model_zoo's, and of the text models inside multimodal ones."""
import json
import math

import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from model_zoo import perturb, reference_logits

VOCABULARY = 256
BASE = dict(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=128, pad_token_id=None, bos_token_id=None, eos_token_id=None)
GPT = dict(vocab_size=VOCABULARY, n_embd=64, n_layer=3, n_head=4, n_positions=128, bos_token_id=None, eos_token_id=None, pad_token_id=None,
           resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)


def rope(kind="default", theta=10000.0, **values):
    return {"rope_theta": theta, "rope_type": kind, **values}


def plain(**changes):
    return {**BASE, **changes}


YARN = rope("yarn", 5e5, factor=4.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0)
LLAMA3 = rope("llama3", 5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
FULL, SLIDING = "full_attention", "sliding_attention"
GEMMA3N = plain(num_hidden_layers=5, head_dim=12, sliding_window=24, layer_types=[SLIDING, FULL, SLIDING, SLIDING, FULL], num_kv_shared_layers=2,
                vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=8, altup_num_inputs=4, laurel_rank=8,
                activation_sparsity_pattern=[0.95, 0.5, 0.0, 0.0, 0.0], intermediate_size=[96] * 5, final_logit_softcapping=20.0,
                rope_parameters={FULL: rope("linear", 1e6, factor=8.0), SLIDING: rope()})
# name: (model class, config class, config arguments). Sequences of 80 tokens pass windows of 24 and contexts of 32.
MODELS = {
    # learned positions; Conv1D matrices are stored [in, out]
    "gpt2": (hf.GPT2LMHeadModel, hf.GPT2Config, GPT),
    "gpt2-scaled": (hf.GPT2LMHeadModel, hf.GPT2Config, GPT | dict(scale_attn_by_inverse_layer_idx=True, n_inner=80, activation_function="relu", tie_word_embeddings=False)),
    "gpt2-unscaled": (hf.GPT2LMHeadModel, hf.GPT2Config, GPT | dict(scale_attn_weights=False)),
    # interleaved pairs, parallel, one norm, bias on the MLP and the head only
    "gptj": (hf.GPTJForCausalLM, hf.GPTJConfig, GPT | dict(rotary_dim=8)),
    "gptj-whole": (hf.GPTJForCausalLM, hf.GPTJConfig, GPT | dict(rotary_dim=16, n_inner=80)),
    # parallel, one norm, partial rotation, biases everywhere, the head too
    "phi": (hf.PhiForCausalLM, hf.PhiConfig, plain(num_key_value_heads=4)),
    "phi-2": (hf.PhiForCausalLM, hf.PhiConfig, plain(num_key_value_heads=4, hidden_size=80, partial_rotary_factor=0.4)),
    "phi-qk-norm": (hf.PhiForCausalLM, hf.PhiConfig, plain(qk_layernorm=True)),
    # layer norm without weights
    "olmo": (hf.OlmoForCausalLM, hf.OlmoConfig, plain()),
    "olmo-clipped": (hf.OlmoForCausalLM, hf.OlmoConfig, plain(clip_qkv=0.4, tie_word_embeddings=True, attention_bias=True)),
    # norms behind attention and MLP only, q/k norm over the whole width
    "olmo2": (hf.Olmo2ForCausalLM, hf.Olmo2Config, plain()),
    "olmo2-biased": (hf.Olmo2ForCausalLM, hf.Olmo2Config, plain(attention_bias=True, tie_word_embeddings=True, num_key_value_heads=4)),
    # … and windows; the scaled rotation in full layers only
    "olmo3": (hf.Olmo3ForCausalLM, hf.Olmo3Config, plain(num_hidden_layers=4, sliding_window=24, rope_parameters={FULL: YARN, SLIDING: rope(theta=5e5)})),
    "olmo3-plain": (hf.Olmo3ForCausalLM, hf.Olmo3Config, plain(num_hidden_layers=4, sliding_window=24)),
    # parallel, layer norm without bias, interleaved pairs, scaled logits
    "cohere": (hf.CohereForCausalLM, hf.CohereConfig, plain(logit_scale=0.25)),
    "cohere-qk-norm": (hf.CohereForCausalLM, hf.CohereConfig, plain(logit_scale=0.25, use_qk_norm=True, attention_bias=True, tie_word_embeddings=False)),
    # … and windows; no rotation in full layers
    "cohere2": (hf.Cohere2ForCausalLM, hf.Cohere2Config, plain(num_hidden_layers=4, sliding_window=24, logit_scale=0.25)),
    "cohere2-types": (hf.Cohere2ForCausalLM, hf.Cohere2Config, plain(sliding_window=24, layer_types=[FULL, SLIDING, FULL], attention_bias=True, tie_word_embeddings=False)),
    # layer norm of 1 + weight with bias, squared ReLU, partial rotation
    "nemotron": (hf.NemotronForCausalLM, hf.NemotronConfig, plain()),
    "nemotron-biased": (hf.NemotronForCausalLM, hf.NemotronConfig, plain(head_dim=12, partial_rotary_factor=1.0, attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    # interleaved pairs in the first half of a head, fused gate and up
    "glm": (hf.GlmForCausalLM, hf.GlmConfig, plain(head_dim=16)),
    "glm-unbiased": (hf.GlmForCausalLM, hf.GlmConfig, plain(head_dim=12, partial_rotary_factor=1.0, attention_bias=False, tie_word_embeddings=True)),
    # … and norms before and behind attention and MLP
    "glm4": (hf.Glm4ForCausalLM, hf.Glm4Config, plain(head_dim=16)),
    "glm4-unbiased": (hf.Glm4ForCausalLM, hf.Glm4Config, plain(head_dim=16, attention_bias=False)),
    "gemma": (hf.GemmaForCausalLM, hf.GemmaConfig, plain(head_dim=12, num_key_value_heads=1)),
    "gemma-biased": (hf.GemmaForCausalLM, hf.GemmaConfig, plain(head_dim=12, attention_bias=True, tie_word_embeddings=False)),
    # four streams of hidden states, an embedding for each layer; keys and values of earlier layers in the last two
    "gemma3n": (hf.Gemma3nForCausalLM, hf.Gemma3nTextConfig, GEMMA3N),
    "gemma3n-unshared": (hf.Gemma3nForCausalLM, hf.Gemma3nTextConfig, GEMMA3N | dict(num_kv_shared_layers=0, altup_num_inputs=3, altup_correct_scale=False, altup_active_idx=1,
                         attention_bias=True, tie_word_embeddings=False, rope_parameters=None)),
    # every fourth layer without positions
    "smollm3": (hf.SmolLM3ForCausalLM, hf.SmolLM3Config, plain(num_hidden_layers=4)),
    "smollm3-sliding": (hf.SmolLM3ForCausalLM, hf.SmolLM3Config, plain(no_rope_layers=[1, 0, 1], use_sliding_window=True, sliding_window=24, attention_bias=True,
                        mlp_bias=True, tie_word_embeddings=False)),
    # norms behind only, q/k norm of a head; no rotation in the full layers of a model with windows
    "exaone4": (hf.Exaone4ForCausalLM, hf.Exaone4Config, plain(num_hidden_layers=4, sliding_window=24)),
    "exaone4-full": (hf.Exaone4ForCausalLM, hf.Exaone4Config, plain(sliding_window=None, layer_types=[FULL] * 3, tie_word_embeddings=True, rope_parameters=LLAMA3)),
    # q/k norm behind the rotation
    "hunyuan-dense": (hf.HunYuanDenseV1ForCausalLM, hf.HunYuanDenseV1Config, plain(head_dim=16, attention_bias=True)),
    "hunyuan-dense-alpha": (hf.HunYuanDenseV1ForCausalLM, hf.HunYuanDenseV1Config, plain(head_dim=12, tie_word_embeddings=True,
                            rope_parameters=rope("dynamic", alpha=1000.0, factor=1.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=0.0))),
    "seed-oss": (hf.SeedOssForCausalLM, hf.SeedOssConfig, plain(head_dim=12)),
    "seed-oss-biased": (hf.SeedOssForCausalLM, hf.SeedOssConfig, plain(head_dim=16, attention_out_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    "arcee": (hf.ArceeForCausalLM, hf.ArceeConfig, plain()),
    "arcee-biased": (hf.ArceeForCausalLM, hf.ArceeConfig, plain(head_dim=12, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, rope_parameters=YARN | {"attention_factor": 1.3})),
    "ministral": (hf.MinistralForCausalLM, hf.MinistralConfig, plain(head_dim=16, sliding_window=24, layer_types=[SLIDING, FULL, SLIDING])),
    "ministral-full": (hf.MinistralForCausalLM, hf.MinistralConfig, plain(head_dim=16, sliding_window=24, layer_types=[FULL] * 3, tie_word_embeddings=True)),
    # queries scaled by position beyond the original context
    "ministral3": (hf.Ministral3ForCausalLM, hf.Ministral3Config, plain(head_dim=16, rope_parameters=rope(
        "yarn", 1e6, factor=16.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.1))),
    "ministral3-sliding": (hf.Ministral3ForCausalLM, hf.Ministral3Config, plain(head_dim=16, sliding_window=24, tie_word_embeddings=True, rope_parameters=rope(
        "yarn", 1e6, factor=4.0, original_max_position_embeddings=24, mscale=0.8, mscale_all_dim=0.5, llama_4_scaling_beta=0.5))),
    # interleaved pairs
    "ernie4-5": (hf.Ernie4_5ForCausalLM, hf.Ernie4_5Config, plain(head_dim=16)),
    "ernie4-5-biased": (hf.Ernie4_5ForCausalLM, hf.Ernie4_5Config, plain(head_dim=12, use_bias=True, tie_word_embeddings=False)),
    "granite-biased": (hf.GraniteForCausalLM, hf.GraniteConfig, plain(attention_bias=True, mlp_bias=True, tie_word_embeddings=True, embedding_multiplier=12.0,
                       residual_multiplier=0.22, attention_multiplier=0.0625, logits_scaling=8.0)),
}


def make_model(name, seed=0, **changes):
    cls, config_cls, arguments = MODELS[name]
    torch.manual_seed(seed)
    return perturb(cls._from_config(config_cls(**arguments | changes), attn_implementation="eager").float().eval())


def save_model(name, folder, seed=0):
    model = make_model(name, seed)
    model.save_pretrained(folder)
    return model


# --- families whose modelling code is not in transformers: another model with the same matrices, saved under their names

def write(folder, tensors, config):
    folder.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


def llama(**changes):
    torch.manual_seed(0)
    return perturb(hf.LlamaForCausalLM._from_config(hf.LlamaConfig(**plain(num_key_value_heads=4) | changes), attn_implementation="eager").float().eval())


def alibi_slopes(heads):
    power = 2 ** math.floor(math.log2(heads))
    first = [2.0 ** (-8.0 * (i + 1) / power) for i in range(power)]
    return first + [2.0 ** (-4.0 * (2 * i + 1) / power) for i in range(heads - power)]


def save_baichuan(folder, alibi=False, normalised_head=False, **changes):
    """A Llama saved as Baichuan: q, k and v in W_pack. The 13B models have ALiBi instead of a rotation; Baichuan 2 gives each row of the head
    length 1. Returns logits(ids)."""
    model = llama(hidden_size=96, num_attention_heads=6, num_key_value_heads=6, **changes) if alibi else llama(**changes)
    config = model.config
    tensors = {k: v for k, v in model.state_dict().items() if not any(x in k for x in ("q_proj", "k_proj", "v_proj"))}
    for i in range(config.num_hidden_layers):
        prefix = f"model.layers.{i}.self_attn."
        tensors[prefix + "W_pack.weight"] = torch.cat([model.state_dict()[f"{prefix}{x}_proj.weight"] for x in "qkv"])
    # What tells the variants apart: 13B has model_max_length alone; version 2 has 125696 tokens (and z_loss_weight).
    values = dict(model_type="baichuan", architectures=["BaichuanForCausalLM"], vocab_size=VOCABULARY, hidden_size=config.hidden_size,
                  intermediate_size=config.intermediate_size, num_hidden_layers=config.num_hidden_layers, num_attention_heads=config.num_attention_heads,
                  hidden_act="silu", rms_norm_eps=config.rms_norm_eps, model_max_length=128, tie_word_embeddings=False, use_cache=True)
    if not alibi:
        values["max_position_embeddings"] = 128
    if normalised_head:
        values["z_loss_weight"] = 0
    write(folder, tensors, values)
    if normalised_head:
        with torch.no_grad():
            model.lm_head.weight.copy_(torch.nn.functional.normalize(model.lm_head.weight))

    def logits(ids):
        if not alibi:
            return model(ids).logits
        rotary = model.model.rotary_emb

        class Still(torch.nn.Module):
            def forward(self, x, position_ids):
                cos, sin = rotary(x, position_ids)
                return torch.ones_like(cos), torch.zeros_like(sin)
        model.model.rotary_emb = Still()
        n = ids.shape[1]
        bias = torch.tensor(alibi_slopes(config.num_attention_heads))[:, None, None] * torch.arange(n)
        mask = bias + torch.full((n, n), float("-inf")).triu(1)
        return model(ids, attention_mask=mask[None].expand(ids.shape[0], -1, -1, -1)).logits
    return lambda ids: logits(ids).detach()


def save_minicpm(folder, tied=True):
    """A Granite with scales that depend on the size, saved as MiniCPM."""
    scale_emb, scale_depth, base = 12.0, 1.4, 16
    torch.manual_seed(0)
    model = perturb(hf.GraniteForCausalLM._from_config(hf.GraniteConfig(**plain(
        embedding_multiplier=scale_emb, residual_multiplier=scale_depth / math.sqrt(BASE["num_hidden_layers"]), attention_multiplier=16 ** -0.5,
        logits_scaling=BASE["hidden_size"] / base, tie_word_embeddings=tied)), attn_implementation="eager").float().eval())
    values = {k: v for k, v in BASE.items() if not k.endswith("token_id")}
    tensors = {k: v for k, v in model.state_dict().items() if not (tied and k == "lm_head.weight")}
    write(folder, tensors, values | dict(model_type="minicpm", architectures=["MiniCPMForCausalLM"], hidden_act="silu", rms_norm_eps=model.config.rms_norm_eps,
                                         scale_emb=scale_emb, scale_depth=scale_depth, dim_model_base=base, rope_scaling=None, tie_word_embeddings=tied))
    return lambda ids: model(ids).logits.detach()


def save_chatglm(folder, rope_ratio=1, bias=True):
    """A GLM saved as ChatGLM 2, 3 or 4: q, k and v in query_key_value, gate and up in dense_h_to_4h."""
    torch.manual_seed(0)
    model = perturb(hf.GlmForCausalLM._from_config(hf.GlmConfig(**plain(
        head_dim=16, attention_bias=bias, rms_norm_eps=1e-5, rope_parameters=rope(theta=10000.0 * rope_ratio, partial_rotary_factor=0.5))),
        attn_implementation="eager").float().eval())
    state, tensors = model.state_dict(), {}
    outer = {"model.embed_tokens.": "transformer.embedding.word_embeddings.", "model.norm.": "transformer.encoder.final_layernorm.",
             "lm_head.": "transformer.output_layer.", "model.layers.": "transformer.encoder.layers.", "self_attn.o_proj": "self_attention.dense",
             "mlp.gate_up_proj": "mlp.dense_h_to_4h", "mlp.down_proj": "mlp.dense_4h_to_h"}
    for key, value in state.items():
        if any(x in key for x in ("q_proj", "k_proj", "v_proj")):
            continue
        for old, new in outer.items():
            key = key.replace(old, new)
        tensors[key] = value
    for i in range(BASE["num_hidden_layers"]):
        for suffix in (".weight", ".bias") if bias else (".weight",):
            tensors[f"transformer.encoder.layers.{i}.self_attention.query_key_value{suffix}"] = torch.cat(
                [state[f"model.layers.{i}.self_attn.{x}_proj{suffix}"] for x in "qkv"])
    tensors["transformer.rotary_pos_emb.inv_freq"] = torch.arange(4.0)
    values = dict(
        model_type="chatglm", architectures=["ChatGLMModel"], num_layers=3, num_hidden_layers=3, padded_vocab_size=VOCABULARY, vocab_size=VOCABULARY, hidden_size=64,
        ffn_hidden_size=96, kv_channels=16, num_attention_heads=4, seq_length=128, layernorm_epsilon=1e-5, rmsnorm=True, add_bias_linear=False,
        add_qkv_bias=bias, multi_query_attention=True, multi_query_group_num=2, post_layer_norm=True, original_rope=True,
        apply_residual_connection_post_layernorm=False, apply_query_key_layer_scaling=True, attention_softmax_in_fp32=True,
        fp32_residual_connection=False, bias_dropout_fusion=True, quantization_bit=0, pre_seq_len=None, prefix_projection=False, tie_word_embeddings=False)
    if rope_ratio != 1:
        values["rope_ratio"] = rope_ratio
    write(folder, tensors, values)
    return lambda ids: model(ids).logits.detach()


# --- text models inside multimodal ones: name → (whole model's class, its config). Reference: the whole model on text tokens alone.

VISION = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8)


QWEN3_VISION = dict(depth=1, hidden_size=16, intermediate_size=24, num_heads=2, patch_size=4, spatial_merge_size=2, temporal_patch_size=2, out_hidden_size=64,
                    num_position_embeddings=16, deepstack_visual_indexes=[])
LLAMA4 = plain(num_hidden_layers=4, head_dim=16, intermediate_size=32, intermediate_size_mlp=96, num_local_experts=4, interleave_moe_layer_step=2,
               no_rope_layers=[1, 0, 1, 0], attention_chunk_size=24, floor_scale=16, attn_scale=0.4)
DELTA = plain(head_dim=16, num_hidden_layers=4, linear_conv_kernel_dim=4, linear_key_head_dim=8, linear_value_head_dim=12, linear_num_key_heads=2,
              linear_num_value_heads=4, layer_types=["linear_attention", "full_attention", "linear_attention", "full_attention"],
              rope_parameters=rope(mrope_section=[2, 1, 1], partial_rotary_factor=0.5, mrope_interleaved=True))


def qwen_vl_text(**changes):
    return plain(**{"rope_parameters": rope(mrope_section=[2, 3, 3]), **changes})


def wrappers():
    qwen_vision = dict(depth=1, embed_dim=16, hidden_size=64, num_heads=2, mlp_ratio=2, patch_size=4, spatial_merge_size=2, temporal_patch_size=2)
    return {
        "qwen2-vl": lambda: (hf.Qwen2VLForConditionalGeneration, hf.Qwen2VLConfig(text_config=qwen_vl_text(), vision_config=qwen_vision)),
        "qwen2-vl-tied": lambda: (hf.Qwen2VLForConditionalGeneration, hf.Qwen2VLConfig(text_config=qwen_vl_text(), vision_config=qwen_vision, tie_word_embeddings=True)),
        "qwen2-5-vl": lambda: (hf.Qwen2_5_VLForConditionalGeneration, hf.Qwen2_5_VLConfig(text_config=qwen_vl_text(), vision_config=dict(
            depth=1, hidden_size=16, intermediate_size=24, num_heads=2, patch_size=4, spatial_merge_size=2, temporal_patch_size=2, out_hidden_size=64,
            fullatt_block_indexes=[0], window_size=16))),
        "qwen3-vl": lambda: (hf.Qwen3VLForConditionalGeneration, hf.Qwen3VLConfig(text_config=qwen_vl_text(head_dim=16, rope_parameters=rope(
            theta=5e6, mrope_section=[4, 2, 2], mrope_interleaved=True)), vision_config=dict(
            depth=2, hidden_size=16, intermediate_size=24, num_heads=2, patch_size=4, spatial_merge_size=2, temporal_patch_size=2, out_hidden_size=64,
            num_position_embeddings=16, deepstack_visual_indexes=[0]))),
        "mistral3": lambda: (hf.Mistral3ForConditionalGeneration, hf.Mistral3Config(text_config=dict(model_type="mistral", sliding_window=None, head_dim=16, **BASE),
                             vision_config=dict(model_type="pixtral", head_dim=8, **VISION), tie_word_embeddings=False, image_token_index=VOCABULARY - 1)),
        "mistral3-ministral3": lambda: (hf.Mistral3ForConditionalGeneration, hf.Mistral3Config(
            text_config=dict(model_type="ministral3", **MODELS["ministral3"][2]), vision_config=dict(model_type="pixtral", head_dim=8, **VISION),
            tie_word_embeddings=True, image_token_index=VOCABULARY - 1)),
        "idefics2": lambda: (hf.Idefics2ForConditionalGeneration, hf.Idefics2Config(text_config=dict(model_type="mistral", sliding_window=24, **BASE),
                             vision_config=VISION, perceiver_config=dict(hidden_size=64, resampler_n_latents=4, resampler_depth=1, resampler_n_heads=2,
                             resampler_head_dim=8, num_key_value_heads=1), image_token_id=VOCABULARY - 1)),
        "idefics3": lambda: (hf.Idefics3ForConditionalGeneration, hf.Idefics3Config(text_config=dict(model_type="llama", **BASE), vision_config=VISION,
                             image_token_id=VOCABULARY - 1, pad_token_id=0)),
        "smolvlm": lambda: (hf.SmolVLMForConditionalGeneration, hf.SmolVLMConfig(text_config=dict(model_type="llama", **BASE), vision_config=VISION,
                            image_token_id=VOCABULARY - 1, pad_token_id=0, tie_word_embeddings=True)),
        "internvl": lambda: (hf.InternVLForConditionalGeneration, hf.InternVLConfig(text_config=dict(model_type="qwen2", **BASE), vision_config=dict(
            VISION, image_size=[16, 16], patch_size=[8, 8]), image_token_id=VOCABULARY - 1, tie_word_embeddings=False)),
        "internvl-qwen3": lambda: (hf.InternVLForConditionalGeneration, hf.InternVLConfig(text_config=dict(model_type="qwen3", head_dim=16, **BASE), vision_config=dict(
            VISION, image_size=[16, 16], patch_size=[8, 8]), image_token_id=VOCABULARY - 1, tie_word_embeddings=True)),
        "gemma3": lambda: (hf.Gemma3ForConditionalGeneration, hf.Gemma3Config(text_config=plain(num_hidden_layers=4, head_dim=12, query_pre_attn_scalar=10, sliding_window=24,
                           sliding_window_pattern=3), vision_config=VISION, mm_tokens_per_image=4, image_token_index=VOCABULARY - 1)),
        "llama4": lambda: (hf.Llama4ForConditionalGeneration, hf.Llama4Config(text_config=LLAMA4, image_token_index=VOCABULARY - 1, vision_config=dict(
            hidden_size=16, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8, vision_output_dim=16, projector_input_dim=16,
            projector_output_dim=16, pixel_shuffle_ratio=0.5))),
        "qwen3-5": lambda: (hf.Qwen3_5ForConditionalGeneration, hf.Qwen3_5Config(text_config=DELTA, vision_config=QWEN3_VISION)),
        "qwen3-5-moe": lambda: (hf.Qwen3_5MoeForConditionalGeneration, hf.Qwen3_5MoeConfig(text_config=DELTA | dict(num_experts=4, num_experts_per_tok=2,
                                moe_intermediate_size=32, shared_expert_intermediate_size=32), vision_config=QWEN3_VISION)),
        # layers 1 and 3 are cross-attention, which text alone skips; the embedding has 8 rows more than the head
        "mllama": lambda: (hf.MllamaForConditionalGeneration, hf.MllamaConfig(text_config=plain(num_hidden_layers=5, cross_attention_layers=[1, 3], rope_parameters=LLAMA3, bos_token_id=1, eos_token_id=2, pad_token_id=0),
                           vision_config=dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_global_layers=1, attention_heads=2, image_size=16,
                           patch_size=8, max_num_tiles=2, vision_output_dim=48, intermediate_layers_indices=[0, 1], supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]]))),
    }


def make_wrapper(name, seed=0):
    cls, config = wrappers()[name]()
    torch.manual_seed(seed)
    return perturb(cls._from_config(config, attn_implementation="eager").float().eval())


def save_wrapper(name, folder, seed=0):
    """Under the names of published files (transformers turns its own names back when it saves)."""
    model = make_wrapper(name, seed)
    model.save_pretrained(folder)
    return model


def wrap_text_model(folder, outer_type, rename, text_type=None, **outer):
    """Turns a saved text model into one inside a multimodal configuration: config.json nested, tensors renamed by rename(name)."""
    path = folder / "model.safetensors"
    save_file({rename(k): v for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    text = json.loads((folder / "config.json").read_text())
    text["model_type"] = text_type or text["model_type"]
    (folder / "config.json").write_text(json.dumps({"model_type": outer_type, "text_config": text, **outer}))


def save_gemma3n_wrapper(folder, rows=200):
    """Gemma 3n as it is published: the text model beside towers, an embedding for each layer of the first `rows` tokens only (all others get the first's), and keys
    and values in layers that do not use them."""
    model = make_model("gemma3n")
    with torch.no_grad():
        model.model.embed_tokens_per_layer.weight[rows:] = model.model.embed_tokens_per_layer.weight[0]
    model.save_pretrained(folder)
    wrap_text_model(folder, "gemma3n", lambda name: name.replace("model.", "model.language_model.", 1), audio_config={"model_type": "gemma3n_audio"},
                    vision_config={"model_type": "gemma3n_vision"}, vision_soft_tokens_per_image=256, audio_soft_tokens_per_image=188, boi_token_id=1, eoa_token_id=2)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size_per_layer_input"] = rows
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    table = "model.language_model.embed_tokens_per_layer.weight"
    tensors[table] = tensors[table][:rows].clone()
    tensors.update(unused_keys_and_values(model, "model.language_model."))
    tensors.update({f"model.{tower}.weight": torch.ones(4) for tower in ("audio_tower.conformer.0.norm", "vision_tower.timm_model.conv_stem.conv", "embed_vision.embedding")})
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return model


def unused_keys_and_values(model, prefix="model."):
    """What published files of Gemma 3n hold for the layers that take keys and values of earlier ones."""
    config, tensors, generator = model.config, {}, torch.Generator().manual_seed(3)
    for i in range(config.num_hidden_layers - config.num_kv_shared_layers, config.num_hidden_layers):
        for name in ("k_proj", "v_proj"):
            tensors[f"{prefix}layers.{i}.self_attn.{name}.weight"] = torch.randn(config.num_key_value_heads * config.head_dim, config.hidden_size, generator=generator)
        tensors[f"{prefix}layers.{i}.self_attn.k_norm.weight"] = torch.ones(config.head_dim)
    return tensors


def flatten_text_config(folder):
    """As Qwen2-VL and Qwen2.5-VL were published: the text model's keys at the top, rope_scaling of type mrope."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    text = config.pop("text_config")
    scaling = text.pop("rope_parameters")
    text.update(rope_theta=scaling["rope_theta"], rope_scaling={"type": "mrope", "mrope_section": scaling["mrope_section"]})
    path.write_text(json.dumps({k: v for k, v in text.items() if k not in ("model_type", "layer_types")} | config))
