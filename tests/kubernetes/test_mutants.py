"""Manifests that went wrong on a real control plane, and many made from a good one: `--check` refuses them."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator.kubernetes.operator_rules import lint
from orchestrator.kubernetes.secret_shapes import is_secret_name, shape_of
from tests.kubernetes.test_render import EXAMPLES, job_of
from tests.kubernetes.test_rules import BOX, CLUSTER, GROUP, POD, SPEC, edit

HEAD = (*CLUSTER, "headGroupSpec")
HEAD_POD = (*HEAD, "template", "spec")
HEAD_BOX = (*HEAD_POD, "containers", 0)
LIMITS = (*BOX, "resources", "limits")
Change = Callable[[dict[str, Any]], None]


def variable(box: tuple[Any, ...], name: str, value: str) -> Change:
    def change(job: dict[str, Any]) -> None:
        place: Any = job
        for key in box:
            place = place[key]
        place.setdefault("env", []).append({"name": name, "value": value})

    return change


def drop(*path: Any) -> Change:
    def change(job: dict[str, Any]) -> None:
        place: Any = job
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


def both(*changes: Change) -> Change:
    def change(job: dict[str, Any]) -> None:
        for one in changes:
            one(job)

    return change


def mounted(job: dict[str, Any], mount: dict[str, Any]) -> None:
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    group["template"]["spec"]["containers"][0]["volumeMounts"].append(mount)


def line(old: str, new: str) -> Change:
    def change(job: dict[str, Any]) -> None:
        assert old in job["spec"]["entrypoint"]
        job["spec"]["entrypoint"] = job["spec"]["entrypoint"].replace(old, new)

    return change


def gpu(name: str, amount: Any) -> Change:
    return both(edit(*LIMITS, name, value=amount), edit(*BOX, "resources", "requests", name, value=amount))


AWS, GITHUB = "AKIA" + "Z7" * 8, "ghp_" + "a1B2" * 9
WANDB, HUGGING = "0123456789abcdef" * 2 + "01234567", "hf_" + "aB3d" * 9
NAMED: dict[str, tuple[str, Change]] = {
    # the operator refuses
    "idle timeout below zero": ("KO109", edit(*CLUSTER, "autoscalerOptions", "idleTimeoutSeconds", value=-1)),
    "group's idle timeout below zero": ("KO109", edit(*GROUP, "idleTimeoutSeconds", value=-5)),
    "autoscaler by variable": ("KO124", variable(HEAD_BOX, "RAY_enable_autoscaler_v2", "1")),
    "Redis by variable": ("KO124", variable(HEAD_BOX, "RAY_REDIS_ADDRESS", "redis:6379")),
    "empty deletion strategy": ("KO121", edit(*SPEC, "deletionStrategy", value={})),
    "DeleteNone with shutdown": ("KO121", edit(*SPEC, "deletionStrategy", value={
        "onSuccess": {"policy": "DeleteNone"}, "onFailure": {"policy": "DeleteCluster"}})),
    "half of the legacy strategy": ("KO121",
        edit(*SPEC, "deletionStrategy", value={"onSuccess": {"policy": "DeleteCluster"}})),
    "bad group label": ("KO123", edit(*GROUP, "labels", value={"a b": "c"})),
    "bad value of a group label": ("KO123", edit(*GROUP, "labels", value={"a": "b c"})),
    "labels as a start parameter": ("KO111", edit(*GROUP, "rayStartParams", value={"labels": "a=b"})),
    "broken runtimeEnvYAML": ("KO118", edit(*SPEC, "runtimeEnvYAML", value="pip: [a")),
    "upgradeStrategy": ("KO122", edit(*CLUSTER, "upgradeStrategy", value={"type": "Recreate"})),
    # the API server refuses
    "autoscaler v3": ("KO116", edit(*CLUSTER, "autoscalerOptions", "version", value="v3")),
    "bogus upscalingMode": ("KO116", edit(*CLUSTER, "autoscalerOptions", "upscalingMode", value="Fast")),
    "unknown field of a Pod": ("KO115", edit(*POD, "restartpolicy", value="Never")),
    "unknown field of a container": ("KO115", edit(*BOX, "imagePullPolcy", value="Always")),
    "managedBy": ("KO122", edit(*SPEC, "managedBy", value="me")),
    # no Pod starts
    "half a GPU": ("KO205", gpu("nvidia.com/gpu", "0.5")),
    "half a GPU in thousandths": ("KO205", gpu("nvidia.com/gpu", "500m")),
    "GPU in requests alone": ("KO205", edit(*BOX, "resources", "requests", "nvidia.com/gpu", value="1")),
    "absent account": ("KO212", edit(*POD, "serviceAccountName", value="sweep-worker")),
    "absent account of the head": ("KO212", edit(*HEAD_POD, "serviceAccountName", value="nobody")),
    "mount without its volume": ("KO211", edit(*BOX, "volumeMounts", 0, "name", value="others")),
    "absent PriorityClass": ("KO213", edit(*POD, "priorityClassName", value="urgent")),
    "absent RuntimeClass": ("KO213", edit(*POD, "runtimeClassName", value="nvidia")),
    "absent Secret": ("KO214", edit(*BOX, "envFrom", value=[{"secretRef": {"name": "keys"}}])),
    "absent pull secret": ("KO214", edit(*POD, "imagePullSecrets", value=[{"name": "regcred"}])),
    "absent claim": ("KO214", edit(*POD, "volumes", 0, "persistentVolumeClaim", "claimName", value="runs")),
    "bad toleration": ("KO117", edit(*POD, "tolerations", 0, "effect", value="Schedule")),
    "pulled sometimes": ("KO117", edit(*BOX, "imagePullPolicy", value="Sometimes")),
    # nobody says anything
    "neither shutdown nor time to live": ("KO103",
        both(drop(*SPEC, "shutdownAfterJobFinishes"), drop(*SPEC, "ttlSecondsAfterFinished"))),
    "no shutdown, time to live 0": ("KO103", both(
        edit(*SPEC, "shutdownAfterJobFinishes", value=False), edit(*SPEC, "ttlSecondsAfterFinished", value=0))),
    "misspelt device": ("KO205", gpu("nvidia.com/gpus", "1")),
    "device without a vendor": ("KO205", gpu("gpu", "1")),
    "LoadBalancer": ("KO122", edit(*HEAD, "serviceType", value="LoadBalancer")),
    "NodePort": ("KO122", edit(*HEAD, "serviceType", value="NodePort")),
    "LoadBalancer by headService": ("KO122", edit(*HEAD, "headService", value={"spec": {"type": "LoadBalancer"}})),
    "Ingress": ("KO122", edit(*HEAD, "enableIngress", value=True)),
    "W&B key": ("KO207", variable(BOX, "WANDB_API_KEY", WANDB)),
    "access key": ("KO207", variable(BOX, "AWS_ACCESS_KEY_ID", AWS)),
    "access key under another name": ("KO207", variable(BOX, "ID", AWS)),
    "another Ray": ("KO120", edit(*CLUSTER, "rayVersion", value="2.54.0")),
    "tags that differ": ("KO120", edit(*BOX, "image", value="geosweep-worker:0.2.0")),
    "no --address": ("KO118", line("--address auto ", "")),
    "another --address": ("KO118", line("--address auto", "--address local")),
    "another --address behind it": ("KO118", line("--address auto", "--address auto --address=ray://x:10001")),
    "no --as-job": ("KO118", line(" --as-job", "")),
    "misspelt option of run": ("KO118", line("--as-job", "--as-jobs")),
    "option without its value": ("KO118", line("--as-job", "--as-job --storage")),
    "value of a flag": ("KO118", line("--as-job", "--as-job=yes")),
    "debug executor": ("KO118", line("--as-job", "--executor debug --as-job")),
    "no trial at a time": ("KO118", line("--max-concurrent 64", "--max-concurrent 0")),
    "tracking in the Pod": ("KO118", line("http://mlflow.sweeps.svc.cluster.local:5000", "http://localhost:5000")),
    "tracking in a file": ("KO118", line("http://mlflow.sweeps.svc.cluster.local:5000", "file:///runs/mlflow")),
    "variable of ours in runtimeEnvYAML": ("KO118",
        edit(*SPEC, "runtimeEnvYAML", value="env_vars: {GEOSWEEP_STORAGE: 'sqlite:///x'}")),
    "packages that are a number": ("KO118", edit(*SPEC, "runtimeEnvYAML", value="pip: 3")),
    "read-only /runs": ("KO209", edit(*BOX, "volumeMounts", 0, "readOnly", value=True)),
    "read-only claim": ("KO209", edit(*POD, "volumes", 0, "persistentVolumeClaim", "readOnly", value=True)),
    "workers on another claim": ("KO209", edit(*POD, "volumes", 0, "persistentVolumeClaim", "claimName", value="mine")),
    "workers in another part of it": ("KO209", edit(*BOX, "volumeMounts", 0, "subPath", value="mine")),
    # of metadata and endings
    "namespace that is none": ("KO101", edit("metadata", "namespace", value="Team A")),
    "namespace of the cluster": ("KO101", edit("metadata", "namespace", value="kube-system")),
    "misspelt field of metadata": ("KO101", edit("metadata", "lables", value={})),
    "finalizer": ("KO101", edit("metadata", "finalizers", value=["a.example.com/b"])),
    "owner": ("KO101", edit("metadata", "ownerReferences", value=[{"kind": "ConfigMap", "name": "x", "uid": "y"}])),
    "retries on new clusters": ("KO106", edit(*SPEC, "backoffLimit", value=3)),
    "a month to live": ("KO103", edit(*SPEC, "ttlSecondsAfterFinished", value=30 * 86400)),
    "elastic without a queue": ("KO104",
        edit("metadata", "annotations", value={"kueue.x-k8s.io/elastic-job": "true"})),
    "suspended group": ("KO122", edit(*GROUP, "suspend", value=True)),
    "addresses from outside": ("KO122", edit(*HEAD, "headService", value={"spec": {"externalIPs": ["192.0.2.4"]}})),
    "more CPUs than there are": ("KO119", edit(*GROUP, "rayStartParams", value={"num-cpus": "8"})),
    "GPUs that are not there": ("KO119", edit(*GROUP, "rayStartParams", value={"num-gpus": "1"})),
    "a container before Ray's": ("KO119",
        lambda j: j["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"].insert(
            0, {"name": "log", "image": "fluent-bit:3.0"})),
    "dashboard at another port": ("KO119", edit(*HEAD_BOX, "ports", 1, "containerPort", value=9999)),
    "autoscaler of another image": ("KO120",
        edit(*CLUSTER, "autoscalerOptions", "image", value="rayproject/ray:2.40.0")),
    "no device": ("KO205", gpu("nvidia.com/gpu", "0")),
    "studies under another name": ("KO209", edit(*HEAD_BOX, "env", 1, "name", value="STORAGE")),
    "studies in a file": ("KO209",
        edit(*HEAD_BOX, "env", 1, value={"name": "GEOSWEEP_STORAGE", "value": "sqlite:////tmp/x.db"})),
    "root out of the claim": ("KO209", line("--root /runs", "--root /runs/../tmp")),
    "mount over the image": ("KO211",
        lambda j: mounted(j, {"name": "ray", "mountPath": "/opt/geosweep"})),
    "mount over all": ("KO211", lambda j: mounted(j, {"name": "ray", "mountPath": "/"})),
    "medium that is none": ("KO211", edit(*POD, "volumes", 1, "emptyDir", "medium", value="Disk")),
    "size below zero": ("KO211", edit(*POD, "volumes", 1, "emptyDir", "sizeLimit", value="-1Gi")),
    "/tmp of a megabyte": ("KO216", edit(*POD, "volumes", 1, "emptyDir", "sizeLimit", value="1Mi")),
    "two sources of variables": ("KO211", edit(*BOX, "envFrom", value=[
        {"secretRef": {"name": "geosweep-tracking", "optional": True}, "configMapRef": {"name": "x"}}])),
    "unmasked proc": ("KO203", edit(*BOX, "securityContext", "procMount", value="Unmasked")),
    "AppArmor off": ("KO203", edit(*BOX, "securityContext", "appArmorProfile", value={"type": "Unconfined"})),
    "SELinux off": ("KO203", edit(*BOX, "securityContext", "seLinuxOptions", value={"type": "spc_t"})),
    "sysctl of the node": ("KO204", edit(*POD, "securityContext", "sysctls",
        value=[{"name": "kernel.msgmax", "value": "1"}])),
    "priority as a number": ("KO215", edit(*POD, "priority", value=1000)),
    "Windows": ("KO215", edit(*POD, "os", value={"name": "windows"})),
    "selector that no node has": ("KO117", edit(*POD, "nodeSelector", value={"pool": "a b"})),
    "affinity to nothing": ("KO117", edit(*POD, "affinity", value={"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}})),
    "affinity without values": ("KO117", edit(*POD, "affinity", value={"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "a", "operator": "In"}]}]}}})),
    "affinity without weight": ("KO117", edit(*POD, "affinity", value={"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 0, "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}]}})),
    "no name servers": ("KO117", edit(*POD, "dnsPolicy", value="None")),
    "key for the autoscaler": ("KO207",
        edit(*CLUSTER, "autoscalerOptions", "env", value=[{"name": "A_TOKEN", "value": "correct-horse"}])),
    # more of the kind
    "Ingress options": ("KO122", edit(*HEAD, "ingressOptions", value={"host": "a.example.com"})),
    "suspended forever": ("KO104", edit(*SPEC, "suspend", value=True)),
    "queue and a time to live": ("KO103", both(edit("metadata", "labels", "kueue.x-k8s.io/queue-name", value="q"))),
    "priority without queue": ("KO104", edit("metadata", "labels", "kueue.x-k8s.io/priority-class", value="high")),
    "InteractiveMode": ("KO102",
        both(edit(*SPEC, "submissionMode", value="InteractiveMode"), drop(*SPEC, "backoffLimit"))),
    "trials on the head": ("KO119", edit(*HEAD, "rayStartParams", "num-cpus", value="4")),
    "misspelt start parameter": ("KO119", edit(*GROUP, "rayStartParams", value={"num-gpu": "1"})),
    "start parameter that is not a number": ("KO119", edit(*GROUP, "rayStartParams", value={"num-cpus": "two"})),
    "dashboard on localhost": ("KO119", edit(*HEAD, "rayStartParams", "dashboard-host", value="127.0.0.1")),
    "no dashboard": ("KO119", edit(*HEAD, "rayStartParams", "include-dashboard", value="false")),
    "no workers": ("KO122", edit(*CLUSTER, "workerGroupSpecs", value=[])),
    "nothing adds workers": ("KO109", edit(*CLUSTER, "enableInTreeAutoscaling", value=False)),
    "two hosts a worker": ("KO108", edit(*GROUP, "numOfHosts", value=2)),
    "authentication switched off by variable": ("KO124", variable(HEAD_BOX, "RAY_AUTH_MODE", "disabled")),
    "object store on disk": ("KO216", edit(*POD, "volumes", 2, "emptyDir", "sizeLimit", value="1Gi")),
    "no shared memory": ("KO216", edit(*BOX, "volumeMounts", value=[{"name": "runs", "mountPath": "/runs"}])),
    "memory in bytes": ("KO205",
        both(edit(*LIMITS, "memory", value="8"), edit(*BOX, "resources", "requests", "memory", value="8"))),
    "a token for trials": ("KO215", edit(*POD, "automountServiceAccountToken", value=True)),
    "another command": ("KO215", edit(*BOX, "command", value=["sleep", "infinity"])),
    "a node by name": ("KO215", edit(*POD, "nodeName", value="node-1")),
    "no sweep label": ("KO123", drop("metadata", "labels", "geosweep.io/sweep")),
    "a file that is not mounted": ("KO210", line("/etc/sweep/", "/etc/sweeps/")),
    "variable twice": ("KO117", both(variable(BOX, "A", "1"), variable(BOX, "A", "2"))),
    "two sources of a volume": ("KO211", edit(*POD, "volumes", 1, "secret", value={"secretName": "geosweep-s3"})),
    "key in the entrypoint": ("KO207", line("--root", f"--token={GITHUB} --root")),
    "key in runtimeEnvYAML": ("KO207", edit(*SPEC, "runtimeEnvYAML", value=f"env_vars: {{HF: '{HUGGING}'}}")),
    "key in an annotation": ("KO207", edit("metadata", "annotations", value={"note": f"use {GITHUB}"})),
    "password in runtimeEnvYAML": ("KO207",
        edit(*SPEC, "runtimeEnvYAML", value="env_vars: {DB_PASSWORD: correct-horse}")),
}  # fmt: skip


GOOD = job_of((EXAMPLES / "quickstart.rayjob.yaml").read_text())


def good() -> dict[str, Any]:
    return copy.deepcopy(GOOD)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_named_mutant_is_refused_with_a_sentence(name: str) -> None:
    code, change = NAMED[name]
    job = good()
    change(job)
    found = [f for f in lint([job]) if f.code == code]
    assert found, [str(f) for f in lint([job])]
    assert all(len(f.message.split()) > 3 and f.where for f in found)
    said = " ".join(map(str, found))
    assert not any(secret in said for secret in (AWS, GITHUB, WANDB, HUGGING)), "a secret is not repeated"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every field of a manifest, with its value."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key), part
        yield from places(part, (*path, key))


FREE = {"labels", "annotations", "rayStartParams", "limits", "requests", "nodeSelector", "metadata"}
"""Maps of names of the user's choice; they have rules of their own."""


def accepted(changes: dict[str, Change]) -> list[str]:
    found = []
    for name, change in changes.items():
        job = good()
        change(job)
        if job != GOOD and not lint([job]):
            found.append(name)
    return found


def dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


@pytest.mark.slow
def test_every_misspelt_field_is_refused() -> None:
    changes: dict[str, Change] = {}
    for path, _ in places(GOOD["spec"], ("spec",)):
        if isinstance(path[-1], str) and not FREE & set(path[:-1]):

            def change(job: dict[str, Any], path: tuple[Any, ...] = path) -> None:
                place: Any = job
                for key in path[:-1]:
                    place = place[key]
                place[f"{path[-1]}s"] = place.pop(path[-1])

            changes[dotted(path)] = change
    assert len(changes) > 150
    assert accepted(changes) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong", [{"a": 1}, True, *(pytest.param(v, marks=pytest.mark.long) for v in ([], 3.5))], ids=str
)
def test_every_value_of_another_type_is_refused(wrong: Any) -> None:
    changes = {
        dotted(path): edit(*path, value=copy.deepcopy(wrong))
        for path, value in places(GOOD["spec"], ("spec",))
        if type(value) is not type(wrong) and not (wrong == [] and isinstance(value, list | dict))
    }
    assert len(changes) > 100
    assert accepted(changes) == []


LEFT_OUT = {
    r"backoffLimit|preRunningDeadlineSeconds|submissionMode|submitterConfig(\.backoffLimit)?": "the operator's default",
    r"ttlSecondsAfterFinished": "the default is 0: the cluster goes at once",
    r"metadata(\.\w+)?": "told by geosweep for readers",
    r"\S*autoscalerOptions\.(idleTimeoutSeconds|resources\S*)": "the autoscaler's defaults",
    r"\S*(requests(\.\w+)?|env|envFrom|env\.0\.value|secretRef\.optional|ports|ports\.\d\.name)": "defaults of Pods",
    r"\S*(fsGroup|runAsUser|terminationGracePeriodSeconds|automountServiceAccountToken)": "of image or account",
    r"\S*(sizeLimit|tolerations\S*|rayStartParams|dashboard-host|readOnly|restartPolicy|part-of)": "a default",
    r"\S*(headGroupSpec\S*serviceAccountName|annotations|safe-to-evict)": "the operator's account; a retry",
    r"\S*(minReplicas|replicas)": "0, and the autoscaler adds",
}
"""Fields without which the manifest still runs, and why."""


@pytest.mark.slow
def test_what_may_be_left_out_is_known() -> None:
    changes = {dotted(path): drop(*path) for path, _ in places(GOOD["spec"], ("spec",)) if isinstance(path[-1], str)}
    assert len(changes) > 150
    left = [name.removeprefix("spec.") for name in accepted(changes)]
    assert not [name for name in left if not any(re.fullmatch(known, name) for known in LEFT_OUT)]


ANYTHING = (
    r"\S*(metadata\.(sweep|definition|checkpoint_every)|env\.0\.value|annotations\.\S+|part-of|tolerations\.\d\.key)"
)
"""Text of which any is right."""


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["Bogus value", "bogus", -1, 0], ids=str)
def test_nonsense_of_the_right_type_is_refused(wrong: str | int) -> None:
    kind = type(wrong)
    changes = {dotted(p): edit(*p, value=wrong) for p, v in places(GOOD["spec"], ("spec",)) if type(v) is kind}
    assert len(changes) > 5
    left = [name.removeprefix("spec.") for name in accepted(changes)]
    assert not [
        name for name in left if not re.fullmatch(ANYTHING, name) and not re.fullmatch(RIGHT.get(wrong, "-"), name)
    ]


RIGHT: dict[str | int, str] = {
    "bogus": r"\S*(containers\.0\.name|groupName|env\.0\.name|configMap\.name|ports\.\d\.name)",
    0: r"backoffLimit|submitterConfig\.backoffLimit|ttlSecondsAfterFinished"
    r"|\S*(fsGroup|idleTimeoutSeconds|terminationGracePeriodSeconds|replicas|minReplicas)",
}
"""Fields for which that very value is right."""


@pytest.mark.parametrize("text, what", [
    (f"export KEY={AWS}", "AWS access key"),
    ("aws_secret_access_key: " + "aB3/" * 10, "AWS secret key"),
    (GITHUB, "GitHub"),
    ("github_pat_" + "a1B2_" * 8, "GitHub"),
    (f"wandb_api_key={WANDB}", "Weights"),
    (f"WANDB: {WANDB}", "Weights"),
    (HUGGING, "Hugging"),
    ("postgresql+psycopg://me:word@host/db", "address"),
    ("https://user:p%40ss@registry.example.com", "address"),
    ("redis://:secretword@host:6379", "address"),
    ("-----BEGIN RSA PRIVATE KEY-----", "private key"),
    ("Authorization: Bearer abcdef1234567890", "header"),
    ("glpat-" + "aB3d" * 5, "GitLab"),
    ("xoxb-1234567890-abcdef", "Slack"),
    ("sk-ant-" + "aB3d" * 8, "Anthropic"),
])  # fmt: skip
def test_keys_are_found_by_their_shape(text: str, what: str) -> None:
    assert what in shape_of(text)
    job = good()
    edit("metadata", "annotations", value={"x": text})(job)
    assert "KO207" in {f.code for f in lint([job])}


@pytest.mark.parametrize("text", [
    "s3://bucket/runs", "http://mlflow.sweeps.svc.cluster.local:5000", "registry.example.com:5000/a/b:1",
    "0123456789abcdef0123456789abcdef01234567", "budget: {unit: tokens, per_trial: 2000}", "hf_home", "a@example.com",
    "image@sha256:" + "ab" * 32, "https://example.com/a:b/c", "task-token-2", "x" * 300_000, "a." * 100_000, "sk-learn",
])  # fmt: skip
def test_what_is_no_key_is_left_alone(text: str) -> None:
    assert shape_of(text) == ""


@pytest.mark.parametrize("name, secret", [
    ("WANDB_API_KEY", True), ("AWS_SECRET_ACCESS_KEY", True), ("AWS_ACCESS_KEY_ID", True), ("HF_TOKEN", True),
    ("DB_PASSWORD", True), ("apiKey", True), ("OPENAI_API_KEY", True), ("GH_TOKEN", True), ("MY_SECRET", True),
    ("TOKENIZERS_PARALLELISM", False), ("RAY_AUTH_TOKEN_PATH", False), ("PWD", False), ("MAX_TOKENS", False),
    ("KEYBOARD", False), ("NCCL_DEBUG", False), ("SECRET_NAME", False),
])  # fmt: skip
def test_names_that_say_they_hold_a_key(name: str, secret: bool) -> None:
    assert is_secret_name(name) == secret


def test_both_ways_of_writing_an_option_are_read() -> None:
    job = good()
    job["spec"]["entrypoint"] = job["spec"]["entrypoint"].replace(
        "--root /runs --address auto", "--root=/runs --address=auto"
    )
    assert not lint([job])
