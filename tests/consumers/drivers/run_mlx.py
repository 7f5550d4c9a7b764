"""mlx-lm on a CPU: its own layout, computed in the type that the job names (scales and biases too)."""
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import protocol
import mlx.core as mx
import numpy as np
from mlx_lm import load


class Model:
    def __init__(self, job):
        self.model, self.tokenizer = load(job["model"])
        self.kernel = type(self.model.model.layers[0].self_attn.o_proj).__name__
        self.model.set_dtype(getattr(mx, job["dtype"]))

    def tokenize(self, text):
        return self.tokenizer.encode(text)

    def losses(self, windows):
        return protocol.losses_of_logits(lambda w: np.array(self.model(mx.array([w]))[0].astype(mx.float32)), windows)

    def close(self):
        del self.model


if __name__ == "__main__":
    protocol.serve(Model)
