"""Models with experts and with latent attention against transformers, from every form in which they are stored, and the sentences that refuse what is not computed."""
import json
import subprocess

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

import gguf_zoo_experts
import model_zoo
import zoo_experts
from answers import answers, assert_same_logits, refusal  # noqa: F401 (fixtures)


@pytest.mark.parametrize("name", zoo_experts.MODELS)
def test_logits_match_transformers(name, tmp_path, assert_same_logits):
    model = zoo_experts.save_model(name, tmp_path / "model")
    assert_same_logits(tmp_path / "model", model)
    model_zoo.fuse(model, tmp_path / "model")
    assert_same_logits(tmp_path / "model", model)


@pytest.mark.parametrize("name", gguf_zoo_experts.CONVERTED)
def test_gguf_logits_match_transformers(name, tmp_path, assert_same_logits):
    model = zoo_experts.make_model(name)
    gguf_zoo_experts.write(name, model, tmp_path / "model.gguf")
    assert_same_logits(tmp_path / "model.gguf", model)


def test_latent_attention_of_older_gguf_files(tmp_path, assert_same_logits):
    model = zoo_experts.make_model("deepseek-v2-lite")
    gguf_zoo_experts.write("deepseek-v2-lite", model, tmp_path / "model.gguf", joined=True)
    assert_same_logits(tmp_path / "model.gguf", model)


@pytest.mark.parametrize("kind", [None, gguf.GGMLQuantizationType.Q8_0])
def test_gates_and_up_sides_of_experts_in_one_tensor_of_a_gguf_file(kind, tmp_path, assert_same_logits):
    model = zoo_experts.make_model("mistral4")
    if kind:
        with torch.no_grad():
            for key, value in model.named_parameters():
                if key.endswith((".gate_up_proj", ".experts.down_proj")):
                    value.copy_(torch.from_numpy(gguf.dequantize(gguf.quantize(value.numpy(), kind), kind)))
    gguf_zoo_experts.write("mistral4", model, tmp_path / "model.gguf", quantize=kind, only="_exps.", fuse=True)
    assert any(t.name == "blk.1.ffn_gate_up_exps.weight" for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors)
    assert_same_logits(tmp_path / "model.gguf", model)


SLIDING_THIRD = [False, False, True]


@pytest.mark.parametrize("pattern, kinds", [(3, [True, True, False]), (1, [False] * 3), (0, [True] * 3), (SLIDING_THIRD, SLIDING_THIRD)])
def test_gpt_oss_in_gguf_with_its_own_pattern_of_windows(pattern, kinds, tmp_path, assert_same_logits):
    model = zoo_experts.make_model("gpt-oss", layer_types=["sliding_attention" if slides else "full_attention" for slides in kinds])
    gguf_zoo_experts.write("gpt-oss", model, tmp_path / "model.gguf", pattern=pattern)
    assert_same_logits(tmp_path / "model.gguf", model)


def test_gpt_oss_as_it_is_published(tmp_path, assert_same_logits):
    model = zoo_experts.save_gpt_oss_mxfp4(tmp_path / "model")
    assert_same_logits(tmp_path / "model", model)


def test_mxfp4_in_a_gguf_file(tmp_path, assert_same_logits):
    model = zoo_experts.make_model("gpt-oss")
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith((".gate_up_proj", ".down_proj")):
                value.copy_(zoo_experts.mxfp4(value)[2])
    gguf_zoo_experts.write("gpt-oss", model, tmp_path / "model.gguf", quantize=gguf.GGMLQuantizationType.MXFP4, only="_exps.")
    stored = {t.name: t.tensor_type for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert stored["blk.0.ffn_up_exps.weight"] == gguf.GGMLQuantizationType.MXFP4
    assert_same_logits(tmp_path / "model.gguf", model)


def test_llama4_inside_a_multimodal_model(tmp_path, assert_same_logits):
    model = zoo_experts.save_model("llama4", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({"model_type": "llama4", "architectures": ["Llama4ForConditionalGeneration"], "text_config": json.loads(path.read_text())}))
    weights = tmp_path / "model" / "model.safetensors"
    tensors = {f"language_model.{key}": value for key, value in load_file(weights).items()}
    save_file(tensors | {"vision_model.class_embedding": torch.zeros(4)}, weights, metadata={"format": "pt"})
    assert_same_logits(tmp_path / "model", model)


def older(config):
    """As transformers 4 wrote it."""
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    scaling.pop("partial_rotary_factor", None)
    config["rope_scaling"] = scaling if scaling.get("rope_type") != "default" else None
    if scaling.get("rope_type"):
        scaling["type"] = scaling.pop("rope_type")
    config["torch_dtype"] = config.pop("dtype")


PUBLISHED = {
    "deepseek-v3": dict(model_type="kimi_k2", moe_layer_freq=1, scoring_func="sigmoid", topk_method="noaux_tc", aux_loss_alpha=0.001, seq_aux=True, ep_size=1),
    "deepseek-v2": dict(moe_layer_freq=1, scoring_func="softmax", norm_topk_prob=False, aux_loss_alpha=0.001, seq_aux=True, ep_size=1),
    "minimax-m2": dict(rotary_dim=12, scoring_func="sigmoid", use_routing_bias=True, use_qk_norm=True, qk_norm_type="per_layer", attn_type_list=[1, 1, 1],
                       shared_intermediate_size=0, use_mtp=True, num_mtp_modules=3, mtp_transformer_layers=1),
    "hunyuan-moe": dict(num_experts=4, moe_topk=[2, 2, 2], num_shared_expert=[1, 1, 1], moe_intermediate_size=[96, 96, 96], use_qk_norm=True, use_mixed_mlp_moe=True,
                        moe_layer_num_skipped=0, use_cla=False, cla_share_factor=2, norm_type="rms", mlp_bias=False, attention_head_dim=16),
    "hunyuan-moe-alpha": dict(),
    "gpt-oss": dict(initial_context_length=32, experts_per_token=2, swiglu_limit=7.0),
    "glm4-moe": dict(partial_rotary_factor=0.5, num_nextn_predict_layers=1),
    "phimoe-longrope": dict(),
    "llama4": dict(for_llm_compressor=False, cache_implementation="hybrid", attn_temperature_tuning=4),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_read_the_same(name, tmp_path, assert_same_logits):
    model = zoo_experts.save_model(name, tmp_path / "model")

    def change(config):
        older(config)
        config.update(PUBLISHED[name])
    model_zoo.edit_config(tmp_path / "model", change)
    assert_same_logits(tmp_path / "model", model)


def test_layers_that_predict_further_tokens_are_not_read(tmp_path, assert_same_logits):
    model = zoo_experts.save_model("deepseek-v3", tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    extra = {key.replace("layers.2.", "layers.3."): value.clone() for key, value in tensors.items() if "layers.2." in key}
    save_file(tensors | extra | {"model.layers.3.eh_proj.weight": torch.zeros(64, 128)}, path, metadata={"format": "pt"})
    assert_same_logits(tmp_path / "model", model)


@pytest.mark.parametrize("name, key, value", [
    ("deepseek-v3", "topk_method", "greedy"), ("deepseek-v3", "scoring_func", "softmax"), ("deepseek-v3", "n_group", 3), ("deepseek-v3", "topk_group", 5),
    ("deepseek-v3", "num_key_value_heads", 2), ("deepseek-v3", "moe_layer_freq", 2), ("deepseek-v2", "norm_topk_prob", True), ("deepseek-v2", "topk_method", "noaux_tc"),
    ("minimax-m2", "attn_type_list", [1, 0, 1]), ("minimax-m2", "rotary_dim", 16), ("hunyuan-moe", "moe_topk", [1, 2, 2]), ("hunyuan-moe", "use_cla", True),
    ("gpt-oss", "swiglu_limit", 5.0), ("llama4", "attention_chunk_size", None), ("phimoe", "num_experts_per_tok", 3), ("olmoe", "sliding_window", 24),
    ("glm4-moe-lite", "first_k_dense_replace", 2), ("granitemoe", "layer_types", ["mamba", "attention", "mamba"]), ("ernie4-5-moe", "moe_use_aux_free", False)])
def test_what_is_not_computed_is_refused_by_its_key(name, key, value, tmp_path, refusal):
    zoo_experts.save_model(name, tmp_path / "model")
    model_zoo.edit_config(tmp_path / "model", lambda c: c.update({key: value}))
    assert f'"{key}"' in refusal(tmp_path / "model")


def test_codes_of_another_shape_are_refused_by_their_name(tmp_path, refusal):
    zoo_experts.save_gpt_oss_mxfp4(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    key = "model.layers.1.mlp.experts.down_proj_scales"
    tensors[key] = tensors[key][:, :-1].contiguous()
    save_file(tensors, path, metadata={"format": "pt"})
    assert key in refusal(tmp_path / "model")


def gated_products(name, model):
    """Of each block: how many matrices take in what an up projection makes times its gate, which a factor passes."""
    counts = [0] * model.config.num_hidden_layers
    for key, value in model.state_dict().items():
        if key.endswith("experts.down_proj"):
            counts[int(key.split(".")[2])] += value.shape[0]
        elif key.endswith(("down_proj.weight", "shared_mlp.output_linear.weight")):
            counts[int(key.split(".")[2])] += 1
    return [0] * len(counts) if name == "gpt-oss" else counts  # its activation clamps


@pytest.mark.parametrize("name", ["olmoe-normalised", "granitemoeshared", "glm4-moe", "ernie4-5-moe-biased", "hunyuan-moe", "phimoe", "deepseek-v2", "deepseek-v3-half-rope",
                                  "mistral4", "gpt-oss", "llama4", "minimax-m2"])
def test_scale_groups_keep_the_function(name, tool, tmp_path):
    model = zoo_experts.save_model(name, tmp_path / "model")
    products = gated_products(name, model)
    done = subprocess.run([tool("rescale_blocks"), tmp_path / "model"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == model.config.num_hidden_layers
    for block, groups, difference, followed in lines:
        # norm → q, k, v and, unless a clip lies between, v → o; further norms of latent attention; norm → gate, up, routers.
        expected = 2 + (name != "olmoe-normalised") + hasattr(model.config, "kv_lora_rank") + (getattr(model.config, "q_lora_rank", None) is not None)
        assert int(groups) == expected + products[int(block)], f"block {block}"
        assert float(difference) < 1e-5 and float(followed) < 1e-4, f"block {block}"
