"""A model folder's tokenizer is what transformers' AutoTokenizer makes of all its files: tokens that only a configuration
names, slow tokenizers' vocabularies and merges, SentencePiece models, with every flag that a token may have."""
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import gguf
import pytest
import sentencepiece
from test_tokenizers import CORPUS, RANDOM, real_texts, run_tool, write_gguf  # noqa: F401 (real_texts is a fixture)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "resources" / "demo"
FLAGS = [{}, {"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}, {"single_word": True}, {"normalized": True}, {"normalized": True, "single_word": True},
         {"special": False, "normalized": False}, {"special": False, "normalized": True, "lstrip": True}]


def token(content, **flags):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} | flags


def texts_with(names, count=400, seed=5):
    """Random texts in which the tokens stand between words, in words, and among spaces."""
    r = random.Random(seed)
    between = ["", " ", "  ", "\n", "x", "word", " É ", "e\u0301", "ß", "，", "."]
    return ["".join(r.choice(names) + r.choice(between) + r.choice(RANDOM)[:12] * r.randint(0, 1) for _ in range(r.randint(1, 6))) for _ in range(count)]


def some(texts, count):
    """The first texts; QBENCH_ALL_TEXTS=1 takes all of them (minutes)."""
    return texts if os.environ.get("QBENCH_ALL_TEXTS") == "1" else texts[:count]


def same(folder, tool, names, extra=()):
    """Ids as AutoTokenizer's on random texts, on texts with the tokens, and on others."""
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = RANDOM[:1500] + texts_with(names or ["x"]) + list(extra)
    for text, ours in zip(texts, run_tool(tool("tokenize"), folder, texts)):
        assert ours["ids"] == tokenizer(text).input_ids, f"{text[:300]!r}: {tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)[:60]}"
    return tokenizer


@pytest.fixture
def folder(tmp_path):
    """The demo model's tokenizer.json beside a configuration of the test."""
    def make(config, **files):
        shutil.copy(DEMO / "tokenizer.json", tmp_path)
        shutil.copy(DEMO / "config.json", tmp_path)
        files["tokenizer_config"] = {"tokenizer_class": "PreTrainedTokenizerFast"} | config
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return tmp_path
    return make


SIZE = 1024  # of the demo's vocabulary


def test_added_tokens_decoder(folder, tool, real_texts):  # noqa: F811
    names = [f"<t{i}>" for i in range(len(FLAGS))]
    decoder = {str(SIZE + i): token(name, **flags) for i, (name, flags) in enumerate(zip(names, FLAGS))} | {"0": token("<|endoftext|>")}
    same(folder({"added_tokens_decoder": decoder}), tool, [*names, "<|endoftext|>"], some(real_texts, 40))


def test_flags_of_a_token_that_the_vocabulary_has(folder, tool):
    vocabulary = json.loads((DEMO / "tokenizer.json").read_text())["model"]["vocab"]
    known = [t for t in vocabulary if t.isalpha() and len(t) > 3][:3]
    decoder = {str(vocabulary[t]): token(t, **flags) for t, flags in zip(known, ({"lstrip": True}, {"single_word": True}, {"special": False, "normalized": True}))}
    same(folder({"added_tokens_decoder": decoder}), tool, known)


def test_changed_flags_of_an_added_token(folder, tool):
    same(folder({"added_tokens_decoder": {"0": token("<|endoftext|>", lstrip=True, rstrip=True)}}), tool, ["<|endoftext|>"])


def test_special_tokens_of_the_configuration(folder, tool):
    config = {"bos_token": "<|bos|>", "eos_token": "<|endoftext|>", "pad_token": {"__type": "AddedToken"} | token("<|pad|>", lstrip=True),
              "image_token": "<|image|>", "additional_special_tokens": ["<|a|>", "<|b|>"]}
    same(folder(config), tool, ["<|bos|>", "<|pad|>", "<|image|>", "<|a|>", "<|b|>"])


def test_extra_special_tokens(folder, tool):
    same(folder({"extra_special_tokens": ["<|a|>", "the"]}), tool, ["<|a|>", "the"])
    same(folder({"extra_special_tokens": {"audio_token": "<|audio|>"}}), tool, ["<|audio|>"])


def test_added_tokens_json_and_special_tokens_map(folder, tool):
    where = folder({}, added_tokens={"<|im_start|>": SIZE, "<|im_end|>": SIZE + 1, "plain": SIZE + 2},
                   special_tokens_map={"eos_token": token("<|im_end|>", rstrip=True), "additional_special_tokens": ["<|im_start|>"]})
    same(where, tool, ["<|im_start|>", "<|im_end|>", "plain"])


def test_an_id_that_tokenizers_would_not_give_is_refused(folder, tool):
    done = subprocess.run([tool("tokenize"), folder({"added_tokens_decoder": {str(SIZE + 7): token("<far>")}})], input="", capture_output=True, text=True)
    assert done.returncode == 1 and "'<far>' has the id 1031" in done.stderr and "1024" in done.stderr and "tokenizer_config.json" in done.stderr


def test_other_files_of_the_folder_name_it(folder, tool):
    where = folder({"added_tokens_decoder": {str(SIZE): token("<t>")}})
    for name in ("config.json", "."):
        assert run_tool(tool("tokenize"), where / name, ["a<t>"])[0]["ids"][-1] == SIZE


@pytest.mark.parametrize("name, tokens", [("tk_decoder_only", 2849), ("tk_added_json", 2849)])
def test_shared_cases(name, tokens, shared, tool, ours):
    case = shared / "cases" / name
    if not case.exists():
        pytest.skip("no cases here")
    same(case, tool, ["<|im_start|>", "<|im_end|>"])
    found = ours(case, case / "text.txt", 4, 128)
    assert found["corpus_tokens"] == tokens
    assert found["perplexity"] == pytest.approx(1493.71, rel=1e-4)


# --- vocab.json and merges.txt -----------------------------------------------------------------------------------------


def slow_files(folder, pre, normalizer=None):
    """A byte-level vocabulary as its two files, without added tokens."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=900, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    model = json.loads(t.to_str())["model"]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in model["merges"]), encoding="utf-8")
    return len(model["vocab"])


SLOW = {
    "gpt2": ("GPT2Tokenizer", {}),
    "gpt2-bos": ("GPT2Tokenizer", {"add_bos_token": True, "bos_token": "<|bos|>"}),
    "gpt2-space": ("GPT2TokenizerFast", {"add_prefix_space": True}),
    "gpt2-decoder": ("GPT2Tokenizer", {"added_tokens": [token("<|endoftext|>"), token("<|x|>", lstrip=True), token("y-y", special=False, normalized=True)]}),
    "gpt-neox": ("GPTNeoXTokenizer", {}),
    "qwen2": ("Qwen2Tokenizer", {"bos_token": None, "pad_token": "<|endoftext|>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
                                 "added_tokens": [token("<|endoftext|>"), token("<|im_start|>"), token("<|im_end|>")]}),
    "qwen2-plain": ("Qwen2Tokenizer", {}),
    "cohere": ("CohereTokenizer", {}),
}


@pytest.mark.parametrize("name", SLOW)
def test_vocab_and_merges(name, tool, tmp_path, real_texts):  # noqa: F811
    kind, config = SLOW[name]
    size = slow_files(tmp_path / "m", pre_tokenizers.ByteLevel(add_prefix_space=False))
    config = dict(config, tokenizer_class=kind)
    added = config.pop("added_tokens", [])
    if added:
        config["added_tokens_decoder"] = {str(size + i): t for i, t in enumerate(added)}
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "config.json").write_text(json.dumps({"model_type": "gpt2"} if kind.startswith("GPT2") else {"model_type": "llama"}))
    names = [t["content"] for t in added] + ["<|endoftext|>", "<|bos|>", "<|padding|>", "<BOS_TOKEN>"]
    same(tmp_path / "m", tool, names, some(real_texts, 20))


def test_vocab_and_merges_with_added_tokens_json(tool, tmp_path):
    size = slow_files(tmp_path / "m", pre_tokenizers.ByteLevel(add_prefix_space=False))
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    (tmp_path / "m" / "added_tokens.json").write_text(json.dumps({"<|a|>": size, "<|endoftext|>": size + 1}))
    (tmp_path / "m" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    same(tmp_path / "m", tool, ["<|a|>", "<|endoftext|>"])


def test_a_class_that_is_not_known_is_named(tool, tmp_path):
    slow_files(tmp_path / "m", pre_tokenizers.ByteLevel(add_prefix_space=False))
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BlenderbotTokenizer"}))
    done = subprocess.run([tool("tokenize"), tmp_path / "m"], input="", capture_output=True, text=True)
    assert done.returncode == 1 and "BlenderbotTokenizer" in done.stderr and "GPT2Tokenizer" in done.stderr


# --- SentencePiece -------------------------------------------------------------------------------------------------------


def train(path, kind, **options):
    path.parent.mkdir(exist_ok=True)
    settings = dict(vocab_size=650, model_type=kind, byte_fallback=True, hard_vocab_limit=False, character_coverage=0.98, minloglevel=2) | options
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter("\n".join(CORPUS).split("\n")), model_prefix=str(path.with_suffix("")), **settings)
    path.with_suffix(".vocab").unlink()


LLAMA = dict(normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True)
PIECES = {
    "llama": ("tokenizer.model", "LlamaTokenizer", "bpe", LLAMA, {"add_bos_token": True, "add_eos_token": False}),
    "llama-legacy": ("tokenizer.model", "LlamaTokenizer", "bpe", LLAMA, {"legacy": True, "add_bos_token": True, "add_eos_token": True}),
    "llama-user": ("tokenizer.model", "LlamaTokenizerFast", "bpe", LLAMA | {"user_defined_symbols": ["<|x|>"]}, {}),
    "llama-bare": ("tokenizer.model", "LlamaTokenizer", "bpe", LLAMA, {"add_prefix_space": False}),
    "gemma": ("tokenizer.model", "GemmaTokenizer", "bpe", LLAMA | dict(pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
                                                                     add_dummy_prefix=False), {"add_bos_token": True}),
    "t5": ("spiece.model", "T5Tokenizer", "unigram", dict(byte_fallback=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>"), {}),
    "generic-bpe": ("tokenizer.model", "TokenizersBackend", "bpe", LLAMA, {}),
    "generic-unigram": ("tokenizer.model", "TokenizersBackend", "unigram", dict(normalization_rule_name="nmt_nfkc"), {}),
}


@pytest.mark.parametrize("name", PIECES)
def test_sentencepiece_models(name, tool, tmp_path, real_texts):  # noqa: F811
    file, kind, model, options, config = PIECES[name]
    train(tmp_path / "m" / file, model, **options)
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind} | config))
    (tmp_path / "m" / "config.json").write_text(json.dumps({"model_type": "t5" if kind == "T5Tokenizer" else "llama"}))
    same(tmp_path / "m", tool, ["<s>", "</s>", "<unk>", "<|x|>", "<bos>", "<extra_id_3>"], some(real_texts, 10))


def test_a_damaged_sentencepiece_model_is_refused(tool, tmp_path):
    train(tmp_path / "m" / "tokenizer.model", "bpe", **LLAMA)
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    whole = (tmp_path / "m" / "tokenizer.model").read_bytes()
    for damaged in (whole[:len(whole) // 2 + 1], b"", b"this is no protobuf", whole[:40]):
        (tmp_path / "m" / "tokenizer.model").write_bytes(damaged)
        done = subprocess.run([tool("tokenize"), tmp_path / "m"], input="", capture_output=True, text=True)
        assert done.returncode in (0, 1) and (done.returncode == 0 or "tokenizer.model" in done.stderr), done.stderr


# --- GGUF ----------------------------------------------------------------------------------------------------------------


def test_gguf_without_a_pre_tokenizer(tool, tmp_path):
    """GPT-2's rule, and a warning where the file is measured."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=900, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    vocabulary = sorted(t.get_vocab(), key=t.get_vocab().get)
    path = tmp_path / "model.gguf"
    write_gguf(path, "gpt2", vocabulary, [int(gguf.TokenType.NORMAL)] * len(vocabulary), token_merges=[" ".join(m) for m in json.loads(t.to_str())["model"]["merges"]])
    texts = RANDOM[:3000]
    for text, ours in zip(texts, run_tool(tool("tokenize"), path, texts)):
        assert ours["ids"] == t.encode(text).ids, repr(text)


def test_the_shared_gguf_without_a_pre_tokenizer(shared, tool):
    case = shared / "cases" / "gguf" / "nopre.gguf"
    if not case.exists():
        pytest.skip("no cases here")
    command = [tool("qbench"), "eval", case, "--text", DEMO / "evaluation.txt", "--seq-len", "128", "--windows", "4", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["corpus_tokens"] == 29279 and found["perplexity"] == pytest.approx(1310.89, rel=1e-4)
    assert "tokenizer.ggml.pre is missing" in done.stderr
