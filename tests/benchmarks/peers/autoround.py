#!/usr/bin/env python3
"""One AutoRound run on the CPU, timed: python autoround.py MODEL TEXT OUT {sym,asym} [ITERATIONS] [BITS] [GROUP] [SAMPLES] [SEQ_LEN]

Prints one line of JSON; OUT gets the dequantized model for asym, AutoGPTQ's format for sym.
"""
import json
import resource
import sys
import time

import torch
from auto_round import AutoRound
from transformers import AutoModelForCausalLM, AutoTokenizer

path, text, out, symmetry = sys.argv[1:5]
iterations, bits, group, samples, seq_len = [int(a) for a in (sys.argv[5:] + ["200", "4", "64", "128", "512"][len(sys.argv) - 5:])]
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
with open(text, newline="") as file:
    ids = tokenizer(file.read()).input_ids
data = [torch.tensor(ids[i * seq_len:(i + 1) * seq_len])[None] for i in range(samples)]
start = time.time()
rounding = AutoRound(model, tokenizer, bits=bits, group_size=group, sym=symmetry == "sym", nsamples=samples, seqlen=seq_len, iters=iterations, batch_size=8, dataset=data)
rounding.quantize_and_save(out, format="auto_gptq" if symmetry == "sym" else "fake")
print(json.dumps({"iterations": iterations, "seconds": round(time.time() - start, 1), "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)}))
