"""The decoder's forward pass against transformers, family by family."""
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import model_zoo

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("QBENCH_BUILD", ROOT / "build/dev"))
TOLERANCE = 1e-4  # of the largest logit, float32


def tool(name):
    path = BUILD / "tests" / name
    if not path.exists():
        pytest.skip(f"{path} is not built")
    return str(path)


def our_logits(folder, ids, scratch, dtype="float32"):
    save_file({"ids": ids}, scratch / "ids.safetensors")
    done = subprocess.run([tool("model_logits"), str(folder), str(scratch / "ids.safetensors"), str(scratch / "out.safetensors"), dtype],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return load_file(scratch / "out.safetensors")


def token_ids(batch=2, length=80):
    return torch.randint(0, model_zoo.VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(7))


def assert_close(ours, reference, tolerance=TOLERANCE):
    assert ours.shape == reference.shape
    error = (ours - reference).abs().max().item() / reference.abs().max().item()
    assert error <= tolerance, f"largest difference {error:.2e} of the largest logit"


@pytest.mark.parametrize("name", model_zoo.MODELS)
def test_logits_match_transformers(name, tmp_path):
    model = model_zoo.save_model(name, tmp_path / "model")
    ids = token_ids()
    reference = model_zoo.reference_logits(model, ids)
    ours = our_logits(tmp_path / "model", ids, tmp_path)
    assert_close(ours["logits"], reference)
    nll = torch.nn.functional.cross_entropy(reference[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(ids.shape[0], -1)
    assert (ours["nll"] - nll).abs().max() < 1e-4 * nll.abs().max()
