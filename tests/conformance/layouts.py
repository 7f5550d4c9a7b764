"""Quantized checkpoints read by their published layouts with numpy alone, and a run's own blocks likewise: what a linear's weight is, as numbers."""
import json
import re

import numpy as np
from safetensors import safe_open
from safetensors.torch import load_file

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def numbers(tensor):
    return tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()


def read_file(path):
    """(tensors in numpy, metadata) of one .safetensors file."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    return {name: numbers(tensor) for name, tensor in load_file(path).items()}, metadata


def read_folder(folder):
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= read_file(file)[0]
    return tensors


def bits_of(words, bits, count):
    """[rows, words] int32 → [rows, count] codes: a row is one stream of bits, the lowest first."""
    stream = np.unpackbits(words.astype("<i4").view(np.uint8), axis=1, bitorder="little")[:, :count * bits].reshape(words.shape[0], count, bits)
    return (stream.astype(np.int64) << np.arange(bits)).sum(2)


def compressed_tensors(tensors, module, scheme):
    weights = scheme["weights"]
    bits = weights["num_bits"]
    scale = tensors[module + ".weight_scale"].astype(np.float32)
    if module + ".weight_packed" in tensors:
        rows, columns = tensors[module + ".weight_shape"]
        codes = bits_of(tensors[module + ".weight_packed"], bits, columns) - 2 ** (bits - 1)
    else:
        codes = tensors[module + ".weight"].astype(np.float32)
        rows, columns = codes.shape
    zero = 0
    if not weights["symmetric"]:
        zero = tensors[module + ".weight_zero_point"]
        zero = bits_of(np.ascontiguousarray(zero.T), bits, rows).T - 2 ** (bits - 1) if zero.dtype == np.int32 else zero.astype(np.int64)
    if weights["strategy"] == "block":
        height, width = weights["block_structure"]
        scale = scale.repeat(height, 0)[:rows].repeat(width, 1)[:, :columns]
    elif weights["strategy"] != "tensor":
        size = weights["group_size"] if weights["strategy"] == "group" else columns
        assert scale.shape == (rows, columns // size)
        scale = scale.repeat(size, 1)
        if not np.isscalar(zero):
            zero = zero.repeat(size, 1)
    return ((codes - zero).astype(np.float32) * scale).astype(np.float32)


def gptq(tensors, module, config):
    bits = config["bits"]
    words, scales = tensors[module + ".qweight"], tensors[module + ".scales"].astype(np.float32)
    columns, rows = words.shape[0] * 32 // bits, words.shape[1]
    codes = bits_of(np.ascontiguousarray(words.T), bits, columns)
    zeros = bits_of(tensors[module + ".qzeros"], bits, rows) + (0 if config["checkpoint_format"] == "gptq_v2" else 1)
    group = tensors[module + ".g_idx"]
    return ((codes - zeros[group].T).astype(np.float32) * scales[group].T).astype(np.float32)


def awq(tensors, module, config):
    words, scales = tensors[module + ".qweight"], tensors[module + ".scales"].astype(np.float32)
    columns, rows = words.shape[0], words.shape[1] * 8

    def unpack(w):
        lanes = bits_of(w, 4, rows).reshape(w.shape[0], -1, 8)
        out = np.empty_like(lanes)
        out[:, :, AWQ_ORDER] = lanes
        return out.reshape(w.shape[0], rows)
    size = config["group_size"] if config["group_size"] > 0 else columns
    assert scales.shape[0] == columns // size
    return ((unpack(words) - unpack(tensors[module + ".qzeros"]).repeat(size, 0)).astype(np.float32) * scales.repeat(size, 0)).T.astype(np.float32)


def mlx(tensors, module, config):
    own = config.get(module, config)
    words, scales, biases = (tensors[module + part] for part in (".weight", ".scales", ".biases"))
    codes = bits_of(np.ascontiguousarray(words).view(np.int32), own["bits"], words.shape[1] * 32 // own["bits"])
    assert scales.shape == biases.shape == (codes.shape[0], codes.shape[1] // own["group_size"])
    return codes.astype(np.float32) * scales.repeat(own["group_size"], 1) + biases.repeat(own["group_size"], 1)


def linears_of(folder):
    """{module: weight} of all linears in codes of a checkpoint."""
    tensors = read_folder(folder)
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    if "quant_method" not in config:
        assert json.loads((folder / "config.json").read_text())["quantization"] == config
        return {m: mlx(tensors, m, config) for m in (name.removesuffix(".scales") for name in tensors if name.endswith(".scales"))}
    if config["quant_method"] == "compressed-tensors":
        modules = [name.removesuffix(".weight_scale") for name in tensors if name.endswith(".weight_scale")]

        def scheme(module):
            for group in config["config_groups"].values():
                for target in group["targets"]:
                    if target in ("Linear", module) or (target.startswith("re:") and re.match(target[3:], module)):
                        return group
            raise AssertionError(f"no group for {module}")
        return {m: compressed_tensors(tensors, m, scheme(m)) for m in modules}
    read = {"gptq": gptq, "awq": awq}[config["quant_method"]]
    return {m: read(tensors, m, config) for m in (name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight"))}


def run_linears(run):
    """{module: weight} of a run's block files."""
    weights = {}
    for file in sorted((run / "blocks").glob("*.safetensors")):
        tensors, metadata = read_file(file)
        for name, entry in json.loads(metadata["qbench"])["linears"].items():
            rows, columns = entry["shape"]
            spec, scale = entry["weights"], tensors[name + ".scale"]
            if spec["type"].startswith("int"):
                bits = int(spec["type"][3:])
                stream = np.unpackbits(tensors[name + ".codes"], bitorder="little")[:rows * columns * bits].reshape(rows * columns, bits)
                codes = ((stream.astype(np.int64) << np.arange(bits)).sum(1) - 2 ** (bits - 1)).reshape(rows, columns).astype(np.float32)
            else:
                codes = tensors[name + ".codes"].astype(np.float32)
            zero = tensors.get(name + ".zero")
            if spec["granularity"] == "block":
                scale = scale.repeat(spec["block_rows"], 0)[:rows].repeat(spec["block_cols"], 1)[:, :columns]
            elif spec["granularity"] != "tensor":
                scale = scale.repeat(columns // scale.shape[1], 1)
                zero = zero.repeat(columns // zero.shape[1], 1) if zero is not None else None
            weights[name.removesuffix(".weight")] = (codes if zero is None else codes - zero) * scale
    return weights
