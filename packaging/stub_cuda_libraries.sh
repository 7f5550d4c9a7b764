#!/usr/bin/env bash
# Lets PyPI's torch, a CUDA build, be imported without CUDA's wheels (3 GB): stub_cuda_libraries.sh VENV
#
# Loading torch wants cuBLAS, cuDNN, NCCL …, of which nothing is called where there is no GPU. In place of each one that is
# absent comes an empty library with the symbols that torch takes from it; a call into one aborts. libcudart and libcupti
# must be the real ones: they are asked, and answer that there is no device.
set -euo pipefail
site=$(echo "$1"/lib/python3.*/site-packages)
lib=$site/torch/lib
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
users=("$lib"/libtorch_cuda.so "$lib"/libtorch_python.so "$lib"/libtorch_nvshmem.so)
nm -D --undefined-only "${users[@]}" | awk '$1 == "U" { print $2 }' | sort -u >"$work/wanted"
nm -D --defined-only "$lib"/lib*.so "$site"/nvidia/cu13/lib/lib{cudart,cupti}.so.13 2>/dev/null |
  awk 'NF == 3 { sub(/@.*/, "", $3); print $3 }' | sort -u >"$work/defined"
catch_all=libnccl.so.2  # takes the symbols without a version: NCCL, cuRAND, cuFile, cuSPARSELt
for name in $(readelf -d "${users[@]}" | sed -n 's/.*NEEDED.*\[\(lib\(cu\|nv\|nccl\)[^]]*\)\]/\1/p' | sort -u); do
  if [ -e "$lib/$name" ] || compgen -G "$site/nvidia/*/lib/$name" >/dev/null; then continue; fi
  # nm prints NAME@VERSION: cuBLAS and its like have their file's name as the version, NVSHMEM its own.
  tag=$name
  case $name in libnvshmem*) tag=NVSHMEM ;; esac
  grep -E "@$tag\$" "$work/wanted" >"$work/mine" || true
  sed 's/@.*//' "$work/mine" >"$work/symbols"
  if [ "$name" = "$catch_all" ]; then
    grep -E '^(nccl|cu|nvshmem)[A-Za-z_0-9]*$' "$work/wanted" | grep -vxFf "$work/defined" >>"$work/symbols" || true
  fi
  { echo '#include <stdlib.h>'; sed 's/.*/void &(void) { abort(); }/' "$work/symbols"; } >"$work/stub.c"
  options=(-shared -fPIC -w -fno-builtin "-Wl,-soname,$name")
  if [ -s "$work/mine" ]; then
    echo "$tag { global: *; };" >"$work/stub.map"
    options+=("-Wl,--version-script=$work/stub.map")
  fi
  cc "${options[@]}" -o "$lib/$name" "$work/stub.c"
done
