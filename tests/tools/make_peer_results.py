#!/usr/bin/env python3
"""What llm-compressor makes of the model of tests/conformance/peer_model.py, for the conformance tests: make_peer_results.py OUT_FOLDER

Made with these versions, in float32 on a CPU, which only this script needs:
    pip install torch==2.11.0 transformers==5.17.0 llmcompressor==0.14.0.1 compressed-tensors==0.19.0
One file a case: packed codes (two a byte, code + 8, low half first), scales, zero points where there are any, norms where scaled.
"""
import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))
from peer_model import BLOCKS, LINEARS, NORMS, SEQ_LEN, peer_ids, save_peer_model

from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier

torch.set_num_threads(2)
if not torch.cuda.is_available():
    torch.Tensor.pin_memory = lambda self, *a, **k: self  # AWQ pins memory even without a GPU


def groups(symmetric, size, **more):
    weights = QuantizationArgs(num_bits=4, type="int", symmetric=symmetric, strategy="group", group_size=size, **more)
    return dict(config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}, ignore=["lm_head"])


CASES = {
    "gptq-g32-static": [GPTQModifier(**groups(True, 32), actorder="static")],
    "gptq-g64-plain": [GPTQModifier(**groups(True, 64), actorder=None, block_size=32, dampening_frac=0.05)],
    # Exponents 0, 1/20, … 1: a common grid of both programs.
    "awq-g64": [AWQModifier(duo_scaling=False, n_grid=21), QuantizationModifier(**groups(False, 64))],
}


def quantized(recipe, source):
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    data = Dataset.from_list([{"input_ids": row.tolist(), "attention_mask": [1] * SEQ_LEN} for row in peer_ids()])
    oneshot(model=model, recipe=recipe, dataset=data, max_seq_length=SEQ_LEN, num_calibration_samples=len(data), shuffle_calibration_samples=False)
    return model


def stored(model, norms):
    tensors = {}
    for i in range(BLOCKS):
        layer = model.model.layers[i]
        for name in LINEARS:
            linear = layer.get_submodule(name)
            weight, scale, zero = linear.weight.data, linear.weight_scale.data, linear.weight_zero_point.data
            group = weight.shape[1] // scale.shape[1]
            wide = lambda t: t.float().repeat_interleave(group, 1)
            codes = (weight / wide(scale) + wide(zero)).round().clamp(-8, 7)
            flat = (codes + 8).to(torch.uint8).flatten()
            tensors[f"{i}.{name}.codes"] = flat[0::2] | flat[1::2] << 4
            tensors[f"{i}.{name}.scale"] = scale.float()
            if zero.any():
                tensors[f"{i}.{name}.zero"] = zero.to(torch.int8)
        for name in NORMS if norms else ():
            tensors[f"{i}.{name}"] = layer.get_submodule(name).weight.data
    return {k: v.contiguous() for k, v in tensors.items()}


out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
with tempfile.TemporaryDirectory() as folder:
    save_peer_model(Path(folder) / "model")
    for name, recipe in CASES.items():
        model = quantized(recipe, Path(folder) / "model")
        save_file(stored(model, name.startswith("awq")), out / f"llm-compressor-{name}.safetensors")
