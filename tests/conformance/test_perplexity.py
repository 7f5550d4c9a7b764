"""Perplexity of a real model beside transformers', on the same tokens."""
import json
import math
import subprocess

import pytest
import torch
from safetensors.torch import save_file

WINDOWS, SEQ_LEN = 3, 512


@pytest.fixture(scope="module")
def tokens(shared, smollm2_folder):
    from transformers import AutoTokenizer
    text = (shared / "data/wikitext2-test.raw").read_text()
    return AutoTokenizer.from_pretrained(smollm2_folder)(text, return_tensors="pt").input_ids[0]


@pytest.fixture(scope="module")
def window_nll(tokens, smollm2_folder):
    """transformers in float32: mean negative log-likelihood of every window."""
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32).eval()
    values = []
    with torch.no_grad():
        for window in tokens[: WINDOWS * SEQ_LEN].view(WINDOWS, SEQ_LEN):
            logits = model(window[None]).logits[0].float()
            values.append(torch.nn.functional.cross_entropy(logits[:-1], window[1:]).item())
    return values


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


def test_gguf_in_float32(measure, smollm2_gguf, window_nll):
    # The folder's weights are the file's, rounded to bfloat16.
    result = measure(smollm2_gguf, "float32")
    assert abs(result["perplexity"] - math.exp(sum(window_nll) / WINDOWS)) < 0.05


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
