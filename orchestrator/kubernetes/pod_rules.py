"""What every Pod of a sweep has to be: Pod Security "restricted", bounded, pinned, without secrets in clear, on storage
that outlives it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.kubernetes.quantities import quantity
from orchestrator.kubernetes.secret_shapes import is_secret_name, shape_of

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
"""Kinds that Pod Security "restricted" allows."""
IMAGE = re.compile(r"([A-Za-z0-9.-]+(:\d+)?/)?[a-z0-9._/-]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")


def templates(document: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every Pod template in a document, with its path: mappings whose `spec` holds `containers`."""
    if isinstance(document, dict):
        inner = document.get("spec")
        if isinstance(inner, dict) and isinstance(inner.get("containers"), list):
            yield path or "Pod", document
        for key, value in document.items():
            yield from templates(value, f"{path}.{key}" if path else str(key))
    elif isinstance(document, list):
        for number, value in enumerate(document):
            yield from templates(value, f"{path}[{number}]")


def pod_findings(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(code, message) of every rule that a Pod template of the document breaks."""
    for path, template in templates(document):
        pod = template["spec"]
        for container in [*pod["containers"], *(pod.get("initContainers") or [])]:
            where = f"{path}: container {container.get('name')}"
            for code, message in _security(pod, container):
                yield code, f"{where}: {message}"
            for code, message in _container(container):
                yield code, f"{where}: {message}"
    options = (((document.get("spec") or {}).get("rayClusterSpec")) or {}).get("autoscalerOptions")
    if options is not None and not _drops_all(options.get("securityContext") or {}):
        yield "KO201", "autoscalerOptions: securityContext has to forbid privilege escalation and drop ALL"
    yield from _storage(document)


def secret_findings(document: Any) -> Iterator[tuple[str, str]]:
    """Credentials in clear anywhere in a document, and Secrets: they are made apart, and never printed."""
    if isinstance(document, dict) and document.get("kind") == "Secret":
        yield "KO207", "holds a Secret; make it apart, with kubectl create secret"
    for path, text in _texts(document):
        if what := shape_of(text, assigned=not path.startswith("data.")):
            yield "KO207", f"{path} holds {what} in clear; put it in a Secret, and name that by secretKeyRef"


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _texts(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _texts(part, f"{path}[{number}]")


def _drops_all(security: Mapping[str, Any]) -> bool:
    capabilities = security.get("capabilities") or {}
    drops = "ALL" in (capabilities.get("drop") or []) and not capabilities.get("add")
    return security.get("allowPrivilegeEscalation") is False and drops and not security.get("privileged")


def _security(pod: Mapping[str, Any], container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    shared, own = pod.get("securityContext") or {}, container.get("securityContext") or {}
    if not _drops_all(own):
        yield "KO201", "securityContext has to forbid privilege escalation and drop ALL capabilities"
    if own.get("runAsNonRoot", shared.get("runAsNonRoot")) is not True:
        yield "KO202", "runAsNonRoot is not true"
    if own.get("runAsUser", shared.get("runAsUser", 1)) == 0:
        yield "KO202", "runAsUser is 0"
    if (own.get("seccompProfile") or shared.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "KO203", "seccompProfile is not RuntimeDefault"
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")) or any(
        port.get("hostPort") for port in container.get("ports") or []
    ):
        yield "KO204", "uses the host's network or processes"
    if foreign := {key for volume in pod.get("volumes") or [] for key in volume} - VOLUMES - {"name"}:
        yield "KO204", f"mounts {', '.join(sorted(foreign))}, which Pod Security does not allow"


def _container(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    limits = (container.get("resources") or {}).get("limits") or {}
    if not {"cpu", "memory"} <= set(limits):
        yield "KO205", "has no limits for cpu and memory"
    for name, amount in ((container.get("resources") or {}).get("requests") or {}).items():
        if quantity(amount) > quantity(limits.get(name, amount)):
            yield "KO205", f"requests more {name} ({amount}) than its limit ({limits[name]})"
    for name, amount in limits.items():
        if math.isnan(quantity(amount)):
            yield "KO205", f"limits.{name}: {amount!r} is no quantity, such as 500m or 8Gi"
    image = str(container.get("image", ""))
    if image and not IMAGE.fullmatch(image):
        yield "KO206", f"image {image!r} is no reference, such as registry.example.com/team/name:1.0"
    elif "@sha256:" not in image and (":" not in image.rsplit("/", 1)[-1] or image.endswith(":latest")):
        yield "KO206", f"image {image or '(none)'} names no version"
    for entry in container.get("env") or []:
        if entry.get("value") and is_secret_name(str(entry.get("name"))):
            yield "KO207", f"{entry.get('name')} holds a secret in clear; use valueFrom.secretKeyRef"
    ports = [(p.get("containerPort"), p.get("protocol", "TCP")) for p in container.get("ports") or []]
    if len(set(ports)) != len(ports):
        yield "KO208", "names a port twice"


def map_findings(document: Mapping[str, Any], there: set[Any]) -> Iterator[tuple[str, str]]:
    """ConfigMaps that Pods mount and that a manifest with some does not hold."""
    for path, template in templates(document):
        for volume in template["spec"].get("volumes") or []:
            name = (volume.get("configMap") or {}).get("name")
            if there and name and name not in there:
                yield "KO210", f"{path}: volume {volume.get('name')} mounts ConfigMap {name}, which is not here"


def _storage(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The folder named by --root has to be on a claim, in the head and in every worker, or in an object store.

    Then the studies are in a database that the head is told of.
    """
    spec = document.get("spec") or {}
    words = str(spec.get("entrypoint", "")).split()
    if "--root" not in words[:-1]:
        if "geosweep" in words[:1]:
            yield "KO209", "the entrypoint names no --root; the default is a folder of the Pod, gone with it"
        return
    root = words[words.index("--root") + 1]
    cluster = spec.get("rayClusterSpec") or {}
    for path, template in templates(cluster):
        pod = template["spec"]
        if "://" in root:
            told = {e.get("name") for c in pod["containers"] for e in c.get("env") or []} | set(words)
            if path.startswith("headGroup") and not told & {"GEOSWEEP_STORAGE", "--storage"}:
                yield "KO209", f"{path}: --root {root} keeps no studies; GEOSWEEP_STORAGE names no database for them"
            continue
        claims = {v["name"] for v in pod.get("volumes") or [] if "persistentVolumeClaim" in v}
        mounts = [
            str(m.get("mountPath")).rstrip("/")
            for c in pod["containers"]
            for m in c.get("volumeMounts") or []
            if m.get("name") in claims
        ]
        if not any(root == m or root.startswith(f"{m}/") for m in mounts):
            yield "KO209", f"{path}: --root {root} is not on a mounted claim; checkpoints there are gone with the Pod"
