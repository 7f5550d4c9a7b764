"""Divergence from the float model beside the definitions in float64: of transformers' logits, and of llama.cpp's on the same GGUF files.

What llama.cpp's --kl-divergence prints is computed here from its logits by its formulas (tools/perplexity/perplexity.cpp): windows of n_ctx
tokens, of which those with half a window before them are scored, BOS over the first where the tokenizer adds one.
"""
import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import llama_cpp
from conftest import DEMO

SEQ_LEN, WINDOWS = 128, 6
PERCENTILES = {"kl_median": 50, "kl_p90": 90, "kl_p95": 95, "kl_p99": 99, "kl_p99_9": 99.9, "kl_max": 100, "kl_min": 0}
DELTA = {"delta_p_max": 100, "delta_p_p99_9": 99.9, "delta_p_p99": 99, "delta_p_p95": 95, "delta_p_p75": 75, "delta_p_median": 50, "delta_p_p25": 25, "delta_p_p5": 5,
         "delta_p_p1": 1, "delta_p_p0_1": 0.1, "delta_p_min": 0}


def call(tool, *arguments, code=0):
    done = subprocess.run([tool("qbench"), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


@pytest.fixture(scope="module")
def divergence(tool):
    def measure(model, against, *more, text=DEMO / "evaluation.txt", seq_len=SEQ_LEN, windows=WINDOWS, code=0):
        return call(tool, "eval", model, "--text", text, "--against", against, "--seq-len", seq_len, "--windows", windows, "--json", *more, code=code)
    return measure


@pytest.fixture(scope="module")
def ids():
    tokens = Tokenizer.from_file(str(DEMO / "tokenizer.json")).encode((DEMO / "evaluation.txt").read_text(), add_special_tokens=False).ids
    return np.array(tokens[:WINDOWS * SEQ_LEN], dtype=np.int64).reshape(WINDOWS, SEQ_LEN)


def exported(tool, folder, scheme, form, pipeline="rtn"):
    """The demo model's run in this scheme as a checkpoint of that format."""
    folder.mkdir()
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"name: coded\nmodel: {{path: '{DEMO}', dtype: float32}}\nscheme: {scheme}\npipeline: [{pipeline}]\n")
    run = call(tool, "run", recipe, "-w", folder / "w", "-q", "--json")[0]["id"]
    out = folder / ("coded.gguf" if form == "gguf" else "coded")
    call(tool, "export", folder / "w" / "runs" / run, "-f", form, "-o", out, "--json")
    return out


@pytest.fixture(scope="module")
def int3(tool, tmp_path_factory):
    """A folder that any program reads, whose weights are those of 3 bits."""
    return exported(tool, tmp_path_factory.mktemp("int3") / "x", "{weights: {type: int3, symmetric: false, granularity: group, group_size: 64}}", "dequantized")


def error_of_mean(values):
    return values.std(ddof=1) / np.sqrt(len(values))


def reference_figures(base, logits, ids, first):
    """Every figure, in float64, from logits [windows, tokens, vocabulary] at positions `first` … the last but one; errors as NAME±."""
    logarithms = lambda x: torch.log_softmax(torch.as_tensor(np.asarray(x, dtype=np.float64))[:, first:-1], -1).numpy()
    p, q = logarithms(base), logarithms(logits)
    targets = ids[:, first + 1:, None]
    kl = (np.exp(p) * (p - q)).sum(-1)
    base_nll, nll = (-np.take_along_axis(x, targets, -1)[..., 0] for x in (p, q))
    same = (p.argmax(-1) == q.argmax(-1)).ravel()
    windows = {"kl": kl.mean(1), "ln_ppl_ratio": (nll - base_nll).mean(1)}
    kl, base_nll, nll = kl.ravel(), base_nll.ravel(), nll.ravel()
    delta = 100 * (np.exp(-nll) - np.exp(-base_nll))
    n = len(kl)
    out = {"kl": kl.mean(), "kl±": error_of_mean(kl), "delta_p": delta.mean(), "delta_p±": error_of_mean(delta)}
    out |= {name: np.percentile(kl, share) for name, share in PERCENTILES.items()} | {name: np.percentile(delta, share) for name, share in DELTA.items()}
    rms = np.sqrt((delta ** 2).mean())
    out |= {"delta_p_rms": rms, "delta_p_rms±": 0.5 / rms * error_of_mean(delta ** 2)}
    out |= {"same_top": 100 * same.mean(), "same_top±": 100 * np.sqrt(same.mean() * (1 - same.mean()) / (n - 1))}
    # The errors of both logarithms and the covariance of the two means.
    e_q, e_base, covariance = error_of_mean(nll), error_of_mean(base_nll), np.cov(nll, base_nll)[0, 1] / n
    ppl, base_ppl, ratio_error = np.exp(nll.mean()), np.exp(base_nll.mean()), np.sqrt(e_q ** 2 + e_base ** 2 - 2 * covariance)
    ratio = ppl / base_ppl
    out |= {"perplexity": ppl, "perplexity±": ppl * e_q, "reference_perplexity": base_ppl, "reference_perplexity±": base_ppl * e_base, "ppl_correlation": 100 * covariance / (e_q * e_base),
            "ln_ppl_ratio": np.log(ratio), "ln_ppl_ratio±": ratio_error, "ppl_ratio": ratio, "ppl_ratio±": ratio * ratio_error, "ppl_difference": ppl - base_ppl,
            "ppl_difference±": np.sqrt((ppl * e_q) ** 2 + (base_ppl * e_base) ** 2 - 2 * ppl * base_ppl * covariance)}
    return out, windows, kl, rms


def flat(result):
    metrics = result["metrics"]
    out = {name: m["value"] for name, m in metrics.items()} | {name + "±": m["standard_error"] for name, m in metrics.items() if m["standard_error"]}
    assert set(metrics) == set(out) - {name for name in out if name.endswith("±")}
    return out


def assert_figures(found, expected, relative, scale):
    """Each within `relative` of itself; changes of probability, which lie on both sides of 0, within that of `scale`, and the least KL, a thousandth
    of the mean where arithmetic is seen, within that of a hundredth of the mean."""
    assert set(found) == set(expected)

    def size(name, value):
        return max(abs(value), scale) if name.startswith("delta_p") else max(value, expected["kl"] / 100) if name == "kl_min" else abs(value)
    wrong = {name: (found[name], value) for name, value in expected.items() if abs(found[name] - value) > relative * size(name, value) + 1e-9}
    assert not wrong


def hugging_face_logits(model, ids):
    from transformers import AutoModelForCausalLM
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64).eval()
    with torch.no_grad():
        return loaded(torch.as_tensor(ids)).logits.numpy()


# ---- beside transformers ----
@pytest.mark.parametrize("scored, first", [("all", 0), ("second_half", SEQ_LEN // 2)])
def test_all_figures_are_those_of_transformers_logits(scored, first, divergence, int3, ids, tmp_path):
    expected, windows, kl, scale = reference_figures(hugging_face_logits(DEMO, ids), hugging_face_logits(int3, ids), ids, first)
    plain, kept, again = divergence(int3, DEMO, "--scored", scored), divergence(int3, DEMO, "--scored", scored, "--cache", tmp_path), divergence(int3, DEMO, "--scored", scored, "--cache", tmp_path)
    assert_figures(flat(plain), expected, 1e-4, scale)
    assert plain["metrics"] == kept["metrics"] == again["metrics"]  # the kept states are the float model's own
    for name, values in windows.items():
        assert plain["metrics"][name]["windows"] == pytest.approx(list(values), rel=1e-4, abs=1e-7)
    histogram = plain["metrics"]["kl"]["histogram"]
    edges = np.linspace(histogram["low"], histogram["high"], len(histogram["counts"]) + 1)
    counted = np.histogram(np.log10(kl), edges)[0]
    assert np.abs(np.cumsum(counted) - np.cumsum(histogram["counts"])).max() <= 2  # tokens on an edge
    assert histogram["below"] + histogram["above"] + sum(histogram["counts"]) == len(kl)
    assert (plain["settings"], plain["windows"], plain["seq_len"]) == ({"scored": scored}, WINDOWS, SEQ_LEN)


def test_a_model_beside_itself(divergence, int3):
    metrics = divergence(int3, int3, "--noise-floor")["metrics"]
    assert (metrics["kl"]["value"], metrics["kl_max"]["value"], metrics["same_top"]["value"], metrics["ppl_ratio"]["value"]) == (0, 0, 100, 1)


def test_the_noise_floor_is_what_rounding_to_bfloat16_does(divergence, ids, tmp_path):
    """Of a model whose weights are no bfloat16 numbers: weights rounded by torch, the rest in float64."""
    shutil.copytree(DEMO, tmp_path / "float")
    generator = torch.Generator().manual_seed(1)
    tensors = {name: x.float() * (1 + 0.01 * torch.rand(x.shape, generator=generator)) for name, x in load_file(DEMO / "model.safetensors").items()}
    save_file(tensors, tmp_path / "float/model.safetensors", metadata={"format": "pt"})
    shutil.copytree(tmp_path / "float", tmp_path / "rounded")
    save_file({name: x.bfloat16().float() for name, x in tensors.items()}, tmp_path / "rounded/model.safetensors", metadata={"format": "pt"})
    base = hugging_face_logits(tmp_path / "float", ids)
    expected, _, _, scale = reference_figures(base, hugging_face_logits(tmp_path / "rounded", ids), ids, 0)
    floor = divergence(tmp_path / "float", tmp_path / "float", "--noise-floor", "--dtype", "bfloat16")["noise_floor"]
    assert floor["weights"]["metrics"]["kl"]["value"] == pytest.approx(expected["kl"], rel=0.01)
    assert floor["weights"]["metrics"]["delta_p_rms"]["value"] == pytest.approx(expected["delta_p_rms"], rel=0.01)
    # Rounding hidden states between blocks comes on top of rounding weights.
    assert floor["weights"]["metrics"]["kl"]["value"] < floor["dtype"]["metrics"]["kl"]["value"] < 100 * expected["kl"]
    assert floor["dtype"]["dtype"] == "bfloat16" and floor["weights"]["float_model"]
    itself = divergence(tmp_path / "rounded", tmp_path / "rounded", "--noise-floor")["noise_floor"]
    assert itself["weights"]["metrics"]["kl_max"]["value"] == 0 and itself["dtype"] is None


# ---- beside llama.cpp ----
@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    if llama_cpp.library_path() is None:
        pytest.skip("xllamacpp is not installed")
    running = llama_cpp.LlamaCpp(tmp_path_factory.mktemp("llama"))
    yield running
    running.close()


def gguf_of(tool, folder, out):
    """A Hugging Face folder's numbers as an F32 GGUF file."""
    wide = out.with_suffix("")
    shutil.copytree(folder, wide)
    save_file({name: x.float() for name, x in load_file(folder / "model.safetensors").items()}, wide / "model.safetensors", metadata={"format": "pt"})
    done = subprocess.run([tool("write_gguf"), "-"], input=f"{wide}\t{out}\tllama.cpp\n", capture_output=True, text=True)
    assert json.loads(done.stdout).get("error", "") == ""
    return out


@pytest.fixture(scope="module")
def float_gguf(tool, tmp_path_factory):
    return gguf_of(tool, DEMO, tmp_path_factory.mktemp("gguf") / "float.gguf")


def llama_cpp_figures(llama, base, model, ids):
    asked = [llama.logits(path, ids) for path in (base, model)]
    assert all(logits is not None for logits, _ in asked), asked
    expected, _, _, scale = reference_figures(*(logits for logits, _ in asked), ids, SEQ_LEN // 2)
    return expected, scale


@pytest.mark.parametrize("kind", ["q4_0", "q2_K"])
def test_figures_are_those_of_llama_cpp_on_the_same_file(kind, divergence, tool, llama, float_gguf, ids, tmp_path):
    """The numbers that a quantized file stands for, in F32: what both compute is the same but for llama.cpp's cache in F16."""
    coded = gguf_of(tool, exported(tool, tmp_path / "x", f"{{weights: {{type: {kind}}}}}", "dequantized"), tmp_path / "values.gguf")
    expected, scale = llama_cpp_figures(llama, float_gguf, coded, ids)
    found = flat(divergence(coded, float_gguf, "--scored", "second_half", "--bos", "none"))
    assert_figures(found, expected, 0.01, scale)


@pytest.mark.parametrize("kind", ["q4_0", "q4_K"])
def test_figures_on_a_file_in_codes(kind, divergence, tool, llama, float_gguf, ids, tmp_path):
    """Beside codes llama.cpp rounds activations to 8 bits as well, which is in its figures: some 0.0003 nats, whatever the codes."""
    coded = exported(tool, tmp_path / "x", f"{{weights: {{type: {kind}}}}}", "gguf")
    expected, _ = llama_cpp_figures(llama, float_gguf, coded, ids)
    found = flat(divergence(coded, float_gguf, "--scored", "second_half", "--bos", "none"))
    assert 0 < expected["kl"] - found["kl"] < 5e-4
    for name, relative in {"kl": 0.08, "kl_median": 0.08, "delta_p_rms": 0.08, "ppl_ratio": 0.005, "perplexity": 0.005, "reference_perplexity": 1e-4, "same_top": 0.01, "ppl_correlation": 0.001}.items():
        assert found[name] == pytest.approx(expected[name], rel=relative), name


# ---- what is kept of the float model ----
def states_of(folder):
    return next(folder.glob("*.states"))


def test_kept_states_are_small(divergence, int3, tmp_path):
    divergence(int3, DEMO, "--cache", tmp_path)
    width = json.loads((DEMO / "config.json").read_text())["hidden_size"]
    assert states_of(tmp_path).stat().st_size == 128 + WINDOWS * ((SEQ_LEN - 1) * width * 4 + 16)


def test_a_killed_pass_goes_on_with_the_same_bytes(tool, divergence, int3, tmp_path):
    more = dict(seq_len=64, windows=0)
    whole = divergence(int3, DEMO, "--cache", tmp_path / "whole", **more)
    expected = states_of(tmp_path / "whole").read_bytes()
    record, folder = 63 * 256 * 4 + 16, tmp_path / "killed"
    running = subprocess.Popen([tool("qbench"), "eval", int3, "--text", DEMO / "evaluation.txt", "--against", DEMO, "--seq-len", "64", "--windows", "0", "--cache", folder],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while running.poll() is None and not any(file.stat().st_size > 128 + record for file in folder.glob("*.states")):
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    path = states_of(folder)
    left = path.read_bytes()
    assert 128 + record < len(left) < len(expected) and expected.startswith(left)
    path.write_bytes(left[:128 + record * 2 - 5])  # the kill amid a record
    inode = path.stat().st_ino
    again = divergence(int3, DEMO, "--cache", folder, **more)
    assert path.read_bytes() == expected and path.stat().st_ino == inode  # went on in that file
    assert again["metrics"] == whole["metrics"]


def test_fewer_windows_serve_a_request_for_more(divergence, int3, tmp_path):
    divergence(int3, DEMO, "--cache", tmp_path, windows=2)
    first = states_of(tmp_path).read_bytes()
    more = divergence(int3, DEMO, "--cache", tmp_path, windows=5)
    assert states_of(tmp_path).read_bytes().startswith(first)
    assert more["metrics"] == divergence(int3, DEMO, windows=5)["metrics"]


def test_damage_is_told_and_made_again(tool, divergence, int3, tmp_path):
    expected = divergence(int3, DEMO, "--cache", tmp_path)["metrics"]
    path = states_of(tmp_path)
    whole = path.read_bytes()
    record = (len(whole) - 128) // WINDOWS
    for damaged, words in ((whole[:-1000], "window 5 ends after"), (whole[:128 + record + 9] + b"?" + whole[128 + record + 10:], "window 1 does not have the checksum"),
                           (b"", "not the header"), (b"?" + whole[1:], "not the header"), (whole + b"more", "window 6 ends after 4 of")):
        path.write_bytes(damaged)
        done = subprocess.run([tool("qbench"), "eval", int3, "--text", DEMO / "evaluation.txt", "--against", DEMO, "--seq-len", str(SEQ_LEN), "--windows", str(WINDOWS), "--json", "--cache", tmp_path],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["metrics"] == expected
        if damaged.startswith(whole):
            continue  # all that was asked for is there
        assert words in done.stderr and str(path) in done.stderr
        assert path.read_bytes() == whole


def test_another_model_text_or_length_has_a_file_of_its_own(divergence, int3, tmp_path):
    divergence(int3, DEMO, "--cache", tmp_path)
    divergence(int3, int3, "--cache", tmp_path)
    divergence(int3, DEMO, "--cache", tmp_path, seq_len=64)
    divergence(int3, DEMO, "--cache", tmp_path, text=DEMO / "calibration.txt")
    assert len(list(tmp_path.glob("*.states"))) == 4
    divergence(int3, DEMO, "--cache", tmp_path, "--scored", "second_half")  # the same states
    assert len(list(tmp_path.glob("*.states"))) == 4


def test_a_folder_that_cannot_be_written_is_said(divergence, int3, tmp_path):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in divergence(int3, DEMO, "--cache", tmp_path / "file" / "cache", code=5)


# ---- what is refused ----
def with_tensor(folder, name, change):
    shutil.copytree(DEMO, folder)
    tensors = load_file(DEMO / "model.safetensors")
    tensors[name] = change(tensors[name])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_nan_in_either_model_is_told_by_its_tensor(divergence, int3, tmp_path):
    def with_nan(x):
        x[1, 2] = float("nan")
        return x
    name = "model.layers.2.mlp.down_proj.weight"
    broken = with_tensor(tmp_path / "broken", name, with_nan)
    for model, against, more in ((broken, DEMO, []), (int3, broken, []), (int3, broken, ["--cache", tmp_path / "cache"])):
        message = divergence(model, against, *more, code=4)
        assert str(broken) in message and name in message
    assert states_of(tmp_path / "cache").stat().st_size == 128  # nothing of it is kept


def test_vocabularies_of_different_sizes_are_refused(divergence, tmp_path):
    other = with_tensor(tmp_path / "other", "model.embed_tokens.weight", lambda x: torch.cat([x, x[:8]]))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 8}))
    message = divergence(other, DEMO, code=4)
    assert "1032" in message and "1024" in message and str(DEMO) in message


def test_settings_of_the_divergence_need_a_float_model(tool):
    for setting in (["--scored", "all"], ["--cache", "x"], ["--noise-floor"]):
        done = subprocess.run([tool("qbench"), "eval", DEMO, "--text", DEMO / "evaluation.txt", *setting], capture_output=True, text=True)
        assert done.returncode == 2 and "--against" in done.stderr


def test_bos_stands_over_the_first_token_of_each_window_in_llama_cpps_convention(divergence, int3, ids, tmp_path):
    """For a tokenizer that begins a text with BOS, without being told; the demo's does not."""
    folder = tmp_path / "beginning"
    shutil.copytree(int3, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    token = "<|endoftext|>"
    tokenizer["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                                   "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {token: {"id": token, "ids": [0], "tokens": [token]}}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    shifted = np.concatenate([[0], ids.ravel()])[:ids.size].reshape(ids.shape).copy()
    shifted[:, 0] = 0
    expected, _, _, scale = reference_figures(hugging_face_logits(DEMO, shifted), hugging_face_logits(int3, shifted), shifted, SEQ_LEN // 2)
    result = divergence(folder, DEMO, "--scored", "second_half")
    assert_figures(flat(result), expected, 1e-4, scale)
    assert result["bos"] == "every_window"
