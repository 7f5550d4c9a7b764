"""Methods on weights, each against its formula in float64 or against what it must leave unchanged."""
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_zoo import MODELS, save_model


def problem(out=24, columns=64, tokens=256, seed=0):
    """A weight and the Gram matrix of correlated inputs with a few large channels."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=g, dtype=torch.float64) / columns ** 0.5
    x = torch.randn(tokens, columns, generator=g, dtype=torch.float64) @ (torch.eye(columns, dtype=torch.float64) + mix)
    x *= torch.exp(0.7 * torch.randn(columns, generator=g, dtype=torch.float64))
    return torch.randn(out, columns, generator=g, dtype=torch.float64).float().double(), (x.T @ x).float().double()


@pytest.fixture
def gptq(tool, tmp_path):
    def run(tensors, **settings):
        save_file({k: v.contiguous() if v.dtype == torch.uint8 else v.float().contiguous() for k, v in tensors.items()}, tmp_path / "in.safetensors")
        words = [f"{k}={int(v) if isinstance(v, bool) else v}" for k, v in settings.items()]
        done = subprocess.run([tool("gptq_tensor"), tmp_path / "in.safetensors", tmp_path / "out.safetensors", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        result = load_file(tmp_path / "out.safetensors") if (tmp_path / "out.safetensors").exists() else {}
        result["said"] = done.stdout
        return result
    return run


def grid(w, bits, symmetric):
    """Scale and zero point of rows, as compressed-tensors has them; codes are signed."""
    low, high = w.amin(1).clamp(max=0), w.amax(1).clamp(min=0)
    if symmetric:
        return torch.maximum(-low, high) / ((2 ** bits - 1) / 2), torch.zeros(len(w), dtype=w.dtype)
    scale = (high - low) / (2 ** bits - 1)
    return scale, (-2 ** (bits - 1) - low / scale).round().clamp(-2 ** (bits - 1), 2 ** (bits - 1) - 1)


def sequential_least_squares(w, h, order, grids, bits, group, kept=None, dynamic=None):
    """Rounds column after column; before each, all columns still free take the values that minimise the output error given
    those already rounded, by a direct solve on the original problem."""
    out, n = w.shape
    codes, value = torch.zeros_like(w), torch.zeros_like(w)
    for step in range(n):
        done, free = order[:step], order[step:]
        now = w[:, free]
        if step:
            now = now + (w[:, done] - value[:, done]) @ h[done][:, free] @ torch.linalg.inv(h[free][:, free])
        c = order[step]
        unit = int(c) // group if group else 0
        if dynamic is not None and (step % group == 0 if group else step == 0):
            columns = [int((free == k).nonzero()) for k in range(unit * group, unit * group + group)] if group else range(n)
            grids[unit] = grid(now[:, columns], bits, dynamic)
        scale, zero = grids[unit]
        q = (now[:, 0] / scale + zero).round().clamp(-2 ** (bits - 1), 2 ** (bits - 1) - 1)
        if kept is not None:
            q = torch.where(kept[:, c].bool(), q, zero)
        codes[:, c], value[:, c] = q, (q - zero) * scale
    return codes, value


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("group, static", [(0, True), (16, True), (16, False), (0, False)])
@pytest.mark.parametrize("block_size", [128, 10])
def test_gptq_solves_the_sequential_least_squares_problem(gptq, symmetric, act_order, group, static, block_size):
    w, gram = problem()
    got = gptq({"weight": w, "gram": gram}, symmetric=symmetric, act_order=act_order, group=group, static_groups=static, block_size=block_size)
    h = gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    order = got["order"]
    if act_order and (static or not group):
        assert torch.equal(order, torch.argsort(gram.diagonal(), descending=True))
    units = range(64 // group) if group else range(1)
    grids = [grid(w[:, u * group:(u + 1) * group] if group else w, 4, symmetric) for u in units]
    codes, value = sequential_least_squares(w, h, order, grids, 4, group, dynamic=None if static else symmetric)
    # A weight that falls between two codes may go the other way in float32, and takes its row's later columns with it.
    same = (got["codes"] == codes).all(1).double().mean()
    assert same >= 0.9, same
    rows = (got["codes"] == codes).all(1)
    assert torch.allclose(got["value"][rows].double(), value[rows], rtol=1e-5, atol=1e-6)
    loss = ((got["value"].double() - w) @ h * (got["value"].double() - w)).sum()
    assert abs(got["loss"].item() - loss) < 1e-4 * loss


def test_gptq_beats_rounding_and_order_helps(gptq):
    w, gram = problem(out=64, seed=3)
    loss = lambda v: ((v.double() - w) @ gram * (v.double() - w)).sum().item()
    scale, zero = grid(w, 3, False)
    nearest = (((w / scale[:, None] + zero[:, None]).round().clamp(-4, 3)) - zero[:, None]) * scale[:, None]
    plain = gptq({"weight": w, "gram": gram}, type="int3", symmetric=False, act_order=False)
    ordered = gptq({"weight": w, "gram": gram}, type="int3", symmetric=False, act_order=True)
    assert loss(ordered["value"]) < loss(plain["value"]) < 0.8 * loss(nearest)


def test_gptq_keeps_pruned_weights_at_zero_and_makes_up_for_them(gptq):
    w, gram = problem()
    kept = torch.ones_like(w, dtype=torch.uint8)
    kept[:, ::2] = 0
    got = gptq({"weight": w, "gram": gram, "kept": kept}, symmetric=False, group=16)
    assert torch.all(got["value"][kept == 0] == 0)
    h = gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    grids = [grid(w[:, u * 16:(u + 1) * 16], 4, False) for u in range(4)]
    codes, _ = sequential_least_squares(w, h, got["order"], grids, 4, 16, kept=kept)
    assert (got["codes"] == codes).all(1).double().mean() >= 0.9


@pytest.mark.parametrize("kind", ["e4m3", "e2m1"])
def test_gptq_of_float_formats_is_better_than_rounding(gptq, kind):
    w, gram = problem(seed=5)
    got = gptq({"weight": w, "gram": gram}, type=kind, group=16)
    loss = lambda v: ((v.double() - w) @ gram * (v.double() - w)).sum().item()
    largest = {"e4m3": 448.0, "e2m1": 6.0}[kind]
    scale = w.reshape(24, 4, 16).abs().amax(2, True) / largest
    x = (w.reshape(24, 4, 16) / scale)
    if kind == "e4m3":
        nearest = x.float().to(torch.float8_e4m3fn).double()
    else:
        values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float64)
        values = torch.cat([-values.flip(0), values])
        nearest = values[(x.unsqueeze(-1) - values).abs().argmin(-1)]
    assert loss(got["value"]) < 0.9 * loss((nearest * scale).reshape(24, 64))


def test_gptq_takes_the_ranges_of_a_clipping_stage(gptq):
    w, gram = problem()
    high = torch.full((24, 4), 1.5)
    got = gptq({"weight": w, "gram": gram, "low": -high, "high": high}, group=16)
    assert torch.allclose(got["scale"], torch.full((24, 4), 1.5 / 7.5))


def test_gptq_raises_the_damping_of_an_indefinite_matrix_and_gives_up_on_a_hopeless_one(gptq):
    w, gram = problem()
    values, vectors = torch.linalg.eigh(gram)
    values[0] = -0.05 * gram.diagonal().mean()
    said = gptq({"weight": w, "gram": vectors @ torch.diag(values) @ vectors.T})["said"].split()
    assert float(said[1]) == pytest.approx(0.1) and said[3] == "2"
    assert gptq({"weight": w, "gram": gram * float("nan")})["said"] == "indefinite\n"


def test_gptq_rounds_columns_that_no_input_reached_to_nearest(gptq):
    w, gram = problem()
    gram[7] = 0
    gram[:, 7] = 0
    got = gptq({"weight": w, "gram": gram}, act_order=True)
    scale, _ = grid(w, 4, True)
    assert "dead 1" in got["said"]
    assert torch.equal(got["codes"][:, 7].double(), (w[:, 7] / scale).round().clamp(-8, 7))


@pytest.mark.parametrize("name", MODELS)
def test_scaling_leaves_every_family_the_function_it_was(name, tool, tmp_path):
    save_model(name, tmp_path)
    done = subprocess.run([tool("rescale_blocks"), tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        block, groups, changed, statistics = line.split()
        assert int(groups) >= 1 or name.startswith("opt-350m"), line
        assert float(changed) < 1e-4, line
        assert float(statistics) < 1e-4, line
