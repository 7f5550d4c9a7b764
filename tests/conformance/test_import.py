"""Checkpoints as runs: our own come back as the run that they hold, and others' errors are those that numpy and transformers find."""
import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import checkpoints
import layouts
import zoos
from conftest import DEMO
from test_exports import INT8, exported, quantized
from reports import perplexities

EVALUATION = f"evaluation: [{{corpus: '{DEMO}/evaluation.txt', seq_len: 64, windows: 4}}]"
LINEAR = ("scheme", "bits_per_weight", "weight_mse", "weight_max_error", "weight_sqnr_db", "weight_kurtosis", "weight_kurtosis_after", "weight_before", "weight_after",
          "weight_error", "output_relative_error", "output_sqnr_db", "output_cosine", "input_kurtosis", "input_abs_max", "input_before", "input_after", "output_error",
          "outliers", "measured_tokens")


@pytest.fixture(scope="module")
def qbench(tool):
    return tool("qbench")


def call(qbench, *args):
    return subprocess.run([qbench, "import", *args, "-q", "--json"], capture_output=True, text=True)


def imported(qbench, *args):
    done = call(qbench, *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def report_of(run):
    return json.loads((run / "report.json").read_text())


def linears(report):
    return {f"model.layers.{block['block']}.{linear['name']}": linear for block in report["blocks"] for linear in block["linears"]}


def figures(report):
    return {p["float_model"]: (p["perplexity"], p["window_nll"]) for p in perplexities(report)}


# ---- our own ----
OWN = {
    "compressed-tensors": ("{type: int4, symmetric: true, granularity: group, group_size: 64}", None, "clip, gptq"),
    "gptq": ("{type: int4, symmetric: true, granularity: group, group_size: 64}", None, "gptq"),
    "gptq_v2": ("{type: int3, symmetric: false, granularity: group, group_size: 64}", None, "rtn"),
    "awq": ("{type: int4, symmetric: false, granularity: group, group_size: 32, range: mse}", None, "gptq"),
    "mlx": ("{type: int3, symmetric: false, granularity: group, group_size: 64}", None, "gptq"),
    "w8a8": ("{type: int8, symmetric: true, granularity: channel, scale_type: float32}", INT8, "gptq"),
    "fp8": ("{type: e4m3, granularity: channel, scale_type: float32}", "{type: e4m3, granularity: token, scale_type: float32}", "rtn"),
}


@pytest.mark.parametrize("case", OWN)
def test_our_own_checkpoint_is_its_run_again(case, qbench, tmp_path):
    weights, activations, pipeline = OWN[case]
    run = quantized(qbench, tmp_path, weights, activations, pipeline, extra=EVALUATION)
    folder = exported(qbench, run, case if case in ("gptq", "gptq_v2", "awq", "mlx") else "compressed-tensors", tmp_path / "out")
    own, back = report_of(run), imported(qbench, folder, "--like", run.name, "-w", run.parents[1])
    assert back["status"] == "finished" and back["name"] == "out" and back["pipeline"] == "imported" and back["model_hash"] == own["model_hash"]
    assert linears(back).keys() == linears(own).keys() and len(linears(own)) == 28
    for module, expected in linears(own).items():
        found = linears(back)[module]
        for key in LINEAR:
            assert key == "scheme" and found[key] == expected[key].removesuffix(" mse") or found[key] == expected[key], (module, key)
        assert not found.get("note")
    for mine, theirs in zip(own["blocks"], back["blocks"]):
        assert mine["output_relative_error"] == theirs["output_relative_error"] and mine["measured_tokens"] == theirs["measured_tokens"] == 512
    assert figures(back) == figures(own)
    assert back["bits_per_weight"] == own["bits_per_weight"] and back["quantized_bytes"] == own["quantized_bytes"]
    table = subprocess.run([qbench, "compare", "-w", run.parents[1]], capture_output=True, text=True, check=True).stdout
    assert "imported" in table and "test" in table and table.count(f"{figures(own)[False][0]:.4f} ±") == 2
    # It is a run like others: it can be exported, and verified against the one that it came from.
    again = run.parents[0] / back["id"]
    assert subprocess.run([qbench, "verify", folder, again], capture_output=True).returncode == 0
    assert layouts.run_linears(again).keys() == layouts.run_linears(run).keys()
    for module, weight in layouts.run_linears(run).items():
        np.testing.assert_array_equal(layouts.run_linears(again)[module], weight)


@pytest.mark.parametrize("pipeline", ["awq, gptq", "smoothquant, rtn"])
def test_factors_that_were_folded_away_are_found(pipeline, qbench, tmp_path):
    """The checkpoint does not say that its norms took factors in: errors are the run's own all the same, not those of W·s against W."""
    run = quantized(qbench, tmp_path, "{type: int4, symmetric: true, granularity: group, group_size: 64}", pipeline=pipeline, extra=EVALUATION, settings=("model.dtype=bfloat16",))
    folder = exported(qbench, run, "compressed-tensors", tmp_path / "out")
    own, back = report_of(run), imported(qbench, folder, "--like", run.name, "-w", run.parents[1])
    original, kept, stored = load_file(DEMO / "model.safetensors"), load_file(folder / "model.safetensors"), layouts.linears_of(folder)
    scaled = 0
    for module, expected in linears(own).items():
        found = linears(back)[module]
        plain = np.mean((stored[module].astype(np.float64) - original[module + ".weight"].double().numpy()) ** 2)
        scaled += plain > 2 * expected["weight_mse"]
        if module.endswith(("q_proj", "k_proj", "gate_proj")):  # the norm tells the factor exactly
            for key in LINEAR:
                assert found[key] == expected[key], (module, key)
            folded = module.replace("self_attn", "input_layernorm").replace("mlp", "post_attention_layernorm").rsplit(".", 1)[0] + ".weight"
            assert ("norm before it took in" in found.get("note", "")) != torch.equal(kept[folded], original[folded])
        elif "awq" in pipeline:  # and of the rest it is fitted
            assert found["weight_mse"] == pytest.approx(expected["weight_mse"], rel=0.03), module
            assert found["output_relative_error"] == pytest.approx(expected["output_relative_error"], rel=0.4), module
    assert scaled > 8, "no factors to find: this test shows nothing"
    for mine, theirs in zip(own["blocks"], back["blocks"]):
        assert mine["output_relative_error"] == theirs["output_relative_error"]
    assert figures(back) == figures(own)


def test_a_rotated_checkpoint_is_evaluated_as_it_is(qbench, tmp_path):
    """Its weights are in coordinates that no factor leads back from: that is said, and perplexity stands."""
    run = quantized(qbench, tmp_path, "{type: int8, symmetric: true, granularity: channel, scale_type: bfloat16}", pipeline="quarot, rtn", extra=EVALUATION, settings=("model.dtype=bfloat16",))
    folder = exported(qbench, run, "compressed-tensors", tmp_path / "out")
    own, back = report_of(run), imported(qbench, folder, "--like", run.name, "-w", run.parents[1])
    assert figures(back)[False][0] == pytest.approx(figures(own)[False][0], rel=2e-3)  # rotated embeddings are rounded to the model's type
    assert figures(back)[True] == figures(own)[True]
    assert all("does not resemble the original's weights" in linear["note"] for linear in linears(back).values())


def test_without_its_original_it_is_only_evaluated(qbench, tmp_path):
    run = quantized(qbench, tmp_path, OWN["gptq"][0], extra=EVALUATION)
    folder = exported(qbench, run, "gptq", tmp_path / "out")
    back = imported(qbench, folder, "--text", DEMO / "calibration.txt", "--evaluate", DEMO / "evaluation.txt", "--seq-len", "64", "--windows", "4", "-w", tmp_path / "other")
    own = report_of(run)
    assert figures(back) == {False: figures(own)[False]}
    assert back["bits_per_weight"] == own["bits_per_weight"] and back["quantized_bytes"] == own["quantized_bytes"] and back["float_bytes"] == 0
    for module, linear in linears(back).items():
        assert linear["weight_mse"] is None and linear["output_relative_error"] is None and linear["scheme"] == "int4 g64 symmetric"
        assert linear["weight_after"] == linears(own)[module]["weight_after"] or linear["weight_after"]["counts"]
    assert all(block["output_relative_error"] is None for block in back["blocks"])


# ---- others': written by the layouts alone ----
def words_of(codes, bits):
    """[rows, count] codes → [rows, words] int32: each row one stream of bits, the lowest first."""
    bits_each = (codes[:, :, None] >> np.arange(bits)) & 1
    stream = np.packbits(bits_each.reshape(codes.shape[0], -1).astype(np.uint8), axis=1, bitorder="little")
    return torch.from_numpy(np.pad(stream, ((0, 0), (0, -stream.shape[1] % 4))).view("<i4").copy())


def round_to_nearest(weight, bits, group, symmetric):
    """Codes from 0 up, scales in float16 and zero points of [out, in], in float64."""
    out, columns = weight.shape
    units = weight.astype(np.float64).reshape(out, -1, columns if group < 0 else group)
    high, low = np.maximum(units.max(2), 0), np.minimum(units.min(2), 0)
    top = 2 ** bits - 1
    scale = np.where(symmetric, 2 * np.maximum(high, -low), high - low) / top
    scale = np.where(scale == 0, 1, scale).astype(np.float16)
    zero = np.full(scale.shape, 2 ** (bits - 1)) if symmetric else np.clip(np.rint(-low / scale.astype(np.float64)), 0, top).astype(np.int64)
    codes = np.clip(np.rint(units / scale.astype(np.float64)[:, :, None]) + zero[:, :, None], 0, top).astype(np.int64)
    return codes.reshape(out, columns), scale, zero.astype(np.int64)


def gptq_tensors(module, weight, bits, group, symmetric, v2):
    codes, scale, zero = round_to_nearest(weight, bits, group, symmetric)
    columns = weight.shape[1]
    return {module + ".qweight": words_of(codes, bits).T.contiguous(), module + ".scales": torch.from_numpy(scale.T.copy()),
            module + ".qzeros": words_of(zero.T - (0 if v2 else 1), bits), module + ".g_idx": torch.arange(columns, dtype=torch.int32) // (columns if group < 0 else group)}


def awq_tensors(module, weight, group):
    codes, scale, zero = round_to_nearest(weight, 4, group, False)

    def lanes(values):
        return words_of(values.reshape(values.shape[0], -1, 8)[:, :, layouts.AWQ_ORDER].reshape(values.shape), 4)
    return {module + ".qweight": lanes(codes.T), module + ".scales": torch.from_numpy(scale.T.copy()), module + ".qzeros": lanes(zero.T)}


def compressed_tensors(module, weight, bits, group, symmetric):
    codes, scale, zero = round_to_nearest(weight, bits, group, symmetric)
    tensors = {module + ".weight_packed": words_of(codes, bits), module + ".weight_scale": torch.from_numpy(scale), module + ".weight_shape": torch.tensor(weight.shape)}
    if not symmetric:
        tensors[module + ".weight_zero_point"] = words_of(zero.T.copy(), bits).T.contiguous()
    return tensors


def ct_config(bits, group, symmetric):
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group" if group > 0 else "channel", "dynamic": False}
    if group > 0:
        weights["group_size"] = group
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}}}


def gptq_config(bits, group, symmetric, v2):
    return {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": symmetric, "desc_act": False, "checkpoint_format": "gptq_v2" if v2 else "gptq"}


WRITERS = {
    "gptq v1 int4": (lambda m, w: gptq_tensors(m, w, 4, 64, True, False), gptq_config(4, 64, True, False)),
    "gptq v1 int4 asymmetric": (lambda m, w: gptq_tensors(m, w, 4, 64, False, False), gptq_config(4, 64, False, False)),
    "gptq v1 int8 channel": (lambda m, w: gptq_tensors(m, w, 8, -1, True, False), gptq_config(8, -1, True, False)),
    "gptq v2 int4": (lambda m, w: gptq_tensors(m, w, 4, 32, True, True), gptq_config(4, 32, True, True)),
    "gptq v2 int3 asymmetric": (lambda m, w: gptq_tensors(m, w, 3, 64, False, True), gptq_config(3, 64, False, True)),
    "gptq v2 int2 asymmetric": (lambda m, w: gptq_tensors(m, w, 2, 32, False, True), gptq_config(2, 32, False, True)),
    "awq": (lambda m, w: awq_tensors(m, w, 64), {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm", "modules_to_not_convert": None}),
    "ct int4": (lambda m, w: compressed_tensors(m, w, 4, 64, True), ct_config(4, 64, True)),
    "ct int5 asymmetric": (lambda m, w: compressed_tensors(m, w, 5, 32, False), ct_config(5, 32, False)),
    "ct int8 channel": (lambda m, w: compressed_tensors(m, w, 8, -1, True), ct_config(8, -1, True)),
}


def written(source, folder, writer, keep=()):
    """A checkpoint of the model's matrices in layers (not routers, nor those kept), {module: original weight}."""
    make, config = WRITERS[writer]
    shutil.copytree(source, folder)
    tensors = {}
    for file in source.glob("*.safetensors"):
        tensors |= load_file(file)
    originals, out = {}, {}
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight")
        router = module.endswith((".gate", ".router", "router.layer"))
        if ".layers." in name and name.endswith(".weight") and tensor.ndim == 2 and not router and not any(k in name for k in keep):
            originals[module] = tensor.float().numpy()
            out |= make(module, originals[module])
        else:
            out[name] = tensor
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    save_file(out, folder / "model.safetensors", metadata={"format": "pt"})
    whole = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(whole | {"quantization_config": config}))
    return originals


def float_and_given(folder):
    """The demo model in transformers, and the same with the checkpoint's weights: codes as numpy reads them, other tensors as they are."""
    models = [hf.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32, attn_implementation="eager") for _ in range(2)]
    codes, stored = layouts.linears_of(folder), load_file(folder / "model.safetensors")
    with torch.no_grad():
        for name, parameter in models[1].named_parameters():
            module = name.removesuffix(".weight")
            parameter.copy_(torch.from_numpy(codes[module]) if module in codes else stored[name].float())
    return models


def expect_block_errors(report, models, tokenizer, samples):
    ids = torch.tensor(tokenizer((DEMO / "calibration.txt").read_text())["input_ids"][:samples * 64]).reshape(samples, 64)
    with torch.no_grad():
        states = [model.model(ids, output_hidden_states=True).hidden_states for model in models]
    for block in report["blocks"][:-1]:  # behind the last one transformers has only what its norm makes of it
        exact, rounded = (s[block["block"] + 1].double() for s in states)
        assert block["measured_tokens"] == samples * 64
        assert block["output_relative_error"] == pytest.approx(((rounded - exact).norm() / exact.norm()).item(), rel=1e-4)


@pytest.mark.parametrize("writer", WRITERS)
def test_an_independent_writers_checkpoint(writer, qbench, tmp_path):
    originals = written(DEMO, tmp_path / "theirs", writer)
    theirs = layouts.linears_of(tmp_path / "theirs")
    assert theirs.keys() == originals.keys() and len(theirs) == 28
    back = imported(qbench, tmp_path / "theirs", "-m", DEMO, "--text", DEMO / "calibration.txt", "--samples", "4", "--sample-len", "64", "--dtype", "float32",
                    "--set", "calibration.sampling=sequential", "--evaluate", DEMO / "evaluation.txt", "--seq-len", "64", "--windows", "4", "-w", tmp_path / "w")
    for module, linear in linears(back).items():
        error = theirs[module].astype(np.float64) - originals[module]
        assert linear["weight_mse"] == pytest.approx(np.mean(error ** 2), rel=1e-6)
        assert linear["weight_max_error"] == pytest.approx(np.abs(error).max(), rel=1e-6)
        assert not linear.get("note")
    # The same from transformers: what leaves each block, and perplexity.
    models = float_and_given(tmp_path / "theirs")
    tokenizer = hf.AutoTokenizer.from_pretrained(DEMO)
    expect_block_errors(back, models, tokenizer, 4)
    windows = torch.tensor(tokenizer((DEMO / "evaluation.txt").read_text())["input_ids"][:256]).reshape(4, 64)
    with torch.no_grad():
        losses = [torch.stack([model(w[None], labels=w[None]).loss for w in windows]) for model in models]
    assert figures(back)[True][0] == pytest.approx(losses[0].mean().exp().item(), rel=1e-5)
    assert figures(back)[False][0] == pytest.approx(losses[1].mean().exp().item(), rel=1e-5)


@pytest.mark.parametrize("name, writer", [("llama-tied-biased", "ct int8 channel"), ("phi3", "ct int8 channel"), ("phi3", "gptq v1 int8 channel"), ("qwen3-moe", "ct int8 channel"),
                                          ("mixtral", "ct int8 channel"), ("gemma2", "ct int8 channel"), ("deepseek-v3", "ct int8 channel")])
def test_families(name, writer, qbench, tmp_path):
    """Fused matrices, experts, biases, norms that add one: every matrix's error, of a checkpoint that leaves one kind float."""
    zoos.save_model(name, tmp_path / "model")
    originals = written(tmp_path / "model", tmp_path / "theirs", writer, keep=("down_proj",) if name == "phi3" else ())
    theirs = layouts.linears_of(tmp_path / "theirs")
    back = imported(qbench, tmp_path / "theirs", "-m", tmp_path / "model", "-w", tmp_path / "w")
    found = linears(back)
    in_codes = {module: linear for module, linear in found.items() if linear["scheme"] != "float"}
    expected = [np.mean((theirs[m].astype(np.float64) - originals[m]) ** 2) for m in theirs]
    assert len(in_codes) == len(theirs) > 0
    assert sorted(linear["weight_mse"] for linear in in_codes.values()) == pytest.approx(sorted(expected), rel=1e-6)
    if name == "phi3":
        assert any("down_proj" in m for m in found.keys() - in_codes.keys())
    assert all(found[m]["weight_mse"] == 0 for m in found.keys() - in_codes.keys())


def test_other_float_tensors_are_the_checkpoints(qbench, tmp_path):
    """An embedding, a norm and a head of its own: used as they are, where the original has others."""
    written(DEMO, tmp_path / "theirs", "ct int8 channel")
    file = tmp_path / "theirs" / "model.safetensors"
    tensors, generator = load_file(file), torch.Generator().manual_seed(1)
    for name in ("model.embed_tokens.weight", "model.norm.weight"):
        tensors[name] = (tensors[name].float() * (1 + 0.05 * torch.randn(tensors[name].shape, generator=generator))).bfloat16()
    tensors["lm_head.weight"] = (tensors["model.embed_tokens.weight"].float() * 1.1).bfloat16()
    tensors["model.layers.1.post_attention_layernorm.weight"] = tensors["model.layers.1.post_attention_layernorm.weight"] * torch.linspace(0.8, 1.2, 256).bfloat16()
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((tmp_path / "theirs" / "config.json").read_text()) | {"tie_word_embeddings": False}
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(config))
    evaluate = ("--evaluate", DEMO / "evaluation.txt", "--seq-len", "64", "--windows", "4", "-w", tmp_path / "w")
    compared = imported(qbench, tmp_path / "theirs", "-m", DEMO, "--text", DEMO / "calibration.txt", "--samples", "2", "--sample-len", "64", "--dtype", "float32",
                        "--set", "calibration.sampling=sequential", *evaluate)
    alone = imported(qbench, tmp_path / "theirs", *evaluate)
    assert figures(compared)[False] == figures(alone)[False] and figures(compared)[True] != figures(alone)[False]
    notes = {m: linear.get("note", "") for m, linear in linears(compared).items()}
    assert {m for m, note in notes.items() if "is not the original's" in note} == {f"model.layers.1.mlp.{n}_proj" for n in ("gate", "up")}
    expect_block_errors(compared, float_and_given(tmp_path / "theirs"), hf.AutoTokenizer.from_pretrained(DEMO), 2)


# ---- what cannot be ----
def change_config(**changes):
    def change(folder):
        whole = json.loads((folder / "config.json").read_text())
        for key, value in changes.items():
            if key in ("bits", "group_size", "quant_method", "sym"):
                whole["quantization_config"][key] = value
            else:
                whole[key] = value
        (folder / "config.json").write_text(json.dumps(whole))
    return change


def change_tensor(suffix, how):
    def change(folder):
        tensors = load_file(folder / "model.safetensors")
        name = next(n for n in tensors if n.endswith(suffix) and ".2." in n)
        value = how(tensors.pop(name))
        if value is not None:
            tensors[name] = value.contiguous()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return change


DAMAGES = {
    "scales are missing": (change_tensor("up_proj.scales", lambda t: None), "up_proj.scales"),
    "zero points are missing": (change_tensor("up_proj.qzeros", lambda t: None), "up_proj.qzeros"),
    "codes of another shape": (change_tensor("up_proj.qweight", lambda t: t[:-8]), "up_proj"),
    "a norm is missing": (change_tensor("input_layernorm.weight", lambda t: None), "input_layernorm"),
    "scales that are NaN": (change_tensor("k_proj.scales", lambda t: t * float("nan")), "k_proj"),
    "bits": (change_config(bits=5), "bits"),
    "group size": (change_config(group_size=48), "group"),
    "method": (change_config(quant_method="hqq"), "hqq"),
    "no codes": (lambda folder: shutil.copy(DEMO / "config.json", folder), "quantization_config"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_one_clear_error_and_no_run(damage, qbench, tmp_path):
    written(DEMO, tmp_path / "theirs", "gptq v1 int4")
    change, named = DAMAGES[damage]
    change(tmp_path / "theirs")
    done = call(qbench, tmp_path / "theirs", "-m", DEMO, "-w", tmp_path / "w")
    assert done.returncode == 4 and named in done.stderr, done.stderr
    assert done.stderr.startswith("qbench: ") and done.stderr.count("\n") == 1, done.stderr
    assert not list((tmp_path / "w" / "runs").iterdir())


# A configuration of codes that says more than is understood: (writer, path inside quantization_config, value).
UNKNOWN = {
    "rotation": ("gptq v1 int4", ["rotation"], "hadamard"), "adapter": ("gptq v1 int4", ["adapter"], {"name": "lora"}), "marlin": ("gptq v1 int4", ["checkpoint_format"], "marlin"),
    "another method": ("gptq v1 int4", ["method"], "qqq"), "two formats": ("gptq v1 int4", ["format"], "gptq_v2"), "wide words": ("gptq v1 int4", ["pack_dtype"], "int64"),
    "smoothed": ("gptq v2 int4", ["smoother"], {"smooth": "row"}), "gptq": ("gptq v2 int4", ["new_thing"], 1), "awq": ("awq", ["new_thing"], 1), "awq format": ("awq", ["format"], "gemv"),
    "sparsity": ("ct int4", ["sparsity_config"], {"format": "sparse-24-bitmask"}),
    "transform": ("ct int4", ["transform_config"], {"config_groups": {"R1": {"type": "random-hadamard", "apply": []}}}), "compressed-tensors": ("ct int4", ["new_thing"], 1),
    "outputs": ("ct int4", ["config_groups", "group_0", "output_activations"], {"num_bits": 8}), "group": ("ct int4", ["config_groups", "group_0", "new_thing"], 1),
    "weights": ("ct int4", ["config_groups", "group_0", "weights", "offset"], 3),
}
HARMLESS = {"gptq v1 int4": {"damp_percent": 0.01, "true_sequential": True, "static_groups": False, "model_name_or_path": None, "is_marlin_format": False, "rotation": None, "dynamic": {"-:.*gate$": {}},
                             "meta": {"quantizer": ["gptqmodel:7.7.0"], "mse": 0.0}, "format": "gptq", "method": "gptq"},
            "awq": {"backend": "autoawq", "do_fuse": False, "modules_to_fuse": None}, "ct int4": {"version": "0.19.0", "global_compression_ratio": 1.4, "sparsity_config": {}, "transform_config": {}}}


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_a_configuration_of_codes_is_read_to_its_end(unknown, qbench, tmp_path):
    writer, path, value = UNKNOWN[unknown]
    written(DEMO, tmp_path / "theirs", writer)
    file = tmp_path / "theirs" / "config.json"
    config = json.loads(file.read_text())
    place = config["quantization_config"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(config))
    done = call(qbench, tmp_path / "theirs", "-m", DEMO, "-w", tmp_path / "w")
    assert done.returncode == 4 and "quantization_config" in done.stderr and path[-1] in done.stderr, done.stderr
    assert done.stderr.startswith("qbench: ") and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("writer", HARMLESS)
def test_how_codes_were_made_changes_nothing(writer, qbench, tmp_path):
    figure = []
    for name, more in (("plain", {}), ("more", HARMLESS[writer])):
        written(DEMO, tmp_path / name, writer)
        file = tmp_path / name / "config.json"
        config = json.loads(file.read_text())
        config["quantization_config"] |= more
        file.write_text(json.dumps(config))
        done = subprocess.run([qbench, "eval", tmp_path / name, "--text", DEMO / "evaluation.txt", "--seq-len", "64", "--windows", "2", "--json"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        figure.append(json.loads(done.stdout)["perplexity"])
    assert figure[0] == figure[1]


def test_another_models_checkpoint_is_refused(qbench, tmp_path):
    written(DEMO, tmp_path / "theirs", "gptq v1 int4")
    shutil.copytree(DEMO, tmp_path / "other")
    for changes, said in (({"rope_theta": 500000.0}, "Positions"), ({"rms_norm_eps": 1e-3}, "Norm")):
        change_config(**changes)(tmp_path / "other")
        done = call(qbench, tmp_path / "theirs", "-m", tmp_path / "other", "-w", tmp_path / "w")
        assert done.returncode == 4 and "is no checkpoint of" in done.stderr and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
        shutil.copy(DEMO / "config.json", tmp_path / "other")
    zoos.save_model("llama", tmp_path / "llama")
    done = call(qbench, tmp_path / "theirs", "-m", tmp_path / "llama", "-w", tmp_path / "w")
    assert done.returncode == 4 and "is no checkpoint of" in done.stderr and "expected" in done.stderr, done.stderr
    # And a quantized checkpoint is no model to quantize: the advice names what to do with it.
    done = call(qbench, tmp_path / "theirs", "-m", tmp_path / "theirs" / ".." / "theirs", "-w", tmp_path / "w")
    assert done.returncode == 0, done.stderr  # the same folder under another name: without an original
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"model: '{tmp_path / 'theirs'}'\nscheme: {{weights: {{type: int4}}}}\n")
    done = subprocess.run([qbench, "run", "--check", recipe], capture_output=True, text=True)
    assert done.returncode == 4 and "already quantized (gptq)" in done.stderr and "qbench import" in done.stderr


def test_a_quantized_model_is_quantized_again_where_that_is_asked_for(qbench, tmp_path):
    """Its float model is what the codes stand for, and what is exported of the run says nothing of the first codes."""
    written(DEMO, tmp_path / "theirs", "gptq v1 int4")
    run = quantized(qbench, tmp_path, "{type: int4, group_size: 32}", pipeline="rtn", extra=EVALUATION, settings=(f"model.path={tmp_path / 'theirs'}", "model.dequantize=true"))
    alone = imported(qbench, tmp_path / "theirs", "--evaluate", DEMO / "evaluation.txt", "--seq-len", "64", "--windows", "4", "-w", tmp_path / "w")
    report = report_of(run)
    assert figures(report)[True] == figures(alone)[False]
    assert all(linear["weight_mse"] > 0 for linear in linears(report).values())
    folder = exported(qbench, run, "dequantized", tmp_path / "out")
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    codes = layouts.run_linears(run)
    for name, linear in model.named_modules():
        if name in codes:
            np.testing.assert_allclose(linear.weight.detach().numpy(), codes[name], rtol=4e-3, atol=1e-6)  # written as the folder's bfloat16


@pytest.mark.parametrize("bits, apart", [(4, 0), (3, 0.3)])
def test_somebody_elses_mlx_checkpoint_whose_biases_are_any_numbers(bits, apart, qbench, tmp_path):
    checkpoints.write_float(DEMO, tmp_path / "float", checkpoints.mlx(DEMO, tmp_path / "mlx", bits=bits, group=32, apart=apart))
    losses = []
    for name in ("float", "mlx"):
        done = subprocess.run([qbench, "eval", tmp_path / name, "-t", DEMO / "evaluation.txt", "--seq-len", "128", "--windows", "4", "--dtype", "float32", "--json"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        losses.append(json.loads(done.stdout)["window_nll"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    # What is given as a model to quantize is refused with what can be done instead.
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: x\nmodel: {{path: '{tmp_path / 'mlx'}'}}\nscheme: {{weights: {{type: int4, granularity: group, group_size: 64}}}}\npipeline: [rtn]\n")
    done = subprocess.run([qbench, "run", path, "-w", tmp_path / "w", "-q"], capture_output=True, text=True)
    assert done.returncode == 4 and "already quantized (MLX)" in done.stderr and "qbench import" in done.stderr, done.stderr


@pytest.mark.parametrize("object, said", [({"quant_algo": "W4A16_AWQ", "group_size": 128}, "TensorRT-LLM"), ({"group_size": 64}, 'MLX\'s with "bits"'), ({}, 'MLX\'s with "bits"')])
def test_another_programs_quantization_object_is_not_called_mlx(object, said, qbench, tmp_path):
    shutil.copytree(DEMO, tmp_path / "model")
    config = json.loads((DEMO / "config.json").read_text()) | {"quantization": object}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    done = subprocess.run([qbench, "inspect", tmp_path / "model"], capture_output=True, text=True)
    assert done.returncode == 4 and 'key "quantization" is' in done.stderr and said in done.stderr and "already quantized" not in done.stderr, done.stderr
