#!/usr/bin/env python3
"""How well the time of a run is foretold: of the first run of a kind, which is a guess, and of the second, which is not.

    python tests/benchmarks/estimates.py [MODEL …] [--text TEXT] [--samples 16] [--seq-len 256] [--windows 8] [--kinds NAME …]
        [--limit 0.3] [--busy]

Without MODEL the demo model's. Of every kind of pipeline three recipes run one after the other in one workspace: at 4 bits, at 3 bits
and twice the calibration text. `qbench sweep --dry-run` says before each what it will take. Prints a line a run: estimated and measured
seconds (loading, quantizing and evaluating), their ratio, the same ratio in processor seconds, on what the estimate stands; fails where
a second or third one is further off than the limit. Other work on the machine is in the seconds: leave it alone meanwhile, or give
--busy, and what is judged are processor seconds: the estimate times the share of them that the runs which it stands on had, by those
of the run (`qbench sweep` without `--dry-run` less with it).
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("QBENCH_BUILD", ROOT / "build/dev")) / "app/qbench"
DEMO = ROOT / "resources/demo"
KINDS = {"rtn": "rtn", "hqq": "hqq", "gptq": "gptq", "awq+gptq": "awq, gptq", "awq+clip+gptq": "awq, clip, gptq"}


def recipe(folder, model, pipeline, bits, samples, options):
    path = folder / "sweep.yaml"
    path.write_text(f"""name: int{bits} {pipeline} {samples}
model: {{path: '{model}', dtype: float32}}
calibration: {{corpus: '{options.text.resolve()}', samples: {samples}, seq_len: {options.seq_len}}}
scheme: {{weights: {{type: int{bits}, symmetric: false, group_size: 64}}}}
pipeline: [{pipeline}]
evaluation: [{{corpus: '{DEMO / "evaluation.txt"}', seq_len: {options.seq_len}, windows: {options.windows}}}]
""")
    return path


def qbench(*arguments):
    """Its answer, and the processor seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return json.loads(done.stdout), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", type=Path, default=[DEMO])
    parser.add_argument("--text", type=Path, default=DEMO / "calibration.txt")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--limit", type=float, default=0.3)
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    off = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        print(f"{'model':<24} {'pipeline':<16} {'run':<14} {'estimated':>10} {'measured':>10} {'ratio':>6} {'processor':>10}  basis")
        for model in options.models:
            for kind in options.kinds:
                shares = []  # processor seconds a second
                for what, bits, samples in (("first", 4, options.samples), ("second", 3, options.samples), ("twice the text", 4, 2 * options.samples)):
                    path = recipe(folder, model.resolve(), KINDS[kind], bits, samples, options)
                    plan, planning = qbench("sweep", path, "-w", folder / "w", "-n", "--json")
                    told = plan["recipes"][0]["seconds"]
                    result, processor = qbench("sweep", path, "-w", folder / "w", "-q", "--json")
                    report = result["reports"][0]
                    seconds = report["load_seconds"] + report["quantize_seconds"] + report["evaluate_seconds"]
                    ratio = told["total"] / seconds
                    processor -= planning
                    in_processor = told["total"] * statistics.median(shares) / processor if shares else float("nan")
                    shares.append(processor / seconds)
                    print(f"{model.name:<24} {kind:<16} {what:<14} {told['total']:>8.2f} s {seconds:>8.2f} s {ratio:>6.2f} {in_processor:>10.2f}  {told['basis']}", flush=True)
                    if options.busy:
                        ratio = in_processor
                    if told["guess"] == (what != "first") and not (what == "first" and len(options.models) > 1):
                        sys.exit(f"{kind}, {what}: is {'a guess' if told['guess'] else 'no guess'}")
                    if what != "first" and not 1 / (1 + options.limit) <= ratio <= 1 + options.limit:
                        off.append(f"{model.name}, {kind}, {what}: estimated {told['total']:.2f} s, measured {seconds:.2f} s, in processor seconds {in_processor:.2f}")
    if off:
        sys.exit("\n".join([f"further off than {options.limit:.0%}:", *off]))


if __name__ == "__main__":
    main()
