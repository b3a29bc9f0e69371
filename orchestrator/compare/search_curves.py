"""Expected-best curves of a sweep's arms, over the trials that were drawn before any result was seen.

The trials of all studies are pooled: drawn independently from the same distribution, they are exchangeable.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.compare.evidence import Evidence
from orchestrator.definition.states import State
from orchestrator.statistics.expected_best import Curve, curve

Array = NDArray[np.float64]
FEWEST = 4


def random_values(evidence: Evidence, arm: str) -> Array:
    """Values of the arm's configurations that were drawn before any result was seen."""
    frame = evidence.configurations[arm]
    if not len(frame):
        return np.array([])
    frame = frame[frame["random"]].dropna(subset=["value"])
    values = frame["value"].to_numpy(dtype=float)
    trained = values[(frame["state"] == State.COMPLETE).to_numpy()]
    if not len(trained):
        return values
    worst = trained.min() if evidence.sign > 0 else trained.max()
    return np.where((frame["state"] == State.COMPLETE).to_numpy(), values, worst)


def most_random(evidence: Evidence, arm: str) -> int:
    """How many such configurations the arm's largest study has."""
    frame = evidence.configurations[arm]
    return int(frame[frame["random"]].groupby("study").size().max()) if len(frame) and frame["random"].any() else 0


def curves(evidence: Evidence) -> tuple[dict[str, Curve], str]:
    """Arm -> curve over its random trials, and why arms are missing."""
    if not evidence.analysis.expected_best:
        return {}, "not requested: analysis.expected_best is false"
    if evidence.imported:
        return {}, "refused: it is unknown whether the configurations of imported runs were drawn at random"
    found: dict[str, Curve] = {}
    for arm in evidence.arms:
        values = random_values(evidence, arm)
        if len(values) >= FEWEST:
            found[arm] = curve(values, evidence.goal)
    missing = [arm for arm in evidence.arms if arm not in found]
    if not missing:
        return found, ""
    return found, (
        f"refused for {', '.join(missing)}: fewer than {FEWEST} configurations were drawn before results were "
        f"looked at, "
        "and trials of an adaptive search are not exchangeable (raise method.random_share)"
    )
