"""Recipes in other programs' words: what they say is checked with the programs' own classes and parsers, where they are installed."""
import ast
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

import llmc_schema

DEPS = Path(os.environ.get("QBENCH_DEPS", Path.home() / ".cache/llm-qbench"))
TARGETS = {"llm-compressor": ".py", "auto-round": ".sh", "gptqmodel": ".py"}
HEAD = "name: r\nmodel: {path: \"/models/it's\", dtype: bfloat16}\ncalibration: {corpus: /texts/c4.txt, sampling: sequential, samples: 16, seq_len: 128}\nseed: 7\n"
ASYM = "scheme:\n  weights: {type: int4, symmetric: false, group_size: 64}\n"


def convert(qbench, recipe, target, *arguments):
    return subprocess.run([qbench, "recipe", "convert", recipe, "--to", target, *map(str, arguments)], capture_output=True, text=True)


def written(folder, text, name="r"):
    path = folder / f"{name}.yaml"
    path.write_text(HEAD + text)
    return path


def environment(name, module):
    python = DEPS / name / "bin" / "python"
    if not python.exists() or not list((DEPS / name).glob(f"lib/python*/site-packages/{module}")):
        pytest.skip(f"{name} is not installed")
    return python


def asked(python, code, *arguments):
    done = subprocess.run([python, "-c", code, *map(str, arguments)], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


PRESETS = {
    "llm-compressor": ["best-w4-awq-clip-gptq", "gptq-w4-g128-sym", "smoothquant-w8a8", "w4-g64-asym", "nvfp4-gptq", "fp8-dynamic", "parts", "static"],
    "gptqmodel": ["best-w4-awq-clip-gptq", "gptq-w4-g128-sym", "awq-w4-g128-asym", "w3-g64-asym", "parts"],
    "auto-round": ["best-w4-awq-clip-gptq", "autoround-w4-g128-sym", "w4-g64-asym", "w8a8-int8", "gguf-q4-k-m-gptq", "parts", "static"],
}
PARTS = {
    "parts": ASYM + "  ignore: ['*.0.mlp.down_proj']\n  overrides:\n    - {match: '*.v_proj', weights: {type: int8, group_size: 32}}\n    - {match: '*.k_proj', weights: float}\n"
                    "pipeline: [{method: gptq, percdamp: 0.02, true_sequential: true}]\n",
    "static": "scheme:\n  weights: {type: e4m3, granularity: channel}\n  activations: {type: e4m3, granularity: tensor, dynamic: false}\n"
              "  kv_cache: {type: e4m3, granularity: tensor, dynamic: false}\npipeline: [rtn]\n",
}


def recipe_of(folder, name):
    """A preset's scheme and pipeline, or those of PARTS, under HEAD."""
    if name in PARTS:
        return written(folder, PARTS[name], name)
    preset = yaml.safe_load((ROOT / "resources" / "presets" / f"{name}.yaml").read_text())
    return written(folder, yaml.safe_dump({key: preset[key] for key in ("scheme", "pipeline")}), name)


@pytest.fixture(scope="module")
def exported(tool, tmp_path_factory):
    """Recipes in the words of every program: {target: {name: path}}."""
    folder, found = tmp_path_factory.mktemp("exports"), {}
    for target, ending in TARGETS.items():
        found[target] = {name: folder / f"{name}-{target}{ending}" for name in PRESETS[target]}
        for name, path in found[target].items():
            done = convert(tool("qbench"), recipe_of(folder, name), target, "-o", path)
            assert done.returncode == 0, done.stderr
    return found


def test_files_are_programs_and_what_they_cannot_say_stands_in_them(exported, tool, tmp_path):
    for names in exported.values():
        for path in names.values():
            if path.suffix == ".py":
                ast.parse(path.read_text())
            else:
                assert subprocess.run(["sh", "-n", path]).returncode == 0
    best = exported["gptqmodel"]["best-w4-awq-clip-gptq"].read_text()
    assert "# not said here: pipeline[0].method: GPTQModel runs one method" in best and "# not said here: gptq.sweeps: GPTQModel has no such setting; 8 is not written" in best
    for target, name, said in (("gptqmodel", "w8a8-int8", "scheme.activations: GPTQModel quantizes weights alone"), ("llm-compressor", "gguf-q4-k-m-gptq", "scheme.mix"),
                               ("llm-compressor", "hqq-w4-g64", "hqq has no counterpart"), ("auto-round", "wanda-2-4-w4", "wanda has no counterpart")):
        done = convert(tool("qbench"), recipe_of(tmp_path, name), target)
        assert done.returncode == 3 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert convert(tool("qbench"), recipe_of(tmp_path, "w4-g64-asym"), "elsewhere").returncode == 2


LLM_COMPRESSOR = """
import json, runpy, sys
found = {}
for path in sys.argv[1:]:
    recipe = runpy.run_path(path)["recipe"]
    config = recipe[-1].resolve_quantization_config()
    group = config.config_groups["group_0"]
    found[path] = {"modifiers": [type(one).__name__ for one in recipe], "ignore": config.ignore, "weights": json.loads(group.weights.model_dump_json()),
                   "targets": {name: one.targets for name, one in config.config_groups.items()},
                   "inputs": group.input_activations and json.loads(group.input_activations.model_dump_json()), "cache": config.kv_cache_scheme and json.loads(config.kv_cache_scheme.model_dump_json()),
                   "last": json.loads(recipe[-1].model_dump_json(include={"block_size", "dampening_frac", "actorder", "iters"})), "first": json.loads(recipe[0].model_dump_json(include={"duo_scaling", "smoothing_strength"}))}
print(json.dumps(found))
"""


def test_llm_compressor_makes_modifiers_of_the_recipe(exported):
    names = exported["llm-compressor"]
    found = asked(environment("peer-llm-compressor", "llmcompressor"), LLM_COMPRESSOR, *names.values())
    of = {name: found[str(path)] for name, path in names.items()}
    assert of["best-w4-awq-clip-gptq"]["modifiers"] == ["AWQModifier", "GPTQModifier"] and of["best-w4-awq-clip-gptq"]["first"]["duo_scaling"] is False
    weights = of["best-w4-awq-clip-gptq"]["weights"]
    assert (weights["num_bits"], weights["symmetric"], weights["strategy"], weights["group_size"], weights["observer"]) == (4, False, "group", 128, "mse")
    assert of["gptq-w4-g128-sym"]["last"] == {"block_size": 128, "dampening_frac": 0.01, "actorder": "weight"} or of["gptq-w4-g128-sym"]["last"]["actorder"] == "static"
    assert of["smoothquant-w8a8"]["first"]["smoothing_strength"] == 0.8 and of["smoothquant-w8a8"]["inputs"]["strategy"] == "token" and of["smoothquant-w8a8"]["inputs"]["dynamic"] is True
    assert of["w4-g64-asym"]["modifiers"] == ["QuantizationModifier"] and of["w4-g64-asym"]["ignore"] == ["lm_head"]
    assert of["nvfp4-gptq"]["weights"]["strategy"] == "tensor_group" and of["fp8-dynamic"]["weights"]["type"] == "float"
    parts = of["parts"]
    assert parts["last"]["dampening_frac"] == 0.02 and parts["targets"]["group_1"] == [r"re:.*\.v_proj$"]
    assert parts["ignore"] == [r"re:.*\.k_proj$", r"re:.*\.0\.mlp\.down_proj$", "lm_head"] or set(parts["ignore"]) == {r"re:.*\.k_proj$", r"re:.*\.0\.mlp\.down_proj$", "lm_head"}
    assert of["static"]["inputs"]["dynamic"] is False and of["static"]["cache"]["num_bits"] == 8 and of["static"]["cache"]["strategy"] == "tensor"


GPTQMODEL = """
import json, runpy, sys
found = {}
for path in sys.argv[1:]:
    config = runpy.run_path(path)["config"]
    found[path] = {"kind": type(config).__name__, "bits": config.bits, "group_size": config.group_size, "sym": config.sym, "desc_act": config.desc_act,
                   "damp": getattr(config, "damp_percent", None), "mse": getattr(config, "mse", None), "rotation": config.rotation, "sequential": config.true_sequential,
                   "layers": {name: config.dynamic_get(name, "bits", 0) if config.dynamic else None for name in ("model.layers.1.self_attn.v_proj", "model.layers.1.self_attn.k_proj", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.up_proj")}}
print(json.dumps(found))
"""


def test_gptqmodel_makes_a_configuration_of_the_recipe(exported):
    names = exported["gptqmodel"]
    found = asked(environment("consumer-gptqmodel", "gptqmodel"), GPTQMODEL, *names.values())
    of = {name: found[str(path)] for name, path in names.items()}
    gptq = of["gptq-w4-g128-sym"]
    assert gptq["kind"] == "GPTQConfig" and (gptq["bits"], gptq["group_size"], gptq["sym"], gptq["desc_act"], gptq["damp"]) == (4, 128, True, True, 0.01)
    assert of["awq-w4-g128-asym"]["kind"] == "AWQConfig" and of["awq-w4-g128-asym"]["sym"] is False
    assert of["w3-g64-asym"]["kind"] == "RTNConfig" and (of["w3-g64-asym"]["bits"], of["w3-g64-asym"]["group_size"]) == (3, 64)
    assert of["best-w4-awq-clip-gptq"]["mse"] == 2.4 and gptq["mse"] == 0
    parts = of["parts"]
    assert parts["damp"] == 0.02 and parts["sequential"] is True
    assert parts["layers"] == {"model.layers.1.self_attn.v_proj": 8, "model.layers.1.self_attn.k_proj": False, "model.layers.0.mlp.down_proj": False, "model.layers.1.mlp.up_proj": 0}


AUTO_ROUND = """
import json, shlex, sys
from auto_round.cli.parser import build_quantize_parser
from auto_round.cli.algorithms import AlgorithmHandler
from auto_round.schemes import PRESET_SCHEMES
from auto_round.utils import SUPPORTED_FORMATS, parse_layer_config_arg
found = {}
for path in sys.argv[1:]:
    words = shlex.split(open(path).read().replace("\\\\\\n", " "), comments=True)
    assert words[0] == "auto-round"
    args = build_quantize_parser(prog="auto-round").parse_args(words[1:])
    assert args.format in SUPPORTED_FORMATS and args.scheme.upper() in PRESET_SCHEMES, (path, args.format, args.scheme)
    algorithms = [AlgorithmHandler.resolve_alias(name) for name in args.algorithm.split(",")]
    assert all(algorithms), (path, args.algorithm)
    found[path] = {**{key: getattr(args, key) for key in ("model_name", "bits", "group_size", "asym", "iters", "nsamples", "seqlen", "dataset", "seed", "ignore_layers", "scheme", "awq_apply_clip", "act_bits", "static_kv_dtype", "format", "duo_scaling")},
                   "algorithms": algorithms, "layers": parse_layer_config_arg(args.layer_config) if args.layer_config else None}
print(json.dumps(found))
"""


def test_auto_round_reads_the_command_line_of_the_recipe(exported):
    names = exported["auto-round"]
    found = asked(environment("peer-llm-compressor", "auto_round"), AUTO_ROUND, *names.values())
    of = {name: found[str(path)] for name, path in names.items()}
    plain = of["autoround-w4-g128-sym"]
    assert plain["algorithms"] == ["auto_round"] and (plain["bits"], plain["group_size"], plain["asym"], plain["iters"]) == (4, 128, False, 200)
    assert plain["model_name"] == "/models/it's" and plain["dataset"] == "/texts/c4.jsonl"
    best = of["best-w4-awq-clip-gptq"]
    assert best["algorithms"] == ["awq", "auto_round"] and best["awq_apply_clip"] is True and best["asym"] is True and best["duo_scaling"] is False
    assert of["w4-g64-asym"]["algorithms"] == ["rtn"] and of["w8a8-int8"]["act_bits"] == 8 and of["w8a8-int8"]["group_size"] == -1
    assert of["gguf-q4-k-m-gptq"]["scheme"] == "GGUF:Q4_K_M" and of["gguf-q4-k-m-gptq"]["format"] == "gguf:q4_k_m"
    parts = of["parts"]
    assert parts["layers"] == {r".*\.v_proj$": {"bits": 8, "group_size": 32, "sym": True}} and parts["seed"] == 7 and (parts["nsamples"], parts["seqlen"]) == (16, 128)
    assert parts["ignore_layers"].split(",") == [r".*\.0\.mlp\.down_proj$", r".*\.k_proj$"]
    assert of["static"]["scheme"] == "FP8_STATIC" and of["static"]["static_kv_dtype"] == "fp8"


def test_llmc_gets_two_files_where_it_needs_two(tool, tmp_path):
    path = written(tmp_path, "scheme:\n  weights: {type: int8, granularity: channel}\n  activations: {type: int8, granularity: token}\n"
                             "pipeline: [{method: quarot, online_down: true}, {method: gptq, percdamp: 0.02}]\nevaluation: [{corpus: /texts/wikitext2.txt}]\n")
    done = convert(tool("qbench"), path, "llmc", "-o", tmp_path / "out.yml")
    assert done.returncode == 0, done.stderr
    assert "two files" in done.stderr and not (tmp_path / "out.yml").exists()
    first, second = (llmc_schema.check((tmp_path / f"out_step_{i}.yml").read_text()) for i in (1, 2))
    assert first["quant"]["method"] == "Quarot" and first["save"]["save_trans"] is True and "eval" not in first and first["quant"]["special"]["online_rotate"] is True
    assert second["quant"]["method"] == "GPTQ" and second["model"]["path"] == first["save"]["save_path"] + "transformed_model" and second["eval"]["name"] == "wikitext2"
    assert second["quant"]["special"]["online_rotate"] is True and second["quant"]["special"]["fp32_had"] is True and second["quant"]["special"]["percdamp"] == 0.02
    assert second["save"]["save_trans"] is False and first["quant"]["act"] == second["quant"]["act"]
    awq = written(tmp_path, ASYM + "pipeline: [awq, clip, {method: omniquant, epochs: 5}]\n", "awq")
    documents = list(yaml.safe_load_all(convert(tool("qbench"), awq, "llmc").stdout))
    assert [d["quant"]["method"] for d in documents] == ["Awq", "OmniQuant"]
    assert documents[0]["quant"]["special"]["weight_clip"] is False and documents[1]["quant"]["special"]["search_clip_init"] is True  # the second searches it
    clamped = written(tmp_path, ASYM + "pipeline: [awq, clip, gptq]\n", "clamped")
    done = convert(tool("qbench"), clamped, "llmc")
    documents = list(yaml.safe_load_all(done.stdout))
    assert documents[0]["quant"]["special"]["weight_clip"] is True and documents[1]["quant"]["method"] == "GPTQ" and "clamps the weights" in done.stderr
