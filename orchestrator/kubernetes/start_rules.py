"""What starts in the Pods: the entrypoint, and `ray start` with its version."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.definition.errors import nearest
from orchestrator.kubernetes.entrypoint_rules import entrypoint_findings
from orchestrator.kubernetes.quantities import quantity
from orchestrator.kubernetes.runtime_rules import runtime_findings

RAY = "2.60.0"
"""The version in our images, used for `rayVersion`."""
START = [
    "address",
    "autoscaling-config",
    "block",
    "cgroup-path",
    "dashboard-agent-grpc-port",
    "dashboard-agent-listen-port",
    "dashboard-host",
    "dashboard-port",
    "disable-usage-stats",
    "enable-object-reconstruction",
    "enable-resource-isolation",
    "head",
    "include-dashboard",
    "include-log-monitor",
    "labels",
    "labels-file",
    "log-color",
    "log-style",
    "max-worker-port",
    "memory",
    "metrics-export-port",
    "min-worker-port",
    "no-monitor",
    "no-redirect-output",
    "node-ip-address",
    "node-manager-port",
    "node-name",
    "num-cpus",
    "num-gpus",
    "object-manager-port",
    "object-spilling-directory",
    "object-store-memory",
    "plasma-directory",
    "port",
    "proxy-server-url",
    "ray-client-server-port",
    "ray-debugger-external",
    "redis-password",
    "redis-shard-ports",
    "redis-username",
    "resources",
    "runtime-env-agent-port",
    "system-config",
    "system-reserved-cpu",
    "system-reserved-memory",
    "temp-dir",
    "tracing-startup-hook",
    "verbose",
    "worker-port-list",
]
"""Options of `ray start`; each key of rayStartParams becomes one."""
NUMBERS = ("num-cpus", "num-gpus", "memory", "object-store-memory", "dashboard-port", "metrics-export-port", "port")

SWITCHES = (
    "head",
    "block",
    "no-redirect-output",
    "enable-object-reconstruction",
    "no-monitor",
    "ray-debugger-external",
    "disable-usage-stats",
    "enable-resource-isolation",
)
"""Those that take no value: true sets them, false omits them."""


def start_findings(job: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(code, message) for what cannot start, or would start somewhere other than on the cluster."""
    spec = job.get("spec") or {}
    cluster = spec.get("rayClusterSpec") or {}
    yield from entrypoint_findings(str(spec.get("entrypoint") or "").split())
    yield from runtime_findings(spec.get("runtimeEnvYAML"))
    head = cluster.get("headGroupSpec") or {}
    parts = [("headGroupSpec", head)]
    parts += [(f"workerGroupSpecs {g.get('groupName')}", g) for g in cluster.get("workerGroupSpecs") or []]
    for where, part in parts:
        for key, value in (part.get("rayStartParams") or {}).items():
            yield from _param(where, key, str(value), head=part is head)
        yield from _more_than_there_is(where, part)
        yield from _first(where, part, head=part is head)
    if head and str((head.get("rayStartParams") or {}).get("num-cpus")) != "0":
        yield (
            "KO119",
            "headGroupSpec.rayStartParams.num-cpus is not '0': trials would run next to the driver; write '0'",
        )
    if head and (head.get("rayStartParams") or {}).get("dashboard-host", "0.0.0.0") != "0.0.0.0":
        yield "KO119", "headGroupSpec.rayStartParams.dashboard-host: the operator connects from outside; write 0.0.0.0"
    yield from _versions(spec, cluster)


def _param(where: str, key: str, value: str, *, head: bool) -> Iterator[tuple[str, str]]:
    at = f"{where}.rayStartParams.{key}"
    if key not in START:
        yield "KO119", f"{at}: ray start has no such option, so the Pod would not start{nearest(key, START)}"
    elif key in NUMBERS and not re.fullmatch(r"\d+", value):
        yield "KO119", f"{at}: {value!r} is not a whole number from 0 on"
    elif key in ("address", "head", "no-monitor", "temp-dir") or (key == "port" and not head):
        yield "KO119", f"{at} is set by the operator; leave it out"
    elif key in ("node-ip-address", "node-name"):
        yield "KO119", f"{at}: every Pod has its own, which Ray detects; leave it out"
    elif key in SWITCHES and value not in ("true", "false"):
        yield "KO119", f"{at}: {value!r}; write 'true', or leave it out"
    elif key == "block" and value != "true":
        yield "KO119", f"{at}: {value!r}; the Pod ends at once unless Ray stays in the foreground; leave it out"
    elif key == "include-dashboard" and value != "true":
        yield "KO119", f"{at}: {value!r}; jobs are submitted through the dashboard; leave it out"
    elif key == "resources" and "TPU" not in value and not re.search(r"\{.*\}", value):
        yield "KO119", f"{at}: {value!r} is not JSON such as '{{\"name\": 1}}'"


def _limits(part: Mapping[str, Any]) -> Mapping[str, Any]:
    containers = ((part.get("template") or {}).get("spec") or {}).get("containers") or [{}]
    return (containers[0].get("resources") or {}).get("limits") or {}


def _more_than_there_is(where: str, part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Resources that Ray is told a Pod has but that its limits do not provide."""
    params, limits = part.get("rayStartParams") or {}, _limits(part)
    claims = ((part.get("template") or {}).get("spec") or {}).get("resourceClaims")
    told = {key: int(params[key]) for key in ("num-cpus", "num-gpus") if str(params.get(key)).isdigit()}
    if told.get("num-cpus", 0) > (has := quantity(limits.get("cpu", "inf"))):
        yield "KO119", f"{where}.rayStartParams.num-cpus: {told['num-cpus']}, but the Pod has {has:g} CPU; leave it out"
    own = quantity((part.get("resources") or {}).get("CPU", "0"))
    if own > has:
        yield "KO119", f"{where}.resources.CPU: {own:g}, but the Pod has {has:g} CPU; leave it out"
    devices = [quantity(amount) for name, amount in limits.items() if "/" in str(name)]
    memory = quantity(limits.get("memory", "inf"))
    for key in ("memory", "object-store-memory"):
        if str(params.get(key)).isdigit() and int(params[key]) > memory:
            yield "KO119", f"{where}.rayStartParams.{key}: {params[key]} bytes, but the Pod has {limits['memory']}"
    if told.get("num-gpus", 0) and not claims and told["num-gpus"] > sum(devices):
        yield (
            "KO119",
            f"{where}.rayStartParams.num-gpus: {told['num-gpus']}, but the Pod's limits have {sum(devices):g} "
            "devices;  "
            "write the device in limits",
        )


PORTS = {"gcs": 6379, "gcs-server": 6379, "dashboard": 8265, "client": 10001}
"""The head's ports by name: used by the operator for the Service, and by `ray start` to listen."""
OF_RAY = ("ray-head", "ray-worker")


def _first(where: str, part: Mapping[str, Any], *, head: bool) -> Iterator[tuple[str, str]]:
    """The operator starts Ray in the first container."""
    containers = ((part.get("template") or {}).get("spec") or {}).get("containers") or []
    for container in containers[1:]:
        if container.get("name") in OF_RAY and containers[0].get("name") not in OF_RAY:
            yield (
                "KO119",
                f"{where}: Ray is started in the first container, {containers[0].get('name')}; put "
                f"{container['name']} first",
            )
    if not head or not containers:
        return
    for port in containers[0].get("ports") or []:
        meant, given = PORTS.get(str(port.get("name"))), part.get("rayStartParams") or {}
        if meant == PORTS["gcs"]:
            meant = int(given.get("port", meant))
        if meant and port.get("containerPort") != meant and not given.get("dashboard-port"):
            yield (
                "KO119",
                f"{where}: port {port.get('name')} is {port.get('containerPort')}, but Ray listens on {meant}; write "
                "that",
            )


def _versions(spec: Mapping[str, Any], cluster: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    version = str(cluster.get("rayVersion", ""))
    if cluster and version != RAY:
        yield "KO120", f"rayVersion is {version or 'missing'}, but the images have Ray {RAY}; write that"
    tags: dict[str, str] = {}
    parts = [("head", cluster.get("headGroupSpec") or {})]
    parts += [(f"group {g.get('groupName')}", g) for g in cluster.get("workerGroupSpecs") or []]
    if scaler := (cluster.get("autoscalerOptions") or {}).get("image"):
        parts.append(("autoscaler", {"template": {"spec": {"containers": [{"image": scaler}]}}}))
    parts.append(("submitter", {"template": spec.get("submitterPodTemplate") or {}}))
    for where, part in parts:
        containers = ((part.get("template") or {}).get("spec") or {}).get("containers") or [{}]
        image = str(containers[0].get("image", "")).partition("@")[0]
        name, colon, tag = image.rpartition(":")
        if not colon or "/" in tag:
            continue
        if where != "autoscaler":  # it has none of our code
            tags[where] = re.sub(r"[-.](?:cpu|gpu|cuda|rocm|cu|py|rocm)\d*(?=[-.]|$)", "", tag)
        official = re.fullmatch(r"(?:.*/)?ray(?:-ml|-llm)?", name) and re.match(r"\d+\.\d+\.\d+", tag)
        if official and not tag.startswith(version):
            yield (
                "KO120",
                f"{where}: image {image} has a different Ray than rayVersion {version}; use one that has it",
            )
    if len(set(tags.values())) > 1:
        said = ", ".join(f"{where} {tag}" for where, tag in tags.items())
        yield (
            "KO120",
            f"images of different versions ({said}): driver and workers must have the same code; give them the same "
            "tag",
        )
