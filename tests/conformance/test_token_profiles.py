"""`qbench texts` against the same figures by numpy in float64, on ids of transformers' tokenizer."""
import json
import math
import subprocess
from collections import Counter

import numpy as np
import pytest
from conftest import DEMO
from tokenizers import Tokenizer


def entropy(p):
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def figures(a, b):
    ids = sorted({*a, *b})
    n, m = Counter(a), Counter(b)
    x, y = (np.array([c[i] for i in ids], dtype=np.float64) for c in (n, m))
    p, q = x / x.sum(), y / y.sum()
    ps, qs = (x + 0.5) / (x.sum() + 0.5 * len(ids)), (y + 0.5) / (y.sum() + 0.5 * len(ids))
    runs = {tuple(a[i:i + 13]) for i in range(len(a) - 12)}
    passages = [tuple(b[i:i + 13]) for i in range(len(b) - 12)]
    return {"coverage": sum(c for i, c in m.items() if i in n) / len(b), "distinct_coverage": len(n.keys() & m.keys()) / len(m),
            "jensen_shannon_bits": entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2, "kl_bits": float((qs * np.log2(qs / ps)).sum()),
            "shared_passages": sum(run in runs for run in passages) / len(passages)}


def answer(tool, *arguments):
    done = subprocess.run([tool("qbench"), "texts", *arguments, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_two_texts(tool, tmp_path):
    one = (DEMO / "calibration.txt").read_text()[:20000]
    two = (DEMO / "evaluation.txt").read_text()[:8000] + one[3000:5000]
    (tmp_path / "one.txt").write_text(one)
    (tmp_path / "two.txt").write_text(two)
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    a, b = (tokenizer.encode(text, add_special_tokens=False).ids for text in (one, two))
    first, second = answer(tool, DEMO, tmp_path / "one.txt", tmp_path / "two.txt")
    assert "against_first" not in first and first["tokens"] == len(a) and first["distinct"] == len(set(a)) and first["sequences"] == 1
    assert first["entropy_bits"] == pytest.approx(entropy(np.array(list(Counter(a).values())) / len(a)), rel=1e-12)
    expected, found = figures(a, b), second["against_first"]
    assert 0.05 < expected["shared_passages"] < 0.5
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9), name
    n, m = Counter(a), Counter(b)
    assert found["missing"] and all(m[s["id"]] / len(b) > n[s["id"]] / len(a) for s in found["missing"])
    assert found["surplus"] and all(m[s["id"]] / len(b) < n[s["id"]] / len(a) for s in found["surplus"])
    assert found["missing"][0]["token"] == tokenizer.id_to_token(found["missing"][0]["id"])
    # What the second text copied is shown, longest first; and how far its own stretches of 256 tokens differ, taken by turns.
    longest = found["passages"][0]
    assert longest["text"] in one and longest["text"] in two and longest["tokens"] >= max(p["tokens"] for p in found["passages"])
    assert len(tokenizer.encode(one[3000:5000], add_special_tokens=False).ids) - longest["tokens"] < 30
    stretches = [b[i:i + 256] for i in range(0, len(b), 256)]
    halves = figures(sum(stretches[::2], []), sum(stretches[1::2], []))
    assert found["own_halves_bits"] == pytest.approx(halves["jensen_shannon_bits"], rel=1e-9)


def test_a_text_against_itself(tool, tmp_path):
    (tmp_path / "one.txt").write_text((DEMO / "calibration.txt").read_text()[:5000])
    _, second = answer(tool, DEMO, tmp_path / "one.txt", tmp_path / "one.txt")
    found = second["against_first"]
    assert found["coverage"] == found["distinct_coverage"] == found["shared_passages"] == 1
    assert found["jensen_shannon_bits"] == 0 and found["kl_bits"] == 0 and not found["missing"]


def test_a_recipes_texts_are_those_that_it_samples(tool, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: r\nmodel: {DEMO}\ncalibration: {{corpus: '{DEMO}/calibration.txt', samples: 3, seq_len: 100}}\nscheme:\n  weights: {{type: int4}}\npipeline: [rtn]\n"
                    f"evaluation:\n  - {{corpus: '{DEMO}/evaluation.txt', seq_len: 50, windows: 4}}\n")
    first, second = answer(tool, path)
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    a, b = (tokenizer.encode((DEMO / f"{name}.txt").read_text()).ids for name in ("calibration", "evaluation"))
    assert first["tokens"] == 300 and first["length"]["most"] == 100 and second["tokens"] == 200 and second["sequences"] == 4
    found = second["against_first"]
    assert found["jensen_shannon_bits"] == pytest.approx(figures(a[:300], b[:200])["jensen_shannon_bits"], rel=1e-9)
    assert math.isfinite(found["kl_bits"])


def test_a_recipes_tasks_are_read_with_their_right_answers(tool, tmp_path):
    (tmp_path / "task.jsonl").write_text("".join(json.dumps({"query": f"Question {i}:", "choices": [" wrong words", f" answer {i}"], "gold": 1}) + "\n" for i in range(5)))
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: r\nmodel: {DEMO}\ncalibration: {{corpus: '{DEMO}/calibration.txt', samples: 3, seq_len: 100}}\nscheme:\n  weights: {{type: int4}}\npipeline: [rtn]\n"
                    f"evaluation:\n  - {{evaluator: task, corpus: task.jsonl, limit: 4}}\n")
    _, second = answer(tool, path)
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    lengths = sorted(len(tokenizer.encode(f"Question {i}: answer {i}", add_special_tokens=False).ids) for i in range(4))
    assert second["sequences"] == 4 and second["tokens"] == sum(lengths)
    assert (second["length"]["least"], second["length"]["most"]) == (lengths[0], lengths[-1])


def test_a_recipe_without_calibration_text(tool, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: r\nmodel: {DEMO}\nscheme:\n  weights: {{type: int4}}\npipeline: [rtn]\n")
    done = subprocess.run([tool("qbench"), "texts", path], capture_output=True, text=True)
    assert done.returncode == 4 and "no calibration section" in done.stderr
