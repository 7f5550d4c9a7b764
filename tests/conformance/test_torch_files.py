"""pytorch_model.bin: read as torch.load(weights_only=True) reads it, nothing in it executed, damage of any kind one clear error."""
import collections
import json
import os
import pickle
import random
import struct
import subprocess
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

import model_zoo
from test_format import dump, open_files
from test_models import TOLERANCE, assert_close, our_logits, token_ids  # noqa: F401

TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.int64, torch.int32, torch.int16,
         torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool]


def sample():
    """Every type and every way in which a tensor may lie in its storage."""
    torch.manual_seed(3)
    base = torch.randn(6, 8) * 3
    tensors = collections.OrderedDict((str(t), (base.abs() if not t.is_floating_point and not t.is_complex else base).to(t)) for t in TYPES)
    whole = torch.randn(4, 5, 6)
    tensors.update({"whole": whole, "transposed": whole[1].t(), "permuted": whole.permute(2, 0, 1), "rows": whole[1:3], "steps": whole[:, ::2, 1::3], "column": whole[:, 1:2, 3],
                    "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "empty view": whole[4:, :, 2:], "one": torch.randn(1, 1, 7)[:, :, 2:5],
                    "parameter": torch.nn.Parameter(torch.randn(3, 3).bfloat16()), "frozen": torch.nn.Parameter(torch.randn(2), requires_grad=False)})
    marked = torch.nn.Parameter(torch.randn(2, 2))
    marked.origin = "a note"  # attributes go into the pickle
    tensors["marked"] = marked
    tensors._metadata = collections.OrderedDict({"": {"version": 1}, "layer": {"version": 2, "of": [1.5, None, (True, 7)]}})  # as a module's state_dict has it
    return tensors


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_type_and_view_reads_as_torch_does(protocol, tool, tmp_path):
    file = tmp_path / "pytorch_model.bin"
    torch.save(sample(), file, pickle_protocol=protocol)
    reference = torch.load(file, weights_only=protocol < 4)  # whose own restricted reader knows no later one
    read = dump(tool, file, tmp_path)
    assert set(read) == set(reference)
    for name, value in reference.items():
        assert read[name].dtype == value.dtype and read[name].shape == value.shape, name
        assert torch.equal(read[name].contiguous().view(torch.uint8) if value.numel() and value.dim() else read[name], value.detach().contiguous().view(torch.uint8) if value.numel() and value.dim() else value.detach()), name


def test_a_module_as_it_saves_itself(tool, tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7))
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
    read = dump(tool, tmp_path / "pytorch_model.bin", tmp_path)
    assert all(torch.equal(read[name], value) for name, value in module.state_dict().items())


def to_bin(folder, shards=1):
    """The folder's safetensors as torch's files."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return
    names, index = list(tensors), {"metadata": {"total_size": 1}, "weight_map": {}}
    for i in range(shards):
        name = f"pytorch_model-{i + 1:05}-of-{shards:05}.bin"
        part = names[i::shards]
        torch.save({key: tensors[key] for key in part}, folder / name)
        index["weight_map"].update(dict.fromkeys(part, name))
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("name, shards", [("llama", 1), ("llama", 3), ("qwen2-moe", 2), ("gpt-neox", 1)])
def test_logits_of_a_folder_with_torch_files(name, shards, tmp_path, our_logits):  # noqa: F811
    model = model_zoo.save_model(name, tmp_path / "model")
    to_bin(tmp_path / "model", shards)
    ids = token_ids()
    reference = model_zoo.reference_logits(model, ids)
    assert_close(our_logits(tmp_path / "model", ids)["logits"], reference)
    for part in sorted((tmp_path / "model").glob("pytorch_model*")):  # each stands for the folder
        assert_close(our_logits(part, ids)["logits"], reference)


def test_safetensors_come_first(tmp_path, our_logits):  # noqa: F811
    model = model_zoo.save_model("llama", tmp_path / "model")
    torch.save({"model.embed_tokens.weight": torch.zeros(1)}, tmp_path / "model" / "pytorch_model.bin")
    ids = token_ids()
    assert_close(our_logits(tmp_path / "model", ids)["logits"], model_zoo.reference_logits(model, ids))


def test_a_missing_shard_is_named(tool, tmp_path):
    model_zoo.save_model("llama", tmp_path / "model")
    to_bin(tmp_path / "model", 3)
    (tmp_path / "model" / "pytorch_model-00002-of-00003.bin").unlink()
    done = subprocess.run([tool("model_inspect"), tmp_path / "model"], capture_output=True, text=True)
    line = json.loads(done.stdout)
    assert line["kind"] == "input" and "pytorch_model-00002-of-00003.bin" in line["error"]


class Runs:
    """What a pickle may ask for."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def refused(tool, path, *needles):
    (line,) = open_files(tool, [path])
    assert "error" in line, line
    assert path.name in line["error"] and "\n" not in line["error"]
    for needle in needles:
        assert needle in line["error"], line["error"]


@pytest.mark.parametrize("function, name", [(os.system, "posix.system"), (eval, "builtins.eval"), (subprocess.Popen, "subprocess.Popen"), (getattr, "builtins.getattr"),
                                            (torch.load, "torch.serialization.load"), (torch.hub.load, "torch.hub.load")])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_would_run_something_is_refused_by_name(function, name, protocol, tool, tmp_path):
    mark = tmp_path / "it ran"
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(2), "b": Runs(function, f"touch '{mark}'")}, path, pickle_protocol=protocol)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    attribute = name.rsplit(".", 1)[1]
    refused(tool, path, attribute if protocol == 2 else name, "nothing is run")  # protocol 2 has Python 2's names of modules
    assert not mark.exists()


def test_what_is_no_dictionary_of_tensors_is_said_in_words(tool, tmp_path):
    cases = {"list": ([torch.ones(2)], "holds a list"), "tensor": (torch.ones(2), "holds a tensor"), "training": ({"model": {"a": torch.ones(2)}, "epoch": 3}, '"model" is a dictionary'),
             "number": ({"a": torch.ones(2), "step": 3}, '"step" is an integer'), "keys": ({3: torch.ones(2)}, "an integer as a key"),
             "sparse": ({"a": torch.eye(3).to_sparse()}, "_rebuild_sparse_tensor"), "quantized": ({"a": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)}, "_rebuild_qtensor"),
             "module": ({"a": torch.nn.Linear(2, 2)}, "torch.nn.modules.linear.Linear"), "expanded": ({"a": torch.ones(1).expand(5)}, "repeatedly"),
             "conjugated": ({"a": torch.ones(2, dtype=torch.complex64).conj()}, "conjugated")}
    for name, (value, needle) in cases.items():
        path = tmp_path / f"{name}.bin"
        torch.save(value, path)
        refused(tool, path, needle)


def test_other_files_are_said_in_words(tool, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "legacy.bin", _use_new_zipfile_serialization=False)
    refused(tool, tmp_path / "legacy.bin", "before version 1.6", "weights_only=True")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.bin")
    refused(tool, tmp_path / "script.bin", "TorchScript")
    (tmp_path / "text.bin").write_text("hello")
    refused(tool, tmp_path / "text.bin", "not a zip archive")
    (tmp_path / "pointer.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n")
    refused(tool, tmp_path / "pointer.bin", "Git LFS pointer", "git lfs pull")
    torch.save({"a": torch.ones(100)}, tmp_path / "whole.bin")
    with zipfile.ZipFile(tmp_path / "whole.bin") as archive, zipfile.ZipFile(tmp_path / "deflated.bin", "w", zipfile.ZIP_DEFLATED) as out:
        for name in archive.namelist():
            out.writestr(name, archive.read(name))
    refused(tool, tmp_path / "deflated.bin", "compressed", "data.pkl")


def repacked(source, path, change):
    """The archive with entries changed: change(name, bytes) → bytes or None."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as out:
        for name in archive.namelist():
            data = change(name.split("/", 1)[1], archive.read(name))
            if data is not None:
                out.writestr(name, data)


def test_storages_must_be_what_the_pickle_says(tool, tmp_path):
    good = tmp_path / "good.bin"
    torch.save({"w": torch.arange(6.0)}, good)
    repacked(good, tmp_path / "same.bin", lambda name, data: data)
    assert torch.equal(dump(tool, tmp_path / "same.bin", tmp_path)["w"], torch.arange(6.0))
    cases = {"short": (lambda n, d: d[:-4] if n == "data/0" else d, "20 bytes, expected 24"), "long": (lambda n, d: d + b"1234" if n == "data/0" else d, "28 bytes, expected 24"),
             "gone": (lambda n, d: None if n == "data/0" else d, 'no entry "data/0"'), "no pickle": (lambda n, d: None if n == "data.pkl" else d, "no data.pkl"),
             "big-endian": (lambda n, d: b"big" if n == "byteorder" else d, 'byteorder is "big"'),
             # Six elements, of which the tensor shows eight, or begins at the seventh, or in steps of two.
             "shape": (lambda n, d: d.replace(b"K\x06\x85", b"K\x08\x85") if n == "data.pkl" else d, "reaches element 7"),
             "first": (lambda n, d: d.replace(b"QK\x00", b"QK\x07") if n == "data.pkl" else d, "reaches element"),
             "stride": (lambda n, d: d.replace(b"K\x01\x85", b"K\x02\x85") if n == "data.pkl" else d, "reaches element 10"),
             "behind": (lambda n, d: d + b"N." if n == "data.pkl" else d, "goes on behind its end")}
    for name, (change, needle) in cases.items():
        repacked(good, tmp_path / f"{name}.bin", change)
        assert (tmp_path / f"{name}.bin").read_bytes() != (tmp_path / "same.bin").read_bytes(), name
        refused(tool, tmp_path / f"{name}.bin", needle)


def test_zip64_is_read(tool, tmp_path):
    """Sizes and places behind 32 bits: the same archive with them in the Zip64 fields."""
    torch.save({"w": torch.arange(6.0), "v": torch.ones(3, 2).half()}, tmp_path / "plain.bin")
    with zipfile.ZipFile(tmp_path / "plain.bin") as archive:
        entries = [(name.encode(), archive.read(name)) for name in archive.namelist()]
    body, directory = b"", b""
    for name, data in entries:
        place = len(body)
        body += struct.pack("<IHHHHHIIIHH", 0x04034b50, 45, 0, 0, 0, 0, 0, 0xffffffff, 0xffffffff, len(name), 20) + name + struct.pack("<HHQQ", 1, 16, len(data), len(data)) + data
        directory += struct.pack("<IHHHHHHIIIHHHHHII", 0x02014b50, 45, 45, 0, 0, 0, 0, 0, 0xffffffff, 0xffffffff, len(name), 32, 0, 0, 0, 0, 0xffffffff) + name
        directory += struct.pack("<HH", 0x9999, 0) + struct.pack("<HHQQQ", 1, 24, len(data), len(data), place)
    record = struct.pack("<IQHHIIQQQQ", 0x06064b50, 44, 45, 45, 0, 0, len(entries), len(entries), len(directory), len(body))
    locator = struct.pack("<IIQI", 0x07064b50, 0, len(body) + len(directory), 1)
    end = struct.pack("<IHHHHIIH", 0x06054b50, 0, 0, 0xffff, 0xffff, 0xffffffff, 0xffffffff, 0)
    (tmp_path / "large.bin").write_bytes(body + directory + record + locator + end)
    reference = torch.load(tmp_path / "large.bin", weights_only=True)
    read = dump(tool, tmp_path / "large.bin", tmp_path)
    assert set(read) == {"w", "v"} and all(torch.equal(read[name], reference[name]) for name in read)


def test_cut_anywhere_or_with_bits_flipped_it_is_data_or_one_error(tool, tmp_path):
    torch.save(collections.OrderedDict(w=torch.arange(6.0).reshape(2, 3).t(), v=torch.ones(2).half()), tmp_path / "good.bin")
    good = (tmp_path / "good.bin").read_bytes()
    generator = random.Random(5)
    damaged = [good[:n] for n in range(0, len(good), 3)]
    for _ in range(1200):
        data = bytearray(good)
        for _ in range(generator.randint(1, 3)):
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        damaged.append(bytes(data))
    paths = []
    for i, data in enumerate(damaged):
        paths.append(tmp_path / f"{i}.bin")
        paths[-1].write_bytes(data)
    read = 0
    for begin in range(0, len(paths), 400):
        for path, line in zip(paths[begin:begin + 400], open_files(tool, paths[begin:begin + 400])):
            assert ("error" in line) != ("tensors" in line)
            assert "error" not in line or (path.name in line["error"] and len(line["error"]) < 800)
            read += "tensors" in line
    assert 100 < read < len(paths) / 2  # flips within the numbers, names and dates are data
