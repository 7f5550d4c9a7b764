"""Sensitivities beside formulas in float64 and transformers' autograd, on a model of random weights; measured ones beside transformers
with the one linear quantized; an allocation that is run."""
import json
import subprocess

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

TEXT = "The quick brown fox jumps over the lazy dog, and nobody knows why it does so every single day of the year. " * 40
SAMPLES, SEQ_LEN, SEED = 3, 48, 7
CANDIDATES = ["int2g32", "int4g32", "int8c"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny Llama with grouped queries and the demo model's tokenizer."""
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM
    from conftest import DEMO
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tokenizer.json").write_text((DEMO / "tokenizer.json").read_text())
    vocabulary = Tokenizer.from_file(str(DEMO / "tokenizer.json")).get_vocab_size()
    torch.manual_seed(0)
    made = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                                        max_position_embeddings=256, initializer_range=0.15, tie_word_embeddings=False))
    made.float().save_pretrained(folder)
    (folder / "text.txt").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def survey(tool, model, tmp_path_factory):
    """qbench sensitivity with these options; what is done stays in `kept`."""
    def run(*words, kept=None):
        kept = kept or tmp_path_factory.mktemp("kept")
        done = subprocess.run([tool("qbench"), "sensitivity", model, "-c", model / "text.txt", "--samples", str(SAMPLES), "--seq-len", str(SEQ_LEN), "--candidates", ",".join(CANDIDATES),
                               "--seed", str(SEED), "--folder", kept, "--json", *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    return run


def tokens(model):
    from tokenizers import Tokenizer
    ids = Tokenizer.from_file(str(model / "tokenizer.json")).encode(TEXT).ids
    return torch.tensor(ids[: SAMPLES * SEQ_LEN]).view(SAMPLES, SEQ_LEN)


def rounded(weight, candidate):
    """Asymmetric round to nearest with float16 scales, in float64 where the program has float32."""
    bits, group = {"int2g32": (2, 32), "int4g32": (4, 32), "int8c": (8, weight.shape[1])}[candidate]
    w = weight.double().reshape(weight.shape[0], -1, group)
    low, high = w.amin(-1, keepdim=True).clamp(max=0), w.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / (2**bits - 1)).half().double()
    zero = torch.round(-(2 ** (bits - 1)) - low / scale).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    codes = torch.round(w / scale + zero).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return ((codes - zero) * scale).reshape(weight.shape)


def reference(folder, loss):
    """By linear: inputs [tokens, in] and gradients by outputs [tokens, out] of the summed loss, from transformers' autograd in float64."""
    from transformers import LlamaForCausalLM
    net = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    inputs, outputs = {}, {}
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.Linear) and "layers" in name:
            def keep(_, given, made, name=name):
                made.retain_grad()
                inputs[name], outputs[name] = given[0].detach().reshape(-1, given[0].shape[-1]), made
            module.register_forward_hook(keep)
    ids = tokens(folder)
    logits = net(ids).logits
    if loss == "cross_entropy":
        torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="sum").backward()
        count = SAMPLES * (SEQ_LEN - 1)
    else:
        # Samples go through the program in one batch, its signs are drawn for 128 tokens at a time.
        flat, random = logits.reshape(-1, logits.shape[-1]), torch.Generator().manual_seed(SEED)
        signs = torch.cat([torch.randint(0, 2, part.shape, generator=random, dtype=torch.float32) for part in flat.split(128)]).double() * 2 - 1
        p = torch.softmax(flat.detach(), -1)
        flat.backward(p.sqrt() * signs - p * (p.sqrt() * signs).sum(-1, keepdim=True))
        count = SAMPLES * SEQ_LEN
    return {name: (inputs[name], outputs[name].grad.reshape(-1, outputs[name].shape[-1])) for name in inputs}, count


@pytest.mark.parametrize("loss", ["cross_entropy", "kl"])
def test_proxies_are_their_formulas(survey, model, loss):
    found = survey("--loss", loss)
    expected, count = reference(model, loss)
    weights = load_file(model / "model.safetensors")
    assert len(found["linears"]) == 21 and found["tokens"] == SAMPLES * SEQ_LEN
    for linear in found["linears"]:
        x, g = expected[linear["module"]]
        w = weights[linear["module"] + ".weight"]
        assert [c["candidate"] for c in linear["candidates"]] == CANDIDATES
        for c in linear["candidates"]:
            d = rounded(w, c["candidate"]) - w.double()
            y = x @ d.T  # [tokens, out]
            assert c["output_error"] == pytest.approx((y**2).sum().item() / len(x), rel=2e-3)
            assert c["relative_error"] == pytest.approx((y**2).sum().item() / ((x @ w.double().T) ** 2).sum().item(), rel=2e-3)
            fisher = (g**2).sum(0)
            assert c["fisher"] == pytest.approx(0.5 * (fisher * (y**2).mean(0)).sum().item() / count, rel=5e-3)
            of_tokens = (g**2).sum(1, keepdim=True)
            assert c["guided"] == pytest.approx(0.5 * (fisher / fisher.sum() * (of_tokens * y**2).sum(0)).sum().item() / count, rel=5e-3)
            out, inputs = w.shape
            bits = int(c["candidate"][3]) * out * inputs + out * (inputs // 32 if "g32" in c["candidate"] else 1) * (16 + int(c["candidate"][3]))
            assert c["bits"] == bits


def test_drawn_gradients_have_the_curvature_of_the_divergence(model):
    """The reference's own: over many draws, squares are the diagonal of the KL's Hessian by the logits, p(1 − p)."""
    torch.manual_seed(1)
    p = torch.softmax(torch.randn(6, dtype=torch.float64), 0)
    signs = torch.randint(0, 2, (200000, 6)).double() * 2 - 1
    drawn = p.sqrt() * signs - p * (p.sqrt() * signs).sum(-1, keepdim=True)
    torch.testing.assert_close(drawn.T @ drawn / len(drawn), torch.diag(p) - torch.outer(p, p), atol=3e-3, rtol=0)


def test_measured_is_the_divergence_with_one_linear_quantized(survey, model, tmp_path):
    from transformers import LlamaForCausalLM
    found = survey("--loss", "none", "--measured", 3, "--measure", "*.1.self_attn.v_proj", "--measured-windows", 2, kept=tmp_path)
    by_module = {linear["module"]: linear for linear in found["linears"]}
    measured = [m for m, linear in by_module.items() if linear["candidates"][0]["measured"] is not None]
    assert "model.layers.1.self_attn.v_proj" in measured and 3 <= len(measured) <= 4
    assert found["linears"][0]["candidates"][0]["fisher"] is None  # no gradients were asked for
    net = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    ids = tokens(model)[:2]
    with torch.no_grad():
        p = torch.log_softmax(net(ids).logits, -1)
        for module in measured:
            weight = net.get_submodule(module).weight
            kept = weight.clone()
            for c in by_module[module]["candidates"]:
                weight.copy_(rounded(kept, c["candidate"]).float())
                q = torch.log_softmax(net(ids).logits, -1)
                kl = (p.exp() * (p - q)).sum(-1).double().mean(-1)
                assert c["measured"] == pytest.approx(kl.mean().item(), rel=2e-2, abs=2e-7)
                assert c["measured_error"] == pytest.approx(kl.std().item() / np.sqrt(2), rel=5e-2, abs=2e-7)
            weight.copy_(kept)
    pairs = {(c["first"], c["second"], c["candidate"]): c["value"] for c in found["correlations"]}
    assert pairs["relative_error", "measured", ""] > 0.3  # over candidates of 2 to 8 bits
    # What is done is not done again, and the hidden states are gone.
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    assert before and not list(tmp_path.rglob("*.safetensors"))
    again = survey("--loss", "none", "--measured", 3, "--measure", "*.1.self_attn.v_proj", "--measured-windows", 2, kept=tmp_path)
    assert again["linears"] == found["linears"]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")} == before


def test_gptq_leaves_less_output_error(survey):
    plain, gptq = (survey("--loss", "none", "--rounding", rounding) for rounding in ("rtn", "gptq"))
    for a, b in zip(plain["linears"], gptq["linears"]):
        assert b["candidates"][0]["output_error"] < a["candidates"][0]["output_error"]


def test_awq_is_measured_in_the_stored_weights_coordinates(survey):
    """AWQ's scaling cannot make 8-bit rounding much worse: errors in scaled coordinates taken for plain ones would be."""
    plain, awq = (survey("--loss", "kl", "--rounding", rounding) for rounding in ("rtn", "awq,rtn"))
    for a, b in zip(plain["linears"], awq["linears"]):
        for measure in ("output_error", "fisher", "guided"):
            assert b["candidates"][2][measure] < 4 * a["candidates"][2][measure]
    worst = [sum(linear["candidates"][0]["output_error"] for linear in found["linears"]) for found in (plain, awq)]
    assert worst[1] < worst[0]


def test_an_interrupted_survey_goes_on(survey, tool, model, tmp_path):
    whole = survey("--loss", "kl")
    first = survey("--loss", "kl", kept=tmp_path)
    done, = tmp_path.iterdir()
    (done / "block-0000.json").unlink()  # as if it had been stopped before its last block, whose states are gone too
    assert survey("--loss", "kl", kept=tmp_path)["linears"] == first["linears"] == whole["linears"]


def test_an_allocation_runs(survey, tool, model, tmp_path):
    file = tmp_path / "s.json"
    survey("--loss", "kl", "-o", file)
    made = tmp_path / "made.yaml"
    done = subprocess.run([tool("qbench"), "allocate", "--sensitivity", file, "--bits", "4.4", "-o", made, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["allocated"]["bits_per_weight"] <= 4.4
    done = subprocess.run([tool("qbench"), "run", made, "-q", "--json", "-w", tmp_path / "workspace"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report, = json.loads(done.stdout)
    assert report["bits_per_weight"] == pytest.approx(answer["allocated"]["bits_per_weight"], abs=1e-6)
    refused = subprocess.run([tool("qbench"), "allocate", "--sensitivity", file, "--bits", "1"], capture_output=True, text=True)
    assert refused.returncode == 4 and "1 bits a weight are not enough" in refused.stderr
    slow = subprocess.run([tool("qbench"), "allocate", "--sensitivity", file, "--tokens-per-second", "1000", "--bandwidth", "1GB/s", "--json"], capture_output=True, text=True)
    assert slow.returncode == 0 and json.loads(slow.stdout)["allocated"]["tokens_per_second"] >= 1000


def test_what_cannot_be_found_is_refused(tool, model, tmp_path):
    def problem(*words):
        done = subprocess.run([tool("qbench"), "sensitivity", model, "-c", model / "text.txt", "--samples", "2", "--seq-len", "16", "--folder", tmp_path, *words], capture_output=True, text=True)
        assert done.returncode == 4, done.stdout + done.stderr
        return done.stderr
    assert "int4" in problem("--candidates", "int4")
    assert "fits no linear" in problem("--candidates", "int4g128")
    assert "autoround cannot round for it" in problem("--rounding", "autoround")
    assert "no linear" in problem("--candidates", "int8c", "--measure", "*.nothing")


def test_a_recipe_names_model_and_text(tool, model, survey, tmp_path):
    """The same figures as of the model and the text by themselves; progress and the end as events."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: r\nmodel: {model}\ncalibration: {{corpus: {model}/text.txt, samples: {SAMPLES}, seq_len: {SEQ_LEN}}}\nscheme: {{weights: {{type: int4, group_size: 32}}}}\npipeline: [rtn]\n")
    done = subprocess.run([tool("qbench"), "sensitivity", recipe, "--candidates", ",".join(CANDIDATES), "--seed", str(SEED), "--folder", tmp_path / "kept", "--events", tmp_path, "--json"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(done.stdout), survey()
    assert found["linears"] == expected["linears"] and found["corpus"] == str(model / "text.txt")
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "end" and events[-1]["status"] == "finished" and any(e["event"] == "progress" for e in events)
    both = subprocess.run([tool("qbench"), "sensitivity", recipe, "-c", model / "text.txt"], capture_output=True, text=True)
    assert both.returncode == 4 and "--calibration" in both.stderr
