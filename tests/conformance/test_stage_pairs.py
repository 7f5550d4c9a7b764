"""Any stage after any stage: every pair of methods, and the paper's triples, on a small mixture of experts that has what breaks
methods: a channel of outliers, inputs that are always zero, rows of zeros, an expert that no token reaches. What a run stores is
read here anew and computed with in float64; the float model is transformers'."""
import itertools
import json
import os
import random
import subprocess

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import save_file

GROUP, SAMPLES, LENGTH, UNREACHED = 32, 8, 32, 3
CONFIG = dict(vocab_size=96, hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
              max_position_embeddings=64, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32,
              mlp_only_layers=[1, 2], pad_token_id=None, bos_token_id=None, eos_token_id=None)

# Few steps and small searches: what is tested is what stages leave each other, not how good they are.
MODEL = {"quarot": "quarot", "quarot online": "{method: quarot, online_down: true, online_heads: true}", "shortgpt": "shortgpt"}
SCALING = {"smoothquant": "smoothquant", "smoothquant linears": "{method: smoothquant, linears: true}", "os_plus": "{method: os_plus, steps: 10}",
           "awq": "{method: awq, grid: 8}", "awq module": "{method: awq, grid: 3, objective: module, samples: 2}"}
CLIPPING = {"clip": "{method: clip, queries: true}", "clip asymmetric": "{method: clip, n_grid: 10, clip_sym: asymmetric, independent: true}"}
PRUNING = {"magnitude": "magnitude", "wanda": "{method: wanda, pattern: '2:4'}"}
ROUNDING = {"rtn": "rtn", "hqq": "hqq", "gptq": "gptq", "gptq groups in turn": "{method: gptq, static_groups: false, sweeps: 1}",
            "owq": "{method: owq, share: 0.1}", "quik": "{method: quik, columns: 6}", "spqr": "spqr", "adadim": "adadim",
            "dgq": "{method: dgq, channel_steps: 4, group_steps: 5}", "omniquant": "{method: omniquant, epochs: 1, batch_size: 4, lwc_lr: 0.001}",
            "omniquant let": "{method: omniquant, epochs: 1, batch_size: 4, lwc_lr: 0.001, let: true, let_lr: 0.001}",
            "tesseraq": "{method: tesseraq, iterations: 2, rounds: 2}", "autoround": "{method: autoround, iters: 3, batch_size: 4, lr: 0.004}"}
LEARNING = {"norm_tweaking": "{method: norm_tweaking, epochs: 1, batch_size: 4}", "e2e_tuning": "{method: e2e_tuning, epochs: 1}"}
STAGES = MODEL | SCALING | CLIPPING | PRUNING | ROUNDING | LEARNING
METHOD = {name: name.split()[0] for name in STAGES}


def refused(first, second):
    """Whether second cannot stand behind first."""
    if second in MODEL:
        return first not in MODEL or (METHOD[first], METHOD[second]) == ("quarot", "quarot")
    if first in ROUNDING | LEARNING:
        return second not in LEARNING or first == "e2e_tuning" or (METHOD[first] in ("spqr", "dgq") and second == "e2e_tuning")
    return first in CLIPPING and second in SCALING | CLIPPING


# All methods before and behind all, each as it is by default or nearly; a sample of what other settings add, and of the paper's
# triples. What scales channels meets what is rotated at run time in every way.
PAIRS = list(itertools.product(STAGES, STAGES))
LEGAL = [pair for pair in PAIRS if not refused(*pair)]
ALWAYS = [pair for pair in LEGAL if all(name == METHOD[name] for name in pair) or (pair[0] == "quarot online" and pair[1] in SCALING)]
pick = random.Random(14).sample
TRIPLES = pick(list(itertools.product(SCALING | {"quarot online": ""}, CLIPPING, ROUNDING)), 16)
SPARSE = pick([*itertools.product(SCALING, PRUNING, ROUNDING), *itertools.product(PRUNING, CLIPPING, ROUNDING), *itertools.product(CLIPPING, PRUNING, ROUNDING)], 12)
LONG = [("quarot online", "smoothquant", "awq", "clip", "wanda", "gptq", "norm_tweaking", "e2e_tuning"), ("shortgpt", "quarot online", "awq", "clip", "spqr", "norm_tweaking"),
        ("smoothquant", "awq", "magnitude", "clip", "hqq", "e2e_tuning")]


class Small:
    """The model in a folder, and what transformers makes of it."""

    def __init__(self, folder, sparse):
        torch.manual_seed(3)
        self.folder, self.sparse = folder, sparse
        self.model = hf.Qwen2MoeForCausalLM._from_config(hf.Qwen2MoeConfig(**CONFIG), attn_implementation="eager").float().eval()
        with torch.no_grad():
            for key, value in self.model.named_parameters():
                value.copy_(value + 0.2 * torch.randn_like(value)) if value.dim() == 1 else value.normal_(0, 1 if "embed" in key else 0.7 / value.shape[-1] ** 0.5)
            self.model.model.embed_tokens.weight[:, 0] = 8  # one channel of outliers, in every token
            for layer in self.model.model.layers:
                layer.input_layernorm.weight[5] = layer.post_attention_layernorm.weight[7] = 0  # inputs that are always zero
                layer.self_attn.q_proj.weight[3] = layer.self_attn.v_proj.weight[4] = 0
                layer.self_attn.v_proj.bias[4] = 0
                if hasattr(layer.mlp, "experts"):
                    layer.mlp.gate.weight[:, 0] = 0
                    layer.mlp.gate.weight[UNREACHED, 0] = -8
                    layer.mlp.experts.gate_up_proj[1, 40] = 0
                    layer.mlp.shared_expert.up_proj.weight[2] = 0
                else:
                    layer.mlp.up_proj.weight[2] = 0
                if sparse:  # 2:4 already: pruning it again changes nothing
                    for key, value in layer.named_parameters():
                        if value.dim() >= 2 and "gate.weight" not in key:
                            fours = value.view(-1, 4)
                            fours.scatter_(1, fours.abs().argsort(1)[:, :2], 0)
        self.model.save_pretrained(folder)
        self.ids = torch.randint(0, 96, (SAMPLES, LENGTH), generator=torch.Generator().manual_seed(1))
        save_file({"ids": self.ids}, folder / "ids.safetensors")
        self.tensors = load_file(folder / "model.safetensors")
        self.layers, self.known = list(self.model.model.layers), {}

    def run(self, kept=(0, 1, 2)):
        """Logits and the outputs of the blocks, with these blocks only."""
        if kept not in self.known:
            outputs = []
            self.model.model.layers = torch.nn.ModuleList([self.layers[i] for i in kept])
            hooks = [layer.register_forward_hook(lambda m, i, o: outputs.append((o[0] if isinstance(o, tuple) else o).reshape(-1, 64).double().numpy())) for layer in self.model.model.layers]
            with torch.no_grad():
                logits = self.model(self.ids, use_cache=False).logits.double().numpy()
            for hook in hooks:
                hook.remove()
            self.known[kept] = logits, outputs
        return self.known[kept]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {sparse: Small(tmp_path_factory.mktemp("sparse" if sparse else "dense"), sparse) for sparse in (False, True)}


@pytest.fixture(scope="module")
def ask(tool):
    process = subprocess.Popen([tool("stage_pairs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})

    def one(recipe, ids, folder):
        process.stdin.write(json.dumps({"recipe": recipe, "ids": str(ids), "folder": str(folder)}) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())
    yield one
    process.stdin.close()
    assert process.wait() == 0


def recipe_of(pipeline, model, bits=8, extra=""):
    return f"""name: pair
model: {{path: '{model.folder}', dtype: float32}}
calibration: {{corpus: ids}}
scheme:
  weights: {{type: int{bits}, symmetric: false, granularity: group, group_size: {GROUP}{extra}}}
pipeline: [{', '.join(STAGES[name] for name in pipeline)}]
"""


class Stored:
    """A rounded weight as a block file has it."""

    def __init__(self, file, name, described):
        part = lambda what: file.get(f"{name}.{what}")
        spec, (self.out, self.inputs) = described[name]["weights"], described[name]["shape"]
        self.bits, group, rows = int(spec["type"].removeprefix("int")), spec.get("group_size"), spec.get("block_rows")
        self.scale, self.zero = part("scale").astype(np.float64), part("zero").astype(np.float64)
        stream = np.unpackbits(part("codes"), bitorder="little")[:self.out * self.inputs * self.bits].reshape(-1, self.bits)
        self.codes = (stream @ (1 << np.arange(self.bits))).reshape(self.out, self.inputs) - (1 << (self.bits - 1))
        self.along_outputs = spec["granularity"] == "block"
        assert spec["granularity"] in ("group", "block") and (not self.along_outputs or spec["block_cols"] == 1)
        self.whole = (lambda grid: grid.repeat(rows, 0)[:self.out]) if self.along_outputs else (lambda grid: grid.repeat(group, 1))
        self.columns, self.outliers = part("columns"), part("outliers")
        self.value = (self.codes - self.whole(self.zero)) * self.whole(self.scale)
        if self.columns is not None:
            self.value[:, self.columns] = part("column_values")
        if self.outliers is not None:
            self.value.reshape(-1)[self.outliers] = part("outlier_values")

    def bits_a_weight(self, method):
        """Counted anew: codes, scales of 16 bits, zero points as codes where they are codes, and what is kept apart."""
        codes_only = np.array_equal(self.zero, np.rint(self.zero))
        total = self.codes.size * self.bits
        if method == "dgq":  # a byte a group inside a float16 a row
            total += 8 * self.scale.size + 16 * self.out + self.bits * self.zero.size
        elif method == "spqr":  # 3 bits, and two float16 for 16 rows of them
            second = 3 * self.scale.size + 32 * self.scale.size / 16
            total += second + (self.bits * self.zero.size if codes_only else second)
        else:
            total += 16 * self.scale.size + (self.bits if codes_only else 16) * self.zero.size
        if self.columns is not None:
            total += self.columns.size * (self.out * (16 - self.bits) + 32)
        if self.outliers is not None:
            total += 32 * self.outliers.size + 32 * self.out
        return total / self.codes.size


def within(report, expected):
    return report == pytest.approx(expected, rel=2e-3, abs=1e-12)


def check_errors(linear, stored, work, name):
    """The report against what is stored, in the float model's coordinates."""
    of = lambda what: work[f"{name}.{what}"].astype(np.float64) if f"{name}.{what}" in work else 1.0
    original, ins, outs = of("original"), of("input_scale"), np.reshape(of("output_scale"), (-1, 1))
    error = stored.value / ins * outs - original
    assert within(linear["weight_mse"], np.mean(error ** 2)), name
    assert within(linear["weight_max_error"], np.abs(error).max()), name
    assert within(linear["weight_sqnr_db"], 10 * np.log10((original ** 2).sum() / (error ** 2).sum())), name
    rows = of("rows")
    if not isinstance(rows, np.ndarray) or len(rows) == 0:
        assert f".experts.{UNREACHED}." in name and linear["output_relative_error"] is None
        return
    expected, got = (rows @ (w).T * outs.T for w in (original * ins / outs, stored.value))
    noise, signal = ((got - expected) ** 2).sum(), (expected ** 2).sum()
    assert within(linear["output_relative_error"], np.sqrt(noise / signal)), name
    assert within(linear["output_sqnr_db"], 10 * np.log10(signal / noise)), name
    cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    assert within(linear["output_cosine"], cosine.mean()), name


def check_range(method, stored, work, name):
    """What a clip chose is what the codes span, or less; how much it cut off."""
    low, high = np.minimum(work[f"{name}.low"], 0).astype(np.float64), np.maximum(work[f"{name}.high"], 0).astype(np.float64)
    weight, steps = work[f"{name}.weight"].astype(np.float64), 2 ** stored.bits - 1
    groups = weight.reshape(stored.out, -1, GROUP)
    all_low, all_high = np.minimum(groups.min(2), 0), np.maximum(groups.max(2), 0)
    cut = 1 - (np.minimum(high, all_high) - np.maximum(low, all_low)).sum() / (all_high - all_low).sum()
    width = high - low
    if stored.along_outputs:  # each weight was clipped before
        spread = stored.whole(stored.scale)
        assert np.all(stored.value <= high.repeat(GROUP, 1) + spread) and np.all(stored.value >= low.repeat(GROUP, 1) - spread), name
        return cut
    spans = stored.scale * steps
    lowest, highest = (-(1 << (stored.bits - 1)) - stored.zero) * stored.scale, ((1 << (stored.bits - 1)) - 1 - stored.zero) * stored.scale
    live = width > 0
    if method in ("rtn", "gptq", "owq", "quik"):
        slack = 0.51 * stored.scale + 1e-3 * width
        assert np.all((np.abs(lowest - low) <= slack)[live]) and np.all((np.abs(highest - high) <= slack)[live]), name
    elif method == "hqq":  # moves the zero point, keeps the scale
        assert np.allclose(spans[live], width[live], rtol=2e-3), name
    elif method == "dgq":  # whole multiples of a row's scale, which is at most a 127th of its largest weight
        unit = np.abs(weight).max(1, keepdims=True) / 127
        assert np.all(stored.scale[live.any(1)] <= np.maximum(width / steps + unit / 2, unit)[live.any(1)] * 1.002), name
    elif method == "spqr":  # statistics of few bits leave room in some groups, for the zero point's rounding too, and cut others
        assert spans[live].sum() <= 1.15 * width[live].sum(), name
    else:  # learning goes on from there
        assert np.abs(spans - width)[live].mean() < 0.05 * width[live].mean(), name
    return cut


def examine(answer, pipeline, model, folder, bits=8):
    assert "blocks" in answer, answer
    methods = [METHOD[name] for name in pipeline]
    rounding = next((m for m in methods if m in {METHOD[r] for r in ROUNDING}), "rtn")
    work, kept, pruned, cuts = load_file(folder / "work.safetensors"), tuple(range(3)), "magnitude" in methods or "wanda" in methods, []
    for i, method in enumerate(methods):
        if method == "shortgpt":
            kept = tuple(kept[int(k)] for k in (folder / f"plan-{i}-shortgpt.txt").read_text().split())
    logits, outputs = model.run(kept)
    assert len(answer["blocks"]) == len(kept)
    for index, block in enumerate(answer["blocks"]):
        path = folder / "blocks" / f"block-{index:04d}.safetensors"
        file = load_file(path)
        with safe_open(path, "numpy") as opened:
            described = json.loads(opened.metadata()["qbench"])["linears"]
        assert all(np.isfinite(t).all() for t in file.values())
        for linear in block["linears"]:
            name = f"model.layers.{index}.{linear['name']}.weight"
            stored = Stored(file, name, described)
            if "quarot" not in methods:
                assert np.array_equal(work[f"{name}.original"], model.tensors[f"model.layers.{kept[index]}.{linear['name']}.weight"]), name
            zeros = work.get(f"{name}.kept")
            assert (zeros is not None) == pruned
            if pruned:
                assert zeros.mean() <= 0.51 and ("wanda" not in methods or zeros.reshape(-1, 4).sum(1).max() <= 2), name
                assert np.all(stored.value[zeros == 0] == 0), f"{name}: {np.mean(stored.value[zeros == 0] != 0):.2%} of what was pruned came back"
            to_nearest = "nearest" in linear["note"]
            assert to_nearest == (f".experts.{UNREACHED}." in name and rounding in ("gptq", "owq", "quik", "spqr")), (name, linear["note"])
            assert within(linear["bits_per_weight"], stored.bits_a_weight("rtn" if to_nearest else rounding)), name
            check_errors(linear, stored, work, name)
            if f"{name}.low" in work:
                cuts.append(check_range("rtn" if to_nearest else rounding, stored, work, name))
        real, got = work[f"{index}.float_output"].astype(np.float64), work[f"{index}.quantized_output"].astype(np.float64)
        assert within(block["output_relative_error"], np.linalg.norm(got - real) / np.linalg.norm(real))
        if "quarot" not in methods:
            assert np.abs(real - outputs[index]).max() < 1e-4 * np.abs(outputs[index]).max()
    assert np.isfinite(work["logits"]).all()
    if "clip" in methods and bits == 3 and "omniquant let" not in pipeline:
        assert np.mean(cuts) > 0.05  # else its use could not be seen
    # Tokens whose two experts were nearly a third one may go there: the median does not see them.
    off = np.median(np.linalg.norm(work["logits"] - logits, axis=-1) / np.linalg.norm(logits, axis=-1))
    if bits == 8 and not (pruned and "quarot" in methods):
        assert off < 0.02, f"logits are {off:.3f} off"
    return off


def carry_out(pipeline, models, ask, folder, bits=8):
    """Pruning is seen on a model that pruning leaves as it is; a rotation fills its zeros."""
    model = models[any(name in PRUNING for name in pipeline) and not any(METHOD[name] == "quarot" for name in pipeline)]
    answer = ask(recipe_of(pipeline, model, bits), model.folder / "ids.safetensors", folder)
    return examine(answer, pipeline, model, folder, bits)


@pytest.mark.parametrize("pair", ALWAYS + pick([pair for pair in LEGAL if pair not in ALWAYS], 20), ids=" → ".join)
def test_a_legal_pair_keeps_the_function_and_says_what_it_did(pair, models, ask, tmp_path):
    carry_out(pair, models, ask, tmp_path)


@pytest.mark.parametrize("pipeline", TRIPLES + SPARSE + LONG, ids=" → ".join)
def test_longer_pipelines_too(pipeline, models, ask, tmp_path):
    carry_out(pipeline, models, ask, tmp_path)


@pytest.mark.parametrize("pipeline", [(clip, rounding) for clip, rounding in zip(itertools.cycle(CLIPPING), ROUNDING)], ids=" → ".join)
def test_what_a_clip_cuts_off_stays_cut_off(pipeline, models, ask, tmp_path):
    carry_out(pipeline, models, ask, tmp_path, bits=3)


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if refused(*pair)], ids=" → ".join)
def test_every_other_pair_is_refused_before_a_run_by_both_names(pair, models, ask, tmp_path):
    folder = tmp_path / "run"
    answer = ask(recipe_of(pair, models[False]), models[False].folder / "ids.safetensors", folder)
    assert all(METHOD[name] in answer["refused"] for name in pair), answer
    assert answer["refused"].count("\n") == 0 and not folder.exists()


@pytest.mark.parametrize("pruning", PRUNING)
def test_pruning_for_float_zero_points_is_refused(pruning, models, ask, tmp_path):
    model = models[False]
    answer = ask(recipe_of([pruning, "rtn"], model, extra=", round_zero_point: false"), model.folder / "ids.safetensors", tmp_path / "run")
    assert METHOD[pruning] in answer["refused"] and "round_zero_point" in answer["refused"]
