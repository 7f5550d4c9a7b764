#!/usr/bin/env python3
"""Divergence from the float model beside a script on transformers that computes the same, on the same windows in the same run.

    python tests/benchmarks/divergence.py MODEL TEXT [--windows 4] [--seq-len 512] [--threads 1] [--scheme "{type: int4, …}"] [--rounds 2]

MODEL is a Hugging Face folder in float, TEXT a text file. The model is rounded to nearest in the scheme, exported as a folder of plain
weights that both sides read, and compared with its original:
  first     nothing is kept yet: the float model's pass, which is written to the cache, and the quantized one's
  cached    the float model's states are read from the cache
  plain     without a cache
  transformers       both models' logits, then KL, Δp and the top token in float32
  transformers kept  the float model's log-probabilities of the windows kept in memory: the least that a script could take
Both sides load their models before the clock starts; ours reads each block again for every 8192 tokens, which is counted. Rounds
alternate, least seconds are printed. Then the noise floor, and what formats of such a cache take for a token and do to the KL: ours, 16-bit
log-probabilities as llama.cpp keeps them, the k best with the mass of the rest.
"""
import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("QBENCH_BUILD", ROOT / "build/dev")) / "app/qbench"


def qbench(*arguments):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def quantized(options, folder):
    (folder / "recipe.yaml").write_text(f"name: benchmark\nmodel: {{path: '{options.model.resolve()}', dtype: float32}}\nscheme: {{weights: {options.scheme}}}\npipeline: [rtn]\n")
    run = qbench("run", folder / "recipe.yaml", "-w", folder / "w", "-q", "--json")[0]["id"]
    qbench("export", folder / "w/runs" / run, "-f", "dequantized", "-o", folder / "coded", "--json")
    return folder / "coded"


def logarithms(model, window):
    return torch.log_softmax(model(window[None]).logits[0, :-1].float(), -1)


def peer(base, model, windows, kept=None):
    """Seconds and the mean KL."""
    start, kl = time.perf_counter(), []
    for i, window in enumerate(windows):
        p, q = logarithms(base, window) if kept is None else kept[i], logarithms(model, window)
        probability, target = p.exp(), window[1:, None]
        kl.append((probability * (p - q)).sum(-1))
        _ = q.gather(1, target).exp() - probability.gather(1, target), p.argmax(-1) == q.argmax(-1)
    return time.perf_counter() - start, torch.cat(kl).mean().item()


def formats(base, model, windows):
    """By format: bytes a token, error of the mean KL, root mean square of the errors of tokens; in float64."""
    errors = {}
    for window in windows:
        p, q = (torch.log_softmax(m(window[None]).logits[0, :-1].double(), -1) for m in (base, model))
        exact = (p.exp() * (p - q)).sum(-1)
        peak = p.amax(-1, True)
        low = torch.maximum(p.amin(-1, True), peak - 16)
        step = (peak - low) / 65535
        rounded = ((p - low).clamp(min=0) / step).round() * step + low
        size = p.shape[-1]
        errors.setdefault(("16-bit log-probabilities, as llama.cpp", 2 * size + 8), []).append(torch.where(rounded > -16, rounded.exp() * (rounded - q), 0).sum(-1) - exact)
        for k in (256, 1024, 4096):
            if k < size:
                best, which = p.topk(k)
                its, rest = q.gather(1, which), (1 - best.exp().sum(-1)).clamp(min=1e-300)
                tail = rest * (rest.log() - (1 - its.exp().sum(-1)).clamp(min=1e-300).log())
                errors.setdefault((f"best {k} (float32, 32-bit ids) and the rest's mass", 8 * k + 4), []).append((best.exp() * (best - its)).sum(-1) + tail - exact)
    return {key: (torch.cat(all).mean().item(), torch.cat(all).square().mean().sqrt().item()) for key, all in errors.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scheme", default="{type: int4, symmetric: false, granularity: group, group_size: 64}")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        coded = quantized(options, folder)

        def ours(*more):
            return qbench("--threads", options.threads, "eval", coded, "--text", options.text, "--against", options.model, "--bos", "none", "--seq-len", options.seq_len, "--windows", options.windows, "--json", *more)

        ids = AutoTokenizer.from_pretrained(options.model)(options.text.read_text(), return_tensors="pt", add_special_tokens=False).input_ids[0]
        windows = ids[:options.windows * options.seq_len].view(options.windows, options.seq_len)
        base, model = (AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval() for path in (options.model, coded))
        kept = [logarithms(base, window) for window in windows]
        seconds, kl = {}, {}

        def note(which, value, mean):
            seconds.setdefault(which, []).append(value)
            kl[which] = mean
        for round in range(options.rounds):
            cache = folder / f"cache-{round}"
            for which, more in (("first", ["--cache", cache]), ("cached", ["--cache", cache]), ("plain", [])):
                result = ours(*more)
                note(which, result["seconds"], result["metrics"]["kl"]["value"])
            note("transformers", *peer(base, model, windows))
            note("transformers kept", *peer(base, model, windows, kept))
        del kept
        floor = ours("--noise-floor", "--dtype", "bfloat16", "--cache", cache)["noise_floor"]
        tokens = options.windows * (options.seq_len - 1)
        states = next(cache.glob("*.states")).stat().st_size
        print(f"{options.model.name}, {options.scheme}, {options.windows} windows of {options.seq_len} tokens, {options.threads} threads, float32\n")
        print("| | seconds | mean KL |\n|---|---|---|")
        for which, values in seconds.items():
            print(f"| {which} | {min(values):.2f} | {kl[which]:.6f} |")
        for a, b in (("first", "transformers"), ("cached", "transformers"), ("cached", "transformers kept")):
            print(f"{a} / {b}: {min(seconds[a]) / min(seconds[b]):.2f}")
        by_dtype, by_weights = (floor[kind]["metrics"]["kl"]["value"] for kind in ("dtype", "weights"))
        print(f"\nNoise floor, mean KL: {by_dtype:.3g} in bfloat16, {by_weights:.3g} with bfloat16 weights; a tenth of the larger: {by_dtype / 10:.2g}\n")
        print("| format | bytes a token | error of the mean KL | error of a token's, rms |\n|---|---|---|---|")
        print(f"| states in front of the head (ours) | {states / tokens:.0f} | {abs(kl['cached'] - kl['plain']):.2g} | |")
        for (format, size), (mean, rms) in formats(base, model, windows).items():
            print(f"| {format} | {size} | {abs(mean):.2g} | {rms:.2g} |")


if __name__ == "__main__":
    main()
