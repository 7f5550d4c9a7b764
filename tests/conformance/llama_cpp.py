"""llama.cpp itself, by the C functions of the library inside the wheel xllamacpp, which is never imported (its Python side is a server).

LlamaCpp() keeps one process with the library loaded; every question is answered by a child of its own, since llama.cpp ends the
process where a file surprises it.
"""
import ctypes
import glob
import importlib.util
import json
import os
import subprocess
import sys

import numpy as np

VERSION = "2026.10.11549"  # whose layout of llama_context_params is used below


def library_path():
    """None where the wheel is not installed."""
    spec = importlib.util.find_spec("xllamacpp")
    found = glob.glob(os.path.join(os.path.dirname(spec.origin), "*.so")) if spec and spec.origin else []
    return found[0] if found else None


class LlamaCpp:
    def __init__(self, folder):
        self.folder = folder
        self.process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def _ask(self, **question):
        out, said = self.folder / "answer.npy", self.folder / "said.txt"
        out.unlink(missing_ok=True)
        self.process.stdin.write(json.dumps(question | {"out": str(out), "said": str(said)}) + "\n")
        code = json.loads(self.process.stdout.readline())
        if code != 0:
            return None, "\n".join(said.read_text(errors="replace").splitlines()[-12:])
        return np.load(out), ""

    def logits(self, model, ids):
        """(logits [rows, tokens, vocabulary] of token ids [rows, tokens], ""), or (None, what llama.cpp said)."""
        np.save(self.folder / "ids.npy", np.asarray(ids, dtype=np.int32))
        return self._ask(model=str(model), ids=str(self.folder / "ids.npy"))

    def tokens(self, model, text):
        """(ids of a text without special tokens, ""), or (None, what llama.cpp said)."""
        (self.folder / "text").write_bytes(text.encode())
        return self._ask(model=str(model), text=str(self.folder / "text"))

    def close(self):
        self.process.stdin.close()
        assert self.process.wait() == 0


class Params(ctypes.Structure):  # larger than any of llama.cpp's, which read their own part of what is passed by value
    _fields_ = [("words", ctypes.c_int32 * 128)]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embd", ctypes.POINTER(ctypes.c_float)), ("pos", ctypes.POINTER(ctypes.c_int32)),
                ("n_seq_id", ctypes.POINTER(ctypes.c_int32)), ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("logits", ctypes.POINTER(ctypes.c_int8))]


def library():
    lib = ctypes.CDLL(library_path())
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    for name, result, arguments in (
            ("llama_model_default_params", Params, []), ("llama_context_default_params", Params, []), ("llama_model_load_from_file", pointer, [ctypes.c_char_p, Params]),
            ("llama_init_from_model", pointer, [pointer, Params]), ("llama_model_get_vocab", pointer, [pointer]), ("llama_vocab_n_tokens", integer, [pointer]),
            ("llama_tokenize", integer, [pointer, ctypes.c_char_p, integer, ctypes.POINTER(integer), integer, ctypes.c_bool, ctypes.c_bool]),
            ("llama_batch_init", Batch, [integer] * 3), ("llama_decode", integer, [pointer, Batch]), ("llama_get_logits", ctypes.POINTER(ctypes.c_float), [pointer]),
            ("llama_get_memory", pointer, [pointer]), ("llama_memory_clear", None, [pointer, ctypes.c_bool])):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def logits_of(lib, model, ids):
    params = lib.llama_context_default_params()
    if list(params.words[:9]) != [512, 2048, 512, 1, 0, 0, 1, 4, 4]:
        raise SystemExit(f"not the llama_context_params of xllamacpp {VERSION}: {list(params.words[:12])}")
    length = ids.shape[1]
    params.words[0] = params.words[1] = max(length, 32)
    params.words[2] = min(512, params.words[1])
    params.words[7] = params.words[8] = 2
    context = lib.llama_init_from_model(model, params)
    if not context:
        raise SystemExit("llama.cpp made no context")
    size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    batch = lib.llama_batch_init(length, 0, 1)
    out = np.empty((*ids.shape, size), dtype=np.float32)
    for row, tokens in zip(out, ids):
        batch.n_tokens = length
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), i, 1, 1
            batch.seq_id[i][0] = 0
        lib.llama_memory_clear(lib.llama_get_memory(context), True)
        if lib.llama_decode(context, batch) != 0:
            raise SystemExit("llama_decode failed")
        row[:] = np.ctypeslib.as_array(lib.llama_get_logits(context), (length, size))
    return out


def answer(lib, question):
    model = lib.llama_model_load_from_file(question["model"].encode(), lib.llama_model_default_params())
    if not model:
        raise SystemExit("llama.cpp does not load it")
    if "ids" in question:
        return logits_of(lib, model, np.load(question["ids"]))
    with open(question["text"], "rb") as f:
        text = f.read()
    ids = (ctypes.c_int32 * (len(text) + 16))()
    return np.array(ids[:lib.llama_tokenize(lib.llama_model_get_vocab(model), text, len(text), ids, len(ids), False, False)], dtype=np.int32)


def main():
    lib = library()
    for line in sys.stdin:
        question = json.loads(line)
        child = os.fork()
        if child == 0:
            said = os.open(question["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            try:
                np.save(question["out"], answer(lib, question))
                os._exit(0)
            except BaseException as failure:
                os.write(2, f"{failure}\n".encode())
                os._exit(1)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
