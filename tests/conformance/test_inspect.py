"""What `qbench inspect --tensor` tells of a tensor, against numpy in float64 and gguf-py's own decoding; what the list of tensors holds."""
import json

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import gguf_zoo
import model_zoo
from test_cli import DEMO, one_line, qbench  # noqa: F401


def told(qbench, model, tensor):  # noqa: F811
    return json.loads(qbench("inspect", model, "--tensor", tensor, "--json").stdout)


def assert_told(summary, values):
    """values: as stored, float64."""
    finite = values[np.isfinite(values)]
    mean, deviation = finite.mean(), finite.std()
    assert summary["shape"] == list(values.shape) and summary["values"] == values.size and summary["not_finite"] == values.size - finite.size
    assert summary["mean"] == pytest.approx(mean, rel=1e-6, abs=1e-6 * deviation) and summary["deviation"] == pytest.approx(deviation, rel=1e-6)
    assert summary["abs_max"] == pytest.approx(np.abs(finite).max(), rel=1e-7)
    assert summary["kurtosis"] == pytest.approx((((finite - mean) / deviation) ** 4).mean(), rel=1e-5)
    far = summary["outliers"]["deviations"]
    assert far == 6 and summary["outliers"]["share"] == pytest.approx((np.abs(finite - mean) > far * deviation).mean(), abs=1e-12)
    histogram = summary["histogram"]
    assert sum(histogram["counts"]) + histogram["below"] + histogram["above"] == finite.size
    counts, _ = np.histogram(finite, bins=len(histogram["counts"]), range=(histogram["low"], histogram["high"]))
    assert np.abs(np.cumsum(counts) - np.cumsum(histogram["counts"])).max() <= 2  # a value on an edge may fall to either side
    # Channels: of a vector one value each; of more axes all but the first are columns.
    matrix = np.where(np.isfinite(values), np.abs(values), np.nan).reshape(1 if values.ndim < 2 else values.shape[0], -1)
    for axis, name in ((0, "columns"), (1, "rows")):
        if name == "rows" and matrix.shape[0] == 1:
            assert summary[name]["abs_max"] == []
            continue
        np.testing.assert_allclose(summary[name]["mean_abs"], np.nanmean(matrix, axis), rtol=1e-6)
        np.testing.assert_allclose(summary[name]["abs_max"], np.nanmax(matrix, axis), rtol=1e-6)


NAMES = ["model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.weight", "model.layers.2.mlp.down_proj.weight", "model.layers.0.input_layernorm.weight", "model.norm.weight"]


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_of_the_demo_model(qbench, name):  # noqa: F811
    with safe_open(DEMO / "model.safetensors", "pt") as file:
        assert_told(told(qbench, DEMO, name), file.get_tensor(name).double().numpy())


def test_outliers_and_values_that_are_no_numbers(qbench, tmp_path):  # noqa: F811
    model_zoo.save_model("llama", tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    weight = tensors[name].float().clone()
    weight[3, 5], weight[2, 1], weight[4, 4] = 50, -40, float("nan")
    tensors[name] = weight
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    summary = told(qbench, tmp_path / "model", name)
    assert_told(summary, weight.double().numpy())
    assert summary["outliers"]["share"] > 0 and summary["not_finite"] == 1
    assert int(np.argmax(summary["columns"]["abs_max"])) == 5 and int(np.argmax(summary["rows"]["abs_max"])) == 3


@pytest.mark.parametrize("kind", [gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0])
def test_a_gguf_file_is_read_as_what_its_codes_stand_for(qbench, tmp_path, kind):  # noqa: F811
    """Queries and keys lie in another order there; the embedding is decoded by rows."""
    torch.manual_seed(5)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2))
    gguf_zoo.write("llama", model, tmp_path / "model.gguf", quantize=kind)
    stored = {t.name: t for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    for name, theirs in (("model.embed_tokens.weight", "token_embd.weight"), ("model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight")):
        values = gguf.dequantize(stored[theirs].data, stored[theirs].tensor_type).astype(np.float64)
        summary = told(qbench, tmp_path / "model.gguf", name)
        assert_told(summary, values)
        assert summary["dtype"] == kind.name
    q = model.state_dict()["model.layers.0.self_attn.q_proj.weight"]
    expected = gguf.dequantize(stored["blk.0.attn_q.weight"].data, stored["blk.0.attn_q.weight"].tensor_type)
    heads = model.config.num_attention_heads
    unpermuted = expected.reshape(heads, q.shape[0] // heads // 2, 2, q.shape[1]).swapaxes(1, 2).reshape(q.shape)
    assert_told(told(qbench, tmp_path / "model.gguf", "model.layers.0.self_attn.q_proj.weight"), unpermuted.astype(np.float64))


def test_every_tensor_of_a_file_is_listed(qbench, tmp_path):  # noqa: F811
    """Embeddings, norms, routers and the head beside the linears; biases of linears belong to their matrices."""
    for kind in ("llama", "llama-tied-biased", "mixtral", "gemma2-plain", "opt", "opt-350m", "starcoder2"):
        model_zoo.save_model(kind, tmp_path / kind)
        info = json.loads(qbench("inspect", tmp_path / kind, "--json").stdout)
        linears = [x["tensor"] for b in info["blocks"] for x in b["linears"]]
        others = [x for part in (info["before"], *(b["others"] for b in info["blocks"]), info["after"]) for x in part]
        listed = linears + [x["tensor"] for x in others if not x["tied"]]
        assert len(set(listed)) == len(listed)
        parameters = sum(np.prod(x["shape"]) for x in others if not x["tied"]) + sum(np.prod(x["shape"]) for b in info["blocks"] for x in b["linears"])
        with safe_open(tmp_path / kind / "model.safetensors", "pt") as file:
            sizes = {name: int(np.prod(file.get_slice(name).get_shape())) for name in file.keys()}
        biases = sum(n for name, n in sizes.items() if name.endswith(".bias") and name not in {x["tensor"] for x in others})
        assert parameters + biases == sum(sizes.values()), kind
        kinds = [x["kind"] for x in info["before"]], [x["kind"] for x in info["after"]]
        assert kinds[0][0] == "embedding" and kinds[1][-1] == "head" and ("norm" in kinds[1]) == (kind != "opt-350m"), kinds
        head = info["after"][-1]
        assert head["tied"] == info["tied_embeddings"] and (not head["tied"] or (head["tensor"], head["bytes"]) == (info["before"][0]["tensor"], 0))


def test_what_cannot_be_read_is_one_error(qbench, tmp_path):  # noqa: F811
    one_line(qbench("inspect", DEMO, "--tensor", "model.layers.9.none.weight", code=4), "model.layers.9.none.weight")
    model_zoo.save_model("llama", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    one_line(qbench("inspect", tmp_path / "model", "--tensor", "model.norm.weight", "--json", code=4), weights)
