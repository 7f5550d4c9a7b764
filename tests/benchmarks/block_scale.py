#!/usr/bin/env python3
"""Seconds and memory of blocks of real size, beside llm-compressor's GPTQ on the same weights and tokens.

    python tests/benchmarks/block_scale.py [--shapes llama-1b llama-8b …] [--pipelines gptq awq-clip-gptq] [--blocks 2] [--samples 32]
        [--seq-len 512] [--device cuda:0] [--peer-venv | --peer-python PYTHON] [--peer-shapes …] [--folder FOLDER] [--json FILE]

Makes a model of a few blocks with random weights in the shapes of a known one and the demo model's vocabulary, quantizes it to
4 bits in groups of 128, and prints for each pipeline: seconds a block, processor seconds a block, the largest resident memory of
the whole process, what 2.5 Gram matrices of the widest linear and the block's float32 weights take, ratios to the peer, and what
all blocks of the whole model would take. llama-8b must stay under 4.5 GB; every GPTQ under half of the peer's time and its memory.

The peer runs in an environment of its own: --peer-venv makes it where there is none, in the folder of dependencies (QBENCH_DEPS),
or --peer-python names one with torch 2.11.0, transformers 5.17.0, llmcompressor 0.14.0.1, compressed-tensors 0.19.0, accelerate.
--peer-shapes limits it to shapes that it has the memory for. Models are kept in --folder, if given, for the next call.
"""
import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "resources/demo"
PEER = Path(__file__).resolve().parent / "peers/llm_compressor.py"
PROGRAM = Path(os.environ.get("QBENCH_BUILD", ROOT / "build/dev")) / "app/qbench"
DEPENDENCIES = Path(os.environ.get("QBENCH_DEPS", Path.home() / ".cache/llm-qbench"))
PEER_PACKAGES = ["torch==2.11.0", "transformers==5.17.0", "llmcompressor==0.14.0.1", "compressed-tensors==0.19.0", "accelerate"]

# hidden, inner, heads, key-value heads, size of a head, blocks of the whole model, experts, inner of an expert
SHAPES = {
    "llama-1b": (2048, 8192, 32, 8, 64, 16, 0, 0),
    "llama-8b": (4096, 14336, 32, 8, 128, 32, 0, 0),
    "llama-70b": (8192, 28672, 64, 8, 128, 80, 0, 0),
    "qwen3-30b-a3b": (2048, 6144, 32, 4, 128, 48, 128, 768),
}
LIMITS = {"llama-8b": 4.5}  # GB of the whole process
# symmetric, stages
PIPELINES = {"gptq": (True, "gptq"), "awq-clip-gptq": (False, "awq, clip, gptq")}


def block_tensors(shape, prefix):
    """Names and shapes of a block's tensors; [out, in] for linears."""
    hidden, inner, heads, kv_heads, head, _, experts, expert_inner = shape
    tensors = {"input_layernorm": [hidden], "post_attention_layernorm": [hidden], "self_attn.q_proj": [heads * head, hidden],
               "self_attn.k_proj": [kv_heads * head, hidden], "self_attn.v_proj": [kv_heads * head, hidden], "self_attn.o_proj": [hidden, heads * head]}

    def mlp(stem, width):
        tensors.update({f"{stem}.gate_proj": [width, hidden], f"{stem}.up_proj": [width, hidden], f"{stem}.down_proj": [hidden, width]})

    if experts:
        tensors.update({"self_attn.q_norm": [head], "self_attn.k_norm": [head], "mlp.gate": [experts, hidden]})
        for e in range(experts):
            mlp(f"mlp.experts.{e}", expert_inner)
    else:
        mlp("mlp", inner)
    return {f"{prefix}{name}.weight": size for name, size in tensors.items()}


def config_of(shape, blocks):
    hidden, inner, heads, kv_heads, head, _, experts, expert_inner = shape
    demo = json.loads((DEMO / "config.json").read_text())
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": heads,
              "num_key_value_heads": kv_heads, "head_dim": head, "num_hidden_layers": blocks, "vocab_size": demo["vocab_size"], "rms_norm_eps": 1e-5,
              "rope_theta": 500000.0, "max_position_embeddings": 8192, "tie_word_embeddings": True, "hidden_act": "silu", "torch_dtype": "bfloat16",
              "attention_bias": False, "bos_token_id": demo["bos_token_id"], "eos_token_id": demo["eos_token_id"]}
    if not experts:
        return config | {"mlp_bias": False}
    return config | {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": experts, "num_experts_per_tok": 8,
                     "moe_intermediate_size": expert_inner, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}


def write_model(folder, shape, blocks):
    """Written part by part: the memory of this process would count as that of the programs it starts."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((DEMO / name).read_bytes())
    config = config_of(shape, blocks)
    tensors = {"model.embed_tokens.weight": [config["vocab_size"], shape[0]], "model.norm.weight": [shape[0]]}
    for i in range(blocks):
        tensors |= block_tensors(shape, f"model.layers.{i}.")
    header, offset = {}, 0
    for name, size in tensors.items():
        end = offset + 2 * int(np.prod(size))
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(1)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for size in tensors.values():
            left = int(np.prod(size))
            while left > 0:
                n = min(left, 1 << 21)
                values = np.ones(n, np.float32) if len(size) == 1 else random.standard_normal(n, np.float32) * np.float32(size[1] ** -0.5)
                file.write(((values.view(np.uint32) + 0x8000) >> 16).astype("<u2").tobytes())
                left -= n
    (folder / "config.json").write_text(json.dumps(config))  # last: marks the folder as whole


def run(words, environment=None):
    """Runs a program; its output, wall and processor seconds, and largest resident memory in GB."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen(list(map(str, words)), stdout=out, stderr=err, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            raise RuntimeError(f"{words[0]} ended with {process.returncode}: {err.read()[-2000:]}")
        return out.read(), {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak_gb": usage.ru_maxrss * 1024 / 1e9}


def ours(model, pipeline, options, folder):
    symmetric, stages = PIPELINES[pipeline]
    recipe = folder / f"{pipeline}.yaml"
    recipe.write_text(f"""name: {pipeline}
model: {{path: '{model.resolve()}', dtype: bfloat16}}
calibration: {{corpus: '{DEMO}/calibration.txt', sampling: sequential, samples: {options.samples}, seq_len: {options.seq_len}}}
scheme:
  weights: {{type: int4, symmetric: {str(symmetric).lower()}, granularity: group, group_size: 128}}
pipeline: [{stages}]
""")
    words = [PROGRAM, "run", recipe, "-q", "--json", "-w", folder / "workspace", "--statistics-cache", "0", *(["--device", options.device] if options.device else [])]
    text, used = run(words)
    report, = json.loads(text)
    # The run is a process of its own, which puts the system's mark back at each stage: its report knows the peak.
    return used | {"peak_gb": report["peak_rss_bytes"] / 1e9, "seconds": report["quantize_seconds"], "measured": report.get("measure_seconds", 0), "device_gb": report.get("peak_device_bytes", 0) / 1e9}


def theirs(python, model, options, folder):
    text, used = run([python, PEER, "gptq", model, DEMO / "calibration.txt", folder / "peer", 4, 128, options.samples, options.seq_len])
    return used | {"seconds": json.loads(text.strip().splitlines()[-1])["seconds"]}


def peer_venv():
    venv = DEPENDENCIES / "peer-llm-compressor"
    if not (venv / ".complete").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "-q", *PEER_PACKAGES], check=True)
        (venv / ".complete").touch()
    return venv / "bin/python"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["llama-1b", "llama-8b"], choices=list(SHAPES))
    parser.add_argument("--pipelines", nargs="+", default=list(PIPELINES), choices=list(PIPELINES))
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--device")
    parser.add_argument("--peer-venv", action="store_true")
    parser.add_argument("--peer-python")
    parser.add_argument("--peer-shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    python = options.peer_python or (peer_venv() if options.peer_venv else None)
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.shapes:
            shape = SHAPES[name]
            folder = Path(temporary) / name
            folder.mkdir()
            model = (options.folder or Path(temporary)) / f"{name}-{options.blocks}-blocks"
            if not (model / "config.json").exists():
                write_model(model, shape, options.blocks)
            sizes = [size for size in block_tensors(shape, "").values() if len(size) == 2]
            gram, weights = 4 * max(size[1] for size in sizes) ** 2 / 1e9, 4 * sum(out * width for out, width in sizes) / 1e9
            print(f"{name}: Gram matrix of the widest linear {gram:.2f} GB, a block's float32 weights {weights:.2f} GB, "
                  f"2.5 of the one and the other {2.5 * gram + weights:.2f} GB", flush=True)
            rival = None
            if python and name in options.peer_shapes:
                rival = theirs(python, model, options, folder)
                found.append({"shape": name, "pipeline": "llm-compressor gptq", **rival})
                print(line("llm-compressor gptq", rival, shape, options), flush=True)
            for pipeline in options.pipelines:
                result = ours(model, pipeline, options, folder)
                found.append({"shape": name, "pipeline": pipeline, **result})
                text = line(pipeline, result, shape, options)
                if result["device_gb"] > 0:
                    text += f", of the GPU {result['device_gb']:.2f} GB"
                if rival:
                    text += f"; {result['seconds'] / rival['seconds']:.2f} of the peer's time (at most 0.5), {result['peak_gb'] / rival['peak_gb']:.2f} of its memory (at most 1)"
                if name in LIMITS:
                    text += f"; at most {LIMITS[name]} GB"
                print(text, flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def line(name, result, shape, options):
    seconds = result["seconds"] / options.blocks
    return (f"  {name}: {seconds:.1f} s a block ({result['cpu'] / options.blocks:.1f} s of processors), peak {result['peak_gb']:.2f} GB; "
            f"all {shape[5]} blocks {seconds * shape[5] / 3600:.2f} h")


if __name__ == "__main__":
    main()
