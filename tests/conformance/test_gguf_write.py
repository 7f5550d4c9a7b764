"""core/format's GGUF writer and block packer against the gguf package."""
import struct
import subprocess

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

BLOCK_TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4"]
NUMBER = gguf.GGUFValueType


def random_blocks(name, rows, columns, rng):
    """Random bytes whose half floats are numbers (ggml's half floats lie where probing finds NaN)."""
    kind = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (rows, columns // block * size), dtype=np.uint8)
    while (bad := ~np.isfinite(gguf.quants.dequantize(raw, kind)).reshape(rows, -1, block).all(-1)).any():
        raw.reshape(rows, -1, size)[bad] = rng.integers(0, 256, (int(bad.sum()), size), dtype=np.uint8)
    return raw


def write_sample(path, rng):
    writer = gguf.GGUFWriter(path, "llama")
    for kind, value in ((NUMBER.UINT8, 200), (NUMBER.INT8, -7), (NUMBER.UINT16, 60000), (NUMBER.INT16, -300), (NUMBER.UINT32, 4000000000), (NUMBER.INT32, -70000),
                        (NUMBER.FLOAT32, 0.1), (NUMBER.BOOL, True), (NUMBER.UINT64, 1 << 40), (NUMBER.INT64, -(1 << 40)), (NUMBER.FLOAT64, 0.1), (NUMBER.STRING, "ein Wort: ▁")):
        writer.add_key_value(f"x.{kind.name.lower()}", value, kind)
    for kind, values in ((NUMBER.STRING, ["ab", "", "ü"]), (NUMBER.INT32, [3, -4, 5]), (NUMBER.FLOAT32, [0.5, -2.25]), (NUMBER.BOOL, [True, False]), (NUMBER.UINT32, [1, 2])):
        writer.add_key_value(f"x.list.{kind.name.lower()}", values, NUMBER.ARRAY, sub_type=kind)
    for i, name in enumerate(BLOCK_TYPES):
        writer.add_tensor(f"{name}.weight", random_blocks(name, 3 + i, 512, rng), raw_dtype=gguf.GGMLQuantizationType[name])
    writer.add_tensor("experts.weight", random_blocks("Q4_K", 15, 256, rng).reshape(3, 5, -1), raw_dtype=gguf.GGMLQuantizationType.Q4_K)
    values = rng.normal(size=(5, 7)).astype(np.float32)
    writer.add_tensor("f32", values)
    writer.add_tensor("f16", values.astype(np.float16))
    writer.add_tensor("bf16", gguf.quants.quantize(values[:, :6], gguf.GGMLQuantizationType.BF16), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.add_tensor("vector", values[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def rewritten(tool, tmp_path_factory):
    """A file of every type of value and of tensor by gguf-py, the same by our writer, and the parts of its tensors."""
    folder = tmp_path_factory.mktemp("rewritten")
    write_sample(folder / "in.gguf", np.random.default_rng(11))
    subprocess.run([tool("rewrite_gguf"), folder / "in.gguf", folder / "out.gguf", folder / "parts.safetensors"], check=True)
    return gguf.GGUFReader(folder / "in.gguf"), gguf.GGUFReader(folder / "out.gguf"), load_file(folder / "parts.safetensors")


def test_what_we_write_gguf_py_reads_the_same(rewritten):
    reference, ours, _ = rewritten
    internal = lambda reader: {k: v for k, v in reader.fields.items() if not k.startswith("GGUF.")}
    assert internal(ours).keys() == internal(reference).keys()
    for key, field in internal(reference).items():
        assert ours.fields[key].types == field.types and ours.fields[key].contents() == field.contents(), key
    assert [t.name for t in ours.tensors] == [t.name for t in reference.tensors]
    for a, b in zip(ours.tensors, reference.tensors):
        assert a.tensor_type == b.tensor_type and a.shape.tolist() == b.shape.tolist() and a.data_offset % 32 == 0, a.name
        assert np.array_equal(a.data.view(np.uint8), b.data.view(np.uint8)), a.name


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_codes_and_scales_stand_for_what_gguf_py_dequantizes(rewritten, name):
    reference, _, parts = rewritten
    tensor = next(t for t in reference.tensors if t.name == f"{name}.weight")
    part = {k.rsplit(".", 1)[1]: v.double().numpy() for k, v in parts.items() if k.startswith(f"{name}.weight.")}
    rows, columns = part["codes"].shape
    wide = lambda key: np.repeat(part[key], columns // part[key].shape[1], 1)
    x = part["codes"]
    if name == "IQ4_NL":
        x = np.array(gguf.quants.IQ4_NL.kvalues, dtype=np.float64)[x.astype(int)]
    if name == "MXFP4":
        x = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])[x.astype(int)]
    with np.errstate(invalid="ignore"):  # MXFP4's infinite scale times 0
        x = x * wide("d") * (wide("scales") if "scales" in part else 1)
    if "mins" in part:
        x = x - wide("m") * wide("mins")
    elif "m" in part:
        x = x + wide("m")
    expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(rows, columns)
    bound = wide("d") * (wide("scales") if "scales" in part else 1)
    finite = np.isfinite(bound)
    scale = np.abs(np.where(finite, x, 0)).max(1, keepdims=True)
    assert (np.abs(x - expected)[finite] <= np.broadcast_to(1e-6 * scale + 1e-45, x.shape)[finite]).all()
    assert finite.mean() > 0.9 and np.ptp(part["codes"]) >= 3


def write_imatrix(path, tensors, kind="imatrix"):
    """As llama.cpp's imatrix tool lays it out."""
    writer = gguf.GGUFWriter(path, "", use_temp_file=False)
    writer.kv_data[0].pop("general.architecture", None)
    writer.add_type(kind)
    writer.add_array("imatrix.datasets", ["a.txt", "b.txt"])
    writer.add_uint32("imatrix.chunk_count", 7)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, value in tensors.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def importance(rng):
    squares = lambda matrices, width: np.square(rng.normal(size=(matrices, width))).astype(np.float32)
    tensors = {}
    for name, matrices, width in (("blk.0.attn_q.weight", 1, 48), ("blk.0.ffn_down_exps.weight", 5, 32), ("output.weight", 1, 16)):
        tensors[f"{name}.in_sum2"] = squares(matrices, width)
        tensors[f"{name}.counts"] = rng.integers(0, 3000, (matrices, 1)).astype(np.float32)
    return tensors


def test_importance_matrices_survive_reading_and_writing(tool, tmp_path):
    tensors = importance(np.random.default_rng(3))
    write_imatrix(tmp_path / "in.gguf", tensors)
    subprocess.run([tool("rewrite_imatrix"), tmp_path / "in.gguf", tmp_path / "out.gguf"], check=True)
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    reference = gguf.GGUFReader(tmp_path / "in.gguf")
    for key in ("general.type", "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"):
        assert reader.fields[key].contents() == reference.fields[key].contents() and reader.fields[key].types == reference.fields[key].types
    assert {t.name: (t.shape.tolist(), t.data.tolist()) for t in reader.tensors} == {t.name: (t.shape.tolist(), t.data.tolist()) for t in reference.tensors}


def older(tensors, windows=7):
    """The form of before 2025: mean squares times windows, an expert's behind another's."""
    names = [name.removesuffix(".in_sum2") for name in tensors if name.endswith(".in_sum2")]
    parts = [struct.pack("<i", len(names))]
    for name in names:
        values = tensors[name + ".in_sum2"] / np.maximum(tensors[name + ".counts"], 1) * windows
        parts += [struct.pack("<i", len(name)), name.encode(), struct.pack("<ii", windows, values.size), values.astype("<f4").tobytes()]
    return b"".join(parts), struct.pack("<ii", windows, 4) + b"text"


@pytest.mark.parametrize("ending", [True, False])
def test_importance_matrices_of_the_older_form(ending, tool, tmp_path):
    tensors = importance(np.random.default_rng(3))
    body, end = older(tensors)
    (tmp_path / "in.dat").write_bytes(body + (end if ending else b""))
    subprocess.run([tool("rewrite_imatrix"), tmp_path / "in.dat", tmp_path / "out.gguf"], check=True)
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    found = {t.name: np.array(t.data, dtype=np.float32).ravel() for t in reader.tensors}
    for name in ("blk.0.attn_q.weight", "blk.0.ffn_down_exps.weight", "output.weight"):
        means = (tensors[name + ".in_sum2"] / np.maximum(tensors[name + ".counts"], 1) * 7).astype(np.float32)
        np.testing.assert_array_equal(found[name + ".in_sum2"], means.ravel())
        assert found[name + ".counts"].tolist() == [7]
    assert reader.fields["imatrix.chunk_count"].contents() == (7 if ending else 0)
    for cut in (3, 9, 40, len(body) - 1, len(body) + 6):
        (tmp_path / "cut.dat").write_bytes((body + end)[:cut])
        done = subprocess.run([tool("rewrite_imatrix"), tmp_path / "cut.dat", tmp_path / "no.gguf"], capture_output=True, text=True)
        assert done.returncode == 1 and "cut.dat: no importance matrix" in done.stderr, done.stderr


@pytest.mark.parametrize("change, message", [
    (lambda t: t.pop("output.weight.counts"), "output.weight.counts"),
    (lambda t: t.pop("output.weight.in_sum2"), "output.weight.in_sum2"),
    (lambda t: t.update({"output.weight.counts": np.ones((2, 1), np.float32)}), "has 2 values"),
    (lambda t: t["output.weight.in_sum2"].__setitem__((0, 3), -1), "negative"),
    (lambda t: t["output.weight.in_sum2"].__setitem__((0, 3), np.nan), "no numbers"),
    (lambda t: t.update({"output.weight": np.ones(4, np.float32)}), "in_sum2 or .counts"),
])
def test_damaged_importance_matrices_are_refused(tool, tmp_path, change, message):
    tensors = importance(np.random.default_rng(3))
    change(tensors)
    write_imatrix(tmp_path / "in.gguf", tensors)
    done = subprocess.run([tool("rewrite_imatrix"), tmp_path / "in.gguf", tmp_path / "out.gguf"], capture_output=True, text=True)
    assert done.returncode == 1 and message in done.stderr and "in.gguf" in done.stderr, done.stderr
    assert not (tmp_path / "out.gguf").exists()


def test_a_model_is_no_importance_matrix(tool, tmp_path):
    write_imatrix(tmp_path / "in.gguf", {}, kind="model")
    done = subprocess.run([tool("rewrite_imatrix"), tmp_path / "in.gguf", tmp_path / "out.gguf"], capture_output=True, text=True)
    assert done.returncode == 1 and '"model", expected "imatrix"' in done.stderr
