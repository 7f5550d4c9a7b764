"""Quantized GGUF files as runs: figures are those of the values that gguf-py reads from them."""
import json
import shutil
import subprocess

import gguf
import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import checkpoints
import gguf_zoo
import gguf_zoo_experts
import model_zoo
import zoos
from conftest import DEMO
from gguf_rewrite import KIND, rewrite
from test_exports import exported, quantized
from test_import import EVALUATION, LINEAR, call, expect_block_errors, figures, imported, linears, report_of

STEMS = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
# All types that are read, each in some linear of one of the two; embeddings in codes or half floats.
MIXTURES = {
    "legacy": dict(zip(STEMS, (KIND.Q4_0, KIND.Q4_1, KIND.Q5_0, KIND.Q5_1, KIND.Q8_0, KIND.IQ4_NL, KIND.MXFP4))) | {"token_embd": KIND.Q8_0},
    "k-quants": dict(zip(STEMS, (KIND.Q4_K, KIND.Q5_K, KIND.Q6_K, KIND.Q2_K, KIND.Q3_K, KIND.Q4_K, KIND.F16))) | {"token_embd": KIND.F16},
}
TEXTS = ("--text", DEMO / "calibration.txt", "--samples", "4", "--sample-len", "64", "--dtype", "float32", "--set", "calibration.sampling=sequential", "--evaluate", DEMO / "evaluation.txt",
         "--seq-len", "64", "--windows", "4")


@pytest.fixture(scope="module")
def qbench(tool):
    return tool("qbench")


@pytest.fixture(scope="module")
def demo_gguf(tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "demo.gguf"
    checkpoints.gguf_file(DEMO, path)
    return path


def stem_of(name):
    return name.removeprefix("blk.").removesuffix(".weight").split(".", 1)[-1]


def kinds_of(mixture):
    return lambda name, values: mixture.get(stem_of(name)) if values.ndim >= 2 else None


def canonical(name, values):
    """A demo tensor's Hugging Face name and rows."""
    if not name.startswith("blk."):
        return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name], values
    block, stem = name.removeprefix("blk.").removesuffix(".weight").split(".", 1)
    module = STEMS.get(stem) or {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}[stem]
    if stem in ("attn_q", "attn_k"):
        values = values.reshape(4 if stem == "attn_q" else 2, -1, 2, 256).swapaxes(1, 2).reshape(values.shape)
    return f"model.layers.{block}.{module}.weight", values


@pytest.mark.parametrize("original", ["folder", "file"])
@pytest.mark.parametrize("mixture", MIXTURES)
def test_files_of_llama_cpps_quantizer(mixture, original, qbench, demo_gguf, tmp_path):
    if original == "file" and mixture == "legacy":
        pytest.skip("one of each is enough")
    stored = dict(canonical(name, values) for name, (_, values) in rewrite(demo_gguf, tmp_path / "theirs.gguf", kinds_of(MIXTURES[mixture])).items())
    back = imported(qbench, tmp_path / "theirs.gguf", "-m", DEMO if original == "folder" else demo_gguf, *TEXTS, "-w", tmp_path / "w")
    assert back["name"] == "theirs"
    floats = load_file(DEMO / "model.safetensors")
    for module, linear in linears(back).items():
        kind = MIXTURES[mixture][next(stem for stem, name in STEMS.items() if module.endswith(name))]
        error = stored[module + ".weight"].astype(np.float64) - floats[module + ".weight"].double().numpy()
        assert linear["weight_mse"] == pytest.approx(np.mean(error ** 2), rel=1e-6)
        assert linear["weight_max_error"] == pytest.approx(np.abs(error).max(), rel=1e-6)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        assert linear["bits_per_weight"] == pytest.approx(8 * size / block)
        assert linear["scheme"] == ("float" if kind == KIND.F16 else kind.name.lower().replace("_k", "_K"))
        assert not linear.get("note")
    models = [hf.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32, attn_implementation="eager") for _ in range(2)]
    with torch.no_grad():
        for name, parameter in models[1].named_parameters():
            parameter.copy_(torch.from_numpy(stored[name].copy()))
    tokenizer = hf.AutoTokenizer.from_pretrained(DEMO)
    expect_block_errors(back, models, tokenizer, 4)
    windows = torch.tensor(tokenizer((DEMO / "evaluation.txt").read_text())["input_ids"][:256]).reshape(4, 64)
    with torch.no_grad():
        losses = [torch.stack([model(w[None], labels=w[None]).loss for w in windows]) for model in models]
    for of_float, expected in ((True, losses[0]), (False, losses[1])):
        assert figures(back)[of_float][0] == pytest.approx(expected.mean().exp().item(), rel=1e-5)


# scheme, embeddings of the export
OWN = {"q4_K": ("{type: q4_K}", None), "int8 g64": ("{type: int8, symmetric: true, granularity: group, group_size: 64}", None), "q3_K rounded head": ("{type: q3_K}", "Q4_K_M")}


@pytest.mark.parametrize("case", OWN)
def test_our_own_file_is_its_run_again(case, qbench, tmp_path):
    weights, embeddings = OWN[case]
    run = quantized(qbench, tmp_path, weights, pipeline="awq, gptq" if case == "q4_K" else "rtn", extra=EVALUATION)
    file = exported(qbench, run, "gguf", tmp_path / "out.gguf", *(["--embeddings", embeddings] if embeddings else []))
    own, back = report_of(run), imported(qbench, file, "--like", run.name, "-w", run.parents[1])
    assert back["status"] == "finished" and back["model_hash"] == own["model_hash"]
    assert linears(back).keys() == linears(own).keys() and len(linears(own)) == 28
    # Groups of 64 lie there as blocks of 32 of the same scale; where factors moved, those that no norm tells are fitted; inputs follow the embedding.
    same = [key for key in LINEAR if (case != "int8 g64" or key not in ("scheme", "bits_per_weight")) and (not embeddings or key.startswith(("scheme", "bits", "weight")))]
    for module, expected in linears(own).items():
        fitted = case == "q4_K" and not module.endswith(("q_proj", "k_proj", "gate_proj"))
        for key in ("scheme", "bits_per_weight") if fitted else same:
            assert linears(back)[module][key] == expected[key], (module, key)
    if embeddings:
        assert figures(back)[True] == figures(own)[True] and figures(back)[False] != figures(own)[False]
    else:
        assert figures(back) == figures(own)
        for mine, theirs in zip(own["blocks"], back["blocks"]):
            assert mine["output_relative_error"] == theirs["output_relative_error"]
    # A run like others: verified against its file, and written as one again.
    again = run.parents[0] / back["id"]
    assert subprocess.run([qbench, "verify", file, again], capture_output=True).returncode == 0
    exported(qbench, again, "gguf", tmp_path / "again.gguf")
    stored = [{t.name: t for t in gguf.GGUFReader(path).tensors} for path in (file, tmp_path / "again.gguf")]
    assert stored[0].keys() == stored[1].keys()
    for name, tensor in stored[0].items():
        assert tensor.tensor_type == stored[1][name].tensor_type and np.array_equal(tensor.data, stored[1][name].data), name


def test_without_its_original_it_is_only_evaluated(qbench, demo_gguf, tmp_path):
    rewrite(demo_gguf, tmp_path / "theirs.gguf", kinds_of(MIXTURES["k-quants"]))
    back = imported(qbench, tmp_path / "theirs.gguf", "--evaluate", DEMO / "evaluation.txt", "--seq-len", "64", "--windows", "4", "-w", tmp_path / "w")
    compared = imported(qbench, tmp_path / "theirs.gguf", "-m", DEMO, "--evaluate", DEMO / "evaluation.txt", "--seq-len", "64", "--windows", "4", "-w", tmp_path / "w")
    assert figures(back) == {False: figures(compared)[False]} and back["float_bytes"] == 0
    assert back["bits_per_weight"] == compared["bits_per_weight"] and back["quantized_bytes"] == compared["quantized_bytes"]
    assert all(linear["weight_mse"] is None for linear in linears(back).values())


def expected_errors(tensors):
    """Mean squared errors of what a file holds in codes: of each matrix, or each expert's."""
    errors = []
    for name, (values, stored) in tensors.items():
        if name.startswith("blk.") and not np.array_equal(values, stored):
            squares = (stored.astype(np.float64) - values) ** 2
            errors += [squares.mean()] if values.ndim == 2 else squares.mean((1, 2)).tolist()
    return sorted(errors)


# Permuted rows, experts in one tensor, biases, norms that keep 1 + weight, fused matrices, a tied embedding.
FAMILIES = ["llama-tied-biased", "mixtral", "qwen2-moe-plain", "qwen3-moe-plain", "phi3", "gemma2-plain", "falcon-40b", "granitemoe", "gpt-oss", "deepseek-v2-plain"]


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name, qbench, tmp_path):
    model, writer = zoos.save_model(name, tmp_path / "model"), gguf_zoo if name in gguf_zoo.CONVERTED else gguf_zoo_experts
    writer.write(name, model, tmp_path / "float.gguf")
    tensors = rewrite(tmp_path / "float.gguf", tmp_path / "theirs.gguf",
                      lambda n, v: KIND.Q8_0 if n.startswith("blk.") and n.endswith(".weight") and v.ndim >= 2 and v.shape[-1] % 32 == 0 and "ffn_gate_inp" not in n else None)
    back = linears(imported(qbench, tmp_path / "theirs.gguf", "-m", tmp_path / "model", "-w", tmp_path / "w"))
    in_codes = [linear for linear in back.values() if linear["scheme"] == "q8_0"]
    if name == "deepseek-v2-plain":  # keys lie by columns there: the two halves are one linear, measured as numbers
        halves = [linear for linear in back.values() if "stored as Q8_0" in linear.get("note", "") or "stored as F32 and Q8_0" in linear.get("note", "")]
        assert len(halves) == model.config.num_hidden_layers and all(linear["weight_mse"] > 0 and linear["scheme"] == "float" for linear in halves)
        tensors = {n: v for n, v in tensors.items() if "_k_b" not in n and "_v_b" not in n}
    assert sorted(linear["weight_mse"] for linear in in_codes) == pytest.approx(expected_errors(tensors), rel=1e-5)
    assert len(in_codes) > 0
    notes = [linear["note"] for linear in back.values() if linear.get("note") and "stored as" not in linear["note"]]
    assert not notes, notes


def test_parts_of_several_types_are_measured_as_numbers(qbench, tmp_path):
    """InternLM2's fused queries, keys and values are three tensors in GGUF, which a mix gives types of their own."""
    model_zoo.save_internlm2(tmp_path / "model")
    gguf_zoo.write("internlm2", model_zoo.make_internlm2(), tmp_path / "float.gguf")
    tensors = rewrite(tmp_path / "float.gguf", tmp_path / "theirs.gguf",
                      lambda n, v: (KIND.Q8_0 if "attn_v" in n else KIND.Q4_0) if n.startswith("blk.") and n.endswith(".weight") and v.ndim == 2 and v.shape[-1] % 32 == 0 else None)
    back = linears(imported(qbench, tmp_path / "theirs.gguf", "-m", tmp_path / "model", "-w", tmp_path / "w"))
    fused = {int(module.split(".")[2]): linear for module, linear in back.items() if module.endswith("wqkv")}
    for block, linear in fused.items():
        parts = [tensors[f"blk.{block}.attn_{part}.weight"] for part in "qkv"]
        error = np.concatenate([stored.astype(np.float64) - values for values, stored in parts])
        assert linear["weight_mse"] == pytest.approx(np.mean(error ** 2), rel=1e-5) and "Q4_0 and Q8_0" in linear["note"] and linear["scheme"] == "float"
        sizes = [(values.size, 4.5 if i < 2 else 8.5) for i, (values, _) in enumerate(parts)]
        assert linear["bits_per_weight"] == pytest.approx(sum(n * b for n, b in sizes) / sum(n for n, _ in sizes))
    assert len(fused) == 3


# ---- what cannot be ----
def refused(qbench, *arguments):
    done = call(qbench, *arguments)
    assert done.returncode == 4 and done.stderr.startswith("qbench: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_what_cannot_be_imported_is_one_clear_error(qbench, demo_gguf, tmp_path):
    theirs, w = tmp_path / "theirs.gguf", ("-w", tmp_path / "w")
    rewrite(demo_gguf, theirs, kinds_of(MIXTURES["legacy"]))
    assert "none of its linears is in codes" in refused(qbench, demo_gguf, "-m", DEMO, *w)
    data = theirs.read_bytes()
    for length in (len(data) - 100, len(data) // 2, 2000):
        (tmp_path / "cut.gguf").write_bytes(data[:length])
        assert "cut.gguf" in refused(qbench, tmp_path / "cut.gguf", "-m", DEMO, *w)
    reader = gguf.GGUFReader(theirs)
    tensor = next(t for t in reader.tensors if t.name == "blk.2.attn_output.weight")  # its first scale becomes NaN
    broken = bytearray(data)
    broken[tensor.data_offset:tensor.data_offset + 2] = b"\xff\x7f"
    (tmp_path / "nan.gguf").write_bytes(broken)
    assert "model.layers.2.self_attn.o_proj\" holds NaN" in refused(qbench, tmp_path / "nan.gguf", "-m", DEMO, *w)
    rewrite(demo_gguf, tmp_path / "small.gguf", lambda name, values: KIND.Q4_0 if stem_of(name) == "ffn_up" else None)
    unread = tmp_path / "unread.gguf"
    shutil.copy(tmp_path / "small.gguf", unread)
    data = unread.read_bytes()  # a tensor's description: its name, two dimensions, its type
    at = data.index(b"blk.1.ffn_up.weight") + len(b"blk.1.ffn_up.weight") + 4 + 16
    assert data[at] == KIND.Q4_0
    unread.write_bytes(data[:at] + bytes([KIND.IQ2_XXS]) + data[at + 1:])
    said = refused(qbench, unread, "-m", DEMO, *w)
    assert "IQ2_XXS" in said and "blk.1.ffn_up.weight" in said and "expected Q4_0" in said
    assert not list((tmp_path / "w" / "runs").iterdir())


def test_another_models_file_is_refused(qbench, demo_gguf, tmp_path):
    theirs = tmp_path / "theirs.gguf"
    rewrite(demo_gguf, theirs, kinds_of(MIXTURES["legacy"]))
    for changes, said in (({"rope_theta": 500000.0}, "frequency"), ({"rms_norm_eps": 1e-3}, "epsilon 0.001"), ({"tie_word_embeddings": False}, "head")):
        shutil.copytree(DEMO, tmp_path / "other", dirs_exist_ok=True)
        config = json.loads((DEMO / "config.json").read_text()) | changes
        (tmp_path / "other" / "config.json").write_text(json.dumps(config))
        if "tie_word_embeddings" in changes:
            tensors = load_file(DEMO / "model.safetensors")
            save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] * 2}, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
        error = refused(qbench, theirs, "-m", tmp_path / "other", "-w", tmp_path / "w")
        assert "is no checkpoint of" in error and said in error, error
    zoos.save_model("qwen3", tmp_path / "qwen3")
    error = refused(qbench, theirs, "-m", tmp_path / "qwen3", "-w", tmp_path / "w")
    assert "is no checkpoint of" in error and "its family is llama, expected qwen3" in error


def test_a_quantized_file_is_no_model_to_quantize_unless_that_is_asked_for(qbench, demo_gguf, tmp_path):
    theirs, recipe = tmp_path / "theirs.gguf", tmp_path / "r.yaml"
    rewrite(demo_gguf, theirs, kinds_of(MIXTURES["legacy"]))

    def run(model, *more):
        recipe.write_text(f"model: {model}\nscheme: {{weights: {{type: int4, group_size: 64}}}}\n{EVALUATION}\nevaluate_float: true\n")
        return subprocess.run([qbench, "run", recipe, "-q", "-w", tmp_path / "w", *more], capture_output=True, text=True)
    done = run(f"'{theirs}'", "--check")
    assert done.returncode == 4 and "already quantized" in done.stderr and "28 of 28" in done.stderr and "qbench import" in done.stderr and "dequantize: true" in done.stderr
    assert run(f"'{demo_gguf}'", "--check").returncode == 0
    # An original in codes is none either.
    assert "already quantized" in refused(qbench, theirs, "-m", shutil.copy(theirs, tmp_path / "original.gguf"), "-w", tmp_path / "w")
    done = run(f"{{path: '{theirs}', dequantize: true, dtype: float32}}", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)[0]
    alone = imported(qbench, theirs, "--evaluate", DEMO / "evaluation.txt", "--seq-len", "64", "--windows", "4", "-w", tmp_path / "w")
    assert figures(report)[True] == figures(alone)[False]  # the float model is what the codes stand for
    assert all(linear["weight_mse"] > 0 for linear in linears(report).values())
    # The run opens again.
    exported(qbench, tmp_path / "w" / "runs" / report["id"], "gguf", tmp_path / "again.gguf")
    assert embedding_of(tmp_path / "again.gguf")[0] == KIND.Q8_0


def embedding_of(path):
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == "token_embd.weight")
    return tensor.tensor_type, tensor.data


def test_an_embedding_in_codes_is_written_as_it_is_or_as_it_is_asked_for(qbench, demo_gguf, tmp_path):
    values = rewrite(demo_gguf, tmp_path / "theirs.gguf", kinds_of(MIXTURES["legacy"]))["token_embd.weight"][1]
    run = tmp_path / "w/runs" / imported(qbench, tmp_path / "theirs.gguf", "-w", tmp_path / "w")["id"]
    _, own = embedding_of(tmp_path / "theirs.gguf")
    for asked in ("", "q8_0"):
        file = exported(qbench, run, "gguf", tmp_path / f"same{asked}.gguf", *(["--embeddings", asked] if asked else []))
        kind, data = embedding_of(file)
        assert kind == KIND.Q8_0 and np.array_equal(data, own)
        assert subprocess.run([qbench, "verify", file, run], capture_output=True).returncode == 0
    # Another code in it is not the run's.
    shutil.copy(tmp_path / "same.gguf", tmp_path / "wrong.gguf")
    wrong = gguf.GGUFReader(tmp_path / "wrong.gguf", "r+")
    next(t for t in wrong.tensors if t.name == "token_embd.weight").data[7, 40] ^= 1
    wrong.data.flush()
    done = subprocess.run([qbench, "verify", tmp_path / "wrong.gguf", run], capture_output=True, text=True)
    assert done.returncode != 0 and '"model.embed_tokens": 1 of' in done.stdout + done.stderr
    # Another type is made of what the codes stand for, no worse than gguf-py does.
    kind, data = embedding_of(exported(qbench, run, "gguf", tmp_path / "smaller.gguf", "--embeddings", "q5_1"))
    theirs = gguf.dequantize(gguf.quantize(np.ascontiguousarray(values, dtype=np.float32), KIND.Q5_1), KIND.Q5_1)
    assert kind == KIND.Q5_1
    assert 0 < np.square(gguf.dequantize(data, kind) - values).sum() <= 1.01 * np.square(theirs - values).sum()
