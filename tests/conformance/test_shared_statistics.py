"""Recipes that share what earlier ones left in a workspace have the bits that they have alone, whatever their stages and schemes."""
import json
import shutil
import subprocess
import time

import pytest
from safetensors.torch import load_file, save_file

from test_cli import DEMO, qbench  # noqa: F401

PIPELINES = {
    "awq": "awq", "awq-again": "{method: awq}, {method: rtn}", "awq-clip": "awq, clip", "awq-module": "{method: awq, objective: module}", "os_plus": "os_plus",
    "smoothquant": "smoothquant", "gptq": "gptq", "awq-clip-gptq": "awq, clip, gptq", "gptq-sequential": "{method: gptq, true_sequential: true}", "hqq": "hqq", "rtn": "rtn",
    "learned": "awq, {method: autoround, iters: 2}",
}
SCHEMES = {
    "sym": "{type: int4, symmetric: true, granularity: channel}",
    "asym": "{type: int3, symmetric: false, granularity: channel}",
    "group": "{type: int3, symmetric: false, granularity: group, group_size: 32}",
}
CASES = [(pipeline, scheme, propagate) for propagate in (False, True) for scheme in SCHEMES for pipeline in PIPELINES
         if not (pipeline == "hqq" and scheme == "sym")]  # it optimises zero points
BASE = ("awq, clip, gptq", SCHEMES["group"], False)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The demo model, of two blocks, with a row of zeros and an input channel that is always zero."""
    folder = tmp_path_factory.mktemp("shared") / "model"
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.txt", "*.py", "*.yaml"))
    tensors = load_file(DEMO / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.weight"][3] = 0
    tensors["model.layers.1.mlp.up_proj.weight"][5] = 0
    for norm in ("0.input_layernorm", "1.post_attention_layernorm"):
        tensors[f"model.layers.{norm}.weight"][7] = 0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    return folder


def write(folder, model, name, pipeline, weights, propagate, extra="", text=None, samples=20):
    path = folder / f"{name}.yaml"
    path.write_text(f"""name: {name}
model: {{path: '{model}', dtype: bfloat16}}
calibration: {{corpus: '{text or DEMO / "calibration.txt"}', sampling: sequential, samples: {samples}, seq_len: 120}}
scheme:
  weights: {weights}
pipeline: [{pipeline}]
propagate_quantized: {str(propagate).lower()}
{extra}
""")
    return path


def carried_out(qbench, paths, workspace, *extra):  # noqa: F811
    """name → its report, the bytes of its blocks, its log."""
    told = {}
    for report in json.loads(qbench("run", *paths, "-q", "--json", "-w", workspace, *extra).stdout):
        run = qbench.folder / workspace / "runs" / report["id"]
        told[report["name"]] = report, {f.name: f.read_bytes() for f in (run / "blocks").glob("*.safetensors")}, (run / "log.txt").read_text()
    return told


def figures(report):
    """All that is told of a run's blocks but what it took."""
    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in ("seconds", "peak_rss_bytes", "statistics_cached")}
        return [plain(v) for v in value] if isinstance(value, list) else value
    return plain(report["blocks"])


def test_every_recipe_has_the_bits_that_it_has_alone(qbench, model):  # noqa: F811
    paths = [write(qbench.folder, model, f"{p}-{s}-{q}", PIPELINES[p], SCHEMES[s], q) for p, s, q in CASES]
    alone = carried_out(qbench, paths, "alone", "--statistics-cache", 0)
    first = carried_out(qbench, paths, "shared")
    again = carried_out(qbench, paths[::-1], "shared")  # all is there that may be
    for told in (first, again):
        assert len(told) == len(CASES)
        for name, (report, blocks, _) in alone.items():
            assert told[name][1] == blocks, name
            assert figures(told[name][0]) == figures(report), name
    assert all("came from the cache" not in log for _, _, log in alone.values())
    for name, (report, _, log) in again.items():
        # Of stages with passes of their own the float model's states must be moved on anyway, or outputs made.
        kept = not any(x in name for x in ("learned", "module")) and (name.endswith("True") or not any(x in name for x in ("sequential", "os_plus")))
        own = name.endswith("True") and name.split("-")[0] in ("rtn", "hqq")  # the first block's alone
        assert report.get("statistics_cached_blocks", 0) == (0 if not kept else 1 if own else 2), name
        assert ("choices of awq of 2 of 2 blocks came from the cache" in log) == ("awq" in name or "learned" in name), name
        assert ("choices of clip of 2 of 2 blocks came from the cache" in log) == ("clip" in name), name
        assert ("choices of os_plus of 2 of 2 blocks came from the cache" in log) == ("os_plus" in name), name
    assert "choices of awq of 2 of 2" in first["awq-clip-gptq-group-False"][2] and "choices of clip of 2 of 2" in first["awq-clip-gptq-group-False"][2]


@pytest.mark.parametrize("what, change", [
    ("knob", {"pipeline": "{method: awq, grid: 11}, {method: clip, n_grid: 9}, gptq"}),
    ("seed", {"extra": "seed: 7"}),
    ("scheme", {"weights": "{type: int3, symmetric: false, granularity: group, group_size: 64}"}),
    ("range", {"weights": "{type: int3, symmetric: false, granularity: group, group_size: 32, range: mse}"}),
    ("text", {"text": DEMO / "evaluation.txt"}),
    ("length", {"samples": 19}),
    ("one block", {"extra": "", "weights": "{type: int3, symmetric: false, granularity: group, group_size: 32}\n  overrides:\n    - {match: 'model.layers.0.*', weights: {type: int4, symmetric: false, granularity: group, group_size: 32}}"}),
])
@pytest.mark.parametrize("propagate", [False, True])
def test_what_differs_takes_nothing_stale(qbench, model, what, change, propagate):  # noqa: F811
    pipeline, weights, _ = BASE
    base = dict(pipeline=pipeline, weights=weights, propagate=propagate)
    carried_out(qbench, [write(qbench.folder, model, "base", **base)], "shared")
    path = write(qbench.folder, model, "other", **(base | change))
    (shared,), (alone,) = (list(carried_out(qbench, [path], w, *extra).values()) for w, extra in (("shared", []), ("alone", ["--statistics-cache", 0])))
    assert shared[1] == alone[1] and figures(shared[0]) == figures(alone[0])
    assert ("choices of awq" in shared[2]) == (what == "one block" and not propagate)
    if what == "one block" and not propagate:
        assert "choices of awq of 1 of 2 blocks" in shared[2]


def test_damaged_entries_are_made_anew(qbench, model):  # noqa: F811
    path = write(qbench.folder, model, "r", "awq, clip, gptq", SCHEMES["group"], True)
    (sound,) = carried_out(qbench, [path], "w").values()
    cache = qbench.folder / "w" / "cache" / "statistics"
    entries = sorted(cache.rglob("*.safetensors"))
    # Statistics of both blocks, states behind both, choices of two stages on both.
    assert len(entries) == 8
    for i, entry in enumerate(entries):
        whole = bytearray(entry.read_bytes())
        if i % 2:
            whole = whole[:len(whole) // 2]
        else:
            whole[-2] ^= 16
        entry.write_bytes(whole)
        (again,) = carried_out(qbench, [path], "w").values()
        assert again[1] == sound[1] and str(entry) in again[2] and figures(again[0]) == figures(sound[0])
        (mended,) = carried_out(qbench, [path], "w").values()
        assert mended[1] == sound[1] and str(entry) not in mended[2]


def test_processes_share_a_cache_while_one_is_killed_and_one_makes_room(qbench, model):  # noqa: F811
    paths = [write(qbench.folder, model, f"r-{propagate}", "awq, clip, gptq", SCHEMES["group"], propagate) for propagate in (False, True)]
    alone = carried_out(qbench, paths, "alone", "--statistics-cache", 0)
    cache = qbench.folder / "shared" / "cache" / "statistics"

    def start(*extra):
        return subprocess.Popen([qbench.program, "run", *paths, "-q", "--json", "-w", "shared", *extra], cwd=qbench.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    killed, *others = start(), start("--statistics-cache", "0.001"), start()
    while killed.poll() is None and not any(cache.rglob("*block*")):
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    for process in others:
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        for report in json.loads(out):
            blocks = {f.name: f.read_bytes() for f in (qbench.folder / "shared" / "runs" / report["id"] / "blocks").glob("*.safetensors")}
            assert blocks == alone[report["name"]][1] and figures(report) == figures(alone[report["name"]][0])
    for name, (report, blocks, log) in carried_out(qbench, paths, "shared").items():
        assert blocks == alone[name][1] and figures(report) == figures(alone[name][0])
        assert "made anew" not in log


def test_statistics_and_the_float_evaluation_that_another_run_makes_are_waited_for(qbench):  # noqa: F811
    evaluation = f"evaluation: [{{corpus: '{DEMO}/evaluation.txt', seq_len: 128, windows: 100}}]"
    paths = [write(qbench.folder, DEMO, name, name, SCHEMES["group"], False, evaluation, samples=600) for name in ("gptq", "awq")]
    alone = {name: outcome for path in paths for name, outcome in carried_out(qbench, [path], f"alone-{path.stem}", "--statistics-cache", "0").items()}
    processes = [subprocess.Popen([qbench.program, "run", path, "-q", "--json", "-w", "w"], cwd=qbench.folder, stdout=subprocess.PIPE, text=True) for path in paths]
    reports = {report["name"]: report for process in processes for report in json.loads(process.communicate(timeout=300)[0])}
    cached = sorted(report["statistics_cached_blocks"] for report in reports.values())
    logs = {name: (qbench.folder / "w" / "runs" / report["id"] / "log.txt").read_text() for name, report in reports.items()}
    waited = sum("another run collects its statistics" in log for log in logs.values())
    assert cached == [0, 4] and waited == 1, (cached, logs)  # collected once, though both began with nothing
    def measures_the_float_model(report):
        lines = (qbench.folder / "w" / "runs" / report["id"] / "events.jsonl").read_text().splitlines()
        return any(e["event"] == "estimate" and e["estimate"]["float_model"] and e["estimate"]["windows"] < 100 for e in map(json.loads, lines))
    assert sum(map(measures_the_float_model, reports.values())) == 1
    for name, report in reports.items():
        folder = qbench.folder / "w" / "runs" / report["id"] / "blocks"
        assert {p.name: p.read_bytes() for p in folder.glob("*.safetensors")} == alone[name][1]
    assert not list((qbench.folder / "w" / "cache").rglob("*.tmp")) and all(not p.read_text() for p in (qbench.folder / "w" / "cache").rglob("*.lease"))
