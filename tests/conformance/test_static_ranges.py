"""Static activation ranges: the grids that a run fixes, beside a walk of transformers' own model; what they are refused for."""
import json
import subprocess

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file

import layouts
from conftest import DEMO
from test_exports import evaluated, imported, mutate, quantized
from reports import perplexities

SAMPLES, LENGTH = 8, 64  # of test_exports.quantized
W8 = "{type: int8, symmetric: true, granularity: channel, scale_type: float32}"
INPUTS = {
    "int8": "{type: int8, granularity: tensor, dynamic: false, scale_type: float32}",
    "int8 asymmetric": "{type: int8, symmetric: false, granularity: tensor, dynamic: false, scale_type: float32}",
    "e4m3": "{type: e4m3, granularity: tensor, dynamic: false, scale_type: float32}",
}
IN_TURN = [("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("self_attn.o_proj",), ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",)]


def grids_of(run):
    """{module: (scale, zero point)} of a run's block files."""
    found = {}
    for file in sorted((run / "blocks").glob("*.safetensors")):
        for name, entry in json.loads(layouts.read_file(file)[1]["qbench"])["linears"].items():
            assert ("input" in entry) == (not entry["activations"].get("dynamic", True))
            found[name.removesuffix(".weight")] = entry["input"]["scale"], entry["input"]["zero_point"]
    return found


def model_of(run):
    """transformers' model with the run's weights as numbers and what its stages made of the norms."""
    model = hf.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)
    weights = layouts.run_linears(run)
    floats = {}
    for file in sorted((run / "blocks").glob("*.safetensors")):
        floats |= {name: t for name, t in load_file(file).items() if name.endswith("layernorm.weight")}
    for name, parameter in model.named_parameters():
        if name.removesuffix(".weight") in weights:
            parameter.data = torch.from_numpy(weights[name.removesuffix(".weight")])
        elif name in floats:
            parameter.data = floats[name].float()
    return model


def tokens():
    ids = hf.AutoTokenizer.from_pretrained(DEMO)((DEMO / "calibration.txt").read_text())["input_ids"]
    return torch.tensor(ids[:SAMPLES * LENGTH]).reshape(SAMPLES, LENGTH)


def grid(kind, low, high):
    low, high = np.float64(min(low, 0)), np.float64(max(high, 0))
    if kind == "int8 asymmetric":
        scale = np.float32((high - low) / 255)
        return scale, np.clip(np.round(-128 - low / scale), -128, 127)
    return np.float32(max(-low, high) / (448 if kind == "e4m3" else 127.5)), 0


def rounded(kind, x, scale, zero):
    if kind == "e4m3":
        return (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
    return ((x / scale + zero).round().clamp(-128, 127) - zero) * scale


def walk(model, kind, ids):
    """Ranges of every linear's input, one after the other, each seen with the inputs before it on their grids."""
    grids, seen = {}, {}

    def look(module, name):
        def hook(_, inputs):
            x = inputs[0]
            if name in grids:
                return (rounded(kind, x, *grids[name]),)
            seen[name] = min(seen.get(name, (0, 0))[0], x.min().item()), max(seen.get(name, (0, 0))[1], x.max().item())
            return None
        return module.register_forward_pre_hook(hook)
    for layer, block in enumerate(model.model.layers):
        for names in IN_TURN:
            modules = {f"model.layers.{layer}.{name}": block.get_submodule(name) for name in names}
            hooks = [look(module, name) for name, module in model.named_modules() if name in grids or name in modules]
            with torch.no_grad():
                model(ids)
            grids |= {name: grid(kind, *seen[name]) for name in modules}
            for hook in hooks:
                hook.remove()
    return grids


@pytest.fixture(scope="module")
def qbench(tool):
    return tool("qbench")


@pytest.mark.parametrize("kind, pipeline", [("int8", "rtn"), ("int8 asymmetric", "rtn"), ("e4m3", "gptq"), ("int8 asymmetric", "{method: smoothquant, linears: true}, gptq"), ("int8", "awq, rtn")])
def test_grids_are_those_of_an_independent_walk(kind, pipeline, qbench, tmp_path):
    run = quantized(qbench, tmp_path / "q", W8 if kind != "e4m3" else "{type: e4m3, granularity: channel, scale_type: float32}", INPUTS[kind], pipeline=pipeline)
    ours, model = grids_of(run), model_of(run)
    assert len(ours) == 28
    expected = walk(model, kind, tokens())
    scales = np.array([[ours[name][0], expected[name][0]] for name in ours])
    apart = np.abs(scales[:, 0] / scales[:, 1] - 1)
    # A value that lies between two codes may fall the other way, and is carried on.
    assert np.median(apart) < 1e-6 and apart.max() < 5e-3, apart
    assert all(abs(ours[name][1] - expected[name][1]) <= 1 for name in ours)
    assert (kind == "int8 asymmetric") == any(zero != 0 for _, zero in ours.values())
    # The ranges are of the inputs as transformations left them, which are not the float model's.
    if "smoothquant" in pipeline or "awq" in pipeline:
        plain = walk(hf.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32), kind, tokens())
        assert max(abs(ours[name][0] / plain[name][0] - 1) for name in ours) > 0.2


def test_a_rotation_at_run_time_is_in_the_range(qbench, tmp_path):
    """What down_proj reads is rotated before it is rounded: the range is of x·H/√n. Weights of 8 bits leave x as the float model has it."""
    run = quantized(qbench, tmp_path / "q", W8, INPUTS["int8"], pipeline="{method: quarot, online_down: true}, rtn")
    ours = grids_of(run)
    model = hf.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)
    seen = {}
    for layer, block in enumerate(model.model.layers):
        block.mlp.down_proj.register_forward_pre_hook(lambda _, inputs, layer=layer: seen.__setitem__(layer, inputs[0].reshape(-1, inputs[0].shape[-1])))
    with torch.no_grad():
        model(tokens())
    hadamard = torch.ones(1, 1)
    while hadamard.shape[0] < seen[0].shape[1]:
        hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)])
    for layer, x in seen.items():
        scale = ours[f"model.layers.{layer}.mlp.down_proj"][0]
        assert scale == pytest.approx((x @ hadamard / x.shape[1] ** 0.5).abs().max().item() / 127.5, rel=0.05)
        assert scale != pytest.approx(x.abs().max().item() / 127.5, rel=0.2)


def test_a_run_is_evaluated_and_imported_with_its_ranges(qbench, tmp_path):
    """The run's own perplexity, that of its checkpoint, and that of the checkpoint taken in as a run again are one; another scale gives another."""
    evaluation = f"evaluation:\n  - {{corpus: '{DEMO}/evaluation.txt', seq_len: 64, windows: 8, dtype: float32}}"
    run = quantized(qbench, tmp_path / "q", W8, INPUTS["int8 asymmetric"], pipeline="rtn", extra=evaluation)
    measured = perplexities(json.loads((run / "report.json").read_text()))[-1]["perplexity"]
    folder = tmp_path / "out"
    subprocess.run([qbench, "export", run, "-f", "compressed-tensors", "-o", folder], check=True, capture_output=True)
    assert evaluated(qbench, folder) == measured
    back = imported(qbench, folder, tmp_path / "w")
    assert perplexities(back)[-1]["perplexity"] == measured
    assert grids_of(tmp_path / "w" / "runs" / back["id"]) == grids_of(run)
    mutate(folder, tensor=".input_scale", change=lambda t: t / 4)
    assert evaluated(qbench, folder) > 1.01 * measured


@pytest.mark.parametrize("activations, text, says", [
    (INPUTS["int8"], False, "scheme.activations.dynamic: static ranges are taken from calibration text"),
    ("{type: int8, granularity: token, dynamic: false}", True, "scheme.activations.granularity: static ranges are one for all that enters a linear"),
    ("{type: int8, symmetric: false, round_zero_point: false, granularity: tensor, dynamic: false}", True, "scheme.activations.round_zero_point"),
])
def test_what_static_ranges_need_is_said_before_any_work(activations, text, says, qbench, tmp_path):
    path = tmp_path / "recipe.yaml"
    calibration = f"calibration: {{corpus: '{DEMO}/calibration.txt', sampling: sequential, samples: 8, seq_len: 64}}\n" if text else ""
    path.write_text(f"model: {{path: '{DEMO}'}}\n{calibration}scheme:\n  weights: {W8}\n  activations: {activations}\npipeline: [rtn]\n")
    for more in (["--check"], ["-w", tmp_path / "w", "-q"]):
        done = subprocess.run([qbench, "run", path, *more], capture_output=True, text=True)
        assert done.returncode == 3 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "w" / "runs").exists() or not list((tmp_path / "w" / "runs").iterdir())
