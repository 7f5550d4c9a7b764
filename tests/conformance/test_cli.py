"""The command line, driven as a user or a program does: on the demo model, with exit codes, JSON and Ctrl-C."""
import json
import os
import pty
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import zoo_experts
import zoo_hybrid
from conftest import ROOT
from reports import perplexities

DEMO = ROOT / "resources" / "demo"
RECIPE = """name: {name}
model: {{path: {demo}, dtype: float32}}
calibration: {{corpus: {demo}/calibration.txt, sampling: random_windows, samples: {samples}, seq_len: 128}}
scheme:
  weights: {{type: {type}, symmetric: false, granularity: group, group_size: 64}}
pipeline: [rtn]
evaluation:
  - {{corpus: {demo}/evaluation.txt, seq_len: 128, windows: 6}}
"""


@pytest.fixture
def qbench(tool, tmp_path):
    program = tool("qbench")

    def call(*arguments, code=0, **options):
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path, timeout=300, **options)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done
    call.program, call.folder = program, tmp_path
    return call


def write_recipe(folder, name, kind="int4", samples=8):
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE.format(name=name, type=kind, demo=DEMO, samples=samples))
    return path


def one_line(done, *parts):
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    for part in parts:
        assert str(part) in done.stderr, (part, done.stderr)


def test_inspect_tells_what_the_configuration_says(qbench):
    told = json.loads(qbench("inspect", DEMO, "--json").stdout)
    config = json.loads((DEMO / "config.json").read_text())
    assert told["hidden_size"] == config["hidden_size"]
    assert len(told["blocks"]) == config["num_hidden_layers"]
    q = next(x for x in told["blocks"][0]["linears"] if x["name"].endswith("q_proj"))
    assert q["shape"] == [config["hidden_size"], config["hidden_size"]]
    shown = qbench("inspect", DEMO).stdout
    assert "q_proj" in shown and "\033" not in shown


def test_two_recipes_run_and_are_compared(qbench):
    a, b = write_recipe(qbench.folder, "four"), write_recipe(qbench.folder, "two", "int2")
    done = qbench("run", a, b, "--workspace", "w", "--json")
    four, two = json.loads(done.stdout)
    assert [four["status"], two["status"]] == ["finished", "finished"]
    assert done.stderr and all(ord(c) >= 32 or c == "\n" for c in done.stderr)  # plain lines: stderr is no terminal

    def figures(run):
        return {bool(p["float_model"]): p["perplexity"] for p in perplexities(run)}
    assert figures(four)[True] == figures(two)[True]
    assert figures(four)[True] < figures(four)[False] < figures(two)[False]
    # int4 + float16 scale + 4-bit zero point in groups of 64, and likewise for 2 bits
    assert four["bits_per_weight"] == pytest.approx(4 + 20 / 64, abs=1e-6)
    assert two["bits_per_weight"] == pytest.approx(2 + 18 / 64, abs=1e-6)
    compared = json.loads(qbench("compare", "--workspace", "w", "--json").stdout)
    assert [r["name"] for r in compared["runs"]] == ["four", "two"]
    assert compared["baseline_perplexity"] == figures(four)[True]
    table = qbench("compare", "two", four["id"], "--workspace", "w", "--baseline", "four", "--worst", "2").stdout
    assert f"{figures(two)[False] - figures(four)[False]:+.4f}" in table
    assert f"{figures(two)[False]:.4f}" in table
    assert table.count("dB") == 4
    one_line(qbench("compare", "absent", "--workspace", "w", code=4), "absent")


def test_a_failing_recipe_leaves_the_others_their_turn(qbench):
    broken = qbench.folder / "broken"
    shutil.copytree(DEMO, broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    good, bad = write_recipe(qbench.folder, "good"), write_recipe(qbench.folder, "bad")
    bad.write_text(RECIPE.format(name="bad", type="int4", demo=broken, samples=8))
    done = qbench("run", bad, good, "--workspace", "w", "--json", "-q", code=4)
    assert "bad: " in done.stderr and "NaN" in done.stderr and "up_proj" in done.stderr
    assert [r["name"] for r in json.loads(done.stdout)] == ["good"]
    runs = json.loads(qbench("compare", "--workspace", "w", "--json").stdout)["runs"]
    states = sorted((json.loads(p.read_text())["name"], json.loads(p.read_text())["status"]) for p in (qbench.folder / "w/runs").glob("*/report.json"))
    assert states == [("bad", "failed"), ("good", "finished")] and "good" in [r["name"] for r in runs]


def figures_of(run):
    return {bool(p["float_model"]): p["perplexity"] for p in perplexities(run)}


@pytest.mark.parametrize("zoo, name, changes", [(zoo_experts, "deepseek-v3", {"n_routed_experts": 32}), (zoo_experts, "gpt-oss", {}), (zoo_hybrid, "qwen3-next", {})],
                         ids=["deepseek-v3", "gpt-oss", "qwen3-next"])
def test_models_of_other_families_from_end_to_end(zoo, name, changes, qbench, monkeypatch):
    model, config = qbench.folder / name, json.loads((DEMO / "config.json").read_text())
    cls, config_cls, arguments = zoo.MODELS[name]
    monkeypatch.setitem(zoo.MODELS, name, (cls, config_cls, arguments | changes | {"vocab_size": config["vocab_size"]}))
    zoo.save_model(name, model)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / file, model)
    rtn, gptq, demo = qbench.folder / "rtn.yaml", qbench.folder / "gptq.yaml", write_recipe(qbench.folder, "demo", samples=1)
    for path, pipeline in ((rtn, "[rtn]"), (gptq, "[awq, clip, gptq]")):
        text = RECIPE.format(name=path.stem, type="int8", demo=DEMO, samples=1).replace(f"path: {DEMO}", f"path: {model}").replace("[rtn]", pipeline)
        path.write_text(text.replace("group, group_size: 64", "channel").replace("seq_len: 128", "seq_len: 32"))
    runs = json.loads(qbench("run", rtn, gptq, "--workspace", "w", "--json").stdout)
    inspected = json.loads(qbench("inspect", model, "--json").stdout)["blocks"]
    for run in runs:
        assert run["status"] == "finished"
        figures = figures_of(run)
        assert figures[False] == pytest.approx(figures[True], rel=0.02)
        assert [[x["name"] for x in block["linears"]] for block in run["blocks"]] == [[x["name"] for x in block["linears"]] for block in inspected]
        unmeasured = [x["name"] for block in run["blocks"] for x in block["linears"] if x["output_relative_error"] is None]
        assert all(".experts." in x for x in unmeasured) and bool(unmeasured) == (name == "deepseek-v3")
    told = json.loads(qbench("eval", model, "--text", DEMO / "evaluation.txt", "--seq-len", "32", "--windows", "6", "--json").stdout)
    assert told["perplexity"] == pytest.approx(figures_of(runs[0])[True], rel=1e-6)
    other = json.loads(qbench("run", demo, "--workspace", "w", "--json").stdout)
    table = qbench("compare", "--workspace", "w").stdout
    for run in [*runs, *(other if isinstance(other, list) else [other])]:  # each against the float model that it was made of
        assert f"{figures_of(run)[False] - figures_of(run)[True]:+.4f}" in table


def test_a_second_recipe_says_that_its_statistics_are_cached(qbench):
    recipe = write_recipe(qbench.folder, "r", samples=4)
    common = ["run", recipe, "-q", "--set", "propagate_quantized=false", "--set"]
    qbench(*common, "pipeline=[{method: awq}]")
    both = "pipeline=[{method: awq}, {method: gptq}]"
    blocks = json.loads((DEMO / "config.json").read_text())["num_hidden_layers"]
    assert f"statistics of {blocks} of {blocks} blocks from the cache" in qbench(*common, both).stdout
    (cached,) = json.loads(qbench(*common, both, "--json").stdout)
    (anew,) = json.loads(qbench(*common, both, "--json", "--statistics-cache", 0).stdout)
    assert [cached["statistics_cached_blocks"], anew["statistics_cached_blocks"]] == [blocks, 0]
    assert [p["window_nll"] for p in perplexities(cached)] == [p["window_nll"] for p in perplexities(anew)]


def test_eval_agrees_with_the_float_figure_of_a_run(qbench):
    recipe = write_recipe(qbench.folder, "r")
    (run,) = json.loads(qbench("run", recipe, "--json", "-q").stdout)
    told = json.loads(qbench("eval", DEMO, "--text", DEMO / "evaluation.txt", "--seq-len", 128, "--windows", 6, "--json").stdout)
    assert told["perplexity"] == pytest.approx(next(p["perplexity"] for p in perplexities(run) if p["float_model"]), rel=1e-6)
    assert told["windows"] == 6 and len(told["window_nll"]) == 6


def test_set_changes_keys(qbench):
    recipe = write_recipe(qbench.folder, "r")
    (run,) = json.loads(qbench("run", recipe, "--json", "-q", "--set", "scheme.weights.type=int3", "--set", "name=three").stdout)
    assert run["name"] == "three" and run["bits_per_weight"] == pytest.approx(3 + 19 / 64, abs=1e-6)
    one_line(qbench("run", recipe, "--set", "scheme.weights.tipe=int3", code=3), "scheme.weights.tipe", 'did you mean "type"')


@pytest.mark.parametrize("arguments, code", [
    ([], 2), (["dance"], 2), (["run"], 2), (["inspect"], 2), (["eval", "m"], 2), (["eval", "m", "--text", "t", "--dtype", "float8"], 2),
    (["run", "a.yaml", "--resume", "x"], 2), (["run", "absent.yaml"], 4), (["inspect", "absent"], 4), (["eval", "absent", "--text", "t"], 4),
    (["methods", "nothing"], 4), (["recipe", "check", "absent.yaml"], 4), (["recipe", "preset", "absent", "-m", "m"], 4),
    (["run", "--resume", "absent"], 4)])
def test_exit_codes(qbench, arguments, code):
    done = qbench(*arguments, code=code)
    assert done.stderr and done.stdout == ""
    if code == 4:
        one_line(done)


def test_recipe_mistakes_are_one_line_with_their_place(qbench):
    recipe = write_recipe(qbench.folder, "r")
    recipe.write_text(recipe.read_text().replace("pipeline: [rtn]", "pipelin: [rtn]"))
    for command in (["run", recipe], ["recipe", "check", recipe]):
        one_line(qbench(*command, code=3), f"{recipe}:6:1: pipelin: ", 'did you mean "pipeline"?')


def test_check_tells_all_mistakes_a_line_each(qbench):
    recipe = write_recipe(qbench.folder, "r")
    recipe.write_text(recipe.read_text().replace("pipeline: [rtn]", "pipeline: [rtm]") + "colour: red\n")
    done = qbench("recipe", "check", recipe, code=3)
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and done.stdout == "", done.stderr
    assert lines[0].startswith(f"qbench: {recipe}:6:") and "pipeline[0]" in lines[0] and "colour: unknown key" in lines[1]


def test_a_group_that_does_not_divide_is_refused_before_any_work(qbench):
    recipe = write_recipe(qbench.folder, "r")
    done = qbench("run", recipe, "--set", "scheme.weights.group_size=7", "--workspace", "w", code=4)
    one_line(done, "group_size 7", "proj", "64")
    assert not (qbench.folder / "w" / "runs").exists() or not list((qbench.folder / "w" / "runs").iterdir())


def test_check_reads_recipe_model_and_data_only(qbench):
    recipe = write_recipe(qbench.folder, "r")
    assert json.loads(qbench("run", "--check", recipe, "--json").stdout) == {"checked": 1}
    assert not (qbench.folder / "qbench-workspace").exists()


def test_help_version_methods_and_presets(qbench):
    assert qbench("--version").stdout.startswith("qbench ")
    for command in ([], ["run"], ["eval"], ["inspect"], ["compare"], ["methods"], ["scheme"], ["recipe"]):
        assert "--help" in qbench(*command, "--help").stdout
    methods = json.loads(qbench("methods", "--json").stdout)
    assert "rtn" in [m["name"] for m in methods]
    assert "rtn" in qbench("methods", "rtn").stdout
    assert all(knob["title"][0].isupper() for m in methods for knob in m["knobs"])
    scheme = json.loads(qbench("scheme", "--json").stdout)
    assert list(scheme) == ["activations", "kv_cache", "weights"] and "dynamic" not in [f["name"] for f in scheme["weights"]]
    group = next(f for f in scheme["weights"] if f["name"] == "group_size")
    assert (group["title"], group["default"], group["range"]) == ("Group size", "128", "1 … 1048576 inputs")
    assert "kv_cache" in qbench("scheme", "kv_cache").stdout and "group_size" not in qbench("scheme", "nothing", code=4).stdout
    names = [p["name"] for p in json.loads(qbench("recipe", "preset", "--json").stdout)]
    assert "w4-g64-asym" in names
    sized = {p["name"]: p for p in json.loads(qbench("recipe", "preset", "--model", DEMO, "--json").stdout)}
    assert set(sized) == set(names) and sized["w4-g64-asym"]["bits_per_weight"] == 4.3125  # 4 and, a group of 64, 16 + 4
    assert (sized["w4-g64-asym"]["group"], sized["w4-g64-asym"]["cost"], sized["autoround-w4-g128-sym"]["cost"]) == ("4 bits, weights", "no calibration", "training")
    made = qbench("recipe", "preset", "w4-g64-asym", "--model", DEMO).stdout
    (qbench.folder / "made.yaml").write_text(made)
    assert json.loads(qbench("recipe", "check", "made.yaml", "--json").stdout)["scheme"].startswith("W4A16 g64")


def test_a_preset_fits_its_model_and_its_recipe_measures(qbench):
    model = qbench.folder / "narrow"
    done = qbench("recipe", "preset", "gptq-w4-g128-sym", "--model", DEMO, "-o", "demo.yaml")
    config = json.loads((DEMO / "config.json").read_text())
    assert "context" in done.stderr and "tokens" in done.stderr
    text = (qbench.folder / "demo.yaml").read_text()
    assert f"seq_len: {config['max_position_embeddings']}" in text and "seq_len: 512" not in text
    (run,) = json.loads(qbench("run", "demo.yaml", "-w", "w", "--json", "-q").stdout)
    figures = figures_of(run)
    assert figures[True] < figures[False] < 1.2 * figures[True]
    assert all(x["output_relative_error"] is not None for block in run["blocks"] for x in block["linears"])
    # 128 divides none of the smaller model's linears.
    zoo_experts.save_model("olmoe", model)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / file, model)
    widths = {x["shape"][1] for block in json.loads(qbench("inspect", model, "--json").stdout)["blocks"] for x in block["linears"]}
    done = qbench("recipe", "preset", "gptq-w4-g128-sym", "--model", model, "-o", "narrow.yaml")
    (size,) = [int(line.split(":")[1]) for line in (qbench.folder / "narrow.yaml").read_text().splitlines() if "group_size" in line]
    assert size < 128 and all(w % size == 0 for w in widths) and any(w % (2 * size) for w in widths), (size, widths)
    assert f"groups of {size}: 128 do not divide" in done.stderr


def test_the_workbench_tells_its_options_without_a_display(tool):
    plain = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")}
    for option in ("--help", "-h", "--version", "-v"):
        done = subprocess.run([tool("qbench-workbench"), option], capture_output=True, text=True, env=plain, timeout=60)
        assert done.returncode == 0 and ("--workspace" in done.stdout or "." in done.stdout), done.stderr


def start_long_run(qbench, workspace):
    recipe = write_recipe(qbench.folder, "long", samples=400)
    process = subprocess.Popen([qbench.program, "run", recipe, "--workspace", workspace, "--threads", "1"], cwd=qbench.folder,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while "quantize" not in process.stderr.readline():
        assert process.poll() is None and time.time() < deadline
    return process


def openmp_settings(program, folder, **variables):
    """What the OpenMP runtime says that it obeys, once it is loaded."""
    plain = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(["arg zero", "--version"], executable=program, capture_output=True, text=True, cwd=folder, timeout=120,
                          env=plain | {"OMP_DISPLAY_ENV": "verbose", "QT_QPA_PLATFORM": "offscreen"} | variables)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    assert done.stderr.count("OPENMP DISPLAY ENVIRONMENT BEGIN") == 1, done.stderr  # one runtime, loaded once
    lines = [line.split("=") for line in done.stderr.splitlines() if "=" in line]
    return {line[0].replace("[host]", "").strip(): line[1].strip().strip("'") for line in lines}


@pytest.mark.parametrize("name", ["qbench", "qbench-workbench"])
def test_threads_that_wait_sleep_unless_the_user_says_otherwise(tool, tmp_path, name):
    program = tool(name)
    ours = openmp_settings(program, tmp_path)
    assert ours["OMP_WAIT_POLICY"] == "PASSIVE" and 0 < int(ours["GOMP_SPINCOUNT"]) <= 20000
    assert openmp_settings(program, tmp_path, OMP_WAIT_POLICY="active")["OMP_WAIT_POLICY"] == "ACTIVE"
    spinning = openmp_settings(program, tmp_path, GOMP_SPINCOUNT="300000")
    assert spinning["GOMP_SPINCOUNT"] == "300000"


def test_a_started_program_keeps_its_name_and_arguments(qbench):
    process = start_long_run(qbench, "w")
    try:
        folder = Path(f"/proc/{process.pid}")
        assert (folder / "comm").read_text().strip() == "qbench"
        assert (folder / "cmdline").read_bytes().split(b"\0")[:2] == [os.fsencode(qbench.program), b"run"]
    finally:
        process.kill()
        process.communicate()


def test_more_threads_than_cores_are_bounded_with_a_word(qbench):
    cores = len(os.sched_getaffinity(0))
    recipe = write_recipe(qbench.folder, "r")
    done = qbench("run", recipe, "--threads", 4096, "--json", "-q")
    assert "--threads 4096" in done.stderr and "may use" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    (run,) = json.loads(done.stdout)
    assert 1 <= run["environment"]["threads"] <= cores
    one = qbench("run", recipe, "--threads", 1, "--json", "-q")
    assert one.stderr == "" and json.loads(one.stdout)[0]["environment"]["threads"] == 1
    bounded = subprocess.run([qbench.program, "run", recipe, "--threads", "2", "--json", "-q"], capture_output=True, text=True, cwd=qbench.folder,
                             timeout=300, preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))
    assert "--threads 2" in bounded.stderr and json.loads(bounded.stdout)[0]["environment"]["threads"] == 1
    for wrong in (-1, 99999999999):
        assert "--threads" in qbench("methods", "--threads", wrong, code=2).stderr


def test_ctrl_c_leaves_a_run_that_can_be_resumed(qbench):
    process = start_long_run(qbench, "w")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "--resume" in err and out == ""
    (run,) = (qbench.folder / "w" / "runs").iterdir()
    (resumed,) = json.loads(qbench("run", "--workspace", "w", "--resume", run.name, "--json", "-q").stdout)
    assert resumed["status"] == "finished"
    (whole,) = json.loads(qbench("run", "long.yaml", "--workspace", "w2", "--json", "-q").stdout)
    assert [p["window_nll"] for p in perplexities(resumed)] == [p["window_nll"] for p in perplexities(whole)]


def test_a_terminal_gets_a_bar_within_its_width(qbench):
    recipe = write_recipe(qbench.folder, "r" * 60)
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    import fcntl
    import struct
    import termios
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    process = subprocess.Popen([qbench.program, "run", recipe, "--workspace", "w"], cwd=qbench.folder, stdout=subprocess.DEVNULL, stderr=theirs)
    text, deadline = b"", time.time() + 120
    while True:
        try:
            text += os.read(ours, 65536)
        except BlockingIOError:
            if process.poll() is not None or time.time() > deadline:
                break
            time.sleep(0.02)
    assert process.wait(timeout=10) == 0
    os.close(theirs)
    os.close(ours)
    lines = text.decode().split("\r\x1b[K")
    assert len(lines) > 2 and max(map(len, lines)) <= 60


def test_the_readme_has_the_table_of_formats(tool):
    formats = json.loads(subprocess.run([tool("qbench"), "formats", "--json"], capture_output=True, text=True, check=True).stdout)
    engines = [", ".join(f"{e['title']} {e['version']}" + (" in part" if e["takes"] else "") for e in f["engines"]) for f in formats]
    rows = [f"| `{f['name']}` | {f['holds']} | {named} |" for f, named in zip(formats, engines)]
    table = "\n".join(["| format | holds | engines |", "|---|---|---|", *rows])
    assert table in (ROOT / "README.md").read_text(), table
    said = subprocess.run([tool("qbench"), "formats"], capture_output=True, text=True, check=True).stdout
    for f in formats:
        for e in f["engines"]:
            assert f["help"] in said and f"{e['title']} {e['version']} ({e['source']}, {e['date']})" in said and all(t in said for t in e["takes"])


def test_the_readme_names_the_families_of_the_table(tool):
    families = json.loads(subprocess.run([tool("qbench"), "families", "--json"], capture_output=True, text=True, check=True).stdout)
    titles = [title + star for title, star in sorted(((f["title"], "*" if f["gguf"] else "") for f in families), key=lambda row: row[0].lower())]
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"in GGUF too): {', '.join(titles)}." in readme
    kinds = [kind for f in families for kind in f["model_types"]]
    assert len(kinds) == len(set(kinds)), "a model_type in two rows"
