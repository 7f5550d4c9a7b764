"""Every family, quantized by every method at 8 bits, within 2 % of the float model's loss, or refused in one sentence before any work.

The loss is what the float model's own text costs, in expectation: -Σ p_float log p over all tokens at every position, both sharpened by the
same factor, such that the float model's is half of what guessing costs. Random models are nearly indifferent among tokens, and on random text
one that is quantized wrongly would do no worse than a right one; here every change of the function costs. A single wrong matrix may still
cost less than 2 %, so the logits themselves are held to the float model's too. The float model is transformers'."""
import json
import math
import os
import random
import re
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

import model_zoo
import zoo_dense
import zoo_experts
import zoo_hybrid

SAMPLES, LENGTH = 4, 32
ZOOS = (model_zoo, zoo_dense, zoo_experts, zoo_hybrid)
OUTSIDE = {"baichuan-7b": zoo_dense.save_baichuan, "baichuan-13b": lambda folder: zoo_dense.save_baichuan(folder, alibi=True), "minicpm": zoo_dense.save_minicpm,
           "chatglm": zoo_dense.save_chatglm}
# model: its row in `qbench families`. Several of a family where its layers differ.
MODELS = {
    "bloom": "bloom", "falcon-7b": "falcon", "falcon-40b": "falcon", "falcon-rw": "falcon", "gpt-neox": "gpt_neox", "gemma": "gemma", "seed-oss-biased": "seed_oss",
    "arcee": "arcee", "ernie4-5-biased": "ernie4_5", "glm": "glm", "glm4": "glm4", "olmo2": "olmo2", "olmo3": "olmo3", "exaone4": "exaone4", "smollm3": "smollm3",
    "hunyuan-dense": "hunyuan_v1_dense", "ministral3": "ministral3", "minicpm": "minicpm", "baichuan-7b": "baichuan", "baichuan-13b": "baichuan", "chatglm": "chatglm",
    "gpt2": "gpt2", "gptj": "gptj", "phi": "phi", "olmo": "olmo", "cohere": "cohere", "cohere2": "cohere2", "nemotron": "nemotron", "qwen2-5-vl": "qwen2_vl",
    "qwen3-vl": "qwen3_vl", "mllama": "mllama", "olmoe": "olmoe", "granitemoe": "granitemoe", "granitemoeshared": "granitemoeshared", "glm4-moe": "glm4_moe",
    "solar-open": "solar_open", "dots1": "dots1", "ernie4-5-moe": "ernie4_5_moe", "hunyuan-moe": "hunyuan_v1_moe", "minimax-m2": "minimax_m2", "phimoe": "phimoe",
    "gpt-oss": "gpt_oss", "llama4": "llama4", "deepseek-v2": "deepseek_v2", "deepseek-v2-lite": "deepseek_v2", "deepseek-v3": "deepseek_v3",
    "deepseek-v3-half-rope": "deepseek_v3", "glm4-moe-lite": "glm4_moe_lite", "youtu": "youtu", "mistral4": "mistral4", "qwen3-next": "qwen3_next",
    "qwen3-5": "qwen3_5", "qwen3-5-moe": "qwen3_5_moe", "lfm2": "lfm2", "lfm2-moe": "lfm2_moe", "llama-tied-biased": "llama", "mistral": "mistral",
    "mixtral": "mixtral", "granite": "granite", "qwen2": "qwen2", "qwen2-moe": "qwen2_moe", "qwen3": "qwen3", "qwen3-moe": "qwen3_moe", "phi3": "phi3",
    "gemma2": "gemma2", "gemma3": "gemma3", "opt": "opt", "opt-350m": "opt", "starcoder2": "starcoder2", "stablelm": "stablelm", "stablelm-2-12b": "stablelm",
    "internlm2": "internlm2", "gemma3n": "gemma3n",
}

# Few steps and small searches: what is tested is that a method understands a family's layers. Pruning takes what costs next to nothing.
ALWAYS = {"rtn": "rtn", "gptq": "gptq", "awq → clip": "{method: awq, grid: 4}, {method: clip, n_grid: 10}", "smoothquant": "{method: smoothquant, linears: true}",
          "quarot": "quarot", "hqq": "hqq"}
DRAWN = {"quarot online": "{method: quarot, online_down: true, online_heads: true}", "quarot → smoothquant": "quarot, {method: smoothquant, linears: true}",
         "os_plus": "{method: os_plus, steps: 10}", "awq module": "{method: awq, grid: 3, objective: module, samples: 2}",
         "gptq in turn": "{method: gptq, true_sequential: true}", "owq": "{method: owq, share: 0.1}", "quik": "{method: quik, columns: 6}", "spqr": "spqr",
         "adadim": "adadim", "dgq": "{method: dgq, channel_steps: 4, group_steps: 5}",
         "omniquant": "{method: omniquant, epochs: 1, batch_size: 4, lwc_lr: 0.001, let: true, let_lr: 0.001}",
         "tesseraq": "{method: tesseraq, iterations: 2, rounds: 2}", "autoround": "{method: autoround, iters: 3, batch_size: 4, lr: 0.004}",
         "norm_tweaking": "{method: norm_tweaking, epochs: 1, batch_size: 4}", "e2e_tuning": "{method: e2e_tuning, epochs: 1}",
         "magnitude": "{method: magnitude, sparsity: 0.02}", "wanda": "{method: wanda, sparsity: 0.02}", "shortgpt": "shortgpt"}
PIPELINES = ALWAYS | DRAWN
MOST_OFF = {"e2e_tuning": 0.05}  # of the logits; it goes on learning, from few tokens here. All others: 2 %
FULL = os.environ.get("QBENCH_FULL") == "1"

# Where a rotation does not pass: a part of the sentence that says why. All other pairs run.
LAYER_NORMS, BEHIND = "rotations need RMS norms with weights", "norms of a block's outputs do not commute with a rotation"
UNROTATED = dict.fromkeys(["bloom", "falcon-7b", "falcon-40b", "falcon-rw", "gpt-neox", "gpt2", "gptj", "phi", "olmo", "cohere", "cohere2", "nemotron", "phimoe", "opt", "opt-350m",
                           "starcoder2", "stablelm", "stablelm-2-12b"], LAYER_NORMS) | dict.fromkeys(["glm4", "olmo2", "olmo3", "exaone4", "gemma2", "gemma3", "gemma3n"], BEHIND)
# Other refusals: (model, method): a part of the sentence.
REFUSED = {(name, method): why for name, why in UNROTATED.items() for method in PIPELINES if "quarot" in method} | {
    ("gemma3n", "shortgpt"): "blocks share keys and values with earlier ones"}


def token_ids():
    return torch.randint(0, 90, (SAMPLES, LENGTH), generator=torch.Generator().manual_seed(1))


def pipelines_of(model):
    """All, or those that every family gets and three more: each has its turn once in six models, in a shuffled order."""
    if FULL:
        return list(PIPELINES)
    drawn = []
    for turn in range(math.ceil(3 * len(MODELS) / len(DRAWN))):
        drawn += random.Random(turn).sample(list(DRAWN), len(DRAWN))
    at = 3 * list(MODELS).index(model)
    return [*ALWAYS, *drawn[at:at + 3]]


def make(name, folder):
    """Saves the model; answers logits(ids, kept layers)."""
    if name in OUTSIDE:
        logits = OUTSIDE[name](folder)
        return lambda ids, kept: logits(ids) if kept is None else None
    if name == "internlm2":
        model = model_zoo.save_internlm2(folder)
    elif name in zoo_dense.wrappers():
        model = zoo_dense.save_wrapper(name, folder)
    else:
        model = next(zoo for zoo in ZOOS if name in zoo.MODELS).save_model(name, folder)
    parent, attribute = next((module, part) for key, module in model.named_modules() for part in ("layers", "h")
                             if isinstance(getattr(module, part, None), torch.nn.ModuleList) and "visual" not in key and "vision" not in key)
    layers = list(getattr(parent, attribute))
    if crossed := getattr(parent, "cross_attention_layers", None):  # which text passes by
        layers, parent.cross_attention_layers = [layer for i, layer in enumerate(layers) if i not in crossed], []

    types = getattr(parent.config, "layer_types", None)

    def logits(ids, kept):
        kept = range(len(layers)) if kept is None else kept
        setattr(parent, attribute, torch.nn.ModuleList([layers[i] for i in kept]))
        if types:  # masks are chosen by number
            parent.config.layer_types = [types[i] for i in kept]
        with torch.no_grad():
            return model(ids, use_cache=False).logits.float()
    logits.layers = layers
    return logits


class Measure:
    """What is wrong with a quantized model's logits."""

    def __init__(self, logits):
        self.logits = logits.double()
        low, high = 0.0, 100.0
        for _ in range(40):
            self.factor = (low + high) / 2
            self.float_loss = self.loss(self.logits)
            low, high = (self.factor, high) if self.float_loss > math.log(logits.shape[-1]) / 2 else (low, self.factor)

    def loss(self, logits):
        wanted = torch.log_softmax(self.factor * self.logits, -1).exp()
        return -(wanted * torch.log_softmax(self.factor * logits.double(), -1)).sum(-1).mean().item()

    def off(self, logits):
        """The typical token's error: few go to other experts because two were nearly equal."""
        return ((logits.double() - self.logits).norm(dim=-1) / self.logits.norm(dim=-1)).median().item()

    def problem(self, logits, most_off=0.02):
        if not torch.isfinite(logits).all():
            return "not finite"
        increase, off = self.loss(logits) / self.float_loss - 1, self.off(logits)
        return None if increase <= 0.02 and off <= most_off else f"the loss is {increase:+.2%} off, logits {off:.3f}"


@pytest.fixture(scope="module")
def ask(tool):
    """Two processes share the questions about a model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small models gain nothing by more, and the processes are two
    processes = [subprocess.Popen([tool("stage_pairs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}) for _ in range(2)]

    def all_of(questions):
        for i, question in enumerate(questions):
            processes[i % 2].stdin.write(json.dumps(question) + "\n")
        for process in processes:
            process.stdin.flush()
        return [json.loads(processes[i % 2].stdout.readline()) for i in range(len(questions))]
    yield all_of
    for process in processes:
        process.stdin.close()
        assert process.wait() == 0
    torch.set_num_threads(threads)


def recipe_of(folder, pipeline):
    return f"""name: family
model: {{path: '{folder}', dtype: float32}}
calibration: {{corpus: ids}}
scheme:
  weights: {{type: int8, symmetric: false, granularity: group, group_size: 8}}
pipeline: [{pipeline}]
"""


def problem_of(method, answer, folder, measure, logits, ids):
    """None where the run kept the function."""
    if "errors" not in answer:
        return answer
    if plan := next(folder.glob("plan-*-shortgpt.txt"), None):
        measure = Measure(logits(ids, [int(k) for k in plan.read_text().split()]))
    problem = measure.problem(load_file(folder / "work.safetensors")["logits"], MOST_OFF.get(method, 0.02))
    return f"{problem}; errors of the blocks {answer['errors']}" if problem or None in answer["errors"] else None


@pytest.mark.parametrize("name", MODELS)
def test_every_method_keeps_a_familys_loss_or_refuses_the_model(name, ask, tmp_path):
    logits = make(name, tmp_path / "model")
    ids = token_ids()
    save_file({"ids": ids}, tmp_path / "ids.safetensors")
    measure = Measure(logits(ids, None))
    methods = [method for method in pipelines_of(name) if not (method == "shortgpt" and name in OUTSIDE)]
    folders = {method: tmp_path / method for method in methods}
    answers = dict(zip(methods, ask([{"recipe": recipe_of(tmp_path / "model", PIPELINES[m]), "ids": str(tmp_path / "ids.safetensors"), "folder": str(folders[m]),
                                      "brief": True} for m in methods])))
    problems = {}
    for method, answer in answers.items():
        if why := REFUSED.get((name, method)):
            if not re.match(rf"(quarot|shortgpt): .*{re.escape(why)}", answer.get("refused", "")) or answer["refused"].count("\n"):
                problems[method] = answer
        elif problem := problem_of(method, answer, folders[method], measure, logits, ids):
            problems[method] = problem
    assert not problems, "\n".join(f"{method}: {problem}" for method, problem in problems.items())


@pytest.mark.parametrize("name", ["qwen2", "gpt2", "deepseek-v3", "olmo2", "lfm2", "bloom", "gemma3n"])
def test_one_wrong_matrix_is_seen(name, tmp_path):
    logits = make(name, tmp_path / "model")
    measure = Measure(logits(token_ids(), None))
    matrices = [(key, value) for layer in logits.layers for key, value in layer.named_parameters() if value.dim() == 2 and "norm" not in key]
    assert len(matrices) >= 8
    for key, value in matrices:
        with torch.no_grad():
            right = value.clone()
            value.zero_()
            assert measure.problem(logits(token_ids(), None)), key
            value.copy_(right)


def test_every_family_is_here_and_every_method_often(tool):
    listed = json.loads(subprocess.run([tool("qbench"), "families", "--json"], capture_output=True, text=True, check=True).stdout)
    assert {family["name"] for family in listed} == set(MODELS.values())
    methods = json.loads(subprocess.run([tool("qbench"), "methods", "--json"], capture_output=True, text=True, check=True).stdout)
    for method in (m["name"] for m in methods):
        uses = sum(bool(re.search(rf"\b{method}\b", PIPELINES[p])) for name in MODELS for p in pipelines_of(name))
        assert uses >= 10, f"{method} is tried on {uses} models"
