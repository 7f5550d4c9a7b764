#!/usr/bin/env bash
# Sets everything up, builds, and runs all tests: Qt Test through CTest, then pytest.
#
#   packaging/test.sh                without the inference engines that are not installed yet
#   packaging/test.sh --consumers    installs them first: vLLM, GPTQModel, OpenVINO, MLX; and Slurm, for a sweep on a cluster
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
setup=--tests
case "${1:-}" in
  "") ;;
  --consumers) setup=--consumers ;;
  *) echo "usage: packaging/test.sh [--consumers]" >&2; exit 2 ;;
esac
packaging/setup.sh "$setup"
packaging/build.sh
export QBENCH_BUILD=$PWD/build/dev
ctest --preset dev -j "$(nproc)" --timeout 300
# Most tests start small programs, which many threads only slow down: files of tests side by side, a core each. Engines want gigabytes.
workers=$(nproc)
[ "$workers" -le 4 ] || workers=4
OMP_NUM_THREADS=$(($(nproc) / workers)) "${QBENCH_DEPS:-$HOME/.cache/llm-qbench}/venv/bin/python" -m pytest -q -p no:cacheprovider -n "$workers" --dist loadfile \
  tests/conformance tests/fuzz tests/consumers
