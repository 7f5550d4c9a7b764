#!/usr/bin/env bash
# The inference engines that tests/consumers reads checkpoints with, each in a virtual environment of its own beside the
# tests' one. Run by setup.sh --consumers, after it; quick when run again.
#
# The lists name every package, and pip adds none: what only servers and quantizers need stays out.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
deps=${QBENCH_DEPS:-$HOME/.cache/llm-qbench}

# environment NAME MODULE: consumer-NAME with what requirements-NAME.txt lists, made anew where the list has changed.
environment() {
  local list=$here/requirements-$1.txt venv=$deps/consumer-$1
  cmp -s "$list" "$venv/.installed" && return
  printf '\033[1mInstalling from PyPI: %s\033[0m\n' "$(sed -n '/^#/!{p;q}' "$list")" >&2
  rm -rf "$venv"
  /usr/bin/python3 -m venv "$venv"
  "install_$1" "$venv" "$list"
  CUDA_VISIBLE_DEVICES='' "$venv/bin/python" -c "import $2" >"$venv/import.log" 2>&1 || { cat "$venv/import.log" >&2; exit 1; }
  cp "$list" "$venv/.installed"
}

into() { "$1/bin/pip" install -q --disable-pip-version-check --no-deps "${@:2}" >&2; }
# The tests' packages behind the environment's own.
share_tests() { realpath "$deps"/venv/lib/python3.*/site-packages >"$(echo "$1"/lib/python3.*/site-packages)/tests.pth"; }

beside_tests() { share_tests "$1"; into "$1" -r "$2"; }
install_openvino() { beside_tests "$@"; }
install_mlx() { beside_tests "$@"; }

install_gptqmodel() {
  share_tests "$1"
  into "$1" setuptools==84.2.1 wheel==0.48.0  # build it and two of its list
  into "$1" --no-build-isolation -r "$2"
}

install_vllm() {
  into "$1" -r "$2"
  "$here/stub_cuda_libraries.sh" "$1"
}

environment openvino openvino_genai
environment mlx mlx_lm
environment gptqmodel gptqmodel
environment vllm vllm
