"""The table of runs on the command line: list, show, remove and export-table against report.json as Python reads it."""
import csv
import io
import json
import random
import shutil
import signal
import subprocess
import time

import pytest

from test_cli import one_line, qbench, write_recipe  # noqa: F401
from reports import perplexities

FIGURES = {  # column: what it shall be, from the report
    "ppl": lambda r: main(r, False)["perplexity"],
    "ppl_error": lambda r: main(r, False)["standard_error"],
    "float_ppl": lambda r: main(r, True)["perplexity"],
    "delta": lambda r: main(r, False)["perplexity"] - main(r, True)["perplexity"],
    "bits": lambda r: r["bits_per_weight"],
    "size": lambda r: r["model_bytes"] / 1e6,
    "compression": lambda r: r["model_float_bytes"] / r["model_bytes"],
    "linears": lambda r: r["quantized_bytes"] / 1e6,
    "time": lambda r: r["quantize_seconds"],
    "load_time": lambda r: r["load_seconds"],
    "measure_time": lambda r: r["measure_seconds"],
    "evaluate_time": lambda r: r["evaluate_seconds"],
    "memory": lambda r: r["peak_rss_bytes"] / 1e6,
    "tokens": lambda r: r["calibration_tokens"],
    "seed": lambda r: r["seed"],
}
TEXTS = {
    "name": lambda r: r["name"],
    "status": lambda r: r["status"],
    "model": lambda r: r["model_name"],
    "scheme": lambda r: r["scheme"],
    "pipeline": lambda r: r["pipeline"],
    "started": lambda r: r["started"],
    "finished": lambda r: r["finished"],
    "device": lambda r: r["environment"]["device"],
    "host": lambda r: r["environment"]["host"],
    "recipe": lambda r: r["recipe_hash"],
    "model_hash": lambda r: r["model_hash"],
    "sweep": lambda r: r.get("sweep") or None,
}


def main(report, float_model):
    return next(p for p in perplexities(report) if p["float_model"] == float_model)


@pytest.fixture(scope="module")
def workspace(tool, tmp_path_factory):
    """Two runs as the program made them, and copies: of another day, of a sweep, stopped before a figure, damaged."""
    place = tmp_path_factory.mktemp("table")
    for name, kind in (("four", "int4"), ("two", "int2")):
        subprocess.run([tool("qbench"), "run", write_recipe(place, name, kind), "-w", place / "w", "-q"], check=True, capture_output=True)
    runs = place / "w" / "runs"
    four, two = (next(runs.glob(f"*-{name}")) for name in ("four", "two"))

    def copy(source, folder, **changes):
        shutil.copytree(source, runs / folder)
        report = json.loads((source / "report.json").read_text())
        (runs / folder / "report.json").write_text(json.dumps(report | changes))
    copy(four, "20250102-030405-old", name="old, \"quoted\" | piped", started="2025-01-02T03:04:05Z", sweep="night")
    copy(two, "20250203-000000-stopped", name="stopped", status="cancelled", evaluations=[], bits_per_weight=0)
    copy(two, "by-hand", name="by hand", started="2025-03-04T00:00:01Z")
    shutil.copytree(two, runs / "20250505-000000-damaged")
    (runs / "20250505-000000-damaged" / "report.json").write_text('{"format": 1, ')
    (runs / "by-hand" / "tags").write_text("paper\ntable 3\n")
    (runs / "by-hand" / "notes").write_text("worth another look,\nwith more text")
    return place / "w"


@pytest.fixture
def listed(workspace, qbench):  # noqa: F811
    def call(*arguments):
        rows = json.loads(qbench("list", "-w", workspace, "--json", "--columns", "all", *arguments).stdout)
        return rows
    return call


def names(rows):
    return [row["name"] for row in rows]


def test_every_column_says_what_the_report_says(workspace, listed):
    rows = {row["id"]: row for row in listed()}
    folders = [f for f in (workspace / "runs").iterdir() if "damaged" not in f.name]
    assert len(rows) == len(folders) + 1
    compared = 0
    for folder in folders:
        report = json.loads((folder / "report.json").read_text())
        row = rows[folder.name]
        for key, expected in TEXTS.items():
            assert row[key] == expected(report), (folder.name, key)
        for key, expected in FIGURES.items():
            if not perplexities(report) and "ppl" in key + "ppl" * (key == "delta") or key == "bits" and report["bits_per_weight"] == 0:
                assert row[key] is None, (folder.name, key)
            else:
                assert row[key] == pytest.approx(expected(report), rel=1e-12), (folder.name, key)
                compared += 1
    assert compared > 40
    assert rows["by-hand"]["tags"] == ["paper", "table 3"] and rows["by-hand"]["notes"] == "worth another look,\nwith more text"
    assert rows["by-hand"]["date"] == "2025-03-04" and rows["20250203-000000-stopped"]["date"] == "2025-02-03"
    damaged = rows["20250505-000000-damaged"]
    assert damaged["status"] == "failed" and "report.json" in damaged["error"]


@pytest.mark.parametrize("arguments, wanted", [
    (["--where", "status=finished"], {"four", "two", "old, \"quoted\" | piped", "by hand"}),
    (["--where", "status!=Finished"], {"stopped", "20250505-000000-damaged"}),
    (["--where", "date<2025-03-04"], {"old, \"quoted\" | piped", "stopped"}),
    (["--where", "date<=2025-03-04", "--where", "date>2025-01-02"], {"stopped", "by hand"}),
    (["--where", "started>=2025-03"], {"four", "two", "by hand", "stopped"}),
    (["--where", "scheme~W4"], {"four", "old, \"quoted\" | piped"}),
    (["--where", "name=FOUR"], {"four"}),
    (["--where", "tags~paper"], {"by hand"}),
    (["--where", "sweep=night"], {"old, \"quoted\" | piped"}),
    (["--where", "ppl="], {"stopped", "20250505-000000-damaged"}),
    (["--where", "ppl!=", "--where", "pipeline=rtn", "--where", "model=demo", "--where", "bits<3"], {"two", "by hand"}),
    (["--grep", "another LOOK"], {"by hand"}),
    (["--grep", "quoted", "--grep", "night"], {"old, \"quoted\" | piped"}),
    (["--grep", "no such word"], set()),
])
def test_filters(listed, arguments, wanted):
    assert set(names(listed(*arguments))) == wanted


def test_figures_are_compared_as_numbers(workspace, listed):
    figures = {f.name: main(json.loads((f / "report.json").read_text()), False)["perplexity"] for f in (workspace / "runs").glob("*-four")}
    (limit,) = figures.values()
    below, above = listed("--where", f"ppl<={limit!r}"), listed("--where", f"ppl>{limit!r}")
    assert set(names(below)) == {"four", "old, \"quoted\" | piped"} and set(names(above)) == {"two", "by hand"}
    assert names(listed("--where", f"ppl={limit!r}", "--where", "name=four")) == ["four"]


def test_order_and_number(listed):
    by_size = [row["ppl"] for row in listed("--sort", "ppl")]
    known = [p for p in by_size if p is not None]
    assert known == sorted(known) and by_size[len(known):] == [None, None]  # nothing known comes last, either way
    falling = [row["ppl"] for row in listed("--sort", "-ppl")]
    assert falling[:len(known)] == sorted(known, reverse=True) and falling[len(known):] == [None, None]
    assert names(listed("--sort", "status,-date", "--where", "date<2026"))[0] == "stopped"
    assert len(listed("--limit", "2")) == 2


def test_delta_to_a_baseline(workspace, listed):
    reports = {json.loads(p.read_text())["name"]: json.loads(p.read_text()) for p in (workspace / "runs").glob("*/report.json") if "damaged" not in str(p)}
    rows = {row["name"]: row for row in listed("--baseline", "four")}
    four, two = (main(reports[name], False)["perplexity"] for name in ("four", "two"))
    assert rows["two"]["delta"] == pytest.approx(two - four, rel=1e-12) and rows["four"]["delta"] == 0 and rows["stopped"]["delta"] is None


def test_exported_tables_say_the_same(workspace, listed, qbench):  # noqa: F811
    columns = "name,ppl,delta,tags,notes,started"
    rows = listed("--sort", "name")
    text = qbench("export-table", "-w", workspace, "--sort", "name", "--columns", columns).stdout
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [r["name"] for r in read] == names(rows)
    for from_csv, row in zip(read, rows):
        assert from_csv["ppl"] == ("" if row["ppl"] is None else repr(row["ppl"])) and from_csv["notes"] == (row["notes"] or "")
        assert from_csv["tags"] == ", ".join(row["tags"])
    for name in ("t.csv", "t.json", "t.md"):
        qbench("export-table", "-w", workspace, "--sort", "name", "--columns", columns, "-o", name)
    file = (qbench.folder / "t.csv").read_bytes().decode()
    assert file.replace("\r\n", "\n") == text and file.startswith(columns + "\r\n")
    assert [r["name"] for r in json.loads((qbench.folder / "t.json").read_text())] == names(rows)
    lines = (qbench.folder / "t.md").read_text().splitlines()
    assert lines[0] == "| Name | Perplexity | Δ | Tags | Notes | Started |" and len(lines) == 2 + len(rows)
    quoted = next(line for line in lines if "quoted" in line)
    ppl = next(r["ppl"] for r in rows if "quoted" in r["name"])
    assert "\\| piped" in quoted and f"| {ppl:.4f} |" in quoted
    one_line(qbench("export-table", "-w", workspace, "-o", "t.xlsx", code=4), "t.xlsx", ".csv")


def test_the_printed_list_has_titles_units_and_a_count(workspace, qbench):  # noqa: F811
    done = qbench("list", "-w", workspace, "--columns", "name,size,time,status", "--where", "status=finished")
    head, *lines = done.stdout.splitlines()
    assert head.split("  ")[0] == "Name" and "Size (MB)" in head and "Time (s)" in head
    assert len(lines) == 4 and all("finished" in line for line in lines) and "4 of 6 runs" in done.stderr
    columns = json.loads(qbench("list", "--help-columns", "--json").stdout)
    assert {c["key"] for c in columns} == set(json.loads(qbench("list", "-w", workspace, "--json", "--columns", "all", "--limit", "1").stdout)[0])


@pytest.mark.parametrize("arguments, parts", [
    (["--columns", "name,perplexity"], ["\"perplexity\"", "ppl", "bits"]),
    (["--sort", "-speed"], ["\"speed\"", "ppl"]),
    (["--where", "speed>3"], ["\"speed\"", "ppl"]),
    (["--where", "finished"], ["\"finished\"", "KEY=VALUE"]),
    (["--where", "ppl<low"], ["ppl<low", "\"low\"", "number"]),
    (["--where", "name<b"], ["name<b", "text"]),
    (["--where", "ppl~3"], ["ppl~3", "figure"]),
    (["--where", "ppl<"], ["ppl<", "value"]),
    (["--baseline", "absent"], ["absent"]),
])
def test_mistakes_are_one_line_that_says_what_there_is(workspace, qbench, arguments, parts):  # noqa: F811
    one_line(qbench("list", "-w", workspace, *arguments, code=4), *parts)


def test_show_tells_all_of_a_run(workspace, qbench):  # noqa: F811
    report = json.loads(next((workspace / "runs").glob("*-two")).joinpath("report.json").read_text())
    shown = json.loads(qbench("show", "two", "-w", workspace, "--json").stdout)
    assert {k: v for k, v in shown.items() if k not in ("tags", "notes", "folder")} == report
    assert json.loads(qbench("show", "by hand", "-w", workspace, "--json").stdout)["tags"] == ["paper", "table 3"]
    text = qbench("show", "two", "-w", workspace).stdout
    assert f"{main(report, False)['perplexity']:.4f}" in text and report["scheme"] in text and report["recipe_hash"] in text
    assert "pipeline:" in qbench("show", "two", "-w", workspace, "--recipe").stdout
    one_line(qbench("show", "absent", "-w", workspace, code=4), "absent")


def test_remove_deletes_what_was_asked_for_and_nothing_else(workspace, qbench):  # noqa: F811
    shutil.copytree(workspace, qbench.folder / "w")
    runs = qbench.folder / "w" / "runs"
    before = {f.name for f in runs.iterdir()}
    one_line(qbench("remove", "two", "absent", "-w", "w", code=4), "absent")
    one_line(qbench("remove", "-w", "w", code=4), "which runs")
    one_line(qbench("remove", "two", "four", "-w", "w", code=4, stdin=-3), "2 runs", "--yes")
    assert {f.name for f in runs.iterdir()} == before
    qbench("remove", "two", "-w", "w")  # one that was named needs no question
    left = {f.name for f in runs.iterdir()}
    assert len(before - left) == 1 and next(iter(before - left)).endswith("-two")
    removed = json.loads(qbench("remove", "-w", "w", "--where", "status!=finished", "--yes", "--json").stdout)["removed"]
    assert set(removed) == {"20250203-000000-stopped", "20250505-000000-damaged"} and {f.name for f in runs.iterdir()} == left - set(removed)
    assert set(names(json.loads(qbench("list", "-w", "w", "--json").stdout))) == {"four", "old, \"quoted\" | piped", "by hand"}


@pytest.fixture(scope="module")
def many(workspace, tmp_path_factory):
    place = tmp_path_factory.mktemp("many") / "w"
    source = next((workspace / "runs").glob("*-four"))
    for i in range(300):
        folder = place / "runs" / f"20260101-{i:06}-copy"
        folder.mkdir(parents=True)
        shutil.copy(source / "report.json", folder)
    return place


def forget_index(workspace):
    for file in (workspace / "cache").glob("index-*"):
        file.unlink()


def test_the_index_is_right_whenever_its_maker_is_killed(many, qbench):  # noqa: F811
    dice, cut_short = random.Random(4), 0
    for _ in range(8):
        forget_index(many)
        process = subprocess.Popen([qbench.program, "list", "-w", many], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started = time.monotonic()
        while not list((many / "cache").glob("index-*")) and time.monotonic() - started < 60:
            time.sleep(0.002)  # it begins
        time.sleep(dice.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        cut_short += process.wait() == -signal.SIGKILL
        for _ in range(2):  # made again, then read
            assert len(json.loads(qbench("list", "-w", many, "--json", "--columns", "id").stdout)) == 300
    assert cut_short > 0


def test_processes_that_make_the_index_at_once_do_not_disturb_each_other(many, qbench):  # noqa: F811
    forget_index(many)
    command = [qbench.program, "list", "-w", many, "--json", "--columns", "id,ppl"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert len(json.loads(answers[0][0])) == 300 and len({stdout for stdout, _ in answers}) == 1
    assert any("reading" in stderr for _, stderr in answers)  # told while it is made
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout == answers[0][0] and "reading" not in again.stderr
