"""Sweeps beside Python's own product over recipes written by hand: the same recipes, each once, with names that tell them apart;
what is done is left out, what failed or was stopped is gone on with, and a file may grow while it runs."""
import itertools
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from conftest import DEMO

TEXTS = ["calibration", "evaluation"]


@pytest.fixture
def qbench(tool, tmp_path):
    program = tool("qbench")

    def call(*arguments, code=0):
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done
    call.program, call.folder = program, tmp_path
    return call


def by_hand(kind, group, pipeline, text, seed):
    return {"name": "by hand", "model": {"path": str(DEMO), "dtype": "float32"},
            "calibration": {"corpus": str(DEMO / f"{text}.txt"), "samples": 4, "seq_len": 64},
            "scheme": {"weights": {"type": kind, "group_size": group, "symmetric": False}}, "pipeline": pipeline, "seed": seed,
            "evaluation": [{"corpus": str(DEMO / "evaluation.txt"), "seq_len": 64, "windows": 2}]}


def small(folder, name="sweep.yaml", types=("int3", "int4"), pipelines=(["rtn"],), block="", windows=2):
    path = folder / name
    path.write_text(f"""{block}
model: {{path: '{DEMO}', dtype: float32}}
calibration: {{corpus: '{DEMO}/calibration.txt', samples: 4, seq_len: 64}}
scheme: {{weights: {{type: [{', '.join(types)}], group_size: 32, symmetric: false}}}}
pipeline: {json.dumps(list(pipelines))}
evaluation: [{{corpus: '{DEMO}/evaluation.txt', seq_len: 64, windows: {windows}}}]
""")
    return path


def plan(qbench, path, *more):
    return json.loads(qbench("sweep", path, "--dry-run", "--json", "-w", "w", *more).stdout)


def test_the_recipes_are_those_of_pythons_product(qbench):
    kinds, seeds = ["int3", "int4"], [1, 2]
    pipelines = [["rtn"], ["awq", "gptq"], [{"method": "gptq", "percdamp": 0.1}]]
    corpora = [str(DEMO / f"{text}.txt") for text in TEXTS]
    swept = by_hand(kinds, 32, pipelines, "x", seeds)
    del swept["name"]
    swept["calibration"]["corpus"] = corpora
    path = qbench.folder / "product.yaml"
    path.write_text(yaml.safe_dump(swept, sort_keys=False))
    told = plan(qbench, path)
    assert not (qbench.folder / "w").exists()  # a look leaves nothing behind
    assert told["name"] == "product" and not told["omitted"] and not told["refused"]

    # The file's order of keys: the last list changes fastest.
    expected = {}
    for index, (text, kind, pipeline, seed) in enumerate(itertools.product(TEXTS, kinds, pipelines, seeds)):
        hand = qbench.folder / "hand.yaml"
        hand.write_text(yaml.safe_dump(by_hand(kind, 32, pipeline, text, seed)))
        stages = "+".join(stage if isinstance(stage, str) else stage["method"] for stage in pipeline)
        expected[index] = (json.loads(qbench("recipe", "check", hand, "--json").stdout)["hash"], f"{kind} {stages} {text} seed {seed}")
    found = {r["product_index"]: (r["hash"], r["name"]) for r in told["recipes"]}
    assert found == expected
    assert len({name for _, name in found.values()}) == 2 * 2 * 3 * 2

    # In the order of work recipes of one text and seed stand together, and of one pipeline inside of these.
    for keys in (["calibration.corpus", "seed"], ["calibration.corpus", "seed", "pipeline"]):
        groups_in_turn = [tuple(r["differing"][key] for key in keys) for r in told["recipes"]]
        assert len(list(itertools.groupby(groups_in_turn))) == len(set(groups_in_turn))
    assert [r["differing"]["pipeline"] for r in told["recipes"][:6:2]] == ["[rtn]", "[{method: gptq, percdamp: 0.1}]", "[awq, gptq]"]


def test_filters_are_pythons(qbench):
    path = small(qbench.folder, types=("int2", "int3", "int4"), pipelines=(["rtn"], ["gptq"], ["awq", "gptq"]),
                 block="sweep: {name: chosen, exclude: [{scheme.weights.type: [int2, int3], pipeline: [rtn]}, {pipeline: [[awq, gptq]], scheme.weights.type: int4}]}")
    told = plan(qbench, path)
    pairs = [(k, p) for k, p in itertools.product(["int2", "int3", "int4"], ["[rtn]", "[gptq]", "[awq, gptq]"])
             if not (k in ("int2", "int3") and p == "[rtn]") and not (k == "int4" and p == "[awq, gptq]")]
    assert sorted((r["differing"]["scheme.weights.type"], r["differing"]["pipeline"]) for r in told["recipes"]) == sorted(pairs)
    assert told["name"] == "chosen" and len(told["omitted"]) == 3 and all(o["filtered"] for o in told["omitted"])


def test_a_sweep_runs_leaves_out_what_is_done_and_compares(qbench):
    path = small(qbench.folder, types=("int3", "int4"), block="sweep: {name: night}")
    first = json.loads(qbench("sweep", path, "-w", "w", "--json", "-q").stdout)
    assert [r["status"] for r in first["reports"]] == ["finished"] * 2
    assert {r["sweep"] for r in first["reports"]} == {"night"} and {r["name"] for r in first["reports"]} == {"int3", "int4"}
    assert [r["state"] for r in first["recipes"]] == ["done"] * 2
    # The same recipe carried out by hand counts as done, too.
    again = plan(qbench, small(qbench.folder, types=("int3", "int4", "int5")))
    assert {r["name"]: r["state"] for r in again["recipes"]} == {"int3": "done", "int4": "done", "int5": "new"}
    shown = qbench("sweep", small(qbench.folder, types=("int3", "int4", "int5")), "-w", "w", "-q").stdout
    assert "3 recipes, 2 done, 1 to carry out" in shown
    assert shown.count("run 2") == 1  # one summary
    table = shown[shown.rindex("perplexity"):]
    assert all(name in table for name in ("int3", "int4", "int5"))
    assert "3 done, 0 to carry out" in qbench("sweep", small(qbench.folder, types=("int3", "int4", "int5")), "-w", "w").stdout
    assert len(list((qbench.folder / "w/runs").iterdir())) == 3


def test_what_does_not_fit_is_told_and_the_others_are_carried_out(qbench):
    path = qbench.folder / "groups.yaml"
    path.write_text(small(qbench.folder).read_text().replace("[int3, int4]", "int4").replace("group_size: 32", "group_size: [32, 48]"))
    told = plan(qbench, path)
    assert [r["name"] for r in told["recipes"]] == ["g32"]
    assert told["refused"][0]["name"] == "g48" and "48" in told["refused"][0]["reason"] and "q_proj" in told["refused"][0]["reason"]
    done = qbench("sweep", path, "-w", "w", "-q")
    assert "refused: g48" in done.stdout
    assert len(list((qbench.folder / "w/runs").iterdir())) == 1
    # Nothing is begun where nothing fits.
    path.write_text(path.read_text().replace("[32, 48]", "[48, 80]"))
    assert "no recipe can be carried out" in qbench("sweep", path, "-w", "other", code=4).stderr
    assert not (qbench.folder / "other").exists()


def test_mistakes_name_file_line_and_key(qbench):
    path = small(qbench.folder, types=("int3", "int44"))
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if "int44" in text)
    error = qbench("sweep", path, "-w", "w", code=3).stderr
    assert f"{path}:{line}:" in error and "scheme.weights.type[1]" in error and "int44" in error
    assert not (qbench.folder / "w").exists()


def test_a_setting_holds_for_all(qbench):
    told = plan(qbench, small(qbench.folder), "--set", "scheme.weights.group_size=64", "--set", "evaluation[0].windows=3")
    plain = plan(qbench, small(qbench.folder))
    assert [r["name"] for r in told["recipes"]] == [r["name"] for r in plain["recipes"]]
    assert not {r["hash"] for r in told["recipes"]} & {r["hash"] for r in plain["recipes"]}


def test_a_file_may_grow_while_its_sweep_runs(qbench):
    path = small(qbench.folder, types=("int3", "int4"), pipelines=(["awq", "gptq"],), windows=40)
    running = subprocess.Popen([qbench.program, "sweep", path, "-w", "w", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=qbench.folder)
    deadline = time.monotonic() + 60
    while not (qbench.folder / "w/runs").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    path.write_text(path.read_text().replace("[int3, int4]", "[int3, int4, int5]"))
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert "3 recipes, 1 of them new" in err
    assert {r["name"].split()[0] for r in json.loads(out)["reports"]} == {"int3", "int4", "int5"}


def test_a_sweep_that_was_stopped_goes_on_with_the_same_run(qbench):
    path = small(qbench.folder, types=("int3", "int4"), pipelines=(["awq", "clip", "gptq"],), windows=0)
    running = subprocess.Popen([qbench.program, "sweep", path, "-w", "w"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=qbench.folder)
    deadline = time.monotonic() + 60
    while not list((qbench.folder / "w").glob("runs/*/blocks/block-0000.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    assert "the same command goes on" in err
    stopped = [Path(p).name for p in (qbench.folder / "w/runs").iterdir()]
    assert len(stopped) == 1
    states = {r["run"]: r["state"] for r in plan(qbench, path)["recipes"]}
    assert states == {stopped[0]: "to go on", None: "new"}
    result = json.loads(qbench("sweep", path, "-w", "w", "--json", "-q").stdout)
    assert len(result["reports"]) == 2 and stopped[0] in {r["id"] for r in result["reports"]}
    assert len(list((qbench.folder / "w/runs").iterdir())) == 2


def test_one_that_fails_leaves_the_others_their_turn(qbench):
    path = small(qbench.folder, types=("int3", "int4"))
    json.loads(qbench("sweep", path, "-w", "w", "--json", "-q").stdout)
    # The run of int3 is made to fail: its folder takes no log.
    for run in (qbench.folder / "w/runs").iterdir():
        report = json.loads((run / "report.json").read_text())
        report["status"] = "cancelled"
        (run / "report.json").write_text(json.dumps(report))
        if report["name"] == "int3":
            broken = run
    (broken / "log.txt").unlink()
    (broken / "log.txt").mkdir()
    done = qbench("sweep", path, "-w", "w", "-q", "--json", code=5)
    assert "int3:" in done.stderr
    assert [r["name"] for r in json.loads(done.stdout)["reports"]] == ["int4"]


def test_the_page_on_large_studies_is_printed(qbench):
    assert {"name": "scale", "title": "Five hundred experiments: hours, disk, and what is shared"} in json.loads(qbench("help", "--json").stdout)
    assert qbench("help", "scale").stdout == (DEMO.parent / "help/scale.md").read_text()
    assert 'did you mean "scale"?' in qbench("help", "scal", code=4).stderr


def test_a_recipe_with_lists_is_told_where_it_is_one(qbench):
    told = qbench("run", small(qbench.folder), "--check", code=3).stderr
    assert "scheme.weights.type" in told and "found a list" in told and "qbench sweep" in told
