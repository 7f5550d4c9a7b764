"""OpenVINO on a CPU, which reads GGUF itself: openvino-genai makes its own model of the file, in a temporary folder."""
import os
import tempfile

import protocol
import numpy as np
import openvino
import openvino_genai
from tokenizers import Tokenizer


class Model:
    def __init__(self, job):
        self.tokenizer = Tokenizer.from_file(job["tokenizer"])
        with tempfile.TemporaryDirectory() as folder:
            link = os.path.join(folder, "model.gguf")
            os.symlink(os.path.abspath(job["model"]), link)
            openvino_genai.LLMPipeline(link, "CPU", enable_save_ov_model=True)
            # Dynamic quantization would round activations to int8.
            self.model = openvino.Core().compile_model(os.path.join(folder, "openvino_model.xml"), "CPU", {
                "INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32", "INFERENCE_NUM_THREADS": "1"})
        self.kernel = "compiled model"

    def tokenize(self, text):
        return self.tokenizer.encode(text).ids

    def losses(self, windows):
        def logits_of(window):
            request = self.model.create_infer_request()  # a fresh one: its state is the cache of keys and values
            ids = np.array([window], dtype=np.int64)
            request.infer({"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(len(window))[None],
                           "beam_idx": np.zeros(1, np.int32)})
            return request.get_tensor("logits").data[0]
        return protocol.losses_of_logits(logits_of, windows)

    def close(self):
        del self.model


if __name__ == "__main__":
    protocol.serve(Model)
