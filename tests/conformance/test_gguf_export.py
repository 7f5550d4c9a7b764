"""Models written as GGUF by us: read by ourselves, beside files of llama.cpp's conversion, and run by llama.cpp."""
import json
import select
import shutil
import subprocess

import gguf
import numpy as np
import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file

import gguf_zoo
import gguf_zoo_dense
import gguf_zoo_experts
import gguf_zoo_hybrid
import llama_cpp
import model_zoo
import zoo_dense
import zoo_experts
import zoo_hybrid
import zoos
from answers import Answers
from conftest import DEMO

# What GGUF cannot say of a model, and words of the sentence that refuses it.
REFUSED = {
    "gemma3n-unshared": "altup.correct_output_scale",
    "opt": "no architecture for the family OPT", "opt-350m": "no architecture for the family OPT", "gptj": "the family GPT-J", "gptj-whole": "the family GPT-J",
    "qwen2-moe": "in block 1", "qwen3-moe": "in block 0", "qwen3-next": "in block 1", "qwen3-next-unnormalised": "in block 0", "ernie4-5-moe-biased": "in block",
    "gemma2": "scale 0.31623", "gemma3": "scale 0.31623", "gpt2-scaled": "activation relu", "gpt2-unscaled": "scale 1,", "falcon-rw": "positions of kind 2",
    "bloom-post-norm-residual": "sum, scale 1", "phi-qk-norm": "self_attn.q_layernorm", "smollm3-sliding": "window 24", "cohere2-types": "in block 0", "phimoe": "jitter 0.2",
    "phimoe-longrope": "as large in texts", "olmoe-normalised": "normalised true", "deepseek-v2": "as large in texts", "deepseek-v3-half-rope": "halves",
    "llama4": "chunk 24", "llama4-two-experts": "chunk 24", "lfm2-moe": "scale 1.5", "lfm2-moe-no-bias": "normalised false",
}
# What llama.cpp cannot do with a model that GGUF can hold.
LIMITED = {
    "gemma3n": "the first 20", "arcee-biased": "attention's output", "cohere-qk-norm": "no output matrix", "gemma-biased": "no output matrix",
    "nemotron-biased": "needs an output matrix", "olmo2-biased": "needs an output matrix", "seed-oss-biased": "attention's output", "olmo-clipped": "attention's output",
    "hunyuan-dense": "attention's output", "hunyuan-moe": "attention's output", "ernie4-5-biased": "the MLP has no biases", "gpt-neox-sequential": "needs biases",
    "lfm2-biased": "no biases", "phimoe-plain": "sparse mixer", "phimoe-window": "sparse mixer", "olmoe": "as many key/value heads", "dots1": "as many key/value heads", "dots1-plain": "as many key/value heads", "glm-unbiased": "its heads are",
    "gpt-oss-all-full": "needs biases", "exaone4": "64 blocks", "qwen3-5": "equally wide", "qwen3-5-mrope": "equally wide", "qwen3-5-moe": "equally wide",
    "deepseek-v2-lite": "26 and 27 blocks", "deepseek-v2-plain": "best two", "deepseek-v3": "epsilon", "glm4-moe-lite": "epsilon",
}
# Otherwise in llama.cpp, by its own choice: a long rope's factors go by the size of the context, not of the text; YaRN's range is
# rounded outwards also where gpt-oss does not.
ITS_OWN_WAY = {"phi3-longrope-short", "gpt-oss"}
# Models whose window or stretched rotation no key tells: the file says a context within which they compute the same.
SHORTER = {"llama-dynamic": 32, "mistral": 24, "ministral": 24, "qwen2": 24, "dots1": 24}
SHORTER_IN_LLAMA_CPP = SHORTER | {"phi3": 24, "starcoder2": 24, "ministral3-sliding": 24}
CONVERTED = {name: writer for writer in (gguf_zoo, gguf_zoo_dense, gguf_zoo_experts, gguf_zoo_hybrid) for name in writer.CONVERTED if name in zoos.ZOO_OF}
# Keys whose value the conversion takes from where this model's configuration has none, or another one.
OTHER_VALUES = {"bloom": ["bloom.context_length"], "ernie4-5-moe": ["ernie4_5-moe.expert_shared_feed_forward_length"], "qwen3-5-moe": ["qwen35moe.feed_forward_length", "qwen35moe.rope.dimension_sections"],
                "qwen3-5-mrope": ["qwen35.rope.dimension_sections"], "qwen3-5": ["qwen35.rope.dimension_sections"], "hunyuan-dense-alpha": ["hunyuan-dense.rope.scaling.type"], "hunyuan-moe-alpha": ["hunyuan-moe.rope.scaling.type"]}


def token_ids(length=80):
    return torch.randint(0, model_zoo.VOCABULARY, (2, 80), generator=torch.Generator().manual_seed(7))[:, :length].contiguous()


class Writer:
    """One process of tests/tools/write_gguf for many models."""

    def __init__(self, program):
        self.process = subprocess.Popen([program, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def __call__(self, model, out, reader="llama.cpp"):
        """"" or the refusal."""
        self.process.stdin.write(f"{model}\t{out}\t{reader}\n")
        ready, _, _ = select.select([self.process.stdout], [], [], 120)
        return json.loads(self.process.stdout.readline()).get("error", "") if ready else "the program hangs"

    def close(self):
        self.process.stdin.close()
        assert self.process.wait() == 0


@pytest.fixture(scope="module")
def write(tool):
    running = Writer(tool("write_gguf"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def logits(tool, tmp_path_factory):
    running, folder = Answers(tool("model_logits")), tmp_path_factory.mktemp("logits")

    def ask(path, ids):
        assert running(path, folder, ids) == {}
        return load_file(folder / "out.safetensors")["logits"]
    yield ask
    running.close()


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    if llama_cpp.library_path() is None:
        pytest.skip("xllamacpp is not installed")
    running = llama_cpp.LlamaCpp(tmp_path_factory.mktemp("llama"))
    yield running
    running.close()


def saved_model(name, folder):
    """The model that CONVERTED's writer takes, as a folder."""
    if name == "gemma3n":  # as it is published, with keys and values that nothing reads
        model = zoos.save_model(name, folder)
        save_file(load_file(folder / "model.safetensors") | zoo_dense.unused_keys_and_values(model), folder / "model.safetensors", metadata={"format": "pt"})
        return model
    if name not in gguf_zoo_dense.CHANGES:
        return zoos.save_model(name, folder)
    model = zoos.ZOO_OF[name].make_model(name, **gguf_zoo_dense.CHANGES[name])
    model.save_pretrained(folder)
    return model


def context_of(path):
    fields = gguf.GGUFReader(path).fields
    return fields[f"{fields['general.architecture'].contents()}.context_length"].contents()


@pytest.mark.parametrize("name", zoos.ZOO_OF)
def test_what_we_write_computes_the_same(name, tmp_path, write, logits):
    zoos.save_model(name, tmp_path / "model")
    error = write(tmp_path / "model", tmp_path / "model.gguf", "any")
    if name in REFUSED:
        assert REFUSED[name] in error
        assert not (tmp_path / "model.gguf").exists()
        return
    assert not error
    ids = token_ids(SHORTER.get(name, 80))
    wanted, ours = logits(tmp_path / "model", ids), logits(tmp_path / "model.gguf", ids)
    assert (ours - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    assert context_of(tmp_path / "model.gguf") == SHORTER[name] if name in SHORTER else context_of(tmp_path / "model.gguf") >= 80


@pytest.mark.parametrize("name", [name for name in CONVERTED if name not in REFUSED])
def test_metadata_and_tensors_are_those_of_llama_cpps_conversion(name, tmp_path, write):
    model = saved_model(name, tmp_path / "model")
    CONVERTED[name].write(name, model, tmp_path / "reference.gguf")
    assert not write(tmp_path / "model", tmp_path / "model.gguf", "any")
    reference, ours = gguf.GGUFReader(tmp_path / "reference.gguf"), gguf.GGUFReader(tmp_path / "model.gguf")
    for key, field in reference.fields.items():
        if key.startswith("GGUF.") or key in OTHER_VALUES.get(name, ()):
            continue
        assert key in ours.fields, f"{key} = {field.contents()} is missing"
        assert ours.fields[key].types == field.types, key
        assert ours.fields[key].contents() == (pytest.approx(field.contents(), rel=1e-6) if isinstance(field.contents(), float) else field.contents()), key
    tensors = {t.name: t for t in ours.tensors}
    assert tensors.keys() == {t.name for t in reference.tensors}
    for tensor in reference.tensors:
        without_ones = lambda shape: [int(d) for d in shape if d > 1]
        assert without_ones(tensors[tensor.name].shape) == without_ones(tensor.shape), tensor.name
        a, b = tensors[tensor.name].data.astype(np.float64).ravel(), tensor.data.astype(np.float64).ravel()
        assert np.abs(a - b).max() <= 2e-6 * np.abs(b).max(), tensor.name


def far_off(ours, reference):
    """Share of the tokens whose logits differ. llama.cpp keeps keys and values as half floats, by which a token may choose another expert."""
    difference = np.abs(ours - reference).max(-1) / np.abs(reference).max()
    return (difference > 2e-3).mean()


@pytest.mark.parametrize("name", [name for name in zoos.ZOO_OF if name not in REFUSED and name not in ITS_OWN_WAY])
def test_llama_cpp_computes_what_transformers_does(name, tmp_path, write, llama):
    model = zoos.save_model(name, tmp_path / "model")
    error = write(tmp_path / "model", tmp_path / "model.gguf")
    if name in LIMITED:
        assert LIMITED[name] in error
        assert not write(tmp_path / "model", tmp_path / "model.gguf", "any")
        found, _ = llama.logits(tmp_path / "model.gguf", token_ids())
        assert found is None or far_off(found, model_zoo.reference_logits(model, token_ids()).numpy()) > 0.3, "llama.cpp can do it: the limit is none"
        return
    assert not error
    ids = token_ids(SHORTER_IN_LLAMA_CPP.get(name, 80))
    found, said = llama.logits(tmp_path / "model.gguf", ids)
    assert found is not None, said
    assert far_off(found, model_zoo.reference_logits(model, ids).numpy()) <= 0.15
    assert context_of(tmp_path / "model.gguf") == SHORTER_IN_LLAMA_CPP[name] if name in SHORTER_IN_LLAMA_CPP else context_of(tmp_path / "model.gguf") >= 80


# Gemma 3n as llama.cpp has it, in small.
GEMMA3N = dict(num_hidden_layers=25, num_kv_shared_layers=5, layer_types=[zoo_dense.FULL if i % 5 == 4 else zoo_dense.SLIDING for i in range(25)], intermediate_size=[64] * 25,
               activation_sparsity_pattern=[0.95] * 10 + [0.0] * 15, laurel_rank=64, hidden_size_per_layer_input=256, final_logit_softcapping=30.0)
# More of its limits: what changes a model that it computes, and words of the refusal.
BEYOND_LIMITS = [
    ("qwen3", dict(attention_bias=True), "attention's output"), ("qwen3-moe-plain", dict(attention_bias=True), "attention's output"), ("falcon-7b", dict(bias=True), "attention's output"),
    ("cohere", dict(attention_bias=True), "attention's output"), ("cohere2", dict(attention_bias=True), "attention's output"), ("gemma", dict(attention_bias=True), "attention's output"),
    ("olmo2", dict(attention_bias=True), "attention's output"), ("smollm3", dict(attention_bias=True), "attention's output"), ("smollm3", dict(mlp_bias=True), "the MLP has no biases"),
    ("seed-oss", dict(mlp_bias=True), "the MLP has no biases"), ("arcee", dict(mlp_bias=True), "the MLP has no biases"), ("starcoder2", dict(use_bias=False), "needs biases"),
    ("qwen2-moe-plain", dict(tie_word_embeddings=True), "needs an output matrix"), ("gpt-neox", dict(tie_word_embeddings=True), "needs an output matrix"),
    ("stablelm", dict(tie_word_embeddings=True), "needs an output matrix"), ("phi", dict(tie_word_embeddings=True), "needs an output matrix"),
    ("mistral4", dict(attention_bias=True), "attention's output"), ("llama4-plain", dict(attention_bias=True), "attention's output"), ("gpt-oss", dict(attention_bias=False), "needs biases"), ("gpt-oss-all-full", dict(attention_bias=True), "sliding window"),
    ("gemma3n", GEMMA3N | dict(laurel_rank=32), "laurel_rank of 64"), ("gemma3n", GEMMA3N | dict(altup_num_inputs=3), "four streams"), ("gemma3n", GEMMA3N | dict(attention_bias=True), "attention's output"),
    ("minimax-m2", dict(tie_word_embeddings=True), "needs an output matrix"), ("nemotron", dict(head_dim=24), "its heads are"), ("cohere", dict(use_qk_norm=True), "64 blocks"),
]


@pytest.mark.parametrize("name, changes, words", BEYOND_LIMITS)
def test_what_llama_cpp_cannot_do_is_said(name, changes, words, tmp_path, write, llama, monkeypatch):
    zoo = zoos.ZOO_OF[name]
    model_class, config_class, arguments = zoo.MODELS[name]
    monkeypatch.setitem(zoo.MODELS, name, (model_class, config_class, arguments | changes))
    zoo.save_model(name, tmp_path / "model")
    assert words in write(tmp_path / "model", tmp_path / "model.gguf")
    assert not write(tmp_path / "model", tmp_path / "model.gguf", "any")
    assert llama.logits(tmp_path / "model.gguf", token_ids())[0] is None, "llama.cpp can do it: the limit is none"


# Models of LIMITED as llama.cpp has them: what differs.
WITHIN_LIMITS = {
    "dots1-plain": dict(num_key_value_heads=4), "olmoe": dict(num_key_value_heads=4), "glm-unbiased": dict(head_dim=16), "hunyuan-dense": dict(attention_bias=False),
    "hunyuan-moe": dict(attention_bias=False), "qwen3-5": dict(linear_value_head_dim=8, linear_key_head_dim=8), "qwen3-5-moe": dict(linear_value_head_dim=8, linear_key_head_dim=8),
    "deepseek-v2-lite": dict(num_hidden_layers=27, rms_norm_eps=1e-6), "deepseek-v2-plain": dict(topk_method="greedy", rms_norm_eps=1e-6), "deepseek-v3": dict(rms_norm_eps=1e-6),
    "glm4-moe-lite": dict(rms_norm_eps=1e-6), "nemotron-biased": dict(tie_word_embeddings=False, head_dim=16), "olmo2-biased": dict(tie_word_embeddings=False, attention_bias=False),
    "cohere-qk-norm": dict(tie_word_embeddings=True, attention_bias=False, num_hidden_layers=64), "gemma-biased": dict(tie_word_embeddings=True, attention_bias=False), "olmo-clipped": dict(attention_bias=False),
}


@pytest.mark.parametrize("name", WITHIN_LIMITS)
def test_llama_cpp_computes_what_is_within_its_limits(name, tmp_path, write, llama, monkeypatch):
    zoo = zoos.ZOO_OF[name]
    model_class, config_class, arguments = zoo.MODELS[name]
    monkeypatch.setitem(zoo.MODELS, name, (model_class, config_class, arguments | WITHIN_LIMITS[name]))
    model = zoo.save_model(name, tmp_path / "model")
    assert not write(tmp_path / "model", tmp_path / "model.gguf")
    found, said = llama.logits(tmp_path / "model.gguf", token_ids())
    assert found is not None, said
    assert far_off(found, model_zoo.reference_logits(model, token_ids()).numpy()) <= 0.15


def calm_gemma3n(**changes):
    """Small steps from layer to layer: its gates that are zero but for the largest few would magnify llama.cpp's half floats."""
    model = make_gemma3n("gemma3n", **GEMMA3N | changes)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if ("post_" in key and key.endswith("norm.weight")) or "_coefs" in key:
                value.mul_(0.05)
    return model


make_gemma3n = zoo_dense.make_model


@pytest.mark.parametrize("published", [False, True], ids=["text", "published"])
def test_llama_cpp_computes_gemma3n(published, tmp_path, write, llama, monkeypatch):
    """As it is published, with an embedding for each layer of fewer tokens than there are, too."""
    monkeypatch.setattr(zoo_dense, "make_model", lambda name, seed=0: calm_gemma3n())
    save = zoo_dense.save_gemma3n_wrapper if published else (lambda folder: zoo_dense.save_model("gemma3n", folder))
    model = save(tmp_path / "model")
    assert not write(tmp_path / "model", tmp_path / "model.gguf")
    ids = torch.randint(0, 256, (2, 80), generator=torch.Generator().manual_seed(7))
    found, said = llama.logits(tmp_path / "model.gguf", ids)
    assert found is not None, said
    assert far_off(found, model_zoo.reference_logits(model, ids).numpy()) <= 0.15
    # Keys and values that nothing reads are there: the files' own, or zeros.
    tensors = {t.name: t for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert bool(np.any(tensors["blk.24.attn_k.weight"].data)) == published and tensors["per_layer_token_embd.weight"].data.shape[0] == 256
    # What is computed elsewhere shows.
    for changes in (dict(sliding_window=80), dict(activation_sparsity_pattern=[0.95] * 9 + [0.0] * 16)):
        other = calm_gemma3n(**changes)
        other.load_state_dict(model.state_dict(), strict=False)
        assert far_off(found, model_zoo.reference_logits(other, ids).numpy()) > 0.3, changes


def test_gemma3n_in_codes(tmp_path, tool, llama, logits, monkeypatch):
    monkeypatch.setattr(zoo_dense, "make_model", lambda name, seed=0: calm_gemma3n(head_dim=16))
    zoo_dense.save_gemma3n_wrapper(tmp_path / "model")
    file, _ = quantized_gguf(tool, tmp_path / "model", tmp_path, "{weights: {type: q8_0}}")  # read back and compared by the export
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(file).tensors}
    assert {types[f"blk.24.{stem}.weight"] for stem in ("attn_q", "laurel_l", "inp_gate", "ffn_down")} == {"Q8_0"} and types["blk.24.altup_router.weight"] == "F32"
    ids = token_ids(24)
    found, said = llama.logits(file, ids)
    assert found is not None, said
    assert typical_difference(found, logits(file, ids)) < 0.03


# Models that transformers does not have under their own names, and text models inside others: how to save one, which returns logits(ids).
def save_wrapped(name):
    return lambda folder: (lambda model: lambda ids: model_zoo.reference_logits(model, ids))(zoo_dense.save_wrapper(name, folder))


OTHERS = {
    "internlm2": lambda folder: (lambda model: lambda ids: model_zoo.reference_logits(model, ids))(model_zoo.save_internlm2(folder)),
    "baichuan-7b": lambda folder: zoo_dense.save_baichuan(folder, num_hidden_layers=32), "baichuan-13b": lambda folder: zoo_dense.save_baichuan(folder, alibi=True, num_hidden_layers=40),
    "baichuan-2": lambda folder: zoo_dense.save_baichuan(folder, normalised_head=True, num_hidden_layers=32), "minicpm": zoo_dense.save_minicpm,
    "minicpm-untied": lambda folder: zoo_dense.save_minicpm(folder, tied=False),
} | {name: save_wrapped(name) for name in zoo_dense.wrappers() if name not in ("mllama", "idefics2",
                                                                                                 "gemma3", "llama4", "qwen3-5", "qwen3-5-moe")}  # as their text parts in REFUSED and LIMITED


@pytest.mark.parametrize("name", OTHERS)
def test_llama_cpp_computes_what_other_checkpoints_do(name, tmp_path, write, logits, llama):
    reference = OTHERS[name](tmp_path / "model")
    assert not write(tmp_path / "model", tmp_path / "model.gguf")
    ids = token_ids()
    wanted = logits(tmp_path / "model", ids)
    assert (logits(tmp_path / "model.gguf", ids) - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    found, said = llama.logits(tmp_path / "model.gguf", ids)
    assert found is not None, said
    assert far_off(found, reference(ids).numpy()) <= 0.15


def test_a_baichuan_of_another_size_is_refused(tmp_path, write):
    # llama.cpp takes the number of blocks for its kind of positions.
    zoo_dense.save_baichuan(tmp_path / "alibi", alibi=True)
    assert "positions of kind 1" in write(tmp_path / "alibi", tmp_path / "model.gguf")
    zoo_dense.save_baichuan(tmp_path / "rotary")
    assert "32 blocks" in write(tmp_path / "rotary", tmp_path / "model.gguf")


def negative_log_likelihood(logits, ids):
    return torch.nn.functional.cross_entropy(torch.as_tensor(logits)[:, :-1].flatten(0, 1).double(), torch.as_tensor(ids)[:, 1:].flatten().long()).item()


def assert_same_perplexity(folder, path, text, windows, length, logits, llama):
    from tokenizers import Tokenizer
    expected = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    found, said = llama.tokens(path, text)
    assert found is not None, said
    assert found.tolist() == expected
    ids = torch.tensor(expected[:windows * length]).view(windows, length)
    theirs, said = llama.logits(path, ids.numpy())
    assert theirs is not None, said
    ours = logits(folder, ids)
    # Perplexities within 0.01 %.
    assert negative_log_likelihood(theirs, ids) == pytest.approx(negative_log_likelihood(ours, ids), abs=1e-4)


def test_the_demo_model_in_llama_cpp(tmp_path, write, logits, llama):
    assert not write(DEMO, tmp_path / "demo.gguf")
    assert_same_perplexity(DEMO, tmp_path / "demo.gguf", (DEMO / "evaluation.txt").read_text()[:20000], 8, 256, logits, llama)


def test_a_real_model_in_llama_cpp(tmp_path, write, logits, llama, smollm2_folder):
    assert not write(smollm2_folder, tmp_path / "smollm2.gguf")
    assert_same_perplexity(smollm2_folder, tmp_path / "smollm2.gguf", (DEMO / "evaluation.txt").read_text()[:8000], 4, 256, logits, llama)


def llama_with_words(folder, size):
    """A folder with a small Llama of so many words."""
    model = model_zoo.make_model("llama", vocab_size=size, num_hidden_layers=1)
    model.save_pretrained(folder)


# tokenizer.ggml.pre of test_tokenizers' tokenizers; what no pre-tokenizer of llama.cpp does is refused.
PRE = {"gpt2": "gpt-2", "llama3": "llama-bpe", "qwen2": "qwen2", "qwen35": "qwen35", "smollm": "smollm", "gpt4o": "gpt-4o", "deepseek3": "deepseek-v3", "falcon": "falcon",
       "llama2": "default", "mistral": "default", "gemma": "default"}


@pytest.mark.parametrize("name", ["gpt2", "gpt2_prefix_space", "llama3", "qwen2", "qwen35", "smollm", "gpt4o", "tekken", "deepseek3", "falcon", "clip", "llama2", "mistral", "gemma", "unigram", "suffix"])
def test_tokenizers_cut_the_same_in_llama_cpp(name, tmp_path, write, llama):
    from test_tokenizers import CORPUS, TOKENIZERS
    tokenizer = TOKENIZERS[name]()
    llama_with_words(tmp_path / "model", tokenizer.get_vocab_size() + 3)
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": "{{ messages }}"}))
    error = write(tmp_path / "model", tmp_path / "model.gguf")
    if name not in PRE:
        assert "tokenizer.json" in error and not (tmp_path / "model.gguf").exists()
        return
    assert not error
    contents = {k: v.contents() for k, v in gguf.GGUFReader(tmp_path / "model.gguf").fields.items() if k.startswith("tokenizer.")}
    assert contents["tokenizer.ggml.pre"] == PRE[name]
    assert contents["tokenizer.ggml.bos_token_id"] == tokenizer.token_to_id("<s>") and contents["tokenizer.ggml.eos_token_id"] == tokenizer.token_to_id("</s>")
    assert contents["tokenizer.ggml.add_bos_token"] and contents["tokenizer.chat_template"] == "{{ messages }}"
    tokens, types = contents["tokenizer.ggml.tokens"], contents["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == tokenizer.get_vocab_size() + 3 and types[-3:] == [5, 5, 5]
    assert all(tokens[i] == token for token, i in tokenizer.get_vocab().items())
    assert types[tokenizer.token_to_id("<s>")] == 3
    # For gpt4o llama.cpp takes letters beyond ASCII for small and capital at once; in Falcon's it sees no digits among their bytes.
    text = "\n".join(t for t in CORPUS[:90] if name not in ("gpt4o", "falcon") or t.isascii())
    found, said = llama.tokens(tmp_path / "model.gguf", text)
    assert found is not None, said
    assert found.tolist() == tokenizer.encode(text, add_special_tokens=False).ids


def test_a_sentencepiece_model_alone(tmp_path, write, llama):
    folder = tmp_path / "model"
    llama_with_words(folder, 400)
    text = (DEMO / "calibration.txt").read_text()[:60000]
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(text.split("\n")), model_prefix=str(folder / "tokenizer"), vocab_size=390, model_type="bpe", byte_fallback=True,
                                             normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2)
    assert not write(folder, tmp_path / "model.gguf")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    found, said = llama.tokens(tmp_path / "model.gguf", text[:5000])
    assert found is not None, said
    assert found.tolist() == processor.encode(text[:5000])


def test_a_tokenizer_with_more_tokens_than_rows_is_refused(tmp_path, write):
    from test_tokenizers import TOKENIZERS
    tokenizer = TOKENIZERS["gpt2"]()
    llama_with_words(tmp_path / "model", tokenizer.get_vocab_size() - 1)
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    assert f"the model's embedding has {tokenizer.get_vocab_size() - 1} rows" in write(tmp_path / "model", tmp_path / "model.gguf")


def test_a_gguf_file_is_written_again(tmp_path, write, logits):
    model = zoos.make_model("qwen3")
    gguf_zoo.write("qwen3", model, tmp_path / "first.gguf")
    assert not write(tmp_path / "first.gguf", tmp_path / "second.gguf")
    assert logits(tmp_path / "first.gguf", token_ids()).equal(logits(tmp_path / "second.gguf", token_ids()))


@pytest.mark.parametrize("kind, number", [("f16", gguf.GGMLQuantizationType.F16), ("bf16", gguf.GGMLQuantizationType.BF16)])
def test_matrices_in_half_floats(kind, number, tmp_path, tool):
    zoos.save_model("mixtral", tmp_path / "model")
    for out, type in (("f32.gguf", "f32"), ("half.gguf", kind)):
        subprocess.run([tool("write_gguf"), tmp_path / "model", tmp_path / out, type], check=True)
    exact = {t.name: t for t in gguf.GGUFReader(tmp_path / "f32.gguf").tensors}
    for tensor in gguf.GGUFReader(tmp_path / "half.gguf").tensors:
        half = len(tensor.shape) > 1 and "ffn_gate_inp" not in tensor.name
        assert tensor.tensor_type == (number if half else gguf.GGMLQuantizationType.F32), tensor.name
        value = exact[tensor.name].data
        assert np.array_equal(gguf.dequantize(tensor.data, tensor.tensor_type), gguf.dequantize(gguf.quantize(value, number), number) if half else value), tensor.name


# ---- in codes ----
def quantized_gguf(tool, model, folder, scheme, more=(), pipeline="rtn"):
    """The model's run in this scheme as a GGUF file, without calibration text; the export's notes."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"name: coded\nmodel: {{path: '{model}', dtype: float32}}\nscheme: {scheme}\npipeline: [{pipeline}]\n")
    call = lambda *arguments: subprocess.run([tool("qbench"), *arguments], capture_output=True, text=True)
    done = call("run", recipe, "-w", folder / "w", "-q", "--json", *more)
    assert done.returncode == 0, done.stderr
    out = folder / "coded.gguf"
    done = call("export", folder / "w" / "runs" / json.loads(done.stdout)[0]["id"], "-f", "gguf", "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)["notes"]


def typical_difference(a, b):
    """Of a token's logits, against how they vary. The median: where activations are rounded, some tokens choose another expert."""
    a, b = (np.asarray(x, dtype=np.float64) - np.asarray(x, dtype=np.float64).mean(-1, keepdims=True) for x in (a, b))
    return float(np.median(np.linalg.norm(a - b, axis=-1) / np.linalg.norm(b, axis=-1)))


# Models with experts: the type of their linears, and sizes of which its blocks are a part.
WIDE = dict(hidden_size=256, moe_intermediate_size=256, head_dim=64)
CODED_EXPERTS = [
    ("qwen3-moe-plain", "q4_0", dict(hidden_size=64, moe_intermediate_size=32, head_dim=16)), ("qwen3-moe-plain", "q8_0", dict(hidden_size=64, moe_intermediate_size=32, head_dim=16)),
    ("qwen3-moe-plain", "q4_K", WIDE), ("qwen3-moe-plain", "q3_K", WIDE), ("mixtral", "q4_0", dict(hidden_size=64, intermediate_size=96)),
    ("mixtral", "q6_K", dict(hidden_size=256, intermediate_size=256)), ("qwen2-moe-plain", "q5_1", dict(hidden_size=64, moe_intermediate_size=32, shared_expert_intermediate_size=64)),
    ("granitemoe", "q4_0", {}), ("glm4-moe", "iq4_nl", {}), ("gpt-oss", "mxfp4", dict(rope_parameters=model_zoo.rope("default"))), ("llama4-plain", "q5_0", {}), ("minimax-m2", "q4_1", {}),
    # Keys of latent attention lie by columns there; value heads of linear attention in another order, whole blocks of which move.
    ("deepseek-v3", "q4_0", dict(rms_norm_eps=1e-6, q_lora_rank=64, v_head_dim=16)), ("qwen3-5-moe", "q4_0", dict(linear_value_head_dim=32, linear_key_head_dim=32)),
]


@pytest.mark.parametrize("name, kind, changes", CODED_EXPERTS)
def test_llama_cpp_computes_experts_in_codes(name, kind, changes, tmp_path, tool, logits, llama, monkeypatch):
    """llama.cpp's logits are those of our quantized model, but for its rounding of activations to int8; the float model's are farther off."""
    zoo = zoos.ZOO_OF[name]
    model_class, config_class, arguments = zoo.MODELS[name]
    monkeypatch.setitem(zoo.MODELS, name, (model_class, config_class, arguments | changes))
    model = zoo.save_model(name, tmp_path / "model")
    file, notes = quantized_gguf(tool, tmp_path / "model", tmp_path, f"{{weights: {{type: {kind}}}}}")
    types = {t.name: t.tensor_type.name.lower() for t in gguf.GGUFReader(file).tensors}
    assert all(kind.lower() == found for tensor, found in types.items() if "_exps.weight" in tensor) and kind.lower() in types.values()
    ids = token_ids(24)
    found, said = llama.logits(file, ids)
    assert found is not None, said
    ours, exact = logits(file, ids), model_zoo.reference_logits(model, ids)
    # Half floats of keys and values, int8 activations: as far off as weights of 6 and 8 bits.
    assert typical_difference(found, ours) < 0.03
    if kind not in ("q6_K", "q8_0"):
        assert typical_difference(found, ours) < 0.4 * typical_difference(exact, ours)
    if name == "deepseek-v3":
        assert any("latent attention" in note for note in notes) and {types[f"blk.1.attn_{part}_b.weight"] for part in "kv"} == {"f32", "q4_0"}


def test_columns_that_move_inside_blocks_are_said_before_the_run(tmp_path, tool):
    """llama.cpp wants value heads of linear attention by turns of the key heads: of 32 channels each, which blocks of 256 do not follow."""
    zoo_hybrid.make_model("qwen3-5", hidden_size=256, intermediate_size=256, head_dim=64, linear_num_key_heads=4, linear_num_value_heads=8, linear_key_head_dim=32,
                          linear_value_head_dim=32).save_pretrained(tmp_path / "model")

    def check(overrides=""):
        (tmp_path / "recipe.yaml").write_text(f"name: x\nmodel: {{path: '{tmp_path}/model', dtype: float32}}\nscheme:\n  weights: {{type: q4_K}}\n{overrides}"
                                              "pipeline: [rtn]\ntarget: {format: gguf, engine: llama.cpp}\n")
        return subprocess.run([tool("qbench"), "run", tmp_path / "recipe.yaml", "--check"], capture_output=True, text=True)
    done = check()
    assert done.returncode == 3 and "blocks of 256 do not follow" in done.stderr and "a type in blocks of 32 (q8_0" in done.stderr and "weights: float" in done.stderr, done.stderr
    for instead in ("{type: q8_0}", "float"):
        done = check(f'  overrides: [{{match: "*.linear_attn.out_proj", weights: {instead}}}]\n')
        assert done.returncode == 0, done.stderr


def one_nibble(blocks):
    blocks[2, 5, 0, 7] ^= 0x30


def one_scale(blocks):
    blocks[2, 5, 0, :2] = np.frombuffer((blocks[2, 5, 0, :2].copy().view("<f2") * np.float16(1.01)).tobytes(), np.uint8)


def scales_as_bfloat16(blocks):
    blocks[2, :, :, :2] = (blocks[2, :, :, :2].copy().view("<u2").astype("<u4") << 16).view("<f4").astype("<f2").view(np.uint8)


def halves_swapped(blocks):
    blocks[2, :, :, 2:] = (blocks[2, :, :, 2:] << 4) | (blocks[2, :, :, 2:] >> 4)


def experts_swapped(blocks):
    blocks[[1, 2]] = blocks[[2, 1]]


def rows_swapped(blocks):
    blocks[2, [3, 4]] = blocks[2, [4, 3]]


# Whether llama.cpp's logits show it too: what is wrong in a whole expert.
EXPERT_MISTAKES = {one_nibble: False, one_scale: False, rows_swapped: False, scales_as_bfloat16: True, halves_swapped: True, experts_swapped: True}


@pytest.fixture(scope="module")
def coded_experts(tool, tmp_path_factory):
    """A mixture of experts in Q4_0: the file, and the run that it was made of."""
    folder = tmp_path_factory.mktemp("experts")
    zoo = zoos.ZOO_OF["qwen3-moe-plain"]
    zoo.make_model("qwen3-moe-plain", hidden_size=64, moe_intermediate_size=32, head_dim=16).save_pretrained(folder / "model")
    file, _ = quantized_gguf(tool, folder / "model", folder, "{weights: {type: q4_0}}")
    return file, next((folder / "w/runs").iterdir())


@pytest.mark.parametrize("stem", ["gate", "down"])
@pytest.mark.parametrize("mistake", EXPERT_MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_in_an_expert_is_seen(mistake, stem, coded_experts, tool, logits, llama, tmp_path):
    right, run = coded_experts
    wrong = shutil.copy(right, tmp_path / "wrong.gguf")
    file = gguf.GGUFReader(wrong, "r+")
    tensor = next(t for t in file.tensors if t.name == f"blk.1.ffn_{stem}_exps.weight")
    assert tensor.tensor_type == gguf.GGMLQuantizationType.Q4_0
    mistake(tensor.data.reshape(*tensor.data.shape[:2], -1, 18))
    file.data.flush()
    verified = lambda path: subprocess.run([tool("qbench"), "verify", path, run, "--json"], capture_output=True, text=True)
    assert verified(right).returncode == 0
    done = verified(wrong)
    assert done.returncode != 0 and f"layers.1.mlp.experts.{1 if mistake is experts_swapped else 2}.{stem}_proj" in json.loads(done.stdout)["difference"]
    if EXPERT_MISTAKES[mistake]:
        ids = token_ids(24)
        assert typical_difference(llama.logits(wrong, ids)[0], logits(right, ids)) > 2 * 0.03


def test_published_experts_keep_their_codes(tmp_path, tool):
    """gpt-oss as it is published has MXFP4 experts, which are read as numbers: rounded to that type again, nothing is lost."""
    model = zoo_experts.save_gpt_oss_mxfp4(tmp_path / "model")
    file, _ = quantized_gguf(tool, tmp_path / "model", tmp_path, "{weights: {type: mxfp4}, overrides: [{match: '*.self_attn.*', weights: float}]}")
    tensors, published = {t.name: t for t in gguf.GGUFReader(file).tensors}, model.state_dict()
    for block in range(model.config.num_hidden_layers):
        gate_up, down = (published[f"model.layers.{block}.mlp.experts.{part}_proj"].transpose(1, 2) for part in ("gate_up", "down"))
        for stem, expected in (("gate", gate_up[:, 0::2]), ("up", gate_up[:, 1::2]), ("down", down)):
            tensor = tensors[f"blk.{block}.ffn_{stem}_exps.weight"]
            assert tensor.tensor_type == gguf.GGMLQuantizationType.MXFP4
            np.testing.assert_array_equal(gguf.dequantize(tensor.data, tensor.tensor_type), expected.numpy())
