"""The Pods of a RayJob: head, workers, submitter. Pod Security "restricted"; requests equal limits; secrets by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.kubernetes.code import MOUNT, Code
from orchestrator.kubernetes.fit import Fit
from orchestrator.kubernetes.profile_model import FromSecret, PodModel, ProfileModel, VolumeModel
from orchestrator.kubernetes.profiles import DATA, ROOT
from orchestrator.kubernetes.quantities import quantity

SHARED = 0.4
"""Share of a Pod's memory for /dev/shm: Ray's object store needs 30%, the workers of a data loader the rest.

Below 30% Ray keeps its objects on disk (`ray._private.parameter`, DEFAULT_OBJECT_STORE_MEMORY_PROPORTION).
"""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What the Pods need to know about the sweep."""

    labels: Mapping[str, Mapping[str, str]]
    """Component -> labels."""
    config: str
    """Name of the ConfigMap with the sweep file."""
    image: str
    """For all Pods; empty: those of the profile."""
    root: str
    data: bool
    """Whether its task reads a data set from the claim."""
    fixed: bool
    """Whether the cluster has a fixed size."""

    @property
    def remote(self) -> bool:
        """Whether its root is in an object store."""
        return "://" in self.root


def head(sweep: Sweep, profile: ProfileModel, registry: str, code: Code) -> dict[str, Any]:
    """The Pod template of the head."""
    own = profile.head
    secret = {"secretKeyRef": {"name": "geosweep-studies", "key": "url"}}
    container = {
        "name": "ray-head",
        "image": sweep.image or placed(profile.images.head, registry),
        **_pull(profile),
        "env": [*_environment(sweep, profile, own), {"name": "GEOSWEEP_STORAGE", "valueFrom": secret}],
        "envFrom": _secrets(sweep, profile, own),
        "ports": [
            {"name": "gcs", "containerPort": 6379},
            {"name": "dashboard", "containerPort": 8265},
            {"name": "client", "containerPort": 10001},
            {"name": "metrics", "containerPort": 8080},
        ],
        "resources": resources(own.cpu, own.memory),
        "securityContext": security(),
        "volumeMounts": [
            *_mounts(sweep, profile, own),
            {"name": "sweep", "mountPath": MOUNT, "readOnly": True},
            *code.mounts(),
        ],
    }
    file = {"name": "sweep", "configMap": {"name": sweep.config}}
    volumes = [*_volumes(sweep, profile, own, quantity(own.memory) / 2**30), file, *code.volumes()]
    pod = _pod([container], volumes) | {"serviceAccountName": profile.accounts.head}
    if sweep.fixed:  # an autoscaling head requests Pods from the API server: the operator grants its account the right
        pod["automountServiceAccountToken"] = False
    found = _template(sweep, profile, own, "sweep-head", pod)
    found["metadata"]["annotations"] = {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        **found["metadata"].get("annotations", {}),
    }
    return found


def workers(sweep: Sweep, profile: ProfileModel, registry: str, found: Fit) -> dict[str, Any]:
    """The worker group."""
    own = found.group
    claimed = bool(own.gpu_claim and found.gpu)
    device = {own.gpu_resource: str(found.gpu)} if found.gpu and not claimed else {}
    container: dict[str, Any] = {
        "name": "ray-worker",
        "image": sweep.image or placed(own.image or profile.images.worker, registry),
        **_pull(profile),
        "env": _environment(sweep, profile, own),
        "envFrom": _secrets(sweep, profile, own),
        "resources": resources(str(found.cpu), f"{found.memory}Gi", device),
        "securityContext": security(),
        "volumeMounts": _mounts(sweep, profile, own),
    }
    pod = _pod([container], _volumes(sweep, profile, own, found.memory))
    pod["serviceAccountName"] = profile.accounts.worker
    pod["automountServiceAccountToken"] = False
    pod["terminationGracePeriodSeconds"] = 60
    if claimed:
        container["resources"]["claims"] = [{"name": "gpu"}]
        pod["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": own.gpu_claim}]
    counted = found.gpu and own.gpu_resource == "nvidia.com/gpu" and not claimed
    low = found.max_pods if sweep.fixed else min(own.min_pods, found.max_pods)
    return {
        "groupName": found.name,
        "replicas": low,
        "minReplicas": low,
        "maxReplicas": found.max_pods,
        # The operator and Ray's autoscaler count GPUs by resource name, and do not recognize all names.
        "rayStartParams": {} if counted or not found.gpu else {"num-gpus": str(found.gpu)},
        "template": _template(sweep, profile, own, "sweep-worker", pod),
    }


def submitter(sweep: Sweep, profile: ProfileModel, registry: str) -> dict[str, Any]:
    """The Pod template of the submitter."""
    own = profile.submitter
    container = {
        "name": "ray-job-submitter",
        "image": sweep.image or placed(profile.images.head, registry),
        **_pull(profile),
        "resources": resources(own.cpu, own.memory),
        "securityContext": security(),
    }
    pod = {
        **_pod([container], []),
        "restartPolicy": "Never",
        "serviceAccountName": profile.accounts.submitter,
        "automountServiceAccountToken": False,
    }
    return _template(sweep, profile, own, "sweep-submitter", pod)


def placed(image: str, registry: str) -> str:
    """The image prefixed with the registry, unless it names its own."""
    first, slash, _ = image.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    return image if named or not registry else f"{registry.rstrip('/')}/{image}"


def security() -> dict[str, Any]:
    """For every container."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def resources(cpu: str, memory: str, more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Requests equal limits, so that no neighbor takes the head's memory."""
    amounts = {"cpu": cpu, "memory": memory, **(more or {})}
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _template(
    sweep: Sweep, profile: ProfileModel, own: PodModel, component: str, pod: dict[str, Any]
) -> dict[str, Any]:
    """The template with what the profile says of all Pods and of this one."""
    if secrets := profile.images.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in secrets]
    if selector := {**profile.node_selector, **own.node_selector}:
        pod["nodeSelector"] = selector
    if borne := [*profile.tolerations, *own.tolerations]:
        pod["tolerations"] = [
            {"key": t, "operator": "Exists", "effect": "NoSchedule"} if isinstance(t, str) else t for t in borne
        ]
    if affinity := own.affinity or profile.affinity:
        pod["affinity"] = affinity
    if priority := own.priority_class or profile.priority_class:
        pod["priorityClassName"] = priority
    if runtime := own.runtime_class or profile.runtime_class:
        pod["runtimeClassName"] = runtime
    metadata: dict[str, Any] = {"labels": {**profile.labels, **own.labels, **sweep.labels[component]}}
    if annotations := {**profile.annotations, **own.annotations}:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": pod}


def _pod(containers: list[dict[str, Any]], volumes: list[dict[str, Any]]) -> dict[str, Any]:
    context = {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    found: dict[str, Any] = {"securityContext": context, "containers": containers}
    if volumes:
        found["volumes"] = volumes
    return found


def _pull(profile: ProfileModel) -> dict[str, Any]:
    policy = profile.images.pull_policy
    return {"imagePullPolicy": policy} if policy else {}


def _environment(sweep: Sweep, profile: ProfileModel, own: PodModel) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"name": "RAY_USAGE_STATS_ENABLED", "value": "0"}]
    if sweep.data:
        found.append({"name": "GEOSWEEP_DATA", "value": DATA})
    for name, given in {**profile.env, **own.env}.items():
        if isinstance(given, FromSecret):
            told: dict[str, Any] = {"valueFrom": {"secretKeyRef": {"name": given.secret, "key": given.key}}}
        else:
            told = {"value": given}
        found.append({"name": name, **told})
    return found


def _secrets(sweep: Sweep, profile: ProfileModel, own: PodModel) -> list[dict[str, Any]]:
    """Keys for the tracking server, and for the object store if the sweep is in one; their Pods may have access
    rights.
    """
    names = ["geosweep-tracking", *(["geosweep-s3"] if sweep.remote else [])]
    found: list[dict[str, Any]] = [{"secretRef": {"name": name, "optional": True}} for name in names]
    return found + [{"secretRef": {"name": name}} for name in (*profile.env_from, *own.env_from)]


def _on_claim(sweep: Sweep) -> bool:
    return not sweep.remote or sweep.data


def _further(profile: ProfileModel, own: PodModel) -> Sequence[VolumeModel]:
    return [*profile.volumes, *own.volumes]


def _mounts(sweep: Sweep, profile: ProfileModel, own: PodModel) -> list[dict[str, Any]]:
    places = ((("runs", ROOT),) if _on_claim(sweep) else ()) + (("ray", "/tmp"), ("shm", "/dev/shm"))
    found: list[dict[str, Any]] = [{"name": name, "mountPath": path} for name, path in places]
    return found + [
        {"name": v.name, "mountPath": v.mount, **({"readOnly": True} if v.read_only else {})}
        for v in _further(profile, own)
    ]


def _volumes(sweep: Sweep, profile: ProfileModel, own: PodModel, memory: float) -> list[dict[str, Any]]:
    """`memory` of the Pod in GiB; shared memory counts toward its limit."""
    claim = {"name": "runs", "persistentVolumeClaim": {"claimName": profile.claim}}
    return [
        *([claim] if _on_claim(sweep) else []),
        {"name": "ray", "emptyDir": {"sizeLimit": "20Gi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{math.ceil(memory * SHARED)}Gi"}},
        *({"name": v.name, **v.source} for v in _further(profile, own)),
    ]
