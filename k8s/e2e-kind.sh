#!/usr/bin/env bash
# End-to-end test on kind: build, install, run the quickstart, check that it succeeds. Needs docker, kind, kubectl, helm and geosweep.
# Its authors have not run it (no container engine was available).
set -euo pipefail
cd "$(dirname "$0")/.."
cluster=geosweep-e2e
context=kind-$cluster
k() { kubectl --context "$context" "$@"; }

docker pull -q python:3.11-slim-bookworm
BASE=$(docker inspect --format '{{index .RepoDigests 0}}' python:3.11-slim-bookworm)
export BASE
for target in head worker mlflow; do
  docker build -f k8s/docker/Dockerfile --build-arg BASE --target "$target" -t "geosweep-$target:0.1.0" .
done
kind create cluster --name "$cluster"
trap 'kind delete cluster --name "$cluster"' EXIT
for target in head worker mlflow; do kind load docker-image "geosweep-$target:0.1.0" --name "$cluster"; done

helm repo add kuberay https://ray-project.github.io/kuberay-helm/
helm install kuberay-operator kuberay/kuberay-operator --version 1.7.0 --kube-context "$context" \
  -n kuberay-operator --create-namespace --wait

word=$(head -c 24 /dev/urandom | base64 | tr -dc 'a-zA-Z0-9')
base="postgresql+psycopg://geosweep:$word@postgres:5432"
k create namespace sweeps
k -n sweeps create secret generic geosweep-postgres --from-literal=password="$word"
k -n sweeps create secret generic geosweep-studies --from-literal=url="$base/geosweep"
k -n sweeps create secret generic geosweep-mlflow --from-literal=backend-store-uri="$base/mlflow"
k -n sweeps create secret generic geosweep-s3 --from-literal=AWS_ACCESS_KEY_ID=dev --from-literal=AWS_SECRET_ACCESS_KEY=dev
k apply -k k8s/overlays/kind
for workload in statefulset/postgres deployment/dev-s3 deployment/mlflow; do
  k -n sweeps rollout status "$workload" --timeout=10m
done

manifest=$(mktemp)
geosweep k8s render sweeps/quickstart.yaml --profile kind >"$manifest"
k apply --dry-run=server -f "$manifest"
k apply -f "$manifest"
job=$(k -n sweeps get rayjob -o jsonpath='{.items[0].metadata.name}')

# One worker is killed during the run; the sweep must continue.
workers=(pod -l ray.io/node-type=worker --field-selector=status.phase=Running)
for _ in $(seq 300); do
  [ -n "$(k -n sweeps get "${workers[@]}" -o name)" ] && break
  sleep 2
done
sleep 30
k -n sweeps delete "${workers[@]}" --wait=false
for _ in $(seq 180); do
  [ "$(k -n sweeps get rayjob "$job" -o jsonpath='{.status.jobStatus}')" = SUCCEEDED ] && {
    echo "$job succeeded"
    exit 0
  }
  [ "$(k -n sweeps get rayjob "$job" -o jsonpath='{.status.jobDeploymentStatus}')" = Failed ] && break
  sleep 10
done
k -n sweeps describe rayjob "$job"
k -n sweeps logs -l ray.io/node-type=head --tail=100
exit 1
