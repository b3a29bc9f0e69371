"""The autoscaler's container, which the operator adds to the head's Pod from `autoscalerOptions`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.kubernetes.rules import at_of, cluster_of, rule

NAME = "autoscaler"
SET: tuple[str, ...] = (
    "RAY_ADDRESS",
    "RAY_CLUSTER_NAME",
    "RAY_CLUSTER_NAMESPACE",
    "RAY_HEAD_POD_NAME",
    "KUBERAY_CRD_VER",
)
SET += ("KUBERAY_GEN_AUTOSCALER_START_CMD",)
"""Variables that the operator sets."""
TAKEN: tuple[str, ...] = ("/", "/opt", "/opt/geosweep", "/usr", "/usr/local", "/bin", "/sbin", "/lib", "/lib64", "/etc")
TAKEN += ("/proc", "/sys", "/dev", "/home", "/var", "/run")
"""Folders used by the image or the system; a mount there hides them."""


def container_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The container resulting from the options, as far as they specify it."""
    kept = ("image", "imagePullPolicy", "env", "envFrom", "volumeMounts", "resources", "securityContext")
    return {"name": NAME, **{key: options[key] for key in kept if key in options}}


@rule("KO125")
def _autoscaler(job: Mapping[str, Any]) -> Iterator[str]:
    options = at_of(cluster_of(job), "autoscalerOptions")
    pod = at_of(cluster_of(job), "headGroupSpec", "template", "spec")
    scales = cluster_of(job).get("enableInTreeAutoscaling")
    if scales and pod.get("automountServiceAccountToken") is False:
        yield (
            "headGroupSpec: automountServiceAccountToken: false removes the token that the autoscaler needs to "
            "request Pods; leave it out"
        )
    if not options:
        return
    if not scales:
        yield "autoscalerOptions: autoscaling is off, so they have no effect; leave them out"
    volumes = {str(v.get("name")) for v in pod.get("volumes") or []}
    for mount in options.get("volumeMounts") or []:
        if str(mount.get("name")) not in volumes:
            yield (
                f"autoscalerOptions: mount {mount.get('mountPath')}: the head's Pod has no volume {mount.get('name')}; "
                "add it to headGroupSpec.template.spec.volumes, or remove the mount"
            )
        if not str(mount.get("mountPath", "")).startswith("/"):
            yield f"autoscalerOptions: mount {mount.get('mountPath')} is not an absolute path"
        if (str(mount.get("mountPath")).rstrip("/") or "/") in TAKEN:
            yield f"autoscalerOptions: mount {mount['mountPath']} hides files of the image; mount it elsewhere"
    for key in ("command", "args"):
        if options.get(key):
            yield f"autoscalerOptions.{key} replaces what the operator starts; leave it out"
    for entry in options.get("env") or []:
        if entry.get("name") in SET:
            yield f"autoscalerOptions: {entry['name']} is set by the operator; leave it out"
    if any("/" in str(name) for name in at_of(options, "resources", "limits")):
        yield "autoscalerOptions.resources: requests a device, but no trial runs there; leave it out"
    if "resources" in options and not at_of(options, "resources", "limits"):
        yield "autoscalerOptions.resources has no limits: a namespace with a quota refuses the head; write them"
