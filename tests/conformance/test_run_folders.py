"""What becomes of runs and workspaces outside of the plain way: resumed when finished, read only, damaged, killed; values that are empty or no numbers."""
import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from test_cli import DEMO, one_line, qbench, write_recipe  # noqa: F401
from reports import perplexities


def contents(folder):
    return {p.relative_to(folder): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def read_only(call, *arguments, code=0):
    """As a user who may not write the workspace: root's right to write everywhere is given away."""
    prefix = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
    done = subprocess.run([*prefix, call.program, *map(str, arguments)], capture_output=True, text=True, cwd=call.folder, timeout=300)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def test_resuming_a_finished_run_changes_nothing(qbench):  # noqa: F811
    write_recipe(qbench.folder, "r")
    (run,) = json.loads(qbench("run", "r.yaml", "-w", "w", "--json", "-q").stdout)
    before = contents(qbench.folder / "w" / "runs")
    (again,) = json.loads(qbench("run", "-w", "w", "--resume", run["id"], "--json", "-q").stdout)
    assert again == run and contents(qbench.folder / "w" / "runs") == before


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "cancelled"])
def test_a_flipped_bit_in_a_block_is_told_and_made_good_on_resume(qbench, finished):  # noqa: F811
    write_recipe(qbench.folder, "r")
    (run,) = json.loads(qbench("run", "r.yaml", "-w", "w", "--json", "-q").stdout)
    folder = qbench.folder / "w" / "runs" / run["id"]
    if not finished:
        report = json.loads((folder / "report.json").read_text())
        (folder / "report.json").write_text(json.dumps(report | {"status": "cancelled"}))
    block = folder / "blocks" / "block-0002.safetensors"
    sound = block.read_bytes()
    damaged = bytearray(sound)
    damaged[-100] ^= 1
    block.write_bytes(damaged)
    if finished:
        told = qbench("export", run["id"], "-f", "compressed-tensors", "-o", "out", "-w", "w", code=4).stderr.splitlines()[-1]
        assert told.count(str(block)) == 1 and "checksum" in told
    assert not (qbench.folder / "out").exists()
    (again,) = json.loads(qbench("run", "-w", "w", "--resume", run["id"], "--json", "-q").stdout)
    assert block.read_bytes() == sound and str(block) in (folder / "log.txt").read_text()
    assert [p["window_nll"] for p in perplexities(again)] == [p["window_nll"] for p in perplexities(run)]


def test_a_workspace_that_cannot_be_written_is_listed_and_compared(qbench):  # noqa: F811
    write_recipe(qbench.folder, "r")
    qbench("run", "r.yaml", "-w", "w", "-q")
    workspace = qbench.folder / "w"
    expected = qbench("compare", "-w", "w").stdout
    for without_index in (False, True):
        if without_index:
            for index in workspace.glob("cache/index-*"):
                index.unlink()
        places = [workspace, *workspace.rglob("*")]
        try:
            for place in places:
                place.chmod(place.stat().st_mode & ~0o222)
            before = contents(workspace)
            assert read_only(qbench, "compare", "-w", "w").stdout == expected
            one_line(read_only(qbench, "run", "r.yaml", "-w", "w", "-q", code=5), workspace, "ermission denied")
            assert contents(workspace) == before
        finally:
            for place in places:
                place.chmod(place.stat().st_mode | 0o200)


def test_a_baseline_of_another_model_is_refused(qbench):  # noqa: F811
    other = shutil.copytree(DEMO, qbench.folder / "other")
    tensors = load_file(other / "model.safetensors")
    save_file({k: v * 1.01 if k.endswith("norm.weight") else v for k, v in tensors.items()}, other / "model.safetensors", {"format": "pt"})
    write_recipe(qbench.folder, "ours")
    qbench("run", "ours.yaml", "-w", "w", "-q")
    qbench("run", "ours.yaml", "-w", "w", "-q", "--set", f"model.path={other}", "--set", "name=theirs")
    one_line(qbench("compare", "theirs", "--baseline", "ours", "-w", "w", code=4), "baseline ours", "theirs", "one model")
    (only,) = json.loads(qbench("compare", "--baseline", "ours", "-w", "w", "--json").stdout)["runs"]
    assert only["name"] == "ours"
    assert len(json.loads(qbench("compare", "-w", "w", "--json").stdout)["runs"]) == 2


def test_what_only_reads_makes_no_workspace(qbench):  # noqa: F811
    for command in (["compare"], ["compare", "some-run"], ["export", "some-run", "-f", "mlx", "-o", "out"], ["run", "--resume", "some-run"]):
        one_line(qbench(*command, "-w", "mistyped", code=4), qbench.folder / "mistyped", "there is no workspace")
    assert not (qbench.folder / "mistyped").exists()


@pytest.mark.parametrize("arguments, option", [
    (["compare", "-w", ""], "--workspace"), (["run", "r.yaml", "-w", ""], "--workspace"), (["run", ""], "recipes"), (["run", "--resume", ""], "--resume"),
    (["eval", "", "-t", "t"], "model"), (["eval", "m", "-t", ""], "--text"), (["export", "r", "-f", "mlx", "-o", ""], "--output"), (["inspect", ""], "model"), (["import", ""], "checkpoint"),
    (["verify", "", "r"], "checkpoint"), (["imatrix", "m", "-t", "t", "-o", ""], "--output"), (["recipe", "preset", ""], "name"), (["methods", ""], "name"), (["scheme", ""], "part")])
def test_empty_values_are_usage_errors(qbench, arguments, option):  # noqa: F811
    assert f"{option}: the value is empty" in qbench(*arguments, code=2).stderr
    assert list(qbench.folder.iterdir()) == []


def test_a_folder_for_temporary_files_is_not_needed(qbench):  # noqa: F811
    write_recipe(qbench.folder, "r")
    qbench("run", "r.yaml", "-w", "w", "-q", env=os.environ | {"TMPDIR": "/there/is/none"})
    qbench("run", "--check", "r.yaml", env=os.environ | {"TMPDIR": "/there/is/none"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_eval_names_a_weight_that_is_no_number_as_run_does(qbench, value):  # noqa: F811
    model = shutil.copytree(DEMO, qbench.folder / "model")
    tensors = load_file(model / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].clone()
    tensors[name][3, 5] = torch.tensor(value)
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    for command in (["eval", model, "--text", DEMO / "evaluation.txt", "--seq-len", 128, "--windows", 2],
                    ["run", write_recipe(qbench.folder, "r"), "-q", "--set", f"model.path={model}"]):
        done = qbench(*command, code=4)
        assert str(model) in done.stderr and f'tensor "{name}" holds NaN or infinity' in done.stderr


@pytest.fixture
def killed_export(qbench):  # noqa: F811
    """Kills `qbench export` while it writes; the one thing that it leaves beside its output, with its process and what stands for its host."""
    path = write_recipe(qbench.folder, "exported", kind="int8")
    path.write_text(path.read_text().replace("symmetric: false", "symmetric: true"))  # which both formats hold
    (run,) = json.loads(qbench("run", "exported.yaml", "-w", "exported", "--json", "-q").stdout)
    folder = qbench.folder / "exports"
    folder.mkdir()

    def kill(form, name):
        partial = lambda: [p for p in folder.iterdir() if ".partial." in p.name]  # noqa: E731
        for _ in range(20):  # it may be too fast to be hit
            process = subprocess.Popen([qbench.program, "export", run["id"], "-w", "exported", "-f", form, "-o", folder / name], cwd=qbench.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and not partial():
                pass
            process.kill()
            process.wait()
            assert process.returncode in (0, -signal.SIGKILL)
            if left := partial():
                assert not (folder / name).exists()
                parts = [re.fullmatch(rf"\.{name}\.partial\.([0-9a-f]{{8}})-{process.pid}-\d+\.tmp(\.[0-9a-f]{{8}}-{process.pid}-\d+\.tmp)?", p.name) for p in left]
                assert all(parts), left
                return left, process.pid, parts[0][1]
            shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink(missing_ok=True)
        pytest.fail("no export was hit while it wrote")
    kill.folder, kill.run = folder, run["id"]
    return kill


def days_old(path, days):
    past = time.time() - days * 86400
    os.utime(path, (past, past))


@pytest.mark.parametrize("form, name", [("compressed-tensors", "folder"), ("gguf", "file.gguf")])
def test_what_a_killed_export_left_goes_when_its_writer_is_certainly_gone(qbench, killed_export, form, name):  # noqa: F811
    left, gone, space = killed_export(form, name)
    folder = killed_export.folder
    elsewhere = "0" * 8 if space != "0" * 8 else "1" * 8
    kept = [folder / f".a.partial.{space}-{os.getpid()}-0.tmp",  # at work
            folder / f".b.partial.{elsewhere}-{gone}-0.tmp",     # on another host, perhaps at work
            folder / ".c.partial.tmp", folder / f"notes.{space}-{gone}-0.tmp"]  # somebody's own
    old = folder / f".d.partial.{elsewhere}-{os.getpid()}-0.tmp"
    for path in [*kept, old]:
        path.mkdir() if path.name.startswith((".a", ".d")) else path.write_text("half")
    (old / "model.safetensors").write_text("half")
    for path in (old / "model.safetensors", old, kept[0], kept[2], kept[3]):
        days_old(path, 2)
    qbench("export", killed_export.run, "-w", "exported", "-f", form, "-o", folder / "another")
    assert sorted(folder.iterdir()) == sorted([*kept, folder / "another"])
    assert left


def test_what_another_host_left_in_the_statistics_cache_goes_after_a_day(qbench):  # noqa: F811
    path = write_recipe(qbench.folder, "r")
    path.write_text(path.read_text().replace("[rtn]", "[gptq]") + "propagate_quantized: false\n")
    qbench("run", "r.yaml", "-w", "w", "-q", "--statistics-cache", "1")
    (key,) = (qbench.folder / "w" / "cache" / "statistics").iterdir()
    other = key.parent / "another model and text"
    other.mkdir()
    fresh, old = key / "block-0001.safetensors.00000000-1-0.tmp", other / "block-0001.safetensors.00000000-1-1.tmp"
    for leftover in (fresh, old):
        leftover.write_bytes(b"half")
    days_old(old, 1.1)
    qbench("run", "r.yaml", "-w", "w", "-q", "--statistics-cache", "1")
    assert list(key.parent.rglob("*.tmp")) == [fresh]


def test_nothing_temporary_is_left_after_a_kill_and_a_resume(qbench, killed_export):  # noqa: F811
    _, _, space = killed_export("compressed-tensors", "out")
    write_recipe(qbench.folder, "long", samples=200)
    process = subprocess.Popen([qbench.program, "run", "long.yaml", "-w", "w", "--threads", "1"], cwd=qbench.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "quantize" not in process.stderr.readline():
        assert process.poll() is None
    (run,) = (qbench.folder / "w" / "runs").iterdir()
    deadline = time.time() + 120
    while not (run / "blocks" / "block-0000.safetensors").exists():
        assert time.time() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # What a kill in the middle of a write leaves, which is too short a moment to hit.
    left = [run / f"report.json.{space}-{process.pid}-7.tmp", run / "blocks" / f"block-0001.safetensors.{space}-{process.pid}-9.tmp"]
    for path in left:
        path.write_bytes(b"half")
    foreign = run / "notes.tmp"
    foreign.write_text("a user's own")
    qbench("run", "-w", "w", "--resume", run.name, "-q")
    assert [p for p in (qbench.folder / "w").rglob("*.tmp")] == [foreign]
