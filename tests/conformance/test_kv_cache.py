"""Quantized caches of keys and values: what a run computes and measures beside transformers' own models with a cache that rounds what it is
given; static ranges beside an independent walk; checkpoints beside compressed-tensors' own hooks in transformers."""
import json
import subprocess

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file

import answers
import layouts
import zoos
from conftest import DEMO
from peer_model import ALPHABET
from test_exports import evaluated, exported, imported, mutate, quantized, verified
from reports import perplexities

WINDOWS, LENGTH, SAMPLES = 4, 48, 6
W8 = "{type: int8, symmetric: true, granularity: channel, scale_type: float32}"
# name: scheme, (codes or None for e4m3, symmetric, values that share a scale, static, largest code at the end of the range)
CACHES = {
    # With the full scale the largest negative value lies between two codes: which one it is hangs on the last bit.
    "int4 token": ("{type: int4, granularity: token, full_scale: false}", (4, True, "token", False, True)),
    "int8 head": ("{type: int8, symmetric: true}", (8, True, "head", False, False)),
    "int4 head asymmetric": ("{type: int4, symmetric: false, granularity: head}", (4, False, "head", False, False)),
    "int4 group": ("{type: int4, granularity: group, group_size: 4, full_scale: false}", (4, True, 4, False, True)),
    "int3 head narrow": ("{type: int3, granularity: head, narrow_range: true}", (3, True, "head", False, True)),
    "int4 head llmc": ("{type: int4, granularity: head, full_scale: false}", (4, True, "head", False, True)),
    "e4m3 token": ("{type: e4m3, granularity: token}", (None, True, "token", False, False)),
    "int4 tensor static": ("{type: int4, granularity: tensor, dynamic: false}", (4, True, "tensor", True, False)),
    "int4 head static asymmetric": ("{type: int4, symmetric: false, granularity: head, dynamic: false}", (4, False, "head", True, False)),
    "e4m3 head static": ("{type: e4m3, granularity: head, dynamic: false}", (None, True, "head", True, False)),
}


def extent(x, share):
    """Smallest and largest of what shares a scale, of keys or values [batch, heads, tokens, dim], in a shape that x's broadcasts with."""
    if share == "token":
        return x.amin((1, 3), keepdim=True), x.amax((1, 3), keepdim=True)
    if share == "head":
        return x.amin(3, keepdim=True), x.amax(3, keepdim=True)
    groups = x.unflatten(3, (-1, share))
    wide = [e.expand_as(groups).flatten(3) for e in (groups.amin(4, keepdim=True), groups.amax(4, keepdim=True))]
    return wide[0], wide[1]


def grid(kind, low, high):
    """Scale and zero point of ranges, which take in zero."""
    bits, symmetric, _, _, ends = kind
    low, high = low.clamp_max(0), high.clamp_min(0)
    if bits is None:
        scale = torch.maximum(-low, high) / 448
    elif symmetric:
        scale = torch.maximum(-low, high) / (2 ** (bits - 1) - 1 if ends else (2 ** bits - 1) / 2)
    else:
        scale = (high - low) / (2 ** bits - 1)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.zeros_like(scale) if symmetric else (-2 ** (bits - 1) - low / scale).round().clamp(-2 ** (bits - 1), 2 ** (bits - 1) - 1)
    return scale, zero


def rounded(kind, x, scale, zero):
    bits = kind[0]
    if bits is None:
        return (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
    return ((x / scale + zero).round().clamp(-2 ** (bits - 1), 2 ** (bits - 1) - 1) - zero) * scale


def logits(model, ids, change):
    """change(x, layer, part): what is kept in place of the keys (part 0) and values (part 1) that come into the cache."""
    cache = hf.DynamicCache(config=model.config)
    update = cache.update
    cache.update = lambda k, v, layer, *a, **kw: update(change(k, layer, 0), change(v, layer, 1), layer, *a, **kw)
    with torch.no_grad():
        return model(ids, past_key_values=cache, use_cache=True).logits.float()


def static_grids(model, kind, ids):
    """{(layer, part): (scale, zero point)}: ranges of each layer are seen with the layers before it on their grids."""
    grids = {}
    layers = set()
    logits(model, ids[:1], lambda x, layer, part: layers.add(layer) or x)
    for layer in sorted(layers):
        seen = {}

        def change(x, at, part):
            if (at, part) in grids:
                return rounded(kind, x, *grids[at, part])
            if at == layer:
                dims = (0, 1, 2, 3) if kind[2] == "tensor" else (0, 2, 3)
                seen[part] = x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)
            return x
        logits(model, ids, change)
        grids |= {(layer, part): grid(kind, *seen[part]) for part in seen}
    return grids


def rounding(model, kind, calibration):
    if kind[3]:
        grids = static_grids(model, kind, calibration)
        return grids, lambda x, layer, part: rounded(kind, x, *grids[layer, part])
    return None, lambda x, layer, part: rounded(kind, x, *grid(kind, *extent(x, kind[2])))


def losses(of, ids):
    """Mean loss of each window."""
    with torch.no_grad():
        return torch.nn.functional.cross_entropy(of(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1).mean(1)


def characters(seed, count):
    g = torch.Generator().manual_seed(seed)
    return "".join(ALPHABET[i] for i in torch.randint(0, len(ALPHABET), (count,), generator=g))


def ids_of(text, rows):
    return torch.tensor([ALPHABET.index(c) for c in text]).view(rows, LENGTH)


def save_tokenizer(folder):
    """Every character is its own token."""
    level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    (folder / "tokenizer.json").write_text(json.dumps(dict(
        version="1.0", truncation=None, padding=None, added_tokens=[], normalizer=None, post_processor=None, pre_tokenizer=level, decoder=level,
        model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False, byte_fallback=False,
                   ignore_merges=False, vocab={c: i for i, c in enumerate(ALPHABET)}, merges=[]))))


def run_of(qbench, folder, name, cache, weights=W8, extra="", propagate=True):
    """A run of a random model of the family, and that model in transformers with the run's weights."""
    model = zoos.save_model(name, folder / "model")
    save_tokenizer(folder / "model")
    (folder / "calibration.txt").write_text(characters(1, SAMPLES * LENGTH))
    (folder / "evaluation.txt").write_text(characters(2, WINDOWS * LENGTH))
    path = folder / "recipe.yaml"
    path.write_text(f"""model: {{path: '{folder}/model', dtype: float32}}
calibration: {{corpus: '{folder}/calibration.txt', sampling: sequential, samples: {SAMPLES}, seq_len: {LENGTH}}}
scheme:
  weights: {weights}
  kv_cache: {cache}
{extra}
pipeline: [rtn]
propagate_quantized: {str(propagate).lower()}
evaluation:
  - {{corpus: '{folder}/evaluation.txt', seq_len: {LENGTH}, dtype: float32}}
""")
    done = subprocess.run([qbench, "run", path, "-w", folder / "w", "-q", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = folder / "w" / "runs" / json.loads(done.stdout)[0]["id"]
    numbers = layouts.run_linears(run)
    taken = 0
    for key, parameter in model.named_parameters():
        if key.removesuffix(".weight") in numbers:
            parameter.data = torch.from_numpy(numbers[key.removesuffix(".weight")])
            taken += 1
    assert taken == len(numbers) > 0
    return run, model


def stored_caches(run):
    """{block: its "cache"} of a run's block files."""
    blocks = [json.loads(layouts.read_file(file)[1]["qbench"]) for file in sorted((run / "blocks").glob("*.safetensors"))]
    return {block["block"]: block["cache"] for block in blocks if "cache" in block}


@pytest.fixture(scope="module")
def qbench(tool):
    return tool("qbench")


@pytest.fixture(scope="module")
def ask(tool):
    ours = answers.Answers(tool("model_logits"))
    yield ours
    ours.close()


# Grouped, multi-query and multi-head attention; rotated, ALiBi and learned positions; windows, soft caps, fused matrices, sinks, layers without a cache.
FAMILIES = ["llama", "qwen3", "gemma2", "phi3", "falcon-7b", "falcon-40b", "falcon-rw", "bloom", "gpt-neox", "gptj", "opt", "cohere2", "mistral", "qwen3-5", "lfm2"]
PAIRS = [("llama", cache) for cache in CACHES] + [(name, list(CACHES)[(3 * i + k) % len(CACHES)]) for i, name in enumerate(FAMILIES[1:]) for k in (0, 7)]


@pytest.mark.parametrize("name, cache", PAIRS)
def test_a_run_measures_what_transformers_computes_with_a_rounding_cache(name, cache, qbench, tmp_path):
    scheme, kind = CACHES[cache]
    run, model = run_of(qbench, tmp_path, name, scheme)
    calibration, evaluation = ids_of(characters(1, SAMPLES * LENGTH), SAMPLES), ids_of(characters(2, WINDOWS * LENGTH), WINDOWS)
    grids, change = rounding(model, kind, calibration)
    expected = losses(lambda ids: logits(model, ids, change), evaluation)
    plain = losses(lambda ids: logits(model, ids, lambda x, *_: x), evaluation)
    measured = torch.tensor(perplexities(json.loads((run / "report.json").read_text()))[-1]["window_nll"])
    # A value between two codes may fall the other way: that is one of thousands.
    assert (measured - expected).abs().max() < 0.1 * (plain - expected).abs().max() + 4e-5, (measured, expected, plain)
    assert (plain - expected).abs().max() > 1e-4
    stored = stored_caches(run)
    attending = {layer for layer, _ in grids} if grids else set(stored)
    assert set(stored) == attending and attending
    if not grids:
        assert all("keys" not in block for block in stored.values())
        return
    for (layer, part), (scale, zero) in grids.items():
        entries = stored[layer][("keys", "values")[part]]
        heads = [t.flatten().reshape(len(entries), -1).numpy() for t in (scale, zero)]  # Falcon's class keeps each head as often as it is read
        np.testing.assert_allclose(np.broadcast_to(np.array([[e["scale"]] for e in entries]), heads[0].shape), heads[0], rtol=0.02)
        assert np.abs(np.array([[e["zero_point"]] for e in entries]) - heads[1]).max() <= 1


def test_the_next_block_sees_what_the_rounded_cache_gives(qbench, tmp_path):
    """With what is passed on, static ranges of the last layer are those behind rounded layers; without, those of the float model."""
    scheme, kind = CACHES["int4 tensor static"]
    scales = {}
    for propagate in (True, False):
        run, model = run_of(qbench, tmp_path / str(propagate), "llama", "{type: int2, granularity: tensor, dynamic: false}", propagate=propagate)
        scales[propagate] = {layer: [entry["keys"][0]["scale"], entry["values"][0]["scale"]] for layer, entry in stored_caches(run).items()}
    assert scales[True][0] == scales[False][0] and len(scales[True]) == 3
    assert np.abs(np.array(scales[True][2]) / scales[False][2] - 1).max() > 0.01
    grids = static_grids(model, (2, *kind[1:]), ids_of(characters(1, SAMPLES * LENGTH), SAMPLES))
    float_scales = {}
    for layer in range(3):
        seen = []
        logits(zoos.make_model("llama"), ids_of(characters(1, SAMPLES * LENGTH), SAMPLES), lambda x, at, part: seen.append(x) or x if at == layer else x)
        float_scales[layer] = [x.abs().max().item() / 1.5 for x in seen]
    np.testing.assert_allclose(scales[True][2], [grids[2, part][0].item() for part in (0, 1)], rtol=0.02)
    np.testing.assert_allclose(scales[False][2], float_scales[2], rtol=0.05)  # its weights are in 8 bits


# ---- checkpoints ----
INPUT8 = "{type: int8, granularity: token, scale_type: float32}"
STORED = {
    "fp8": ("{type: e4m3, granularity: tensor, dynamic: false}", None),
    "fp8 heads": ("{type: e4m3, granularity: head, dynamic: false}", INPUT8),
    "int8": ("{type: int8, granularity: tensor, dynamic: false}", None),
    "int4 asymmetric heads": ("{type: int4, symmetric: false, granularity: head, dynamic: false}", None),
    "int4 groups": ("{type: int4, granularity: group, group_size: 32}", None),
    "int4 groups asymmetric": ("{type: int4, symmetric: false, granularity: group, group_size: 16}", None),
    "fp8 groups": ("{type: e4m3, granularity: group, group_size: 32}", None),
    "int2": ("{type: int2, granularity: tensor, dynamic: false}", None),
}


def demo_run(qbench, folder, cache, activations=None, extra=""):
    return quantized(qbench, folder, W8, activations, pipeline="rtn", extra=f"  kv_cache: {cache}\n{extra}")


@pytest.mark.parametrize("name", STORED)
def test_compressed_tensors_computes_the_same(name, qbench, ask, tmp_path):
    """transformers with compressed-tensors' hooks on its caches."""
    pytest.importorskip("compressed_tensors")
    run = demo_run(qbench, tmp_path / "q", *STORED[name])
    folder = exported(qbench, run, "compressed-tensors", tmp_path / "out", "-e", "transformers")
    assert verified(qbench, folder, run) == ""
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.randint(0, 1024, (2, 48), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        reference = model(ids).logits
        for module in model.modules():
            if hasattr(module, "kv_cache"):
                module.quantization_enabled = False
        unrounded = model(ids).logits
    ours = ask.logits_or_refusal(folder, tmp_path, ids)
    assert isinstance(ours, torch.Tensor), ours
    # With rounded activations each on its side of a step, too. The largest value of a group stands between two of int4's codes (7.5).
    between = name == "int4 groups"
    assert (ours - reference).norm() < (0.5 if between else 0.3 if STORED[name][1] else 0.1) * (unrounded - reference).norm()
    if not STORED[name][1] and not between:
        assert (ours - reference).abs().max() < 5e-3 * reference.abs().max()
    scales = [t for n, t in load_file(folder / "model.safetensors").items() if n.endswith(("self_attn.k_scale", "self_attn.v_scale"))]
    assert len(scales) == (0 if "groups" in name else 8) and all(list(t.shape) == ([2, 1, 1] if "heads" in name else [1]) for t in scales)


def test_a_run_is_evaluated_and_imported_with_its_cache(qbench, tmp_path):
    evaluation = f"evaluation:\n  - {{corpus: '{DEMO}/evaluation.txt', seq_len: 64, windows: 8, dtype: float32}}"
    run = demo_run(qbench, tmp_path / "q", "{type: int4, symmetric: false, granularity: head, dynamic: false}", extra=evaluation)
    report = json.loads((run / "report.json").read_text())
    measured = perplexities(report)[-1]["perplexity"]
    assert report["scheme"] == "W8A16KV4 per channel symmetric"
    folder = exported(qbench, run, "compressed-tensors", tmp_path / "out")
    assert evaluated(qbench, folder) == measured
    back = imported(qbench, folder, tmp_path / "w")
    assert perplexities(back)[-1]["perplexity"] == measured
    assert stored_caches(tmp_path / "w" / "runs" / back["id"]) == stored_caches(run)
    for tensor in (".k_scale", ".v_scale"):
        mutate(folder, tensor=tensor, change=lambda t: t / 4)
        assert "static ranges of the keys and values of block 2 differ" in verified(qbench, folder, run)
        assert evaluated(qbench, folder) > 1.01 * measured
        mutate(folder, tensor=tensor, change=lambda t: t * 4)
        assert verified(qbench, folder, run) == ""


@pytest.mark.parametrize("change, says", [
    (dict(config=lambda c: c.update(kv_cache_scheme=None)), "keys and values of 0 blocks are rounded, expected 4"),
    (dict(config=lambda c: c["kv_cache_scheme"].update(num_bits=4)), "keys and values of block 0 are int4 tensor symmetric static, expected int8 tensor symmetric static"),
    (dict(config=lambda c: c["kv_cache_scheme"].update(strategy="attn_head")), "1 ranges of keys or values, expected 2"),
    (dict(config=lambda c: c["kv_cache_scheme"].update(symmetric=False)), "\"model.layers.0.self_attn.k_zero_point\" is missing"),
    (dict(config=lambda c: c["kv_cache_scheme"].update(strategy="token", dynamic=True)), "which are of all tokens of it; expected group"),
    (dict(config=lambda c: c["kv_cache_scheme"].update(strategy="channel")), "not one per channel"),
    (dict(config=lambda c: c["kv_cache_scheme"].update(dynamic="local")), "\"dynamic\" is \"local\", expected true or false"),
    (dict(tensor="self_attn.k_scale", change=lambda t: t * 0), "k_scale\" holds 0, expected positive numbers"),
    (dict(tensor="self_attn.v_scale", change=lambda t: t.repeat(3)), "3 ranges of keys or values, expected 1"),
])
def test_another_cache_in_a_checkpoint_is_seen_or_refused(change, says, qbench, tmp_path):
    run = demo_run(qbench, tmp_path / "q", "{type: int8, granularity: tensor, dynamic: false}")
    folder = exported(qbench, run, "compressed-tensors", tmp_path / "out")
    mutate(folder, **change)
    assert says in verified(qbench, folder, run)


@pytest.mark.parametrize("cache, fmt, engine, says", [
    ("{type: int8, granularity: tensor, dynamic: false}", "compressed-tensors", "vllm", "vLLM 0.32 does not take keys and values int8 tensor symmetric static in compressed-tensors (read in its source, 2026-10); nearest that it takes: type e4m3"),
    ("{type: e4m3, granularity: head, dynamic: false}", "compressed-tensors", "vllm-cpu", "nearest that it takes: granularity tensor"),
    ("{type: e4m3, granularity: tensor, dynamic: false}", "compressed-tensors", "vllm-cpu", None),
    ("{type: e4m3, granularity: head, dynamic: false}", "compressed-tensors", "vllm", None),
    ("{type: int8, granularity: token}", "compressed-tensors", "", "nearest that it can: granularity group"),
    ("{type: int4, granularity: head, full_scale: false}", "compressed-tensors", "", "full_scale: true"),
    ("{type: int8, granularity: tensor, dynamic: false}", "gptq", "", "GPTQ does not say how keys and values are rounded; leave kv_cache out"),
    ("{type: int8, granularity: head, narrow_range: true}", "dequantized", "", "vLLM 0.32 is told when it is started (read in its source, 2026-10): name it as the engine"),
    ("{type: int8, granularity: head, narrow_range: true}", "dequantized", "vllm", " --kv-cache-dtype int8_per_token_head"),
    ("{type: int8, granularity: head, full_scale: false}", "gptq", "vllm", " --kv-cache-dtype int8_per_token_head"),
    ("{type: e4m3, granularity: head}", "compressed-tensors", "vllm", " --kv-cache-dtype fp8_per_token_head"),
    ("{type: int8, granularity: group, group_size: 32, narrow_range: true, scale_type: float16}", "gguf", "llama.cpp", " -ctk q8_0 -ctv q8_0 -fa on"),
    ("{type: int8, granularity: group, group_size: 32}", "gguf", "llama.cpp", "GGUF does not say how keys and values are rounded; it rounds them as int8 group 32 symmetric narrow"),
])
def test_engines_are_told_or_the_scheme_is_refused(cache, fmt, engine, says, qbench, tmp_path):
    weights = "{type: q8_0}" if fmt == "gguf" else "{type: int8, symmetric: true, granularity: channel, scale_type: float16}"
    target = f"target: {{format: {fmt}{', engine: ' + engine if engine else ''}}}"
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: {{path: '{DEMO}'}}\ncalibration: {{corpus: '{DEMO}/calibration.txt', sampling: sequential, samples: 4, seq_len: 64}}\n"
                    f"scheme:\n  weights: {weights}\n  kv_cache: {cache}\npipeline: [rtn]\n{target}\n")
    if engine == "vllm-cpu":
        path.write_text(path.read_text().replace("scheme:\n", "scheme:\n  activations: {type: int8}\n"))
    done = subprocess.run([qbench, "run", path, "--check"], capture_output=True, text=True)
    flags = says and says.startswith(" -")
    assert done.returncode == (0 if says is None or flags else 3), done.stderr
    if not flags and says:
        assert "scheme.kv_cache: " in done.stderr and says in done.stderr and done.stderr.count("\n") == 1, done.stderr
        return
    done = subprocess.run([qbench, "run", path, "-w", tmp_path / "w", "-q", "--json"], capture_output=True, text=True)
    run = tmp_path / "w" / "runs" / json.loads(done.stdout)[0]["id"]
    done = subprocess.run([qbench, "export", run, "-f", fmt, "-e", engine, "-o", tmp_path / ("out.gguf" if fmt == "gguf" else "out"), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["serve"].endswith(says or f"vllm serve {tmp_path}/out")
    assert verified(qbench, tmp_path / ("out.gguf" if fmt == "gguf" else "out"), run) == ""


@pytest.mark.parametrize("cache, text, says", [
    ("{type: int8, granularity: tensor}", True, "scheme.kv_cache.granularity: a range over all tokens would change with each new one"),
    ("{type: int8, granularity: token, dynamic: false}", True, "scheme.kv_cache.granularity: static ranges of keys and values are one for all, or one for each head"),
    ("{type: int8, granularity: channel}", True, "scheme.kv_cache.granularity: keys and values cannot be quantized per channel"),
    ("{type: int8, granularity: head, heads: 2}", True, "scheme.kv_cache.heads: heads are those that the layer has"),
    ("{type: int8, granularity: head, dynamic: false}", False, "scheme.kv_cache.dynamic: static ranges are taken from calibration text"),
    ("{type: q8_0}", True, "scheme.kv_cache.type: q8_0 is a type of weights"),
    ("{type: int8, range: mse}", True, "scheme.kv_cache.range: range mse searches too long"),
    ("{type: int4, granularity: group, group_size: 24}", True, "kv_cache: block 0: group_size 24 does not divide the 64 channels of a head"),
])
def test_what_a_cache_cannot_be_is_said_before_any_work(cache, text, says, qbench, tmp_path):
    path = tmp_path / "recipe.yaml"
    calibration = f"calibration: {{corpus: '{DEMO}/calibration.txt', sampling: sequential, samples: 8, seq_len: 64}}\n" if text else ""
    path.write_text(f"model: {{path: '{DEMO}'}}\n{calibration}scheme:\n  weights: {W8}\n  kv_cache: {cache}\npipeline: [rtn]\n")
    done = subprocess.run([qbench, "run", path, "--check"], capture_output=True, text=True)
    assert done.returncode in (3, 4) and says in done.stderr and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("name", ["deepseek-v3", "deepseek-v2"])
def test_latents_are_refused(name, qbench, tmp_path):
    zoos.save_model(name, tmp_path / "model")
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: {{path: '{tmp_path}/model'}}\nscheme:\n  weights: {W8}\n  kv_cache: {{type: int8}}\npipeline: [rtn]\n")
    done = subprocess.run([qbench, "run", path, "--check"], capture_output=True, text=True)
    assert done.returncode == 4 and "keys and values of a latent" in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_cache_alone(qbench, tmp_path):
    """Nothing else is quantized; what is measured is the rounded cache's."""
    evaluation = f"evaluation:\n  - {{corpus: '{DEMO}/evaluation.txt', seq_len: 64, windows: 8, dtype: float32}}"
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: {{path: '{DEMO}', dtype: float32}}\ncalibration: {{corpus: '{DEMO}/calibration.txt', sampling: sequential, samples: 8, seq_len: 64}}\n"
                    f"scheme:\n  kv_cache: {{type: int3, granularity: head, dynamic: false}}\npipeline: [rtn]\n{evaluation}\n")
    done = subprocess.run([qbench, "run", path, "-w", tmp_path / "w", "-q", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)[0]
    assert report["scheme"] == "W16A16KV3"
    kind = (3, True, "head", True, False)
    model, tokenizer = hf.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32), hf.AutoTokenizer.from_pretrained(DEMO)
    ids = lambda name, rows: torch.tensor(tokenizer((DEMO / name).read_text())["input_ids"][:rows * 64]).view(rows, 64)
    _, change = rounding(model, kind, ids("calibration.txt", 8))
    expected = losses(lambda x: logits(model, x, change), ids("evaluation.txt", 8)).mean().exp().item()
    assert perplexities(report)[-1]["perplexity"] == pytest.approx(expected, rel=2e-3)
    assert abs(perplexities(report)[0]["perplexity"] / expected - 1) > 0.02
