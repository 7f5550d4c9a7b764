"""`qbench imatrix`: sums of squares of what each linear reads, as transformers' modules see it, in the file that llama.cpp's quantizer takes;
and recipes that take such a file in place of calibration text."""
import json
import subprocess

import gguf
import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file

import zoos
from conftest import DEMO
from test_gguf_write import older, write_imatrix

STEMS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down"}


def test_sums_are_those_of_transformers(tool, tmp_path):
    out = tmp_path / "imatrix.gguf"
    subprocess.run([tool("qbench"), "imatrix", DEMO, "-t", DEMO / "calibration.txt", "-o", out, "--samples", "6", "--seq-len", "96", "--dtype", "float32"], check=True, capture_output=True)
    reader = gguf.GGUFReader(out)
    found = {t.name: np.array(t.data, dtype=np.float64) for t in reader.tensors}
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.chunk_count"].contents() == 6 and reader.fields["imatrix.chunk_size"].contents() == 96

    model = hf.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)
    ids = hf.AutoTokenizer.from_pretrained(DEMO)((DEMO / "calibration.txt").read_text(), add_special_tokens=False).input_ids[:6 * 96]
    sums = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.register_forward_pre_hook(lambda m, inputs, name=name: sums.__setitem__(name, inputs[0].double().pow(2).sum((0, 1)).numpy()))
    with torch.no_grad():
        model(torch.tensor(ids).reshape(6, 96))
    assert len(sums) == 28 and len(found) == 56
    for name, expected in sums.items():
        block, stem = name.split(".", 3)[2:]
        entry = f"blk.{block}.{STEMS[stem]}.weight"
        np.testing.assert_allclose(found[entry + ".in_sum2"].ravel(), expected, rtol=2e-4)
        assert found[entry + ".counts"].ravel().tolist() == [6 * 96]


# ---- in recipes ----
@pytest.fixture(scope="module")
def demo_imatrix(tool, tmp_path_factory):
    out = tmp_path_factory.mktemp("imatrix") / "imatrix.gguf"
    subprocess.run([tool("qbench"), "imatrix", DEMO, "-t", DEMO / "calibration.txt", "-o", out, "--samples", "8", "--seq-len", "64", "--dtype", "float32"], check=True, capture_output=True)
    return out


def tensors_of(path):
    return {t.name: np.array(t.data, dtype=np.float32).reshape([int(d) for d in reversed(t.shape)]) for t in gguf.GGUFReader(path).tensors}


def run(tool, folder, calibration, pipeline="{method: rtn, importance: true}", model=DEMO, type="q3_K", more=()):
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"""name: test
model: {{path: '{model}', dtype: float32}}
{f"calibration: {{{calibration}}}" if calibration else ""}
scheme: {{weights: {{type: {type}}}}}
pipeline: [{pipeline}]
propagate_quantized: false
""")
    return subprocess.run([tool("qbench"), "run", recipe, "-w", folder / "w", "-q", "--json", *more], capture_output=True, text=True)


def blocks_of(done, folder):
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)[0]
    return [load_file(path) for path in sorted((folder / "w" / "runs" / report["id"] / "blocks").glob("*.safetensors"))], report


TEXT = f"corpus: '{DEMO}/calibration.txt', sampling: sequential, samples: 8, seq_len: 64"


def same_blocks(a, b):
    return all(x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x) for x, y in zip(a, b, strict=True))


def test_a_recipes_matrix_stands_for_a_calibration_text(tool, demo_imatrix, tmp_path):
    """The codes are those of the text that the matrix was made on, to the bit; the form of before 2025 too."""
    collected, _ = blocks_of(run(tool, tmp_path / "text", TEXT), tmp_path / "text")
    given, report = blocks_of(run(tool, tmp_path / "file", f"importance: '{demo_imatrix}'"), tmp_path / "file")
    assert len(given) == 4 and same_blocks(given, collected) and report["calibration_tokens"] == 0
    plain, _ = blocks_of(run(tool, tmp_path / "plain", None, "rtn"), tmp_path / "plain")
    assert not same_blocks(plain, collected), "weights of columns change nothing: this test shows nothing"
    body, end = older({name: value for name, value in tensors_of(demo_imatrix).items()}, windows=512)  # of 512 tokens: the sums themselves
    (tmp_path / "imatrix.dat").write_bytes(body + end)
    again, _ = blocks_of(run(tool, tmp_path / "older", f"importance: '{tmp_path / 'imatrix.dat'}'"), tmp_path / "older")
    assert same_blocks(again, collected)
    # With a text too: that is measured on, and methods before take their statistics from it.
    both, report = blocks_of(run(tool, tmp_path / "both", f"{TEXT}, importance: '{demo_imatrix}'"), tmp_path / "both")
    assert same_blocks(both, collected) and report["calibration_tokens"] == 512
    scaled, _ = blocks_of(run(tool, tmp_path / "awq", f"{TEXT}, importance: '{demo_imatrix}'", "awq, {method: rtn, importance: true}"), tmp_path / "awq")
    assert not same_blocks(scaled, collected)


def test_its_sums_are_the_ones_that_weigh(tool, demo_imatrix, tmp_path):
    """A matrix that says of what two linears read that a single column counts: of that column the error falls, other linears stay."""
    tensors = tensors_of(demo_imatrix)
    for stem in ("ffn_gate", "ffn_up"):
        changed = tensors[f"blk.1.{stem}.weight.in_sum2"]
        changed[:], changed[0, 37] = 1e-3, 1e6
    write_imatrix(tmp_path / "one.gguf", tensors)
    original, errors = load_file(DEMO / "model.safetensors"), {}
    for name, file in (("all", demo_imatrix), ("one", tmp_path / "one.gguf")):
        _, report = blocks_of(run(tool, tmp_path / name, f"importance: '{file}'"), tmp_path / name)
        out = tmp_path / f"{name}-run.gguf"
        subprocess.run([tool("qbench"), "export", tmp_path / name / "w" / "runs" / report["id"], "-f", "gguf", "-o", out], check=True, capture_output=True)
        for tensor in gguf.GGUFReader(out).tensors:
            if ".ffn_" in tensor.name and tensor.name.endswith(("gate.weight", "up.weight", "down.weight")):
                _, block, stem, _ = tensor.name.split(".")
                weight = original[f"model.layers.{block}.mlp.{stem.removeprefix('ffn_')}_proj.weight"].float().numpy()
                errors[name, tensor.name] = (gguf.dequantize(tensor.data, tensor.tensor_type) - weight) ** 2
    changed = {"blk.1.ffn_gate.weight", "blk.1.ffn_up.weight"}
    assert len(errors) == 24
    for stored in {stored for _, stored in errors}:
        if stored in changed:
            assert errors["one", stored][:, 37].mean() < 0.3 * errors["all", stored][:, 37].mean()
        else:
            assert np.array_equal(errors["one", stored], errors["all", stored])


def test_experts_have_rows_of_their_own(tool, tmp_path):
    model, folder = zoos.make_model("qwen3-moe-plain"), tmp_path / "model"
    model.save_pretrained(folder)
    rng = np.random.default_rng(5)
    config, tensors = model.config, {}
    for block in range(config.num_hidden_layers):
        for stem, matrices, width in (("attn_q", 1, 32), ("attn_k", 1, 32), ("attn_v", 1, 32), ("attn_output", 1, 32), ("ffn_gate_exps", 5, 32), ("ffn_up_exps", 5, 32), ("ffn_down_exps", 5, 16)):
            tensors[f"blk.{block}.{stem}.weight.in_sum2"] = np.exp(4 * rng.normal(size=(matrices, width))).astype(np.float32)
            tensors[f"blk.{block}.{stem}.weight.counts"] = np.full((matrices, 1), 100, np.float32)
    tensors["blk.1.ffn_up_exps.weight.counts"][3] = tensors["blk.1.ffn_gate_exps.weight.counts"][3] = 0
    files = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    write_imatrix(files[0], tensors)
    tensors["blk.2.ffn_gate_exps.weight.in_sum2"][1] = tensors["blk.2.ffn_up_exps.weight.in_sum2"][1] = np.exp(4 * rng.normal(size=32)).astype(np.float32)
    write_imatrix(files[1], tensors)
    # Rows of 16 are no multiple of a block.
    down = ("--set", "scheme.overrides=[{match: '*.down_proj', weights: float}]")
    found = [blocks_of(run(tool, tmp_path / file.stem, f"importance: '{file}'", model=folder, type="q4_0", more=down), tmp_path / file.stem) for file in files]
    differing = {name for a, b in zip(found[0][0], found[1][0]) for name in a if not torch.equal(a[name], b[name])}
    assert {name.rsplit(".", 2)[0] for name in differing} == {f"model.layers.2.mlp.experts.1.{part}_proj" for part in ("gate", "up")}
    notes = {f"{b['block']}.{linear['name']}": linear["note"] for b in found[0][1]["blocks"] for linear in b["linears"] if linear.get("note")}
    assert notes.keys() == {f"1.mlp.experts.3.{part}_proj" for part in ("gate", "up")} and all("no token" in note for note in notes.values())


@pytest.mark.parametrize("change, words", [
    (lambda t: [t.pop(f"blk.2.attn_v.weight.{part}") for part in ("in_sum2", "counts")], ["blk.2.attn_v.weight", "model.layers.2.self_attn.v_proj"]),
    (lambda t: t.update({"blk.2.attn_v.weight.in_sum2": np.ones((1, 128), np.float32)}), ["blk.2.attn_v.weight", "128 values, expected 256"]),
    (lambda t: t["blk.2.attn_v.weight.counts"].fill(0), ["blk.2.attn_v.weight", "counts no tokens"]),
])
def test_a_matrix_that_does_not_fit_is_refused_before_any_work(change, words, tool, demo_imatrix, tmp_path):
    tensors = tensors_of(demo_imatrix)
    change(tensors)
    write_imatrix(tmp_path / "in.gguf", tensors)
    done = run(tool, tmp_path, f"importance: '{tmp_path / 'in.gguf'}'", more=["--check"])
    assert done.returncode == 4 and done.stderr.count("\n") == 1 and "in.gguf" in done.stderr and all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize("calibration, pipeline, words", [
    ("importance: '{}'", "rtn", ["calibration.importance", "no stage reads it"]),
    ("importance: '{}'", "gptq", ["pipeline[0].method", "gptq needs a calibration"]),
    ("importance: '{}', samples: 4", "{method: rtn, importance: true}", ["calibration.samples", "is of a text"]),
    ("importance: '{}'", "quarot, {method: rtn, importance: true}", ["calibration.importance", "quarot makes another one"]),
    ("", "{method: rtn, importance: true}", ["pipeline[0].importance", "importance: FILE"]),
])
def test_recipes_that_cannot_be_are_refused(calibration, pipeline, words, tool, demo_imatrix, tmp_path):
    done = run(tool, tmp_path, calibration.format(demo_imatrix), pipeline, more=["--check"])
    assert done.returncode == 3 and all(word in done.stderr for word in words), done.stderr
