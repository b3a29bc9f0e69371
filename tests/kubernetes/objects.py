"""Objects as an API server holds them while a sweep waits."""

from __future__ import annotations

from typing import Any

NAME = "fit-cef898a9"
CLUSTER = f"{NAME}-x7k2p"
Document = dict[str, Any]
NO_HEAD = {
    "metadata": {"name": CLUSTER},
    "status": {"conditions": [{"type": "HeadPodReady", "status": "False", "reason": "HeadPodNotFound"}]},
}
NOT_FOUND = (
    "Failed to reconcile RayCluster team-a/fit. If users specify ServiceAccountName for the head Pod, they need to "
    "create a ServiceAccount themselves. However, ServiceAccount sweep-head is not found. Please create one."
)


def job(*, suspend: bool = False, queue: str = "", **status: Any) -> Document:
    labels = {"geosweep.io/sweep": NAME} | ({"kueue.x-k8s.io/queue-name": queue} if queue else {})
    found = {"metadata": {"name": NAME, "namespace": "team-a", "labels": labels}, "spec": {"suspend": suspend}}
    return {**found, "status": {"jobDeploymentStatus": "Initializing", "rayClusterName": CLUSTER, **status}}


def failing(why: str, message: str) -> Document:
    """A RayCluster whose Pods are refused."""
    condition = {"type": "ReplicaFailure", "status": "True", "reason": why, "message": message}
    return {"metadata": {"name": CLUSTER}, "status": {"conditions": [condition]}}


def pod(role: str, *, phase: str = "Pending", **status: Any) -> Document:
    requests = {"cpu": "1500m", "memory": "8Gi"} | ({"nvidia.com/gpu": "1"} if role == "worker" else {})
    volumes = [{"name": "runs", "persistentVolumeClaim": {"claimName": "geosweep-runs"}}]
    return {
        "metadata": {
            "name": f"{CLUSTER}-{role}-aaaaa",
            "labels": {"app.kubernetes.io/component": f"sweep-{role}", "geosweep.io/sweep": NAME},
        },
        "spec": {"containers": [{"resources": {"requests": requests, "limits": requests}}], "volumes": volumes},
        "status": {"phase": phase, **status},
    }


def waits(why: str, message: str = "", image: str = "geosweep-head:0.1.0") -> Document:
    return {"containerStatuses": [{"image": image, "state": {"waiting": {"reason": why, "message": message}}}]}


def unscheduled(message: str) -> Document:
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}


def event(kind: str, name: str, why: str, message: str, at: str = "2026-11-27T00:00:00Z") -> Document:
    return {
        "involvedObject": {"kind": kind, "name": name},
        "reason": why,
        "message": message,
        "type": "Warning",
        "lastTimestamp": at,
    }


def workload(*conditions: Document) -> Document:
    owner = {"kind": "RayJob", "name": NAME}
    return {"metadata": {"name": f"rayjob-{NAME}", "ownerReferences": [owner]}, "status": {"conditions": conditions}}


def pending(message: str, why: str = "Pending") -> Document:
    return {"type": "QuotaReserved", "status": "False", "reason": why, "message": message}


def forbidden(what: str) -> str:
    return f'failed to create head pod\npods "{CLUSTER}-head-q8xvd" is forbidden: {what}'
