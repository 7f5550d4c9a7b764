"""What `qbench export` writes: each consumer opens it, and computes the perplexity that the run measured.

A row is a scheme, the stages, the format, and who reads it. `qbench export --engine` and the engine itself agree on what is
refused. Mistakes made in an exported file are seen (test_engines.py has them). QBENCH_CONSUMER_TABLE=FILE writes what was measured
on the demo model, a row for each format and consumer.
"""
import datetime
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

import engines
from conftest import DEMO
from mistakes import INPUT_MISTAKES, MISTAKES
from reports import perplexities

SEQ_LEN, WINDOWS = 128, 16
TEXT = DEMO / "evaluation.txt"
# Of the run's perplexity: the reader's arithmetic, float16 for codes in vLLM and GPTQModel; llama.cpp rounds activations to int8, MLX stores
# scale · zero point rounded.
TOLERANCE = {"transformers": 1e-5, "vllm": 2e-3, "gptqmodel": 2e-3, "mlx-lm": 5e-4, "openvino": 1e-4, "llama.cpp": 1e-2}
ACTIVATIONS = 5e-3  # where they are codes too: a rounding that falls the other way is carried on
NUMBERS = 5e-3      # weights written as bfloat16


def weights(kind, group=64, symmetric=True, scale="float16", more=""):
    grain = f"granularity: group, group_size: {group}" if group else "granularity: channel"
    return f"  weights: {{type: {kind}, symmetric: {str(symmetric).lower()}, {grain}, scale_type: {scale}}}\n{more}"


INT8_TOKENS = "  activations: {type: int8, symmetric: true, granularity: token}\n"
FP8_TOKENS = "  activations: {type: e4m3, granularity: token}\n"
# Scales of static inputs in the type that transformers computes in, which it reads them into.
STATIC = "  activations: {{type: {}, granularity: tensor, dynamic: false, scale_type: bfloat16}}\n"
FP8_CACHE = "  kv_cache: {type: e4m3, granularity: tensor, dynamic: false, scale_type: bfloat16}\n"
SCHEMES = {
    "w4": weights("int4"), "w4-bf16": weights("int4", scale="bfloat16"), "w4-asym": weights("int4", symmetric=False), "w4-g32": weights("int4", 32),
    "w4-channel": weights("int4", 0), "w2-asym": weights("int2", 32, False), "w3": weights("int3"), "w3-asym": weights("int3", symmetric=False),
    "w5": weights("int5"), "w6-asym": weights("int6", symmetric=False), "w8": weights("int8"), "w8-asym": weights("int8", symmetric=False),
    "w8a8": weights("int8", 0, more=INT8_TOKENS), "w4a8": weights("int4", more=INT8_TOKENS), "fp8": "  weights: {type: e4m3, granularity: channel}\n" + FP8_TOKENS,
    "w8a8-static": weights("int8", 0, more=STATIC.format("int8")), "w8a8-static-asym": weights("int8", 0, more=STATIC.format("int8, symmetric: false")),
    "w8a8-static-asym-bf16": weights("int8", 0, scale="bfloat16", more=STATIC.format("int8, symmetric: false")),
    "fp8-static": "  weights: {type: e4m3, granularity: channel}\n" + STATIC.format("e4m3"), "fp8-static-tensor": "  weights: {type: e4m3, granularity: tensor}\n" + STATIC.format("e4m3"),
    "w4-fp8-cache": weights("int4", more=FP8_CACHE), "w8a8-fp8-cache": weights("int8", 0, more=INT8_TOKENS + FP8_CACHE),
    "nvfp4-a4": "  weights: {type: nvfp4}\n  activations: {type: nvfp4}\n", "mxfp4-a4": "  weights: {type: mxfp4}\n  activations: {type: mxfp4}\n",
    "w4-embedding": weights("int4", more="  embedding: {type: int8, granularity: group, group_size: 64, scale_type: float16}\n"),
    "q4_k-embedding": "  weights: {type: q4_K}\n  embedding: {type: q6_K}\n",
    "w4-but-down": weights("int4", more='  overrides:\n    - {match: "*.down_proj", weights: float}\n'),
    "w4-down-w8": weights("int4", more='  overrides:\n    - {match: "*.down_proj", weights: {type: int8, granularity: group, group_size: 64}}\n'),
} | {kind.lower(): f"  weights: {{type: {kind}}}\n" for kind in
     ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "iq4_nl", "mxfp4", "nvfp4")}
ROUND, GPTQ, AWQ = "rtn", "{method: gptq, actorder: true}", "awq, clip, gptq"


@dataclass(frozen=True)
class Row:
    format: str
    scheme: str
    reader: str                      # of engines.KINDS
    pipeline: str = ROUND
    dtype: str = ""                  # that the reader computes in; its first where it is empty
    measured_in: str = "float32"     # that the run's perplexity is measured in
    within: float = 0                # tolerance where it is not the reader's

    @property
    def tolerance(self):
        return self.within or TOLERANCE[self.reader]

    def __str__(self):
        return "-".join([self.format, self.scheme, *(["stages"] if self.pipeline != ROUND else []), self.reader])


def rows(format, schemes, readers, **more):
    return [Row(format, scheme, reader, **more) for scheme in schemes for reader in readers]


CT = "compressed-tensors"
BF16 = dict(dtype="bfloat16", measured_in="bfloat16", within=ACTIVATIONS)  # compared in the reader's arithmetic
ROWS = [
    *rows(CT, ["w4", "w4-bf16", "w4-asym", "w4-g32", "w4-channel", "w4-but-down"], ["vllm", "transformers"]),
    *rows(CT, ["w2-asym", "w3", "w3-asym", "w5", "w6-asym", "w8", "w8-asym", "w4-down-w8"], ["transformers"]),
    *rows(CT, ["w4"], ["vllm", "transformers"], pipeline=GPTQ),
    *rows(CT, ["w4-asym"], ["vllm", "transformers"], pipeline=AWQ),
    *rows(CT, ["w8a8"], ["vllm", "transformers"], **BF16),
    *rows(CT, ["w8a8-static-asym"], ["vllm"], **BF16),
    *rows(CT, ["w4a8", "fp8", "w8a8-static", "w8a8-static-asym-bf16", "fp8-static", "fp8-static-tensor"], ["transformers"], **BF16),
    *rows(CT, ["w4-fp8-cache", "w8a8-fp8-cache"], ["vllm", "transformers"], **BF16),
    *rows(CT, ["mxfp4-a4"], ["transformers"], **BF16),
    *rows(CT, ["nvfp4-a4"], ["transformers"], within=ACTIVATIONS),  # in float32: from bfloat16 it rounds what a group's scale shall be twice, which no kernel does
    *rows(CT, ["nvfp4"], ["transformers"], **BF16),
    *rows("gptq", ["w4", "w4-channel"], ["vllm", "gptqmodel"]),
    *rows("gptq", ["w8"], ["gptqmodel"]),
    *rows("gptq", ["w4"], ["gptqmodel"], pipeline=GPTQ),
    *rows("gptq_v2", ["w4-asym", "w2-asym", "w3-asym", "w8-asym"], ["gptqmodel"]),
    *rows("awq", ["w4-asym"], ["vllm", "gptqmodel"]),
    *rows("awq", ["w4-asym"], ["vllm", "gptqmodel"], pipeline=AWQ),
    *rows("mlx", ["w4", "w4-bf16", "w4-asym", "w2-asym", "w3-asym", "w5", "w8", "w4-but-down", "w4-down-w8"], ["mlx-lm"]),
    *rows("mlx", ["w4-asym"], ["mlx-lm"], pipeline=AWQ),
    *rows("mlx", ["w4-embedding"], ["mlx-lm"]),
    *rows("gguf", ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "mxfp4"], ["llama.cpp"]),
    *rows("gguf", ["q4_0", "q8_0", "q6_k"], ["openvino"]),
    *rows("gguf", ["q4_k"], ["llama.cpp"], pipeline=AWQ),
    *rows("gguf", ["q4_k-embedding"], ["llama.cpp"]),
    *rows("transformed", ["w4-asym"], ["vllm", "transformers"], pipeline="awq, rtn", within=NUMBERS),
    *rows("dequantized", ["w4-asym"], ["vllm", "transformers"], pipeline=AWQ, within=NUMBERS),
]
REAL = [Row(CT, "w4-asym", "vllm"), Row(CT, "w4-asym", "transformers"), Row("gptq", "w4", "vllm"), Row("gguf", "q8_0", "llama.cpp")]
REFUSED = [Row(CT, "w8", "vllm"), Row(CT, "w3", "vllm"), Row("gptq", "w8", "vllm"), Row("gptq_v2", "w4-asym", "vllm")]
ENGINES = {"vllm": "vllm-cpu"}  # a reader's name for `qbench export --engine` where it is not its own


class Workbench:
    """Runs of one model, made when they are first asked for, and what was exported of them."""

    def __init__(self, qbench, folder, model, corpus, text, seq_len, windows):
        self.qbench, self.folder, self.model, self.corpus, self.text = qbench, folder, model, corpus, text
        self.seq_len, self.windows, self.runs, self.exports = seq_len, windows, {}, {}

    def run(self, scheme, pipeline, dtype):
        """The run's folder and its report."""
        key = scheme, pipeline, dtype
        if key not in self.runs:
            recipe = self.folder / f"recipe-{len(self.runs)}.yaml"
            recipe.write_text(f"name: {scheme}\nmodel: {{path: '{self.model}', dtype: bfloat16}}\n"
                              f"calibration: {{corpus: '{self.corpus}', sampling: sequential, samples: 8, seq_len: 128}}\n"
                              f"scheme:\n{SCHEMES[scheme]}pipeline: [{pipeline}]\n"
                              f"evaluation:\n  - {{corpus: '{self.text}', seq_len: {self.seq_len}, windows: {self.windows}, dtype: {dtype}, bos: tokenizer}}\n")
            report = json.loads(self.call("run", recipe, "--workspace", self.folder / "workspace", "--quiet", "--json").stdout)[0]
            self.runs[key] = self.folder / "workspace/runs" / report["id"], report
        return self.runs[key]

    def export(self, row):
        """The exported folder or file, and the perplexity that the run says."""
        run, report = self.run(row.scheme, row.pipeline, row.measured_in)
        key = run, row.format
        if key not in self.exports:
            self.exports[key] = self.folder / f"export-{len(self.exports)}{'.gguf' if row.format == 'gguf' else ''}"
            self.call("export", run, "--format", row.format, "-o", self.exports[key])
        return self.exports[key], next(p["perplexity"] for p in perplexities(report) if p["float_model"] == (row.format == "transformed"))

    def call(self, *arguments, code=0):
        done = subprocess.run([self.qbench, *map(str, arguments)], capture_output=True, text=True, timeout=600)
        assert (done.returncode == 0) == (code == 0), (done.returncode, done.stdout, done.stderr)
        return done

    def read(self, engine, row, exported):
        more = {"tokenizer": str(self.model / "tokenizer.json")} if row.reader == "openvino" else {}
        return engine.perplexity(exported, self.text, self.windows, self.seq_len, row.dtype or None, **more).value


@pytest.fixture(scope="module")
def demo(tool, tmp_path_factory):
    return Workbench(tool("qbench"), tmp_path_factory.mktemp("demo"), DEMO, DEMO / "calibration.txt", TEXT, SEQ_LEN, WINDOWS)


@pytest.fixture(scope="module")
def real(tool, tmp_path_factory, shared, smollm2_folder):
    data = shared / "data"
    return Workbench(tool("qbench"), tmp_path_factory.mktemp("real"), smollm2_folder, data / "wikitext2-valid.txt", data / "wikitext2-test.raw", 512, 2)


def table(measured):
    """A row for each format and consumer: the scheme that it shows first, and the largest difference of all."""
    lines = [f"Demo model, {WINDOWS} windows of {SEQ_LEN} tokens of its evaluation text, {datetime.date.today()}.", "",
             "| format | consumer | scheme | perplexity here | there | largest difference (of so many) |", "|---|---|---|---|---|---|"]
    for format, reader in dict.fromkeys((row.format, row.reader) for row, _, _ in measured):
        rows = [(row, here, there) for row, here, there in measured if (row.format, row.reader) == (format, reader)]
        row, here, there = rows[0]
        apart = max(abs(there / here - 1) for _, here, there in rows)
        scheme = row.scheme if row.pipeline == ROUND else f"{row.scheme}, {row.pipeline}"
        lines.append(f"| `{format}` | {engines.version(reader)} | {scheme} | {here:.4f} | {there:.4f} | {100 * apart:.3f} % ({len(rows)}) |")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def measured():
    """What test_demo measures: a row, the perplexity here, and the consumer's."""
    rows = []
    yield rows
    if path := os.environ.get("QBENCH_CONSUMER_TABLE"):
        Path(path).write_text(table(rows))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_demo(consumer, demo, measured, row):
    reader = consumer(row.reader)
    exported, expected = demo.export(row)
    there = demo.read(reader, row, exported)
    measured.append((row, expected, there))
    assert there == pytest.approx(expected, rel=row.tolerance)


@pytest.mark.parametrize("row", REAL, ids=str)
def test_real_model(consumer, real, row):
    reader = consumer(row.reader)
    exported, expected = real.export(row)
    assert real.read(reader, row, exported) == pytest.approx(expected, rel=row.tolerance)


@pytest.mark.parametrize("row", REFUSED, ids=str)
def test_what_an_engine_refuses_is_refused_before(consumer, demo, tmp_path, row):
    reader = consumer(row.reader)
    exported, _ = demo.export(row)
    with pytest.raises(engines.Refused):
        demo.read(reader, row, exported)
    run, _ = demo.run(row.scheme, row.pipeline, row.measured_in)
    done = demo.call("export", run, "--format", row.format, "--engine", ENGINES.get(row.reader, row.reader), "-o", tmp_path / "out", code=4)
    assert "vLLM" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("row", [row for row in ROWS if row.pipeline == ROUND and row.reader == "vllm" and not row.dtype], ids=str)
def test_what_an_engine_takes_is_not_refused(demo, tmp_path, row):
    run, _ = demo.run(row.scheme, row.pipeline, row.measured_in)
    demo.call("export", run, "--format", row.format, "--engine", ENGINES[row.reader], "-o", tmp_path / "out")
    assert (tmp_path / "out/config.json").exists()


def require_seen(reader, demo, row, mutate, folder):
    """That the engine refuses the changed checkpoint, or computes something else of it."""
    exported, expected = demo.export(row)
    shutil.copytree(exported, folder)
    mutate(folder)
    try:
        wrong = demo.read(reader, row, folder)
    except engines.Refused:
        return
    assert wrong != pytest.approx(expected, rel=row.tolerance)


EXPORTED = {"ct-w4": (CT, "w4"), "ct-w4-asym": (CT, "w4-asym"), "gptq-w4": ("gptq", "w4"), "awq": ("awq", "w4-asym"), "mlx": ("mlx", "w4-asym")}


@pytest.mark.parametrize("name, engine, mistake, mutate", MISTAKES, ids=[f"{e}-{n}-{m}" for n, e, m, _ in MISTAKES])
def test_a_mistake_is_seen(consumer, demo, tmp_path, name, engine, mistake, mutate):
    require_seen(consumer(engine), demo, Row(*EXPORTED[name], engine), mutate, tmp_path / "wrong")


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
@pytest.mark.parametrize("mistake, mutate", INPUT_MISTAKES.items(), ids=INPUT_MISTAKES)
def test_a_mistake_in_a_static_range_is_seen(consumer, demo, tmp_path, engine, mistake, mutate):
    require_seen(consumer(engine), demo, Row(CT, "w8a8-static-asym", engine, **BF16), mutate, tmp_path / "wrong")
