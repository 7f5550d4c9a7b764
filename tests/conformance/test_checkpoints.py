"""Checkpoints as people have them: read as transformers and gguf-py read them, or refused in a sentence that names the tensor or key."""
import functools
import json
import os
import shutil
import subprocess

import gguf
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import gguf_zoo
import model_zoo
from conftest import DEMO
from test_cli import qbench  # noqa: F401
from test_model_errors import assert_refused, inspect
from test_models import assert_close, our_logits, token_ids  # noqa: F401


def save(tensors, folder):
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})


def peer_logits(folder, ids):
    return model_zoo.reference_logits(hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager"), ids)


# A head beside a tied embedding

def tied_llama(folder, change):
    model_zoo.save_model("llama-tied-biased", folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save(tensors, folder)


def notes(tool, folder):
    done = subprocess.run([tool("qbench"), "inspect", folder, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["notes"], found["tied_embeddings"]


def other_head(tensors):
    torch.manual_seed(9)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["lm_head.weight"][-1, -1] += 2.5  # one number in the last row


def same_head(tensors):
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()


def head_alone(tensors):
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")


@pytest.mark.parametrize("change, tied", [(other_head, False), (same_head, True), (head_alone, True)])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_head_beside_a_tied_embedding(change, tied, kind, tool, tmp_path, our_logits):  # noqa: F811
    folder = tmp_path / "model"
    tied_llama(folder, change)
    ids = token_ids()
    reference = peer_logits(folder, ids)
    if kind == "bin":
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    assert_close(our_logits(folder, ids)["logits"], reference)
    said, flag = notes(tool, folder)
    assert flag == tied and [note for note in said if '"lm_head.weight"' in note] == ([] if tied else said)
    assert tied or len(said) == 1


def test_one_storage_under_two_names_is_tied(tool, tmp_path):
    """As torch.save leaves a tied model: both names, one storage."""
    model = model_zoo.save_model("llama-tied-biased", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "model" / "pytorch_model.bin")
    assert notes(tool, tmp_path / "model") == ([], True)


def test_the_heads_note_is_said_where_it_is_used(tmp_path, qbench):  # noqa: F811
    model = tmp_path / "model"
    shutil.copytree(DEMO, model, ignore=shutil.ignore_patterns("*.txt", "*.py"))
    config = json.loads((model / "config.json").read_text())
    assert config["tie_word_embeddings"]
    tensors = load_file(model / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 1.5
    save(tensors, model)
    assert "note: the configuration ties the head" in qbench("eval", model, "--text", DEMO / "evaluation.txt", "--seq-len", 64, "--windows", 2).stderr
    (tmp_path / "recipe.yaml").write_text(f"name: a\nmodel: {{path: '{model}'}}\nscheme: {{weights: {{type: int8}}}}\npipeline: [rtn]\n"
                                          f"evaluation: [{{corpus: '{DEMO}/evaluation.txt', seq_len: 64, windows: 2}}]\n")
    assert "the configuration ties the head" in qbench("run", "recipe.yaml", "--check").stderr


# F8

def per_tensor(weight):
    scale = (weight.abs().amax() / 400).reshape(())
    return scale, scale


def per_row(weight):
    scale = weight.abs().amax(1, keepdim=True) / 400
    return scale, scale


def per_block(weight, rows=16, columns=8):
    shape = -(-weight.shape[0] // rows), -(-weight.shape[1] // columns)
    scale = torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 0.01 + 0.01
    return scale, scale.repeat_interleave(rows, 0)[:weight.shape[0]].repeat_interleave(columns, 1)[:, :weight.shape[1]]


def per_128(weight):
    scale, spread = per_block(weight, 128, 128)
    return scale, spread


def per_128_apart(weight):
    scale, spread = per_block(weight, 128, 128)
    return scale[:, None, :, None], spread


def powers_of_two(weight):
    scale, spread = per_block(weight)
    return (2.0 ** scale.log2().round()).to(torch.float8_e8m0fnu), 2.0 ** spread.log2().round()


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [16, 8]}
GROUP = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False, "group_size": None, "block_structure": None},
         "input_activations": {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}}
COMPRESSED = {"quant_method": "compressed-tensors", "format": "float-quantized", "quantization_status": "compressed", "ignore": ["lm_head"], "kv_cache_scheme": None,
              "config_groups": {"group_0": GROUP}}
MODELOPT = {"producer": {"name": "modelopt", "version": "0.29.0"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}

ONLY_WEIGHTS = COMPRESSED | {"config_groups": {"group_0": GROUP | {"input_activations": None}}}

# name: (suffix of the module, scales, config.json's part, hf_quant_config.json)
LAYOUTS = {
    "deepseek": ("weight_scale_inv", per_block, FP8, None),
    "deepseek-later": ("scale", per_block, FP8, None),
    "deepseek-powers": ("scale", powers_of_two, FP8 | {"scale_fmt": "ue8m0"}, None),
    "minimax": ("weight_scale_inv", per_128, {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128], "ignored_layers": ["lm_head"]}, None),
    "ministral": ("weight_scale_inv", per_tensor, {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None, "dequantize": False, "modules_to_not_convert": ["lm_head"]}, None),
    "autofp8": ("weight_scale", per_tensor, {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}, None),
    "compressed-tensors": ("weight_scale", per_row, ONLY_WEIGHTS, None),
    "fbgemm": ("weight_scale", per_row, {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]}, None),
    "modelopt": ("weight_scale", per_tensor, None, MODELOPT),
    "modelopt-inside": ("weight_scale", per_tensor, {"quant_method": "modelopt", "quant_algo": "FP8", "producer": {"name": "modelopt"}, "ignore": ["lm_head"]}, None),
    "modelopt-rows": ("weight_scale", per_row, None, {"producer": {}, "quantization": {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN", "kv_cache_quant_algo": None, "exclude_modules": []}}),
    "modelopt-blocks": ("weight_scale", per_128_apart, None, {"producer": {}, "quantization": {"quant_algo": "FP8_PB_WO", "kv_cache_quant_algo": None}}),
}


def float8_model(folder, layout):
    """Returns the model with the numbers that the codes stand for."""
    suffix, scale_of, inside, beside = LAYOUTS[layout]
    # Wide enough for several blocks of 128.
    model = model_zoo.make_model("llama", **({"intermediate_size": 160} if scale_of in (per_128, per_128_apart) else {}))
    model.save_pretrained(folder)
    tensors, state = load_file(folder / "model.safetensors"), model.state_dict()
    for key in [k for k in tensors if k.endswith("_proj.weight")]:
        scale, spread = scale_of(tensors[key])
        tensors[key] = (tensors[key] / spread).to(torch.float8_e4m3fn)
        tensors[key.removesuffix("weight") + suffix] = scale
        if layout in ("ministral", "autofp8", "modelopt"):  # what activations are rounded by at run time
            tensors[key.removesuffix("weight") + ("activation_scale" if layout == "ministral" else "input_scale")] = torch.tensor(0.02)
        if layout == "modelopt" and key.endswith(("k_proj.weight", "v_proj.weight")):
            tensors[key.removesuffix("weight") + key[-13] + "_scale"] = torch.tensor(1.0)
        state[key].copy_(tensors[key].float() * spread)
    save(tensors, folder)
    if inside:
        model_zoo.edit_config(folder, lambda c: c.update(quantization_config=inside))
    if beside:
        (folder / "hf_quant_config.json").write_text(json.dumps(beside))
    return model


@pytest.mark.parametrize("layout", LAYOUTS)
def test_float8_of_every_layout_is_what_its_codes_stand_for(layout, tool, tmp_path, our_logits):  # noqa: F811
    model = float8_model(tmp_path / "model", layout)
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model", ids)["logits"], model_zoo.reference_logits(model, ids))
    said, _ = notes(tool, tmp_path / "model")
    assert any("activations in F8" in note for note in said) == (layout != "compressed-tensors")
    assert any("key-value cache" in note for note in said) == (layout == "modelopt")


def test_blocks_as_transformers_dequantizes_them(tmp_path, our_logits):  # noqa: F811
    float8_model(tmp_path / "model", "deepseek")
    model_zoo.edit_config(tmp_path / "model", lambda c: c["quantization_config"].update(dequantize=True))
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model", ids)["logits"], peer_logits(tmp_path / "model", ids))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_scale_that_is_missing_is_noticed(layout, tool, tmp_path):
    folder = tmp_path / "model"
    float8_model(folder, layout)
    whole, module = load_file(folder / "model.safetensors"), "model.layers.1.mlp.up_proj."
    suffix = LAYOUTS[layout][0]
    cases = {"missing": ({k: v for k, v in whole.items() if k != module + suffix}, [f'"{module}weight"', "F8_E4M3", "scale"]),
             "shape": (whole | {module + suffix: torch.ones(5, 3)}, [f'"{module}{suffix}"', "[5, 3]"]),
             "type": (whole | {module + suffix: whole[module + suffix].float().to(torch.int32)}, [f'"{module}{suffix}"', "I32"]),
             "two": (whole | {module + ("weight_scale" if suffix != "weight_scale" else "scale"): whole[module + suffix].clone()}, [module])}
    paths = []
    for name, (tensors, _) in cases.items():
        paths.append(tmp_path / name)
        shutil.copytree(folder, paths[-1])
        save(tensors, paths[-1])
    for line, (_, needles) in zip(inspect(tool, paths), cases.values()):
        assert_refused(line, *needles)


def test_float8_without_any_scale_is_refused(tool, tmp_path):
    folder = tmp_path / "model"
    model_zoo.save_model("llama", folder)
    tensors = load_file(folder / "model.safetensors")
    for name in ("model.layers.2.self_attn.v_proj.weight", "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight"):
        save(tensors | {name: tensors[name].to(torch.float8_e4m3fn)}, folder)
        assert_refused(inspect(tool, [folder])[0], f'"{name}"', "F8_E4M3", "scale")


@pytest.mark.parametrize("scaled", [True, False])
def test_fused_experts_in_float8_are_refused_by_name(scaled, tool, tmp_path):
    folder = tmp_path / "model"
    model = model_zoo.save_model("qwen3-moe-plain", folder)
    model_zoo.fuse(model, folder)
    tensors = load_file(folder / "model.safetensors")
    fused = [name for name in tensors if "experts.gate_up_proj" in name or "experts.down_proj" in name]
    assert fused
    for name in fused:
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
        if scaled:
            tensors[name + "_scale_inv"] = torch.ones(tensors[name].shape[0], 1, 1)
    save(tensors, folder)
    model_zoo.edit_config(folder, lambda c: c.update(quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]}))
    assert_refused(inspect(tool, [folder])[0], "mlp.experts.", "F8_E4M3", "scale")


@pytest.mark.parametrize("kind", [torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64,
                                  torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu])
def test_types_that_no_float_model_has(kind, tool, tmp_path):
    folder = tmp_path / "model"
    model_zoo.save_model("llama", folder)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    save(tensors | {name: (tensors[name].abs() * 100).to(kind)}, folder)
    assert_refused(inspect(tool, [folder])[0], f'"{name}"', "expected a floating-point")


# Configurations that are not understood to their end

def changed(config, path, value):
    config = json.loads(json.dumps(config))
    *parents, last = path
    place = config
    for key in parents:
        place = place[key]
    place[last] = value
    return config


UNKNOWN = {
    "fp8-key": (changed(FP8, ["rotation"], "hadamard"), "quantization_config.rotation"),
    "fp8-scheme": (changed(FP8, ["activation_scheme"], "magic"), "quantization_config.activation_scheme"),
    "fp8-format": (changed(FP8, ["fmt"], "e5m2"), "quantization_config.fmt"),
    "fp8-scale": (changed(FP8, ["scale_fmt"], "log"), "quantization_config.scale_fmt"),
    "fp8-block": (changed(FP8, ["weight_block_size"], [16]), "quantization_config.weight_block_size"),
    "transform": (changed(COMPRESSED, ["transform_config"], {"config_groups": {"R1": {"type": "hadamard", "apply": []}}}), "quantization_config.transform_config"),
    "sparsity": (changed(COMPRESSED, ["sparsity_config"], {"format": "sparse-24-bitmask", "targets": ["Linear"]}), "quantization_config.sparsity_config"),
    "group-key": (changed(COMPRESSED, ["config_groups", "group_0", "rotation"], 1), "quantization_config.config_groups.group_0.rotation"),
    "weights-key": (changed(COMPRESSED, ["config_groups", "group_0", "weights", "offset"], 3), "quantization_config.config_groups.group_0.weights.offset"),
    "weights-type": (changed(COMPRESSED, ["config_groups", "group_0", "weights", "type"], "int"), "quantization_config.config_groups.group_0.weights.type"),
    "weights-bits": (changed(COMPRESSED, ["config_groups", "group_0", "weights", "num_bits"], 4), "quantization_config.config_groups.group_0.weights"),
    "weights-asymmetric": (changed(COMPRESSED, ["config_groups", "group_0", "weights", "symmetric"], False), "symmetric"),
    "outputs": (changed(COMPRESSED, ["config_groups", "group_0", "output_activations"], {"num_bits": 8}), "output_activations"),
    "compressed-key": (changed(COMPRESSED, ["new_thing"], True), "quantization_config.new_thing"),
    "fbgemm-key": ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "columns": True}, "quantization_config.columns"),
    "modelopt-nvfp4": ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "NVFP4"),
    "modelopt-mixed": ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "MIXED_PRECISION"),
    "modelopt-key": ({"quant_method": "modelopt", "quant_algo": "FP8", "pre_quant_scale": True}, "quantization_config.pre_quant_scale"),
    "quanto": ({"quant_method": "quanto", "weights": "int8"}, "quanto"),
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"),
    "nameless": ({"bits": 4}, "quantized"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_configuration_that_is_not_understood_is_refused(name, tool, tmp_path):
    config, needle = UNKNOWN[name]
    float8_model(tmp_path / "model", "compressed-tensors" if config.get("quant_method") == "compressed-tensors" else "deepseek")
    model_zoo.edit_config(tmp_path / "model", lambda c: c.update(quantization_config=config))
    assert_refused(inspect(tool, [tmp_path / "model"])[0], needle)


@pytest.mark.parametrize("change, needle", [({"quant_algo": "W4A16_AWQ"}, "W4A16_AWQ"), ({"quant_algo": None}, "modelopt"), ({"quant_algo": "FP8", "kv_cache_quant_algo": "NVFP4"}, "kv_cache_quant_algo"),
                                            ({"quant_algo": "FP8", "has_zero_point": True}, "has_zero_point")])
def test_modelopts_own_file_is_read_to_its_end(change, needle, tool, tmp_path):
    float8_model(tmp_path / "model", "modelopt")
    (tmp_path / "model" / "hf_quant_config.json").write_text(json.dumps({"producer": {"name": "modelopt"}, "quantization": change}))
    assert_refused(inspect(tool, [tmp_path / "model"])[0], "hf_quant_config.json", needle)


# Files of other names, in other places

def small_gguf(folder, name="llama", **options):
    model = model_zoo.make_model(name)
    gguf_zoo.write(name, model, folder / "model.gguf", **options)
    return model


@pytest.fixture
def split(tmp_path, monkeypatch):
    """A model in files of at most six tensors each, as gguf-py splits it."""
    monkeypatch.setattr(gguf, "GGUFWriter", functools.partial(gguf.GGUFWriter, split_max_tensors=6))
    model = small_gguf(tmp_path)
    parts = sorted(tmp_path.glob("model-*-of-*.gguf"))
    assert len(parts) > 2
    return model, parts


def test_any_part_of_a_split_file_stands_for_all(split, tool, our_logits):  # noqa: F811
    model, parts = split
    ids = token_ids()
    reference = model_zoo.reference_logits(model, ids)
    for part in parts:
        assert_close(our_logits(part, ids)["logits"], reference)
    lines = inspect(tool, parts)
    assert len({(line["name"], line["parameters"], line["bytes"]) for line in lines}) == 1


def test_a_part_that_is_missing_or_another_models_is_named(split, tool, tmp_path):
    _, parts = split
    lost = parts[1].read_bytes()
    parts[1].unlink()
    for part in (parts[0], parts[2]):
        assert_refused(inspect(tool, [part])[0], parts[1].name, "missing")
    parts[1].write_bytes(parts[2].read_bytes())
    assert_refused(inspect(tool, [parts[0]])[0], parts[1].name, "split.no")
    parts[1].write_bytes(lost[:-40])
    assert_refused(inspect(tool, [parts[0]])[0], parts[1].name, "truncated")
    parts[1].write_bytes(lost)
    assert "error" not in inspect(tool, [parts[0]])[0]
    shutil.copy(parts[0], tmp_path / "renamed.gguf")
    assert_refused(inspect(tool, [tmp_path / "renamed.gguf"])[0], "renamed.gguf", f"-00001-of-{len(parts):05}.gguf")


@pytest.fixture
def demo_places(tool, tmp_path, qbench):  # noqa: F811
    """The demo model as it may be given: what each answers to inspect, eval and run --check."""
    def answers(model):
        text = ["--text", DEMO / "evaluation.txt", "--seq-len", 64, "--windows", 2]
        info = json.loads(qbench("inspect", model, "--json").stdout)
        figure = json.loads(qbench("eval", model, *text, "--json").stdout)["perplexity"]
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(f"name: a\nmodel: {{path: '{model}'}}\nscheme: {{weights: {{type: int8}}}}\npipeline: [rtn]\n"
                          f"evaluation: [{{corpus: '{DEMO}/evaluation.txt', seq_len: 64, windows: 2}}]\n")
        qbench("run", recipe, "--check")
        return info, figure
    return answers


def test_a_part_of_a_folder_stands_for_it(demo_places, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("*.txt", "*.py"))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, shards = list(tensors), ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for i, shard in enumerate(shards):
        save_file({k: tensors[k].contiguous() for k in names[i::2]}, folder / shard, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {k: shards[i % 2] for i, k in enumerate(names)}}))
    info, figure = demo_places(folder)
    assert "none" not in info["tokenizer"]
    for part in ("config.json", *shards, "model.safetensors.index.json"):
        other, again = demo_places(folder / part)
        assert again == figure and (other["name"], other["parameters"], other["tokenizer"]) == ("model", info["parameters"], info["tokenizer"])


def test_a_gguf_file_is_known_by_its_first_bytes(demo_places, tmp_path, qbench):  # noqa: F811
    (tmp_path / "recipe.yaml").write_text(f"name: a\nmodel: {{path: '{DEMO}'}}\nscheme: {{weights: {{type: q8_0}}}}\npipeline: [rtn]\n")
    qbench("run", "recipe.yaml", "-w", "w")
    run = next((tmp_path / "w" / "runs").iterdir())
    qbench("export", run, "--format", "gguf", "-o", tmp_path / "demo.gguf")
    info, figure = demo_places_of_gguf(qbench, tmp_path / "demo.gguf")
    blob = tmp_path / "sha256-0123abcd"
    shutil.copy(tmp_path / "demo.gguf", blob)
    assert demo_places_of_gguf(qbench, blob) == (info, figure)


def demo_places_of_gguf(qbench, path):  # noqa: F811
    info = json.loads(qbench("inspect", path, "--json").stdout)
    figure = json.loads(qbench("eval", path, "--text", DEMO / "evaluation.txt", "--seq-len", 64, "--windows", 2, "--json").stdout)["perplexity"]
    return (info["name"], info["parameters"], info["tokenizer"]), figure


def test_the_hubs_cache_tells_the_models_name(tool, tmp_path):
    store = tmp_path / "hub" / "models--some-org--Small-Model.v1"
    model_zoo.save_model("llama", tmp_path / "model")
    snapshot = store / "snapshots" / "0a1b2c3d"
    snapshot.mkdir(parents=True)
    (store / "blobs").mkdir()
    for i, name in enumerate(("config.json", "model.safetensors")):
        shutil.copy(tmp_path / "model" / name, store / "blobs" / f"{i:064x}")
        os.symlink(f"../../blobs/{i:064x}", snapshot / name)
    os.symlink(snapshot, tmp_path / "by link")
    model = small_gguf(tmp_path)
    del model
    shutil.copy(tmp_path / "model.gguf", store / "blobs" / "f00d")
    os.symlink("../../blobs/f00d", snapshot / "small-q8.gguf")
    lines = inspect(tool, [snapshot, f"{snapshot}/", snapshot / "config.json", snapshot / "model.safetensors", tmp_path / "by link", snapshot / "small-q8.gguf", tmp_path / "model"])
    assert [line["name"] for line in lines] == ["some-org/Small-Model.v1"] * 5 + ["small-q8", "model"]


# What cannot be read is said

def test_a_git_lfs_pointer_is_said_in_words(tool, tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d" * 32 + "\nsize 4683073184\n"
    model_zoo.save_model("llama", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_text(pointer)
    (tmp_path / "model.gguf").write_text(pointer)
    for path, file in ((tmp_path / "model", "model.safetensors"), (tmp_path / "model.gguf", "model.gguf")):
        assert_refused(inspect(tool, [path])[0], file, "Git LFS pointer", "git lfs pull")
    (tmp_path / "model" / "config.json").write_text(pointer)
    assert_refused(inspect(tool, [tmp_path / "model"])[0], "config.json", "Git LFS pointer")


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root reads everything, and setpriv, which takes that from it, is not here")
def test_a_folder_that_may_not_be_read_is_said_in_words(tool, tmp_path):
    model_zoo.save_model("llama", tmp_path / "model")
    less = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    try:
        os.chmod(tmp_path / "model", 0)
        done = subprocess.run([*less, tool("model_inspect"), tmp_path / "model"], capture_output=True, text=True)
        assert_refused(json.loads(done.stdout), str(tmp_path / "model"), "Permission denied")
        os.chmod(tmp_path / "model", 0o755)
        for name in ("config.json", "model.safetensors"):
            os.chmod(tmp_path / "model" / name, 0)
            done = subprocess.run([*less, tool("model_inspect"), tmp_path / "model"], capture_output=True, text=True)
            assert_refused(json.loads(done.stdout), name, "Permission denied")
            os.chmod(tmp_path / "model" / name, 0o644)
    finally:
        os.chmod(tmp_path / "model", 0o755)


def test_numbers_that_python_writes_and_json_has_not(tool, tmp_path, our_logits):  # noqa: F811
    model = model_zoo.save_model("llama", tmp_path / "model")
    model_zoo.edit_config(tmp_path / "model", lambda c: c.update(task_specific_params={"a": float("inf"), "b": [float("-inf"), float("nan"), "Infinity"]}, length_penalty=float("inf")))
    assert "Infinity" in (tmp_path / "model" / "config.json").read_text()
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model", ids)["logits"], model_zoo.reference_logits(model, ids))
    model_zoo.edit_config(tmp_path / "model", lambda c: c.update(rms_norm_eps=float("inf")))
    assert_refused(inspect(tool, [tmp_path / "model"])[0], "rms_norm_eps", "Infinity")


def test_names_that_are_not_utf8(tool, tmp_path):
    folder = tmp_path / os.fsdecode(b"mod\xe8le")
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("*.txt", "*.py"))
    for command in (["inspect", folder], ["eval", folder, "--text", DEMO / "evaluation.txt", "--seq-len", "64", "--windows", "2"]):
        done = subprocess.run([tool("qbench"), *command, "--json"], capture_output=True)
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)
