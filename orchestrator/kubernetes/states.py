"""Where a RayJob stands, in our words, from its status (KubeRay 1.7).

`jobDeploymentStatus` is the operator's part: New, Initializing, Running, Suspending, Suspended, Retrying, Complete,
Failed, ValidationFailed; `jobStatus` the driver's: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED. For a moment a job is
Running and its driver has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.remote import Attempt

SWEEP = "geosweep.io/sweep"
OUTCOMES = {"SUCCEEDED": "done", "FAILED": "failed", "STOPPED": "stopped"}
LOST = "JobStatusCheckTimeoutExceeded"
"""The operator could not ask the head for so long (300 s) that it gave up; Pods may be there and train on."""


def attempt(job: Mapping[str, Any]) -> Attempt:
    """A RayJob of a sweep."""
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
        said.append("its Pods may still be there, and train: submit makes a new cluster and goes on, stop frees them")
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
