"""The evaluation list of recipes: every evaluator in one run, beside what `qbench eval` measures of the same model."""
import json
import math
import os
import re
import subprocess
import xml.etree.ElementTree

import pytest
from conftest import DEMO
from reports import figures, perplexities

ITEMS = [{"query": "To be, or not to be: that is", "choices": [" the question", " a potato"], "gold": 0},
         {"query": "Once upon a time there was a", "choices": [" king", " kilobyte", " the"], "gold": 0},
         {"query": "Thou art", "choices": [" xylophone", " a villain"], "gold": 1}]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "task.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    return tmp_path


def recipe(folder, evaluation, name="r", extra="", scheme="weights: {type: int3, group_size: 64, symmetric: false}", pipeline="rtn"):
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\nmodel: {{path: '{DEMO}', dtype: float32}}\nscheme:\n  {scheme}\npipeline: [{pipeline}]\n{extra}\nevaluation:\n{evaluation}\n")
    return path


def run(tool, folder, path, *arguments, code=0):
    done = subprocess.run([tool("qbench"), "run", path, "-w", folder / "w", "-q", "--json", *arguments], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)[0] if code == 0 else done.stderr


def evaluated(tool, *arguments):
    done = subprocess.run([tool("qbench"), "eval", *map(str, arguments), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


TEXT = f"corpus: '{DEMO}/evaluation.txt', seq_len: 64, windows: 5"
ALL = f"""  - {{{TEXT}}}
  - {{evaluator: divergence, {TEXT}, dtype: bfloat16}}
  - {{evaluator: divergence, {TEXT}, scored: second_half}}
  - {{evaluator: task, corpus: task.jsonl, few_shot: 1}}"""


def test_every_evaluator_finds_what_eval_finds_of_the_exported_model(tool, folder):
    report = run(tool, folder, recipe(folder, ALL, scheme="weights: {type: int4, group_size: 64, symmetric: false}"))
    kinds = [(e["evaluator"], e["float_model"]) for e in report["evaluations"]]
    assert kinds == [(name, float_model) for name in ("perplexity", "divergence", "divergence", "task") for float_model in (True, False)]
    done = subprocess.run([tool("qbench"), "export", report["id"], "-w", folder / "w", "--format", "compressed-tensors", "-o", folder / "out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [figures(e) for e in report["evaluations"]]
    text = ["--text", DEMO / "evaluation.txt", "--seq-len", 64, "--windows", 5]
    assert found[1]["perplexity"] == pytest.approx(evaluated(tool, folder / "out", *text)["perplexity"], rel=1e-6)
    for i, extra in ((3, ["--dtype", "bfloat16"]), (5, ["--scored", "second_half"])):
        theirs = evaluated(tool, folder / "out", "--against", DEMO, "--noise-floor", *text, *extra)
        for name, metric in theirs["metrics"].items():
            if metric["value"] is not None:
                assert found[i][name] == pytest.approx(metric["value"], rel=1e-6, abs=1e-9), name
        floor = theirs["noise_floor"]["dtype"] or theirs["noise_floor"]["weights"]
        assert found[i - 1]["kl"] == pytest.approx(floor["metrics"]["kl"]["value"], rel=1e-6, abs=1e-12)
        assert found[i - 1]["kl_bfloat16_weights"] == pytest.approx(theirs["noise_floor"]["weights"]["metrics"]["kl"]["value"], abs=1e-12)
    assert 0 < found[2]["kl"] < found[3]["kl"] and found[3]["settings"] == {"scored": "all"} and found[5]["settings"] == {"scored": "second_half"}
    for i, model in ((6, DEMO), (7, folder / "out")):
        theirs = evaluated(tool, model, "--task", folder / "task.jsonl", "--few-shot", 1)
        for name in ("acc", "acc_norm", "acc_bytes"):
            assert found[i][name] == theirs[name]["value"]
            assert found[i]["metrics"][name]["values"] == [answer[name] for answer in theirs["answers"]]
    assert found[7]["settings"] == {"few_shot": 1, "limit": 0} and found[7]["windows"] == 3
    assert report["evaluations"][3]["metrics"][0]["histogram"]["counts"]


def test_a_second_recipe_takes_the_float_models_figures_and_states_from_the_workspace(tool, folder):
    first = run(tool, folder, recipe(folder, ALL, "first"))
    second = run(tool, folder, recipe(folder, ALL, "second", scheme="weights: {type: int4, group_size: 64, symmetric: false}"))
    floats = [[(e["evaluator"], e["seconds"], [m["value"] for m in e["metrics"]]) for e in report["evaluations"] if e["float_model"]] for report in (first, second)]
    assert floats[0] == floats[1]  # seconds too: not another measurement
    assert list((folder / "w" / "cache" / "references").glob("*"))
    ours, other = ([figures(e) for e in report["evaluations"] if not e["float_model"]] for report in (first, second))
    assert other[1]["kl"] < ours[1]["kl"]
    alone = run(tool, folder, recipe(folder, ALL, "alone"), "--statistics-cache", "0")
    assert [[m["value"] for m in e["metrics"]] for e in alone["evaluations"]] == [[m["value"] for m in e["metrics"]] for e in first["evaluations"]]


def test_the_table_of_runs_has_their_columns(tool, folder):
    report = run(tool, folder, recipe(folder, ALL))
    done = subprocess.run([tool("qbench"), "list", "-w", folder / "w", "--columns", "name,ppl,kl,kl_error,kl_p99,same_top,kl_floor,acc,acc_norm", "--where", "kl>0", "--json"], capture_output=True, text=True)
    row, = json.loads(done.stdout)
    floor, divergence = (figures(e) for e in report["evaluations"][2:4])
    task = figures(report["evaluations"][7])
    assert (row["kl"], row["kl_p99"], row["same_top"], row["kl_floor"]) == (divergence["kl"], divergence["kl_p99"], divergence["same_top"], floor["kl"])
    assert row["kl_error"] == divergence["metrics"]["kl"]["standard_error"] and (row["acc"], row["acc_norm"]) == (task["acc"], task["acc_norm"])
    assert row["ppl"] == perplexities(report)[1]["perplexity"] and math.isfinite(row["ppl"])


@pytest.mark.parametrize("evaluation, message", [
    (f"  - {{evaluator: divergance, {TEXT}}}", 'did you mean "divergence"'),
    (f"  - {{evaluator: divergence, {TEXT}, scored: half}}", "evaluation[0].scored"),
    (f"  - {{{TEXT}, scored: all}}", "evaluation[0].scored"),
    ("  - {evaluator: task, corpus: task.jsonl, seq_len: 64}", "evaluation[0].seq_len"),
    ("  - {evaluator: task, corpus: task.jsonl, few_shot: -1}", "evaluation[0].few_shot"),
])
def test_mistakes_name_the_key(evaluation, message, tool, folder):
    error = run(tool, folder, recipe(folder, evaluation), code=3)
    assert message in error and "r.yaml:" in error


@pytest.mark.parametrize("line, message", [('{"query": "a", "choices": ["b", "c"], "gold": 2}', "gold"), ('{"query": "a", "choices": []}', "choices"), ("{", "task.jsonl:2")])
def test_a_broken_task_is_told_before_anything_is_quantized(line, message, tool, folder):
    (folder / "task.jsonl").write_text(json.dumps(ITEMS[0]) + "\n" + line + "\n")
    error = run(tool, folder, recipe(folder, "  - {evaluator: task, corpus: task.jsonl}"), code=4)
    assert "task.jsonl" in error and message in error
    assert not list((folder / "w" / "runs").glob("*/blocks/*.safetensors"))


def test_reports_of_earlier_versions_are_read(tool, folder):
    report = run(tool, folder, recipe(folder, f"  - {{{TEXT}}}"))
    path = folder / "w" / "runs" / report["id"] / "report.json"
    old = json.loads(path.read_text())
    old["perplexities"] = [{k: p[k] for k in ("corpus", "corpus_hash", "seq_len", "windows", "windows_total", "corpus_tokens", "dtype", "bos", "float_model", "perplexity", "mean_nll", "standard_error",
                                              "seconds", "window_nll")} for p in perplexities(old)]
    del old["evaluations"]
    path.write_text(json.dumps(old))
    for index in (folder / "w" / "cache").glob("index*"):
        index.unlink()
    done = subprocess.run([tool("qbench"), "show", report["id"], "-w", folder / "w", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for found, written in zip(perplexities(json.loads(done.stdout)), perplexities(report), strict=True):
        theirs, ours = found.pop("metrics")["nll"], written.pop("metrics")["nll"]
        assert found == written and theirs["standard_error"] == pytest.approx(ours["standard_error"], rel=1e-12) and theirs["values"] == ours["values"]


def test_a_checkpoint_without_its_original_has_no_divergence(tool, folder):
    report = run(tool, folder, recipe(folder, f"  - {{{TEXT}}}", scheme="weights: {type: int4, group_size: 64, symmetric: true}"))
    done = subprocess.run([tool("qbench"), "export", report["id"], "-w", folder / "w", "--format", "compressed-tensors", "-o", folder / "out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = folder / "imported.yaml"
    for model, code in ((folder / "out", 4), (DEMO, 0)):
        path.write_text(f"name: i\nmodel: {model}\ncheckpoint: {folder / 'out'}\npipeline: []\nevaluation:\n  - {{evaluator: divergence, {TEXT}}}\n")
        found = run(tool, folder, path, code=code)
        if code:
            assert "divergence is measured from the float model" in found
        else:
            assert figures(found["evaluations"][-1])["kl"] > 0


def test_llmc_is_told_what_it_cannot_measure(tool, folder):
    path = recipe(folder, ALL, extra=f"calibration: {{corpus: '{DEMO}/calibration.txt', samples: 4, seq_len: 64}}")
    done = subprocess.run([tool("qbench"), "recipe", "convert", path, "--to", "llmc"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "type: ppl" in done.stdout and "evaluation[1].evaluator" in done.stderr and "evaluation[3].evaluator" in done.stderr


def test_the_table_tells_all_that_runs_have(tool, folder):
    report = run(tool, folder, recipe(folder, ALL))
    done = subprocess.run([tool("qbench"), "evaluators", "--json"], capture_output=True, text=True)
    table = {e["name"]: e for e in json.loads(done.stdout)}
    assert set(table) == {e["evaluator"] for e in report["evaluations"]}
    for evaluation in report["evaluations"]:
        info = table[evaluation["evaluator"]]
        names, own = [m["name"] for m in info["metrics"]], [m["name"] for m in evaluation["metrics"]]
        assert own == [name for name in names if name in own] and set(info["headline"]) <= set(own)
        assert set(own) == set(names) - (set() if evaluation["float_model"] else {"kl_bfloat16_weights"})
        assert set(evaluation["settings"]) == {knob["name"] for knob in info["knobs"]}
    done = subprocess.run([tool("qbench"), "evaluators", "perplexty"], capture_output=True, text=True)
    assert done.returncode == 4 and 'did you mean "perplexity"' in done.stderr


def test_compare_pairs_windows_and_items(tool, folder):
    items = [{"query": f"{a} and {b}", "choices": [" thou", " king", " not", " zebra"], "gold": i % 3} for i, (a, b) in enumerate([(x, y) for x in ("love", "death", "night", "sword") for y in ("wolf", "house", "crown")])]
    (folder / "task.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    reports = [run(tool, folder, recipe(folder, ALL, name, scheme=f"weights: {{type: {kind}, group_size: 64, symmetric: false}}")) for name, kind in (("two", "int2"), ("four", "int4"))]
    done = subprocess.run([tool("qbench"), "compare", "two", "four", "--baseline", "four", "-w", folder / "w"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    two, four = ([figures(e)["metrics"] for e in report["evaluations"] if not e["float_model"]] for report in reports)
    kl = [a - b for a, b in zip(two[1]["kl"]["values"], four[1]["kl"]["values"], strict=True)]
    mean = sum(kl) / len(kl)
    error = math.sqrt(sum((d - mean) ** 2 for d in kl) / (len(kl) - 1) / len(kl))
    row = next(line for line in lines if line.startswith("two") and f"{two[1]['kl']['value']:.4g}" in line)
    found, spread = (float(x) for x in row.split("nats")[2].split("%")[1].split("±"))
    assert found == pytest.approx(mean, rel=1e-3) and spread == pytest.approx(error, rel=0.06)
    right = list(zip(two[3]["acc"]["values"], four[3]["acc"]["values"], strict=True))
    here, there = right.count((1, 0)), right.count((0, 1))
    assert here + there > 0
    p = min(1, 2 * sum(math.comb(here + there, k) for k in range(min(here, there) + 1)) / 2 ** (here + there))
    assert f"{here} right only here, {there} only there, p = {p:.3g}" in done.stdout
    assert "noise floor" in done.stdout and "Δ against four, item by item" in done.stdout


@pytest.fixture(scope="module")
def three(tool, tmp_path_factory):
    """A workspace with runs of three widths, with perplexity and divergence."""
    folder = tmp_path_factory.mktemp("three")
    for name, kind in (("two", "int2"), ("four", "int4"), ("eight", "int8")):
        run(tool, folder, recipe(folder, f"  - {{{TEXT}}}\n  - {{evaluator: divergence, {TEXT}}}", name, scheme=f"weights: {{type: {kind}, group_size: 64, symmetric: false}}"))
    return folder


def test_best_takes_the_run_that_no_other_beats_with_its_evidence(tool, three):
    folder = three

    def best(*arguments, code=0):
        done = subprocess.run([tool("qbench"), "best", "-w", folder / "w", *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr
    found = json.loads(best("-m", "kl,bits", "--json"))
    assert {r["name"]: r["front"] for r in found["runs"]} == {"two": True, "four": True, "eight": True} and found["best"].endswith("-eight")
    assert json.loads(best("-m", "kl,bits", "--where", "bits<5", "--json"))["best"].endswith("-four")
    best("-m", "kl,bits", "--where", "bits<5", "-H", "rtx-4090", "-o", folder / "best.yaml")
    text = (folder / "best.yaml").read_text()
    assert text.startswith("# Chosen among 2 runs of demo by kl, bits\n") and "# also not beaten: two" in text and "rtx-4090" in text and "noise floor" in text
    again = subprocess.run([tool("qbench"), "run", "--check", folder / "best.yaml"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    small = folder / "small.yaml"
    small.write_text("memory_gb: 0.0012\nbandwidth_gb_s: 1\ncompute_tflops: {float32: 1}\n")
    found = json.loads(best("-m", "kl,bits", "-H", small, "-c", "16", "--json"))
    assert found["best"].endswith("-two") and len(found["left_out"]) == 2 and all("does not fit" in line for line in found["left_out"])
    assert "no finished run is left" in best("-H", small, "-c", "16", "--where", "bits>5", code=4)
    assert "--hardware" in best("--decode", "5", code=2)
    assert "no figure" in best("-m", "kl,name", code=4)


def test_best_writes_for_other_programs_and_says_what_is_missing(tool, three, tmp_path):
    def best(*arguments, code=0):
        done = subprocess.run([tool("qbench"), "best", "-w", three / "w", "-m", "kl,bits", "--where", "bits<5", *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr
    found = json.loads(best("--engine", "mlx-lm", "--json"))
    assert found["best"].endswith("-four") and all(r["formats"] == ["mlx"] for r in found["runs"])
    assert "llama.cpp loads it in no format" in best("--engine", "llama.cpp", code=4)
    assert "expected one of" in best("--engine", "nobody", code=4)
    best("--to", "gptqmodel", "-o", tmp_path / "best.py")
    script = (tmp_path / "best.py").read_text()
    assert "# Chosen among 2 runs of demo by kl, bits\n" in script and "QuantizeConfig(bits=4, group_size=64, sym=False" in script
    # Nobody calibrated these runs: what the rule asks for of searches needs a text.
    assert any("has no calibration text" in line for line in found["advice"])
    assert found["missing"] == []  # rounding to nearest in 4 and 8 bits is there
    long = json.loads(best("-H", "rtx-4090", "--json"))["missing"]  # at 4096 tokens the cache is large beside so small a model
    assert any("kv_cache:" in one["recipe"] and "cache takes" in one["why"] for one in long)
    card = ["-H", "rtx-4090", "-c", "16"]  # which multiplies FP8: rounding to it reads no text
    asked = json.loads(best(*card, "--json"))["missing"]
    assert [one["takeaway"] for one in asked] == ["scheme"] and "type: e4m3" in asked[0]["recipe"] and "FP8" in asked[0]["why"]
    assert json.loads(best(*card, "--engine", "mlx-lm", "--json"))["missing"] == []
    best(*card, "--write-missing", tmp_path / "missing")
    for path in (tmp_path / "missing").iterdir():
        assert path.read_text().startswith("# scheme: ")
        checked = subprocess.run([tool("qbench"), "run", "--check", path], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
    best(*card, "--add-missing")
    queue = json.loads(subprocess.run([tool("qbench"), "queue", "-w", three / "w", "--json"], capture_output=True, text=True).stdout)
    assert [one["name"] for one in queue] == [asked[0]["name"]]
    assert json.loads(best(*card, "--json"))["missing"] == []  # what waits is answered
    for one in queue:
        subprocess.run([tool("qbench"), "remove", one["run"], "-w", three / "w", "--yes"], check=True, capture_output=True)


def test_a_report_is_one_file_with_all_about_its_runs(tool, three, tmp_path):
    tool("qbench-workbench")

    def report(*arguments, code=0, **environment):
        done = subprocess.run([tool("qbench"), "report", "-w", three / "w", *map(str, arguments)], capture_output=True, text=True, env={**os.environ, **environment})
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr
    page = tmp_path / "report.html"
    told = json.loads(report("--where", "bits<5", "-m", "kl,bits", "-H", "rtx-4090", "--title", "Two & three", "-o", page, "--json"))
    assert len(told["runs"]) == 2 and told["bytes"] == page.stat().st_size
    text = page.read_text()
    root = xml.etree.ElementTree.fromstring(text.replace("<!DOCTYPE html>", ""))
    assert root.find(".//h1").text == "Two & three"
    assert not re.search(r'(?:src|href|srcset)="(?!data:|#)', text) and "@import" not in text and text.count("<picture>") >= 6
    words = "".join(root.itertext())
    assert "Take four: KL divergence" in words and "not beaten" in words and "Predicted, not measured" in words and "qbench run recipe.yaml" in words
    recipe_yaml = subprocess.run([tool("qbench"), "show", "four", "--recipe", "-w", three / "w"], capture_output=True, text=True).stdout
    assert recipe_yaml.strip() in words
    report("two", "four", "-o", tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    for arguments, code, said in ((["--where", "bits>9", "-o", page], 4, "no finished run that meets the conditions"), (["nobody", "-o", page], 4, "nobody"),
                                  (["two", "-o", tmp_path / "report.txt"], 4, "report.txt"), (["two", "-o", tmp_path / "absent" / "report.html"], 5, "absent/report.html: cannot be written")):
        error = report(*arguments, code=code)
        assert error.startswith("qbench: ") and error.count("\n") == 1 and said in error, error
    missing = report("two", "-o", page, code=5, QBENCH_WORKBENCH=str(tmp_path / "nothing"))
    assert "nothing" in missing
