"""Our runs beside what llm-compressor made of the same model and calibration text (tests/tools/make_peer_results.py)."""
import subprocess

import pytest
import torch
from safetensors.torch import load_file

from conftest import ROOT
from peer_model import BLOCKS, LINEARS, NORMS, SAMPLES, SEQ_LEN, peer_tensors, save_peer_model


def peer(case):
    """Codes as signed integers, scales and zero points of every linear."""
    found = load_file(ROOT / "tests" / "data" / "peers" / f"llm-compressor-{case}.safetensors")
    for name in [name for name in found if name.endswith(".codes")]:
        packed = found[name]
        shape = LINEARS[name.split(".", 1)[1].removesuffix(".codes")]
        found[name] = torch.stack([packed & 15, packed >> 4], 1).reshape(shape).int() - 8
    return found


@pytest.fixture
def ours(tool, tmp_path):
    def run(stage, group, symmetric, propagate):
        save_peer_model(tmp_path / "model")
        (tmp_path / "recipe.yaml").write_text(f"""name: peer
model: {{path: '{tmp_path}/model', dtype: float32}}
calibration: {{corpus: '{tmp_path}/model/calibration.txt', sampling: sequential, samples: {SAMPLES}, seq_len: {SEQ_LEN}}}
scheme:
  weights: {{type: int4, symmetric: {str(symmetric).lower()}, granularity: group, group_size: {group}, scale_type: float32}}
pipeline: [{stage}]
propagate_quantized: {str(propagate).lower()}
""")
        done = subprocess.run([tool("qbench"), "run", tmp_path / "recipe.yaml", "-q", "-w", tmp_path / "ws"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = {}
        for path in sorted(tmp_path.glob("ws/runs/*/blocks/*.safetensors")):
            for key, value in load_file(path).items():
                found[key.removeprefix("model.layers.").replace(".weight", "")] = value
        for name in [name for name in found if name.endswith(".codes")]:
            # One little-endian stream of four bits a code.
            shape = LINEARS[name.split(".", 1)[1].removesuffix(".codes")]
            packed = found[name].flatten()
            found[name] = torch.stack([packed & 15, packed >> 4], 1).reshape(shape).int() - 8
        return found
    return run


@pytest.mark.parametrize("case, stage, group", [
    ("gptq-g32-static", "{method: gptq, actorder: true}", 32),
    ("gptq-g64-plain", "{method: gptq, actorder: false, blocksize: 32, percdamp: 0.05}", 64)])
def test_gptq_gives_the_codes_of_llm_compressor(case, stage, group, ours):
    expected, got = peer(case), ours(stage, group, symmetric=True, propagate=True)
    for block in range(BLOCKS):
        for linear in LINEARS:
            name = f"{block}.{linear}"
            assert torch.allclose(got[f"{name}.scale"], expected[f"{name}.scale"], rtol=1e-6), name
            same = (got[f"{name}.codes"] == expected[f"{name}.codes"]).double().mean().item()
            # All of them on the machine where this was written; another order of sums can turn a tie.
            assert same >= 0.99, (name, same)


def test_awq_chooses_the_scales_of_llm_compressor(ours):
    """Without its weights' part in the scales, both programs try exponents of one grid on the outputs of the same modules."""
    expected, unscaled = peer("awq-g64"), peer_tensors()
    got = ours("{method: awq, objective: module, samples: 0, rows: 0, do_gqa_trans: false}", 64, symmetric=False, propagate=False)
    for block in range(BLOCKS):
        for norm in NORMS:
            name = f"{block}.{norm}"
            assert not torch.allclose(expected[name], unscaled[f"model.layers.{name}.weight"], rtol=0.1)
            assert torch.allclose(got[name], expected[name], rtol=1e-4), name
        for linear in LINEARS:
            name = f"{block}.{linear}"
            assert torch.allclose(got[f"{name}.scale"], expected[f"{name}.scale"], rtol=1e-4), name
            assert (got[f"{name}.codes"] == expected[f"{name}.codes"]).double().mean() >= 0.99, name
