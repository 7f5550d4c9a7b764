#!/usr/bin/env bash
# Sets everything up, builds, and runs all tests: Qt Test through CTest, then the conformance tests through pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
packaging/setup.sh --tests
packaging/build.sh
export QBENCH_BUILD=$PWD/build/dev
ctest --preset dev -j "$(nproc)" --timeout 300
"${QBENCH_DEPS:-$HOME/.cache/llm-qbench}/venv/bin/python" -m pytest -q -p no:cacheprovider tests/conformance tests/fuzz
