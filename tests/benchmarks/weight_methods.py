#!/usr/bin/env python3
"""Weight-only pipelines beside their peers, in turn, on one model, text and machine.

    python tests/benchmarks/weight_methods.py MODEL CALIBRATION EVALUATION [--samples 128] [--windows 20] [--ours NAME …]
        [--peers NAME …] [--peer-blocks N] [--second-recipe] [--peer-python PYTHON]

MODEL is a Hugging Face folder, CALIBRATION and EVALUATION are text files: the first samples × 512 tokens, and the first
windows of 2048. Peers are the scripts in peers/, run by PYTHON, an environment of their own with torch 2.11.0, transformers
5.17.0, llmcompressor 0.14.0.1, compressed-tensors 0.19.0, accelerate, and auto-round 0.15.1 installed without its
dependencies; without --peers only our side runs. --peer-blocks N gives peers the model's first N blocks only and multiplies
their time, which goes block by block, by all blocks / N: a peer of half an hour is measured in minutes; its perplexity is
then not. --second-recipe runs AWQ → clip → GPTQ at 4 bits, then at 3 on the statistics that the first left in the workspace.
Prints a line a pipeline: perplexity, seconds of quantization, peak memory, ratio to the peer.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from reports import perplexities  # noqa: E402
SCRIPTS = Path(__file__).resolve().parent / "peers"
PROGRAM = Path(os.environ.get("QBENCH_BUILD", ROOT / "build/dev")) / "app/qbench"

BEST = "{method: awq, do_gqa_trans: false}, {method: clip, queries: true}, {method: gptq, sweeps: 8, shrinkage: 0.25}"
# name: (bits, symmetric, pipeline, perplexity to reach on SmolLM2-135M, peer, share of the peer's time to reach)
OURS = {
    "rtn-w4-asym": (4, False, "rtn", 27.45, None, None),
    "gptq-w4-sym": (4, True, "gptq", 26.7, "gptq", 0.33),
    "awq-w4-asym": (4, False, "awq", 24.96, "awq", 0.06),
    "awq-clip-gptq-w4-asym": (4, False, BEST, 22.6, "awq", 0.08),
    "awq-clip-gptq-w3-asym": (3, False, BEST, 31.0, "awq", 0.08),
    "tuned-briefly-w4-asym": (4, False, BEST + ", {method: e2e_tuning, epochs: 1, samples: 64}", 22.4, "autoround", 0.15),
    "tuned-w4-asym": (4, False, BEST + ", e2e_tuning", 22.0, "autoround", 1),
}
PEERS = {"rtn": ("llm_compressor.py", "rtn"), "gptq": ("llm_compressor.py", "gptq"), "awq": ("llm_compressor.py", "awq"), "autoround": ("autoround.py", "asym")}


def ours(name, options, folder, cache=False):
    bits, symmetric, pipeline, *_ = OURS[name]
    recipe = folder / f"{name}.yaml"
    recipe.write_text(f"""name: {name}
model: {{path: '{options.model.resolve()}', dtype: bfloat16}}
calibration: {{corpus: '{options.calibration.resolve()}', sampling: sequential, samples: {options.samples}, seq_len: 512}}
scheme:
  weights: {{type: int{bits}, symmetric: {str(symmetric).lower()}, granularity: group, group_size: 64}}
pipeline: [{pipeline}]
propagate_quantized: false
evaluation:
  - {{corpus: '{options.evaluation.resolve()}', seq_len: 2048, windows: {options.windows}, dtype: bfloat16}}
""")
    done = subprocess.run([PROGRAM, "run", recipe, "-q", "--json", "-w", folder / "workspace", *([] if cache else ["--statistics-cache", "0"])], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    report, = json.loads(done.stdout)
    by_kind = {p["float_model"]: p["perplexity"] for p in perplexities(report)}
    return {"perplexity": by_kind[False], "float_perplexity": by_kind.get(True), "seconds": report["quantize_seconds"], "peak_gb": report["peak_rss_bytes"] / 1e9,
            "bits": report["bits_per_weight"], "cached_blocks": report.get("statistics_cached_blocks", 0)}


def cut(model, blocks, folder):
    """The model's first blocks, as a folder of links with another config.json; returns it and the share of blocks that it has."""
    config = json.loads((model / "config.json").read_text())
    folder.mkdir(exist_ok=True)
    for path in model.iterdir():
        if path.name != "config.json" and not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": blocks}))
    return folder, blocks / config["num_hidden_layers"]


def peer(name, options, folder):
    script, argument = PEERS[name]
    model, share = (options.model, 1) if not options.peer_blocks else cut(options.model, options.peer_blocks, folder / "cut")
    out = folder / f"peer-{name}"
    words = [model, options.calibration, out, argument] if name == "autoround" else [argument, model, options.calibration, out]
    extra = ["200", "4", "64", str(options.samples), "512"] if name == "autoround" else ["4", "64", str(options.samples), "512"]
    start = time.perf_counter()
    done = subprocess.run([options.peer_python, SCRIPTS / script, *map(str, words), *extra], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr[-2000:])
    result = json.loads(done.stdout.strip().splitlines()[-1])
    result["wall"] = time.perf_counter() - start
    if share < 1:
        result["measured_seconds"], result["seconds"] = result["seconds"], result["seconds"] / share
        return result
    evaluated = subprocess.run([options.peer_python, SCRIPTS / "perplexity.py", str(out), str(options.evaluation), str(options.windows)], capture_output=True, text=True)
    if evaluated.returncode != 0:
        sys.exit(evaluated.stderr[-2000:])
    result |= json.loads(evaluated.stdout.strip().splitlines()[-1])
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--ours", nargs="*", default=list(OURS), choices=list(OURS))
    parser.add_argument("--peers", nargs="*", default=[], choices=list(PEERS))
    parser.add_argument("--second-recipe", action="store_true")
    parser.add_argument("--peer-blocks", type=int, default=0)
    parser.add_argument("--peer-python", default=sys.executable)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        peers = {}
        for name in options.peers:
            peers[name] = peer(name, options, folder)
            print(f"peer {name}: {json.dumps(peers[name])}", flush=True)
        for name in options.ours:
            result = ours(name, options, folder)
            goal, rival, share = OURS[name][3:]
            line = f"{name}: perplexity {result['perplexity']:.3f} (at most {goal}; float {result['float_perplexity']:.3f}), {result['seconds']:.1f} s, peak {result['peak_gb']:.2f} GB (at most 1.2), {result['bits']:.3f} bits"
            if rival in peers:
                line += f", {result['seconds'] / peers[rival]['seconds']:.3f} of {rival}'s time (at most {share})"
            print(line, flush=True)
        if options.second_recipe:
            first, second = (ours(name, options, folder, cache=True) for name in ("awq-clip-gptq-w4-asym", "awq-clip-gptq-w3-asym"))
            print(f"second recipe, statistics of {second['cached_blocks']} blocks from the cache: {second['seconds']:.1f} s after {first['seconds']:.1f} s, "
                  f"{second['seconds'] / first['seconds']:.3f} (at most 0.5), perplexity {second['perplexity']:.3f}", flush=True)


if __name__ == "__main__":
    main()
