"""Which point of a trial's log is its evaluation number n, which stopping rules judge.

Built-in training evaluates E times, evenly over the budget, so evaluation n is point n. A script reports when it likes:
its evaluation n is the first point with the tuned metric at n/E of the budget B, step >= n B / E. A script that reports
no steps has steps B / E, 2 B / E, ..: its n-th point is evaluation n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.storage.metric_log import LoggedPoint
from orchestrator.trial.job import Job

TOLERANCE = 1e-9


def passed(points: Sequence[LoggedPoint], job: Job) -> int:
    """Number of evaluations in the points."""
    if not job.program:
        return len(points)
    furthest = max((p.step for p in points if job.metric in p.metrics), default=0.0)
    return min(math.floor(furthest * job.evaluations / job.budget + TOLERANCE), job.evaluations)


def evaluation(points: Sequence[LoggedPoint], job: Job, number: int) -> LoggedPoint | None:
    """Evaluation `number`, from 1; None if the points do not reach it."""
    if not job.program:
        return points[number - 1] if number <= len(points) else None
    at = number * job.budget / job.evaluations * (1 - TOLERANCE)
    return next((p for p in points if job.metric in p.metrics and p.step >= at), None)
