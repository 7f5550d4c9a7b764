#!/usr/bin/env python3
"""A run on a machine that others use too: alone, two at once, beside a busy loop on every core.

    python tests/benchmarks/shared_machine.py [MODEL CALIBRATION EVALUATION] [--rounds 5] [--samples 64] [--seq-len 256]
        [--windows 20] [--pipeline "awq, clip, gptq"] [--spin N …] [--old-shared]

Without arguments the demo model is quantized. Each round takes all cases in turn, in the other order in every second round:
  alone      one run
  two        two processes at once, until both are done
  in one     two runs at once in one process, as the window's queue carries them out
  busy       one run beside one endless loop on every core, at the same priority
  old alone  one run with libgomp's own waiting (GOMP_SPINCOUNT=300000 is what it takes without settings)
--old-shared adds "old two" and "old busy", which take long. --spin compares other numbers of looks before a thread sleeps
(0: it sleeps at once). Prints the median and the least seconds of each case, processor seconds, and the ratios of medians and
of least beside their targets. Leave the machine alone meanwhile.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("QBENCH_BUILD", ROOT / "build/dev"))
DEMO = ROOT / "resources/demo"
CORES = len(os.sched_getaffinity(0))
# case: (case to compare with, most that it may take of it)
TARGETS = {"two": ("alone", 2.3), "in one": ("alone", 2.3), "busy": ("alone", 2.5), "alone": ("old alone", 1.05)}


def environment(spin):
    """Without anybody's settings; spin: None for the program's own choice."""
    plain = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    return plain if spin is None else plain | {"GOMP_SPINCOUNT": str(spin)} | ({} if spin >= 300000 else {"OMP_WAIT_POLICY": "passive"})


class Bench:
    def __init__(self, options, folder):
        self.folder, self.workspaces = folder, 0
        self.recipe = folder / "recipe.yaml"
        self.recipe.write_text(f"""name: shared machine
model: {{path: '{options.model.resolve()}', dtype: bfloat16}}
calibration: {{corpus: '{options.calibration.resolve()}', sampling: sequential, samples: {options.samples}, seq_len: {options.seq_len}}}
scheme: {{weights: {{type: int4, symmetric: false, granularity: group, group_size: 64}}}}
pipeline: [{options.pipeline}]
evaluation: [{{corpus: '{options.evaluation.resolve()}', seq_len: {options.seq_len}, windows: {options.windows}, dtype: bfloat16}}]
""")

    def workspace(self):
        self.workspaces += 1
        return self.folder / f"workspace-{self.workspaces}"  # a used one remembers the float model's perplexity

    def start(self, spin):
        return subprocess.Popen([BUILD / "app/qbench", "run", self.recipe, "-q", "--json", "-w", self.workspace(), "--statistics-cache", "0"],
                                env=environment(spin), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def measure(self, case, spin):
        """Seconds until all is done, and processor seconds of the runs."""
        spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(CORES if case == "busy" else 0)]
        try:
            if spinning:
                time.sleep(0.5)
            before, start = os.times(), time.perf_counter()
            if case == "in one":
                runs = [subprocess.Popen([BUILD / "tests/runs_at_once", self.workspace(), self.recipe, "2"], env=environment(spin),
                                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)]
            else:
                runs = [self.start(spin) for _ in range(2 if case == "two" else 1)]
            answers = [run.communicate() for run in runs]
            seconds, after = time.perf_counter() - start, os.times()
        finally:
            for process in spinning:
                process.kill()
        for run, (_, errors) in zip(runs, answers):
            if run.returncode != 0:
                sys.exit(errors)
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        for process in spinning:
            process.wait()
        return seconds, cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=DEMO)
    parser.add_argument("calibration", type=Path, nargs="?", default=DEMO / "calibration.txt")
    parser.add_argument("evaluation", type=Path, nargs="?", default=DEMO / "evaluation.txt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--pipeline", default="awq, clip, gptq")
    parser.add_argument("--cases", nargs="*", default=["alone", "two", "in one", "busy"], choices=["alone", "two", "in one", "busy"])
    parser.add_argument("--spin", type=int, nargs="*", default=[])
    parser.add_argument("--old-shared", action="store_true")
    options = parser.parse_args()
    jobs = [(case, case, None) for case in options.cases] + [("old alone", "alone", 300000)]
    jobs += [(f"{case}, spin {spin}", case, spin) for spin in options.spin for case in options.cases]
    if options.old_shared:
        jobs += [(f"old {case}", case, 300000) for case in options.cases if case != "alone"]
    taken = {name: [] for name, _, _ in jobs}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        bench.measure("alone", None)  # files into the cache
        for number in range(options.rounds):
            for name, case, spin in jobs if number % 2 == 0 else reversed(jobs):
                taken[name].append(bench.measure(case, spin))
                print(f"round {number + 1}, {name}: {taken[name][-1][0]:.2f} s", file=sys.stderr, flush=True)
    median = {name: statistics.median(s for s, _ in t) for name, t in taken.items() if t}
    least = {name: min(s for s, _ in t) for name, t in taken.items() if t}
    print(f"{CORES} cores, {options.rounds} rounds, load {os.getloadavg()[0]:.1f} at the end")
    met = True
    for name, case, spin in jobs:
        line = f"{name:22} {median[name]:7.2f} s, least {least[name]:7.2f} s, processor {statistics.median(c for _, c in taken[name]):7.2f} s"
        other, most = TARGETS.get(case, (None, None)) if not name.startswith("old") else ("alone", None)
        if spin is not None and other == "alone" and f"alone, spin {spin}" in median:
            other = f"alone, spin {spin}"
        if name.startswith("old") and name != "old alone":
            other = "old alone"
        if other in median and name != "old alone":
            line += f", {median[name] / median[other]:.2f} of {other} (least {least[name] / least[other]:.2f}{f', at most {most}' if most else ''})"
            met = met and (spin is not None or median[name] <= most * median[other])
        print(line)
    print(json.dumps({"cores": CORES, "met": met, "seconds": taken}))


if __name__ == "__main__":
    main()
