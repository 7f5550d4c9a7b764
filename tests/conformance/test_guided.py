"""Guided statistics beside transformers' autograd in float64, on models of random weights; and stages that use them."""
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from test_sensitivity import SAMPLES, SEED, SEQ_LEN, model, reference, tokens  # noqa: F401  (model is a fixture)


@pytest.fixture(scope="module")
def guidance(tool, tmp_path_factory):
    def run(folder, ids, groups, out=None):
        out = out or tmp_path_factory.mktemp("guidance")
        save_file({"ids": ids.contiguous()}, out / "ids.safetensors")
        done = subprocess.run([tool("model_guidance"), folder, out / "ids.safetensors", out / "found.safetensors", str(groups), str(SEED)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        left = sorted(p.name for p in (out / "found.safetensors.folder").iterdir())
        assert all(name.startswith("block-") for name in left), left
        return {name: tensor.clone() for name, tensor in load_file(out / "found.safetensors").items()}
    return run


def by_group(squares, groups):
    """Means over groups of columns [tokens, out] → [groups, tokens]: row o of a weight is in group ⌊o · groups / out⌋."""
    out = squares.shape[1]
    group = torch.arange(out) * groups // out
    return torch.stack([squares[:, group == g].mean(1) for g in range(groups)])


@pytest.mark.parametrize("groups", [1, 3])
def test_tokens_and_outputs_count_by_their_gradients(guidance, model, groups):  # noqa: F811
    found = guidance(model, tokens(model), groups)
    expected, _ = reference(model, "kl")
    assert len(expected) == 21
    for module, (x, g) in expected.items():
        weights = by_group(g**2, groups)
        weights = weights / weights.mean(1, keepdim=True)
        torch.testing.assert_close(found[module + ".tokens"].double(), weights, rtol=6e-3, atol=1e-4)  # stored as bfloat16
        torch.testing.assert_close(found[module + ".outputs"].double(), (g**2).mean(0), rtol=1e-3, atol=1e-12)
        grams = torch.stack([x.T @ (x * w.unsqueeze(1)) for w in weights])
        for ours, theirs in zip(found[module + ".grams"].double(), grams):
            assert (ours - theirs).norm() <= 4e-3 * theirs.norm(), module
            torch.testing.assert_close(ours, ours.T, rtol=0, atol=0)


def test_what_is_lost_or_damaged_is_made_again(guidance, model, tmp_path):  # noqa: F811
    first = guidance(model, tokens(model), 2, tmp_path)
    blocks = sorted((tmp_path / "found.safetensors.folder").iterdir())
    written = [b.read_bytes() for b in blocks]
    blocks[1].unlink()
    damaged = bytearray(written[0])
    damaged[-5] ^= 16
    blocks[0].write_bytes(damaged)
    again = guidance(model, tokens(model), 2, tmp_path)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert [b.read_bytes() for b in blocks] == written


def test_an_experts_tokens_are_those_routed_to_it(guidance, model, tmp_path):  # noqa: F811
    """Mixtral: the gradient by an expert's output is that by the layer's, times the token's weight for the expert."""
    from transformers import MixtralConfig, MixtralForCausalLM
    torch.manual_seed(3)
    made = MixtralForCausalLM(MixtralConfig(vocab_size=256, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, num_local_experts=4,
                                            num_experts_per_tok=2, max_position_embeddings=256, initializer_range=0.2, output_router_logits=False)).float()
    made.save_pretrained(tmp_path)
    ids = torch.randint(0, 256, (2, 40))
    found = guidance(tmp_path, ids, 1)

    net, outputs, chosen = MixtralForCausalLM.from_pretrained(tmp_path, dtype=torch.float64, experts_implementation="eager").eval(), {}, {}
    for i, layer in enumerate(net.model.layers):
        moe = layer.mlp if hasattr(layer, "mlp") else layer.block_sparse_moe

        def keep(_, given, result, i=i, moe=moe):
            result = result[0] if isinstance(result, tuple) else result
            result.retain_grad()
            outputs[i] = result
            p = torch.softmax(given[0].detach().reshape(-1, 32) @ moe.gate.weight.T, -1)
            top, which = p.topk(2, -1)
            chosen[i] = torch.zeros_like(p).scatter(1, which, top / top.sum(-1, keepdim=True))
        moe.register_forward_hook(keep)
    flat = net(ids).logits.reshape(-1, 256)
    random = torch.Generator().manual_seed(SEED)
    signs = torch.cat([torch.randint(0, 2, part.shape, generator=random, dtype=torch.float32) for part in flat.split(128)]).double() * 2 - 1
    p = torch.softmax(flat.detach(), -1)
    flat.backward(p.sqrt() * signs - p * (p.sqrt() * signs).sum(-1, keepdim=True))

    downs = [name[: -len(".tokens")] for name in found if name.endswith("w2.tokens") or name.endswith("down_proj.tokens")]
    assert len(downs) == 8
    for module in downs:
        layer, expert = int(module.split(".layers.")[1].split(".")[0]), int(module.split(".experts.")[1].split(".")[0])
        weight = chosen[layer][:, expert]
        came = (weight > 0).nonzero().flatten()
        assert sorted(found[module + ".rows"].tolist()) == came.tolist()
        squares = (outputs[layer].grad.reshape(-1, 32) * weight.unsqueeze(1)).square()
        token = found[module + ".tokens"][0].double()
        expected = squares.mean(1)[came]
        torch.testing.assert_close(token[came], expected / expected.mean(), rtol=6e-3, atol=1e-4)
        assert (token[weight == 0] == 1).all()
        torch.testing.assert_close(found[module + ".outputs"].double(), squares.mean(0), rtol=1e-3, atol=1e-12)
        x = found[module + ".inputs"].double()
        gram = x.T @ (x * token[found[module + ".rows"]].unsqueeze(1))
        assert (found[module + ".grams"][0].double() - gram).norm() <= 4e-3 * gram.norm()


def quantized(tool, folder, work, stages, propagate=False):
    """Dequantized weights of a run at 3 bits."""
    work.mkdir()
    (work / "recipe.yaml").write_text(f"""name: guided
model: {{path: '{folder}', dtype: float32}}
calibration: {{corpus: '{folder}/text.txt', sampling: sequential, samples: {SAMPLES}, seq_len: {SEQ_LEN}}}
scheme: {{weights: {{type: int3, symmetric: false, granularity: group, group_size: 32}}}}
pipeline: [{stages}]
seed: {SEED}
propagate_quantized: {str(propagate).lower()}
""")
    done = subprocess.run([tool("qbench"), "run", work / "recipe.yaml", "-w", work / "w", "--json", "-q"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = next((work / "w" / "runs").iterdir()).name
    done = subprocess.run([tool("qbench"), "export", run, "-w", work / "w", "--format", "dequantized", "-o", work / "out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return load_file(work / "out" / "model.safetensors")


def guided_error(folder, weights, expected, groups, columns=None):
    """Σ over outputs and tokens of squared gradient (by group, shaped by output) times squared error, by linear. columns: errors of so many inputs
    at a time, each by themselves."""
    original, errors = load_file(folder / "model.safetensors"), {}
    for module, (x, g) in expected.items():
        d = weights[module + ".weight"].double() - original[module + ".weight"].double()
        y = sum((a @ b.T) ** 2 for a, b in zip(x.split(columns or x.shape[1], 1), d.split(columns or x.shape[1], 1)))
        token, group = by_group(g**2, groups), torch.arange(d.shape[0]) * groups // d.shape[0]
        errors[module] = ((token / token.mean(1, keepdim=True))[group].T * y * (g**2).mean(0)).sum().item()
    return errors


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("stage", ["method: gptq", "method: gptq, sweeps: 2, static_groups: false, actorder: false", "method: gptq, true_sequential: true"])
def test_gptq_lowers_the_error_that_it_is_guided_by(tool, model, tmp_path, stage, groups):  # noqa: F811
    expected, _ = reference(model, "kl")
    plain = guided_error(model, quantized(tool, model, tmp_path / "plain", "{" + stage + "}"), expected, groups)
    guided = guided_error(model, quantized(tool, model, tmp_path / "guided", "{" + stage + f", statistics: guided, guided_groups: {groups}}}"), expected, groups)
    better = sum(guided[module] < plain[module] for module in plain)
    assert better >= 19, (better, len(plain))  # of 21: rounding column by column is greedy


@pytest.mark.parametrize("groups", [1, 3])
def test_clipping_finds_the_least_error_that_it_is_guided_by(tool, model, tmp_path, groups):  # noqa: F811
    """Each group of columns by itself, from the same candidates as without guidance."""
    expected, _ = reference(model, "kl")
    plain = guided_error(model, quantized(tool, model, tmp_path / "plain", "{method: clip, queries: true}"), expected, groups, 32)
    guided = guided_error(model, quantized(tool, model, tmp_path / "guided", f"{{method: clip, queries: true, statistics: guided, guided_groups: {groups}}}"), expected, groups, 32)
    assert all(guided[module] <= 1.001 * plain[module] for module in plain)
    assert sum(guided.values()) < 0.99 * sum(plain.values())


def test_guided_stages_want_gram_matrices(tool, model, tmp_path):  # noqa: F811
    (tmp_path / "recipe.yaml").write_text(f"""model: {{path: '{model}'}}
calibration: {{corpus: '{model}/text.txt', samples: 2, seq_len: 32}}
scheme: {{weights: {{type: int4, granularity: group, group_size: 32}}}}
pipeline: [{{method: awq, objective: module, statistics: guided}}]
""")
    done = subprocess.run([tool("qbench"), "run", tmp_path / "recipe.yaml", "-w", tmp_path / "w"], capture_output=True, text=True)
    assert done.returncode == 3 and "awq.statistics" in done.stderr and "objective: gram" in done.stderr, done.stderr
