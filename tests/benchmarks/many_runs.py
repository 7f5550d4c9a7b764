"""How long a workspace of many runs keeps its user waiting: opened by the engine and by the window until its table of runs is
filled, with an index and without one, beside the same of an older commit.

    many_runs.py [--runs 1000] [--base FOLDER] [--json FILE]

Copies of one real run of the demo model (other ids and names, other figures, so that sorting has work) make the workspace.
Programs come from QBENCH_BUILD (default build/dev): app/qbench and tests/many_runs_window. --base names a folder with a
many_runs_window of an older commit (this folder's many_runs_window.cpp built there); ratios are then printed too. Its figures
may take minutes.
Requirement: with an index the window's table is filled within a second; without one progress is told. Ends with 1 otherwise.
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("QBENCH_BUILD", ROOT / "build" / "dev"))
SCHEMES = ["int2 g64 asymmetric", "int3 g64 asymmetric", "int4 g64 asymmetric", "int4 g128 symmetric", "int8 per channel"]
PIPELINES = ["rtn", "gptq", "awq → rtn", "awq → clip → gptq", "hqq"]


def make_workspace(folder, runs):
    """`runs` runs; the large files of blocks are links to those of the first one."""
    subprocess.run([BUILD / "app" / "qbench", "run", ROOT / "resources/demo/recipes/w4.yaml", "-w", folder, "-q"], check=True, stdout=subprocess.DEVNULL)
    (first,) = (folder / "runs").iterdir()
    report = json.loads((first / "report.json").read_text())
    dice = random.Random(17)
    for i in range(1, runs):
        copy = folder / "runs" / f"20260101-{i // 3600:02}{i // 60 % 60:02}{i % 60:02}-copy-{i}"
        (copy / "blocks").mkdir(parents=True)
        for file in (first / "blocks").iterdir():
            os.link(file, copy / "blocks" / file.name)
        shutil.copy(first / "recipe.yaml", copy)
        figures = []
        for evaluation in report["evaluations"]:
            times = 1 if evaluation["float_model"] else dice.uniform(1, 2)
            figures.append(dict(evaluation, metrics=[dict(m, value=m["value"] * times) if m["name"] == "perplexity" else m for m in evaluation["metrics"]]))
        changed = dict(report, id=copy.name, name=f"copy {i}", style=i, scheme=dice.choice(SCHEMES), pipeline=dice.choice(PIPELINES), evaluations=figures)
        (copy / "report.json").write_text(json.dumps(changed, separators=(",", ":")))
    return len(json.dumps(report, separators=(",", ":")))


def without_index(folder):
    for index in [*folder.glob("index.db*"), *(folder / "cache").glob("index-*")]:
        index.unlink()


def measure(program, mode, folder, runs):
    done = subprocess.run([program, mode, folder, str(runs)], capture_output=True, text=True, env=os.environ | {"QT_QPA_PLATFORM": "offscreen", "QBENCH_RESOURCES": str(ROOT / "resources")})
    if done.returncode != 0:
        sys.exit(f"{program} {mode}: {done.returncode}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def measure_all(program, folder, runs, repeats):
    figures = {}
    for mode in ("engine", "window"):
        without_index(folder)
        figures[f"{mode}, no index"] = measure(program, mode, folder, runs)
        measured = [measure(program, mode, folder, runs) for _ in range(repeats)]
        key = "list" if mode == "engine" else "filled"
        figures[f"{mode}, index"] = min(measured, key=lambda m: m[key])  # other programs only add to it
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--base", type=Path, help="folder with a many_runs_window of an older commit")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "workspace"
        size = make_workspace(folder, arguments.runs)
        print(f"{arguments.runs} runs, reports of {size / 1e3:.0f} kB")
        figures = {"now": measure_all(BUILD / "tests" / "many_runs_window", folder, arguments.runs, 5)}
        if arguments.base:
            figures["base"] = measure_all(arguments.base / "many_runs_window", folder, arguments.runs, 2)
    for name, told in figures["now"].items():
        for key, value in told.items():
            if not isinstance(value, float):
                continue
            before = figures.get("base", {}).get(name, {}).get(key)
            ratio = f"   before {before:9.3f} s, {value / before:7.4f} of it" if before else ""
            print(f"{name:18} {key:13} {value:8.3f} s{ratio}")
        print(f"{name:18} progress was told {told['progress']} times")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))
    now = figures["now"]
    quick = now["window, index"]["filled"] < 1 and now["engine, index"]["open"] + now["engine, index"]["list"] < 1
    told = all(now[f"{mode}, no index"]["progress"] > 0 for mode in ("engine", "window"))
    return 0 if quick and told else 1


if __name__ == "__main__":
    sys.exit(main())
