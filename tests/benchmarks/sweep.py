#!/usr/bin/env python3
"""A sweep in one workspace beside the same recipes alone: what it saves by what they have in common, with the same bits.

    python tests/benchmarks/sweep.py MODEL CALIBRATION EVALUATION [--samples 128] [--seq-len 512] [--windows 4] [--window-len 512] [--blocks N]
        [--pipelines NAME …] [--bits 3 4] [--threads N] [--propagate] [--json FILE]

The recipes are {RTN, GPTQ, AWQ, AWQ + clip, AWQ + clip + GPTQ, HQQ} × {3, 4 bits} × {symmetric, asymmetric} in groups of 64, but for
HQQ's symmetric ones: it optimises zero points, and a scheme without them is refused. Each is run by `qbench run` twice in
turn: in a fresh workspace with --statistics-cache 0 ("alone": it evaluates the float model too), and in the workspace that all share, in the
order above. MODEL is a Hugging Face folder, CALIBRATION and EVALUATION are text files. Bits of every block file of the two are compared; a difference ends it.
Seconds are of whole processes, from start to end; CPU seconds beside them are what counts on a machine that others use. --blocks keeps
the model's first N blocks only; --propagate passes errors on, so that only what is the same in front of the first block is shared.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from reports import perplexities  # noqa: E402
PROGRAM = Path(os.environ.get("QBENCH_BUILD", ROOT / "build/dev")) / "app/qbench"
PIPELINES = {"rtn": "rtn", "gptq": "gptq", "awq": "awq, rtn", "awq-clip": "awq, clip, rtn", "awq-clip-gptq": "awq, clip, gptq", "hqq": "hqq"}


def cut(model, blocks, folder):
    """The model's first blocks, as a folder of links with another config.json."""
    folder.mkdir()
    for path in model.iterdir():
        if path.name != "config.json":
            (folder / path.name).symlink_to(path.resolve())
    (folder / "config.json").write_text(json.dumps(json.loads((model / "config.json").read_text()) | {"num_hidden_layers": blocks}))
    return folder


def recipe(folder, name, pipeline, bits, symmetric, options):
    path = folder / f"{name}.yaml"
    path.write_text(f"""name: {name}
model: {{path: '{options.model}', dtype: bfloat16}}
calibration: {{corpus: '{options.calibration.resolve()}', sampling: sequential, samples: {options.samples}, seq_len: {options.seq_len}}}
scheme:
  weights: {{type: int{bits}, symmetric: {str(symmetric).lower()}, granularity: group, group_size: 64}}
pipeline: [{pipeline}]
propagate_quantized: {str(options.propagate).lower()}
evaluation:
  - {{corpus: '{options.evaluation.resolve()}', seq_len: {options.window_len}, windows: {options.windows}, dtype: bfloat16}}
""")
    return path


def carried_out(path, workspace, options, *extra):
    """Seconds, CPU seconds, the report, the bytes of its block files."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    threads = ["--threads", str(options.threads)] if options.threads else []
    done = subprocess.run([PROGRAM, *threads, "run", path, "-q", "--json", "-w", workspace, *extra], capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{path.stem}: {done.stderr}")
    report, = json.loads(done.stdout)
    blocks = {block.name: block.read_bytes() for block in (Path(workspace) / "runs" / report["id"] / "blocks").glob("*.safetensors")}
    if len(blocks) != len(report["blocks"]):
        sys.exit(f"{path.stem}: {len(blocks)} files of blocks, expected {len(report['blocks'])}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, report, blocks


def figures(report):
    """What is told of the quantized model."""
    return [p["window_nll"] for p in perplexities(report)], [(x["name"], x["output_relative_error"]) for block in report["blocks"] for x in block["linears"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--window-len", type=int, default=512)
    parser.add_argument("--blocks", type=int, default=0)
    parser.add_argument("--pipelines", nargs="*", default=list(PIPELINES), choices=list(PIPELINES))
    parser.add_argument("--bits", nargs="*", type=int, default=[3, 4])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--propagate", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        options.model = cut(options.model, options.blocks, folder / "model") if options.blocks else options.model.resolve()
        print(f"{options.samples} × {options.seq_len} calibration tokens, {options.windows} windows of {options.window_len}, errors {'' if options.propagate else 'not '}passed on")
        print(f"{'recipe':24}{'alone s':>10}{'(CPU)':>10}{'in the sweep s':>16}{'(CPU)':>10} {'perplexity':>13}  statistics from the cache", flush=True)
        for pipeline in options.pipelines:
            for bits in options.bits:
                for symmetric in (True, False) if pipeline != "hqq" else (False,):
                    name = f"{pipeline}-w{bits}-{'sym' if symmetric else 'asym'}"
                    path = recipe(folder, name, PIPELINES[pipeline], bits, symmetric, options)
                    with tempfile.TemporaryDirectory(dir=folder) as fresh:
                        alone = carried_out(path, fresh, options, "--statistics-cache", "0")
                    swept = carried_out(path, folder / "sweep", options)
                    differing = sorted(block for block in alone[3] if alone[3][block] != swept[3].get(block))
                    if differing or figures(alone[2]) != figures(swept[2]):
                        sys.exit(f"{name}: differs from the same recipe alone: {', '.join(differing) or 'its report'}")
                    rows.append({"name": name, "alone": alone[:2], "sweep": swept[:2]})
                    perplexity = next(p["perplexity"] for p in perplexities(swept[2]) if not p["float_model"])
                    print(f"{name:24}{alone[0]:10.1f}{alone[1]:10.1f}{swept[0]:16.1f}{swept[1]:10.1f} {perplexity:13.3f}  {swept[2].get('statistics_cached_blocks', 0)} of {len(swept[3])} blocks", flush=True)
        kept = sum(f.stat().st_size for f in (folder / "sweep" / "cache").rglob("*") if f.is_file())
    (alone, alone_cpu), (swept, swept_cpu) = ([sum(row[side][i] for row in rows) for i in (0, 1)] for side in ("alone", "sweep"))
    print(f"{'all ' + str(len(rows)):24}{alone:10.1f}{alone_cpu:10.1f}{swept:16.1f}{swept_cpu:10.1f}")
    print(f"the sweep takes {swept / alone:.3f} of the time ({swept_cpu / alone_cpu:.3f} of the CPU's) with the same bits in every block, and keeps {kept / 1e6:.0f} MB")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "ratio": swept / alone, "cpu_ratio": swept_cpu / alone_cpu, "kept_bytes": kept}))


if __name__ == "__main__":
    main()
