"""Activations in microscaling floats: NVFP4 and MX beside compressed-tensors' own functions, on tensors and in transformers' models."""
import json
import subprocess

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import zoos
from conftest import DEMO
from test_exports import evaluated, exported, imported, mutate, quantized, verified
from test_kv_cache import ask, qbench  # noqa: F401  (fixtures)
from test_quant import jobs, quantize  # noqa: F401  (fixtures)

ct = pytest.importorskip("compressed_tensors")
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme  # noqa: E402
from compressed_tensors.quantization.lifecycle.forward import fake_quantize  # noqa: E402
from compressed_tensors.quantization.quant_scheme import PRESET_SCHEMES  # noqa: E402
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp  # noqa: E402
from reports import perplexities

KINDS = {"nvfp4": "NVFP4", "mxfp4": "MXFP4", "mxfp8": "MXFP8"}
SAMPLES, LENGTH = 8, 64  # of test_exports.quantized


def inputs(seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 128, generator=g) * torch.exp(2 * torch.randn(40, 1, generator=g))
    x[1] = 0
    x[2, ::5] *= 60
    x[3] = torch.linspace(-1.76, 1.76, 128)  # about where a power of two gives way to the next
    x[4, :16] = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 6, -0.25, -0.75, -1.25, -2.5, -3.5, -5, -6])  # between two values
    x[5] *= 1e-6
    return x


def theirs(kind, x, global_scale=None):
    args = QuantizationArgs.model_validate(PRESET_SCHEMES[KINDS[kind]]["input_activations"].model_dump())
    scale, zero = compute_dynamic_scales_and_zp(x, args, None, global_scale)
    return fake_quantize(x, scale, zero, args, global_scale=global_scale)


def power_of_two(x):
    """The global scale of these values: that which gives the largest group's scale half of what e4m3 holds, or less."""
    return 2.0 ** -(torch.log2(x.abs().max() / (6 * 448)).ceil() + 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_those_of_compressed_tensors(kind, dtype, quantize):
    x = inputs().to(dtype)
    ours = quantize("activation", {"x": x}, type=kind)["x"]
    expected = theirs(kind, x, power_of_two(x.float()).reshape(1) if kind == "nvfp4" else None)
    if dtype == torch.bfloat16 and kind == "nvfp4":  # they round a group's wish for a scale to bfloat16 before e4m3 does
        assert (ours == expected.to(dtype)).float().mean() > 0.97
    else:
        assert torch.equal(ours, expected.to(dtype))
    assert not torch.equal(ours, x)


def float_model(qbench, folder, plain):
    """The checkpoint's weights as numbers, which bfloat16 holds, in a float32 model."""
    return hf.AutoModelForCausalLM.from_pretrained(exported(qbench, folder, "dequantized", plain), dtype=torch.float32)


def logits_by_compressed_tensors(model, folder, kind, ids):
    """With every input of a linear in codes as compressed-tensors' functions round it, and without."""
    tensors = load_file(folder / "model.safetensors")
    with torch.no_grad():
        unrounded = model(ids).logits
        for name, module in model.named_modules():
            if f"{name}.weight_scale" in tensors:
                factor = tensors.get(f"{name}.input_global_scale")
                module.register_forward_pre_hook(lambda _, x, factor=factor: (theirs(kind, x[0], factor).float(),))
        return model(ids).logits, unrounded


@pytest.mark.parametrize("kind, pipeline", [("nvfp4", "rtn"), ("nvfp4", "{method: smoothquant, linears: true}, gptq"), ("mxfp4", "rtn"), ("mxfp8", "rtn")])
def test_a_model_computes_what_compressed_tensors_rounds(kind, pipeline, qbench, ask, tmp_path):
    run = quantized(qbench, tmp_path / "q", f"{{type: {kind}}}", f"{{type: {kind}}}", pipeline=pipeline)
    folder = exported(qbench, run, "compressed-tensors", tmp_path / "out")
    assert verified(qbench, folder, run) == ""
    group = json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"]
    asked = QuantizationScheme.model_validate(group).input_activations
    preset = PRESET_SCHEMES[KINDS[kind]]["input_activations"]
    assert all(getattr(asked, key) == getattr(preset, key) for key in ("num_bits", "type", "symmetric", "strategy", "group_size", "dynamic", "scale_dtype"))
    ids = torch.randint(0, 1024, (2, 48), generator=torch.Generator().manual_seed(3))
    reference, unrounded = logits_by_compressed_tensors(float_model(qbench, folder, tmp_path / "plain"), folder, kind, ids)
    ours = ask.logits_or_refusal(folder, tmp_path, ids)
    assert isinstance(ours, torch.Tensor), ours
    # One value that stands between two codes falls the other way, and all tokens behind it see that.
    apart = (ours - reference).norm(dim=2)
    assert (apart < 1e-3).float().mean() > 0.5 and (ours - reference).norm() < 0.5 * (unrounded - reference).norm()
    assert ((unrounded - reference).norm(dim=2) > 0.1).all()
    assert not any(name.endswith("input_scale") for name in load_file(folder / "model.safetensors"))


def test_global_scales_are_of_what_the_quantized_run_feeds_each_linear(qbench, tmp_path):
    """Powers of two, one for linears that share an input, of the largest value that the run's text brings there."""
    run = quantized(qbench, tmp_path / "q", "{type: nvfp4}", "{type: nvfp4}", pipeline="rtn")
    folder = exported(qbench, run, "compressed-tensors", tmp_path / "out", "-e", "vllm")
    tensors = load_file(folder / "model.safetensors")
    scales = {name.removesuffix(".input_global_scale"): t for name, t in tensors.items() if name.endswith(".input_global_scale")}
    assert len(scales) == 28 and all(t.shape == (1,) and t.dtype == torch.float32 and torch.frexp(t)[0].item() == 0.5 for t in scales.values())
    model = float_model(qbench, folder, tmp_path / "plain")
    seen = {}
    for name, module in model.named_modules():
        if name in scales:
            def look(_, x, name=name):
                seen[name] = max(seen.get(name, 0), x[0].abs().max().item())
                return (theirs("nvfp4", x[0], scales[name]),)
            module.register_forward_pre_hook(look)
    ids = hf.AutoTokenizer.from_pretrained(DEMO)((DEMO / "calibration.txt").read_text())["input_ids"]
    with torch.no_grad():
        model(torch.tensor(ids[:SAMPLES * LENGTH]).reshape(SAMPLES, LENGTH))
    for name, t in scales.items():
        assert t.item() == pytest.approx(power_of_two(torch.tensor([seen[name]])).item()) or abs(torch.log2(torch.tensor(seen[name] / 2688)) % 1) < 0.02, name
    for layer in range(4):
        for joined in (["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["mlp.gate_proj", "mlp.up_proj"]):
            assert len({scales[f"model.layers.{layer}.{name}"].item() for name in joined}) == 1
    assert len({t.item() for t in scales.values()}) > 3


def test_a_run_is_evaluated_and_imported_with_its_global_scales(qbench, tmp_path):
    evaluation = f"evaluation:\n  - {{corpus: '{DEMO}/evaluation.txt', seq_len: 64, windows: 8, dtype: float32}}"
    run = quantized(qbench, tmp_path / "q", "{type: nvfp4}", "{type: nvfp4}", pipeline="rtn", extra=evaluation)
    report = json.loads((run / "report.json").read_text())
    measured = perplexities(report)[-1]["perplexity"]
    assert report["scheme"] == "nvfp4 A4"
    folder = exported(qbench, run, "compressed-tensors", tmp_path / "out")
    assert evaluated(qbench, folder) == measured
    # llm-compressor's own global scale, no power of two, is read as it is.
    tensors = load_file(folder / "model.safetensors")
    for name in list(tensors):
        if name.endswith(".input_global_scale"):
            tensors[name] = tensors[name] * 1.37
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "static range of its input differs" in verified(qbench, folder, run)
    assert evaluated(qbench, folder) == pytest.approx(measured, rel=0.05) and evaluated(qbench, folder) != measured
    back = imported(qbench, folder, tmp_path / "w")
    assert perplexities(back)[-1]["perplexity"] == evaluated(qbench, folder)
    # Too large a one puts every group at the end of e4m3.
    mutate(folder, tensor=".input_global_scale", change=lambda t: t * 2 ** 12)
    assert evaluated(qbench, folder) > 1.05 * measured


@pytest.mark.parametrize("change, says", [
    (dict(config=lambda c: c["config_groups"]["group_0"]["input_activations"].update(dynamic=True)), "\"dynamic\" is true, expected \"local\""),
    (dict(config=lambda c: c["config_groups"]["group_0"]["input_activations"].update(group_size=32)), "\"strategy\" is \"tensor_group\", expected tensor_group with group_size 16"),
    (dict(config=lambda c: c["config_groups"]["group_0"].update(input_activations=None)), "is read by nothing, expected no such tensor"),
    (dict(tensor=".input_global_scale", change=lambda t: t * 0), "is 0, expected a positive number"),
    (dict(tensor=".input_global_scale", change=lambda t: t.repeat(2)), "has 2 values, static activations have one"),
])
def test_another_activation_in_a_checkpoint_is_seen_or_refused(change, says, qbench, tmp_path):
    run = quantized(qbench, tmp_path / "q", "{type: nvfp4}", "{type: nvfp4}", pipeline="rtn")
    folder = exported(qbench, run, "compressed-tensors", tmp_path / "out")
    mutate(folder, **change)
    assert says in verified(qbench, folder, run)


@pytest.mark.parametrize("weights, activations, engine, says", [
    ("nvfp4", "mxfp4", "", "cannot hold nvfp4 weights with mxfp4 activations; nearest that it can: activations float or nvfp4"),
    ("nvfp4", "nvfp4", "vllm", None),
    ("nvfp4", "nvfp4", "vllm-cpu", "vLLM on a CPU 0.32 does not take nvfp4 weights with nvfp4 activations"),
    ("mxfp4", "mxfp4", "", None),
])
def test_targets_take_it_or_say_why_not(weights, activations, engine, says, qbench, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: {{path: '{DEMO}'}}\ncalibration: {{corpus: '{DEMO}/calibration.txt', sampling: sequential, samples: 4, seq_len: 64}}\n"
                    f"scheme:\n  weights: {{type: {weights}}}\n  activations: {{type: {activations}}}\npipeline: [rtn]\ntarget: {{format: compressed-tensors{', engine: ' + engine if engine else ''}}}\n")
    done = subprocess.run([qbench, "run", path, "--check"], capture_output=True, text=True)
    assert done.returncode == (3 if says else 0) and (says or "") in done.stderr, done.stderr


def test_groups_that_do_not_divide_are_said_before_any_work(qbench, tmp_path):
    zoos.save_model("llama-tied-biased", tmp_path / "model")  # 48 inputs of down_proj
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: {{path: '{tmp_path}/model'}}\nscheme:\n  weights: {{type: int8, granularity: channel}}\n  activations: {{type: mxfp4}}\npipeline: [rtn]\n")
    done = subprocess.run([qbench, "run", path, "--check"], capture_output=True, text=True)
    assert done.returncode == 4 and "activations: mxfp4 has groups of 32, which do not divide the 48 input features" in done.stderr, done.stderr
