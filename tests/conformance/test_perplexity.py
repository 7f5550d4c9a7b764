"""Perplexity of a real model beside transformers', on the same tokens: a folder and a GGUF file.

QBENCH_FULL=1 measures the first 20 windows of 2048 tokens, as the published figures are; otherwise 3 of 512.
"""
import json
import math
import os
import subprocess

import pytest
import torch
from safetensors.torch import save_file

WINDOWS, SEQ_LEN = (20, 2048) if os.environ.get("QBENCH_FULL") else (3, 512)


@pytest.fixture(scope="module")
def text(shared):
    return shared / "data/wikitext2-test.raw"


@pytest.fixture(scope="module")
def tokens(text, smollm2_folder):
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(smollm2_folder)(text.read_text(encoding="utf-8"), return_tensors="pt").input_ids[0]


def reference(tokens, **source):
    """transformers in float32: mean negative log-likelihood of every window."""
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(dtype=torch.float32, **source).eval()
    values = []
    with torch.no_grad():
        for window in tokens[: WINDOWS * SEQ_LEN].view(WINDOWS, SEQ_LEN):
            logits = model(window[None]).logits[0].float()
            values.append(torch.nn.functional.cross_entropy(logits[:-1], window[1:]).item())
    return values


@pytest.fixture(scope="module")
def window_nll(tokens, smollm2_folder):
    return reference(tokens, pretrained_model_name_or_path=smollm2_folder)


@pytest.fixture
def measure(tool, tmp_path, tokens):
    def run(model, dtype, windows=WINDOWS, seq_len=SEQ_LEN):
        save_file({"ids": tokens.int()}, tmp_path / "ids.safetensors")
        done = subprocess.run([tool("model_perplexity"), model, tmp_path / "ids.safetensors", dtype, str(windows), str(seq_len)],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    return run


def test_folder_in_float32(measure, smollm2_folder, window_nll):
    result = measure(smollm2_folder, "float32")
    assert result["window_nll"] == pytest.approx(window_nll, abs=2e-4)  # window by window, in order
    assert abs(result["perplexity"] - math.exp(sum(window_nll) / WINDOWS)) < 0.01


def test_gguf_in_float32(measure, smollm2_gguf, tokens):
    expected = reference(tokens, pretrained_model_name_or_path=smollm2_gguf.parent, gguf_file=smollm2_gguf.name)
    result = measure(smollm2_gguf, "float32")
    assert result["window_nll"] == pytest.approx(expected, abs=2e-4)
    assert abs(result["perplexity"] - math.exp(sum(expected) / WINDOWS)) < 0.01


def test_command_line_measures_the_same(tool, text, smollm2_folder, window_nll):
    """From the text file to the figure, tokenizing it on the way."""
    command = [tool("qbench"), "eval", smollm2_folder, "--text", text, "--seq-len", str(SEQ_LEN), "--windows", str(WINDOWS), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert abs(json.loads(done.stdout)["perplexity"] - math.exp(sum(window_nll) / WINDOWS)) < 0.01


def test_folder_in_bfloat16(measure, smollm2_folder, window_nll):
    result = measure(smollm2_folder, "bfloat16")
    assert abs(result["perplexity"] - math.exp(sum(window_nll) / WINDOWS)) < 0.1


def test_gguf_is_what_transformers_dequantizes(tool, tmp_path, smollm2_gguf, tokens):
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name, dtype=torch.float32).eval()
    ids = tokens[:64][None]
    save_file({"ids": ids}, tmp_path / "ids.safetensors")
    subprocess.run([tool("model_logits"), smollm2_gguf, tmp_path / "ids.safetensors", tmp_path / "out.safetensors"], check=True)
    with torch.no_grad():
        reference = model(ids).logits
    ours = load_file(tmp_path / "out.safetensors")["logits"]
    assert (ours - reference).abs().max() <= 1e-4 * reference.abs().max()
