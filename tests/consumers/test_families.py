"""Families beside Llama in the engines: fused and biased matrices, experts, tied and untied heads, Gemma's norms.

Small random models with the demo's tokenizer and loud logits, so that a mistake in a single matrix shows. What an engine computes of an
export is the run's perplexity; what it does not load, or loads as something else, is refused before it is written.
"""
import shutil

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import engines
import model_zoo
from conftest import DEMO
from mistakes import nibbles_swapped, zeros_off_by_one
from test_exported import CT, ENGINES, SCHEMES, TEXT, Row, Workbench, require_seen, weights
from reports import perplexities

SEQ_LEN, WINDOWS = 128, 4
SIZES = dict(vocab_size=1024, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
             pad_token_id=None, bos_token_id=0, eos_token_id=0)
GEMMA = SIZES | dict(head_dim=32, query_pre_attn_scalar=32, sliding_window=256)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64)
MODELS = {
    "qwen2": (hf.Qwen2ForCausalLM, hf.Qwen2Config, SIZES),  # biases
    "qwen2-tied": (hf.Qwen2ForCausalLM, hf.Qwen2Config, SIZES | dict(tie_word_embeddings=True)),
    "phi3": (hf.Phi3ForCausalLM, hf.Phi3Config, SIZES),     # q, k and v in one matrix, gate and up in another
    "gpt-neox": (hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, {k: v for k, v in SIZES.items() if k != "num_key_value_heads"}),
    "gemma2": (hf.Gemma2ForCausalLM, hf.Gemma2Config, GEMMA),
    "mixtral": (hf.MixtralForCausalLM, hf.MixtralConfig, SIZES | dict(num_local_experts=4, num_experts_per_tok=2)),
    "qwen2-moe": (hf.Qwen2MoeForCausalLM, hf.Qwen2MoeConfig, SIZES | EXPERTS | dict(shared_expert_intermediate_size=128)),
    "qwen3-moe": (hf.Qwen3MoeForCausalLM, hf.Qwen3MoeConfig, SIZES | EXPERTS | dict(head_dim=32, norm_topk_prob=True)),
}


def save_model(name, folder):
    model_class, config_class, arguments = MODELS[name]
    torch.manual_seed(1)
    model = model_zoo.perturb(model_class._from_config(config_class(**arguments)).float().eval())
    if not model.config.tie_word_embeddings:
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(6)
    model.to(torch.bfloat16).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / file, folder)


@pytest.fixture(scope="module")
def bench(tool, tmp_path_factory):
    made = {}

    def get(family):
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            save_model(family, folder / "model")
            made[family] = Workbench(tool("qbench"), folder, folder / "model", DEMO / "calibration.txt", TEXT, SEQ_LEN, WINDOWS)
        return made[family]
    return get


def rows(families, format, scheme, reader, **more):
    return [(family, Row(format, scheme, reader, **more)) for family in families]


FLOAT_EXPERTS = "w4-g32-float-experts"
SCHEMES[FLOAT_EXPERTS] = weights("int4", 32, more='  overrides:\n    - {match: "*.experts.*", weights: float}\n')
SCHEMES["w4-asym-g32"] = weights("int4", 32, False)
HEAD = "w4-g32-head"
SCHEMES[HEAD] = weights("int4", 32, more="  head: {type: int4, granularity: group, group_size: 32, scale_type: float16}\n  head_rounding: gptq\n")
BFLOAT16 = dict(dtype="bfloat16", measured_in="bfloat16", within=1e-2)  # vLLM has no Gemma 2 in float16; its logits are rounded to 8 bits
TAKEN = [
    *rows(["qwen2", "qwen2-tied", "phi3"], "gptq", "w4-g32", "vllm"), *rows(["phi3"], "awq", "w4-asym-g32", "vllm"), *rows(["phi3"], CT, "w4-g32", "vllm"),
    *rows(["gemma2"], "gptq", "w4-g32", "vllm", **BFLOAT16), *rows(["qwen2-moe"], CT, FLOAT_EXPERTS, "vllm"),
    *rows(["qwen2"], CT, HEAD, "vllm"), *rows(["qwen2"], CT, HEAD, "transformers"), *rows(["qwen2"], "gptq", HEAD, "vllm"), *rows(["qwen2"], "gptq", HEAD, "gptqmodel"),
    *rows(["qwen2", "gemma2", "qwen2-moe", "qwen3-moe"], "gptq", "w4-g32", "gptqmodel"), *rows(["qwen2", "phi3", "qwen2-moe"], "awq", "w4-asym-g32", "gptqmodel"),
]
REFUSED = [  # what the table of engines says of it
    *((*row, "experts in codes") for row in (*rows(["qwen2-moe"], "gptq", "w4-g32", "vllm"), *rows(["qwen2-moe"], "awq", "w4-asym-g32", "vllm"), *rows(["mixtral"], CT, "w4-g32", "vllm"))),
    *((*row, "gate_up_proj") for row in rows(["phi3"], "gptq", "w4-g32", "gptqmodel")), *((*row, "embed_out") for row in rows(["gpt-neox"], "gptq", "w4-g32", "gptqmodel")),
    *((*row, "names of its own") for row in (*rows(["mixtral"], "gptq", "w4-g32", "gptqmodel"), *rows(["mixtral"], "awq", "w4-asym-g32", "gptqmodel"))),
]


def name_of(value):
    return str(value)


@pytest.mark.parametrize("family, row", TAKEN, ids=name_of)
def test_an_engine_computes_the_run(consumer, bench, family, row):
    reader, model = consumer(row.reader), bench(family)
    exported, expected = model.export(row)
    _, report = model.run(row.scheme, row.pipeline, row.measured_in)
    unrounded = next(p["perplexity"] for p in perplexities(report) if p["float_model"])
    assert expected != pytest.approx(unrounded, rel=2 * row.tolerance), "the codes do not show"
    assert model.read(reader, row, exported) == pytest.approx(expected, rel=row.tolerance)
    model.call("export", model.run(row.scheme, row.pipeline, row.measured_in)[0], "--format", row.format, "--engine", ENGINES.get(row.reader, row.reader), "--check", "-o", model.folder / "unwritten")


@pytest.mark.parametrize("family, row, words", REFUSED, ids=name_of)
def test_what_an_engine_cannot_read_of_a_family_is_refused_before(consumer, bench, family, row, words):
    reader, model = consumer(row.reader), bench(family)
    exported, expected = model.export(row)
    try:
        assert model.read(reader, row, exported) != pytest.approx(expected, rel=0.1), "it can: the rule is none"
    except engines.Refused:
        pass
    run, _ = model.run(row.scheme, row.pipeline, row.measured_in)
    done = model.call("export", run, "--format", row.format, "--engine", ENGINES.get(row.reader, row.reader), "-o", model.folder / "refused", code=4)
    assert words in done.stderr and not (model.folder / "refused").exists()


# Mistakes in one expert, in one bias, in the order of a fused matrix's parts.
def tensor(name, change):
    def mutate(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors[name] = change(tensors[name].clone()).contiguous()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return mutate


def parts_swapped(words):
    """Keys where values are: output features lie along columns."""
    q, k, v = words.split([128, 64, 64], dim=1)
    return torch.cat([q, v, k], 1)


MISTAKES = {
    "nibbles of an expert": ("qwen3-moe", "gptqmodel", tensor("model.layers.1.mlp.experts.2.down_proj.qweight", nibbles_swapped)),
    "zero points of an expert": ("qwen3-moe", "gptqmodel", tensor("model.layers.1.mlp.experts.2.up_proj.qzeros", zeros_off_by_one)),
    "a bias": ("qwen2", "gptqmodel", tensor("model.layers.1.self_attn.v_proj.bias", lambda bias: bias.flip(0))),
    "order of a fused matrix": ("phi3", "vllm", tensor("model.layers.1.self_attn.qkv_proj.qweight", parts_swapped)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_seen(consumer, bench, tmp_path, mistake):
    family, engine, mutate = MISTAKES[mistake]
    require_seen(consumer(engine), bench(family), Row("gptq", "w4-g32", engine), mutate, tmp_path / "wrong")
