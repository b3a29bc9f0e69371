"""The state of a RayJob in our terms, from its status (KubeRay 1.7).

`jobDeploymentStatus` is the operator's state: New, Initializing, Running, Suspending, Suspended, Retrying, Complete,
Failed, ValidationFailed; `jobStatus` the driver's: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED. For a moment a job is
still Running although its driver has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.definition.states import AttemptState
from orchestrator.remote import Attempt

SWEEP = "geosweep.io/sweep"
OUTCOMES = {"SUCCEEDED": AttemptState.DONE, "FAILED": AttemptState.FAILED, "STOPPED": AttemptState.STOPPED}
LOST = "JobStatusCheckTimeoutExceeded"
"""The operator could not reach the head for so long (300 s) that it gave up; Pods may still exist and train."""


def attempt(job: Mapping[str, Any]) -> Attempt:
    """The attempt for a sweep's RayJob."""
    status: Mapping[str, Any] = job.get("status") or {}
    leaving = "deletionTimestamp" in job["metadata"]
    state = AttemptState.STOPPED if leaving else _state(status)
    deployment = status.get("jobDeploymentStatus", "")
    said = [
        "being deleted" if leaving else deployment if state in (AttemptState.WAITING, AttemptState.SUSPENDED) else "",
        status.get("reason", ""),
        status.get("message", ""),
    ]
    if status.get("failed"):
        said.append(f"{status['failed']} attempts failed")
    if state is AttemptState.LOST:
        said.append("its Pods may still exist and train: submit creates a new cluster and continues, stop frees them")
    return Attempt(
        job=job["metadata"]["name"],
        sweep_id=job["metadata"]["labels"][SWEEP],
        state=state,
        reason=": ".join(" ".join(str(part).split()) for part in said if part),
    )


def _state(status: Mapping[str, Any]) -> AttemptState:
    deployment, outcome = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
    if deployment == "ValidationFailed":
        return AttemptState.FAILED
    if deployment == "Failed":
        if status.get("reason") == LOST:
            return AttemptState.LOST
        return AttemptState.STOPPED if outcome == "STOPPED" else AttemptState.FAILED
    if deployment in ("Suspending", "Suspended"):
        return AttemptState.SUSPENDED
    if deployment in ("Complete", "Running") and outcome in OUTCOMES:
        return OUTCOMES[outcome]
    up = deployment == "Running" and outcome == "RUNNING"
    return AttemptState.RUNNING if up else AttemptState.WAITING
