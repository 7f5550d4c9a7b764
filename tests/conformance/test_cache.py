"""Tokens that follow others in a cache of keys and values have the logits that transformers gives them in one pass."""
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

import model_zoo
import zoos

# Windows, soft caps, ALiBi, learned positions, partial rotations, fused projections, experts, latent attention, sinks, chunks, queries scaled by position,
# keys and values of earlier layers.
NAMES = ["llama", "mistral", "mixtral", "qwen3", "phi3", "gemma2", "gemma3", "opt", "opt-350m", "bloom", "falcon-7b", "falcon-rw", "gpt-neox", "stablelm-2-12b", "llama-yarn",
         "deepseek-v3", "gpt-oss", "llama4", "ministral3-sliding", "gpt2", "gemma3n"]


@pytest.fixture(scope="module")
def logits(tool, tmp_path_factory):
    """name → (ours by pieces, transformers' of the whole)."""
    folder = tmp_path_factory.mktemp("cached")
    ids = torch.randint(0, model_zoo.VOCABULARY, (2, 60), generator=torch.Generator().manual_seed(7))  # passes windows of 24
    save_file({"ids": ids}, folder / "ids.safetensors")
    words, references = [], {}
    for name in NAMES:
        references[name] = model_zoo.reference_logits(zoos.save_model(name, folder / name), ids)
        words += [folder / name, folder / f"{name}.safetensors"]
    done = subprocess.run([tool("cached_logits"), folder / "ids.safetensors", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name: (load_file(folder / f"{name}.safetensors")["logits"], references[name]) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_pieces_are_the_whole(name, logits):
    ours, reference = logits[name]
    assert ours.shape == reference.shape
    assert (ours - reference).abs().max() < 1e-4 * reference.abs().max()
