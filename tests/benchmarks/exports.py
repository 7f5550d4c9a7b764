#!/usr/bin/env python3
"""Our exports beside the engines' own quantization of the same model at the same size, as the engines compute both.

    python tests/benchmarks/exports.py MODEL --calibration TEXT --evaluation TEXT [--mixes Q4_0 Q4_K_S Q4_K_M Q3_K_M Q2_K] [--pipeline "…"]
        [--schemes w4a16 w8a8] [--samples 128] [--seq-len 512] [--windows 4] [--window 1024] [--folder FOLDER] [--json FILE]

For each mix our run is exported with the types that the mix has, embedding and head included; then llama.cpp's ggml_quantize_chunk makes a
file of the same types, tensor by tensor, with an importance matrix of the same calibration tokens. llama.cpp evaluates both and the float
model; the divergence is the mean over tokens of KL(float ‖ quantized) of its predictions. Prints perplexity, divergence, their ratio, size,
seconds and memory. Needs the wheel xllamacpp (tests/requirements).

For each scheme llm-compressor makes a checkpoint by its GPTQ (W4A16 in groups of 64) or its SmoothQuant and GPTQ (W8A8) of the same
tokens, and vLLM evaluates it, our own and the float model (that in float32, the others in float16). Needs vLLM's environment
(packaging/setup.sh --consumers); llm-compressor's is made where there is none, as for block_scale.py.
"""
import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/conformance"))
sys.path.insert(0, str(ROOT / "tests/consumers"))
import engines  # noqa: E402
import llama_cpp  # noqa: E402
from block_scale import PEER, peer_venv, run  # noqa: E402

BUILD = Path(os.environ.get("QBENCH_BUILD", ROOT / "build/dev"))
PIPELINE = "{method: awq}, {method: clip}, {method: gptq, shrinkage: 0.25, sweeps: 2, fit_scales: true}"
# scheme of ours, our pipeline, their method
SCHEMES = {"w4a16": ("{weights: {type: int4, symmetric: true, granularity: group, group_size: 64}}", PIPELINE, "gptq"),
           "w8a8": ("{weights: {type: int8, symmetric: true, granularity: channel}, activations: {type: int8, symmetric: true, granularity: token}}",
                    "{method: smoothquant}, {method: gptq, shrinkage: 0.25}", "smoothquant")}
GOALS = {"Q4": 0.7, "W4": 0.7, "W8": 1, "Q3": 0.6, "Q2": 0.6}  # of the engine's own divergence, at most
BLOCK_TYPES = {t for t in gguf.GGMLQuantizationType if gguf.GGML_QUANT_SIZES[t][0] > 1}


def qbench(*arguments):
    done = subprocess.run([BUILD / "app/qbench", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"qbench {' '.join(map(str, arguments))}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def quantized(options, name, scheme, pipeline, folder):
    recipe = folder / f"{name}.yaml"
    recipe.write_text(f"""name: {name}
model: {{path: '{options.model}', dtype: bfloat16}}
calibration: {{corpus: '{options.calibration}', sampling: sequential, samples: {options.samples}, seq_len: {options.seq_len}}}
scheme: {scheme}
pipeline: [{pipeline}]
""")
    [report] = qbench("run", recipe, "-w", folder / "workspace", "-q", "--json")
    return folder / "workspace/runs" / report["id"], report["quantize_seconds"], report["peak_rss_bytes"] / 1e9


def ours(options, mix, folder):
    made, seconds, memory = quantized(options, mix, f"{{mix: {mix}}}", options.pipeline, folder)
    out = folder / f"{mix}-ours.gguf"
    out.unlink(missing_ok=True)
    qbench("export", made, "-f", "gguf", "-o", out, "--embeddings", mix, "--json")
    return out, seconds, memory


def theirs(like, floats, imatrix, out):
    """The float file's matrices by llama.cpp's quantizer, each in the type that `like` has for it."""
    lib = ctypes.CDLL(llama_cpp.library_path())
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    reader, wanted = gguf.GGUFReader(floats), {t.name: t for t in gguf.GGUFReader(like).tensors}
    sums = {}
    entries = {t.name: t for t in gguf.GGUFReader(imatrix).tensors}
    for name, tensor in entries.items():
        if name.endswith(".in_sum2"):
            stem = name.removesuffix(".in_sum2")
            counts = np.array(entries[stem + ".counts"].data, dtype=np.float32).reshape(-1, 1)
            values = np.array(tensor.data, dtype=np.float32).reshape(counts.shape[0], -1)
            sums[stem] = np.where(counts > 0, values / np.maximum(counts, 1), 1).astype(np.float32)
    start = time.time()
    made = {}
    for tensor in reader.tensors:
        kind = wanted[tensor.name].tensor_type
        if kind not in BLOCK_TYPES:  # norms: ours may hold scalings
            assert kind == tensor.tensor_type
            made[tensor.name] = np.array(tensor.data)
            continue
        values = np.ascontiguousarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        matrices = values.reshape(-1, *values.shape[-2:])
        block, size = gguf.GGML_QUANT_SIZES[kind]
        parts = []
        for i, matrix in enumerate(matrices):
            matrix = np.ascontiguousarray(matrix)
            rows, columns = matrix.shape
            bytes_out = np.zeros((rows, columns // block * size), dtype=np.uint8)
            weights = sums.get(tensor.name)
            pointer = None if weights is None else np.ascontiguousarray(weights[i]).ctypes.data
            lib.ggml_quantize_chunk(int(kind), matrix.ctypes.data, bytes_out.ctypes.data, 0, rows, columns, pointer)
            parts.append(bytes_out)
        made[tensor.name] = np.stack(parts).reshape(*values.shape[:-1], -1)
    seconds = time.time() - start
    # Our file with all of its tensors' bytes replaced.
    data = bytearray(Path(like).read_bytes())
    for name, value in made.items():
        at = wanted[name].data_offset
        assert value.nbytes == wanted[name].n_bytes
        data[at:at + value.nbytes] = value.tobytes()
    out.write_bytes(data)
    return out, seconds


class Judge:
    """llama.cpp's predictions on the evaluation text, a window at a time; the float model's are kept."""

    def __init__(self, floats, text, windows, length, folder):
        self.llama = llama_cpp.LlamaCpp(folder)
        ids = self.answer(floats, self.llama.tokens(floats, text.read_text(encoding="utf-8")))
        self.windows = ids[:windows * length].reshape(windows, length)
        self.reference = [self.predictions(floats, i) for i in range(windows)]

    @staticmethod
    def answer(model, found):
        if found[0] is None:
            raise SystemExit(f"{model}: {found[1]}")
        return found[0]

    def predictions(self, model, window):
        logits = self.answer(model, self.llama.logits(model, self.windows[window:window + 1]))[0].astype(np.float32)
        logits -= logits.max(1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))

    def __call__(self, model):
        losses, divergences = [], []
        for i, expected in enumerate(self.reference):
            found = self.predictions(model, i)
            losses.append(-found[np.arange(len(found) - 1), self.windows[i][1:]].mean())
            divergences.append(divergence(expected, found))
        return float(np.exp(np.mean(losses))), float(np.mean(divergences))

    def float_perplexity(self):
        return float(np.exp(np.mean([-p[np.arange(len(p) - 1), w[1:]].mean() for p, w in zip(self.reference, self.windows)])))


def divergence(expected, found):
    """Mean over tokens of KL(expected ‖ found), of log-probabilities [tokens, vocabulary]."""
    return float((np.exp(expected) * (expected - found)).sum(1).mean())


def size_mb(path):
    return sum(file.stat().st_size for file in (path.rglob("*.safetensors") if path.is_dir() else [path])) / 1e6


def line(name, row):
    return (f"{name:8} {row['mb']:7.1f} MB ({row['their mb']:.1f})  perplexity {row['perplexity']:9.4f}, theirs {row['their perplexity']:9.4f};  KL {row['kl']:.5f}, {row['their kl']:.5f}: "
            f"{row['ratio']:.2f} (at most {row['goal']});  {row['seconds']:.0f} s and {row['gb']:.2f} GB, {row['their seconds']:.0f} s")


def in_llama_cpp(options, folder, table):
    floats, imatrix = folder / "float.gguf", folder / "imatrix.gguf"
    subprocess.run([BUILD / "tests/write_gguf", options.model, floats, "F32"], check=True)
    qbench("imatrix", options.model, "-t", options.calibration, "-o", imatrix, "--samples", options.samples, "--seq-len", options.seq_len, "--json")
    judge = Judge(floats, options.evaluation, options.windows, options.window, folder)
    table["llama.cpp"] = {"perplexity": judge.float_perplexity()}
    print(f"float: perplexity {judge.float_perplexity():.4f} in llama.cpp on {options.evaluation.name}, {options.windows} windows of {options.window} tokens")
    for mix in options.mixes:
        our_file, seconds, memory = ours(options, mix, folder)
        their_file, their_seconds = theirs(our_file, floats, imatrix, folder / f"{mix}-llamacpp.gguf")
        (perplexity, kl), (their_perplexity, their_kl) = judge(our_file), judge(their_file)
        table[mix] = {"perplexity": perplexity, "kl": kl, "their perplexity": their_perplexity, "their kl": their_kl, "ratio": kl / their_kl, "goal": GOALS[mix[:2]],
                      "mb": size_mb(our_file), "their mb": size_mb(their_file), "seconds": seconds, "gb": memory, "their seconds": their_seconds}
        print(line(mix, table[mix]), flush=True)


def in_vllm(options, folder, table):
    engine = engines.start("vllm", folder)

    def evaluated(model, name, dtype):
        kept = folder / f"predictions-{name}"
        kept.mkdir(exist_ok=True)
        # Every log-probability passes through Python: a quarter of the windows' length is enough of them.
        result = engine.perplexity(model, options.evaluation, options.windows, options.window // 4, dtype=dtype, timeout=3600, predictions=str(kept))
        return result.value, [np.load(kept / f"{i}.npy") for i in range(options.windows)]

    perplexity, floats = evaluated(options.model, "float", "float32")
    table["vLLM"] = {"perplexity": perplexity}
    print(f"float: perplexity {perplexity:.4f} in vLLM on {options.evaluation.name}, {options.windows} windows of {options.window // 4} tokens")
    for name in options.schemes:
        scheme, pipeline, method = SCHEMES[name]
        made, seconds, memory = quantized(options, name, scheme, pipeline, folder)
        folders = [folder / f"{name}-ours", folder / f"{name}-llm-compressor"]
        for old in folders:
            shutil.rmtree(old, ignore_errors=True)
        qbench("export", made, "-f", "compressed-tensors", "-o", folders[0], "--json")
        text, _ = run([peer_venv(), PEER, method, options.model, options.calibration, folders[1], 4, 64, options.samples, options.seq_len])
        found = [evaluated(path, path.name, "float16") for path in folders]
        kl, their_kl = (sum(divergence(a, b) for a, b in zip(floats, predictions)) / len(floats) for _, predictions in found)
        table[name] = {"perplexity": found[0][0], "kl": kl, "their perplexity": found[1][0], "their kl": their_kl, "ratio": kl / their_kl, "goal": GOALS[name[:2].upper()],
                       "mb": size_mb(folders[0]), "their mb": size_mb(folders[1]), "seconds": seconds, "gb": memory, "their seconds": json.loads(text.strip().splitlines()[-1])["seconds"]}
        print(line(name, table[name]), flush=True)
    engine.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--mixes", nargs="*", default=["Q4_0", "Q4_K_S", "Q4_K_M", "Q3_K_M", "Q2_K"])
    parser.add_argument("--schemes", nargs="*", default=list(SCHEMES), choices=list(SCHEMES))
    parser.add_argument("--pipeline", default=PIPELINE)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.model, options.calibration = options.model.resolve(), options.calibration.resolve()
    table = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if options.mixes:
            in_llama_cpp(options, folder, table)
        if options.schemes:
            in_vllm(options, folder, table)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
