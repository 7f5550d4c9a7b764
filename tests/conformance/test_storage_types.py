"""Grids of the storage types of GGUF and microscaling formats: packed here byte by byte, gguf-py reads the values that core/quant
says; and every method leaves such grids."""
import json
import subprocess

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from safetensors.torch import load_file, save_file

from conftest import DEMO
from reports import perplexities

GGML = {"q4_0": "Q4_0", "q4_1": "Q4_1", "q5_0": "Q5_0", "q5_1": "Q5_1", "q8_0": "Q8_0", "q2_K": "Q2_K", "q3_K": "Q3_K", "q4_K": "Q4_K",
        "q5_K": "Q5_K", "q6_K": "Q6_K", "iq4_nl": "IQ4_NL", "mxfp4": "MXFP4"}
TYPES = [*GGML, "mxfp8", "nvfp4"]
LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
FP4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


# ---- one block of each layout (ggml-common.h), from codes counted from zero ----

def f16(x):
    half = np.float16(x)
    assert np.float32(half) == np.float32(x), f"{x} is no float16"
    return half.tobytes()


def integer(x, low, high):
    n = int(round(float(x)))
    assert n == x and low <= n <= high, f"{x} is no integer in [{low}, {high}]"
    return n


def bits(values, places):
    """Bit b of byte i is a bit of a value: places[i][b] = (value, bit)."""
    return bytes(sum((values[v] >> b & 1) << k for k, (v, b) in enumerate(byte)) for byte in places)


def nibbles(q):
    """Of 32 values: the first 16 low, the others high."""
    return bytes(q[j] & 15 | (q[j + 16] & 15) << 4 for j in range(16))


def fifth(q):
    return sum((v >> 4 & 1) << j for j, v in enumerate(q)).to_bytes(4, "little")


def six_bit_pairs(scales, minima):
    s = [0] * 12
    for j in range(4):
        s[j] = scales[j] | (scales[j + 4] >> 4) << 6
        s[j + 4] = minima[j] | (minima[j + 4] >> 4) << 6
        s[j + 8] = scales[j + 4] & 15 | (minima[j + 4] & 15) << 4
    return bytes(s)


def block(kind, q, scale, minimum, d, dmin):
    """q: codes from zero up (q8_0: signed; iq4_nl, mxfp4: indices). scale, minimum: of each unit; d, dmin: of a super-block."""
    q = [int(v) for v in q]
    if kind == "q4_0":
        return f16(scale[0]) + nibbles(q)
    if kind == "q4_1":
        return f16(scale[0]) + f16(minimum[0]) + nibbles(q)
    if kind == "q5_0":
        return f16(scale[0]) + fifth(q) + nibbles(q)
    if kind == "q5_1":
        return f16(scale[0]) + f16(minimum[0]) + fifth(q) + nibbles(q)
    if kind == "q8_0":
        return f16(scale[0]) + bytes(v & 255 for v in q)
    if kind == "iq4_nl":
        return f16(scale[0]) + nibbles(q)
    if kind == "mxfp4":
        exponent = integer(np.log2(scale[0]), -126, 127)
        assert 2.0 ** exponent == scale[0]
        return bytes([exponent + 127]) + nibbles(q)
    limits = {"q2_K": (1, 15), "q3_K": (-32, 31), "q6_K": (-128, 127)}.get(kind, (1, 63))
    sc = [integer(s / d, *limits) for s in scale]
    m = [integer(-x / dmin if dmin else 0, 0, limits[1]) for x in minimum] if minimum is not None else None
    if kind == "q2_K":
        codes = bytes(sum(q[half * 128 + pair * 32 + i] << 2 * pair for pair in range(4)) for half in range(2) for i in range(32))
        return bytes(a | b << 4 for a, b in zip(sc, m)) + codes + f16(d) + f16(dmin)
    if kind == "q3_K":
        mask = bits(q, [[(k * 32 + i, 2) for k in range(8)] for i in range(32)])
        codes = bytes(sum((q[half * 128 + pair * 32 + i] & 3) << 2 * pair for pair in range(4)) for half in range(2) for i in range(32))
        u = [s + 32 for s in sc]
        low = [u[j] & 15 | (u[j + 8] & 15) << 4 for j in range(8)]
        high = [sum((u[j + 4 * k] >> 4) << 2 * k for k in range(4)) for j in range(4)]
        return mask + codes + bytes(low + high) + f16(d)
    if kind in ("q4_K", "q5_K"):
        codes = bytes(q[c * 64 + i] & 15 | (q[c * 64 + 32 + i] & 15) << 4 for c in range(4) for i in range(32))
        high = bits(q, [[(j * 32 + i, 4) for j in range(8)] for i in range(32)]) if kind == "q5_K" else b""
        return f16(d) + f16(dmin) + six_bit_pairs(sc, m) + high + codes
    assert kind == "q6_K"
    low = bytes(q[h * 128 + i] & 15 | (q[h * 128 + 64 + i] & 15) << 4 for h in range(2) for i in range(64))
    high = bytes(sum((q[h * 128 + 32 * k + i] >> 4) << 2 * k for k in range(4)) for h in range(2) for i in range(32))
    return low + high + bytes(s & 255 for s in sc) + f16(d)


def packed(kind, codes, scale, minimum, d, dmin):
    """The rows of a weight as a GGUF file holds them."""
    width = {"q4_0": 32, "q4_1": 32, "q5_0": 32, "q5_1": 32, "q8_0": 32, "iq4_nl": 32, "mxfp4": 32}.get(kind, 256)
    width_bits = {"q4_0": 4, "q4_1": 4, "q5_0": 5, "q5_1": 5, "q2_K": 2, "q3_K": 3, "q4_K": 4, "q5_K": 5, "q6_K": 6}.get(kind)
    if kind == "iq4_nl":
        assert np.isin(codes, LEVELS).all()
        codes = np.searchsorted(LEVELS, codes)
    elif kind == "mxfp4":
        index = np.searchsorted(FP4, np.abs(codes))
        codes = index + 8 * (np.signbit(codes) & (codes != 0))
    elif width_bits:
        codes = codes + 2 ** (width_bits - 1)
        assert codes.min() >= 0 and codes.max() < 2 ** width_bits
    rows = []
    for r in range(len(codes)):
        row = b""
        units = scale.shape[1] * width // codes.shape[1]
        for b in range(codes.shape[1] // width):
            of = slice(b * units, (b + 1) * units)
            row += block(kind, codes[r, b * width:(b + 1) * width], scale[r, of], minimum[r, of] if minimum is not None else None,
                         d[r, b] if d is not None else None, dmin[r, b] if dmin is not None else None)
        rows.append(np.frombuffer(row, np.uint8))
    return np.stack(rows)


def weights(out=16, columns=512, seed=0):
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(out, columns, generator=g) * 0.03 * torch.exp(torch.randn(out, 1, generator=g))
    w[1] = 0                      # a dead channel
    w[2] = w[2].abs()             # one sign only
    w[3, ::37] *= 40              # outliers
    w[4, 64:96] = 0
    w[:, 9] = 0                   # an input that nobody uses
    return w


def inputs(columns=512, tokens=2048, seed=1):
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=g) / columns ** 0.5
    x = torch.randn(tokens, columns, generator=g) @ (torch.eye(columns) + mix) * torch.exp(0.7 * torch.randn(columns, generator=g))
    x[:, 9] = 0
    return x.T @ x


@pytest.fixture
def rounded(tool, tmp_path):
    """Codes, grid and value of a weight, by core's search alone or by GPTQ."""
    def run(kind, w, gram=None, **knobs):
        source, made = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
        if gram is None:
            save_file({"w": w}, source)
            done = subprocess.run([tool("quantize_tensor")], input=f"weight {source} {made} type={kind}\n", capture_output=True, text=True)
            assert done.stdout == "ok\n", done.stdout + done.stderr
            return {name[2:]: value for name, value in load_file(made).items()}
        save_file({"weight": w, "gram": gram}, source)
        done = subprocess.run([tool("gptq_tensor"), source, made, f"type={kind}", *(f"{k}={v}" for k, v in knobs.items())], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return load_file(made)
    return run


def check_value(kind, got):
    """What a file made of codes and grid holds is the value that core says, to the bit."""
    part = {k: v.numpy() for k, v in got.items()}
    if kind in GGML:
        data = packed(kind, part["codes"].astype(np.float64 if kind == "mxfp4" else np.int64), part["scale"].astype(np.float64),
                      part["minimum"].astype(np.float64) if "minimum" in part else None,
                      part.get("super"), part.get("super_minimum"))
        read = quants.dequantize(data, GGMLQuantizationType[GGML[kind]])
    else:  # compressed-tensors: float8 or E2M1 codes times E8M0, or E4M3 over a global scale
        codes, scale = got["codes"], got["scale"]
        if kind == "nvfp4":
            over = 1 / got["super"]  # weight_global_scale
            stored = (scale * over).to(torch.float8_e4m3fn)
            scale = stored.float() / over
        else:
            scale = torch.exp2(torch.log2(scale).round())
        allowed = torch.tensor(FP4) if kind == "nvfp4" else codes.to(torch.float8_e4m3fn).float().abs().flatten()
        assert torch.isin(codes.abs(), allowed).all()
        read = (codes.view(len(codes), scale.shape[1], -1) * scale.unsqueeze(2)).view(codes.shape).numpy()
    assert np.array_equal(read, part["value"])
    return torch.from_numpy(part["value"])


@pytest.mark.parametrize("kind", TYPES)
def test_found_grids_are_read_back_by_the_formats_own_reader(rounded, kind):
    w = weights()
    value = check_value(kind, rounded(kind, w))
    assert value[1].abs().max() == 0
    error = ((value - w) ** 2).sum(1) / (w ** 2).sum(1).clamp(min=1e-12)
    # Outliers leave the other weights of their group few codes.
    assert error[3] < 0.3
    error[3] = 0
    most = {"q2_K": 0.2, "q3_K": 0.06, "q4_0": 0.02, "q8_0": 1e-4, "q6_K": 1e-3, "q5_0": 0.006, "q5_1": 0.006, "q5_K": 0.006, "mxfp8": 2e-3, "mxfp4": 0.03}
    assert error.max() < most.get(kind, 0.02)


@pytest.mark.parametrize("kind", TYPES)
def test_a_single_row_of_a_single_block(rounded, kind):
    w, gram = weights()[:1, :256].contiguous(), inputs()[:256, :256].contiguous()
    for got in (rounded(kind, w), rounded(kind, w, gram, static_groups=0, sweeps=1, fit_scales=1)):
        assert check_value(kind, got).isfinite().all()


@pytest.mark.parametrize("kind", TYPES)
def test_a_wrong_byte_is_seen(rounded, kind):
    got = rounded(kind, weights())
    part = "super" if "super" in got and got["super"].numel() > 1 else "scale"
    got[part] = got[part].clone()
    got[part].view(-1)[0] *= 2
    with pytest.raises(AssertionError):
        check_value(kind, got)


@pytest.mark.parametrize("kind", TYPES)
def test_gptq_stays_on_the_grid_and_beats_rounding(rounded, kind):
    w, gram = weights(), inputs()

    def loss(value):
        d = (value - w).double()
        return float(((d @ gram.double()) * d).sum())

    plain = loss(check_value(kind, rounded(kind, w)))
    for knobs in ({}, {"static_groups": 0}, {"static_groups": 0, "actorder": 0}, {"sweeps": 2, "fit_scales": 1}):
        solved = loss(check_value(kind, rounded(kind, w, gram, **knobs)))
        assert solved < 0.8 * plain, knobs
    assert solved < loss(rounded(kind, w, gram)["value"])  # sweeps and fitted scales on top


PIPELINES = {"rtn": "{method: rtn}", "rtn with importance": "{method: rtn, importance: true}", "gptq": "{method: gptq}",
             "groups in turn": "{method: gptq, static_groups: false, sweeps: 1, fit_scales: true}", "all": "{method: awq}, {method: clip}, {method: gptq}"}
LEARNED = ["{method: autoround, iters: 4}", "{method: omniquant, epochs: 1}", "{method: omniquant, epochs: 1, let: true}", "{method: tesseraq, iterations: 2, rounds: 2}"]


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_quantized_by_every_way_and_the_model_still_works(tool, tmp_path, kind):
    pipelines = dict(PIPELINES)
    if kind in ("q4_1", "q5_1"):
        pipelines["hqq"] = "{method: hqq}"
    if kind in ("q4_0", "q4_1", "q2_K"):
        pipelines |= {f"learned {i}": text for i, text in enumerate(LEARNED)}
    if kind in ("q4_0", "iq4_nl"):
        pipelines["tuned"] = "{method: gptq}, {method: e2e_tuning, epochs: 1}"
    files = []
    for name, stages in pipelines.items():
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(f"""name: {name}
model: {{path: '{DEMO}', dtype: float32}}
calibration: {{corpus: '{DEMO}/calibration.txt', sampling: sequential, samples: 8, seq_len: 128}}
scheme: {{weights: {{type: {kind}}}}}
pipeline: [{stages}]
evaluation: [{{corpus: '{DEMO}/evaluation.txt', seq_len: 128, windows: 8, dtype: float32}}]
""")
    done = subprocess.run([tool("qbench"), "run", *files, "--workspace", tmp_path / "ws", "--json", "-q"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)
    assert len(runs) == len(files)
    for run in runs:
        floats, quantized = ([p["perplexity"] for p in perplexities(run) if p["float_model"] == flag] for flag in (True, False))
        floats, quantized = floats[0], quantized[0]
        assert floats < quantized * 1.01 and quantized < floats * (1.6 if kind == "q2_K" else 1.2 if kind == "q3_K" else 1.06), run["name"]
