"""Engine and harness, proved on checkpoints that checkpoints.py writes by itself: the perplexity is that of the float weights
which the codes stand for, and no mistake of an exporter passes unseen."""
import shutil

import gguf
import pytest

import checkpoints
import engines
from conftest import DEMO
from mistakes import GGUF_MISTAKES, MISTAKES

WINDOWS, SEQ_LEN = 16, 128
TEXT = DEMO / "evaluation.txt"
WRITERS = {
    "ct-w4": (checkpoints.compressed_tensors, {}),
    "ct-w4-asym": (checkpoints.compressed_tensors, {"symmetric": False}),
    "ct-w4-channel": (checkpoints.compressed_tensors, {"group": 0}),
    "ct-w3": (checkpoints.compressed_tensors, {"bits": 3, "symmetric": False}),
    "ct-w8": (checkpoints.compressed_tensors, {"bits": 8}),
    "gptq-w4": (checkpoints.gptq, {}),
    "gptq-w8": (checkpoints.gptq, {"bits": 8}),
    "gptq-v2-w4-asym": (checkpoints.gptq, {"symmetric": False, "version": 2}),
    "awq": (checkpoints.awq, {}),
    "mlx": (checkpoints.mlx, {}),
    "mlx-w3": (checkpoints.mlx, {"bits": 3, "group": 32}),
    "gguf-f32": (checkpoints.gguf_file, {}),
    "gguf-q4_0": (checkpoints.gguf_file, {"kind": gguf.GGMLQuantizationType.Q4_0}),
    "gguf-q8_0": (checkpoints.gguf_file, {"kind": gguf.GGMLQuantizationType.Q8_0}),
}
EXACT = 1e-5  # float32 arithmetic on the same weights
HALF = 1e-3   # in float16
INT8 = 1e-2   # llama.cpp rounds activations to int8
KERNELS = {"vllm": "CPUWNA16LinearKernel", "gptqmodel": "TorchLinear"}  # those that read codes; the others make numbers of them at load
TAKES = [
    ("ct-w4", "vllm", HALF), ("ct-w4-asym", "vllm", HALF), ("ct-w4-channel", "vllm", HALF), ("gptq-w4", "vllm", HALF), ("awq", "vllm", HALF),
    ("ct-w4", "transformers", EXACT), ("ct-w4-asym", "transformers", EXACT), ("ct-w4-channel", "transformers", EXACT), ("ct-w3", "transformers", EXACT),
    ("ct-w8", "transformers", EXACT), ("gptq-w4", "gptqmodel", HALF), ("gptq-w8", "gptqmodel", HALF), ("gptq-v2-w4-asym", "gptqmodel", HALF),
    ("awq", "gptqmodel", HALF), ("gguf-q4_0", "llama.cpp", INT8), ("gguf-q8_0", "llama.cpp", INT8), ("gguf-q4_0", "openvino", EXACT),
    ("gguf-q8_0", "openvino", EXACT), ("mlx", "mlx-lm", EXACT), ("mlx-w3", "mlx-lm", EXACT),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory, ours):
    """A checkpoint by name, with the workbench's perplexity of the float weights that it stands for; made once."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            write, options = WRITERS[name]
            weights = write(DEMO, folder / "model", **options)
            checkpoints.write_float(DEMO, folder / "float", weights)
            made[name] = folder / "model", ours(folder / "float", TEXT, WINDOWS, SEQ_LEN)["perplexity"]
        return made[name]
    return get


def measured(engine, model):
    more = {"tokenizer": str(DEMO / "tokenizer.json")} if engine.name == "openvino" else {}
    return engine.perplexity(model, TEXT, WINDOWS, SEQ_LEN, **more)


@pytest.mark.parametrize("name, engine, tolerance", TAKES)
def test_the_engine_computes_what_the_codes_stand_for(consumer, written, name, engine, tolerance):
    model, expected = written(name)
    found = measured(consumer(engine), model)
    assert found.value == pytest.approx(expected, rel=tolerance)
    assert found.kernel.endswith(KERNELS.get(engine, ""))


@pytest.mark.parametrize("name, engine, said", [
    ("ct-w8", "vllm", "uint8b128"), ("gptq-w8", "vllm", "uint8b128"), ("gptq-v2-w4-asym", "vllm", "Unsupported quantization config"),
    ("gptq-w4", "transformers", "GPTQ"), ("gguf-f32", "openvino", "Unsupported quantization type")])
def test_a_refusal_is_told_in_the_engines_words(consumer, written, name, engine, said):
    with pytest.raises(engines.Refused, match=said):
        measured(consumer(engine), written(name)[0])


@pytest.mark.parametrize("name, engine, mistake, mutate", MISTAKES, ids=[f"{e}-{n}-{m}" for n, e, m, _ in MISTAKES])
def test_a_mistake_is_seen(consumer, written, tmp_path, name, engine, mistake, mutate):
    reader = consumer(engine)
    model, expected = written(name)
    shutil.copytree(model, tmp_path / "wrong")
    mutate(tmp_path / "wrong")
    tolerance = next(t for n, e, t in TAKES if (n, e) == (name, engine))
    try:
        found = measured(reader, tmp_path / "wrong").value
    except engines.Refused:
        return
    assert found != pytest.approx(expected, rel=2 * tolerance)


@pytest.mark.parametrize("engine", ["llama.cpp", "openvino"])
@pytest.mark.parametrize("mistake", GGUF_MISTAKES)
def test_a_mistake_in_gguf_is_seen(consumer, written, tmp_path, engine, mistake):
    reader = consumer(engine)
    model, expected = written("gguf-q4_0")
    wrong = tmp_path / "wrong.gguf"
    shutil.copy(model, wrong)
    GGUF_MISTAKES[mistake](wrong)
    tolerance = next(t for n, e, t in TAKES if (n, e) == ("gguf-q4_0", engine))
    assert measured(reader, wrong).value != pytest.approx(expected, rel=2 * tolerance)
