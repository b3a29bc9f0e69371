"""A sweep file as a ConfigMap and a RayJob (KubeRay 1.7, ray.io/v1). The same input gives the same bytes.

The entrypoint is `geosweep run` on a root that outlives every Pod, so a retry, a preemption by Kueue and a second
submission all continue the sweep from its newest checkpoints: its folder is named by the definition, never by the job.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

from orchestrator.definition import model, sweep_file
from orchestrator.definition.addresses import secrets
from orchestrator.definition.model import Spec
from orchestrator.kubernetes.code import FILE_LIMIT, MOUNT, Code
from orchestrator.kubernetes.fit import Fit, RenderError, fit
from orchestrator.kubernetes.operator_rules import lint
from orchestrator.kubernetes.profiles import CLAIM, DATA, NAMESPACE, PROFILES, ROOT, TRACKING
from orchestrator.remote import Parcel

RAY = "2.60.0"
SLACK_S = 3600
"""Beyond the wall-clock budget: images, start of Pods, the last checkpoint."""
NAME_LIMIT = 47
HEADS = 10
"""Heads that may be lost: each costs the submitter a Pod, and its next one submits the same job to the new head.

The operator's own retries (`backoffLimit`) cannot tell an end that was meant, or will come again, from a fault, and pay
for a new cluster each time: they are off, and `run --as-job` tries again what a fault of the machine ended.
"""


def render(
    text: str,
    file: str,
    *,
    profile: str = "gpu-cluster",
    queue: str = "",
    registry: str = "",
    root: str = ROOT,
    parcel: Parcel | None = None,
    code_at: str = "",
) -> str:
    """The manifest of the sweep in `text`. `parcel` goes in a ConfigMap, unless it lies at the URI `code_at`.

    Raises SpecError for an invalid sweep, RenderError for one that cannot run on the profile's cluster.
    """
    spec = sweep_file.loads(text, file)
    if hidden := [key for key, _ in secrets(text)]:
        raise RenderError(
            f"notify.{hidden[0]} is an address that only its owner should know, and a manifest is read by many; "
            "write ${env:NAME} and set the variable where the driver runs"
        )
    _check_root(root)
    _check_data(spec)
    _check_tracking(spec)
    if profile not in PROFILES:
        raise RenderError(f"--profile {profile}: there is: {', '.join(sorted(PROFILES))}")
    if queue and not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", queue):
        raise RenderError(f"--queue {queue}: no name of a Kueue LocalQueue (lower case, digits, dashes, at most 63)")
    if registry and not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)*/?", registry):
        raise RenderError(f"--registry {registry}: name it as images do, registry.example.com/team")
    if (size := len(text.encode())) > FILE_LIMIT:
        raise RenderError(f"the file has {size:,} bytes; kubectl apply takes {FILE_LIMIT:,} in a ConfigMap")
    code = Code(parcel, code_at, job=job_name(spec), labels=_labels(spec, "code"))
    documents = [
        _config_map(spec, text),
        *code.config_maps(),
        _ray_job(spec, text, profile, queue, registry, root, code),
    ]
    if found := lint(documents):
        raise RenderError("the rendered manifest is invalid: " + "; ".join(map(str, found)))
    return "---\n".join(yaml.dump(d, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True) for d in documents)


class _Plain(yaml.CSafeDumper):
    """No anchors; text of several lines as a block that can be read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)


def job_name(spec: Spec) -> str:
    """DNS-1035, at most 47 characters, ends in the hash of the sweep's definition."""
    identity = model.sweep_id(spec)
    digest = identity[-8:]
    stem = identity[:-9].lower().replace("_", "-")
    stem = stem if stem[0].isalpha() else f"s-{stem}"
    return f"{stem[: NAME_LIMIT - 9].rstrip('-')}-{digest}"


def _config_name(spec: Spec, text: str) -> str:
    return f"{job_name(spec)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _check_root(root: str) -> None:
    if _is_remote(root):
        if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_-][A-Za-z0-9._-]*)+", root):
            raise RenderError(f"--root {root}: write s3://BUCKET/FOLDER, of letters, digits and . _ -")
        return
    path = PurePosixPath(root)
    if not path.is_relative_to(ROOT) or ".." in path.parts or not re.fullmatch(r"[A-Za-z0-9._/-]+", root):
        raise RenderError(
            f"--root {root}: a local folder of a Pod is gone with it; on a cluster sweeps live in an object store, "
            f"s3://BUCKET/FOLDER, or on the volume that the head and all workers mount at {ROOT} (claim {CLAIM})"
        )


def _is_remote(root: str) -> bool:
    return "://" in root


def _data(spec: Spec) -> str:
    """The data set that the task reads, empty when it brings its own."""
    return str(spec.task.parameters.get("data") or "")


def _check_data(spec: Spec) -> None:
    path = PurePosixPath(_data(spec))
    if path.is_absolute() and not path.is_relative_to(ROOT):
        raise RenderError(
            f"task.data is {str(path)!r}, a folder of this machine; name it by a path below GEOSWEEP_DATA, which is "
            f"{DATA} in the Pods, on the claim {CLAIM}"
        )


def _check_tracking(spec: Spec) -> None:
    uri = spec.tracking.mlflow
    if uri is None:
        return
    if not uri.startswith(("http://", "https://")):
        raise RenderError(f"tracking.mlflow is {uri!r}; on a cluster name a server, http(s)://..., or leave it out")
    if "@" in uri:
        raise RenderError("tracking.mlflow holds credentials; take them out and put them in Secret geosweep-tracking")


def _labels(spec: Spec, component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/part-of": "geosweep",
        "app.kubernetes.io/component": component,
        "geosweep.io/sweep": model.sweep_id(spec),
    }


def _config_map(spec: Spec, text: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _config_name(spec, text), "namespace": NAMESPACE, "labels": _labels(spec, "sweep-file")},
        "immutable": True,
        "data": {"sweep.yaml": text},
    }


def _ray_job(spec: Spec, text: str, profile: str, queue: str, registry: str, root: str, code: Code) -> dict[str, Any]:
    kind, found = PROFILES[profile], fit(spec, PROFILES[profile])
    concurrent = min(spec.resources.max_concurrent or found.max_concurrent, found.max_concurrent)
    prefix = f"{registry.rstrip('/')}/" if registry else ""
    head_image = spec.environment.image or prefix + kind.head_image
    budget = spec.budget.wall_clock
    labels = _labels(spec, "sweep")
    entrypoint = f"geosweep run {code.run()} --root {root} --address auto --max-concurrent {concurrent}"
    if not spec.tracking.mlflow:
        entrypoint += f" --tracking-uri {TRACKING}"
    entrypoint += " --as-job"
    body: dict[str, Any] = {
        "entrypoint": entrypoint,
        "submissionMode": "K8sJobMode",
        "metadata": {
            "sweep": spec.name,
            "definition": model.sweep_id(spec)[-8:],
            "checkpoint_every": f"{spec.resources.checkpoint_every:g} s",
        },
        "backoffLimit": 0,
        "submitterConfig": {"backoffLimit": HEADS},
        "activeDeadlineSeconds": int(budget + spec.resources.wait) + SLACK_S if budget else kind.deadline_s,
    }
    if spec.environment.requirements:
        body["runtimeEnvYAML"] = yaml.safe_dump({"pip": list(spec.environment.requirements)})
    if not queue:
        body["preRunningDeadlineSeconds"] = max(1, int(spec.resources.wait))
    body |= {
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 600,
        "submitterPodTemplate": _submitter(spec, head_image),
        "rayClusterSpec": {
            "rayVersion": RAY,
            "authOptions": {"mode": "token"},
            **_scaling(bool(queue)),
            "headGroupSpec": {
                "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
                "template": _head(spec, text, head_image, kind.head_cpu, kind.head_memory, bool(queue), root, code),
            },
            "workerGroupSpecs": [_workers(spec, found, prefix, bool(queue), root)],
        },
    }
    metadata: dict[str, Any] = {"name": job_name(spec), "namespace": NAMESPACE, "labels": labels}
    if queue:
        metadata["labels"] = {**labels, "kueue.x-k8s.io/queue-name": queue}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": body}


def _scaling(fixed: bool) -> dict[str, Any]:
    if fixed:
        return {"enableInTreeAutoscaling": False}
    return {
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": 120,
            "resources": _resources("500m", "512Mi"),
            "securityContext": _container_security(),
        },
    }


def _workers(spec: Spec, found: Fit, prefix: str, fixed: bool, root: str) -> dict[str, Any]:
    group = found.group
    container = {
        "name": "ray-worker",
        "image": spec.environment.image or prefix + group.image,
        "env": _environment(spec, head=False),
        "envFrom": _secrets(root),
        "resources": _resources(str(found.cpu), f"{found.memory}Gi", found.gpu),
        "securityContext": _container_security(),
        "volumeMounts": _mounts(spec, root),
    }
    pod = _pod([container], _volumes(spec, found.memory, root))
    pod["serviceAccountName"] = "sweep-runner"
    pod["automountServiceAccountToken"] = False
    pod["terminationGracePeriodSeconds"] = 60
    if group.tolerations:
        pod["tolerations"] = [{"key": k, "operator": "Exists", "effect": "NoSchedule"} for k in group.tolerations]
    low = found.max_pods if fixed else 0
    return {
        "groupName": group.name,
        "replicas": low,
        "minReplicas": low,
        "maxReplicas": found.max_pods,
        "rayStartParams": {},
        "template": {"metadata": {"labels": _labels(spec, "sweep-worker")}, "spec": pod},
    }


def _head(
    spec: Spec, text: str, image: str, cpu: str, memory: str, fixed: bool, root: str, code: Code
) -> dict[str, Any]:
    container = {
        "name": "ray-head",
        "image": image,
        "env": _environment(spec, head=True),
        "envFrom": _secrets(root),
        "ports": [
            {"name": "gcs", "containerPort": 6379},
            {"name": "dashboard", "containerPort": 8265},
            {"name": "client", "containerPort": 10001},
            {"name": "metrics", "containerPort": 8080},
        ],
        "resources": _resources(cpu, memory),
        "securityContext": _container_security(),
        "volumeMounts": [
            *_mounts(spec, root),
            {"name": "sweep", "mountPath": MOUNT, "readOnly": True},
            *code.mounts(),
        ],
    }
    sweep = {"name": "sweep", "configMap": {"name": _config_name(spec, text)}}
    pod = _pod([container], [*_volumes(spec, int(memory.removesuffix("Gi")), root), sweep, *code.volumes()])
    if fixed:  # an autoscaling head asks the API server, with an account that the operator makes
        pod["serviceAccountName"] = "sweep-runner"
        pod["automountServiceAccountToken"] = False
    metadata = {
        "labels": _labels(spec, "sweep-head"),
        "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
    }
    return {"metadata": metadata, "spec": pod}


def _submitter(spec: Spec, image: str) -> dict[str, Any]:
    container = {
        "name": "ray-job-submitter",
        "image": image,
        "resources": _resources("500m", "1Gi"),
        "securityContext": _container_security(),
    }
    pod = {
        **_pod([container], []),
        "restartPolicy": "Never",
        "serviceAccountName": "sweep-runner",
        "automountServiceAccountToken": False,
    }
    return {"metadata": {"labels": _labels(spec, "sweep-submitter")}, "spec": pod}


def _pod(containers: list[dict[str, Any]], volumes: list[dict[str, Any]]) -> dict[str, Any]:
    security = {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    found: dict[str, Any] = {"securityContext": security, "containers": containers}
    if volumes:
        found["volumes"] = volumes
    return found


def _container_security() -> dict[str, Any]:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _resources(cpu: str, memory: str, gpu: int = 0) -> dict[str, Any]:
    """Requests equal limits, so that no neighbour takes a head's memory."""
    amounts = {"cpu": cpu, "memory": memory, **({"nvidia.com/gpu": str(gpu)} if gpu else {})}
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _environment(spec: Spec, *, head: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"name": "RAY_USAGE_STATS_ENABLED", "value": "0"}]
    if _data(spec):
        found.append({"name": "GEOSWEEP_DATA", "value": DATA})
    if head:
        secret: Mapping[str, Any] = {"secretKeyRef": {"name": "geosweep-studies", "key": "url"}}
        found.append({"name": "GEOSWEEP_STORAGE", "valueFrom": dict(secret)})
    return found


def _secrets(root: str) -> list[dict[str, Any]]:
    """Keys of the tracking server, and of the object store for sweeps that live in it; their Pods may have rights."""
    names = ["geosweep-tracking", *(["geosweep-s3"] if _is_remote(root) else [])]
    return [{"secretRef": {"name": name, "optional": True}} for name in names]


def _on_claim(spec: Spec, root: str) -> bool:
    return not _is_remote(root) or bool(_data(spec))


def _mounts(spec: Spec, root: str) -> list[dict[str, Any]]:
    places = ((("runs", ROOT),) if _on_claim(spec, root) else ()) + (("ray", "/tmp"), ("shm", "/dev/shm"))
    return [{"name": name, "mountPath": path} for name, path in places]


def _volumes(spec: Spec, memory: int, root: str) -> list[dict[str, Any]]:
    """`memory` in GiB: that of the Pod, of which shared memory takes at most a third (it counts against the limit)."""
    claim = {"name": "runs", "persistentVolumeClaim": {"claimName": CLAIM}}
    return [
        *([claim] if _on_claim(spec, root) else []),
        {"name": "ray", "emptyDir": {"sizeLimit": "20Gi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{max(1, memory // 3)}Gi"}},
    ]
