#!/usr/bin/env python3
"""Guided statistics beside plain ones: AWQ → clip → GPTQ on one model and text, by perplexity, divergence and time; and llm-compressor's AWQ.

    python tests/benchmarks/guided.py MODEL CALIBRATION EVALUATION [--bits 4 3 2] [--samples 128] [--windows 20] [--seq-len 2048] [--groups 1 …] [--threads N]
        [--stages awq,clip,gptq] [--tuned] [--workspace FOLDER] [--peer-blocks N --peer-python PYTHON]

CALIBRATION: the first samples × 512 tokens. --stages: which of the pipeline's stages are guided. --tuned adds end-to-end tuning. --peer-blocks: llm-compressor's
AWQ on the model's first N blocks in the same run, its time multiplied by all blocks / N (weight_methods.py says what PYTHON needs). Prints a line a recipe: bits per
weight, perplexity, KL divergence from the float model in nats a token, same top token in percent, seconds of quantization with and without guidance that another recipe left.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "tests/benchmarks"))
from reports import figures, perplexities  # noqa: E402
from weight_methods import peer  # noqa: E402
PROGRAM = Path(os.environ.get("QBENCH_BUILD", ROOT / "build/dev")) / "app/qbench"
STAGES = {"awq": "method: awq, do_gqa_trans: false", "clip": "method: clip, queries: true", "gptq": "method: gptq, sweeps: 8, shrinkage: 0.25"}


def pipeline(options, groups):
    """groups: 0 is plain."""
    guided = f", statistics: guided, guided_groups: {groups}" if groups else ""
    stages = ["{" + text + (guided if name in options.stages.split(",") else "") + "}" for name, text in STAGES.items()]
    return ", ".join(stages + ["e2e_tuning"] * options.tuned)


def run(options, folder, bits, groups):
    recipe = folder / f"w{bits}-{groups or 'plain'}.yaml"
    recipe.write_text(f"""name: w{bits} {f'guided {groups}' if groups else 'plain'}
model: {{path: '{options.model.resolve()}', dtype: bfloat16}}
calibration: {{corpus: '{options.calibration.resolve()}', sampling: sequential, samples: {options.samples}, seq_len: 512}}
scheme: {{weights: {{type: int{bits}, symmetric: false, granularity: group, group_size: 64}}}}
pipeline: [{pipeline(options, groups)}]
propagate_quantized: false
evaluation:
  - {{corpus: '{options.evaluation.resolve()}', seq_len: {options.seq_len}, windows: {options.windows}, dtype: bfloat16}}
  - {{evaluator: divergence, corpus: '{options.evaluation.resolve()}', seq_len: {options.seq_len}, windows: {options.windows}, dtype: bfloat16}}
""")
    done = subprocess.run([PROGRAM, "run", recipe, "-q", "--json", "-w", options.workspace or folder / "workspace", "--statistics-cache", "0", *(["--threads", str(options.threads)] if options.threads else [])],
                          capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    report, = json.loads(done.stdout)
    perplexity = {p["float_model"]: p["perplexity"] for p in perplexities(report)}
    divergence, = (figures(e) for e in report["evaluations"] if e["evaluator"] == "divergence" and not e.get("float_model"))
    return {"bits": report["bits_per_weight"], "perplexity": perplexity[False], "float": perplexity.get(True), "kl": divergence["kl"], "same_top": divergence["same_top"],
            "seconds": report["quantize_seconds"], "peak_gb": report["peak_rss_bytes"] / 1e9}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "calibration", "evaluation"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--bits", type=int, nargs="+", default=[4])
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--groups", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--stages", default="awq,clip,gptq")
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--peer-blocks", type=int)
    parser.add_argument("--peer-python", default=sys.executable)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        theirs = None
        if options.peer_blocks:
            theirs = peer("awq", SimpleNamespace(**vars(options)), folder)
            print(f"llm-compressor AWQ: {theirs['seconds']:.0f} s", flush=True)
        for bits in options.bits:
            plain = None
            for groups in [0, *options.groups]:
                found = run(options, folder, bits, groups)
                plain = plain or found
                print(f"w{bits} {f'guided {groups}' if groups else 'plain':9} {found['bits']:.3f} bits  perplexity {found['perplexity']:.3f} (float {found['float']:.3f})  KL {found['kl']:.5f} ({found['kl'] / plain['kl']:.3f})"
                      f"  same top {found['same_top']:.2f} %  {found['seconds']:.0f} s ({found['seconds'] / plain['seconds']:.2f} of plain" + (f", {found['seconds'] / theirs['seconds']:.3f} of the peer" if theirs else "") + f")  {found['peak_gb']:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
