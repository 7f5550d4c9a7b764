"""A driver runs one engine and answers jobs: a JSON object a line on standard input, one a line on standard output.

Job: {"model", "text", "seq_len", "windows", "dtype", …}. Answer: {"window_nll", "corpus_tokens", "load_seconds", "seconds",
"kernel"}, or {"refused": message} where the engine does not take the checkpoint. Imported before the engine, whose prints
it sends to standard error. Perplexity's protocol is core/measure/perplexity.h's: the text tokenized once as a whole, non-overlapping
windows from its start, the mean over tokens 2 … seq_len of each.
"""
import json
import os
import sys
import time
from pathlib import Path

ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def serve(open_model):
    """open_model(job) gives an object with tokenize(text) → ids, losses(windows) → mean negative log-likelihoods, kernel, close()."""
    for line in sys.stdin:
        job, model = json.loads(line), None
        try:
            start = time.monotonic()
            model = open_model(job)
            ids = model.tokenize(Path(job["text"]).read_text(encoding="utf-8"))
            n, count = job["seq_len"], job["windows"]
            if len(ids) < n * count:
                raise ValueError(f"{job['text']} has {len(ids)} tokens, not {n * count}")
            loaded = time.monotonic()
            losses = model.losses([ids[i * n:(i + 1) * n] for i in range(count)])
            answer = {"window_nll": losses, "corpus_tokens": len(ids), "load_seconds": loaded - start, "seconds": time.monotonic() - loaded,
                      "kernel": model.kernel}
        except Exception as error:  # the engine's own words are the answer
            answer = {"refused": f"{type(error).__name__}: {error}"}
        if model is not None:
            model.close()
        ANSWERS.write(json.dumps(answer) + "\n")
    os._exit(0)  # engines' own teardown is not needed and may hang


def losses_of_logits(logits_of, windows):
    """logits_of(window) → float array [seq_len, vocabulary] (numpy); log-softmax in float64, a few rows at a time."""
    import numpy as np
    losses = []
    for window in windows:
        logits, right, total = logits_of(window), np.asarray(window[1:]), 0.0
        for first in range(0, len(right), 128):
            part, tokens = logits[first:first + 128][:len(right) - first].astype(np.float64), right[first:first + 128]
            top = part.max(1)
            total += float((np.log(np.exp(part - top[:, None]).sum(1)) + top - part[np.arange(len(tokens)), tokens]).sum())
        losses.append(total / len(right))
    return losses
