"""The decoder's forward pass against transformers, family by family, from Hugging Face folders and from GGUF files."""
import json
import subprocess

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

import gguf_zoo
import model_zoo

TOLERANCE = 1e-4  # of the largest logit, float32


def token_ids(batch=2, length=80):
    return torch.randint(0, model_zoo.VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(7))


def assert_close(ours, reference, tolerance=TOLERANCE):
    assert ours.shape == reference.shape
    error = (ours - reference).abs().max().item() / reference.abs().max().item()
    assert error <= tolerance, f"largest difference {error:.2e} of the largest logit"


@pytest.fixture
def our_logits(tool, tmp_path):
    def run(model, ids, dtype="float32"):
        save_file({"ids": ids}, tmp_path / "ids.safetensors")
        done = subprocess.run([tool("model_logits"), model, tmp_path / "ids.safetensors", tmp_path / "out.safetensors", dtype],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return load_file(tmp_path / "out.safetensors")
    return run


@pytest.mark.parametrize("name", model_zoo.MODELS)
def test_logits_match_transformers(name, tmp_path, our_logits):
    model = model_zoo.save_model(name, tmp_path / "model")
    ids = token_ids()
    reference = model_zoo.reference_logits(model, ids)
    ours = our_logits(tmp_path / "model", ids)
    assert_close(ours["logits"], reference)
    nll = torch.nn.functional.cross_entropy(reference[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(ids.shape[0], -1)
    assert (ours["nll"] - nll).abs().max() < 1e-4 * nll.abs().max()


@pytest.mark.parametrize("bias", [False, True])
def test_internlm2_matches_the_llama_it_is(bias, tmp_path, our_logits):
    # transformers has no InternLM2; it is a Llama whose q, k and v rows are interleaved in one matrix.
    model = model_zoo.save_internlm2(tmp_path / "model", bias)
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model", ids)["logits"], model_zoo.reference_logits(model, ids))


@pytest.mark.parametrize("name", gguf_zoo.CONVERTED)
def test_gguf_logits_match_transformers(name, tmp_path, our_logits):
    model = model_zoo.make_model(name) if name in model_zoo.MODELS else model_zoo.make_internlm2()
    gguf_zoo.write(name, model, tmp_path / "model.gguf")
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model.gguf", ids)["logits"], model_zoo.reference_logits(model, ids))


@pytest.mark.parametrize("name", ["llama", "qwen2-moe-plain", "falcon-40b"])
def test_quantized_gguf_is_what_its_codes_stand_for(name, tmp_path, our_logits):
    kind = gguf.GGMLQuantizationType.Q8_0
    model = model_zoo.make_model(name)
    gguf_zoo.round_to(model, kind)
    gguf_zoo.write(name, model, tmp_path / "model.gguf", quantize=kind)
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model.gguf", ids)["logits"], model_zoo.reference_logits(model, ids))


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3-moe"])
def test_old_style_configurations_read_the_same(name, tmp_path, our_logits):
    # transformers 4 wrote rope_theta and torch_dtype, and rope_scaling where it scaled.
    model = model_zoo.save_model(name, tmp_path / "model")

    def older(config):
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
        config["rope_scaling"] = None
        config["torch_dtype"] = config.pop("dtype")
        config.pop("layer_types", None)
    model_zoo.edit_config(tmp_path / "model", older)
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model", ids)["logits"], model_zoo.reference_logits(model, ids))


def test_old_style_rope_scaling(tmp_path, our_logits):
    model = model_zoo.save_model("llama-llama3", tmp_path / "model")

    def older(config):
        scaling = config.pop("rope_parameters")
        config["rope_theta"] = scaling.pop("rope_theta")
        config["rope_scaling"] = scaling
    model_zoo.edit_config(tmp_path / "model", older)
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model", ids)["logits"], model_zoo.reference_logits(model, ids))


def test_a_mistral_with_layer_types_is_a_ministral(tmp_path, our_logits):
    # transformers reads such a configuration as a Ministral's: some layers slide, the others see all.
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    torch.manual_seed(0)
    model = model_zoo.hf.MinistralForCausalLM._from_config(model_zoo.hf.MinistralConfig(**model_zoo.plain(sliding_window=24, layer_types=kinds, head_dim=8)), attn_implementation="eager")
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.3 * torch.randn_like(value))
    model.float().eval().save_pretrained(tmp_path / "model")
    model_zoo.edit_config(tmp_path / "model", lambda c: c.update(model_type="mistral", architectures=["MistralForCausalLM"]))
    ids = token_ids()
    ours, reference = our_logits(tmp_path / "model", ids)["logits"], model_zoo.reference_logits(model, ids)
    assert_close(ours, reference)
    model_zoo.edit_config(tmp_path / "model", lambda c: c.pop("layer_types"))
    everywhere = our_logits(tmp_path / "model", ids)["logits"]
    assert (everywhere - reference).abs().max() > 0.01 * reference.abs().max()  # the layers differ in what they see


@pytest.mark.parametrize("changes", [{"beta_fast": 8.0, "beta_slow": 2.0}, {"attention_factor": 1.7}])
def test_gguf_yarn_with_its_own_ramp_and_magnitude(changes, tmp_path, our_logits):
    scaling = model_zoo.rope("yarn", factor=4.0, original_max_position_embeddings=32) | changes
    model = model_zoo.make_model("llama-yarn", rope_parameters=scaling)
    gguf_zoo.write("llama-yarn", model, tmp_path / "model.gguf")
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model.gguf", ids)["logits"], model_zoo.reference_logits(model, ids))


def test_zeros_among_yarns_parameters_count_as_absent(tmp_path, our_logits):
    scaling = model_zoo.rope("yarn", factor=4.0, original_max_position_embeddings=32, mscale=0.7, mscale_all_dim=0.0, beta_fast=0, beta_slow=0)
    model = model_zoo.make_model("llama-yarn", rope_parameters=scaling)
    model.save_pretrained(tmp_path / "model")
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model", ids)["logits"], model_zoo.reference_logits(model, ids))


@pytest.mark.parametrize("name", ["mixtral", "qwen2-moe"])
def test_experts_fused_in_one_tensor(name, tmp_path, our_logits):
    model = model_zoo.make_model(name)
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors", metadata={"format": "pt"})
    assert any(".experts.gate_up_proj" in key for key in load_file(folder / "model.safetensors"))
    ids = token_ids()
    assert_close(our_logits(folder, ids)["logits"], model_zoo.reference_logits(model, ids))


@pytest.mark.parametrize("name, rename", [
    ("bloom", lambda key: key.removeprefix("transformer.")),
    ("opt", lambda key: key.removeprefix("model.")),
    ("gemma3", lambda key: "language_model." + key),
    ("llama", lambda key: key.replace("model.", "model.language_model.")),
])
def test_other_prefixes(name, rename, tmp_path, our_logits):
    model = model_zoo.save_model(name, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    save_file({rename(k): v for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model", ids)["logits"], model_zoo.reference_logits(model, ids))


def test_text_model_inside_a_multimodal_configuration(tmp_path, our_logits):
    model = model_zoo.save_model("gemma3", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": json.loads(path.read_text())}))
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model", ids)["logits"], model_zoo.reference_logits(model, ids))


def rounded_model(name, dtype):
    """float32 with weights rounded to dtype. (model.to(dtype) would round the rotary frequencies as well.)"""
    model = model_zoo.make_model(name)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(value.to(dtype))
    return model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stored_half_precision_is_widened_exactly(dtype, tmp_path, our_logits):
    model = rounded_model("llama", dtype)
    model.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    save_file({k: v.to(dtype) for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model", ids)["logits"], model_zoo.reference_logits(model, ids))


def test_bfloat16_result_is_that_of_bfloat16_weights(tmp_path, our_logits):
    model_zoo.save_model("llama", tmp_path / "model")
    ids = token_ids()
    reference = model_zoo.reference_logits(rounded_model("llama", torch.bfloat16), ids)
    # Hidden states between blocks (and activations, on CPUs that multiply bfloat16) are rounded to 8 bits of mantissa.
    assert_close(our_logits(tmp_path / "model", ids, "bfloat16")["logits"], reference, 0.02)


def float8_model(folder, scale_of):
    """Every linear of a llama as F8 with scales; returns the model with the values that those stand for."""
    model = model_zoo.save_model("llama", folder)
    tensors = load_file(folder / "model.safetensors")
    state = model.state_dict()
    for key in [k for k in tensors if k.endswith("_proj.weight")]:
        weight = tensors[key]
        suffix, scale, spread = scale_of(weight)
        tensors[key] = (weight / spread).to(torch.float8_e4m3fn)
        tensors[key + suffix] = scale
        state[key].copy_(tensors[key].float() * spread)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return model


def test_float8_with_a_scale_for_each_row(tmp_path, our_logits):
    def rows(weight):
        scale = weight.abs().amax(1, keepdim=True) / 400
        return "_scale", scale, scale
    model = float8_model(tmp_path / "model", rows)
    model_zoo.edit_config(tmp_path / "model", lambda c: c.update(quantization_config={"quant_method": "compressed-tensors", "format": "float-quantized"}))
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model", ids)["logits"], model_zoo.reference_logits(model, ids))


def test_float8_with_a_scale_for_each_block(tmp_path, our_logits):
    def blocks(weight):
        rows, columns = -(-weight.shape[0] // 12), -(-weight.shape[1] // 20)
        scale = torch.rand(rows, columns, generator=torch.Generator().manual_seed(1)) * 0.01 + 0.01
        spread = scale.repeat_interleave(12, 0)[:weight.shape[0]].repeat_interleave(20, 1)[:, :weight.shape[1]]
        return "_scale_inv", scale, spread
    model = float8_model(tmp_path / "model", blocks)
    model_zoo.edit_config(tmp_path / "model", lambda c: c.update(quantization_config={"quant_method": "fp8", "weight_block_size": [12, 20]}))
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model", ids)["logits"], model_zoo.reference_logits(model, ids))
