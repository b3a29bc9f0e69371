"""Further mutants of a good manifest: of the job, its entrypoint, cluster, autoscaler and head's Service."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from orchestrator.kubernetes.operator_rules import lint
from tests.kubernetes.test_mutants import HEAD, Change, both, drop, good, line
from tests.kubernetes.test_rules import CLUSTER, GROUP, SPEC, edit

AUTO = (*CLUSTER, "autoscalerOptions")


def runtime(text: str) -> Change:
    return edit(*SPEC, "runtimeEnvYAML", value=text)


def service(given: dict[str, Any]) -> Change:
    return edit(*HEAD, "headService", value=given)


JOBS: dict[str, tuple[str, Change]] = {
    "pip unpinned": ("KO118", runtime("pip: [einops]")),
    "pip range": ("KO118", runtime("pip: ['einops>=0.8']")),
    "pip dict unpinned": ("KO118", runtime("pip: {packages: [einops]}")),
    "pip git url": ("KO118", runtime("pip: ['git+https://github.com/a/b']")),
    "pip git url pinned": ("KO118",
        runtime("pip: ['git+https://github.com/a/b@0123456789abcdef0123456789abcdef01234567']")),
    "pip text file": ("KO118", runtime("pip: requirements.txt")),
    "uv unpinned": ("KO118", runtime("uv: [einops]")),
    "conda env": ("KO118", runtime("conda: {dependencies: [pip, {pip: [einops]}]}")),
    "working_dir local": ("KO118", runtime("working_dir: ./src")),
    "working_dir abs": ("KO118", runtime("working_dir: /home/me/src")),
    "py_modules local": ("KO118", runtime("py_modules: [./lib]")),
    "image_uri": ("KO118", runtime("image_uri: rayproject/ray:latest")),
    "container in runtimeEnvYAML": ("KO118", runtime("container: {image: x}")),
    "env_vars list": ("KO118", runtime("env_vars: [A, B]")),
    "pip ==*": ("KO118", runtime("pip: ['einops==0.*']")),
    "pip option": ("KO118", runtime("pip: ['--index-url http://x', 'einops==0.8.1']")),
    "pip torch": ("KO118", runtime("pip: ['torch==2.0.0']")),
    "pip ray": ("KO118", runtime("pip: ['ray==2.9.0']")),
    "autoscaler mount no volume": ("KO125", edit(*AUTO, "volumeMounts", value=[{"name": "nix", "mountPath": "/x"}])),
    "autoscaler mount relative": ("KO125", edit(*AUTO, "volumeMounts", value=[{"name": "ray", "mountPath": "x"}])),
    "autoscaler env dup": ("KO117",
        edit(*AUTO, "env", value=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])),
    "autoscaler envfrom absent": ("KO214", edit(*AUTO, "envFrom", value=[{"secretRef": {"name": "nix"}}])),
    "autoscaler pull policy": ("KO117", edit(*AUTO, "imagePullPolicy", value="Sometimes")),
    "autoscaler memory 1Mi": ("KO205",
        edit(*AUTO, "resources", value={"limits": {"cpu": "500m", "memory": "1Mi"}, "requests": {"cpu": "500m",
            "memory": "1Mi"}})),
    "autoscaler no limits": ("KO125", edit(*AUTO, "resources", value={})),
    "autoscaler request>limit": ("KO205", edit(*AUTO, "resources", "requests", "cpu", value="2")),
    "autoscaler latest": ("KO206", edit(*AUTO, "image", value="rayproject/ray:latest")),
    "autoscaler env RAY_": ("KO125", edit(*AUTO, "env", value=[{"name": "RAY_ADDRESS", "value": "x"}])),
    "autoscaler run root": ("KO202", edit(*AUTO, "securityContext", "runAsUser", value=0)),
    "autoscaler privileged": ("KO201", edit(*AUTO, "securityContext", "privileged", value=True)),
    "autoscaler mem nan": ("KO116", edit(*AUTO, "resources", "limits", "memory", value="512 MB")),
    "autoscaler command": ("KO125", edit(*AUTO, "command", value=["sleep"])),
    "headService name": ("KO126", service({"metadata": {"name": "Bad_Name"}})),
    "headService namespace": ("KO126", service({"metadata": {"namespace": "other"}})),
    "headService labels bad": ("KO126", service({"metadata": {"labels": {"a b": "c"}}})),
    "headService selector": ("KO126", service({"spec": {"selector": {"a": "b"}}})),
    "headService clusterIP": ("KO126", service({"spec": {"clusterIP": "10.0.0.1"}})),
    "headService ports": ("KO126", service({"spec": {"ports": [{"name": "dashboard", "port": 9999}]}})),
    "headService externalName": ("KO122", service({"spec": {"type": "ExternalName", "externalName": "x.example.com"}})),
    "headService long name": ("KO126", service({"metadata": {"name": "a"*64}})),
    "group name upper": ("KO108", edit(*GROUP, "groupName", value="GPU")),
    "group name dup": ("KO108",
        lambda j: j["spec"]["rayClusterSpec"]["workerGroupSpecs"].append(
            copy.deepcopy(j["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]))),
    "group name long": ("KO108", edit(*GROUP, "groupName", value="g"*70)),
    "group name empty": ("KO108", edit(*GROUP, "groupName", value="")),
    "group no maxReplicas": ("KO108", drop(*GROUP, "maxReplicas")),
    "group maxReplicas 0": ("KO108", both(edit(*GROUP, "maxReplicas", value=0))),
    "scaleStrategy": ("KO122", edit(*GROUP, "scaleStrategy", value={"workersToDelete": ["x"]})),
    "activeDeadline huge": ("KO113", edit(*SPEC, "activeDeadlineSeconds", value=10**9)),
    "activeDeadline 60": ("KO113", edit(*SPEC, "activeDeadlineSeconds", value=60)),
    "preRunning>active": ("KO113", edit(*SPEC, "preRunningDeadlineSeconds", value=10**8)),
    "submitter backoff 10000": ("KO107", edit(*SPEC, "submitterConfig", "backoffLimit", value=10000)),
    "metadata job id": ("KO122", edit(*SPEC, "jobId", value="x y")),
    "jobId fixed": ("KO122", edit(*SPEC, "jobId", value="same-id")),
    "entrypointResources": ("KO114", edit(*SPEC, "entrypointResources", value="{\"a\": 1")),
    "entrypointNumGpus": ("KO114", edit(*SPEC, "entrypointNumGpus", value=1)),
    "metadata definition other": ("KO123", edit(*SPEC, "metadata", "definition", value="00000000")),
    "head gpu params": ("KO119", edit(*HEAD, "rayStartParams", "num-gpus", value="1")),
    "head resources param": ("KO119", edit(*HEAD, "rayStartParams", "resources", value="not json")),
    "object-store-memory text": ("KO119", edit(*GROUP, "rayStartParams", value={"object-store-memory": "2Gi"})),
    "object-store-memory too large": ("KO119",
        edit(*GROUP, "rayStartParams", value={"object-store-memory": str(10**12)})),
    "memory param": ("KO119", edit(*GROUP, "rayStartParams", value={"memory": "64Gi"})),
    "log level": ("KO119", edit(*GROUP, "rayStartParams", value={"logging-level": "loud"})),
    "node-ip": ("KO119", edit(*GROUP, "rayStartParams", value={"node-ip-address": "10.0.0.1"})),
    "disable-usage": ("KO119", edit(*GROUP, "rayStartParams", value={"disable-usage-stats": "maybe"})),
    "authOptions secretName": ("KO214", edit(*CLUSTER, "authOptions", "secretName", value="nix")),
    "authOptions gone": ("KO110", drop(*CLUSTER, "authOptions")),
    "tlsOptions": ("KO112", edit(*CLUSTER, "tlsOptions", value={})),
    "queue label bad": ("KO123", both(edit("metadata", "labels", "kueue.x-k8s.io/queue-name", value="Bad Queue"))),
    "annotations number": ("KO123", edit("metadata", "annotations", value={"a": 1})),
    "root twice": ("KO118", line("--root /runs", "--root /runs --root /runs/x")),
    "entry uses $": ("KO114", line("--root /runs", "--root $HOME")),
    "entry quotes": ("KO114", line("--root /runs", "--root '/runs'")),
    "entry tracking creds": ("KO207", line("http://mlflow", "http://u:p@mlflow")),
    "entry newline": ("KO114",
        edit(*SPEC, "entrypoint", value="geosweep run /etc/sweep/sweep.yaml --root /runs\n --address auto --as-job")),
    "entry storage sqlite": ("KO209", line("--as-job", "--storage sqlite:////tmp/x.db --as-job")),
    "entry two files": ("KO118", line("--root", "other.yaml --root")),
    "entry notify plain": ("KO207", line("--as-job", "--notify http://hooks.example.com/x --as-job")),
    "entry override": ("KO118", line("--root", "budget.trials_per_arm=3 --root")),
    "entry code missing": ("KO210", line("--root", "--code /etc/sweep-code/code-1.zip --root")),
    "env_vars number": ("KO118", runtime("env_vars: {A: 3}")),
    "uv dict": ("KO118", runtime("uv: {packages: ['einops']}")),
    "autoscaler mounts over /etc": ("KO125", edit(*AUTO, "volumeMounts", value=[{"name": "ray", "mountPath": "/etc"}])),
    "autoscaler device": ("KO125",
        edit(*AUTO, "resources", value={"limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"}})),
    "headService externalTrafficPolicy": ("KO126", service({"spec": {"externalTrafficPolicy": "Local"}})),
    "headService nodePort": ("KO126",
        service({"spec": {"ports": [{"name": "dashboard", "port": 8265, "nodePort": 30000}]}})),
    "headService port text": ("KO116", service({"spec": {"ports": [{"name": "dashboard", "port": "8265"}]}})),
    "headService sessionAffinity": ("KO117", service({"spec": {"sessionAffinity": "Sometimes"}})),
    "headService ipFamilyPolicy": ("KO117", service({"spec": {"ipFamilyPolicy": "Both"}})),
    "headService no port name twice": ("KO126", service({"spec": {"ports": [{"port": 1}, {"port": 2}]}})),
    "worker service": ("KO115", edit(*GROUP, "headService", value={})),
    "head replicas": ("KO115", edit(*HEAD, "replicas", value=2)),
    "label of pod system": ("KO123", edit(*GROUP, "template", "metadata", "labels", "ray.io/node-type", value="head")),
    "label of pod cluster": ("KO123", edit(*GROUP, "template", "metadata", "labels", "ray.io/cluster", value="other")),
    "pod template name": ("KO123", edit(*GROUP, "template", "metadata", "name", value="fixed")),
    "pod template namespace": ("KO123", edit(*GROUP, "template", "metadata", "namespace", value="other")),
    "pod template generateName": ("KO115", edit(*GROUP, "template", "metadata", "generateName", value="Bad_")),
    "pod template unknown meta": ("KO115", edit(*GROUP, "template", "metadata", "lables", value={})),
    "annotation ray overwrite": ("KO124",
        edit(*HEAD, "template", "metadata", "annotations", value={"ray.io/overwrite-container-cmd": "true"})),
    "annotation group overwrite": ("KO124",
        edit("metadata", "annotations", value={"ray.io/overwrite-container-cmd": "true"})),
    "annotation external storage": ("KO124",
        edit("metadata", "annotations", value={"ray.io/external-storage-namespace": "x"})),
    "unknown top field": ("KO115", edit("sepc", value={})),
    "generateName": ("KO101", both(drop("metadata", "name"), edit("metadata", "generateName", value="x-"))),
    "root s3 no bucket": ("KO209", line("--root /runs", "--root s3://")),
    "root gs": ("KO209", line("--root /runs", "--root gs://b/x")),
    "root file": ("KO209", line("--root /runs", "--root file:///runs")),
    "entry python": ("KO118", edit(*SPEC, "entrypoint", value="python train.py")),
    "entry sudo": ("KO118",
        edit(*SPEC, "entrypoint",
            value="sudo geosweep run /etc/sweep/sweep.yaml --root /runs --address auto --as-job")),
    "entry env prefix": ("KO118",
        edit(*SPEC, "entrypoint", value="A=1 geosweep run /etc/sweep/sweep.yaml --root /runs --address auto --as-job")),
    "entry extend": ("KO118", line("geosweep run", "geosweep extend")),
    "entry relative file": ("KO210", line("/etc/sweep/sweep.yaml", "sweep.yaml")),
    "entry nonascii dash": ("KO118", line("--root", "–root")),
    "entry address port": ("KO118", line("--address auto", "--address 10.0.0.1:6379")),
    "entry option abbreviated": ("KO118", line("--max-concurrent", "--max-conc")),
    "preRunning 0": ("KO116", edit(*SPEC, "preRunningDeadlineSeconds", value=0)),
    "group resources": ("KO119", edit(*GROUP, "resources", value={"CPU": "999"})),
    "head resources": ("KO119", edit(*HEAD, "resources", value={"CPU": "8"})),
    "group idle 10y": ("KO109", edit(*GROUP, "idleTimeoutSeconds", value=10**8)),
    "authOptions mode Token": ("KO116", edit(*CLUSTER, "authOptions", "mode", value="Token")),
    "rayVersion v": ("KO120", edit(*CLUSTER, "rayVersion", value="v2.60.0")),
    "gcsFT embedded": ("KO124", edit(*CLUSTER, "gcsFaultToleranceOptions", value={"backend": "rocksdb"})),
}  # fmt: skip


def check_refused(code: str, change: Change) -> None:
    job = good()
    change(job)
    found = lint([job])
    assert code in {f.code for f in found}, found
    assert all(len(f.message) > 10 for f in found)


@pytest.mark.parametrize("name", JOBS)
def test_refused(name: str) -> None:
    check_refused(*JOBS[name])
