#!/usr/bin/env python3
"""One llm-compressor run on the CPU, timed: python llm_compressor.py {rtn,gptq,awq,smoothquant} MODEL TEXT OUT [BITS] [GROUP] [SAMPLES] [SEQ_LEN]

RTN and GPTQ are symmetric, AWQ is asymmetric; SmoothQuant (strength 0.8) with GPTQ makes W8A8, a scale a channel and a token, whatever
BITS and GROUP. Prints one line of JSON; the checkpoint goes to OUT, compressed.
"""
import json
import resource
import sys
import time

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from transformers import AutoModelForCausalLM, AutoTokenizer

method, path, text, out = sys.argv[1:5]
bits, group, samples, seq_len = [int(a) for a in (sys.argv[5:] + ["4", "64", "128", "512"][len(sys.argv) - 5:])]
if not torch.cuda.is_available():
    torch.Tensor.pin_memory = lambda self, *a, **k: self  # AWQ pins memory even without a GPU
torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
with open(text, newline="") as file:
    ids = tokenizer(file.read()).input_ids
data = Dataset.from_list([{"input_ids": ids[i * seq_len:(i + 1) * seq_len], "attention_mask": [1] * seq_len} for i in range(samples)])
weights = QuantizationArgs(num_bits=bits, type="int", symmetric=method != "awq", strategy="group", group_size=group)
rounding = {"config_groups": {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}, "ignore": ["lm_head"]}
recipe = {"rtn": lambda: [QuantizationModifier(**rounding)], "gptq": lambda: [GPTQModifier(**rounding)],
          "awq": lambda: [AWQModifier(), QuantizationModifier(**rounding)],
          "smoothquant": lambda: [SmoothQuantModifier(smoothing_strength=0.8), GPTQModifier(targets="Linear", scheme="W8A8", ignore=["lm_head"])]}[method]()
calibration = {} if method == "rtn" else {"dataset": data, "max_seq_length": seq_len, "num_calibration_samples": samples}
start = time.time()
oneshot(model=model, recipe=recipe, processor=tokenizer, **calibration)
seconds = time.time() - start
model.save_pretrained(out, save_compressed=True)
tokenizer.save_pretrained(out)
print(json.dumps({"method": method, "seconds": round(seconds, 1), "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)}))
