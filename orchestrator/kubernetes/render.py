"""Render a sweep file as a ConfigMap and a RayJob (KubeRay 1.7, ray.io/v1). The same input gives the same bytes.

The entrypoint is `geosweep run` with a root that outlives every Pod, so a retry, a preemption by Kueue and a second
submission all continue the sweep from its newest checkpoints: its folder is named by the definition, never by the job.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from orchestrator.definition import model, sweep_file
from orchestrator.definition.addresses import secrets
from orchestrator.definition.model import Spec
from orchestrator.definition.overrides import without_secrets
from orchestrator.definition.passwords import without_passwords
from orchestrator.kubernetes import profiles
from orchestrator.kubernetes.code import ANNOTATIONS, Code, applied_size
from orchestrator.kubernetes.fit import RenderError, fit
from orchestrator.kubernetes.operator_rules import lint
from orchestrator.kubernetes.pods import Sweep, head, resources, security, submitter, workers
from orchestrator.kubernetes.profile_model import NAME, REGISTRY, ProfileModel
from orchestrator.kubernetes.profiles import DATA, NAMESPACE, ROOT
from orchestrator.kubernetes.start_rules import RAY
from orchestrator.remote import Parcel

SLACK_S = 3600
"""Seconds beyond the wall-clock budget: for images, start of Pods, the last checkpoint."""
NAME_LIMIT = 47
COMPONENTS = ("sweep", "sweep-file", "code", "sweep-head", "sweep-worker", "sweep-submitter")
HEADS = 10
"""Number of heads that may be lost: each costs the submitter a Pod, and its next one submits the same job to the new
head.

The operator's own retries (`backoffLimit`) cannot distinguish an intended or recurring end from a fault, and create a
new cluster each time: they are off, and `run --as-job` retries what a machine fault ended.
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the objects go, after reading profile and flags."""

    profile: ProfileModel
    namespace: str
    queue: str
    priority: str
    elastic: bool
    registry: str
    root: str
    fair: bool

    @property
    def fixed(self) -> bool:
        """Whether the cluster has a fixed size: under Kueue, unless its jobs are elastic."""
        return bool(self.queue) and not self.elastic

    @property
    def tracking(self) -> str:
        """The MLflow server of sweeps that name none in their file."""
        return self.profile.tracking or profiles.tracking(self.namespace)


def render(
    text: str,
    file: str,
    *,
    profile: str = "gpu-cluster",
    namespace: str = "",
    queue: str = "",
    priority: str = "",
    elastic: bool = False,
    registry: str = "",
    root: str = ROOT,
    fair: bool = False,
    parcel: Parcel | None = None,
    code_at: str = "",
) -> str:
    """The manifest of the sweep in `text`. `parcel` goes in a ConfigMap, unless it was uploaded to the URI `code_at`.

    `profile` is a bundled one or a file; `namespace`, `queue`, `priority`, `elastic`, `registry`, `fair` override it.
    Raises SpecError for an invalid sweep or profile, RenderError for a sweep that cannot run on that cluster.
    """
    spec = sweep_file.loads(text, file)
    for secret in secrets(text):
        raise RenderError(secret.refusal("a manifest is read by many", "put NAME into the Secret geosweep-tracking"))
    text = without_secrets(text)  # in comments
    _check_root(root)
    _check_data(spec)
    _check_tracking(spec)
    place = _place(profiles.load(profile), namespace, queue, priority, elastic, registry, root, fair)
    code = Code(parcel, code_at, job=job_name(spec), metadata=_metadata(spec, place, "code"))
    documents = [
        _config_map(spec, text, place),
        *code.config_maps(),
        _ray_job(spec, text, place, code),
    ]
    for document in documents:
        if (size := applied_size(document)) > ANNOTATIONS:
            what = "the file" if document["kind"] == "ConfigMap" else "the RayJob"
            raise RenderError(
                f"{what} has {size:,} bytes as stored by kubectl apply in an annotation (a quote or a line end counts "
                f"as two), and the limit is {ANNOTATIONS:,}; shorten it"
            )
    if found := lint(documents, place.profile):
        raise RenderError("the rendered manifest is invalid: " + "; ".join(map(str, found)))
    return "---\n".join(yaml.dump(d, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True) for d in documents)


def _place(
    profile: ProfileModel,
    namespace: str,
    queue: str,
    priority: str,
    elastic: bool,
    registry: str,
    root: str,
    fair: bool,
) -> Place:
    """Flags override the profile. Raises RenderError for invalid ones."""
    if queue and not re.fullmatch(NAME, queue):
        raise RenderError(
            f"--queue {queue}: not a valid name of a Kueue LocalQueue (lower case, digits, dashes, at most 63)"
        )
    if registry and not re.fullmatch(REGISTRY, registry):
        raise RenderError(f"--registry {registry}: write it as in image names, registry.example.com/team")
    if namespace and not re.fullmatch(NAME, namespace):
        raise RenderError(
            f"--namespace {namespace}: not a valid namespace name (lower case, digits, dashes, at most 63)"
        )
    if priority and not re.fullmatch(rf"{NAME}(\.{NAME})*", priority):
        raise RenderError(f"--priority {priority}: not a valid WorkloadPriorityClass name (lower case, digits, dashes)")
    found = Place(
        profile=profile,
        namespace=namespace or profile.namespace or NAMESPACE,
        queue=queue or profile.queue or "",
        priority=priority or (profile.priority or ""),
        elastic=elastic or profile.autoscaling.elastic,
        registry=registry or profile.registry,
        root=root,
        fair=fair or profile.fair,
    )
    if found.priority and not found.queue:
        raise RenderError(
            f"--priority {found.priority}: a WorkloadPriorityClass belongs to Kueue; set a queue with --queue, or for "
            "Pods without one a PriorityClass in the profile (priority_class)"
        )
    if elastic and not found.queue:
        raise RenderError("--elastic: without a queue every cluster is elastic; set one with --queue")
    return found


class _Plain(yaml.CSafeDumper):
    """No anchors; multi-line text as a readable block."""

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
            f"--root {root}: a local folder is lost with its Pod; on a cluster, sweeps must be in an object store, "
            f"s3://BUCKET/FOLDER, or on the volume that the head and all workers mount at {ROOT} (claim geosweep-runs)"
        )


def _is_remote(root: str) -> bool:
    return "://" in root


def _data(spec: Spec) -> str:
    """The data set that the task reads; empty if it brings its own."""
    return str(spec.task.parameters.get("data") or "")


def _check_data(spec: Spec) -> None:
    path = PurePosixPath(_data(spec))
    if path.is_absolute() and not path.is_relative_to(ROOT):
        raise RenderError(
            f"task.data is {str(path)!r}, a folder on this machine; give a path relative to GEOSWEEP_DATA, which is "
            f"{DATA} in the Pods, on the claim geosweep-runs"
        )


def _check_tracking(spec: Spec) -> None:
    uri = spec.tracking.mlflow
    if uri is None:
        return
    if not uri.startswith(("http://", "https://", "${env:")):
        shown = without_passwords(uri)
        raise RenderError(f"tracking.mlflow is {shown!r}; on a cluster use a server, http(s)://..., or leave it out")


def _labels(spec: Spec, component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/part-of": "geosweep",
        "app.kubernetes.io/component": component,
        "geosweep.io/sweep": model.sweep_id(spec),
    }


def _metadata(spec: Spec, place: Place, component: str) -> dict[str, Any]:
    """Namespace, labels and annotations of an object."""
    found: dict[str, Any] = {"namespace": place.namespace}
    found["labels"] = {**_labels(spec, component), **place.profile.labels}
    if place.profile.annotations:
        found["annotations"] = dict(place.profile.annotations)
    return found


def _config_map(spec: Spec, text: str, place: Place) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _config_name(spec, text), **_metadata(spec, place, "sweep-file")},
        "immutable": True,
        "data": {"sweep.yaml": text},
    }


def _ray_job(spec: Spec, text: str, place: Place, code: Code) -> dict[str, Any]:
    profile, found = place.profile, fit(spec, place.profile)
    concurrent = min(spec.resources.max_concurrent or found.max_concurrent, found.max_concurrent)
    budget = spec.budget.wall_clock
    sweep = Sweep(
        labels={component: _labels(spec, component) for component in COMPONENTS},
        config=_config_name(spec, text),
        image=spec.environment.image or "",
        root=place.root,
        data=bool(_data(spec)),
        fixed=place.fixed,
    )
    entrypoint = f"geosweep run {code.run()} --root {place.root} --address auto --max-concurrent {concurrent}"
    if not spec.tracking.mlflow:
        entrypoint += f" --tracking-uri {place.tracking}"
    entrypoint += f"{' --fair' * place.fair} --as-job"
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
        "activeDeadlineSeconds": int(budget + spec.resources.wait) + SLACK_S if budget else int(profile.deadline),
    }
    if spec.environment.requirements:
        body["runtimeEnvYAML"] = yaml.safe_dump({"pip": list(spec.environment.requirements)})
    if not place.queue:
        body["preRunningDeadlineSeconds"] = max(1, int(spec.resources.wait))
    body |= {
        "shutdownAfterJobFinishes": True,
        # Under Kueue, Pods that outlive the job hold no quota of their own, and take that of the next job.
        "ttlSecondsAfterFinished": 0 if place.queue else int(profile.ttl),
        "submitterPodTemplate": submitter(sweep, profile, place.registry),
        "rayClusterSpec": {
            "rayVersion": RAY,
            "authOptions": {"mode": "token"},
            **_scaling(place),
            "headGroupSpec": {
                "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
                "template": head(sweep, profile, place.registry, code),
            },
            "workerGroupSpecs": [workers(sweep, profile, place.registry, found)],
        },
    }
    metadata = {"name": job_name(spec), **_metadata(spec, place, "sweep")}
    if place.queue:
        metadata["labels"]["kueue.x-k8s.io/queue-name"] = place.queue
    if place.priority:
        metadata["labels"]["kueue.x-k8s.io/priority-class"] = place.priority
    if place.queue and place.elastic:
        metadata["annotations"] = {**metadata.get("annotations", {}), "kueue.x-k8s.io/elastic-job": "true"}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": body}


def _scaling(place: Place) -> dict[str, Any]:
    if place.fixed:
        return {"enableInTreeAutoscaling": False}
    return {
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": int(place.profile.autoscaling.idle_timeout),
            "resources": resources("500m", "512Mi"),
            "securityContext": security(),
        },
    }
