"""The same recipe on a GPU and on the CPU. The other conformance tests run on a GPU too, with QBENCH_DEVICE=cuda:0."""
import json
import os
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import DEMO, recipe
from test_weight_methods import EVERY
from reports import perplexities

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
EVALUATION = f"evaluation:\n  - {{corpus: '{DEMO}/evaluation.txt', seq_len: 128, windows: 8}}"


def report_of(tool, folder, device, **settings):
    folder.mkdir(exist_ok=True)
    done = subprocess.run([tool("qbench"), "run", recipe(folder, samples=4, **settings), "--json", "-q", "-w", folder / "ws"],
                          capture_output=True, text=True, env=os.environ | {"QBENCH_DEVICE": device})
    assert done.returncode == 0, done.stderr
    report, = json.loads(done.stdout)
    assert report["environment"]["device"] == device
    return report


def by_model(report):
    return {p["float_model"]: p["perplexity"] for p in perplexities(report)}


@pytest.mark.parametrize("dtype, propagate", [("float32", "true"), ("bfloat16", "false")])
@pytest.mark.parametrize("pipeline", EVERY + ["gptq, {method: e2e_tuning, epochs: 1}"])
def test_a_gpu_finds_what_the_cpu_finds(pipeline, dtype, propagate, tool, tmp_path):
    extra = f"propagate_quantized: {propagate}\n{EVALUATION}"
    cpu, gpu = (report_of(tool, tmp_path / device[:4], device, pipeline=pipeline, dtype=dtype, extra=extra) for device in ("cpu", "cuda:0"))
    assert gpu["peak_device_bytes"] > 0 and cpu.get("peak_device_bytes", 0) == 0
    expected, found = by_model(cpu), by_model(gpu)
    assert found[True] == pytest.approx(expected[True], rel=1e-5 if dtype == "float32" else 3e-3)
    # Sums in another order decide ties of roundings and of searches otherwise, and steps along a gradient's sign most of all.
    learned = "autoround" in pipeline or "tesseraq" in pipeline
    assert found[False] == pytest.approx(expected[False], rel=0.05)
    for a, b in zip(cpu["blocks"], gpu["blocks"]):
        for x, y in zip(a["linears"], b["linears"]):
            assert y["name"] == x["name"] and y["bits_per_weight"] == pytest.approx(x["bits_per_weight"], rel=0.01)
            assert y["output_relative_error"] == pytest.approx(x["output_relative_error"], rel=0.2 if learned else 0.1, abs=1e-4), x["name"]


def test_statistics_come_back_from_the_cache_to_the_gpu(tool, tmp_path):
    reports = [report_of(tool, tmp_path / "one", "cuda:0", pipeline="awq, clip, gptq", extra=f"propagate_quantized: false\n{EVALUATION}") for _ in range(2)]
    assert reports[0].get("statistics_cached_blocks", 0) == 0 and reports[1]["statistics_cached_blocks"] == len(reports[1]["blocks"])
    assert by_model(reports[0]) == by_model(reports[1])


@pytest.mark.parametrize("block_size", [128, 10, 1000])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("sweeps", [0, 2])
def test_the_kernel_rounds_as_the_cpu_does(block_size, symmetric, sweeps, tool, tmp_path):
    """Wide enough that a slab is more than one launch."""
    g = torch.Generator().manual_seed(2)
    x = torch.randn(2048, 640, generator=g, dtype=torch.float64) * torch.exp(0.5 * torch.randn(640, generator=g, dtype=torch.float64))
    weight = torch.randn(100, 640, generator=g)
    save_file({"weight": weight, "gram": (x.T @ x).float(), "kept": (torch.rand(100, 640, generator=g) > 0.1).byte()}, tmp_path / "in.safetensors")
    results = []
    for device in ("cpu", "cuda:0"):
        done = subprocess.run([tool("gptq_tensor"), tmp_path / "in.safetensors", tmp_path / "out.safetensors", "group=64", f"blocksize={block_size}",
                               f"symmetric={int(symmetric)}", f"sweeps={sweeps}"], capture_output=True, text=True, env=os.environ | {"QBENCH_DEVICE": device})
        assert done.returncode == 0, done.stderr
        results.append(load_file(tmp_path / "out.safetensors"))
    cpu, gpu = results
    assert torch.allclose(cpu["scale"], gpu["scale"], rtol=1e-6)
    assert (cpu["codes"] == gpu["codes"]).double().mean() > 0.95  # a tie takes its row's later columns with it
    h = x.T @ x
    loss = [((r["value"].double() - weight) @ h * (r["value"].double() - weight)).sum().item() for r in results]
    assert loss[1] == pytest.approx(loss[0], rel=2e-3)
