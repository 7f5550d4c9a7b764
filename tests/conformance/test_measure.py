"""A block's figures beside plain float64 formulas on the same tensors."""
import json
import subprocess

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import ROOT


def measured(tool, folder, weight, rows, bits, group, activation_bits):
    path = folder / "input.safetensors"
    save_file({"weight": weight, "rows": rows}, path)
    done = subprocess.run([tool("measure_linear"), ROOT / "resources" / "demo", path, str(bits), str(group), str(activation_bits)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = load_file(str(path) + ".out.safetensors")
    block = json.loads(done.stdout)
    return block, block["linears"][0], after["weight"].double().numpy(), after["rows"].double().numpy()


def kurtosis(values):
    centred = values - values.mean()
    return (centred**4).mean() / (centred**2).mean() ** 2


def check_histogram(histogram, values):
    """Every bin within a rounding of its edge, and not one value lost."""
    low, high, counts = histogram["low"], histogram["high"], np.array(histogram["counts"])
    assert counts.sum() + histogram["below"] + histogram["above"] == values.size
    assert histogram["below"] == pytest.approx((values < low).sum(), abs=1)
    assert histogram["above"] == pytest.approx((values > high).sum(), abs=1)
    expected, _ = np.histogram(values, bins=len(counts), range=(low, high))
    # A value at an edge may fall to either side in float32; quantized values can sit on edges in numbers.
    shared = np.minimum.accumulate(np.abs(np.cumsum(counts) - np.cumsum(expected))[::-1])
    assert np.abs(np.cumsum(counts) - np.cumsum(expected)).mean() <= max(2, 1e-3 * values.size), shared


@pytest.mark.parametrize("bits, group, activation_bits", [(4, 32, 0), (2, 64, 0), (8, 32, 8), (3, 16, 4)])
def test_figures_equal_float64_formulas(tool, tmp_path, bits, group, activation_bits):
    generator = torch.Generator().manual_seed(bits)
    weight = torch.randn(48, 64, generator=generator) * torch.logspace(-1, 0, 48)[:, None]
    rows = torch.randn(200, 64, generator=generator)
    rows[:, 5] *= 30  # an outlier channel
    block, linear, after, seen = measured(tool, tmp_path, weight, rows, bits, group, activation_bits)
    w, x = weight.double().numpy(), rows.double().numpy()

    error = after - w
    assert linear["weight_mse"] == pytest.approx((error**2).mean(), rel=1e-5)
    assert linear["weight_max_error"] == pytest.approx(np.abs(error).max(), rel=1e-5)
    assert linear["weight_sqnr_db"] == pytest.approx(10 * np.log10((w**2).sum() / (error**2).sum()), abs=1e-4)
    assert linear["weight_kurtosis"] == pytest.approx(kurtosis(w), rel=1e-4)
    assert linear["weight_kurtosis_after"] == pytest.approx(kurtosis(after), rel=1e-4)

    expected, got = x @ w.T, seen @ after.T
    relative = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert linear["output_relative_error"] == pytest.approx(relative, rel=1e-4)
    assert linear["output_sqnr_db"] == pytest.approx(-20 * np.log10(relative), abs=1e-3)
    cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    assert linear["output_cosine"] == pytest.approx(cosine.mean(), abs=1e-5)
    assert linear["measured_tokens"] == 200
    assert linear["input_kurtosis"] == pytest.approx(kurtosis(x), rel=1e-4)
    assert linear["input_abs_max"] == pytest.approx(np.abs(x).max(), rel=1e-6)

    peaks = np.abs(x).max(0)
    outliers = linear["outliers"]
    assert len(outliers) == 32 and outliers[0]["channel"] == 5
    assert [o["channel"] for o in outliers] == list(np.argsort(-peaks)[:32])
    for outlier in outliers:
        assert outlier["ratio"] == pytest.approx(peaks[outlier["channel"]] / np.median(peaks), rel=1e-5)

    check_histogram(linear["weight_before"], w)
    check_histogram(linear["weight_after"], after)
    check_histogram(linear["weight_error"], error)
    check_histogram(linear["output_error"], got - expected)
    check_histogram(linear["input_before"], x)
    for before, then in (("weight_before", "weight_after"), ("input_before", "input_after")):
        if linear[then]["counts"]:
            assert (linear[before]["low"], linear[before]["high"]) == (linear[then]["low"], linear[then]["high"])
    assert bool(linear["input_after"]["counts"]) == (activation_bits > 0)
    assert block["output_relative_error"] == pytest.approx(0.5, rel=1e-6)  # the tool hands in 1.5 times the float output
    assert block["measured_tokens"] == 200


def test_a_huge_weight_does_not_hide_the_others(tool, tmp_path):
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) * 0.01
    weight[3, 7] = 50
    _, linear, _, _ = measured(tool, tmp_path, weight, torch.ones(2, 64), 8, 64, 0)
    histogram = linear["weight_before"]
    assert histogram["above"] == 1 and histogram["high"] < 10
    assert sum(histogram["counts"]) == 64 * 64 - 1
