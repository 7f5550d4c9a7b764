"""Logits of many models from one process of tests/tools/model_logits; the fixtures are for modules that import them."""
import json
import os
import select
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

import model_zoo

SECONDS = 120


class Answers:
    """Starts the program when it is asked, again where it fell; environment: variables that differ from this process's."""

    def __init__(self, program, environment=None, seconds=SECONDS):
        self.program, self.environment, self.seconds, self.process = program, os.environ | (environment or {}), seconds, None

    def __call__(self, model, folder, ids):
        """{} once the logits are in out.safetensors of the folder, or the refusal: {"error": …, "kind": …}."""
        if self.process is None:
            self.process = subprocess.Popen([self.program, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=self.environment)
        out = folder / "out.safetensors"
        out.unlink(missing_ok=True)
        save_file({"ids": ids}, folder / "ids.safetensors")
        self.process.stdin.write(f"{model}\t{folder / 'ids.safetensors'}\t{out}\n")
        ready, _, _ = select.select([self.process.stdout], [], [], self.seconds)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.process.kill()
            self.process.wait()
            self.process = None
            raise AssertionError("the program fell" if ready else "the program hangs")
        return json.loads(line)

    def logits_or_refusal(self, model, folder, ids):
        answer = self(model, folder, ids)
        if not answer:
            return load_file(folder / "out.safetensors")["logits"]
        assert answer["kind"] == "input", f"failed otherwise than by refusing: {answer}"
        return answer["error"]

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            assert self.process.wait() == 0


TOLERANCE = 1e-4  # of the largest logit, float32


def token_ids():
    return torch.randint(0, model_zoo.VOCABULARY, (2, 80), generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def answers(tool):
    running = Answers(tool("model_logits"))
    yield running
    running.close()


@pytest.fixture
def assert_same_logits(answers, tmp_path):
    """check(path, model): ours of the path are those of transformers' model."""
    def check(path, model):
        ids = token_ids()
        answer = answers(path, tmp_path, ids)
        assert answer == {}, answer
        ours, reference = load_file(tmp_path / "out.safetensors")["logits"], model_zoo.reference_logits(model, ids)
        assert ours.shape == reference.shape
        error = (ours - reference).abs().max() / reference.abs().max()
        assert error <= TOLERANCE, f"{path.name}: largest difference {error:.2e} of the largest logit"
    return check


@pytest.fixture
def refusal(answers, tmp_path):
    """The sentence that refuses a path."""
    def sentence(path):
        answer = answers(path, tmp_path, token_ids())
        assert answer.get("kind") == "input" and "\n" not in answer["error"], answer
        return answer["error"]
    return sentence
