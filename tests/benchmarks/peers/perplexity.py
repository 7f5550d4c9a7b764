#!/usr/bin/env python3
"""Perplexity by transformers: python perplexity.py MODEL TEXT WINDOWS [SEQ_LEN]. Prints one line of JSON."""
import json
import math
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

path, text, windows = sys.argv[1], sys.argv[2], int(sys.argv[3])
seq_len = int(sys.argv[4]) if len(sys.argv) > 4 else 2048
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).eval()
with open(text, newline="") as file:
    ids = tokenizer(file.read(), return_tensors="pt").input_ids
windows, total = min(windows, ids.shape[1] // seq_len), 0.0
with torch.no_grad():
    for i in range(windows):
        window = ids[:, i * seq_len:(i + 1) * seq_len]
        total += torch.nn.functional.cross_entropy(model(window).logits.float()[0, :-1], window[0, 1:]).item()
print(json.dumps({"perplexity": round(math.exp(total / windows), 4), "windows": windows}))
