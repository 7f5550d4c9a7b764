"""Models whose layers are of several kinds (Qwen3-Next, Qwen3.5, LFM2) against transformers, and the sentences that refuse kinds which are not computed."""
import json
import re
import subprocess

import gguf
import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

import gguf_zoo_hybrid
import model_zoo
import zoo_hybrid
import zoos
from answers import answers, assert_same_logits, refusal  # noqa: F401 (fixtures)


@pytest.mark.parametrize("name", zoo_hybrid.MODELS)
def test_logits_match_transformers(name, tmp_path, assert_same_logits):
    assert_same_logits(tmp_path / "model", zoo_hybrid.save_model(name, tmp_path / "model"))


@pytest.mark.parametrize("name", ["qwen3-next", "qwen3-5-moe", "lfm2-moe"])
def test_experts_fused_in_one_tensor(name, tmp_path, assert_same_logits):
    model = zoos.save_fused(name, tmp_path / "model")
    assert any(".experts.gate_up_proj" in key for key in load_file(tmp_path / "model" / "model.safetensors"))
    assert_same_logits(tmp_path / "model", model)


@pytest.mark.parametrize("name, older", [(name, False) for name in gguf_zoo_hybrid.CONVERTED] + [("qwen3-next-plain", True)])
def test_gguf_logits_match_transformers(name, older, tmp_path, assert_same_logits):
    model = zoo_hybrid.make_model(name)
    gguf_zoo_hybrid.write(name, model, tmp_path / "model.gguf", older=older)
    assert_same_logits(tmp_path / "model.gguf", model)


@pytest.mark.parametrize("name", ["qwen3-next-plain", "qwen3-5-moe"])
def test_gates_and_up_sides_of_experts_in_one_tensor_of_a_gguf_file(name, tmp_path, assert_same_logits):
    model = zoo_hybrid.make_model(name)
    gguf_zoo_hybrid.write(name, model, tmp_path / "model.gguf", fuse=True)
    assert_same_logits(tmp_path / "model.gguf", model)


def test_quantized_gguf_is_what_its_codes_stand_for(tmp_path, assert_same_logits):
    kind = gguf.GGMLQuantizationType.Q8_0
    model = zoo_hybrid.make_model("lfm2-moe-plain")
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.dim() >= 2 and value.shape[-1] % 32 == 0 and "conv.conv" not in key and "feed_forward.gate" not in key:
                value.copy_(torch.from_numpy(gguf.dequantize(gguf.quantize(value.numpy(), kind), kind)))
    gguf_zoo_hybrid.write("lfm2-moe-plain", model, tmp_path / "model.gguf", quantize=kind)
    assert_same_logits(tmp_path / "model.gguf", model)


@pytest.mark.parametrize("name, wrapper", [("qwen3-5", "qwen3_5"), ("qwen3-5-moe", "qwen3_5_moe")])
def test_text_model_inside_a_multimodal_one(name, wrapper, tmp_path, assert_same_logits):
    # As they are published: text under model.language_model, beside it a vision tower and heads that predict further tokens.
    folder = tmp_path / "model"
    model = zoos.save_fused(name, folder)
    path = folder / "model.safetensors"
    tensors = {key.replace("model.", "model.language_model.", 1) if key.startswith("model.") else key: value for key, value in load_file(path).items()}
    save_file(tensors | {"model.visual.blocks.0.attn.qkv.weight": torch.zeros(4, 4), "mtp.layers.0.mlp.up_proj.weight": torch.zeros(4, 4)}, path, metadata={"format": "pt"})
    text = json.loads((folder / "config.json").read_text()) | dict(mtp_num_hidden_layers=1, attn_output_gate=True, mamba_ssm_dtype="float32", full_attention_interval=2)
    if "moe" in name:
        text.pop("intermediate_size")
    tied = text.pop("tie_word_embeddings")
    (folder / "config.json").write_text(json.dumps({"model_type": wrapper, "text_config": text, "tie_word_embeddings": tied, "vision_config": {"depth": 1}, "image_token_id": 5}))
    assert_same_logits(folder, model)


def test_layers_by_interval_where_none_are_listed(tmp_path, assert_same_logits):
    model = zoo_hybrid.save_model("qwen3-next", tmp_path / "model")

    def older(config):
        config.pop("layer_types")
        config["full_attention_interval"] = 2
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    model_zoo.edit_config(tmp_path / "model", older)
    assert_same_logits(tmp_path / "model", model)


def test_older_keys_of_lfm2_win(tmp_path, assert_same_logits):
    model = zoo_hybrid.save_model("lfm2", tmp_path / "model")

    def older(config):
        config["full_attn_idxs"] = [i for i, kind in enumerate(config.pop("layer_types")) if kind == "full_attention"]
        config |= dict(block_ff_dim=config["intermediate_size"], intermediate_size=999, tie_embedding=True, tie_word_embeddings=False, block_use_swiglu=True)
    model_zoo.edit_config(tmp_path / "model", older)
    assert_same_logits(tmp_path / "model", model)


@pytest.mark.parametrize("name, change", [("qwen3-next", {"hidden_act": "gelu"}), ("qwen3-next", {"attn_output_gate": False}), ("qwen3-next", {"use_sliding_window": True}),
                                          ("qwen3-5", {"linear_num_value_heads": 3}), ("qwen3-5", {"layer_types": ["linear_attention", "conv"] * 2}),
                                          ("lfm2", {"block_use_swiglu": False}), ("lfm2-moe", {"layer_types": None})])
def test_what_is_not_computed_is_refused_by_its_key(name, change, tmp_path, refusal):
    zoo_hybrid.save_model(name, tmp_path / "model")
    model_zoo.edit_config(tmp_path / "model", lambda config: config.update(change))
    assert f'key "{next(iter(change))}"' in refusal(tmp_path / "model")


@pytest.mark.parametrize("name", zoo_hybrid.REFUSED)
def test_foreign_layers_are_refused_by_a_key(name, tmp_path, refusal):
    config_cls, key, kind = zoo_hybrid.REFUSED[name]
    config_cls().save_pretrained(tmp_path / "model")
    sentence = refusal(tmp_path / "model")
    found = re.search(r'key "(\w+)"', sentence)
    assert found and found[1] in json.loads((tmp_path / "model" / "config.json").read_text()), sentence
    assert found[1] == key and kind in sentence and "not supported" in sentence and name in sentence, sentence


def test_parts_of_diffusion_pipelines_are_refused(tmp_path, refusal):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.31.0", "sample_size": 64}))
    sentence = refusal(tmp_path / "model")
    assert "_diffusers_version" in sentence and "diffusion" in sentence


@pytest.mark.parametrize("name", zoo_hybrid.REFUSED_GGUF)
def test_foreign_layers_in_gguf_are_refused(name, tmp_path, refusal):
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", name)
    writer.add_block_count(2)
    writer.add_tensor("token_embd.weight", numpy.zeros((8, 8), dtype="float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    sentence = refusal(tmp_path / "model.gguf")
    assert "general.architecture" in sentence and f'"{name}"' in sentence and zoo_hybrid.REFUSED_GGUF[name] in sentence


@pytest.mark.parametrize("name, groups", [("qwen3-next-plain", [10, 10, 10, 10]), ("qwen3-5", [4, 4, 4, 4]), ("lfm2", [4, 4, 4, 4])])
def test_scale_groups_keep_the_function(name, groups, tool, tmp_path):
    # Norms into what reads them; values, a delta rule's norm and a convolution's gate into the output projection; up sides of gates into down.
    zoo_hybrid.save_model(name, tmp_path / "model")
    done = subprocess.run([tool("rescale_blocks"), tmp_path / "model"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [int(line[1]) for line in lines] == groups
    for block, _, difference, followed in lines:
        assert float(difference) < 1e-5 and float(followed) < 1e-4, f"block {block}"
