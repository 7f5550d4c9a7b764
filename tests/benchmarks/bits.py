#!/usr/bin/env python3
"""Bits under a budget beside one scheme for all linears: KL divergence from the float model at equal size, same pipeline.

    python tests/benchmarks/bits.py MODEL CALIBRATION EVALUATION [--samples 16] [--windows 6] [--seq-len 512] [--bits 4.3 3.3] [--pipeline gptq]
        [--rounding gptq] [--costs gram fisher guided] [--candidates int2g64,int3g64,…] [--measured 0] [--untied] [--kept FOLDER]

MODEL is a Hugging Face folder, CALIBRATION and EVALUATION are text files: the first samples × 512 tokens, and the first windows of 512 (--seq-len).
The uniform scheme of a budget is int4 or int3 asymmetric in groups of 64, with a float16 scale and a zero point of its own width:
4.3125 and 3.2969 bits a weight; the assignment gets the budget or the uniform scheme's bits, whichever is less. In one run: `qbench
sensitivity`, then for each budget and cost `qbench allocate` and `qbench run`; finished runs are exported as numbers, and the
divergence is transformers' in float32, Σ p·(log p − log q) over all positions. Prints a line a run: bits, predicted and measured
KL (± standard error over the windows), ratio to the uniform scheme.
"""
import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("QBENCH_BUILD", ROOT / "build/dev")) / "app/qbench"
GOALS = {4.3: 0.85, 3.3: 0.75}  # of the uniform scheme's KL


def qbench(*words):
    done = subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout) if done.stdout.strip() and "--json" in words else done.stdout


class Judge:
    """transformers' float model on the first windows of a text."""

    def __init__(self, model, text, windows, seq_len):
        with open(text, newline="", encoding="utf-8") as file:
            ids = AutoTokenizer.from_pretrained(model)(file.read(), return_tensors="pt").input_ids[0]
        self.windows = ids[: windows * seq_len].view(windows, seq_len)
        self.expected = self.predict(model)

    def predict(self, path):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        with torch.no_grad():
            return [torch.log_softmax(model(window[None]).logits[0], -1) for window in self.windows]

    def divergence(self, path):
        values = []
        for expected, found in zip(self.expected, self.predict(path)):
            values.append((expected.exp() * (expected - found)).sum(-1, dtype=torch.float64).mean().item())
        mean = sum(values) / len(values)
        spread = math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1) / len(values))
        return mean, spread, values


def measured(recipe, judge, folder):
    """Runs a recipe, exports it, asks transformers; leaves nothing behind."""
    start = time.perf_counter()
    report, = qbench("run", recipe, "-q", "--json", "-w", folder / "workspace")
    seconds = time.perf_counter() - start
    out = folder / "exported"
    qbench("export", report["id"], "-w", folder / "workspace", "--format", "dequantized", "-o", out)
    result = judge.divergence(out)
    shutil.rmtree(out)
    shutil.rmtree(folder / "workspace" / "runs" / report["id"], ignore_errors=True)
    return report["bits_per_weight"], *result, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--windows", type=int, default=6)
    parser.add_argument("--bits", type=float, nargs="*", default=list(GOALS))
    parser.add_argument("--pipeline", default="gptq", help="stages as in a recipe's list")
    parser.add_argument("--rounding", default="gptq", help="what rounds for the sensitivities")
    parser.add_argument("--costs", nargs="*", default=["gram", "fisher", "guided"])
    parser.add_argument("--candidates", default="int2g64,int3g64,int4g64,int5g64,int6g64,int8g64")
    parser.add_argument("--measured", type=int, default=0)
    parser.add_argument("--untied", action="store_true")
    parser.add_argument("--kept", type=Path, help="folder that keeps sensitivities for the next time")
    options = parser.parse_args()
    judge = Judge(options.model, options.evaluation, options.windows, options.seq_len)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = folder / "sensitivity.json"
        start = time.perf_counter()
        found = qbench("sensitivity", options.model, "-c", options.calibration, "--samples", options.samples, "--seq-len", options.seq_len, "--candidates", options.candidates,
                       "--rounding", options.rounding, "--measured", options.measured, "--measured-windows", 2, "--folder", options.kept or folder / "kept", "-o", file, "--json")
        print(f"sensitivity of {len(found['linears'])} linears under {options.candidates}: {time.perf_counter() - start:.1f} s, {found['tokens']} tokens, rounded by {found['rounding']}", flush=True)
        for c in found["correlations"]:
            print(f"  rank correlation {c['first']} ~ {c['second']}, {c['candidate'] or 'all'}: {c['value']:.3f} ({c['pairs']} pairs)", flush=True)
        for bits in options.bits:
            uniform = f"int{math.floor(bits)}g64"
            recipe = folder / f"{uniform}.yaml"
            calibration = f"calibration: {{corpus: '{options.calibration.resolve()}', sampling: sequential, samples: {options.samples}, seq_len: {options.seq_len}}}\n"
            recipe.write_text(f"""name: {uniform}
model: {{path: '{options.model.resolve()}', dtype: float32}}
{calibration if options.pipeline != "rtn" else ""}scheme:
  weights: {{type: int{math.floor(bits)}, symmetric: false, granularity: group, group_size: 64}}
pipeline: [{options.pipeline}]
""")
            base_bits, base, error, base_values, seconds = measured(recipe, judge, folder)
            print(f"{uniform} for all, {options.pipeline}: {base_bits:.4f} bits, KL {base:.5f} ± {error:.5f} ({options.windows} windows of {options.seq_len}), {seconds:.1f} s", flush=True)
            for cost in options.costs:
                out = folder / f"{cost}.yaml"
                answer = qbench("allocate", recipe, "--sensitivity", file, "--bits", min(bits, base_bits), "--cost", cost, "-o", out, "--json", *(["--untied"] if options.untied else []))
                predicted = {t["name"]: t["predicted"] for t in answer["uniform"]} | {"allocated": answer["allocated"]["predicted"]}
                got_bits, kl, error, values, seconds = measured(out, judge, folder)
                difference = [b - a for a, b in zip(base_values, values)]
                mean = sum(difference) / len(difference)
                spread = math.sqrt(sum((d - mean) ** 2 for d in difference) / max(1, len(difference) - 1) / len(difference))
                print(f"  {cost}: {got_bits:.4f} bits, KL {kl:.5f} ± {error:.5f}, {kl / base:.3f} of uniform (paired difference {mean:.5f} ± {spread:.5f}"
                      + (f"; at most {GOALS[bits]}" if bits in GOALS else "") + f"), predicted {predicted['allocated']:.5g} beside {predicted[uniform]:.5g}: {predicted['allocated'] / predicted[uniform]:.3f}, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
