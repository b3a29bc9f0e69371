#!/usr/bin/env bash
# Makes the locks of constraints.txt and pyproject.toml anew: hashes of every wheel that PyPI has of those versions. Needs uv.
set -euo pipefail
cd "$(dirname "$0")/../.."
options=(--constraints constraints.txt --generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_28
  --no-header --no-annotate --quiet)
here=k8s/docker
whole=$(mktemp)
uv pip compile pyproject.toml --extra cluster "${options[@]}" -o "$whole"
# torch and what it needs for CUDA stand in a lock of their own: a CPU image takes torch from another index.
awk -v cuda="$here/torch-cuda.lock" -v rest="$here/requirements.lock" '
  /^[^ ]/ { out = /^(torch|triton|nvidia-|cuda-)/ && !/^torch(metrics|vision)/ ? cuda : rest }
  { print > out }' "$whole"
printf 'mlflow[auth]==3.17.2\npsycopg[binary]\nboto3\n' | uv pip compile - "${options[@]}" -o "$here/mlflow.lock"
