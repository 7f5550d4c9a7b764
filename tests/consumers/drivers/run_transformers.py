"""transformers: float folders, and compressed-tensors ones, which it decompresses when it loads them."""
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import protocol
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class Model:
    def __init__(self, job):
        self.tokenizer = AutoTokenizer.from_pretrained(job["model"])
        dtype = getattr(torch, job["dtype"])
        self.model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype).eval()
        if dtype == torch.float32 and (quantizer := getattr(self.model, "hf_quantizer", None)):  # FP4 becomes bfloat16, whatever the model's type
            quantizer.compressor.decompress_model(self.model)
            torch.nn.Module.float(self.model)  # transformers' own refuses quantized models
        self.kernel = type(self.model.model.layers[0].self_attn.o_proj).__name__

    def tokenize(self, text):
        return self.tokenizer(text).input_ids

    def losses(self, windows):
        with torch.inference_mode():
            return protocol.losses_of_logits(lambda w: self.model(torch.tensor([w])).logits[0].float().numpy(), windows)

    def close(self):
        del self.model


if __name__ == "__main__":
    protocol.serve(Model)
