"""The token embedding and the head in codes: their numbers beside formulas in torch, GPTQ of the head beside a least squares solve on
transformers' own hidden states, perplexity beside transformers with the same numbers, bits and sizes beside those of the files."""
import json
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import layouts
from peer_model import ALPHABET, HIDDEN, VOCABULARY, peer_ids, peer_tensors, save_peer_model
from test_exports import verified
from test_weight_methods import grid, sequential_least_squares
from reports import perplexities

EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
BLOCKS = "  weights: {type: int4, symmetric: false, granularity: group, group_size: 32, scale_type: float32}\n"
WINDOWS, SEQ_LEN = 16, 64


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Both with a row of zeros in each matrix and a channel of the embedding that is dead."""
    made = {}
    for name in ("untied", "tied"):
        folder = made[name] = tmp_path_factory.mktemp(name)
        save_peer_model(folder)
        tensors = peer_tensors()
        tensors[EMBEDDING + ".weight"][7] = 0
        tensors[EMBEDDING + ".weight"][:, 5] = 0
        tensors[HEAD + ".weight"][9] = 0
        if name == "tied":
            del tensors[HEAD + ".weight"]
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return made


@pytest.fixture(scope="module")
def qbench(tool):
    return tool("qbench")


def recipe(model, folder, scheme, pipeline="rtn", extra=""):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(f"name: vocabulary\nmodel: {{path: '{model}', dtype: float32}}\ncalibration: {{corpus: '{model}/calibration.txt', sampling: sequential, samples: 32, seq_len: 64}}\n"
                    f"scheme:\n{scheme}pipeline: [{pipeline}]\n"
                    f"evaluation:\n  - {{corpus: '{model}/calibration.txt', seq_len: {SEQ_LEN}, windows: {WINDOWS}, dtype: float32}}\n{extra}")
    return path


def run(qbench, model, folder, scheme, pipeline="rtn", extra="", code=0):
    done = subprocess.run([qbench, "run", recipe(model, folder, scheme, pipeline, extra), "-w", folder / "w", "-q", "--json"], capture_output=True, text=True)
    assert (done.returncode == 0) == (code == 0), (done.stdout, done.stderr)
    if code:
        return done.stderr
    report = json.loads(done.stdout)[0]
    return folder / "w/runs" / report["id"], json.loads((folder / "w/runs" / report["id"] / "report.json").read_text())


def transformers_model(folder, weights):
    """The float model with these in place of its own."""
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    state = model.state_dict()
    for module, value in weights.items():
        assert state[module + ".weight"].shape == value.shape
        state[module + ".weight"].copy_(torch.from_numpy(np.ascontiguousarray(value)))
    return model


def perplexity(model):
    ids = peer_ids()[:WINDOWS]
    with torch.no_grad():
        logits = model(ids).logits[:, :-1].double()
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).exp())


def quantized_perplexity(report):
    return next(p["perplexity"] for p in perplexities(report) if not p["float_model"])


def sound_grid(units, bits, symmetric):
    """With a harmless scale where all is zero."""
    scale, zero = grid(units, bits, symmetric)
    return torch.where(scale == 0, torch.ones_like(scale), scale), zero.nan_to_num()


def rounded(weight, bits, symmetric, group):
    """To nearest, on compressed-tensors' grids, scales in float32."""
    units = weight.reshape(-1, group or weight.shape[1])
    scale, zero = sound_grid(units, bits, symmetric)
    codes = (units / scale[:, None] + zero[:, None]).round().clamp(-2 ** (bits - 1), 2 ** (bits - 1) - 1)
    return ((codes - zero[:, None]) * scale[:, None]).reshape(weight.shape)


SPECS = {"int8 channel": ("{type: int8, granularity: channel, scale_type: float32}", 8, True, 0), "int4 g32": ("{type: int4, group_size: 32, scale_type: float32}", 4, True, 32),
         "int4 g32 asymmetric": ("{type: int4, symmetric: false, group_size: 32, scale_type: float32}", 4, False, 32)}


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kind, keys", [("untied", ["embedding"]), ("untied", ["head"]), ("untied", ["embedding", "head"]), ("tied", ["embedding"]), ("tied", ["head"])])
def test_rounding_to_nearest_is_the_formulas_and_evaluated(qbench, models, tmp_path, spec, kind, keys):
    text, bits, symmetric, group = SPECS[spec]
    folder, report = run(qbench, models[kind], tmp_path, BLOCKS + "".join(f"  {key}: {text}\n" for key in keys))
    made = layouts.run_linears(folder)
    modules = [EMBEDDING] if kind == "tied" else [{"embedding": EMBEDDING, "head": HEAD}[key] for key in keys]
    assert {m for m in made if "layers" not in m} == set(modules)
    tensors = load_file(models[kind] / "model.safetensors")
    for module in modules:
        expected = rounded(tensors[module + ".weight"], bits, symmetric, group)
        difference = (torch.from_numpy(made[module]) - expected).abs()
        assert (difference > 1e-6).float().mean() < 1e-3 and difference.max() <= 1.01 * expected.abs().max() / (2 ** (bits - 1) - 1)  # a tie in the last bit of a scale
    assert not made[modules[0]][7 if modules[0] == EMBEDDING else 9].any(), "the row of zeros"
    assert quantized_perplexity(report) == pytest.approx(perplexity(transformers_model(models[kind], made)), rel=2e-5)
    # Bits with scales and zero points, and sizes of the file's other tensors.
    size = HIDDEN * VOCABULARY
    each = bits + (32 + (0 if symmetric else bits)) / (group or HIDDEN)
    linears = sum(v.numel() for name, v in tensors.items() if "proj" in name)
    of_linears = 4 + 36 / 32
    others = sum(v.nbytes for name, v in tensors.items() if "proj" not in name and name.removesuffix(".weight") not in modules)
    assert report["bits_per_weight"] == pytest.approx((linears * of_linears + len(modules) * size * each) / (linears + len(modules) * size))
    assert report["model_bytes"] == pytest.approx(others + (linears * of_linears + len(modules) * size * each) / 8, abs=2)
    assert report["model_float_bytes"] == sum(v.nbytes for v in tensors.values()) and report["quantized_bytes"] == pytest.approx(linears * of_linears / 8, abs=1)
    assert [(m["name"], m["block"], m["bits_per_weight"]) for m in report["vocabulary"]] == [(m.split(".")[-1], -1, pytest.approx(each)) for m in modules]


def test_blocks_are_calibrated_with_the_embedding_that_they_will_have(qbench, models, tmp_path):
    """What a block's inputs are is seen by what it writes down of them."""
    embedding = "  embedding: {type: int3, granularity: channel, scale_type: float32}\n"
    folder, report = run(qbench, models["untied"], tmp_path, BLOCKS + embedding, pipeline="gptq")
    made = layouts.run_linears(folder)
    ids = peer_ids()
    x = torch.from_numpy(made[EMBEDDING])[ids]
    norm = load_file(models["untied"] / "model.safetensors")["model.layers.0.input_layernorm.weight"]
    largest = (x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * norm).abs().amax((0, 1))
    q = next(linear for linear in report["blocks"][0]["linears"] if linear["name"].endswith("q_proj"))
    for outlier in q["outliers"]:
        assert outlier["abs_max"] == pytest.approx(float(largest[outlier["channel"]]), rel=1e-4)
    assert len(q["outliers"]) >= 5


@pytest.mark.parametrize("kind", ["untied", "tied"])
@pytest.mark.parametrize("bits, symmetric, group", [(4, True, 32), (3, False, 0)])
def test_gptq_of_the_head_solves_the_least_squares_problem(qbench, models, tmp_path, kind, bits, symmetric, group):
    """The head alone is quantized: its inputs are those of the float model."""
    spec = f"{{type: int{bits}, symmetric: {str(symmetric).lower()}, granularity: {'group' if group else 'channel'}, group_size: {group or 32}, scale_type: float32}}"
    folder, report = run(qbench, models[kind], tmp_path, f"  head: {spec}\n  head_rounding: gptq\n", pipeline="{method: gptq, percdamp: 0.01, actorder: true}")
    module = EMBEDDING if kind == "tied" else HEAD
    value = torch.from_numpy(layouts.run_linears(folder)[module]).double()
    model = hf.AutoModelForCausalLM.from_pretrained(models[kind], dtype=torch.float32).eval()
    with torch.no_grad():
        x = model.model(peer_ids()).last_hidden_state.flatten(0, 1).double()
    w, gram = load_file(models[kind] / "model.safetensors")[module + ".weight"].double(), x.T @ x
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(HIDDEN, dtype=torch.float64)
    order = torch.argsort(gram.diagonal(), descending=True)
    units = HIDDEN // group if group else 1
    grids = [sound_grid(w.reshape(VOCABULARY, units, -1)[:, u], bits, symmetric) for u in range(units)]
    _, expected = sequential_least_squares(w, damped, order, grids, bits, group)
    assert (value - expected).abs().gt(1e-5).double().mean() < 0.02  # a tie that falls the other way moves those behind it

    def energy(difference):
        return float(((difference @ gram) * difference).sum())
    nearest = rounded(w.float(), bits, symmetric, group).double()
    assert energy(value - w) == pytest.approx(energy(expected - w), rel=0.02) and energy(value - w) < 0.7 * energy(nearest - w)
    assert report["vocabulary"][0]["output_relative_error"] == pytest.approx((energy(value - w) / energy(w)) ** 0.5, rel=1e-3)
    assert quantized_perplexity(report) == pytest.approx(perplexity(transformers_model(models[kind], {module: value.float().numpy()})), rel=2e-5)


@pytest.mark.parametrize("pipeline, propagate", [("rtn", True), ("rtn", False), ("awq, gptq", False)])
def test_the_heads_inputs_do_not_depend_on_how_the_blocks_were_made(qbench, models, tmp_path, pipeline, propagate):
    """Passed on: the quantized blocks' states; else the float model's. Also where statistics come from the cache, and after a resume."""
    head = "  head: {type: int4, group_size: 32, scale_type: float32}\n  head_rounding: gptq\n"
    extra = f"propagate_quantized: {str(propagate).lower()}\n"
    folder, _ = run(qbench, models["untied"], tmp_path, BLOCKS + head, pipeline, extra)
    first = layouts.run_linears(folder)
    again, _ = run(qbench, models["untied"], tmp_path, BLOCKS + head, pipeline, extra)  # the same workspace: its cache is there
    assert all(np.array_equal(first[m], layouts.run_linears(again)[m]) for m in first)
    state = {m: v for m, v in first.items() if m != HEAD} if propagate else {}
    model = transformers_model(models["untied"], state)
    with torch.no_grad():
        x = model.model(peer_ids()).last_hidden_state.flatten(0, 1).double()
    gram, w = x.T @ x, load_file(models["untied"] / "model.safetensors")[HEAD + ".weight"].double()
    value = torch.from_numpy(first[HEAD]).double()
    report = json.loads((folder / "report.json").read_text())["vocabulary"][0]
    energy = [float(((d @ gram) * d).sum()) for d in (value - w, w)]
    assert report["output_relative_error"] == pytest.approx((energy[0] / energy[1]) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("rounding", ["rtn", "gptq"])
def test_a_killed_run_goes_on_to_the_same_bytes(qbench, models, tmp_path, rounding):
    scheme = BLOCKS + f"  embedding: {{type: int8, granularity: channel}}\n  head: {{type: int4, group_size: 32}}\n  head_rounding: {rounding}\n"
    whole, _ = run(qbench, models["untied"], tmp_path / "whole", scheme, "gptq")
    path = recipe(models["untied"], tmp_path / "killed", scheme, "{method: gptq}")
    process = subprocess.Popen([qbench, "run", path, "-w", tmp_path / "killed/w", "-q"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(2000):
        if any((tmp_path / "killed").glob("w/runs/*/blocks/block-0000.safetensors")):
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = next((tmp_path / "killed/w/runs").iterdir())
    head = killed / "blocks/head.safetensors"
    if head.exists():
        head.unlink()  # as if it had been killed between the blocks and the head
    done = subprocess.run([qbench, "run", "--resume", killed.name, "-w", tmp_path / "killed/w", "-q", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for file in sorted((whole / "blocks").glob("*.safetensors")):
        assert file.read_bytes() == (killed / "blocks" / file.name).read_bytes(), file.name
    # A flipped bit is noticed on reading and made good on resume.
    data = bytearray(head.read_bytes())
    data[-100] ^= 4
    head.write_bytes(data)
    wrong = subprocess.run([qbench, "export", killed, "-f", "dequantized", "-o", tmp_path / "out"], capture_output=True, text=True)
    assert wrong.returncode != 0 and "head.safetensors" in wrong.stderr and not (tmp_path / "out").exists()
    assert subprocess.run([qbench, "run", "--resume", killed.name, "-w", tmp_path / "killed/w", "-q"], capture_output=True, text=True).returncode == 0
    assert head.read_bytes() == (whole / "blocks/head.safetensors").read_bytes()


def test_a_damaged_block_is_made_again_as_it_was_behind_a_tied_head(qbench, models, tmp_path):
    """The codes of the matrix that is both come last: blocks saw the float embedding, and see it again."""
    folder, _ = run(qbench, models["tied"], tmp_path, BLOCKS + "  head: {type: int3, granularity: channel}\n  head_rounding: gptq\n", "gptq")
    before = {file.name: file.read_bytes() for file in (folder / "blocks").glob("*.safetensors")}
    assert before.keys() == {"block-0000.safetensors", "block-0001.safetensors", "embedding.safetensors"}
    data = bytearray(before["block-0000.safetensors"])
    data[-200] ^= 1
    (folder / "blocks/block-0000.safetensors").write_bytes(data)
    done = subprocess.run([qbench, "run", "--resume", folder.name, "-w", tmp_path / "w", "-q"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {file.name: file.read_bytes() for file in (folder / "blocks").glob("*.safetensors")} == before


W4 = "{type: int4, granularity: group, group_size: 32, scale_type: float16}"
FORMATS = [("compressed-tensors", "untied", f"  head: {W4}\n"), ("gptq", "untied", f"  head: {W4}\n"), ("mlx", "untied", f"  embedding: {W4}\n  head: {W4}\n"),
           ("mlx", "tied", f"  embedding: {W4}\n"), ("compressed-tensors", "untied", "  head: {type: int8, granularity: channel, scale_type: float16}\n")]


@pytest.mark.parametrize("format, kind, vocabulary", FORMATS)
def test_checkpoints_hold_them(qbench, models, tmp_path, format, kind, vocabulary):
    folder, report = run(qbench, models[kind], tmp_path, f"  weights: {W4}\n{vocabulary}")
    out = tmp_path / "out"
    done = subprocess.run([qbench, "export", folder, "-f", format, "-o", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read, ours = layouts.linears_of(out), layouts.run_linears(folder)
    assert read.keys() == ours.keys()
    for module in ours:
        assert np.allclose(read[module], ours[module], atol=2e-3 if format == "mlx" else 0, rtol=0), module  # its scale · code in float16
    config = json.loads((out / "config.json").read_text())
    assert "lm_head" not in config["quantization_config"].get("ignore", [])
    assert (kind == "tied") == config["tie_word_embeddings"]
    if format == "gptq":
        assert config["quantization_config"]["lm_head"] is True
    back = json.loads(subprocess.run([qbench, "eval", out, "--text", models[kind] / "calibration.txt", "--seq-len", str(SEQ_LEN), "--windows", str(WINDOWS), "--dtype", "float32", "--json"],
                                     capture_output=True, text=True, check=True).stdout)
    assert back["perplexity"] == pytest.approx(quantized_perplexity(report), rel=1e-6 if format != "mlx" else 1e-4)
    assert verified(qbench, out, folder) == ""
    imported = subprocess.run([qbench, "import", out, "--like", folder.name, "-w", tmp_path / "w", "-q", "--json"], capture_output=True, text=True)
    assert imported.returncode == 0, imported.stderr
    again = json.loads(imported.stdout)
    again = again[0] if isinstance(again, list) else again
    assert quantized_perplexity(again) == quantized_perplexity(report) and again["bits_per_weight"] == pytest.approx(report["bits_per_weight"])
    assert again["model_bytes"] == pytest.approx(report["model_bytes"], abs=4)
    # A wrong nibble of the head, or of the embedding that is one, is seen.
    tensors = load_file(out / "model.safetensors")
    name = next(n for n in tensors if n.startswith(HEAD if kind == "untied" else EMBEDDING) and tensors[n].dtype in (torch.int32, torch.uint32))
    flat = tensors[name].view(torch.int32).clone()
    flat[3, 1] ^= 0x10
    save_file(tensors | {name: flat.view(tensors[name].dtype)}, out / "model.safetensors", metadata={"format": "pt"})
    assert (HEAD if kind == "untied" else EMBEDDING) in verified(qbench, out, folder)


def test_transformers_computes_a_compressed_head(qbench, models, tmp_path):
    folder, report = run(qbench, models["untied"], tmp_path, f"  weights: {W4}\n  head: {W4}\n")
    assert subprocess.run([qbench, "export", folder, "-f", "compressed-tensors", "-o", tmp_path / "out"], capture_output=True).returncode == 0
    model = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert perplexity(model) == pytest.approx(quantized_perplexity(report), rel=1e-5)


def test_gguf_keeps_their_codes(qbench, models, tmp_path):
    gguf = pytest.importorskip("gguf")
    folder, report = run(qbench, models["untied"], tmp_path, "  weights: {type: q4_0}\n  embedding: {type: q8_0}\n  head: {type: q5_1}\n")
    done = subprocess.run([qbench, "export", folder, "-f", "gguf", "-o", tmp_path / "out.gguf"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tensors = {t.name: t for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    assert tensors["token_embd.weight"].tensor_type.name == "Q8_0" and tensors["output.weight"].tensor_type.name == "Q5_1"
    model = transformers_model(models["untied"], {})
    state = model.state_dict()
    for module, name in ((EMBEDDING, "token_embd.weight"), (HEAD, "output.weight")):
        value = gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type)
        state[module + ".weight"].copy_(torch.from_numpy(np.ascontiguousarray(value)))
    head_alone = run(qbench, models["untied"], tmp_path / "alone", "  embedding: {type: q8_0}\n  head: {type: q5_1}\n")[1]
    assert quantized_perplexity(head_alone) == pytest.approx(perplexity(model), rel=2e-5)
    assert verified(qbench, tmp_path / "out.gguf", folder) == ""
    back = json.loads(subprocess.run([qbench, "eval", tmp_path / "out.gguf", "--text", models["untied"] / "calibration.txt", "--seq-len", str(SEQ_LEN), "--windows", str(WINDOWS), "--dtype", "float32",
                                      "--json"], capture_output=True, text=True, check=True).stdout)
    assert back["perplexity"] == pytest.approx(quantized_perplexity(report), rel=1e-6)


REFUSED = {
    "two things of one matrix": ("tied", "  embedding: {type: int8, granularity: channel}\n  head: {type: int4, group_size: 32}\n", "ties its head to its embedding"),
    "a group that does not fit": ("untied", "  head: {type: int4, group_size: 48}\n", "lm_head.weight [256, 128]: group_size 48"),
    "a rounding of nothing": ("untied", BLOCKS + "  head_rounding: gptq\n", "scheme.head_rounding"),
    "a rounding of a head that stays float": ("untied", "  embedding: {type: int8, granularity: channel}\n  head_rounding: gptq\n", "the head of"),
    "a rounding that there is not": ("untied", "  head: {type: int4, group_size: 32}\n  head_rounding: awq\n", "expected rtn or gptq"),
    "activations' granularity": ("untied", "  head: {type: int8, granularity: token}\n", "scheme.head.granularity"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused(qbench, models, tmp_path, case):
    kind, scheme, words = REFUSED[case]
    said = run(qbench, models[kind], tmp_path, scheme, code=3)
    assert words in said and said.count("\n") == 1


def test_a_damaged_matrix_is_named(qbench, models, tmp_path):
    save_peer_model(tmp_path / "nan")
    tensors = peer_tensors()
    tensors[HEAD + ".weight"][200, 3] = float("nan")
    save_file(tensors, tmp_path / "nan/model.safetensors", metadata={"format": "pt"})
    assert 'tensor "lm_head.weight" holds NaN' in run(qbench, tmp_path / "nan", tmp_path / "w", f"{BLOCKS}  head: {W4}\n", code=3)


@pytest.mark.parametrize("format, scheme, words", [
    ("awq", f"  weights: {{type: int4, symmetric: false, group_size: 32}}\n  head: {{type: int4, symmetric: false, group_size: 32}}\n", "keeps the head as numbers"),
    ("compressed-tensors", f"  weights: {W4}\n  embedding: {W4}\n", "keeps the embedding of tokens as numbers"),
    ("gptq", f"  weights: {W4}\n  head: {{type: int8, granularity: channel}}\n", "one scheme for all linears")])
def test_formats_that_cannot_hold_them_say_so_before_the_run(qbench, models, tmp_path, format, scheme, words):
    said = run(qbench, models["untied"], tmp_path, scheme, extra=f"target: {{format: {format}}}\n", code=3)
    assert words in said
