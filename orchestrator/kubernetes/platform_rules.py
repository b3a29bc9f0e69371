"""What must exist besides the job: accounts, classes, Secrets, claims, devices. A profile lists what does.

The API server accepts names of objects that do not exist, and then no Pod starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.definition.errors import nearest
from orchestrator.kubernetes.pod_rules import templates
from orchestrator.kubernetes.profile_model import FromSecret, PodModel, ProfileModel

SECRETS: Mapping[str, tuple[str, ...]] = {
    "geosweep-studies": ("url",),
    "geosweep-tracking": (),
    "geosweep-s3": (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ENDPOINT_URL_S3",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
    ),
}
DEVICES = re.compile(
    r"nvidia\.com/(gpu|gpu\.shared|mig-\d+g\.\d+gb(\.[a-z0-9.]+)?)|amd\.com/gpu|gpu\.intel\.com/(i915|xe)|"
    r"habana\.ai/gaudi|google\.com/tpu|aws\.amazon\.com/neuron(core)?|rdma/[a-z0-9_-]+|vpc\.amazonaws\.com/efa"
)
PLAIN = ("cpu", "memory", "ephemeral-storage")
WAY = "or name the profile that has it with --profile FILE"


class There:
    """What exists in the namespace and the cluster, according to a profile."""

    def __init__(self, profile: ProfileModel) -> None:
        parts: list[PodModel] = [profile, profile.head, profile.submitter, *profile.groups.values()]
        of = profile.accounts
        self.accounts = {"headGroup": of.head, "workerGroup": of.worker, "submitter": of.submitter}
        """Word in the path of a Pod template -> the ServiceAccount of those Pods."""
        self.priorities = {p.priority_class for p in parts if p.priority_class}
        self.runtimes = {p.runtime_class for p in parts if p.runtime_class}
        self.pull_secrets = set(profile.images.pull_secrets)
        named = {given.secret for p in parts for given in p.env.values() if isinstance(given, FromSecret)}
        self.secrets = {*SECRETS, *named, *(name for p in parts for name in p.env_from)}
        sources = [v.source for p in parts for v in p.volumes]
        self.claims = {profile.claim, *(str(_name(s, "persistentVolumeClaim", "claimName")) for s in sources)}
        self.secrets |= {str(_name(s, "secret", "secretName")) for s in sources}
        self.devices = {group.gpu_resource for group in profile.groups.values()}
        self.templates = {group.gpu_claim for group in profile.groups.values() if group.gpu_claim}


def _name(source: Mapping[str, Any], kind: str, key: str) -> Any:
    return (source.get(kind) or {}).get(key, "")


def platform_findings(job: Mapping[str, Any], there: There) -> Iterator[tuple[str, str]]:
    """(code, message) for every name that the profile does not know."""
    yield from _of_cluster((job.get("spec") or {}).get("rayClusterSpec") or {}, there)
    for path, template in templates(job):
        pod = template["spec"]
        account = next((name for word, name in there.accounts.items() if word in path), "")
        if (own := pod.get("serviceAccountName")) in there.accounts.values() and own != account:
            yield "KO212", f"{path}: serviceAccountName {own} is for another kind of Pods; use {account}"
        else:
            yield from _known("KO212", f"{path}: serviceAccountName", own, {account})
        if not pod.get("serviceAccountName") and "head" not in path:
            yield "KO212", f"{path}: without serviceAccountName it has no pull secrets; use {account}"
        yield from _known("KO213", f"{path}: priorityClassName", pod.get("priorityClassName"), there.priorities)
        yield from _known("KO213", f"{path}: runtimeClassName", pod.get("runtimeClassName"), there.runtimes)
        for entry in pod.get("imagePullSecrets") or []:
            yield from _known("KO214", f"{path}: imagePullSecrets", entry.get("name"), there.pull_secrets)
        for entry in pod.get("resourceClaims") or []:
            name = entry.get("resourceClaimTemplateName")
            yield from _known("KO214", f"{path}: resourceClaimTemplateName", name, there.templates)
        for volume in pod.get("volumes") or []:
            at = f"{path}: volume {volume.get('name')}"
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            yield from _known("KO214", f"{at}: claimName", claim, there.claims)
            if not (volume.get("secret") or {}).get("optional"):
                yield from _known(
                    "KO214", f"{at}: secretName", (volume.get("secret") or {}).get("secretName"), there.secrets
                )
        for source in [s for v in pod.get("volumes") or [] for s in (v.get("projected") or {}).get("sources") or []]:
            name = (source.get("secret") or {}).get("name")
            yield from _known("KO214", f"{path}: projected Secret", name, there.secrets)
        for container in [*pod["containers"], *(pod.get("initContainers") or [])]:
            yield from _container(f"{path}: container {container.get('name')}", container, there)


def _of_cluster(cluster: Mapping[str, Any], there: There) -> Iterator[tuple[str, str]]:
    """References outside Pod templates: the autoscaler's container, a custom token."""
    if options := cluster.get("autoscalerOptions"):
        yield from _container("autoscalerOptions", options, there)
    name = (cluster.get("authOptions") or {}).get("secretName")
    yield from _known("KO214", "authOptions.secretName", name, there.secrets)


def _known(code: str, where: str, name: Any, there: set[str]) -> Iterator[tuple[str, str]]:
    if name and name not in there:
        way = nearest(str(name), there) if there else ""
        yield code, f"{where} {name} is not in the profile, and without it no Pod starts{way}; {WAY}"


def _container(where: str, container: Mapping[str, Any], there: There) -> Iterator[tuple[str, str]]:
    for entry in container.get("envFrom") or []:
        found = entry.get("secretRef") or {}
        optional = found.get("optional") and found.get("name") in ("geosweep-tracking", "geosweep-s3")
        if not optional:
            yield from _known("KO214", f"{where}: envFrom Secret", found.get("name"), there.secrets)
    for entry in container.get("env") or []:
        found = (entry.get("valueFrom") or {}).get("secretKeyRef") or {}
        yield from _known("KO214", f"{where}: {entry.get('name')}: Secret", found.get("name"), there.secrets)
        keys = SECRETS.get(str(found.get("name")), ())
        if keys and found.get("key") not in keys and not found.get("optional"):
            yield (
                "KO214",
                f"{where}: {entry.get('name')}: Secret {found['name']} has no key {found.get('key')}; it has {keys[0]}",
            )
    resources = container.get("resources") or {}
    for kind in ("requests", "limits"):
        for name in resources.get(kind) or {}:
            if name in PLAIN or str(name).startswith("hugepages-"):
                continue
            if name not in there.devices and not DEVICES.fullmatch(str(name)):
                way = nearest(str(name), {*there.devices, "nvidia.com/gpu", "amd.com/gpu", *PLAIN})
                yield "KO205", f"{where}: no node has {name}, so the Pod would wait forever{way}; {WAY}"
