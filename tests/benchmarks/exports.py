#!/usr/bin/env python3
"""Our GGUF files beside llama.cpp's own quantization of the same model, types and importance matrix, as llama.cpp computes them.

    python tests/benchmarks/exports.py MODEL --calibration TEXT --evaluation TEXT [--mixes Q4_0 Q4_K_S Q4_K_M Q3_K_M Q2_K] [--pipeline "…"]
        [--samples 128] [--seq-len 512] [--windows 4] [--window 1024] [--folder FOLDER] [--json FILE]

For each mix our run is exported with the types that the mix has, embedding and head included; then llama.cpp's ggml_quantize_chunk makes a
file of the same types, tensor by tensor, with an importance matrix of the same calibration tokens. llama.cpp evaluates both and the float
model; the divergence is the mean over tokens of KL(float ‖ quantized) of its predictions. Prints perplexity, divergence, their ratio, size,
seconds and memory. Needs the wheel xllamacpp (tests/requirements).
"""
import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/conformance"))
import llama_cpp  # noqa: E402

BUILD = Path(os.environ.get("QBENCH_BUILD", ROOT / "build/dev"))
PIPELINE = "{method: awq}, {method: clip}, {method: gptq, shrinkage: 0.25}"
GOALS = {"Q4": 0.7, "Q3": 0.6, "Q2": 0.6}  # of llama.cpp's divergence, at most
BLOCK_TYPES = {t for t in gguf.GGMLQuantizationType if gguf.GGML_QUANT_SIZES[t][0] > 1}


def qbench(*arguments):
    done = subprocess.run([BUILD / "app/qbench", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"qbench {' '.join(map(str, arguments))}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def ours(options, mix, folder):
    recipe = folder / f"{mix}.yaml"
    recipe.write_text(f"""name: {mix}
model: {{path: '{options.model}', dtype: bfloat16}}
calibration: {{corpus: '{options.calibration}', sampling: sequential, samples: {options.samples}, seq_len: {options.seq_len}}}
scheme: {{mix: {mix}}}
pipeline: [{options.pipeline}]
""")
    [run] = qbench("run", recipe, "-w", folder / "workspace", "-q", "--json")
    out = folder / f"{mix}-ours.gguf"
    out.unlink(missing_ok=True)
    qbench("export", folder / "workspace/runs" / run["id"], "-f", "gguf", "-o", out, "--embeddings", mix, "--json")
    return out, run["quantize_seconds"], run["peak_rss_bytes"] / 1e9


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
            divergences.append((np.exp(expected) * (expected - found)).sum(1).mean())
        return float(np.exp(np.mean(losses))), float(np.mean(divergences))

    def float_perplexity(self):
        return float(np.exp(np.mean([-p[np.arange(len(p) - 1), w[1:]].mean() for p, w in zip(self.reference, self.windows)])))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--mixes", nargs="+", default=["Q4_0", "Q4_K_S", "Q4_K_M", "Q3_K_M", "Q2_K"])
    parser.add_argument("--pipeline", default=PIPELINE)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.model, options.calibration = options.model.resolve(), options.calibration.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        floats, imatrix = folder / "float.gguf", folder / "imatrix.gguf"
        subprocess.run([BUILD / "tests/write_gguf", options.model, floats, "F32"], check=True)
        if not imatrix.exists():
            qbench("imatrix", options.model, "-t", options.calibration, "-o", imatrix, "--samples", options.samples, "--seq-len", options.seq_len, "--json")
        judge = Judge(floats, options.evaluation, options.windows, options.window, folder)
        table = {"float": {"perplexity": judge.float_perplexity(), "gb": floats.stat().st_size / 1e9}}
        print(f"float: perplexity {table['float']['perplexity']:.4f} in llama.cpp on {options.evaluation.name}, {options.windows} windows of {options.window} tokens")
        for mix in options.mixes:
            ours_file, seconds, memory = ours(options, mix, folder)
            their_file, their_seconds = theirs(ours_file, floats, imatrix, folder / f"{mix}-llamacpp.gguf")
            (ppl, kl), (their_ppl, their_kl) = judge(ours_file), judge(their_file)
            goal = GOALS[mix[:2]]
            table[mix] = {"perplexity": ppl, "kl": kl, "llama.cpp perplexity": their_ppl, "llama.cpp kl": their_kl, "ratio": kl / their_kl, "goal": goal, "mb": ours_file.stat().st_size / 1e6,
                          "seconds": seconds, "gb": memory, "llama.cpp seconds": their_seconds}
            print(f"{mix:8} {table[mix]['mb']:7.1f} MB  perplexity {ppl:9.4f}, llama.cpp's own {their_ppl:9.4f};  KL {kl:.5f}, {their_kl:.5f}: {kl / their_kl:.2f} (at most {goal})"
                  f";  {seconds:.0f} s and {memory:.2f} GB, {their_seconds:.0f} s", flush=True)
        if options.json:
            options.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
