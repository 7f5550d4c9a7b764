"""llama.cpp on a CPU: the C functions that the library of the xllamacpp wheel exports, called by ctypes.

The wheel's Python side is a server, which gives no logits of the prompt. The few fields of structs that are set lie where
this version has them; their defaults are looked at first, so that another layout is refused.
"""
import ctypes
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import protocol

POINTER, INT = ctypes.c_void_p, ctypes.c_int32
LOG = ctypes.CFUNCTYPE(None, INT, ctypes.c_char_p, POINTER)
DEFAULTS = [512, 2048, 512, 1, 0, 0, 1, 4, 4]  # llama_context_params: n_ctx, n_batch, n_ubatch, …, n_threads, n_threads_batch


class Params(ctypes.Structure):
    """As long as any of llama.cpp's: passed by value, of which it reads its own part."""
    _fields_ = [("words", INT * 128)]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", INT), ("token", ctypes.POINTER(INT)), ("embd", ctypes.POINTER(ctypes.c_float)), ("pos", ctypes.POINTER(INT)),
                ("n_seq_id", ctypes.POINTER(INT)), ("seq_id", ctypes.POINTER(ctypes.POINTER(INT))), ("logits", ctypes.POINTER(ctypes.c_int8))]


FUNCTIONS = {
    "llama_model_default_params": (Params, []), "llama_context_default_params": (Params, []),
    "llama_model_load_from_file": (POINTER, [ctypes.c_char_p, Params]), "llama_init_from_model": (POINTER, [POINTER, Params]),
    "llama_model_free": (None, [POINTER]), "llama_free": (None, [POINTER]), "llama_model_get_vocab": (POINTER, [POINTER]),
    "llama_vocab_n_tokens": (INT, [POINTER]),
    "llama_tokenize": (INT, [POINTER, ctypes.c_char_p, INT, ctypes.POINTER(INT), INT, ctypes.c_bool, ctypes.c_bool]),
    "llama_batch_init": (Batch, [INT, INT, INT]), "llama_batch_free": (None, [Batch]), "llama_decode": (INT, [POINTER, Batch]),
    "llama_get_logits": (ctypes.POINTER(ctypes.c_float), [POINTER]), "llama_get_memory": (POINTER, [POINTER]),
    "llama_memory_clear": (None, [POINTER, ctypes.c_bool]), "llama_log_set": (None, [LOG, POINTER]),
}


def library():
    lib = ctypes.CDLL(str(next(Path(find_spec("xllamacpp").origin).parent.glob("*.so"))))
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class Model:
    lib, said = library(), []

    def __init__(self, job):
        self.said.clear()
        self.n = job["seq_len"]
        self.model = self.context = None
        self.model = self.lib.llama_model_load_from_file(job["model"].encode(), self.lib.llama_model_default_params())
        if not self.model:
            raise ValueError("".join(self.said).strip())
        params = self.lib.llama_context_default_params()
        if list(params.words[:len(DEFAULTS)]) != DEFAULTS:
            raise ValueError(f"llama_context_params of another version: {params.words[:12]}")
        params.words[0] = params.words[1] = self.n
        params.words[2] = min(512, self.n)
        params.words[7] = params.words[8] = 1  # several wait for each other by spinning, without end where others use the cores
        self.context = self.lib.llama_init_from_model(self.model, params)
        if not self.context:
            raise ValueError("".join(self.said).strip())
        self.vocabulary = self.lib.llama_model_get_vocab(self.model)
        self.kernel = "llama_decode"

    def tokenize(self, text):
        text = text.encode()
        ids = (INT * (len(text) + 8))()
        return ids[:self.lib.llama_tokenize(self.vocabulary, text, len(text), ids, len(ids), True, False)]

    def losses(self, windows):
        size = self.lib.llama_vocab_n_tokens(self.vocabulary)
        batch = self.lib.llama_batch_init(self.n, 0, 1)

        def logits_of(window):
            batch.n_tokens = self.n
            for i, token in enumerate(window):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
                batch.seq_id[i][0] = 0
            self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
            if self.lib.llama_decode(self.context, batch) != 0:
                raise ValueError("llama_decode failed")
            return np.ctypeslib.as_array(self.lib.llama_get_logits(self.context), (self.n, size))
        losses = protocol.losses_of_logits(logits_of, windows)
        self.lib.llama_batch_free(batch)
        return losses

    def close(self):
        self.lib.llama_free(self.context)
        self.lib.llama_model_free(self.model)


@LOG
def keep_errors(level, text, _):
    if level == 4 or (level == 5 and Model.said):  # an error, or its next line
        Model.said.append(text.decode(errors="replace"))


if __name__ == "__main__":
    Model.lib.llama_log_set(keep_errors, None)
    protocol.serve(Model)
