"""Texts as people have them: encodings, JSON, folders, conversations through chat templates as transformers renders them,
and where the beginning-of-sequence token stands."""
import json
import math
import os
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
import torch
from reports import perplexities

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "resources" / "demo"
TEMPLATES = Path(os.environ.get("QBENCH_DEPS") or Path.home() / ".cache" / "llm-qbench") / "llama-jinja" / "templates"
CHATS = [
    [{"role": "user", "content": "Who goes there?"}, {"role": "assistant", "content": "Nay, answer me: stand, and unfold yourself."}],
    [{"role": "system", "content": "You speak as at Elsinore."}, {"role": "user", "content": "  Long live the king!  "},
     {"role": "assistant", "content": "Bernardo?"}, {"role": "user", "content": "He."}, {"role": "assistant", "content": "You come most carefully\nupon your hour. 😀"}],
    [{"role": "user", "content": "'Tis now struck \"twelve\" <b>&</b> {{ x }}"}],
]
# Loops, macros, namespaces, slices, tests, filters, inline conditions, the date, complaints, whitespace control.
OWN = {
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "inst": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' %}"
            "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}"
            "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
            "{% if m.role == 'user' %}{{ '[INST] ' + (system if loop.first else '') + m.content.strip() + ' [/INST]' }}"
            "{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}",
    "macro": "{%- macro turn(role, text, last=false) -%}\n<{{ role }}>{{ text }}{% if last %}!{% endif %}</{{ role }}>\n{%- endmacro -%}\n"
             "{%- set ns = namespace(count=0) -%}\n{% for m in messages %}\n    {%- set ns.count = ns.count + 1 %}\n"
             "{{ turn(m.role | upper, m.content | replace('e', 'E'), loop.last) }}\n{%- endfor %}\n{{ ns.count }} {{ tools is none }} {{ messages | length }}",
    "date": "Today is {{ strftime_now('%d %b %Y') }}.\n{% for m in messages if m.role != 'system' %}{{ loop.index }}:{{ m.content | tojson }}"
            "{{ ',' if not loop.last }}{% endfor %}",
    "filters": "{{ messages | map(attribute='role') | join(',') }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
               "{% for m in messages %}{{ m.content.split(' ')[0] | capitalize }}{{ m.content.endswith('.') }}{{ 'ow' in m.content }}{% endfor %}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}|{% endif %}{% endfor %}",
}
FAMILIES = ["Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "meta-llama-Llama-3.1-8B-Instruct", "meta-llama-Llama-3.2-3B-Instruct", "google-gemma-2-2b-it",
            "microsoft-Phi-3.5-mini-instruct", "mistralai-Mistral-Nemo-Instruct-2407", "HuggingFaceTB-SmolLM3-3B", "openai-gpt-oss-120b", "deepseek-ai-DeepSeek-V3.1",
            "ibm-granite-granite-3.3-2B-Instruct", "CohereForAI-c4ai-command-r7b-12-2024-tool_use", "ByteDance-Seed-OSS", "LFM2-8B-A1B", "GLM-4.6", "moonshotai-Kimi-K2",
            "MiniMax-M2", "Apertus-8B-Instruct"]


@pytest.fixture
def model(tmp_path):
    """The demo model's tokenizer with a chat template beside it (or none)."""
    def make(template=None, as_file=False, **config):
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        shutil.copy(DEMO / "tokenizer.json", folder)
        shutil.copy(DEMO / "config.json", folder)
        settings = json.loads((DEMO / "tokenizer_config.json").read_text()) | config
        if template is not None and as_file:
            (folder / "chat_template.jinja").write_text(template)
        elif template is not None:
            settings["chat_template"] = template
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return folder
    return make


@pytest.fixture
def read(tool):
    """The corpus that the program makes of a text, or the error's text."""
    def run(model, text, *field):
        done = subprocess.run([tool("read_corpus"), model, text, *field], capture_output=True, text=True)
        return json.loads(done.stdout) if done.returncode == 0 else done.stderr
    return run


@pytest.fixture
def today(monkeypatch):
    """The day that templates are told here, for transformers too."""
    from transformers.utils import chat_template_utils

    class Day(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2024, 7, 26, 12)
    monkeypatch.setattr(chat_template_utils, "datetime", Day)


def write_chats(path, chats=CHATS):
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    return path


def expected(folder, chat):
    """transformers' text and ids of a conversation; None where the template refuses it."""
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(folder)
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
    except Exception as refused:
        return None, str(refused)
    return text, tokenizer(text, add_special_tokens=False).input_ids


def same_as_transformers(folder, read, path):
    taken = 0
    for chat in CHATS:
        text, ids = expected(folder, chat)
        found = read(folder, write_chats(path, [chat]))
        if text is None:
            assert isinstance(found, str) and "does not take this conversation" in found, (ids, found)
        elif text.strip() == "":
            assert "no text in it" in found
        else:
            assert isinstance(found, dict), found
            assert found["documents"] == [text] and found["ids"] == [ids] and found["templated"] == [True]
            taken += 1
    return taken


@pytest.mark.parametrize("name", OWN)
def test_templates_of_every_construction(name, model, read, today, tmp_path):
    assert same_as_transformers(model(OWN[name], bos_token="<|endoftext|>", eos_token="<|endoftext|>"), read, tmp_path / "chat.jsonl") > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_templates_of_real_families(name, model, read, today, tmp_path):
    source = TEMPLATES / f"{name}.jinja"
    if not source.exists():
        pytest.skip(f"{source} is not here")
    assert same_as_transformers(model(source.read_text(encoding="utf-8"), as_file=True), read, tmp_path / "chat.jsonl") > 0


def test_a_list_of_templates_has_a_default(model, read, tmp_path):
    folder = model([{"name": "tool_use", "template": "tools"}, {"name": "default", "template": OWN["chatml"]}])
    assert same_as_transformers(folder, read, tmp_path / "chat.jsonl") == 3


def test_without_a_template_conversations_are_plain_text(model, read, tmp_path):
    found = read(model(), write_chats(tmp_path / "chat.jsonl"))
    assert found["documents"] == ["\n".join(m["content"] for m in chat) for chat in CHATS] and not any(found["templated"])
    assert len(found["notes"]) == 1 and "no chat template" in found["notes"][0]


@pytest.mark.parametrize("template", ["{% for m in messages %}{{ m.content }}", [{"name": "tools", "template": "x"}]], ids=["unended", "no-default"])
def test_a_broken_template_is_refused_where_it_is_needed(template, model, read, tmp_path):
    folder = model(template)
    found = read(folder, write_chats(tmp_path / "chat.jsonl"))
    assert isinstance(found, str) and "chat template" in found and "tokenizer_config.json" in found
    (tmp_path / "plain.txt").write_text("plain")
    assert read(folder, tmp_path / "plain.txt")["documents"] == ["plain"]


TEXT = "Grüße, 世界 😀 — they said:\n'it is'\n"


@pytest.mark.parametrize("encoded", [TEXT.encode("utf-8-sig"), b"\xff\xfe" + TEXT.encode("utf-16-le"), b"\xfe\xff" + TEXT.encode("utf-16-be")], ids=["utf8", "utf16le", "utf16be"])
def test_byte_order_marks(encoded, read, tmp_path):
    (tmp_path / "plain.txt").write_bytes(TEXT.encode())
    (tmp_path / "marked.txt").write_bytes(encoded)
    plain, marked = read(DEMO, tmp_path / "plain.txt"), read(DEMO, tmp_path / "marked.txt")
    assert marked["documents"] == plain["documents"] == [TEXT] and marked["ids"] == plain["ids"]
    (tmp_path / "marked.JSONL").write_bytes(encoded[:3 if encoded[0] == 0xEF else 2] + json.dumps({"text": TEXT}).encode(
        {0xEF: "utf-8", 0xFF: "utf-16-le", 0xFE: "utf-16-be"}[encoded[0]]))
    assert read(DEMO, tmp_path / "marked.JSONL")["documents"] == [TEXT]


@pytest.mark.parametrize("name, content, said", [
    ("latin1.txt", "Gr\xfc\xdfe".encode("latin-1"), "byte 0xFC at byte 2 (line 1)"),
    ("later.txt", b"one\ntwo\xc3\n", "byte 0xC3 at byte 7 (line 2)"),
    ("marked.txt", b"\xef\xbb\xbfab\xff", "byte 0xFF at byte 5"),
    ("binary.txt", b"abc\0def", "a binary file, not a text: a zero byte at byte 3"),
    ("half.txt", b"\xff\xfea\0b", "half a character"),
    ("pair.txt", b"\xff\xfea\0\x3d\xd8b\0", "half a surrogate pair (0xD83D) at byte 4"),
    ("utf32.txt", "a".encode("utf-32"), "UTF-32"),
    ("set.parquet", b"PAR1\x15\x04", "Parquet file: write its text as JSON lines"),
    ("packed.txt.gz", b"\x1f\x8b\x08\0\0", "gunzip"),
    ("model.gguf", b"GGUF\3\0\0\0", "GGUF model"),
    ("object.json", b'{"text": "a"}', "expected an array of texts or of objects"),
    ("broken.json", b'[{"text": ', "not valid JSON"),
    ("role.jsonl", b'{"messages": [{"content": "a"}]}', "'role' is missing"),
    ("none.jsonl", b'{"body": "a"}', "'text' is missing"),
])
def test_what_is_no_text_is_said_in_words(name, content, said, read, tmp_path):
    (tmp_path / name).write_bytes(content)
    found = read(DEMO, tmp_path / name)
    assert isinstance(found, str) and said in found and name in found


def test_json_arrays(read, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(["one", {"text": "two", "query": "q"}, {"messages": CHATS[0]}]))
    found = read(DEMO, tmp_path / "a.json")
    assert found["documents"] == ["one", "two", "\n".join(m["content"] for m in CHATS[0])]
    (tmp_path / "b.JSON").write_text(json.dumps([{"body": "three"}]))
    assert read(DEMO, tmp_path / "b.JSON", "body")["documents"] == ["three"]


def test_a_folder_of_all_kinds(model, read, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "b.TXT").write_text("plain\n")
    (folder / "c.json").write_text('["array"]')
    (folder / "a.jsonl").write_text('{"text": "line"}\n')
    write_chats(folder / "d.jsonl", CHATS[:1])
    (folder / "e.md").write_bytes(b"\xff\xfe" + "wide".encode("utf-16-le"))
    (folder / "ignored.bin").write_bytes(b"\0")
    (folder / ".hidden.txt").write_text("hidden")
    found = read(model(OWN["chatml"]), folder)
    chat = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in CHATS[0])
    assert found["documents"] == ["line", "plain\n", "array", chat, "wide"]
    assert found["templated"] == [False, False, False, True, False]


# --- BOS ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    """A tiny random Gemma 2 whose tokenizer puts BOS before a text."""
    from tokenizers import Tokenizer, processors
    from transformers import Gemma2Config, Gemma2ForCausalLM
    folder = tmp_path_factory.mktemp("gemma")
    torch.manual_seed(0)
    config = Gemma2Config(vocab_size=1024, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                          max_position_embeddings=256, sliding_window=64, bos_token_id=0, eos_token_id=0, pad_token_id=0, query_pre_attn_scalar=16)
    Gemma2ForCausalLM(config).save_pretrained(folder)
    t = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    t.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    t.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|endoftext|>"}))
    return folder


def windows_by_hand(folder, text, bos, seq_len, count):
    """transformers' mean loss of each window, BOS put by hand."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(text, add_special_tokens=bos == "tokenizer").input_ids
    assert (ids[0] == tokenizer.bos_token_id) == (bos == "tokenizer")
    body = seq_len - 1 if bos == "every_window" else seq_len
    values = []
    for w in range(count):
        window = torch.tensor([([tokenizer.bos_token_id] if bos == "every_window" else []) + ids[w * body:(w + 1) * body]])
        with torch.no_grad():
            values.append(model(window, labels=window).loss.item())
    return values


@pytest.mark.parametrize("bos", ["tokenizer", "every_window", "none", None])
def test_bos_in_evaluations(bos, gemma, tool):
    """Without a wish Gemma has BOS in every window; the condition stands beside the figure."""
    text = DEMO / "evaluation.txt"
    command = [tool("qbench"), "eval", gemma, "--text", text, "--seq-len", "64", "--windows", "4"] + (["--bos", bos] if bos else [])
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["bos"] == (bos or "every_window")
    assert result["window_nll"] == pytest.approx(windows_by_hand(gemma, text.read_text(), bos or "every_window", 64, 4), abs=2e-4)
    said = subprocess.run(command, capture_output=True, text=True).stdout
    assert ("BOS in every window" in said) == (bos in (None, "every_window")) and ("no BOS" in said) == (bos == "none")


def test_other_families_are_left_to_their_tokenizer(ours):
    assert ours(DEMO, DEMO / "evaluation.txt", 2, 64)["bos"] == "tokenizer"


def test_bos_in_a_recipe(gemma, tool, tmp_path):
    """Calibration and evaluation have their own place of BOS; the report tells both, the figure is transformers'."""
    text = DEMO / "evaluation.txt"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"""name: bos
model: {{path: '{gemma}', dtype: float32}}
calibration: {{corpus: '{DEMO}/calibration.txt', sampling: sequential, samples: 4, seq_len: 64, bos: every_window}}
scheme:
  weights: {{type: int8, granularity: channel}}
pipeline: [rtn]
evaluation:
  - {{corpus: '{text}', seq_len: 64, windows: 3}}
  - {{corpus: '{text}', seq_len: 64, windows: 3, bos: none}}
""")
    done = subprocess.run([tool("qbench"), "run", recipe, "--json", "-w", tmp_path / "w"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    report = report[0] if isinstance(report, list) else report
    figures = [p for p in perplexities(report) if p["float_model"]]
    assert [p["bos"] for p in figures] == ["every_window", "none"]
    for figure in figures:
        values = windows_by_hand(gemma, text.read_text(), figure["bos"], 64, 3)
        assert figure["perplexity"] == pytest.approx(math.exp(sum(values) / 3), rel=2e-4)
    log = next((tmp_path / "w").rglob("log.txt")).read_text()
    assert "256 calibration tokens, BOS in every sample" in log and "windows of 64 tokens, float32, no BOS" in log


@pytest.mark.parametrize("key, said", [("calibration", "calibration.bos"), ("evaluation[0]", "evaluation[0].bos")])
def test_an_unknown_place_of_bos(key, said, tool, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    wrong = {"calibration": ", bos: always", "evaluation[0]": ""}[key], {"calibration": "", "evaluation[0]": ", bos: 1"}[key]
    recipe.write_text(f"""name: bos
model: '{DEMO}'
calibration: {{corpus: '{DEMO}/calibration.txt'{wrong[0]}}}
scheme: {{weights: {{type: int8, granularity: channel}}}}
pipeline: [rtn]
evaluation: [{{corpus: '{DEMO}/evaluation.txt'{wrong[1]}}}]
""")
    done = subprocess.run([tool("qbench"), "run", recipe, "--check"], capture_output=True, text=True)
    assert done.returncode == 3 and said in done.stderr and "every_window" in done.stderr


# --- the cases of texts that people have ---------------------------------------------------------------------------------


def test_shared_cases(shared, read):
    cases = shared / "cases" / "texts"
    if not cases.exists():
        pytest.skip("no cases here")
    plain = read(DEMO, cases / "lf.txt")
    for name in ("utf16.txt", "bom.txt", "crlf.txt"):
        assert read(DEMO, cases / name)["ids"] == plain["ids"]
    assert all("\n" in d for d in read(DEMO, cases / "chat.jsonl")["documents"])
