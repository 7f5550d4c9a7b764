"""Logits of many models from one process of tests/tools/model_logits."""
import json
import os
import select
import subprocess

from safetensors.torch import load_file, save_file

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
