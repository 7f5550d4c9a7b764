"""core/format against the safetensors and gguf packages."""
import json
import subprocess

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def dump(tool, source, tmp_path):
    out = tmp_path / "dump.safetensors"
    subprocess.run([tool("dump_tensors"), source, out], check=True)
    return load_file(out)


def test_every_plain_dtype_reads_as_the_reference_does(tool, tmp_path):
    torch.manual_seed(0)
    base = torch.randn(5, 7) * 10
    types = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
             torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
    tensors = {str(t): (base.abs() if t == torch.uint8 else base).to(t) for t in types}
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


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_ggml_formats_dequantize_as_gguf_py_does(tool, tmp_path, name):
    qtype = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[qtype]
    rows, columns = 6, 512
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
    np.testing.assert_allclose(read, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_the_real_gguf_reads_as_gguf_py_does(tool, tmp_path, smollm2_gguf):
    read = dump(tool, smollm2_gguf, tmp_path)
    reference = gguf.GGUFReader(smollm2_gguf)
    assert len(reference.tensors) == len(read)
    for tensor in reference.tensors:
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_allclose(read[tensor.name].float().numpy().reshape(expected.shape), expected, rtol=1e-6, atol=1e-7)
