"""Small random models whose layers are of several kinds (linear attention, short convolutions), made by transformers in a folder, and models of foreign kinds."""
import torch
import transformers as hf

from model_zoo import BASE, perturb, rope

# Every kind of layer occurs; hidden states and experts' inputs are multiples of 32, so that GGUF's Q8_0 can hold them.
SIZES = BASE | dict(hidden_size=64, intermediate_size=96)
DELTA = dict(head_dim=16, num_hidden_layers=4, linear_conv_kernel_dim=4, linear_key_head_dim=8, linear_value_head_dim=12, linear_num_key_heads=2,
             linear_num_value_heads=4, layer_types=["linear_attention", "full_attention", "linear_attention", "full_attention"])
CONV = dict(num_hidden_layers=4, layer_types=["conv", "full_attention", "conv", "full_attention"], norm_eps=1e-5)
EXPERTS = dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=32)
SHARED = EXPERTS | dict(shared_expert_intermediate_size=64)


def sized(**changes):
    return {**SIZES, **changes}


# name: (model class, config class, config arguments), as in model_zoo. 80 tokens are more than one chunk of the delta rule.
MODELS = {
    "qwen3-next": (hf.Qwen3NextForCausalLM, hf.Qwen3NextConfig, sized(mlp_only_layers=[1], **SHARED, **DELTA)),
    "qwen3-next-unnormalised": (hf.Qwen3NextForCausalLM, hf.Qwen3NextConfig, sized(norm_topk_prob=False, attention_bias=True, decoder_sparse_step=2, **SHARED, **DELTA)),
    # GGUF holds experts in every block only, and one width of heads.
    "qwen3-next-plain": (hf.Qwen3NextForCausalLM, hf.Qwen3NextConfig, sized(**SHARED, **(DELTA | dict(linear_value_head_dim=8)))),
    "qwen3-5": (hf.Qwen3_5ForCausalLM, hf.Qwen3_5TextConfig, sized(tie_word_embeddings=True, **DELTA)),
    "qwen3-5-mrope": (hf.Qwen3_5ForCausalLM, hf.Qwen3_5TextConfig, sized(**DELTA, rope_parameters=rope("default", partial_rotary_factor=0.5,
                      mrope_interleaved=True, mrope_section=[2, 1, 1]))),
    "qwen3-5-moe": (hf.Qwen3_5MoeForCausalLM, hf.Qwen3_5MoeTextConfig, sized(**SHARED, **DELTA)),
    "lfm2": (hf.Lfm2ForCausalLM, hf.Lfm2Config, sized(block_multiple_of=32, block_ffn_dim_multiplier=1.3, **CONV)),
    "lfm2-biased": (hf.Lfm2ForCausalLM, hf.Lfm2Config, sized(block_auto_adjust_ff_dim=False, conv_bias=True, conv_L_cache=4, tie_word_embeddings=False, **CONV)),
    "lfm2-moe": (hf.Lfm2MoeForCausalLM, hf.Lfm2MoeConfig, sized(num_dense_layers=1, routed_scaling_factor=1.5, **EXPERTS, **CONV)),
    "lfm2-moe-no-bias": (hf.Lfm2MoeForCausalLM, hf.Lfm2MoeConfig, sized(num_dense_layers=2, use_expert_bias=False, norm_topk_prob=False, **EXPERTS, **CONV)),
    # GGUF has no factor of the experts' weights.
    "lfm2-moe-plain": (hf.Lfm2MoeForCausalLM, hf.Lfm2MoeConfig, sized(num_dense_layers=1, **EXPERTS, **CONV)),
}

# Refused in one sentence: what its configuration class writes → a key that shows it, and what it asks for.
REFUSED = {
    "mamba": (hf.MambaConfig, "state_size", "state-space"), "mamba2": (hf.Mamba2Config, "state_size", "state-space"),
    "falcon_mamba": (hf.FalconMambaConfig, "state_size", "state-space"), "jamba": (hf.JambaConfig, "mamba_d_state", "state-space"),
    "bamba": (hf.BambaConfig, "mamba_d_state", "state-space"), "falcon_h1": (hf.FalconH1Config, "mamba_d_state", "state-space"),
    "zamba": (hf.ZambaConfig, "mamba_d_state", "state-space"), "zamba2": (hf.Zamba2Config, "mamba_d_state", "state-space"),
    "nemotron_h": (hf.NemotronHConfig, "mamba_head_dim", "state-space"), "granitemoehybrid": (hf.GraniteMoeHybridConfig, "mamba_d_state", "state-space"),
    "recurrent_gemma": (hf.RecurrentGemmaConfig, "lru_width", "recurrent"), "rwkv": (hf.RwkvConfig, "rescale_every", "recurrent"),
    "xlstm": (hf.xLSTMConfig, "qk_dim_factor", "recurrent"), "minimax": (hf.MiniMaxConfig, "linear_attn_alpha_factor", "linear attention"),
    "kimi_linear": (hf.KimiLinearConfig, "linear_head_dim", "linear attention"), "longcat_flash": (hf.LongcatFlashConfig, "zero_expert_num", "experts that return their input"),
    "deepseek_v32": (hf.DeepseekV32Config, "index_topk", "sparse"), "glm_moe_dsa": (hf.GlmMoeDsaConfig, "index_topk", "sparse"),
    "whisper": (hf.WhisperConfig, "num_mel_bins", "audio"), "encodec": (hf.EncodecConfig, "codebook_size", "audio"), "wav2vec2": (hf.Wav2Vec2Config, "feat_extract_activation", "audio"),
    "musicgen_decoder": (hf.MusicgenDecoderConfig, "num_codebooks", "audio"),
}
REFUSED_GGUF = {"mamba": "state-space", "mamba2": "state-space", "jamba": "state-space", "falcon-h1": "state-space", "plamo2": "state-space", "nemotron_h": "state-space",
                "nemotron_h_moe": "state-space", "granitehybrid": "state-space", "rwkv6": "recurrent", "rwkv7": "recurrent", "arwkv7": "recurrent", "kimi-linear": "linear attention",
                "llada": "diffusion", "dream": "diffusion", "wavtokenizer-dec": "audio"}


def make_model(name, seed=0, **changes):
    cls, config_cls, arguments = MODELS[name]
    torch.manual_seed(seed)
    return perturb(cls._from_config(config_cls(**arguments | changes), attn_implementation="eager").float().eval())


def save_model(name, folder, seed=0):
    model = make_model(name, seed)
    model.save_pretrained(folder)
    return model
