#!/usr/bin/env bash
# Sets everything up, builds, and runs the main job on the demo model: two recipes are quantized and compared.
# With a display it opens the workbench; without one it does the same headless and says where results and pictures are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
packaging/setup.sh
packaging/build.sh qbench qbench-workbench
if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
  exec build/dev/app/qbench-workbench "${@:---demo}"
fi
workspace=results/demo
build/dev/app/qbench run resources/demo/recipes/*.yaml --workspace "$workspace"
build/dev/app/qbench compare --workspace "$workspace"
build/dev/app/qbench-workbench --export-pictures "$workspace/pictures" --workspace "$workspace"
echo
echo "No display found, so the job ran headless."
echo "Runs (recipes, reports, quantized blocks): $PWD/$workspace/runs"
echo "Pictures:                                  $PWD/$workspace/pictures"
