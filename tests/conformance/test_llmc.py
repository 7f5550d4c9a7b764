"""Recipes exported for LLMC are accepted by its schema (llmc_schema.py) and say what the recipe says."""
import json
import re
import subprocess

import pytest
import yaml

import llmc_schema


def convert(qbench, recipe, *arguments):
    return subprocess.run([qbench, "recipe", "convert", recipe, *arguments], capture_output=True, text=True)


def presets(qbench):
    done = subprocess.run([qbench, "recipe", "preset", "--json"], capture_output=True, text=True, check=True)
    return [p["name"] for p in json.loads(done.stdout)]


def test_every_preset_exports_to_what_llmc_accepts(tool, tmp_path):
    qbench = tool("qbench")
    names = presets(qbench)
    assert len(names) >= 10
    exported = 0
    for name in names:
        recipe = tmp_path / f"{name}.yaml"
        subprocess.run([qbench, "recipe", "preset", name, "--model", "/models/it's: #1", "--calibration", "/data/pileval.jsonl", "--evaluation", "/data/wikitext2.txt", "-o", recipe],
                       check=True, capture_output=True)
        done = convert(qbench, recipe, "--to", "llmc")
        if done.returncode != 0:  # several stages in one file, which LLMC does not run
            assert done.returncode == 3 and "LLMC" in done.stderr and name.split("-")[0] in ("best", "dgq", "norm", "quarot", "wanda", "owq", "quik", "autoround", "awq", "tesseraq", "gguf"), done.stderr
            continue
        exported += 1
        steps = [llmc_schema.check(text) for text in re.split(r"^--- # step_\d\n", done.stdout, flags=re.MULTILINE) if text]  # one file or two
        assert steps[0]["model"]["path"] == "/models/it's: #1"
        config = steps[-1]
        assert config["eval"]["name"] == "wikitext2"
        ours = yaml.safe_load(recipe.read_text())["scheme"]
        if "mix" in ours or "symmetric" not in ours["weights"]:  # a file format's type: LLMC has only the integers or floats in it
            assert "LLMC has no" in done.stderr
            continue
        for section, part in (("weight", "weights"), ("act", "activations")):
            assert (section in config["quant"]) == (part in ours)
            if part in ours:
                kind, written = ours[part]["type"], config["quant"][section]
                written = written.get("w_1", written)  # DGQ's groups
                assert written["bit"] == (int(kind[3:]) if kind.startswith("int") else kind)
                assert written["symmetric"] == ours[part]["symmetric"]
                assert written["granularity"] == "per_" + ours[part]["granularity"]
    assert exported >= 18


def test_small_numbers_stay_numbers_and_lists_are_lists(tool, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "model: m\nseed: 3\nscheme:\n  weights: {type: int4, symmetric: false, round_zero_point: false, range: hqq, hqq_beta: 0.000001}\n"
        "  ignore: ['*.3.mlp.down_proj', '*.4.mlp.down_proj', lm_head]\npipeline: [rtn]\n"
        "evaluation:\n  - {corpus: wikitext2.txt}\n  - {corpus: other.txt, seq_len: 512}\n")
    done = convert(tool("qbench"), recipe, "--to", "llmc")
    config = llmc_schema.check(done.stdout)
    assert config["quant"]["special"]["beta"] == 1e-6
    assert [e["name"] for e in config["eval"]] == ["wikitext2", "custom_ppl"]
    assert config["ignored_layers"] == {"block_ids": [3, 4], "layer_names": ["mlp.down_proj"], "speical_names": ["lm_head"]}


def test_llmcs_own_files_come_back_as_they_were(tool, shared, tmp_path):
    """Import, export, and compare what PyYAML reads of the quantization."""
    qbench, compared = tool("qbench"), 0
    for path in sorted((shared / "data" / "llmc-configs").rglob("*.yml")):
        done = convert(qbench, path, "-o", tmp_path / "ours.yaml")
        if done.returncode != 0:
            assert done.returncode == 3 and done.stderr.count("\n") == 1 and str(path) in done.stderr, done.stderr
            continue
        if "owq: True" in path.read_text():  # LLMC wants its columns counted linear by linear
            continue
        back = convert(qbench, tmp_path / "ours.yaml", "--to", "llmc")
        was, now = yaml.safe_load(path.read_text()), llmc_schema.check(back.stdout)
        for section in ("weight", "act", "kvcache"):
            assert (section in was["quant"]) == (section in now["quant"]), path
            for key, value in was["quant"].get(section, {}).items():
                if key in ("need_pack", "pack_version", "use_qtorch", "ste", "qmax_to_tensor") or (key, value) in (("calib_algo", "minmax"), ("calib_algo", "learnable"), ("static", False)):
                    continue
                if key == "symmetric" and isinstance(was["quant"][section]["bit"], str):  # floats are always symmetric
                    continue
                if key == "group_size" and was["quant"][section]["granularity"] != "per_group":
                    continue
                assert now["quant"][section].get(key) == value, (path, section, key)
        assert now["base"]["seed"] == was["base"]["seed"]
        assert now["quant"]["method"] == was["quant"]["method"], path
        for key, value in now["quant"].get("special", {}).items():
            if key in was["quant"].get("special", {}):
                assert was["quant"]["special"][key] == value, (path, key)
        compared += 1
    assert compared >= 70


@pytest.mark.parametrize("broken, says", [("model:\n    path: m\nquant:\n    method: LlmInt8\n", ":4:5: quant.method: "), ("quant:\n  - 1\n", ":1:1: quant: ")])
def test_a_refused_file_is_one_line_with_its_place(tool, tmp_path, broken, says):
    path = tmp_path / "c.yml"
    path.write_text(broken)
    done = convert(tool("qbench"), path)
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and f"{path}{says}" in done.stderr, done.stderr
