"""End-to-end tuning against torch's autograd on transformers' models."""
import json
import os
import signal
import subprocess
import time

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from conftest import DEMO, recipe
from model_zoo import save_model

RATE = 0.01


@pytest.mark.parametrize("name", ["llama", "gemma2", "granite", "opt-350m", "bloom"])
def test_divergence_and_its_gradient(name, tool, tmp_path):
    """Of every kind of head: with a soft cap, a scale, a projection and a LayerNorm before it."""
    model = save_model(name, tmp_path / "model")
    g = torch.Generator().manual_seed(1)
    teacher = torch.randn(2, 9, model.config.hidden_size, generator=g)
    student = teacher + 0.3 * torch.randn(teacher.shape, generator=g)
    save_file({"student": student, "teacher": teacher}, tmp_path / "in.safetensors")
    done = subprocess.run([tool("model_divergence"), tmp_path / "model", tmp_path / "in.safetensors", tmp_path / "out.safetensors"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    got = load_file(tmp_path / "out.safetensors")

    def logits(x):
        inner = model.get_decoder() if name != "opt-350m" else model.model.decoder
        for norm in ("norm", "ln_f"):
            if hasattr(inner, norm):
                x = getattr(inner, norm)(x)
        if name == "opt-350m":
            x = inner.project_out(x)
        x = model.get_output_embeddings()(x)
        if name == "granite":
            x = x / model.config.logits_scaling
        if name == "gemma2":
            x = torch.tanh(x / model.config.final_logit_softcapping) * model.config.final_logit_softcapping
        return F.log_softmax(x, -1)

    leaf = student.clone().requires_grad_(True)
    with torch.no_grad():
        target = logits(teacher)
    loss = F.kl_div(logits(leaf), target, log_target=True, reduction="sum")
    loss.backward()
    assert abs(got["divergence"].item() - loss.item()) < 1e-4 * loss.item()
    assert torch.allclose(got["gradient"], leaf.grad, rtol=1e-3, atol=1e-5 * leaf.grad.abs().max().item())


def run(tool, folder, pipeline, **settings):
    folder.mkdir(exist_ok=True)
    done = subprocess.run([tool("qbench"), "run", recipe(folder, pipeline, **settings), "-q", "--json", "-w", folder / "ws"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, = (folder / "ws" / "runs").iterdir()
    return one


def codes_of(stored, name, group=64):
    """Codes [out, in], from a block file's little-endian stream."""
    out, columns = stored[name + ".scale"].shape[0], stored[name + ".scale"].shape[1] * group
    bits = stored[name + ".codes"].numel() * 8 // (out * columns)
    stream = stored[name + ".codes"].reshape(-1).to(torch.int64)
    flat = ((stream[:, None] >> torch.arange(8)) & 1).reshape(-1)[:out * columns * bits].reshape(-1, bits)
    return (flat << torch.arange(bits)).sum(1).reshape(out, columns) - 2 ** (bits - 1)


def put(model, folder, scales=None):
    """The run's weights into the model; returns (module, codes, scale) of every quantized linear."""
    found = []
    for path in sorted((folder / "blocks").glob("*.safetensors")):
        stored = load_file(path)
        for key in stored:
            if not key.endswith(".codes"):
                continue
            name = key.removesuffix(".codes")
            scale = (scales or stored)[name + ".scale"]
            codes = codes_of(stored, name) - stored[name + ".zero"].repeat_interleave(64, 1)
            model.get_submodule(name.removesuffix(".weight")).weight.data = codes * scale.repeat_interleave(64, 1)
            found.append((name, codes, scale))
    return found


def calibration(samples):
    import tokenizers
    encoded = tokenizers.Tokenizer.from_file(str(DEMO / "tokenizer.json")).encode((DEMO / "calibration.txt").read_text(), add_special_tokens=False).ids
    return torch.tensor(encoded[:samples * 128]).view(samples, 128)


def load():
    import transformers
    return transformers.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)


def divergence(model, ids):
    with torch.no_grad():
        target = F.log_softmax(load()(ids).logits, -1)
    return F.kl_div(F.log_softmax(model(ids).logits, -1), target, log_target=True, reduction="sum") / ids.numel()


def test_the_first_step_goes_against_the_gradient(tool, tmp_path):
    """Adam's first step is its rate against the gradient's sign, whatever its size: the scales and norms tell all signs."""
    folder = run(tool, tmp_path / "a", f"rtn, {{method: e2e_tuning, epochs: 1, lr: {RATE}, batch_tokens: 1024}}")
    model, tuned, ids = load(), load_file(folder / "tuned.safetensors"), calibration(8)
    linears = put(model, folder)
    divergence(model, ids).backward()
    checked = 0
    for name, codes, scale in linears:
        slope = (model.get_submodule(name.removesuffix(".weight")).weight.grad * codes).reshape(len(codes), -1, 64).sum(2) * scale
        step = (tuned[name + ".scale"] / scale).log()
        clear = slope.abs() > 1e-3 * slope.abs().max()
        assert torch.all(step[clear].sign() == -slope[clear].sign()), name
        assert torch.allclose(step[clear].abs(), torch.tensor(RATE), rtol=0.08), name  # scales are stored as float16
        checked += int(clear.sum())
    for key, before in model.named_parameters():
        if key.endswith("layernorm.weight"):
            slope, step = before.grad * before.detach(), (tuned[key] / before.detach()).log()
            clear = slope.abs() > 1e-3 * slope.abs().max()
            assert torch.allclose(step[clear], -RATE * slope[clear].sign(), rtol=1e-3), key
            checked += int(clear.sum())
    assert checked > 1000


@pytest.mark.parametrize("kind, group, each, half", [("q4_0", 32, 1, None), ("q4_1", 32, 1, 8), ("q3_K", 16, 16, None), ("q2_K", 16, 16, 2)])
def test_grids_of_ggml_go_against_the_gradient_and_stay_storable(kind, group, each, half, tool, tmp_path):
    """Scales and minima of units, or the two numbers of super-blocks of `each` units, whose integers stay."""
    folder = run(tool, tmp_path / "a", f"rtn, {{method: e2e_tuning, epochs: 1, lr: {RATE}, batch_tokens: 1024}}", weights=f"type: {kind}")
    model, tuned, ids, found, checked = load(), load_file(folder / "tuned.safetensors"), calibration(8), {}, 0
    for path in sorted((folder / "blocks").glob("*.safetensors")):
        stored = load_file(path)
        for name in [key.removesuffix(".codes") for key in stored if key.endswith(".codes")]:
            steps = (codes_of(stored, name, group) + (half or 0)).float()
            weight = steps * stored[name + ".scale"].repeat_interleave(group, 1)
            if half:
                weight = weight + stored[name + ".minimum"].repeat_interleave(group, 1)
            model.get_submodule(name.removesuffix(".weight")).weight.data = weight
            found[name] = steps, stored
    divergence(model, ids).backward()
    for name, (steps, stored) in found.items():
        slope = model.get_submodule(name.removesuffix(".weight")).weight.grad
        learned = [(".super" if each > 1 else ".scale", ".scale", slope * steps)] + ([(".super_minimum" if each > 1 else ".minimum", ".minimum", slope)] if half else [])
        for number, unit, products in learned:
            before, after = stored[name + number], tuned[name + number]
            per_unit = products.reshape(len(steps), -1, group).sum(2) * stored[name + unit]
            by_log = per_unit.reshape(len(steps), -1, each).sum(2)
            clear = (by_log.abs() > 1e-3 * by_log.abs().max()) & (before.abs() > 1e-4)  # float16 below that is coarse
            step = (after[clear] / before[clear]).log()
            assert torch.all(step.sign() == -by_log[clear].sign()), (name, number)
            assert torch.allclose(step.abs(), torch.tensor(RATE), rtol=0.1), (name, number)
            assert torch.equal(after, after.half().float())
            checked += int(clear.sum())
            if each > 1:
                integers = [torch.where(whole == 0, 0, (values[name + unit] / whole).round()) for values in (stored, tuned) for whole in (values[name + number].repeat_interleave(each, 1),)]
                assert torch.equal(*integers) and torch.equal(tuned[name + unit], integers[1] * after.repeat_interleave(each, 1)), name
    assert checked > 500
    exported = subprocess.run([tool("qbench"), "export", folder, "-f", "gguf", "-o", tmp_path / "x.gguf"], capture_output=True, text=True)
    assert exported.returncode == 0, exported.stderr  # it is read back and compared with the run


def test_it_brings_predictions_nearer_and_leaves_codes(tool, tmp_path):
    plain, tuned = run(tool, tmp_path / "a", "gptq", samples=32), run(tool, tmp_path / "b", "gptq, {method: e2e_tuning, epochs: 4, batch_tokens: 256}", samples=32)
    for a, b in zip(sorted((plain / "blocks").glob("*.safetensors")), sorted((tuned / "blocks").glob("*.safetensors")), strict=True):
        assert a.read_bytes() == b.read_bytes()
    ids, model = calibration(64)[32:], load()  # text that it did not see
    put(model, plain)
    with torch.no_grad():
        before = divergence(model, ids).item()
        learned = load_file(tuned / "tuned.safetensors")
        put(model, tuned, learned)
        model.load_state_dict({k: v for k, v in learned.items() if k.endswith("norm.weight")}, strict=False)
        after = divergence(model, ids).item()
    assert after < 0.95 * before


def test_a_few_samples_are_the_first_ones(tool, tmp_path):
    stage = "rtn, {{method: e2e_tuning, epochs: 2, batch_tokens: 256{}}}"
    few, first, all_ = (run(tool, tmp_path / name, stage.format(words), samples=samples) / "tuned.safetensors"
                        for name, words, samples in (("a", ", samples: 4", 8), ("b", "", 4), ("c", ", samples: 9", 8)))
    assert few.read_bytes() == first.read_bytes() and few.read_bytes() != all_.read_bytes()


def test_stopped_anywhere_it_ends_at_the_same_bytes(tool, tmp_path):
    pipeline = "rtn, {method: e2e_tuning, epochs: 3, batch_tokens: 128}"
    whole = run(tool, tmp_path / "a", pipeline, dtype="bfloat16")
    folder = tmp_path / "b"
    folder.mkdir()
    process = subprocess.Popen([tool("qbench"), "run", recipe(folder, pipeline, dtype="bfloat16"), "-q", "-w", folder / "ws"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.time() + 120
    while time.time() < until and process.poll() is None and not list(folder.glob("ws/runs/*/tuning.safetensors")):
        time.sleep(0.002)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    one, = (folder / "ws" / "runs").iterdir()
    assert (one / "tuning.safetensors").exists() and not (one / "tuned.safetensors").exists()
    done = subprocess.run([tool("qbench"), "run", "--resume", one.name, "-q", "-w", folder / "ws"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (one / "tuned.safetensors").read_bytes() == (whole / "tuned.safetensors").read_bytes()
    assert not (one / "tuning.safetensors").exists()


def test_a_damaged_file_of_scales_is_told(tool, tmp_path):
    folder = run(tool, tmp_path / "a", "rtn, {method: e2e_tuning, epochs: 1}", samples=2, extra=f"evaluation: [{{corpus: '{DEMO}/evaluation.txt', seq_len: 128, windows: 2}}]")
    (folder / "tuned.safetensors").write_bytes((folder / "tuned.safetensors").read_bytes()[:-100])
    report = json.loads((folder / "report.json").read_text())
    report["status"] = "cancelled"  # so that it is evaluated again
    (folder / "report.json").write_text(json.dumps(report))
    resumed = subprocess.run([tool("qbench"), "run", "--resume", folder.name, "-q", "-w", tmp_path / "a" / "ws"], capture_output=True, text=True)
    assert resumed.returncode != 0 and "tuned.safetensors" in resumed.stderr, resumed.stderr


@pytest.mark.parametrize("pipeline, said", [
    ("{method: e2e_tuning}, rtn", "put e2e_tuning behind rtn"),
    ("spqr, {method: e2e_tuning}", "few bits"),
    ("{method: e2e_tuning}", None),
])
def test_its_place_is_behind_everything_else(pipeline, said, tool, tmp_path):
    done = subprocess.run([tool("qbench"), "recipe", "check", recipe(tmp_path, pipeline)], capture_output=True, text=True)
    if said is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode != 0 and said in done.stderr
