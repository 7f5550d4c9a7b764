#!/usr/bin/env python3
"""Multiple choice beside lm-evaluation-harness 0.4.13, in one run, task by task in turn: figures, items that differ, time.

    python tests/benchmarks/tasks.py MODEL TASK.jsonl … [--limit N] [--few-shot N] [--dtype float32] [--threads 1] [--batch-size N]

MODEL is a Hugging Face folder, each TASK a file of query, choices and gold. Run by a Python with lm-eval 0.4.13, torch and
transformers; the harness reads the same file through a task YAML that this script writes, offline, and so do we (--yaml), or the
file itself. Both load the model, tokenize and compute within the clock; neither clock counts the imports of Python.
Prints a line a task: accuracies of both, items whose choice differs, largest difference of a log-probability, seconds and
processor seconds of both (with one thread those do not suffer from what else the machine does), theirs / ours.
"""
import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("QBENCH_BUILD", ROOT / "build/dev")) / "app/qbench"
YAML = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: multiple_choice
test_split: test
fewshot_split: test
fewshot_config: {{sampler: first_n}}
doc_to_text: query
doc_to_choice: choices
doc_to_target: gold
target_delimiter: ""
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_bytes, aggregation: mean, higher_is_better: true}}
"""


def theirs(options, folder, name):
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    start, busy = time.perf_counter(), time.process_time()
    model = HFLM(pretrained=str(options.model), dtype=options.dtype, device=options.device, batch_size=options.batch_size)
    result = lm_eval.simple_evaluate(model=model, tasks=[name], task_manager=manager, num_fewshot=options.few_shot or None, limit=options.limit or None, log_samples=True, bootstrap_iters=0)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    samples = sorted(result["samples"][name], key=lambda sample: sample["doc_id"])
    items = [{"sums": [float(answer[0][0]) for answer in sample["resps"]], **{key: sample[key] == 1 for key in ("acc", "acc_norm", "acc_bytes")}} for sample in samples]
    return {"seconds": seconds, "busy": busy, "acc": result["results"][name]["acc,none"], "acc_norm": result["results"][name]["acc_norm,none"], "items": items}


def ours(options, task):
    command = [PROGRAM, "--threads", str(options.threads), "eval", options.model, "--task", task, "--dtype", options.dtype, "--device", options.device, "--limit", str(options.limit), "--few-shot",
               str(options.few_shot), "--json"]
    def children():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime
    start, busy = time.perf_counter(), children()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    seconds, busy = time.perf_counter() - start, children() - busy  # of the whole process
    if done.returncode:
        raise SystemExit(done.stderr)
    result = json.loads(done.stdout)
    items = [{"sums": answer["log_probabilities"], **{key: answer[key] for key in ("acc", "acc_norm", "acc_bytes")}} for answer in result["answers"]]
    return {"seconds": seconds, "busy": busy, "acc": result["acc"]["value"], "acc_norm": result["acc_norm"]["value"], "items": items}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("tasks", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--few-shot", type=int, default=0)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1, help="of the harness; 1 pads nothing and is the fastest on a CPU")
    parser.add_argument("--yaml", action="store_true", help="ours reads the harness's YAML as well")
    options = parser.parse_args()
    import torch
    torch.set_num_threads(options.threads)
    for file in options.tasks:
        with tempfile.TemporaryDirectory() as folder:
            task = Path(folder) / f"{file.stem}.yaml"
            task.write_text(YAML.format(name=file.stem, file=file.resolve()))
            own = ours(options, task if options.yaml else file)
            harness = theirs(options, folder, file.stem)
        pairs = list(zip(own["items"], harness["items"], strict=True))
        print(json.dumps({
            "task": file.stem, "items": len(pairs), "few_shot": options.few_shot, "dtype": options.dtype, "threads": options.threads,
            "acc": [own["acc"], harness["acc"]], "acc_norm": [own["acc_norm"], harness["acc_norm"]],
            "items_that_differ": sum(any(a[key] != b[key] for key in ("acc", "acc_norm", "acc_bytes")) for a, b in pairs),
            "largest_difference": max(abs(x - y) for a, b in pairs for x, y in zip(a["sums"], b["sums"], strict=True)),
            **{key: [round(own[key], 2), round(harness[key], 2)] for key in ("seconds", "busy")},
            "times_as_fast": {key: round(harness[key] / own[key], 2) for key in ("seconds", "busy")}}), flush=True)


if __name__ == "__main__":
    main()
