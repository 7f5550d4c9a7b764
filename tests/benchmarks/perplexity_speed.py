#!/usr/bin/env python3
"""Time of perplexity per window beside transformers', in one run, windows interleaved.

    python tests/benchmarks/perplexity_speed.py MODEL TEXT [--dtype bfloat16] [--windows 4] [--seq-len 2048] [--threads 2]

MODEL is a Hugging Face folder, TEXT a text file. Prints both times, both perplexities and the ratio of times (ours / theirs).
Both sides load their model before the clock starts; ours reads each block again in every window, which is counted.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("QBENCH_BUILD", ROOT / "build/dev")) / "tests/model_perplexity"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    ids = AutoTokenizer.from_pretrained(options.model)(Path(options.text).read_text(), return_tensors="pt").input_ids[0]
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, options.dtype)).eval()
    ours, theirs, our_nll, their_nll = [], [], [], []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for w in range(options.windows):
            window = ids[w * options.seq_len:(w + 1) * options.seq_len]
            path = Path(folder) / f"{w}.safetensors"
            save_file({"ids": window.int().contiguous()}, path)
            done = subprocess.run([PROGRAM, options.model, path, options.dtype, "1", str(options.seq_len), str(options.threads)],
                                  capture_output=True, text=True, check=True)
            result = json.loads(done.stdout)
            ours.append(result["seconds"])
            our_nll.append(result["window_nll"][0])

            start = time.perf_counter()
            logits = model(window[None]).logits.float()
            their_nll.append(torch.nn.functional.cross_entropy(logits[0, :-1], window[1:]).item())
            theirs.append(time.perf_counter() - start)
            print(f"window {w}: ours {ours[-1]:.2f} s, transformers {theirs[-1]:.2f} s", flush=True)
    print(json.dumps({
        "dtype": options.dtype, "seq_len": options.seq_len, "windows": options.windows, "threads": options.threads,
        "ours_s": statistics.median(ours), "transformers_s": statistics.median(theirs),
        "ratio": statistics.median(a / b for a, b in zip(ours, theirs)),
        "ours_perplexity": math.exp(statistics.fmean(our_nll)), "transformers_perplexity": math.exp(statistics.fmean(their_nll)),
    }))


if __name__ == "__main__":
    main()
