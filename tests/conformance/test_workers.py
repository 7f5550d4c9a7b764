"""Runs as processes of their own: killed at random moments with or without the program that started them, on full and read-only disks; conducted
through their folders; waiting for memory and devices. What they leave is compared with undisturbed runs, byte by byte."""
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from test_cli import DEMO, qbench  # noqa: F401
from reports import perplexities

RECIPES = {  # several ways through the engine, each a few seconds long
    "rtn": ("[rtn]", "int4", ""), "gptq": ("[gptq]", "int4", ""), "awq": ("[awq]", "int4", ""), "awq-clip": ("[awq, clip]", "int3", ""), "awq-clip-gptq": ("[awq, clip, gptq]", "int3", ""),
    "hqq": ("[hqq]", "int3", ""), "float-path": ("[gptq]", "int4", "propagate_quantized: false\n"), "quarot": ("[quarot, gptq]", "int4", ""), "int8": ("[rtn]", "int8", ""), "tuned": ("[rtn, {method: e2e_tuning, epochs: 1}]", "int3", ""),
}


def write(folder, name, samples=48):
    pipeline, kind, extra = RECIPES[name]
    path = folder / f"{name}.yaml"
    path.write_text(f"""name: {name}
model: {{path: {DEMO}, dtype: float32}}
calibration: {{corpus: {DEMO}/calibration.txt, sampling: random_windows, samples: {samples}, seq_len: 128}}
scheme:
  weights: {{type: {kind}, symmetric: false, granularity: group, group_size: 64}}
pipeline: {pipeline}
evaluation:
  - {{corpus: {DEMO}/evaluation.txt, seq_len: 128, windows: 20}}
{extra}""")
    return path


def outcome(run):
    """What a run made: its files of codes, and the figures of every window."""
    report = json.loads((run / "report.json").read_text())
    assert report["status"] == "finished", (report["status"], report["error"])
    blocks = {p.name: p.read_bytes() for p in (run / "blocks").glob("*.safetensors")}
    assert len(blocks) >= len(report["blocks"]) > 0
    return blocks, [p["window_nll"] for p in perplexities(report)]


def runs_of(workspace):
    return {json.loads((run / "report.json").read_text())["name"]: run for run in sorted((workspace / "runs").iterdir())}


def leased(workspace):
    """Processes that hold a run's lease and live."""
    found = []
    for owner in workspace.glob("runs/*/owner"):
        words = owner.read_text().split()
        if words and Path(f"/proc/{words[0]}").exists() and Path(f"/proc/{words[0]}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
            found.append(int(words[0]))
    return found


def workers_of(workspace):
    """Every process that works for a workspace, whether it holds a lease or not."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = line.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(workspace) in words and (b"work" in words or b"--work" in words):
            found.append(int(line.parent.name))
    return found


@pytest.fixture(scope="module")
def undisturbed(tool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run([tool("qbench"), "run", *(write(folder, name) for name in RECIPES), "-w", folder / "w", "-q"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return {name: outcome(run) for name, run in runs_of(folder / "w").items()}


def test_a_hundred_kills_cost_nothing(tool, qbench, undisturbed):  # noqa: F811
    """Slow, for what it proves: that no moment of a night's work is a bad one for a kill. 30 kills; QBENCH_FULL=1 makes them 100."""
    kills, rng = 100 if os.environ.get("QBENCH_FULL") else 30, random.Random(int(os.environ.get("QBENCH_SEED", "17")))
    folder, workspace = qbench.folder, qbench.folder / "w"
    ids = qbench("queue", "add", *(write(folder, name) for name in RECIPES), "-w", workspace).stdout.split()
    assert len(ids) == len(RECIPES)
    window = tool("qbench").parent / "qbench-workbench"
    ways = [[tool("qbench"), "work", "-w", workspace]]
    if window.exists():
        ways.append([window, "--work", "--workspace", workspace])
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen", "XDG_CONFIG_HOME": str(folder / "settings"), "HOME": str(folder)}
    keeper, counted, deadline = None, {"keeper": 0, "worker": 0, "both": 0}, time.time() + 900

    def unfinished():
        return [run for run in runs_of(workspace).values() if json.loads((run / "report.json").read_text())["status"] != "finished"]

    def go_on():
        """Runs that were killed again and again before a block was done are not started by themselves any more: somebody resumes them."""
        for row in json.loads(qbench("queue", "-w", workspace, "--json").stdout):
            if row["attempts"] >= 3 or row["wish"] != "run":
                qbench("queue", "resume", row["run"], "-w", workspace)

    try:
        while sum(counted.values()) < kills and unfinished():
            assert time.time() < deadline
            if keeper is None or keeper.poll() is not None:
                go_on()
                keeper = subprocess.Popen(rng.choice(ways), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=folder)
                until = time.time() + 10
                while not leased(workspace) and keeper.poll() is None and time.time() < until:
                    time.sleep(0.01)
            time.sleep(rng.expovariate(1 / 0.25))
            victim = rng.choice(list(counted))
            workers = leased(workspace)
            hit = ([keeper.pid] if victim != "worker" and keeper.poll() is None else []) + (workers if victim != "keeper" else [])
            for process in hit:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    hit = []
            if hit:
                counted[victim] += 1
            if victim != "worker":
                keeper.wait()
        # Nobody disturbs it any more.
        if keeper.poll() is None:
            keeper.kill()
            keeper.wait()
        until = time.time() + 120
        while leased(workspace):  # a worker whose window was killed finishes its run
            assert time.time() < until
            time.sleep(0.05)
        while unfinished():
            assert time.time() < deadline
            go_on()
            done = qbench("work", "-w", workspace)
    finally:
        for process in workers_of(workspace):
            os.kill(process, signal.SIGKILL)
    assert sum(counted.values()) >= kills * 0.6, counted  # fewer only when all was done before
    print("kills:", counted)
    assert {name: outcome(run) for name, run in runs_of(workspace).items()} == undisturbed
    assert not list(workspace.rglob("*.tmp")) and not list(workspace.rglob("request.json"))
    assert all(not owner.read_text() for owner in workspace.glob("runs/*/owner"))
    assert json.loads(qbench("queue", "-w", workspace, "--json").stdout) == []
    listed = json.loads(qbench("list", "-w", workspace, "--columns", "id,status", "--json").stdout)  # from the index
    assert {(row["id"], row["status"]) for row in listed} == {(run, "finished") for run in ids}
    assert not workers_of(workspace)


def start(qbench, *arguments, **options):  # noqa: F811
    return subprocess.Popen([qbench.program, *map(str, arguments)], cwd=qbench.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def wait_for(condition, seconds=60):
    until = time.time() + seconds
    while not condition():
        assert time.time() < until
        time.sleep(0.01)


def events(run):
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk is root's")
@pytest.mark.parametrize("moment", range(4))
def test_a_full_disk_at_any_moment_leaves_the_last_good_state(qbench, undisturbed, moment):  # noqa: F811
    name = ["awq-clip-gptq", "gptq", "hqq", "tuned"][moment]
    disk = qbench.folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        process = start(qbench, "run", write(qbench.folder, name), "-w", disk / "w", "-q")
        wait_for(lambda: (disk / "w").exists() and len(list((disk / "w").glob("runs/*/blocks/*.safetensors"))) > moment or process.poll() is not None)
        time.sleep(0.1 * moment)
        with pytest.raises(OSError), open(disk / "filler", "wb") as filler:
            while True:
                filler.write(b"\0" * 4096)
                filler.flush()
        out, err = process.communicate(timeout=120)
        (run,) = (disk / "w" / "runs").iterdir()
        if process.returncode != 0:  # all may have been written
            assert process.returncode == 5 and re.search("No space left on device|disk is full", err) and str(disk) in err, (process.returncode, err)
        json.loads((run / "report.json").read_text())
        assert not list(run.rglob("*.tmp"))
        (disk / "filler").unlink()
        qbench("run", "-w", disk / "w", "--resume", run.name, "-q")
        assert outcome(run) == undisturbed[name]
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_a_disk_that_becomes_read_only_leaves_the_last_good_state(qbench, undisturbed, blocks):  # noqa: F811
    # As root: its right to write everywhere is given away.
    prefix = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
    path = write(qbench.folder, "awq-clip")
    process = subprocess.Popen([*prefix, qbench.program, "run", path, "-w", "w", "-q"], cwd=qbench.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(list(qbench.folder.glob("w/runs/*/blocks/*.safetensors"))) >= blocks and list(qbench.folder.glob("w/runs/*/blocks")) or process.poll() is not None)
    (run,) = (qbench.folder / "w" / "runs").iterdir()
    folders = [run, run / "blocks"]
    for folder in folders:
        folder.chmod(0o555)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 5 and "Permission denied" in err and str(run) in err, (process.returncode, err)
    json.loads((run / "report.json").read_text())
    for folder in folders:
        folder.chmod(0o755)
    qbench("run", "-w", "w", "--resume", run.name, "-q")
    assert outcome(run) == undisturbed["awq-clip"]


def test_a_run_is_conducted_from_another_process(qbench, undisturbed):  # noqa: F811
    process = start(qbench, "run", write(qbench.folder, "awq-clip"), "-w", "w", "--json", "-q")
    wait_for(lambda: list(qbench.folder.glob("w/runs/*/blocks/block-0000.json")))
    (run,) = (qbench.folder / "w" / "runs").iterdir()
    qbench("queue", "pause", run.name, "-w", "w")
    wait_for(lambda: events(run)[-1]["event"] == "paused")
    (row,) = json.loads(qbench("queue", "-w", "w", "--json").stdout)
    assert row["wish"] == "hold" and row["process"] in leased(qbench.folder / "w") and row["process"] != process.pid
    assert "paused in process" in qbench("queue", "-w", "w").stdout
    before = events(run)
    time.sleep(0.6)
    assert events(run) == before and process.poll() is None
    qbench("queue", "resume", "awq-clip", "-w", "w")  # by its name
    (report,) = json.loads(process.communicate(timeout=120)[0])
    assert report["status"] == "finished" and outcome(run) == undisturbed["awq-clip"]
    kinds = [event["event"] for event in events(run)]
    assert kinds[0] == "begin" and kinds[-1] == "end" and kinds.count("block") == 4 and kinds.index("paused") < kinds.index("resumed")


def test_stopping_and_yielding_from_another_process(qbench, undisturbed):  # noqa: F811
    process = start(qbench, "run", write(qbench.folder, "hqq"), "-w", "w", "-q")
    wait_for(lambda: list(qbench.folder.glob("w/runs/*/blocks/block-0000.json")))
    (run,) = (qbench.folder / "w" / "runs").iterdir()
    qbench("queue", "yield", run.name, "-w", "w")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 5 and "make room" in err and "--resume" in err
    report = json.loads((run / "report.json").read_text())
    assert report["status"] == "interrupted" and len(list((run / "blocks").glob("*.safetensors"))) < 4
    assert "waits, to go on" in qbench("queue", "-w", "w").stdout
    worker = start(qbench, "work", "-w", "w")
    wait_for(lambda: leased(qbench.folder / "w"))
    qbench("queue", "stop", run.name, "-w", "w")
    assert "cancelled" in worker.communicate(timeout=60)[0]
    assert json.loads((run / "report.json").read_text())["status"] == "cancelled"
    assert "no run waits" in qbench("queue", "-w", "w").stdout
    qbench("queue", "resume", run.name, "-w", "w")
    qbench("work", "-w", "w")
    assert outcome(run) == undisturbed["hqq"]


def test_a_queue_is_carried_out_in_its_order(qbench):  # noqa: F811
    ids = qbench("queue", "add", *(write(qbench.folder, name, samples=8) for name in ("rtn", "int8", "gptq", "hqq")), "-w", "w").stdout.split()
    rtn, int8, gptq, hqq = ids
    qbench("queue", "move", gptq, "--before", int8, "-w", "w")
    qbench("queue", "move", hqq, "--priority", 2, "-w", "w")
    qbench("queue", "pause", int8, "-w", "w")
    assert [row["run"] for row in json.loads(qbench("queue", "-w", "w", "--json").stdout)] == [hqq, rtn, gptq, int8]
    done = qbench("work", "-w", "w").stdout
    assert re.findall(r"(\S+): finished", done) == [hqq, rtn, gptq]
    assert "on hold" in qbench("queue", "-w", "w").stdout
    assert "expected" not in qbench("queue", "move", rtn, "--first", "-w", "w", code=4).stderr
    qbench("queue", "stop", int8, "-w", "w")
    assert json.loads(qbench("queue", "-w", "w", "--json").stdout) == []


def test_a_worker_that_is_told_to_end_finishes_its_block(qbench, undisturbed):  # noqa: F811
    (run,) = qbench("queue", "add", write(qbench.folder, "awq-clip"), "-w", "w").stdout.split()
    folder = qbench.folder / "w" / "runs" / run
    process = start(qbench, "work", "-w", "w", "--run", run)
    wait_for(lambda: (folder / "blocks" / "block-0000.json").exists())
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    state, report = json.loads((folder / "state.json").read_text()), json.loads((folder / "report.json").read_text())
    assert report["status"] == "interrupted" and state["blocks"] == len(list((folder / "blocks").glob("*.safetensors"))) > 0
    qbench("work", "-w", "w", "--run", run)
    assert outcome(folder) == undisturbed["awq-clip"]


def test_costs_are_the_runs_own(qbench):  # noqa: F811
    large, small = write(qbench.folder, "gptq", samples=400), write(qbench.folder, "rtn", samples=4)
    first, second = json.loads(qbench("run", large, small, "-w", "w", "--json", "-q").stdout)
    alone = json.loads(qbench("run", small, "-w", "other", "--json", "-q").stdout)[0]
    assert first["peak_rss_bytes"] > second["peak_rss_bytes"] * 1.02
    assert abs(second["peak_rss_bytes"] / alone["peak_rss_bytes"] - 1) < 0.1
    for run in (first, second):
        costs = {cost["stage"]: cost for cost in run["costs"]}
        assert {"load", "calibrate", "measure", "evaluate"} <= set(costs) and run["pipeline"] in costs
        assert max(cost["peak_rss_bytes"] for cost in costs.values()) <= run["peak_rss_bytes"]
        total = run["load_seconds"] + run["quantize_seconds"] + run["evaluate_seconds"]
        assert 0.8 * total < sum(cost["seconds"] for cost in costs.values()) < 1.3 * total + 0.2
        assert all(0 <= cost["cpu_seconds"] <= cost["seconds"] * os.cpu_count() * 1.2 + 0.1 for cost in costs.values())
        assert all(cost["device_seconds"] == 0 for cost in costs.values())


def test_a_lease_of_another_machine_is_kept_until_it_is_stale(qbench):  # noqa: F811
    (run,) = qbench("queue", "add", write(qbench.folder, "rtn", samples=4), "-w", "w").stdout.split()
    owner = qbench.folder / "w" / "runs" / run / "owner"
    owner.write_text("4711 123456 elsewhere 0badc0de\n")
    (row,) = json.loads(qbench("queue", "-w", "w", "--json").stdout)
    assert (row["process"], row["host"]) == (4711, "elsewhere")
    refused = qbench("work", "-w", "w", "--run", run, code=4).stderr
    assert "process 4711 on elsewhere" in refused
    old = time.time() - 130
    os.utime(owner, (old, old))
    qbench("work", "-w", "w", "--run", run)
    assert json.loads((qbench.folder / "w" / "runs" / run / "report.json").read_text())["status"] == "finished"
    assert owner.read_text() == ""


def test_a_lease_that_cannot_be_read_is_not_free(qbench):  # noqa: F811
    (run,) = qbench("queue", "add", write(qbench.folder, "rtn", samples=4), "-w", "w").stdout.split()
    owner = qbench.folder / "w" / "runs" / run / "owner"
    owner.write_text("")
    owner.chmod(0)
    prefix = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    shown = subprocess.run([*prefix, qbench.program, "queue", "-w", "w"], cwd=qbench.folder, capture_output=True, text=True)
    assert "at work in somebody" in shown.stdout, (shown.stdout, shown.stderr)
