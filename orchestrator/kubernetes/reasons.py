"""Why nothing runs, and what to do, in one line, from objects of the API server; makes no requests itself.

What is checked, most informative first: Kueue's Workload of a job that it holds back; refusals of Pods, which the
operator keeps as condition ReplicaFailure of the RayCluster and as events; the Pods themselves (scheduling, images,
volumes, crashes) with their events. Wording of messages: Kubernetes 1.36, KubeRay 1.7.0, Kueue 0.19.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.kubernetes.quantities import asked_for

QUEUE = "kueue.x-k8s.io/queue-name"
COMPONENT, NODE_TYPE = "app.kubernetes.io/component", "ray.io/node-type"
LESS = "request less (resources in the sweep file; the head's are in the profile)"
Object = Mapping[str, Any]
WHO = {
    "head": "the head",
    "submitter": "the submitter",
    "worker": "a worker",
    "logs": "the Pod that reads the log",
}
UNCOVERED = (
    r"unavailable in ClusterQueue|untolerated taint .* in flavor|flavor \S+ (not found|doesn't match node affinity)"
)
"""Messages of Kueue about a request that none of a queue's flavors covers."""
FAILURES = ("FailedCreate", "FailedToCreate", "AutoscalerServiceAccountNotFound")
"""Beginnings of the reasons of events."""
IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Objects of one sweep, as returned by the API server."""

    job: Object
    cluster: Object | None = None
    workloads: Sequence[Object] = ()
    """Kueue's Workloads in the namespace."""
    pods: Sequence[Object] = ()
    events: Sequence[Object] = ()
    """Warning events in the namespace."""
    unseen: Sequence[str] = field(default=())
    """Kinds that the account may not read."""

    @property
    def namespace(self) -> str:
        """The sweep's namespace."""
        return str(_at(self.job, "metadata").get("namespace", "default"))


def reason(seen: Seen) -> str:
    """Why the sweep, or a part of it, waits; empty if there is no sign of trouble."""
    for found in (_queue(seen), _refused(seen), _pods(seen), _lost(seen)):
        if found:
            return " ".join(found.split())
    return ""


def living(pods: Sequence[Object]) -> list[Object]:
    """Pods that occupy a machine, or will."""
    return [pod for pod in pods if _at(pod, "status").get("phase") not in ("Succeeded", "Failed")]


def _queue(seen: Seen) -> str:
    """The reason given by Kueue."""
    queue = _at(seen.job, "metadata", "labels").get(QUEUE)
    if not queue or not _at(seen.job, "spec").get("suspend"):
        return ""
    name = _at(seen.job, "metadata").get("name")
    mine = [
        w for w in seen.workloads if any(o.get("name") == name for o in _at(w, "metadata").get("ownerReferences", ()))
    ]
    look = f"kubectl -n {seen.namespace} describe localqueue {queue}"
    if not mine:
        if "workloads" in seen.unseen:
            return f"held in Kueue's queue {queue}; this account may not list workloads: {look}"
        return f"held for Kueue's queue {queue}, but Kueue has not created a Workload: is Kueue installed? {look}"
    held = {c["type"]: c for c in _at(mine[-1], "status").get("conditions", ())}
    reserved, evicted = held.get("QuotaReserved", {}), held.get("Evicted", {})
    said, kind = reserved.get("message", ""), reserved.get("reason", "")
    if reserved.get("status") == "True":
        checks = [c for c in _at(mine[-1], "status").get("admissionChecks", ()) if c.get("state") != "Ready"]
        names = ", ".join(f"{c.get('name')} {c.get('state')}: {c.get('message', '')}" for c in checks)
        return f"admitted by Kueue, which waits for {names}: {look}" if names else ""
    if kind == "NoMatchingFlavor" or re.search(UNCOVERED, said):
        return (
            f"no flavor of Kueue's queue {queue} has what it requests: {said}; request something else, or have it "
            f"added: {look}"
        )
    if kind in ("Misconfigured", "Suspended") or re.search(r"doesn't exist|not found|inactive|stopped", said):
        return f"Kueue cannot admit it: {said}; use an existing queue (--queue), or have it created: {look}"
    if kind == "ExceedsMaxQuota" or re.search(r"request( \(\S+\))? > maximum capacity", said):
        return f"it can never fit Kueue's queue {queue}: {said}; {LESS}, or resources.max_concurrent"
    before = "preempted" if evicted.get("status") == "True" and evicted.get("reason") == "Preempted" else "waits"
    again = "; it will continue from its newest checkpoints" if before == "preempted" else ""
    return (
        f"{before} in Kueue's queue {queue}: {said or evicted.get('message', 'no room')}{again}. Wait for others to "
        f"end, or {LESS}, or resources.max_concurrent: {look}"
    )


def _refused(seen: Seen) -> str:
    """Pods that the API server rejected."""
    held = _at(seen.cluster or {}, "status").get("conditions") or _at(seen.job, "status", "rayClusterStatus").get(
        "conditions"
    )
    for condition in held or ():
        why = condition.get("reason", "")
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True" and "Create" in why:
            who = "the head" if "Head" in why else "a worker"
            return refusal(condition.get("message", ""), who, seen.namespace)
    name = _at(seen.job, "metadata").get("name", "")
    headed = any(_role(pod) == "head" for pod in living(seen.pods)) or any(
        condition.get("type") == "HeadPodReady" and condition.get("status") == "True" for condition in held or ()
    )
    submitted = any(_role(pod) == "submitter" for pod in seen.pods) or _at(seen.job, "status").get("jobStatus")
    for event in sorted(seen.events, key=_when, reverse=True):
        about, why = _at(event, "involvedObject"), event.get("reason", "")
        kind = about.get("kind")
        if not _is_of(about.get("name", ""), name) or not why.startswith(FAILURES):
            continue
        if submitted if kind == "Job" else headed or kind not in ("RayJob", "RayCluster"):
            continue  # outdated: the missing object exists by now
        reads = _at(seen.job, "metadata", "labels").get(COMPONENT) == "sweep-logs"
        role = "logs" if reads else "submitter" if kind == "Job" else "worker" if "Worker" in why else "head"
        return refusal(event.get("message", ""), WHO[role], seen.namespace)
    return ""


def refusal(message: str, who: str, namespace: str) -> str:
    """What the API server's rejection of a Pod means, and what to do."""
    for pattern, says in REFUSALS:
        if found := re.search(pattern, message, re.DOTALL):
            return f"{who} {says(found, namespace)}"
    said = re.sub(r"^.*?is forbidden: ", "", message, flags=re.DOTALL)
    return f"{who} is rejected by the API server: {said}"


def _quota(found: re.Match[str], namespace: str) -> str:
    asked, used, most = (dict(part.split("=", 1) for part in found[n].split(",")) for n in ("asked", "used", "most"))
    each = ", ".join(
        f"{name}={amount} ({used.get(name, '?')} of {most.get(name, '?')} used)" for name, amount in asked.items()
    )
    return (
        f"exceeds quota {found['quota']}: requests {each}; wait for others to end, {LESS}, or have it raised: "
        f"kubectl -n {namespace} describe quota {found['quota']}"
    )


Says = Callable[[re.Match[str], str], str]
REFUSALS: tuple[tuple[str, Says], ...] = (
    (
        r"exceeded quota: (?P<quota>[^,\s]+), requested: (?P<asked>\S+), used: (?P<used>\S+), "
        r"limited: (?P<most>[^\s;]+)",
        _quota,
    ),
    (
        r"failed quota: (?P<quota>[^:\s]+): (?P<what>must specify .*)",
        lambda found, ns: f"is rejected by quota {found['quota']}: {found['what']}; kubectl -n {ns} describe quota",
    ),
    (
        r"(?P<what>((maximum|minimum) \S+ usage per (Container|Pod) is|\S+ max limit to request ratio per).*)",
        lambda found, ns: (
            f"violates a LimitRange: {found['what'].rstrip('.]')}; {LESS}, or have it changed: "
            f"kubectl -n {ns} describe limitrange"
        ),
    ),
    (
        r"error looking up service account [^/\s]+/(?P<name>[^:\s]+):|ServiceAccount (?P<operators>\S+) is not found",
        lambda found, ns: (
            f"has no account: ServiceAccount {found['name'] or found['operators']} does not exist in namespace {ns}; "
            f"apply the overlay (kubectl apply -k k8s/overlays/...), or: kubectl -n {ns} create serviceaccount "
            f"{found['name'] or found['operators']}"
        ),
    ),
    (
        r'violates PodSecurity "(?P<level>[^"]+)": (?P<what>.*)',
        lambda found, ns: (
            f"is rejected by Pod Security {found['level']}: {found['what']}; geosweep k8s render --check FILE names "
            "what to change; the level is the namespace's label pod-security.kubernetes.io/enforce"
        ),
    ),
    (
        r"no PriorityClass with name (?P<name>\S+) was found",
        lambda found, ns: f"uses PriorityClass {found['name']}, which does not exist: kubectl get priorityclass",
    ),
    (
        r'admission webhook "(?P<name>[^"]+)" denied the request: (?P<what>.*)',
        lambda found, ns: f"is rejected by the admission webhook {found['name']}: {found['what']}",
    ),
)


def _pods(seen: Seen) -> str:
    """The first Pod that does not come up, in the order head, submitter, workers."""
    order = list(WHO)
    for pod in sorted(living(seen.pods), key=lambda p: (order.index(_role(p)), _at(p, "metadata").get("name", ""))):
        if found := _pod(pod, seen):
            return f"{WHO[_role(pod)]} {found}"
    return ""


def _lost(seen: Seen) -> str:
    """The newest Pod that was evicted or exceeded its memory limit, of a kind that has no running Pod."""
    up = {_role(pod) for pod in living(seen.pods) if _at(pod, "status").get("phase") == "Running"}
    gone = [pod for pod in seen.pods if _at(pod, "status").get("phase") == "Failed" and _role(pod) not in up]
    for pod in sorted(gone, key=lambda p: str(_at(p, "metadata").get("creationTimestamp", "")), reverse=True):
        status, who = _at(pod, "status"), WHO[_role(pod)]
        killed = [_at(one, "state", "terminated").get("reason") for one in status.get("containerStatuses", ())]
        if "OOMKilled" in killed:
            return f"{who} exceeded its memory limit (OOMKilled), requests {asked_for(pod)}: give it more memory"
        if status.get("reason"):
            said = f": {status['message']}" if status.get("message") else ""
            return (
                f"{who} was lost ({status['reason']}{said}), and no other is running yet; kubectl -n {seen.namespace} "
                f"describe pod {_at(pod, 'metadata').get('name')}"
            )
    return ""


def _pod(pod: Object, seen: Seen) -> str:
    name, about = _at(pod, "metadata").get("name", ""), f"kubectl -n {seen.namespace} describe pod"
    warnings = [e for e in seen.events if _at(e, "involvedObject").get("name") == name]
    status = _at(pod, "status")
    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _unscheduled(pod, condition.get("message", ""), seen)
    for one in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waits, last = (
            _at(one, "state", "waiting"),
            _at(one, "lastState", "terminated") or _at(one, "state", "terminated"),
        )
        why = waits.get("reason", "")
        if why in IMAGE:
            pulled = [e.get("message", "") for e in sorted(warnings, key=_when) if "ull" in e.get("message", "")]
            said = waits.get("message") or "".join(pulled[-1:])
            said = pulled[-1] if pulled and "rror" not in said else said
            return (
                f"cannot pull its image {one.get('image')} ({why}): {said}; set the registry (--registry, "
                f"GEOSWEEP_REGISTRY), push the image, or give the Pods a pull secret"
            )
        if why in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
            return (
                f"cannot start ({why}): {waits.get('message', '')}; a Secret or ConfigMap that it references does not "
                f"exist"
            )
        if why == "CrashLoopBackOff" or (last.get("reason") == "OOMKilled" and not one.get("ready")):
            how = f"{last.get('reason', 'Error')}, exit code {last.get('exitCode', '?')}"
            more = (
                "give it more memory"
                if last.get("reason") == "OOMKilled"
                else f"kubectl -n {seen.namespace} logs {name} -p"
            )
            return f"keeps crashing ({how}): {more}"
    mounts = [e for e in warnings if e.get("reason") in ("FailedMount", "FailedAttachVolume")]
    if mounts and status.get("phase") == "Pending":
        return f"waits for a volume: {max(mounts, key=_when).get('message', '')}; {about} {name}"
    return ""


def _unscheduled(pod: Object, message: str, seen: Seen) -> str:
    name = _at(pod, "metadata").get("name", "")
    claims = [
        v["persistentVolumeClaim"]["claimName"]
        for v in _at(pod, "spec").get("volumes", ())
        if "persistentVolumeClaim" in v
    ]
    if missing := re.search(r'persistentvolumeclaim "([^"]+)" not found', message):
        return (
            f"waits for volume claim {missing[1]}, which does not exist in namespace {seen.namespace}: apply the "
            f"overlay "
            f"(kubectl apply -k k8s/overlays/...), or keep sweeps in an object store, --root s3://BUCKET/FOLDER"
        )
    if "unbound" in message and "PersistentVolumeClaim" in message:
        of_claims = [e for e in seen.events if _at(e, "involvedObject").get("name") in claims]
        why = max(of_claims, key=_when).get("message", "") if of_claims else message
        return (
            f"waits for volume claim {' and '.join(claims)}, which is not bound: {why}; "
            f"kubectl -n {seen.namespace} describe pvc {' '.join(claims)}"
        )
    if "scheduling gate" in message.lower():
        return f"is held back by a scheduling gate ({message})"
    nodes = re.split(r"\.? *preemption:", message)[0].rstrip(". ")
    return (
        f"fits no node: it requests {asked_for(pod)}; {nodes}; {LESS}, free or add nodes, or correct node selectors "
        f"and tolerations: kubectl -n {seen.namespace} describe pod {name}"
    )


def _role(pod: Object) -> str:
    labels = _at(pod, "metadata", "labels")
    said = f"{labels.get(COMPONENT, '')} {labels.get(NODE_TYPE, '')}"
    return next((role for role in WHO if role in said), "worker")


def _is_of(name: str, job: str) -> bool:
    return name == job or name.startswith(f"{job}-")


def _when(event: Object) -> str:
    return str(
        event.get("lastTimestamp") or event.get("eventTime") or _at(event, "metadata").get("creationTimestamp") or ""
    )


def _at(thing: Object, *path: str) -> Mapping[str, Any]:
    found: Any = thing
    for key in path:
        found = (found or {}).get(key) or {}
    return found  # type: ignore[no-any-return]


def names(pods: Sequence[Object]) -> Iterator[str]:
    """`NAME (PHASE)` of each."""
    for pod in pods:
        phase = "ending" if "deletionTimestamp" in _at(pod, "metadata") else _at(pod, "status").get("phase", "Pending")
        yield f"{_at(pod, 'metadata').get('name')} ({phase})"
