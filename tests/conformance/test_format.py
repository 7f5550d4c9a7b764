"""core/format against the safetensors and gguf packages."""
import json
import random
import struct
import subprocess

import gguf
import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file


def dump(tool, source, tmp_path):
    out = tmp_path / "dump.safetensors"
    subprocess.run([tool("dump_tensors"), source, out], check=True)
    return load_file(out)


def test_every_plain_dtype_reads_as_the_reference_does(tool, tmp_path):
    torch.manual_seed(0)
    base = torch.randn(5, 7) * 10
    types = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
             torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.complex64,
             torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool]
    unsigned = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)
    tensors = {str(t): (base.abs() if t in unsigned else base).to(t) for t in types}
    tensors["empty"] = torch.zeros(0, 4)
    tensors["scalar"] = torch.tensor(3.5)
    save_file(tensors, tmp_path / "model.safetensors")
    read = dump(tool, tmp_path / "model.safetensors", tmp_path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype and read[name].shape == tensor.shape
        assert read[name].reshape(-1).view(torch.uint8).equal(tensor.reshape(-1).view(torch.uint8)), name


def test_shards_are_found_through_their_index(tool, tmp_path):
    parts = [{"a": torch.randn(3, 3)}, {"b": torch.randn(2), "c": torch.randn(4, 1)}]
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for part, name in zip(parts, names):
        save_file(part, tmp_path / name)
    index = {"metadata": {}, "weight_map": {k: n for p, n in zip(parts, names) for k in p}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    read = dump(tool, tmp_path, tmp_path)
    for part in parts:
        for name, tensor in part.items():
            assert read[name].equal(tensor)


def test_what_we_write_the_reference_loads(tool, tmp_path):
    save_file({"x": torch.arange(6).reshape(2, 3)}, tmp_path / "in.safetensors")
    subprocess.run([tool("dump_tensors"), tmp_path / "in.safetensors", tmp_path / "out.safetensors"], check=True)
    with safe_open(tmp_path / "out.safetensors", "pt") as f:
        assert f.metadata() == {"format": "pt"}
        assert f.get_tensor("x").equal(torch.arange(6).reshape(2, 3))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4"])
def test_ggml_formats_dequantize_as_gguf_py_does(tool, tmp_path, name):
    qtype = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[qtype]
    rows, columns = 24, 1024
    rng = np.random.default_rng(1)
    raw = rng.integers(0, 256, (rows, columns // block * size), dtype=np.uint8)
    if name in ("F32", "F16", "BF16"):
        raw = gguf.quants.quantize(rng.normal(size=(rows, columns)).astype(np.float32), qtype).view(np.uint8)
    else:
        # Random bytes, but finite half-precision scales: where they lie is found by probing for NaN.
        for _ in range(64):
            bad = ~np.isfinite(gguf.quants.dequantize(raw, qtype)).reshape(rows, -1, block).all(-1)
            if not bad.any():
                break
            blocks = raw.reshape(rows, -1, size)
            blocks[bad] = rng.integers(0, 256, (int(bad.sum()), size), dtype=np.uint8)
    expected = gguf.quants.dequantize(raw, qtype)
    assert np.isfinite(expected).all()
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("x.weight", raw if name not in ("F32", "F16") else raw.view(np.float32 if name == "F32" else np.float16), raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = dump(tool, path, tmp_path)["x.weight"].float().numpy()
    assert read.shape == (rows, columns)
    # Bit for bit: the same operations in the same order, nothing fused.
    assert np.array_equal(read.view(np.uint32), expected.reshape(read.shape).view(np.uint32))


def test_the_real_gguf_reads_as_gguf_py_does(tool, tmp_path, smollm2_gguf):
    read = dump(tool, smollm2_gguf, tmp_path)
    reference = gguf.GGUFReader(smollm2_gguf)
    assert len(reference.tensors) == len(read)
    for tensor in reference.tensors:
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(read[tensor.name].float().numpy().reshape(expected.shape).view(np.uint32), expected.view(np.uint32)), tensor.name


def open_files(tool, paths):
    done = subprocess.run([tool("open_files"), *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}"
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(paths)
    return lines


def reference_open(path):
    """{name: [dtype, shape]}, or None where the reference refuses the file."""
    try:
        with safe_open(path, "pt") as f:
            return {k: [f.get_slice(k).get_dtype(), list(f.get_slice(k).get_shape())] for k in f.keys()}
    except SafetensorError:
        return None


def test_damaged_safetensors_are_refused_where_the_reference_refuses(tool, tmp_path):
    header = {"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
              "s": {"dtype": "BF16", "shape": [], "data_offsets": [24, 26]}, "e": {"dtype": "F16", "shape": [0, 2], "data_offsets": [26, 26]},
              "u": {"dtype": "I64", "shape": [1, 2], "data_offsets": [26, 42]}}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    rng = random.Random(5)
    paths = []
    for i in range(1500):
        damaged = bytearray(text)
        for _ in range(rng.randint(1, 2)):
            at = rng.randrange(len(damaged))
            damaged[at:at + rng.choice([0, 1, 1, 1, 2])] = rng.choice([b"", b"0", b"1", b"2", b"6", b",", b"}", b"]", b'"', b" ", b"F64", bytes([rng.randrange(256)])])
        paths.append(tmp_path / f"{i}.safetensors")
        paths[-1].write_bytes(struct.pack("<Q", len(damaged)) + bytes(damaged) + bytes(range(42)))
    loaded = 0
    for path, ours in zip(paths, open_files(tool, paths)):
        theirs = reference_open(path)
        text = path.read_bytes()[8:-42]
        if theirs is None:
            assert "error" in ours, text
        elif "error" in ours:  # we are stricter in one thing: a key given twice
            assert "appears twice" in ours["error"], (text, ours["error"])
        else:
            assert ours["tensors"] == theirs, text
            loaded += 1
    assert loaded > 50


def test_codes_pack_as_numpy_packs_bits(tool, tmp_path):
    rng = np.random.default_rng(3)
    codes = {f"codes.{b}": torch.from_numpy(rng.integers(0, 1 << b, (5, 77), dtype=np.uint8)) for b in range(1, 9)}
    save_file(codes, tmp_path / "in.safetensors")
    subprocess.run([tool("pack_codes"), tmp_path / "in.safetensors", tmp_path / "out.safetensors"], check=True)
    packed = load_file(tmp_path / "out.safetensors")
    for bits in range(1, 9):
        q = codes[f"codes.{bits}"].numpy()
        stream = ((q[..., None] >> np.arange(bits)) & 1).reshape(len(q), -1)
        stream = np.pad(stream, ((0, 0), (0, -stream.shape[1] % 32)))
        expected = np.packbits(stream.astype(np.uint8), axis=1, bitorder="little").view("<i4")
        assert np.array_equal(packed[f"words.{bits}"].numpy(), expected)
        assert np.array_equal(packed[f"back.{bits}"].numpy(), q)
