"""What the API server requires of a Pod's fields beyond their types (kubernetes/pkg/apis/core, validation)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

Object = Mapping[str, Any]
HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
FIELDS = re.compile(
    r"metadata\.(name|namespace|uid|labels\['[^']+'\]|annotations\['[^']+'\])|"
    r"spec\.(nodeName|serviceAccountName)|status\.(hostIPs?|podIPs?)"
)
RESOURCES = re.compile(r"(limits|requests)\.(cpu|memory|ephemeral-storage|hugepages-\S+)")
VARIABLE = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")
MOST_MODE = 0o777
ACCESS = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")


def field_findings(pod: Object, path: str) -> Iterator[tuple[str, str, str]]:
    """(code, field, message) for what no schema covers."""
    for kind in ("containers", "initContainers"):
        for number, container in enumerate(pod.get(kind) or []):
            yield from _container(container, f"{path}.{kind}.{number}", first=kind == "containers")
    for number, volume in enumerate(pod.get("volumes") or []):
        yield from _volume(volume, f"{path}.volumes.{number}")
    for number, alias in enumerate(pod.get("hostAliases") or []):
        if not _is_address(alias.get("ip")):
            yield "KO117", f"{path}.hostAliases.{number}", f"{alias.get('ip')!r} is not an IP address"
    for server in (pod.get("dnsConfig") or {}).get("nameservers") or []:
        if not _is_address(server):
            yield "KO117", f"{path}.dnsConfig", f"name server {server!r} is not an IP address"
    for number, claim in enumerate(pod.get("resourceClaims") or []):
        if bool(claim.get("resourceClaimName")) == bool(claim.get("resourceClaimTemplateName")):
            yield (
                "KO117",
                f"{path}.resourceClaims.{number}",
                "takes one of resourceClaimName, resourceClaimTemplateName",
            )
    for group in (pod.get("securityContext") or {}).get("supplementalGroups") or []:
        if isinstance(group, int) and group < 0:
            yield "KO117", f"{path}.securityContext", f"supplementalGroups: {group} is negative"
    for number, one in enumerate(pod.get("tolerations") or []):
        if not one.get("key") and one.get("operator") == "Exists" and one.get("effect") in (None, "", "NoExecute"):
            yield (
                "KO117",
                f"{path}.tolerations.{number}",
                "tolerates every taint, even that of a lost node, so its Pods would never be replaced; name the key",
            )


def _container(container: Object, at: str, *, first: bool) -> Iterator[tuple[str, str, str]]:
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        if (probe := container.get(kind)) is not None:
            yield from _one_handler(probe, f"{at}.{kind}")
            for key in ("periodSeconds", "timeoutSeconds", "successThreshold", "failureThreshold"):
                if isinstance(probe.get(key), int) and probe[key] < 1:
                    yield "KO117", f"{at}.{kind}.{key}", f"{probe[key]} is below 1"
            if kind != "readinessProbe" and probe.get("successThreshold", 1) != 1:
                yield "KO117", f"{at}.{kind}.successThreshold", "must be 1 for liveness and startup probes"
            if isinstance(probe.get("initialDelaySeconds"), int) and probe["initialDelaySeconds"] < 0:
                yield "KO117", f"{at}.{kind}.initialDelaySeconds", "is negative"
    for kind in ("postStart", "preStop"):
        if (hook := (container.get("lifecycle") or {}).get(kind)) is not None:
            yield from _one_handler(hook, f"{at}.lifecycle.{kind}")
    if not first and container.get("restartPolicy") not in (None, "Always"):
        yield "KO117", f"{at}.restartPolicy", "of an init container must be Always or unset"
    if (folder := container.get("workingDir")) and not str(folder).startswith("/"):
        yield "KO117", f"{at}.workingDir", f"{folder!r} is not an absolute path"
    for number, entry in enumerate(container.get("envFrom") or []):
        if (prefix := entry.get("prefix")) and not VARIABLE.fullmatch(str(prefix)):
            yield "KO117", f"{at}.envFrom.{number}", f"prefix {prefix!r} cannot start a variable name"
    for entry in container.get("env") or []:
        source = entry.get("valueFrom") or {}
        field, resource = source.get("fieldRef"), source.get("resourceFieldRef")
        if field is not None and not FIELDS.fullmatch(str(field.get("fieldPath"))):
            said = (
                f"{field.get('fieldPath')!r} is not a field that a Pod exposes, such as metadata.name or status.podIP"
            )
            yield "KO117", f"{at}.env.{entry.get('name')}", said
        if resource is not None and not RESOURCES.fullmatch(str(resource.get("resource"))):
            said = f"{resource.get('resource')!r} is not a resource that a Pod exposes, such as limits.cpu"
            yield "KO117", f"{at}.env.{entry.get('name')}", said
    for mount in container.get("volumeMounts") or []:
        where = f"{at}.volumeMounts"
        if str(mount.get("subPath", "")).startswith("/"):
            yield "KO117", where, f"subPath {mount['subPath']} is absolute; it must be a path within the volume"
        if mount.get("mountPropagation") == "Bidirectional":
            yield "KO117", where, "mountPropagation Bidirectional is for privileged containers; leave it out"


def _one_handler(given: Object, at: str) -> Iterator[tuple[str, str, str]]:
    if sum(key in given for key in HANDLERS) != 1:
        yield "KO117", at, f"takes one of {', '.join(HANDLERS[:4])}"
    for key in ("httpGet", "tcpSocket", "grpc"):
        port = (given.get(key) or {}).get("port")
        if isinstance(port, int) and not 0 < port < 65536:
            yield "KO117", f"{at}.{key}", f"port {port} is not in 1 to 65535"
    if (given.get("sleep") or {}).get("seconds", 0) < 0:
        yield "KO117", f"{at}.sleep", "seconds is negative"


def _volume(volume: Object, at: str) -> Iterator[tuple[str, str, str]]:
    if "ephemeral" in volume:
        claim = ((volume["ephemeral"] or {}).get("volumeClaimTemplate") or {}).get("spec") or {}
        if not ((claim.get("resources") or {}).get("requests") or {}).get("storage"):
            yield "KO117", at, "ephemeral takes volumeClaimTemplate.spec with resources.requests.storage"
        for mode in claim.get("accessModes") or [""]:
            if mode not in ACCESS:
                yield "KO117", at, f"accessModes: {mode!r} is not one of {', '.join(ACCESS)}"
    if "projected" in volume and not (volume["projected"] or {}).get("sources"):
        yield "KO117", at, "projected has no sources; add one, or leave the volume out"
    for kind in ("secret", "configMap", "projected", "downwardAPI"):
        source = volume.get(kind) or {}
        modes = [source.get("defaultMode"), *(item.get("mode") for item in source.get("items") or [])]
        for mode in (m for m in modes if isinstance(m, int)):
            if not 0 <= mode <= MOST_MODE:
                yield "KO117", at, f"mode {mode} is not in 0 to {MOST_MODE} (0o777); write it as 0440"
        for item in source.get("items") or []:
            path = str(item.get("path") or "")
            if not path or path.startswith("/") or ".." in path.split("/"):
                yield "KO117", at, f"item {path!r} is not a path within the volume"
            field = (item.get("fieldRef") or {}).get("fieldPath") if kind == "downwardAPI" else None
            if field is not None and not re.fullmatch(r"metadata\..+", str(field)):
                yield "KO117", at, f"{field!r} is not a field that a volume exposes, such as metadata.labels"


def _is_address(text: Any) -> bool:
    try:
        ipaddress.ip_address(str(text))
    except ValueError:
        return False
    return True
