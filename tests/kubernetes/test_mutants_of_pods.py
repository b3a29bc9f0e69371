"""Further mutants of a good manifest: of its Pods."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kubernetes.test_mutants import HEAD_BOX, HEAD_POD, LIMITS, Change, both, drop, mounted, variable
from tests.kubernetes.test_mutants_of_jobs import check_refused
from tests.kubernetes.test_rules import BOX, POD, SPEC, edit

SUB = (*SPEC, "submitterPodTemplate", "spec")
SUBBOX = (*SUB, "containers", 0)
SIZED = {"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}
SECURE = {"securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def append(path: tuple[Any, ...], value: Any) -> Change:
    def change(job: dict[str, Any]) -> None:
        place: Any = job
        for key in path:
            place = place.setdefault(key, []) if isinstance(place, dict) else place[key]
        place.append(value)

    return change


def volume(given: dict[str, Any]) -> Change:
    return append((*POD, "volumes"), given)


def entry(given: dict[str, Any]) -> Change:
    return append((*BOX, "env"), given)


def first(given: dict[str, Any]) -> Change:
    return edit(*POD, "initContainers", value=[{"name": "i", **given}])


PODS: dict[str, tuple[str, Change]] = {
    "env name dash first": ("KO124", variable(BOX, "1A", "x")),
    "envFrom prefix": ("KO117",
        edit(*BOX, "envFrom", value=[{"prefix": "1-", "secretRef": {"name": "geosweep-s3", "optional": True}}])),
    "secretKeyRef empty key": ("KO214",
        entry({"name": "B", "valueFrom": {"secretKeyRef": {"name": "geosweep-s3", "key": ""}}})),
    "valueFrom two": ("KO214",
        entry({"name": "B", "valueFrom": {"secretKeyRef": {"name": "geosweep-s3", "key": "a"},
            "fieldRef": {"fieldPath": "metadata.name"}}})),
    "valueFrom empty": ("KO211", entry({"name": "B", "valueFrom": {}})),
    "fieldRef bogus": ("KO117", entry({"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.nmae"}}})),
    "volume twice": ("KO117", volume({"name": "runs", "emptyDir": {}})),
    "mountPath twice": ("KO117", lambda j: mounted(j, {"name": "ray", "mountPath": "/runs"})),
    "mount under runs": ("KO209", lambda j: mounted(j, {"name": "ray", "mountPath": "/runs/data"})),
    "container name twice": ("KO117",
        append((*POD, "containers"), {"name": "ray-worker", "image": "x:1", **SIZED, **SECURE})),
    "init restartPolicy": ("KO117", first({"image": "x:1", "restartPolicy": "Never", **SIZED, **SECURE})),
    "init sleeps without image": ("KO206", first({**SIZED, **SECURE})),
    "no image": ("KO206", drop(*BOX, "image")),
    "image empty": ("KO206", edit(*BOX, "image", value="")),
    "probe both": ("KO117",
        edit(*BOX, "livenessProbe", value={"exec": {"command": ["true"]}, "tcpSocket": {"port": 1}})),
    "probe none": ("KO117", edit(*BOX, "livenessProbe", value={})),
    "probe zero": ("KO117", edit(*BOX, "livenessProbe", value={"exec": {"command": ["false"]}, "periodSeconds": -1})),
    "lifecycle both": ("KO117", edit(*BOX, "lifecycle", value={"preStop": {}})),
    "hostAliases bad": ("KO117", edit(*POD, "hostAliases", value=[{"ip": "300.1.1.1", "hostnames": ["a"]}])),
    "name server that is none": ("KO117", edit(*POD, "dnsConfig", value={"nameservers": ["x"]})),
    "topologySpread skew 0": ("KO117",
        edit(*POD, "topologySpreadConstraints", value=[{"maxSkew": 0, "topologyKey": "a",
            "whenUnsatisfiable": "DoNotSchedule"}])),
    "topologySpread when": ("KO117",
        edit(*POD, "topologySpreadConstraints", value=[{"maxSkew": 1, "topologyKey": "a",
            "whenUnsatisfiable": "Never"}])),
    "toleration exists+value": ("KO117",
        edit(*POD, "tolerations", value=[{"key": "a", "operator": "Exists", "value": "b"}])),
    "toleration seconds w/ NoSchedule": ("KO117",
        edit(*POD, "tolerations", value=[{"key": "a", "operator": "Exists", "effect": "NoSchedule",
            "tolerationSeconds": 3}])),
    "toleration no key equal": ("KO117", edit(*POD, "tolerations", value=[{"operator": "Equal", "value": "b"}])),
    "tolerate everything": ("KO117", edit(*POD, "tolerations", value=[{"operator": "Exists"}])),
    "enableServiceLinks text": ("KO116", edit(*POD, "enableServiceLinks", value="no")),
    "preemptionPolicy": ("KO117", edit(*POD, "preemptionPolicy", value="Sometimes")),
    "supplementalGroups -1": ("KO117", edit(*POD, "securityContext", "supplementalGroups", value=[-1])),
    "fsGroupChangePolicy": ("KO117", edit(*POD, "securityContext", "fsGroupChangePolicy", value="Sometimes")),
    "readOnlyRoot": ("KO216", edit(*BOX, "securityContext", "readOnlyRootFilesystem", value=True)),
    "capabilities add NET_BIND": ("KO201",
        edit(*BOX, "securityContext", "capabilities", "add", value=["NET_BIND_SERVICE"])),
    "resources claims w/o": ("KO211", edit(*BOX, "resources", "claims", value=[{"name": "gpu"}])),
    "resourceClaims no source": ("KO117", edit(*POD, "resourceClaims", value=[{"name": "gpu"}])),
    "resourceClaims both": ("KO117",
        edit(*POD, "resourceClaims", value=[{"name": "gpu", "resourceClaimName": "a",
            "resourceClaimTemplateName": "b"}])),
    "resourceClaims unused": ("KO214",
        edit(*POD, "resourceClaims", value=[{"name": "gpu", "resourceClaimTemplateName": "b"}])),
    "ephemeral 1Mi": ("KO205", both(edit(*LIMITS, "ephemeral-storage", value="1Mi"))),
    "memory limit inf": ("KO205",
        both(edit(*LIMITS, "memory", value="8Ei"), edit(*BOX, "resources", "requests", "memory", value="8Ei"))),
    "cpu 4000 (m forgotten)": ("KO205",
        both(edit(*LIMITS, "cpu", value="4000"), edit(*BOX, "resources", "requests", "cpu", value="4000"))),
    "memory 8g lower": ("KO116", both(edit(*LIMITS, "memory", value="8g"))),
    "memory 8m": ("KO205",
        both(edit(*LIMITS, "memory", value="8000m"), edit(*BOX, "resources", "requests", "memory", value="8000m"))),
    "submitter 2 containers": ("KO107", append((*SUB, "containers"), {"name": "x", "image": "x:1", **SIZED, **SECURE})),
    "submitter command": ("KO215", edit(*SUBBOX, "command", value=["true"])),
    "submitter image other": ("KO120", edit(*SUBBOX, "image", value="busybox:1.36")),
    "submitter memory 64Mi": ("KO205",
        both(edit(*SUBBOX, "resources", "limits", "memory", value="70Mi"), edit(*SUBBOX, "resources", "requests",
            "memory",
            value="70Mi"))),
    "autoscaler v2 w/ restart Always head": ("KO109", edit(*HEAD_POD, "restartPolicy", value="Always")),
    "claim readWrite type": ("KO211", edit(*POD, "volumes", 0, "persistentVolumeClaim", "claimName", value="")),
    "csi w/o driver": ("KO115", volume({"name": "c", "csi": {}})),
    "projected token": ("KO215",
        volume({"name": "c", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}})),
    "configmap volume absent": ("KO211", volume({"name": "c", "configMap": {"name": "Nope!"}})),
    "ephemeral volume without spec": ("KO117", volume({"name": "c", "ephemeral": {}})),
    "secret defaultMode": ("KO117",
        volume({"name": "c", "secret": {"secretName": "geosweep-s3", "defaultMode": 999999}})),
    "mountPropagation": ("KO117",
        lambda j: mounted(j, {"name": "ray", "mountPath": "/x", "mountPropagation": "Bidirectional"})),
    "subPath absolute": ("KO117", lambda j: mounted(j, {"name": "ray", "mountPath": "/x", "subPath": "/abs"})),
    "tty as text": ("KO116", edit(*BOX, "tty", value="x")),
    "workingDir relative": ("KO117", edit(*BOX, "workingDir", value="x")),
    "terminationMessagePolicy": ("KO117", edit(*BOX, "terminationMessagePolicy", value="x")),
    "args": ("KO215", edit(*BOX, "args", value=["x"])),
    "ray image from dockerhub": ("KO120", edit(*BOX, "image", value="rayproject/ray:2.60.0")),
    "head ports dup number": ("KO208", append((*HEAD_BOX, "ports"), {"name": "x", "containerPort": 8265})),
    "worker serviceAccount legacy": ("KO212", edit(*POD, "serviceAccount", value="admin")),
    "runAsUser on container 0": ("KO202", edit(*BOX, "securityContext", "runAsUser", value=0)),
    "runAsNonRoot false container": ("KO202", edit(*BOX, "securityContext", "runAsNonRoot", value=False)),
    "privileged": ("KO201", edit(*BOX, "securityContext", "privileged", value=True)),
    "seccomp container unconfined": ("KO203",
        edit(*BOX, "securityContext", "seccompProfile", value={"type": "Unconfined"})),
    "seccomp localhost no profile": ("KO203",
        edit(*BOX, "securityContext", "seccompProfile", value={"type": "Localhost"})),
    "setHostnameAsFQDN": ("KO215", edit(*POD, "setHostnameAsFQDN", value=True)),
    "ephemeralContainers": ("KO215", edit(*POD, "ephemeralContainers", value=[{"name": "e", "image": "x:1"}])),
    "init root": ("KO201", first({"image": "x:1", **SIZED})),
    "init latest": ("KO206", first({"image": "x", **SIZED, **SECURE})),
    "init mount missing": ("KO211",
        first({"image": "x:1", **SIZED, **SECURE, "volumeMounts": [{"name": "nix", "mountPath": "/x"}]})),
    "init env nameless": ("KO211", first({"image": "x:1", **SIZED, **SECURE, "env": [{"name": "A"}]})),
    "volume gcePD": ("KO204", volume({"name": "c", "gcePersistentDisk": {"pdName": "x"}})),
    "volume image": ("KO204", volume({"name": "c", "image": {"reference": "x:1"}})),
    "projected no sources": ("KO117", volume({"name": "c", "projected": {}})),
    "configMap items empty path": ("KO117",
        volume({"name": "c", "configMap": {"name": "x", "items": [{"key": "a", "path": ""}]}})),
    "downward bad": ("KO117",
        volume({"name": "c", "downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "spec.image"}}]}})),
    "ephemeral no storage": ("KO117",
        volume({"name": "c", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}})),
    "ephemeral bad mode": ("KO117",
        volume({"name": "c", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteSome"],
            "resources": {"requests": {"storage": "1Gi"}}}}}})),
    "lifecycle preStop sleeps negative": ("KO117",
        edit(*BOX, "lifecycle", value={"preStop": {"sleep": {"seconds": -1}}})),
    "probe http no port": ("KO115", edit(*BOX, "livenessProbe", value={"httpGet": {"path": "/"}})),
    "probe successThreshold 2 liveness": ("KO117",
        edit(*BOX, "livenessProbe", value={"exec": {"command": ["true"]}, "successThreshold": 2})),
    "probe port 0": ("KO117", edit(*BOX, "livenessProbe", value={"tcpSocket": {"port": 0}})),
    "affinity self anti required": ("KO117",
        edit(*POD, "affinity", value={"podAntiAffinity": {REQUIRED: [{"topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"a b": "c"}}}]}})),
    "affinity podAffinity no topology": ("KO115",
        edit(*POD, "affinity", value={"podAffinity": {REQUIRED: [{"labelSelector": {}}]}})),
    "affinity Gt text": ("KO117",
        edit(*POD, "affinity",
            value={"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a",
            "operator": "Gt", "values": ["many"]}]}]}}})),
    "affinity key bad": ("KO117",
        edit(*POD, "affinity",
            value={"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a b",
            "operator": "Exists"}]}]}}})),
    "affinity empty term": ("KO117",
        edit(*POD, "affinity", value={"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{}]}}})),
    "spread without selector": ("KO117",
        edit(*POD, "topologySpreadConstraints", value=[{"maxSkew": 1, "topologyKey": "",
            "whenUnsatisfiable": "DoNotSchedule"}])),
    "toleration bad key": ("KO117", edit(*POD, "tolerations", value=[{"key": "a b", "operator": "Exists"}])),
    "toleration bad value": ("KO117",
        edit(*POD, "tolerations", value=[{"key": "a", "operator": "Equal", "value": "b c"}])),
    "nodeSelector windows": ("KO117", edit(*POD, "nodeSelector", value={"kubernetes.io/os": "windows"})),
    "PATH": ("KO124", variable(HEAD_BOX, "PATH", "/usr/bin")),
    "RAY_ADDRESS worker": ("KO124", variable(BOX, "RAY_ADDRESS", "x")),
    "CUDA_VISIBLE_DEVICES": ("KO124", variable(BOX, "CUDA_VISIBLE_DEVICES", "0")),
    "env value number": ("KO116", variable(BOX, "A", 3)),
    "token in args of init": ("KO207", first({"image": "x:1", "args": ["--token=ghp_"+"a1B2"*9], **SIZED, **SECURE})),
}  # fmt: skip


@pytest.mark.parametrize("name", PODS)
def test_refused(name: str) -> None:
    check_refused(*PODS[name])
