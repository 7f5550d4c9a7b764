"""core/quant against formulas in numpy, torch's own float8 casts and, where it is installed, compressed-tensors."""
import itertools
import subprocess

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def jobs(tool):
    """One process answers all jobs of this file: starting it takes longer than any of them."""
    process = subprocess.Popen([tool("quantize_tensor")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.stdin.close()
    assert process.wait(30) == 0


@pytest.fixture
def quantize(jobs, tmp_path):
    def run(mode, tensors, **settings):
        save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "in.safetensors")
        words = [f"{k}={int(v) if isinstance(v, bool) else v}" for k, v in settings.items()]
        print(mode, tmp_path / "in.safetensors", tmp_path / "out.safetensors", *words, file=jobs.stdin, flush=True)
        assert jobs.stdout.readline() == "ok\n"
        return load_file(tmp_path / "out.safetensors")
    return run


def weights(out=24, columns=128, seed=0):
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(out, columns, generator=g) * torch.exp(torch.randn(out, 1, generator=g))
    w[1] = 0                      # a dead channel
    w[2] = w[2].abs()             # one sign only
    w[3, ::7] *= 40               # outliers
    return w


# ---- float formats ----

def representable(exponent, mantissa):
    """Every non-negative finite value of eXmY, smallest first: index = code, so ties go to the even index."""
    bias = 2 ** (exponent - 1) - 1
    values = []
    for e, m in itertools.product(range(2 ** exponent), range(2 ** mantissa)):
        if (exponent, mantissa) == (4, 3) and (e, m) == (15, 7):
            continue  # NaN of the fn variant
        if exponent >= 5 and e == 2 ** exponent - 1:
            continue  # infinities and NaN
        values.append(m * 2.0 ** (1 - bias - mantissa) if e == 0 else (1 + m / 2 ** mantissa) * 2.0 ** (e - bias))
    return np.array(values)


@pytest.mark.parametrize("exponent, mantissa", [(4, 3), (5, 2), (3, 2), (2, 1), (2, 3), (1, 2), (3, 0), (4, 7), (5, 10), (8, 7)])
def test_rounding_to_floats_is_exact(quantize, exponent, mantissa):
    values = representable(exponent, mantissa)
    if exponent == 8:  # float32's own subnormals and its largest numbers are out of its reach
        values = values[(values > 1e-30) & (values < 1e30)]
    middles = (values[1:] + values[:-1]) / 2
    rng = np.random.default_rng(0)
    x = np.concatenate([values, middles, np.nextafter(middles.astype(np.float32), np.float32(np.inf)),
                        np.nextafter(middles.astype(np.float32), np.float32(0)),
                        values[-1] * rng.random(4000), values[-1] * 10.0 ** -rng.uniform(0, 6, 4000)])
    if exponent != 8:
        x = np.concatenate([x, [values[-1] * 1.01, values[-1] * 100]])
    x = x.astype(np.float32)
    x = x[(x >= values[0]) & np.isfinite(x)]
    # Nearest by exact comparison in float64; a tie goes to the even code.
    upper = np.searchsorted(values, x.astype(np.float64)).clip(1, len(values) - 1)
    lower = upper - 1
    to_upper, to_lower = values[upper] - x.astype(np.float64), x.astype(np.float64) - values[lower]
    # Codes of the whole format, not of the cut list, decide which is even.
    full = representable(exponent, mantissa)
    even_lower = np.searchsorted(full, values[lower]) % 2 == 0
    if mantissa == 0:  # no mantissa to be even: a tie goes to the even multiple of the lower power of two, which is the upper
        even_lower = values[lower] == 0
    pick = np.where((to_lower < to_upper) | ((to_lower == to_upper) & even_lower), lower, upper)
    expected = values[pick].astype(np.float32)
    both = torch.from_numpy(np.concatenate([x, -x]))
    got = quantize("round", {"x": both}, type=f"e{exponent}m{mantissa}")["x"].numpy()
    np.testing.assert_array_equal(got, np.concatenate([expected, -expected]))


@pytest.mark.parametrize("name, dtype, limit", [("e4m3", torch.float8_e4m3fn, 448), ("e5m2", torch.float8_e5m2, 57344),
                                                ("e5m10", torch.float16, 65504), ("e8m7", torch.bfloat16, 1e38)])
def test_rounding_agrees_with_torchs_casts(quantize, name, dtype, limit):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(200_000, generator=g) * 10 ** torch.empty(200_000).uniform_(-7, 5, generator=g)
    every = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).float()  # ties of 8-bit floats are among them
    x = torch.cat([x, every[every.isfinite()]]).clamp(-limit, limit)
    if dtype == torch.bfloat16:
        x = x[x.abs() > 2e-36]  # below, the step is float32's smallest normal number
    got = quantize("round", {"x": x}, type=name)["x"]
    assert got.equal(x.to(dtype).float())


# ---- integers: the formulas of reference formats, in float32 numpy ----

def units_of(w, granularity, group_size=32, block=(8, 48), heads=4):
    """(list of index pairs, shape of per-unit tensors) for each layout."""
    out, columns = w.shape
    rows = {"tensor": [slice(None)], "head": [slice(i * out // heads, (i + 1) * out // heads) for i in range(heads)],
            "block": [slice(i, i + block[0]) for i in range(0, out, block[0])]}.get(granularity, [slice(i, i + 1) for i in range(out)])
    cols = {"group": [slice(i, i + group_size) for i in range(0, columns, group_size)],
            "block": [slice(i, i + block[1]) for i in range(0, columns, block[1])]}.get(granularity, [slice(None)])
    return [(r, c) for r in rows for c in cols], (len(rows), len(cols))


def store(scale, scale_type):
    return {"float32": scale.astype(np.float32), "float16": scale.astype(np.float16).astype(np.float32),
            "bfloat16": torch.from_numpy(np.asarray(scale, dtype=np.float32)).bfloat16().float().numpy()}[scale_type]


def integer_reference(w, bits, symmetric, granularity, full_scale=True, narrow=False, round_zero=True, scale_type="float32"):
    qmin, qmax = -2 ** (bits - 1), 2 ** (bits - 1) - 1
    if symmetric and narrow:
        qmin += 1
    units, shape = units_of(w, granularity)
    codes, value = np.zeros_like(w), np.zeros_like(w)
    scales, zeros = [], []
    for r, c in units:
        x = w[r, c]
        if symmetric:
            steps = np.float32((2 ** bits - 1) / 2 if full_scale and not narrow else qmax)
            scale, zero = np.abs(x).max() / steps, np.float32(0)
        else:
            low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
            scale = (high - low) / np.float32(qmax - qmin)
        scale = store(np.float32(1) if scale == 0 else scale, scale_type)
        if not symmetric:
            zero = np.float32(qmin) - low / scale
            zero = np.rint(zero).clip(qmin, qmax) if round_zero else store(zero, scale_type)
        q = np.rint(x / scale + zero).clip(qmin, qmax)
        codes[r, c], value[r, c] = q, (q - zero) * scale
        scales.append(scale)
        zeros.append(zero)
    return codes, np.array(scales).reshape(shape), np.array(zeros).reshape(shape), value


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group", "block", "token", "head"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_integers_follow_the_formula(quantize, bits, symmetric, granularity):
    if symmetric and bits == 1:
        pytest.skip("refused")
    w = weights()
    got = quantize("weight", {"w": w}, type=f"int{bits}", symmetric=symmetric, granularity=granularity, group_size=32, block_rows=8, block_cols=48, heads=4)
    codes, scale, zero, value = integer_reference(w.numpy(), bits, symmetric, granularity)
    np.testing.assert_array_equal(got["w.codes"].numpy(), codes)
    np.testing.assert_array_equal(got["w.scale"].numpy(), scale)
    assert ("w.zero" in got) == (not symmetric)
    if not symmetric:
        np.testing.assert_array_equal(got["w.zero"].numpy(), zero)
    np.testing.assert_array_equal(got["w.value"].numpy(), value)


@pytest.mark.parametrize("scale_type", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("settings", [dict(symmetric=True, full_scale=False), dict(symmetric=True, narrow=True),
                                      dict(symmetric=True, full_scale=False, narrow=True), dict(symmetric=False, round_zero=False)])
def test_conventions_and_stored_scales_follow_the_formula(quantize, settings, scale_type):
    w = weights(seed=3)
    ours = {"narrow": "narrow_range", "round_zero": "round_zero_point"}
    got = quantize("weight", {"w": w}, type="int4", granularity="group", group_size=32, scale_type=scale_type,
                   **{ours.get(k, k): v for k, v in settings.items()})
    codes, scale, zero, value = integer_reference(w.numpy(), 4, granularity="group", scale_type=scale_type, **settings)
    np.testing.assert_array_equal(got["w.codes"].numpy(), codes)
    np.testing.assert_array_equal(got["w.scale"].numpy(), scale)
    np.testing.assert_array_equal(got["w.value"].numpy(), value)


@pytest.mark.parametrize("name, dtype, limit", [("e4m3", torch.float8_e4m3fn, 448.0), ("e5m2", torch.float8_e5m2, 57344.0)])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
def test_float8_weights_are_torchs(quantize, granularity, name, dtype, limit):
    w = weights()
    got = quantize("weight", {"w": w}, type=name, granularity=granularity, block_rows=8, block_cols=48)
    units, shape = units_of(w, granularity)
    expected, scales = torch.zeros_like(w), []
    for r, c in units:
        peak = w[r, c].abs().max()
        scale = peak / limit if peak > 0 else torch.tensor(1.0)
        scales.append(scale)
        expected[r, c] = (w[r, c] / scale).clamp(-limit, limit).to(dtype).float() * scale
    assert got["w.scale"].equal(torch.stack(scales).reshape(shape))
    assert got["w.value"].equal(expected)


@pytest.mark.parametrize("granularity, width", [("token", 128), ("group", 32), ("head", 64), ("tensor", None)])
def test_activations_follow_the_formula(quantize, granularity, width):
    x = torch.randn(10, 128, generator=torch.Generator().manual_seed(2)).bfloat16()
    got = quantize("activation", {"x": x}, type="int8", granularity=granularity, group_size=32, heads=2)["x"]
    assert got.dtype == torch.bfloat16
    parts = x.float().numpy().reshape(-1, width or x.numel())
    scale = np.abs(parts).max(1, keepdims=True) / np.float32(127.5)
    expected = np.rint(parts / scale).clip(-128, 127) * scale
    assert got.equal(torch.from_numpy(expected.reshape(10, 128)).bfloat16())


# ---- searched ranges ----

@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_range_is_the_best_of_the_whole_grid(quantize, symmetric):
    w = weights(seed=5)
    got = quantize("weight", {"w": w}, type="int3", symmetric=symmetric, granularity="group", group_size=32, range="mse")
    x = w.numpy().astype(np.float64).reshape(-1, 32)
    value = got["w.value"].numpy().astype(np.float64).reshape(-1, 32)
    best = np.full(len(x), np.inf)
    for i in range(80):
        keep = 1 - i / 100
        if symmetric:
            scale = np.abs(x).max(1, keepdims=True) * keep / 3.5
            zero = 0
        else:
            low, high = np.minimum(x.min(1, keepdims=True), 0) * keep, np.maximum(x.max(1, keepdims=True), 0) * keep
            scale = (high - low) / 7
        scale = np.where(scale == 0, 1, scale)
        if not symmetric:
            zero = np.rint(-4 - low / scale).clip(-4, 3)
        q = np.rint(x / scale + zero).clip(-4, 3)
        best = np.minimum(best, (np.abs((q - zero) * scale - x) ** 2.4).sum(1))
    ours = (np.abs(value - x) ** 2.4).sum(1)
    np.testing.assert_allclose(ours, best, rtol=1e-3, atol=1e-9)


def hqq_reference(x, bits, p=0.7, beta=10.0, kappa=1.01, iterations=20):
    """Badri and Shaji, half-quadratic quantization: the best iterate of each group, in float64."""
    qmin, qmax = -2 ** (bits - 1), 2 ** (bits - 1) - 1
    low, high = np.minimum(x.min(1, keepdims=True), 0), np.maximum(x.max(1, keepdims=True), 0)
    scale = (high - low) / (qmax - qmin)
    zero = qmin - low / scale
    codes = lambda z: np.rint(x / scale + z).clip(qmin, qmax)
    error = lambda z: (np.abs(x - (codes(z) - z) * scale) ** p).sum(1, keepdims=True)
    start, best = error(zero), error(zero)
    for _ in range(iterations):
        q = codes(zero)
        e = x - (q - zero) * scale
        size = np.abs(e)
        shrunk = np.sign(e) * np.maximum(size - np.where(size > 0, size, 1) ** (p - 1) / beta, 0)
        zero = (q - (x - shrunk) / scale).mean(1, keepdims=True)
        beta *= kappa
        best = np.minimum(best, error(zero))
    return start[:, 0], best[:, 0]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_hqq_finds_the_papers_zero_points(quantize, bits):
    w = weights(seed=7)
    w = w[w.abs().sum(1) > 0].contiguous() * 3   # large enough for the shrinkage to act
    got = quantize("weight", {"w": w}, type=f"int{bits}", symmetric=False, granularity="group", group_size=64, round_zero_point=False, range="hqq")
    x = w.numpy().astype(np.float64).reshape(-1, 64)
    start, best = hqq_reference(x, bits)
    ours = (np.abs(got["w.value"].numpy().astype(np.float64).reshape(-1, 64) - x) ** 0.7).sum(1)
    assert (ours <= start * (1 + 1e-4)).all()
    assert best.sum() < start.sum() * 0.995        # the reference itself gains something
    assert abs(ours.sum() / best.sum() - 1) < 5e-3  # single groups may differ where float32 breaks a tie
    assert np.median(np.abs(ours / best - 1)) < 1e-3


# ---- compressed-tensors ----

@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("strategy", ["channel", "group", "tensor"])
def test_compressed_tensors_gives_the_same_weights(quantize, bits, symmetric, strategy):
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils.helpers import calculate_qparams
    w = weights(seed=11)
    w = w[w.abs().sum(1) > 0].contiguous()   # it gives dead channels another scale, to the same end
    args = QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric, strategy=strategy, group_size=32 if strategy == "group" else None)
    parts = w.reshape(w.shape[0], -1, 32) if strategy == "group" else w.reshape(1, -1) if strategy == "tensor" else w
    low, high = parts.amin(-1), parts.amax(-1)
    if strategy == "channel":
        low, high = low[:, None], high[:, None]
    scale, zero = calculate_qparams(low, high, args)
    expected = fake_quantize(w, scale, zero, args)
    got = quantize("weight", {"w": w}, type=f"int{bits}", symmetric=symmetric, granularity=strategy, group_size=32)
    assert got["w.value"].equal(expected)
