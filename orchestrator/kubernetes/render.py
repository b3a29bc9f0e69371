"""A sweep file as a ConfigMap and a RayJob (KubeRay 1.7, ray.io/v1). The same input gives the same bytes.

The entrypoint is `geosweep run` on a root that outlives every Pod, so a retry, a preemption by Kueue and a second
submission all continue the sweep from its newest checkpoints: its folder is named by the definition, never by the job.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

from orchestrator.definition import model, sweep_file
from orchestrator.definition.addresses import secrets
from orchestrator.definition.model import Spec
from orchestrator.kubernetes.fit import Fit, RenderError, fit
from orchestrator.kubernetes.operator_rules import lint
from orchestrator.kubernetes.profiles import CLAIM, DATA, NAMESPACE, PROFILES, ROOT, TRACKING
from orchestrator.remote import Parcel

RAY = "2.60.0"
SLACK_S = 3600
"""Beyond the wall-clock budget: images, start of Pods, the last checkpoint."""
NAME_LIMIT = 47
FILE_LIMIT = 250_000
"""Bytes: apply keeps what it applied in an annotation, and those have at most 262144 together."""
MOUNT, CODE_MOUNT = "/etc/sweep", "/etc/sweep-code"


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
    code = _Code(spec, parcel, code_at)
    documents = [
        _config_map(spec, text),
        *code.config_maps(),
        _ray_job(spec, text, profile, queue, registry, root, code),
    ]
    if found := lint(documents):
        raise RenderError("the rendered manifest is invalid: " + "; ".join(map(str, found)))
    return "---\n".join(yaml.dump(d, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True) for d in documents)


def fits(parcel: Parcel) -> bool:
    """Whether the archive can go in a ConfigMap."""
    return parcel.archive.stat().st_size * 4 / 3 <= FILE_LIMIT


class _Code:
    """How the user's code comes to the head; Ray sends it on to the workers."""

    def __init__(self, spec: Spec, parcel: Parcel | None, code_at: str) -> None:
        self._spec, self._parcel, self._at = spec, parcel, code_at
        if parcel is None:
            return
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", parcel.sweep):
            raise RenderError(f"{parcel.sweep}: an entrypoint takes letters, digits and . _ - / only; rename the file")
        if not code_at and not fits(parcel):
            size, most = parcel.archive.stat().st_size / 1e3, FILE_LIMIT * 3 / 4e3
            raise RenderError(
                f"{parcel.folder} has {size:,.0f} kB, packed, and {most:,.0f} kB fit into a ConfigMap; name what the "
                "trials do not need in .geosweepignore, `submit` with --root s3://, which uploads the archive, or "
                "build an image of your own that has it installed (environment.image)"
            )

    def config_maps(self) -> list[dict[str, Any]]:
        if self._parcel is None or self._at:
            return []
        packed = base64.b64encode(self._parcel.archive.read_bytes()).decode()
        return [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": self._name(), "namespace": NAMESPACE, "labels": _labels(self._spec, "code")},
                "immutable": True,
                "binaryData": {self._parcel.archive.name: packed},
            }
        ]

    def run(self) -> str:
        """The sweep file, as the entrypoint names it."""
        if self._parcel is None:
            return f"{MOUNT}/sweep.yaml"
        return f"{self._parcel.sweep} --code {self._at or f'{CODE_MOUNT}/{self._parcel.archive.name}'}"

    def volumes(self) -> list[dict[str, Any]]:
        return [{"name": "code", "configMap": {"name": self._name()}}] if self.config_maps() else []

    def mounts(self) -> list[dict[str, Any]]:
        return [{"name": "code", "mountPath": CODE_MOUNT, "readOnly": True}] if self.config_maps() else []

    def _name(self) -> str:
        assert self._parcel is not None
        return f"{job_name(self._spec)}-code-{self._parcel.digest[:8]}"


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


def _ray_job(spec: Spec, text: str, profile: str, queue: str, registry: str, root: str, code: _Code) -> dict[str, Any]:
    kind, found = PROFILES[profile], fit(spec, PROFILES[profile])
    concurrent = min(spec.resources.max_concurrent or found.max_concurrent, found.max_concurrent)
    prefix = f"{registry.rstrip('/')}/" if registry else ""
    head_image = spec.environment.image or prefix + kind.head_image
    budget = spec.budget.wall_clock
    labels = _labels(spec, "sweep")
    entrypoint = f"geosweep run {code.run()} --root {root} --address auto --max-concurrent {concurrent}"
    if not spec.tracking.mlflow:
        entrypoint += f" --tracking-uri {TRACKING}"
    body: dict[str, Any] = {
        "entrypoint": entrypoint,
        "submissionMode": "K8sJobMode",
        "metadata": {
            "sweep": spec.name,
            "definition": model.sweep_id(spec)[-8:],
            "checkpoint_every": f"{spec.resources.checkpoint_every:g} s",
        },
        "backoffLimit": 3,
        "submitterConfig": {"backoffLimit": 2},
        "activeDeadlineSeconds": int(budget) + SLACK_S if budget else kind.deadline_s,
    }
    if spec.environment.requirements:
        body["runtimeEnvYAML"] = yaml.safe_dump({"pip": list(spec.environment.requirements)})
    if not queue:
        body["preRunningDeadlineSeconds"] = 1800
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
    spec: Spec, text: str, image: str, cpu: str, memory: str, fixed: bool, root: str, code: _Code
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
