"""The state of a RayJob in our terms, from its status (KubeRay 1.7).

`jobDeploymentStatus` is the operator's state: New, Initializing, Running, Suspending, Suspended, Retrying, Complete,
Failed, ValidationFailed; `jobStatus` the driver's: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED. For a moment a job is
still Running although its driver has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.remote import Attempt

SWEEP = "geosweep.io/sweep"
OUTCOMES = {"SUCCEEDED": "done", "FAILED": "failed", "STOPPED": "stopped"}
LOST = "JobStatusCheckTimeoutExceeded"
"""The operator could not reach the head for so long (300 s) that it gave up; Pods may still exist and train."""


def attempt(job: Mapping[str, Any]) -> Attempt:
    """The attempt for a sweep's RayJob."""
    status: Mapping[str, Any] = job.get("status") or {}
    leaving = "deletionTimestamp" in job["metadata"]
    state = "stopped" if leaving else _state(status)
    deployment = status.get("jobDeploymentStatus", "")
    said = [
        "being deleted" if leaving else deployment if state in ("waiting", "suspended") else "",
        status.get("reason", ""),
        status.get("message", ""),
    ]
    if status.get("failed"):
        said.append(f"{status['failed']} attempts failed")
    if state == "lost":
        said.append("its Pods may still exist and train: submit creates a new cluster and continues, stop frees them")
    return Attempt(
        job=job["metadata"]["name"],
        sweep_id=job["metadata"]["labels"][SWEEP],
        state=state,
        reason=": ".join(" ".join(str(part).split()) for part in said if part),
    )


def _state(status: Mapping[str, Any]) -> str:
    deployment, outcome = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
    if deployment == "ValidationFailed":
        return "failed"
    if deployment == "Failed":
        return "lost" if status.get("reason") == LOST else "stopped" if outcome == "STOPPED" else "failed"
    if deployment in ("Suspending", "Suspended"):
        return "suspended"
    if deployment in ("Complete", "Running") and outcome in OUTCOMES:
        return OUTCOMES[outcome]
    return "running" if deployment == "Running" and outcome == "RUNNING" else "waiting"
