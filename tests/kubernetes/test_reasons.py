"""Why nothing runs, from objects as an API server holds them; messages as Kubernetes, KubeRay and Kueue word them."""

from __future__ import annotations

import pytest

from orchestrator.kubernetes.quantities import amount
from orchestrator.kubernetes.reasons import Seen, reason
from tests.kubernetes.objects import (
    CLUSTER,
    NAME,
    NO_HEAD,
    NOT_FOUND,
    event,
    failing,
    forbidden,
    job,
    pending,
    pod,
    unscheduled,
    waits,
    workload,
)

QUOTA = "exceeded quota: sweeps, requested: requests.cpu=2500m, used: requests.cpu=0, limited: requests.cpu=2"
SEVERAL = (
    "exceeded quota: team, requested: pods=1,requests.memory=8Gi, used: pods=3,requests.memory=20Gi, "
    "limited: pods=3,requests.memory=24Gi"
)
SECURITY = (
    'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "ray-head" must set '
    "securityContext.allowPrivilegeEscalation=false), runAsNonRoot != true"
)
PULL = (
    'Back-off pulling image "geosweep-head:0.1.0": ErrImagePull: failed to pull and unpack image '
    '"docker.io/library/geosweep-head:0.1.0": failed to resolve reference: pull access denied'
)
NODES = (
    "0/3 nodes are available: 1 node(s) had untolerated taint {geosweep.io/spot: true}, 2 Insufficient nvidia.com/gpu. "
    "preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found."
)
UNBOUND = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found."
FULL = (
    "couldn't assign flavors to pod set head: insufficient unused quota for cpu in flavor default-flavor, 1500m "
    "more needed"
)
TOO_LARGE = (
    "couldn't assign flavors to pod set gpu: insufficient quota for nvidia.com/gpu in flavor default-flavor, "
    "previously considered podsets requests (0) + current podset request (16) > maximum capacity (8)"
)
UNCOVERED = "couldn't assign flavors to pod set gpu: resource nvidia.com/mig-1g.10gb unavailable in ClusterQueue"

CASES: dict[str, tuple[Seen, list[str]]] = {
    "head over quota": (
        Seen(job=job(rayClusterStatus=failing("FailedCreateHeadPod", forbidden(QUOTA))["status"])),
        [
            "the head exceeds quota sweeps",
            "requests.cpu=2500m (0 of 2 used)",
            "kubectl -n team-a describe quota sweeps",
        ],
    ),
    "workers over quota": (
        Seen(
            job=job(jobDeploymentStatus="Running", jobStatus="RUNNING"),
            cluster=failing("FailedCreateWorkerPod", forbidden(SEVERAL)),
            pods=[pod("head", phase="Running"), pod("submitter", phase="Running")],
        ),
        [
            "a worker exceeds quota team",
            "pods=1 (3 of 3 used), requests.memory=8Gi (20Gi of 24Gi used)",
            "wait for others",
        ],
    ),
    "quota wants limits": (
        Seen(
            job=job(),
            cluster=failing("FailedCreateHeadPod", forbidden("failed quota: q: must specify limits.cpu for: x")),
        ),
        ["rejected by quota q: must specify limits.cpu"],
    ),
    "limit range": (
        Seen(
            job=job(),
            cluster=failing("FailedCreateHeadPod", forbidden("maximum cpu usage per Container is 1, but limit is 2.")),
        ),
        ["head violates a LimitRange: maximum cpu usage per Container is 1, but limit is 2;", "describe limitrange"],
    ),
    "limit range, several": (
        Seen(
            job=job(),
            cluster=failing(
                "FailedCreateWorkerPod",
                forbidden(
                    "[minimum memory usage per Pod is 16Gi, but request is 4294967296, maximum cpu usage per Pod is 1]"
                ),
            ),
        ),
        ["a worker violates a LimitRange: minimum memory usage per Pod is 16Gi", "maximum cpu usage per Pod is 1;"],
    ),
    "image": (
        Seen(job=job(), pods=[pod("head", **waits("ImagePullBackOff", PULL))]),
        ["the head cannot pull its image geosweep-head:0.1.0 (ImagePullBackOff)", "pull access denied", "--registry"],
    ),
    "image, message in an event alone": (
        Seen(
            job=job(),
            pods=[pod("worker", **waits("ImagePullBackOff", 'Back-off pulling image "w:1"', image="w:1"))],
            events=[
                event("Pod", f"{CLUSTER}-worker-aaaaa", "Failed", 'Failed to pull image "w:1": manifest unknown'),
                event("Pod", "other", "Failed", 'Failed to pull image "other": unauthorized'),
            ],
        ),
        ["a worker cannot pull its image w:1", "manifest unknown"],
    ),
    "no node": (
        Seen(job=job(), pods=[pod("head", phase="Running"), pod("worker", **unscheduled(NODES))]),
        [
            "a worker fits no node: it requests cpu 1500m, memory 8Gi, nvidia.com/gpu 1",
            "2 Insufficient nvidia.com/gpu",
            "untolerated taint {geosweep.io/spot: true}",
        ],
    ),
    "volume claim not bound": (
        Seen(
            job=job(),
            pods=[pod("head", **unscheduled(UNBOUND))],
            events=[
                event(
                    "PersistentVolumeClaim",
                    "geosweep-runs",
                    "ProvisioningFailed",
                    'storageclass.storage.k8s.io "fast-rwx" not found',
                )
            ],
        ),
        [
            "the head waits for volume claim geosweep-runs, which is not bound",
            'class.storage.k8s.io "fast-rwx" not found',
        ],
    ),
    "volume claim not there": (
        Seen(
            job=job(),
            pods=[
                pod("head", **unscheduled('0/1 nodes are available: persistentvolumeclaim "geosweep-runs" not found.'))
            ],
        ),
        ["waits for volume claim geosweep-runs, which does not exist in namespace team-a"],
    ),
    "volume that does not attach": (
        Seen(
            job=job(),
            pods=[pod("worker", **waits("ContainerCreating"))],
            events=[
                event("Pod", f"{CLUSTER}-worker-aaaaa", "FailedAttachVolume", "Multi-Attach error for volume pvc-1")
            ],
        ),
        ["a worker waits for a volume: Multi-Attach error"],
    ),
    "Kueue, full": (
        Seen(job=job(suspend=True, queue="sweeps"), workloads=[workload(pending(FULL))]),
        ["waits in Kueue's queue sweeps", "1500m more needed", "describe localqueue sweeps"],
    ),
    "Kueue, never": (
        Seen(job=job(suspend=True, queue="sweeps"), workloads=[workload(pending(TOO_LARGE))]),
        ["can never fit Kueue's queue sweeps", "(16) > maximum capacity (8)", "resources.max_concurrent"],
    ),
    "Kueue, never, by its reason": (
        Seen(job=job(suspend=True, queue="sweeps"), workloads=[workload(pending("too much", "ExceedsMaxQuota"))]),
        ["can never fit Kueue's queue sweeps: too much"],
    ),
    "Kueue, a device that the queue does not have": (
        Seen(job=job(suspend=True, queue="sweeps"), workloads=[workload(pending(UNCOVERED))]),
        ["no flavor of Kueue's queue sweeps has what it requests", "nvidia.com/mig-1g.10gb unavailable"],
    ),
    "Kueue, stopped": (
        Seen(job=job(suspend=True, queue="sweeps"), workloads=[workload(pending("ClusterQueue a is stopped"))]),
        ["Kueue cannot admit it: ClusterQueue a is stopped"],
    ),
    "Kueue, no queue": (
        Seen(
            job=job(suspend=True, queue="nix"),
            workloads=[workload(pending("LocalQueue nix doesn't exist", "Inadmissible"))],
        ),
        ["Kueue cannot admit it: LocalQueue nix doesn't exist", "--queue"],
    ),
    "Kueue, preempted": (
        Seen(
            job=job(suspend=True, queue="sweeps"),
            workloads=[
                workload(
                    pending("Preempted to accommodate a workload (UID: 4) due to prioritization in the ClusterQueue"),
                    {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "Preempted"},
                )
            ],
        ),
        ["preempted in Kueue's queue sweeps", "due to prioritization", "continue from its newest checkpoints"],
    ),
    "Kueue, not there": (
        Seen(job=job(suspend=True, queue="sweeps"), unseen=[]),
        ["Kueue has not created a Workload"],
    ),
    "Kueue, another job's": (
        Seen(
            job=job(suspend=True, queue="sweeps"),
            workloads=[{**workload(pending(FULL)), "metadata": {"name": "x", "ownerReferences": [{"name": "other"}]}}],
        ),
        ["Kueue has not created a Workload"],
    ),
    "Kueue, may not be asked": (
        Seen(job=job(suspend=True, queue="sweeps"), unseen=["workloads"]),
        ["may not list workloads"],
    ),
    "account of a worker": (
        Seen(
            job=job(),
            cluster=failing(
                "FailedCreateWorkerPod",
                forbidden(
                    'error looking up service account team-a/sweep-runner: serviceaccount "sweep-runner" not found'
                ),
            ),
        ),
        [
            "a worker has no account: ServiceAccount sweep-runner does not exist in namespace team-a",
            "create serviceaccount",
        ],
    ),
    "account of the head, which the operator looks for": (
        Seen(
            job=job(),
            cluster=NO_HEAD,
            events=[event("RayCluster", CLUSTER, "AutoscalerServiceAccountNotFound", NOT_FOUND)],
        ),
        ["the head has no account: ServiceAccount sweep-head does not exist in namespace team-a", "kubectl apply -k"],
    ),
    "Service over quota": (
        Seen(
            job=job(),
            cluster=NO_HEAD,
            events=[event("RayCluster", CLUSTER, "FailedToCreateService", forbidden(QUOTA))],
        ),
        ["exceeds quota sweeps"],
    ),
    "account of the submitter": (
        Seen(
            job=job(
                jobDeploymentStatus="Running",
                rayClusterStatus={"conditions": [{"type": "HeadPodReady", "status": "True"}]},
            ),
            pods=[pod("head", phase="Running")],
            events=[
                event(
                    "Job",
                    NAME,
                    "FailedCreate",
                    f'Error creating: pods "{NAME}-" is forbidden: error looking up service account '
                    'team-a/sweep-runner: serviceaccount "sweep-runner" not found',
                )
            ],
        ),
        ["the submitter has no account"],
    ),
    "Pod Security": (
        Seen(job=job(), cluster=failing("FailedCreateHeadPod", forbidden(SECURITY))),
        ["the head is rejected by Pod Security restricted:latest: allowPrivilegeEscalation != false", "render --check"],
    ),
    "Pod Security, seen in events alone": (
        Seen(
            job=job(rayClusterName=""),
            events=[
                event(
                    "RayCluster",
                    CLUSTER,
                    "FailedToCreateHeadPod",
                    f"Failed to create head Pod team-a/, {forbidden(SECURITY)}",
                ),
                event("RayCluster", "fit-00000000-abcde", "FailedToCreateHeadPod", forbidden(QUOTA)),
            ],
        ),
        ["the head is rejected by Pod Security"],
    ),
    "priority class": (
        Seen(job=job(), cluster=failing("FailedCreateHeadPod", forbidden("no PriorityClass with name high was found"))),
        ["uses PriorityClass high"],
    ),
    "webhook": (
        Seen(
            job=job(),
            cluster=failing("FailedCreateHeadPod", 'admission webhook "policy.io" denied the request: no owner label'),
        ),
        ["the admission webhook policy.io: no owner label"],
    ),
    "anything else": (
        Seen(
            job=job(), cluster=failing("FailedCreateHeadPod", forbidden("node selector conflicts with its namespace's"))
        ),
        ["the head is rejected by the API server: node selector conflicts"],
    ),
    "secret": (
        Seen(
            job=job(), pods=[pod("head", **waits("CreateContainerConfigError", 'secret "geosweep-studies" not found'))]
        ),
        ["the head cannot start (CreateContainerConfigError)", 'secret "geosweep-studies" not found'],
    ),
    "out of memory": (
        Seen(
            job=job(),
            pods=[
                pod(
                    "head",
                    phase="Running",
                    containerStatuses=[
                        {
                            "image": "h",
                            "ready": False,
                            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                            "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
                        }
                    ],
                )
            ],
        ),
        ["keeps crashing (OOMKilled, exit code 137): give it more memory"],
    ),
    "workers evicted": (
        Seen(
            job=job(jobDeploymentStatus="Running", jobStatus="RUNNING"),
            pods=[
                pod("head", phase="Running"),
                pod("worker", phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
            ],
        ),
        ["a worker was lost (Evicted: The node was low on resource: memory.), and no other is running", "describe pod"],
    ),
    "head out of memory, and not up again": (
        Seen(
            job=job(),
            pods=[pod("head", phase="Failed", containerStatuses=[{"state": {"terminated": {"reason": "OOMKilled"}}}])],
        ),
        ["the head exceeded its memory limit", "memory 8Gi", "give it more memory"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_that_says_why_and_what_to_do(case: str) -> None:
    seen, words = CASES[case]
    found = reason(seen)
    assert not [word for word in words if word not in found], found
    assert "\n" not in found


QUIET = {
    "nothing yet": Seen(job=job()),
    "running": Seen(
        job=job(jobDeploymentStatus="Running", jobStatus="RUNNING"),
        pods=[pod("head", phase="Running"), pod("worker", phase="Running")],
    ),
    "containers being made": Seen(job=job(), pods=[pod("head", **waits("ContainerCreating"))]),
    "a Pod that ended": Seen(job=job(), pods=[pod("head", phase="Failed", **unscheduled(NODES))]),
    "an evicted Pod with another in its place": Seen(
        job=job(), pods=[pod("head", phase="Failed", reason="Evicted"), pod("head", phase="Running")]
    ),
    "not suspended any more": Seen(job=job(queue="sweeps"), workloads=[workload(pending(FULL))]),
    "admitted": Seen(
        job=job(suspend=True, queue="sweeps"),
        workloads=[workload({"type": "QuotaReserved", "status": "True", "message": ""})],
    ),
    "old events": Seen(
        job=job(
            jobDeploymentStatus="Running",
            jobStatus="RUNNING",
            rayClusterStatus={"conditions": [{"type": "HeadPodReady", "status": "True"}]},
        ),
        events=[
            event("RayCluster", CLUSTER, "FailedToCreateHeadPod", forbidden(QUOTA)),
            event("Job", NAME, "FailedCreate", forbidden(QUOTA)),
            event("Pod", f"{CLUSTER}-head-aaaaa", "Unhealthy", "Readiness probe failed"),
        ],
    ),
}


@pytest.mark.parametrize("case", QUIET)
def test_nothing_is_said_where_nothing_is_wrong(case: str) -> None:
    assert reason(QUIET[case]) == ""


def test_the_head_is_named_before_workers() -> None:
    pods = [pod("worker", **unscheduled(NODES)), pod("head", **waits("ErrImagePull", PULL))]
    assert reason(Seen(job=job(), pods=pods)).startswith("the head cannot pull its image")


def test_amounts() -> None:
    for text, value in {"500m": 0.5, "2": 2, "1Ki": 1024, "2G": 2e9, "8Gi": 8 * 2**30, "1.5": 1.5, "100k": 1e5}.items():
        assert float(amount(text)) == value
    for text in ("", "x", "1Zi", "Gi"):
        with pytest.raises(ValueError, match="not a Kubernetes quantity"):
            amount(text)
