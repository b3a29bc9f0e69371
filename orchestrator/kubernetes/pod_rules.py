"""Requirements for every Pod of a sweep: Pod Security "restricted", bounded resources, pinned images, no secrets in
plain text, storage that outlives it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.kubernetes.quantities import quantity
from orchestrator.kubernetes.scaler_rules import TAKEN, container_of
from orchestrator.kubernetes.storage_rules import storage_findings

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
"""Kinds that Pod Security "restricted" allows."""
SECURITY: Mapping[str, tuple[Any, ...]] = {
    "procMount": ("Default",),
    "appArmorProfile": ("RuntimeDefault", "Localhost"),
    "seLinuxOptions": (None, "container_t", "container_init_t", "container_kvm_t", "container_engine_t"),
}
SYSCTLS = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
)
"""Allowed by Pod Security (kubernetes.io, Pod Security Standards)."""
MOST_DEVICES = 128
"""Per machine, including MIG slices and shared GPUs."""
IMAGE = re.compile(r"([A-Za-z0-9.-]+(:\d+)?/)?[a-z0-9._/-]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")


def templates(document: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every Pod template in a document, with its path: mappings with `containers` in their `spec`."""
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
    """(code, message) for every rule that a Pod template in the document breaks."""
    for path, template in templates(document):
        pod = template["spec"]
        for container in [*pod["containers"], *(pod.get("initContainers") or [])]:
            where = f"{path}: container {container.get('name')}"
            for code, message in _security(pod, container):
                yield code, f"{where}: {message}"
            for code, message in _container(container):
                yield code, f"{where}: {message}"
        if any(word in path for word in ("Group", "submitter")):
            for code, message in _of_ray(path, pod):
                yield code, f"{path}: {message}"
    cluster = ((document.get("spec") or {}).get("rayClusterSpec")) or {}
    if (options := cluster.get("autoscalerOptions")) is not None:
        head = ((cluster.get("headGroupSpec") or {}).get("template") or {}).get("spec") or {}
        scaler = container_of(options)
        missing = {"resources", "image"} - set(scaler)  # the operator sets its own
        for code, message in (*_security(head, scaler), *(_container(scaler) if "resources" in scaler else ())):
            if not ("image" in missing and code == "KO206"):
                yield code, f"autoscalerOptions: {message}"
    if document.get("kind") == "RayJob":
        yield from storage_findings(document)


def _drops_all(security: Mapping[str, Any]) -> bool:
    capabilities = security.get("capabilities") or {}
    drops = "ALL" in (capabilities.get("drop") or []) and not capabilities.get("add")
    return security.get("allowPrivilegeEscalation") is False and drops and not security.get("privileged")


def _security(pod: Mapping[str, Any], container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    shared, own = pod.get("securityContext") or {}, container.get("securityContext") or {}
    if not _drops_all(own):
        yield "KO201", "securityContext must forbid privilege escalation and drop ALL capabilities"
    if own.get("runAsNonRoot", shared.get("runAsNonRoot")) is not True:
        yield "KO202", "runAsNonRoot is not true"
    if not own.get("runAsUser", shared.get("runAsUser", 1)) > 0:
        yield "KO202", "runAsUser is not above 0; write 1000, the user of the images"
    if not shared.get("fsGroup", 0) >= 0:
        yield "KO202", "fsGroup is negative; write 1000, the group of the images"
    if (own.get("seccompProfile") or shared.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "KO203", "seccompProfile is not RuntimeDefault"
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")) or any(
        port.get("hostPort") for port in container.get("ports") or []
    ):
        yield "KO204", "uses the host's network or processes"
    for kind, allowed in SECURITY.items():
        for value in (part for part in (shared.get(kind), own.get(kind)) if part):
            said = value.get("type") if isinstance(value, dict) else value
            if said not in allowed:
                yield "KO203", f"{kind} {said} is not {' or '.join(map(str, allowed[:2]))}; leave it out"
    for entry in shared.get("sysctls") or []:
        if entry.get("name") not in SYSCTLS:
            yield "KO204", f"sysctl {entry.get('name')} is one that Pod Security does not allow; leave it out"
    if foreign := {key for volume in pod.get("volumes") or [] for key in volume} - VOLUMES - {"name"}:
        yield "KO204", f"mounts {', '.join(sorted(foreign))}, which Pod Security does not allow"


def _container(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    limits = (container.get("resources") or {}).get("limits") or {}
    if not {"cpu", "memory"} <= set(limits):
        yield "KO205", "has no limits for cpu and memory"
    for name, amount in ((container.get("resources") or {}).get("requests") or {}).items():
        if quantity(amount) > quantity(limits.get(name, amount)):
            yield "KO205", f"requests more {name} ({amount}) than its limit ({limits[name]})"
    requests = (container.get("resources") or {}).get("requests") or {}
    for name in sorted({*requests, *limits} - {"cpu", "memory", "ephemeral-storage"}):
        if name.startswith("hugepages-"):
            continue
        asked, most = requests.get(name, limits.get(name)), limits.get(name)
        if most is None or quantity(asked) != quantity(most):
            yield "KO205", f"{name}: requests and limits of a device must be equal; write both, or only limits"
        elif quantity(most) > MOST_DEVICES:
            yield (
                "KO205",
                f"{name}: {most} devices, and no machine has more than {MOST_DEVICES}; write how many a Pod has",
            )
        elif quantity(most) == 0:
            yield "KO205", f"{name}: 0 devices; leave it out, or write how many the Pod has"
        elif quantity(most) != int(quantity(most) if not math.isnan(quantity(most)) else 0):
            yield (
                "KO205",
                f"{name}: {most} is not a whole number of devices; trials share one by resources.gpu in the sweep file",
            )
    for name, least in (("memory", 64 * 2**20), ("cpu", 0.01), ("ephemeral-storage", 2**30)):
        for kind, part in (("limits", limits), ("requests", requests)):
            if name in part and quantity(part[name]) < least:
                yield (
                    "KO205",
                    f"{kind}.{name}: {part[name]} is too little for anything to start; check the unit, such as 8Gi",
                )
    for name, most in (("memory", 64 * 2**40), ("cpu", 2048)):
        if quantity(limits.get(name, "0")) > most:
            yield "KO205", f"limits.{name}: no machine has {limits[name]}; check the unit, such as 4000m or 8Gi"
    for name, amount in limits.items():
        if math.isnan(quantity(amount)):
            yield "KO205", f"limits.{name}: {amount!r} is not a quantity, such as 500m or 8Gi"
    image = str(container.get("image", ""))
    if image and not IMAGE.fullmatch(image):
        yield "KO206", f"image {image!r} is not a reference, such as registry.example.com/team/name:1.0"
    elif "@sha256:" not in image and (":" not in image.rsplit("/", 1)[-1] or image.endswith(":latest")):
        yield "KO206", f"image {image or '(none)'} has no version"
    named = [p.get("name") for p in container.get("ports") or [] if p.get("name")]
    for name in named:
        if named.count(name) > 1 or not re.fullmatch(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?", str(name)):
            yield "KO208", f"port {name!r}: a name of at most 15 letters, digits and dashes, once"
    for port in container.get("ports") or []:
        if isinstance(port.get("containerPort"), int) and not 0 < port["containerPort"] < 65536:
            yield "KO208", f"containerPort {port['containerPort']}: ports are 1 to 65535"
    ports = [(p.get("containerPort"), p.get("protocol", "TCP")) for p in container.get("ports") or []]
    if len(set(ports)) != len(ports):
        yield "KO208", "names a port twice"


BLOCKED = {
    "activeDeadlineSeconds": "ends the Pod in the middle of training; the RayJob has its own",
    "priority": "is set by the API server from the PriorityClass; use priorityClassName",
    "overhead": "is set by the RuntimeClass, and the API server rejects any other",
    "os": "excludes nodes, or is rejected; the images are for Linux",
    "nodeName": "bypasses the scheduler, quotas and taints; use nodeSelector",
    "schedulingGates": "keeps the Pod from being scheduled until someone takes the gate away",
    "ephemeralContainers": "is not allowed in a template",
    "schedulerName": "requires a scheduler that exists; set it on the operator (batchScheduler.name)",
    "setHostnameAsFQDN": "may result in a name that is too long, and then the Pod never starts",
    "hostname": "would be the same in all Pods",
    "subdomain": "needs a Service that does not exist",
    "readinessGates": "keeps the Pod from becoming ready until something else reports it",
}


LEAST = {"submitter": 256 * 2**20, "Group": 512 * 2**20}
"""Memory below which `ray job submit` and `ray start` are killed immediately."""


def _of_ray(path: str, pod: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Rules for Pods that the operator completes."""
    if not pod["containers"]:
        yield "KO211", "containers is empty; the operator needs one"
    for key, why in BLOCKED.items():
        if pod.get(key) not in (None, "", [], False, "default-scheduler"):
            yield "KO215", f"{key} {why}; leave it out"
    for container in pod["containers"][:1]:
        for key in ("command", "args"):
            if container.get(key):
                yield (
                    "KO215",
                    f"container {container.get('name')}: {key} replaces what the operator starts; leave it out",
                )
    if "headGroup" not in path and pod.get("automountServiceAccountToken"):
        yield "KO215", "automountServiceAccountToken: true gives trials a cluster token; write false"
    if "headGroup" in path and any(
        "/" in n for n in ((pod["containers"] or [{}])[0].get("resources") or {}).get("limits") or {}
    ):
        yield "KO205", "the head requests a device, but no trial runs there; leave it out"
    if pod.get("serviceAccount") not in (None, "", pod.get("serviceAccountName")):
        yield (
            "KO212",
            f"serviceAccount {pod['serviceAccount']} is a deprecated name of serviceAccountName; leave it out",
        )
    least = LEAST["submitter" if "submitter" in path else "Group"]
    if (
        quantity((((pod["containers"] or [{}])[0].get("resources") or {}).get("limits") or {}).get("memory", "1Ti"))
        < least
    ):
        yield "KO205", f"memory is less than the {least // 2**20}Mi that Ray needs to start; increase it"
    if "headGroup" not in path and any(
        "serviceAccountToken" in source
        for volume in pod.get("volumes") or []
        for source in (volume.get("projected") or {}).get("sources") or []
    ):
        yield "KO215", "a projected serviceAccountToken gives trials a cluster token; leave it out"
    volumes = {str(v.get("name")) for v in pod.get("volumes") or []}
    yield from _nameless(pod)
    if isinstance(pod.get("terminationGracePeriodSeconds"), int) and pod["terminationGracePeriodSeconds"] < 0:
        yield "KO215", "terminationGracePeriodSeconds is negative; write 60"
    for kind in ("containers", "initContainers", "volumes"):
        for entry in pod.get(kind) or []:
            if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", str(entry.get("name", ""))):
                yield "KO211", f"{kind}: {entry.get('name')!r}: a name of lower case, digits and dashes, at most 63"
    for volume in pod.get("volumes") or []:
        name = str((volume.get("configMap") or {}).get("name", "x"))
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name):
            yield "KO211", f"volume {volume.get('name')}: {name!r} is not a valid ConfigMap name"
    for container in [*pod["containers"], *(pod.get("initContainers") or [])]:
        for mount in container.get("volumeMounts") or []:
            at = f"container {container.get('name')}: mount {mount.get('mountPath')}"
            if str(mount.get("name")) not in volumes:
                yield (
                    "KO211",
                    f"{at}: there is no volume {mount.get('name')}; add it to volumes, or remove the mount",
                )
            if not str(mount.get("mountPath", "")).startswith("/") or ":" in str(mount.get("mountPath")):
                yield "KO211", f"{at} is not an absolute path"
            if (str(mount.get("mountPath")).rstrip("/") or "/") in TAKEN:
                yield "KO211", f"{at} hides files of the image; mount it elsewhere, such as /data"
            if mount.get("subPath") and mount.get("subPathExpr"):
                yield "KO211", f"{at} has both subPath and subPathExpr; keep one"
            if ".." in str(mount.get("subPath", "")).split("/"):
                yield "KO211", f"{at}: subPath leads outside the volume"
        for device in container.get("volumeDevices") or []:
            yield (
                "KO211",
                f"container {container.get('name')}: volumeDevices {device.get('name')}: a sweep does not use raw "
                f"devices",
            )
    for volume in pod.get("volumes") or []:
        if len(set(volume) - {"name"}) != 1:
            yield "KO211", f"volume {volume.get('name')} has {len(set(volume) - {'name'})} sources; it must have one"
        empty = volume.get("emptyDir") or {}
        if empty.get("medium") not in (None, "", "Memory") and not str(empty.get("medium")).startswith("HugePages"):
            yield "KO211", f"volume {volume.get('name')}: medium {empty['medium']} is not Memory; leave it out for disk"
        if "sizeLimit" in empty and not quantity(empty["sizeLimit"]) > 0:
            yield "KO211", f"volume {volume.get('name')}: sizeLimit {empty['sizeLimit']} is not a size, such as 20Gi"
    claimed = {str(c.get("name")) for c in pod.get("resourceClaims") or []}
    for container in pod["containers"]:
        for claim in (container.get("resources") or {}).get("claims") or []:
            if str(claim.get("name")) not in claimed:
                yield (
                    "KO211",
                    f"container {container.get('name')}: claim {claim.get('name')} is not in resourceClaims; add it",
                )
    if "Group" in path:
        yield from _shared_memory(pod)


def _shared_memory(pod: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Ray keeps objects in /dev/shm, 30% of the Pod's memory, and on disk if that is smaller."""
    for container in pod["containers"][:1]:
        memory = quantity(((container.get("resources") or {}).get("limits") or {}).get("memory", "nan"))
        mounts = {str(m.get("mountPath")).rstrip("/"): m for m in container.get("volumeMounts") or []}
        mount = mounts.get("/dev/shm")
        if "/tmp" in mounts and mounts["/tmp"].get("readOnly"):
            yield "KO216", "/tmp is mounted read-only, but Ray writes there; remove readOnly"
        disk: Mapping[str, Any] = next(
            (v for v in pod.get("volumes") or [] if v.get("name") == mounts.get("/tmp", {}).get("name")), {}
        )
        if quantity((disk.get("emptyDir") or {}).get("sizeLimit", "20Gi")) < 2**30:
            yield (
                "KO216",
                "/tmp has less than 1Gi, so Ray's logs and spilled objects would get the Pod evicted; write 20Gi",
            )
        if (container.get("securityContext") or {}).get("readOnlyRootFilesystem"):
            yield (
                "KO216",
                "readOnlyRootFilesystem: Ray and the packages it installs write outside /tmp too; leave it out",
            )
        if mount is None:
            yield (
                "KO216",
                "nothing is mounted at /dev/shm, so Ray would keep its objects on disk; mount an emptyDir, medium: "
                "Memory",
            )
            continue
        volume: Mapping[str, Any] = next(
            (v for v in pod.get("volumes") or [] if v.get("name") == mount.get("name")), {}
        )
        empty = volume.get("emptyDir")
        if mount.get("readOnly") or empty is None or empty.get("medium") != "Memory":
            yield "KO216", "/dev/shm must be a writable emptyDir of medium: Memory"
        elif "sizeLimit" in empty and not quantity(empty["sizeLimit"]) * 0.95 >= 0.3 * memory:
            yield (
                "KO216",
                f"/dev/shm of {empty['sizeLimit']} is less than the 30% of memory that Ray's objects take; write 40%",
            )
        elif "sizeLimit" in empty and quantity(empty["sizeLimit"]) > memory:
            yield "KO216", f"/dev/shm of {empty['sizeLimit']} is more than the Pod's memory; use 40%"


NAMED = {"secret": "secretName", "configMap": "name", "persistentVolumeClaim": "claimName", "csi": "driver"}


def _nameless(pod: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """References without a name."""
    for volume in pod.get("volumes") or []:
        for kind, key in NAMED.items():
            if kind in volume and not (volume[kind] or {}).get(key):
                yield "KO211", f"volume {volume.get('name')}: {kind} has no name; write its {key}"
    for container in [*pod["containers"], *(pod.get("initContainers") or [])]:
        at = f"container {container.get('name')}"
        for entry in container.get("env") or []:
            source = entry.get("valueFrom")
            if source is None and "value" not in entry:
                yield "KO211", f"{at}: {entry.get('name')} has no value; write value or valueFrom"
            for kind in ("secretKeyRef", "configMapKeyRef"):
                found = (source or {}).get(kind)
                if found is not None and not (found.get("name") and found.get("key")):
                    yield "KO211", f"{at}: {entry.get('name')}: {kind} needs a name and a key"
            if source is not None and len(source) != 1:
                yield "KO211", f"{at}: {entry.get('name')}: valueFrom needs one source, such as secretKeyRef"
        for entry in container.get("envFrom") or []:
            found = entry.get("secretRef") or entry.get("configMapRef")
            if not (found or {}).get("name"):
                yield "KO211", f"{at}: envFrom has no name; write secretRef with its name"
            if entry.get("secretRef") and entry.get("configMapRef"):
                yield "KO211", f"{at}: each entry of envFrom needs either secretRef or configMapRef"
    for entry in pod.get("imagePullSecrets") or []:
        if not entry.get("name"):
            yield "KO211", "imagePullSecrets: an entry without a name; write it"
