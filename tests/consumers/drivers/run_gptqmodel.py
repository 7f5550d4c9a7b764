"""GPTQModel with its kernels in plain torch: the others are compiled first, for minutes."""
import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import protocol
import torch
from gptqmodel import BACKEND, GPTQModel


class Model:
    def __init__(self, job):
        kind = json.loads(Path(job["model"], "config.json").read_text()).get("quantization_config", {}).get("quant_method")
        self.loaded = GPTQModel.load(job["model"], device="cpu", dtype=getattr(torch, job["dtype"]), backend=BACKEND(f"{kind}_torch" if kind else "auto"))
        self.kernel = next((type(module).__name__ for module in self.loaded.model.modules() if hasattr(module, "qweight")), "Linear")

    def tokenize(self, text):
        return self.loaded.tokenizer(text).input_ids

    def losses(self, windows):
        with torch.inference_mode():
            return protocol.losses_of_logits(lambda w: self.loaded.model(torch.tensor([w])).logits[0].float().numpy(), windows)

    def close(self):
        del self.loaded


if __name__ == "__main__":
    protocol.serve(Model)
