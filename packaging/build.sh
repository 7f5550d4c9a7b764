#!/usr/bin/env bash
# Configures and builds the given targets (default: all) in build/dev. Quick when nothing changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cmake --preset dev >build-configure.log 2>&1 || { cat build-configure.log >&2; exit 1; }
rm -f build-configure.log
if [ $# -gt 0 ]; then cmake --build --preset dev --target "$@"; else cmake --build --preset dev; fi
