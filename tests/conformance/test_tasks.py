"""Multiple choice beside an independent computation: every choice as a whole sequence through transformers in float32, tokens as
lm-evaluation-harness 0.4.13 makes them, and beside that harness itself where it is installed."""
import json
import math
import random
import subprocess

import pytest
import torch

import zoos

# Dense with and without windows, ropes that depend on length, learned positions, ALiBi, soft caps, sinks, chunks, experts,
# latent attention, layers that no prefix can be shared through.
FAMILIES = ["llama", "mistral", "gemma2", "gemma3", "phi3-longrope", "llama-dynamic", "opt", "bloom", "falcon-rw", "mixtral", "deepseek-v3", "gpt-oss", "llama4",
            "gemma3n", "qwen3-next", "lfm2"]
WORDS = ["red", "blue", "a", "the", "fish", "tree", "ran", "sat", "under", "over", "big", "old", "é", "house"]


def items(count=20, seed=1, choices=4):
    random.seed(seed)

    def words(low, high):
        return " ".join(random.choices(WORDS, k=random.randint(low, high)))
    made = []
    for _ in range(count):
        start = words(1, 3)  # some choices begin alike
        made.append({"query": f"Question: {words(1, 9)}?\nAnswer:", "gold": random.randrange(choices),
                     "choices": [" " + (start + " " if random.random() < 0.5 else "") + words(1, 4) for _ in range(choices)]})
    return made


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def words_tokenizer(tmp_path_factory):
    """A byte-level BPE of fewer tokens than the small models have, trained on the words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = sorted({c for row in items() for c in row["query"] + "".join(row["choices"])} | set("BC\n"))
    alphabet = sorted({piece for c in letters for piece in pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(c)[0][0]})
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)] + [row["query"] for row in items()], trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


def tokens_of(tokenizer, context, continuation):
    """lm-evaluation-harness's pair of tokens, in its words."""
    if context == "":
        tail = tokenizer.encode(continuation, add_special_tokens=False)
        return ([tokenizer.bos_token_id], tail) if tail[0] != tokenizer.bos_token_id else (tail[:1], tail[1:])
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    head = tokenizer.encode(context)
    return head, tokenizer.encode(context + continuation)[len(head):]


def reference(model, tokenizer, pairs, longest):
    sums = []
    for context, continuation in pairs:
        head, tail = tokens_of(tokenizer, context, continuation)
        ids = (head + tail)[-(longest + 1):]
        with torch.no_grad():
            logits = model(torch.tensor([ids[:-1]])).logits[0].float()
        rows = torch.log_softmax(logits, -1)[-len(tail):]
        sums.append(rows.gather(1, torch.tensor(tail)[:, None]).sum().item())
    return sums


@pytest.fixture
def evaluate(tool):
    def run(model, task, *options, fails=False):
        done = subprocess.run([tool("qbench"), "eval", model, "--task", task, "--json", *map(str, options)], capture_output=True, text=True)
        if fails:
            assert done.returncode == 4, done.stderr
            return done.stderr
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    return run


@pytest.fixture(scope="session")
def models(tmp_path_factory, words_tokenizer):
    """name → (folder with a tokenizer, transformers' model, tokenizer)"""
    from transformers import AutoTokenizer
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("models") / name
            model = zoos.save_model(name, folder)
            for file in words_tokenizer.iterdir():
                (folder / file.name).write_bytes(file.read_bytes())
            made[name] = folder, model, AutoTokenizer.from_pretrained(words_tokenizer)
        return made[name]
    return get


def longest(model):
    return getattr(model.config, "max_position_embeddings", None) or 10**6


def check(result, expected, rows, choices=4):
    """Sums, choices and figures are those of the sums of log-probabilities `expected`."""
    right, right_norm = [], []
    for i, (row, answer) in enumerate(zip(rows, result["answers"], strict=True)):
        sums = expected[i * choices:(i + 1) * choices]
        assert answer["log_probabilities"] == pytest.approx(sums, abs=2e-3, rel=2e-5)
        norm = [s / len(c) for s, c in zip(sums, row["choices"])]
        right.append(sums.index(max(sums)) == row["gold"])
        right_norm.append(norm.index(max(norm)) == row["gold"])
    assert [a["acc"] for a in result["answers"]] == right
    assert [a["acc_norm"] for a in result["answers"]] == right_norm
    for name, flags in (("acc", right), ("acc_norm", right_norm)):
        mean, n = sum(flags) / len(flags), len(flags)
        assert result[name]["value"] == pytest.approx(mean)
        assert result[name]["standard_error"] == pytest.approx(math.sqrt(sum((f - mean) ** 2 for f in flags) / (n - 1)) / math.sqrt(n))


@pytest.mark.parametrize("name", FAMILIES)
def test_choices_of_every_kind_of_model(name, models, evaluate, tmp_path):
    folder, model, tokenizer = models(name)
    rows = items(12)
    pairs = [(row["query"], choice) for row in rows for choice in row["choices"]]
    check(evaluate(folder, write(tmp_path / "task.jsonl", rows)), reference(model, tokenizer, pairs, longest(model)), rows)


def test_examples_an_empty_query_and_spaces_at_its_end(models, evaluate, tmp_path):
    folder, model, tokenizer = models("llama")
    rows = items(6)
    rows[1]["query"], rows[2]["query"] = "", rows[2]["query"] + "  "
    rows[3]["query"] = "the old tree " * 60  # passes the model's 128 positions
    task = write(tmp_path / "task.jsonl", rows)
    pairs = [(row["query"], choice) for row in rows for choice in row["choices"]]
    check(evaluate(folder, task), reference(model, tokenizer, pairs, longest(model)), rows)

    def shots(i, count):
        others = [row for row in rows if row is not rows[i]][:count]
        return "".join(row["query"] + row["choices"][row["gold"]] + "\n\n" for row in others)
    pairs = [(shots(i, 2) + row["query"], choice) for i, row in enumerate(rows[:3]) for choice in row["choices"]]
    check(evaluate(folder, task, "--few-shot", 2, "--limit", 3), reference(model, tokenizer, pairs, longest(model)), rows[:3])


def test_several_contexts_and_one_continuation(models, evaluate, tmp_path):
    folder, model, tokenizer = models("mistral")
    rows = [{"queries": [f"the {noun}" for noun in ("old fish", "big house", "tree")], "continuation": " ran under the tree.", "gold": i % 3} for i in range(4)]
    pairs = [(query, row["continuation"]) for row in rows for query in row["queries"]]
    result = evaluate(folder, write(tmp_path / "task.jsonl", rows))
    check(result, reference(model, tokenizer, pairs, longest(model)), [row | {"choices": [row["continuation"]] * 3} for row in rows], choices=3)


def test_harness_yaml(models, evaluate, tmp_path):
    """Its own PIQA and ARC templates over local documents."""
    folder, model, tokenizer = models("llama")
    random.seed(5)
    docs = [{"question": " ".join(random.choices(WORDS, k=5)), "choices": {"text": random.sample(WORDS, 3), "label": ["A", "B", "C"]}, "answerKey": random.choice("ABC")} for _ in range(6)]
    write(tmp_path / "docs.json", docs)
    yaml = """task: demo
dataset_path: json
dataset_name: null
dataset_kwargs: {data_files: {test: docs.json}}
output_type: multiple_choice
test_split: test
fewshot_split: test
fewshot_config: {sampler: first_n}
num_fewshot: 1
description: "Ran?\\n"
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{choices.label.index(answerKey)}}"
doc_to_choice: "{{choices.text}}"
should_decontaminate: true
doc_to_decontamination_query: question
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""
    task = tmp_path / "demo.yaml"
    task.write_text(yaml)
    rows, pairs = [], []
    for i, doc in enumerate(docs):
        gold = "ABC".index(doc["answerKey"])
        shot = docs[1 if i == 0 else 0]
        before = f"Ran?\nQuestion: {shot['question']}\nAnswer: {shot['choices']['text']['ABC'.index(shot['answerKey'])]}\n\n"
        pairs += [(f"{before}Question: {doc['question']}\nAnswer:", " " + choice) for choice in doc["choices"]["text"]]
        rows.append({"choices": doc["choices"]["text"], "gold": gold})
    result = evaluate(folder, task)
    assert result["few_shot"] == 1
    check(result, reference(model, tokenizer, pairs, longest(model)), rows, choices=3)

    for old, new, key in [('doc_to_text: "Question: {{question}}\\nAnswer:"', "doc_to_text: !function utils.text", "doc_to_text"),
                          ("output_type: multiple_choice", "output_type: generate_until", "output_type"),
                          ("dataset_path: json", "dataset_path: allenai/ai2_arc", "dataset_path"),
                          ("num_fewshot: 1", "process_docs: !function utils.docs", "process_docs"),
                          ("{sampler: first_n}", "{sampler: default}", "fewshot_config.sampler"),
                          ("metric: acc_norm", "metric: brier_score", "metric_list[1].metric"),
                          ("metadata:", "filter_list: [{name: x}]\nmetadata:", "filter_list"),
                          ("{{question}}", "{{query}}", "doc_to_text"),
                          ("{{choices.text}}", "{{choices}}", "doc_to_choice")]:
        task.write_text(yaml.replace(old, new))
        assert old in yaml and key in evaluate(folder, task, fails=True)


def test_bad_items_are_told_by_line(models, evaluate, tmp_path):
    folder = models("llama")[0]
    good = items(2)
    for change, told in [({"gold": 4}, "gold"), ({"gold": "1"}, "gold"), ({"choices": []}, "choices"), ({"choices": [" a", ""]}, "choices[1]"), ({"query": None}, "query"), ({"queries": ["a"]}, "queries")]:
        message = evaluate(folder, write(tmp_path / "task.jsonl", good + [good[0] | change]), fails=True)
        assert "task.jsonl:3" in message and told in message
    for key in ("query", "choices", "gold"):
        message = evaluate(folder, write(tmp_path / "task.jsonl", [{k: v for k, v in good[0].items() if k != key}]), fails=True)
        assert "task.jsonl:1" in message and f'"{key}"' in message
    (tmp_path / "task.jsonl").write_text(json.dumps(good[0]) + "\n\n{\"query\": \n")
    assert "task.jsonl:3" in evaluate(folder, tmp_path / "task.jsonl", fails=True)
    (tmp_path / "task.jsonl").write_text("")
    assert "no items" in evaluate(folder, tmp_path / "task.jsonl", fails=True)
    assert "examples wanted" in evaluate(folder, write(tmp_path / "task.jsonl", good), "--few-shot", 2, fails=True)


def test_two_models_item_by_item(models, evaluate, tmp_path):
    first, second = models("llama")[0], models("qwen2")[0]
    task = write(tmp_path / "task.jsonl", items(12))
    before = evaluate(first, task, "--items", tmp_path / "first.jsonl")
    kept = [json.loads(line) for line in (tmp_path / "first.jsonl").read_text().splitlines()]
    assert kept == before["answers"]
    after = evaluate(second, task, "--compared-to", tmp_path / "first.jsonl")
    a, b = ([answer["acc"] for answer in result["answers"]] for result in (before, after))
    compared = after["compared"]["acc"]
    assert compared["only_here"] == sum(y and not x for x, y in zip(a, b)) and compared["only_there"] == sum(x and not y for x, y in zip(a, b))
    assert compared["difference"] == pytest.approx((sum(b) - sum(a)) / 12)
    n, k = compared["only_here"] + compared["only_there"], min(compared["only_here"], compared["only_there"])
    assert compared["p_value"] == pytest.approx(min(1, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n))
    assert "limit" in evaluate(second, task, "--compared-to", tmp_path / "first.jsonl", "--limit", 5, fails=True)


@pytest.mark.parametrize("name, few_shot", [("llama", 0), ("gemma2", 2)])
def test_equal_to_the_harness_itself(name, few_shot, models, evaluate, tmp_path, monkeypatch):
    """Not among the requirements, for what it pulls in (eager attention, as others drop soft caps): skipped where it is not installed; tests/benchmarks/tasks.py is the same at length."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval 0.4.13 is not installed")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    folder = models(name)[0]
    write(tmp_path / "docs.jsonl", items(20))
    (tmp_path / "demo.yaml").write_text(f"""task: demo
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path}/docs.jsonl}}}}
output_type: multiple_choice
test_split: test
fewshot_split: test
fewshot_config: {{sampler: first_n}}
num_fewshot: {few_shot}
doc_to_text: query
doc_to_choice: choices
doc_to_target: gold
target_delimiter: ""
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}, {{metric: acc_norm, aggregation: mean, higher_is_better: true}},
              {{metric: acc_bytes, aggregation: mean, higher_is_better: true}}]
""")
    theirs = lm_eval.simple_evaluate(model=HFLM(pretrained=str(folder), dtype="float32", device="cpu", attn_implementation="eager"), tasks=["demo"], bootstrap_iters=1,
                                     task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False))
    ours = evaluate(folder, tmp_path / "demo.yaml")
    samples = sorted(theirs["samples"]["demo"], key=lambda sample: sample["doc_id"])
    for answer, sample in zip(ours["answers"], samples, strict=True):
        assert answer["log_probabilities"] == pytest.approx([float(reply[0][0]) for reply in sample["resps"]], abs=2e-3, rel=2e-5)
        assert all(answer[key] == bool(sample[key]) for key in ("acc", "acc_norm", "acc_bytes"))
    for key in ("acc", "acc_norm", "acc_bytes"):
        assert ours[key]["value"] == pytest.approx(theirs["results"]["demo"][f"{key},none"])
        assert ours[key]["standard_error"] == pytest.approx(theirs["results"]["demo"][f"{key}_stderr,none"])
