#!/usr/bin/env bash
# Regenerates the lock files from constraints.txt and pyproject.toml, with hashes of all PyPI wheels of those versions. Needs uv.
set -euo pipefail
cd "$(dirname "$0")/../.."
options=(--constraints constraints.txt --generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_28
  --no-header --no-annotate --quiet)
here=k8s/docker
whole=$(mktemp)
uv pip compile pyproject.toml --extra cluster "${options[@]}" -o "$whole"
# torch and its CUDA dependencies have a separate lock file, because CPU images take torch from another index.
awk -v cuda="$here/torch-cuda.lock" -v rest="$here/requirements.lock" '
  /^[^ ]/ { out = /^(torch|triton|nvidia-|cuda-)/ && !/^torch(metrics|vision)/ ? cuda : rest }
  { print > out }' "$whole"
printf 'mlflow[auth]==3.17.2\npsycopg[binary]\nboto3\n' | uv pip compile - "${options[@]}" -o "$here/mlflow.lock"
