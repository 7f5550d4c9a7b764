"""What `qbench speed` counts of a model: operations as torch's own counter finds them in transformers, bytes as transformers keeps them."""
import json
import subprocess

import pytest
import torch
import zoos
from torch.utils.flop_counter import FlopCounterMode

COMPUTING = "memory_gb: 1e6\nbandwidth_gb_s: 1e9\ncompute_tflops: {float32: 1e-6}\n"  # a million operations a second
MOVING = "memory_gb: 1e6\nbandwidth_gb_s: 1e-6\ncompute_tflops: {float32: 1e9}\n"  # a thousand bytes a second


@pytest.fixture(scope="module")
def speed(tool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hardware")
    (folder / "computing.yaml").write_text(COMPUTING)
    (folder / "moving.yaml").write_text(MOVING)

    def predict(what, hardware, context, *arguments):
        done = subprocess.run([tool("qbench"), "speed", what, "-H", folder / f"{hardware}.yaml", "-c", str(context), "--json", *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    return predict


def outside_of_blocks(model):
    """Bytes in 16 bits that are read for a token: the head; and that are not: an embedding of its own."""
    head = model.get_output_embeddings().weight
    embedding = model.get_input_embeddings().weight
    return 2 * head.numel(), 0 if head.data_ptr() == embedding.data_ptr() else 2 * embedding.numel()


def linear_weights(model):
    """Of all matrices inside of blocks but routers: elements."""
    return sum(p.numel() for name, p in model.named_parameters() if p.ndim >= 2 and ".layers." in name and not name.endswith("gate.weight"))


@pytest.mark.parametrize("name", ["llama", "llama-tied-biased", "qwen3", "gemma2", "phi3", "stablelm", "olmo3"])
def test_operations_are_those_of_torchs_counter(name, speed, tmp_path):
    model = zoos.save_model(name, tmp_path)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, dtype=torch.long), use_cache=False)
    angles = sum(sum(counts.values()) for module, counts in counter.get_flop_counts().items() if module.endswith("rotary_emb"))  # transformers makes them by a product
    found, = speed(tmp_path, "computing", 1)
    assert found["predicted_seconds_to_first_token"] * 1e6 == pytest.approx(counter.get_total_flops() - angles, rel=1e-9)
    assert found["prefill_bound_by"] == "compute"


@pytest.mark.parametrize("name", ["llama", "llama-tied-biased", "gemma2", "mixtral", "qwen2-moe"])
@pytest.mark.parametrize("context", [10, 60])
def test_bytes_are_those_that_transformers_keeps(name, context, speed, tmp_path):
    model = zoos.save_model(name, tmp_path)
    read, held = outside_of_blocks(model)
    weights = 2 * linear_weights(model) + read
    with torch.no_grad():
        cache = model(torch.zeros(1, context, dtype=torch.long), use_cache=True).past_key_values
    # transformers' sliding layers keep the window without the token that comes next.
    kept = sum(2 * 2 * layer.keys.numel() + (2 * 2 * layer.keys[..., 0, :].numel() if layer.keys.shape[-2] < context else 0) for layer in cache.layers)
    found, = speed(tmp_path, "moving", context)
    assert found["cache_bytes"] == kept
    assert found["weight_bytes"] == weights + held
    if name in ("mixtral", "qwen2-moe"):
        experts = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n) * 2
        weights -= experts / 2  # two of four are read
    assert 1e3 / found["predicted_decode_tokens_per_second"] == pytest.approx(weights + kept, rel=1e-6)


def test_a_scheme_and_its_run_weigh_what_is_stored(speed, tool, tmp_path):
    from conftest import DEMO
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: four\nmodel: {DEMO}\nscheme:\n  weights: {{type: int4, symmetric: false, granularity: group, group_size: 64}}\n"
                    "  activations: {type: int8, granularity: token}\n  kv_cache: {type: int8}\npipeline: [rtn]\n")
    # 4 blocks of 256 · (256 + 2 · 128 + 256) + 3 · 256 · 256 weights at 4 + 20/64 bits; embedding and head are one matrix of 1024 rows.
    linears = 4 * (256 * (256 + 2 * 128 + 256) + 3 * 256 * 256)
    expected = linears * (4 + (16 + 4) / 64) / 8 + 1024 * 256 * 2
    planned, = speed(path, "moving", 100)
    assert planned["weight_bytes"] == pytest.approx(expected)
    assert planned["cache_bytes"] == pytest.approx(100 * 4 * 2 * (128 + 2 * 4))  # int8, and a float32 scale for each of two heads
    done = subprocess.run([tool("qbench"), "run", path, "-w", tmp_path / "w", "-q", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ran, = speed("four", "moving", 100, "-w", tmp_path / "w")
    assert ran["weight_bytes"] == pytest.approx(expected) and ran["cache_bytes"] == planned["cache_bytes"]
    # A profile that multiplies int8 faster gains in prefill by as much as the head, in 16 bits, allows.
    fast = tmp_path / "fast.yaml"
    fast.write_text(COMPUTING.replace("float32: 1e-6", "float32: 1e-6, int8: 4e-6"))
    done = subprocess.run([tool("qbench"), "speed", path, "-H", fast, "-c", "1", "--json"], capture_output=True, text=True)
    found, = json.loads(done.stdout)
    assert found["predicted_seconds_to_first_token"] * 1e6 == pytest.approx(2 * linears / 4 + 2 * 1024 * 256 + 4 * 2 * (256 + 256))


def test_unknown_names_tell_the_nearest(tool):
    done = subprocess.run([tool("qbench"), "speed", "x", "-H", "h10-sxm"], capture_output=True, text=True)
    assert done.returncode == 4 and "h100-sxm" in done.stderr
    done = subprocess.run([tool("qbench"), "speed", "--json"], capture_output=True, text=True)
    assert {"a100-sxm-80gb", "h200-sxm", "rtx-4090"} <= {h["name"] for h in json.loads(done.stdout)}
