"""Calibration of a budget in seconds on the machine that began the sweep: `calibration.json`.

Each arm is timed once, before its first trial (see `protocol.pace`), and from then on all its trials get the same
number of gradient evaluations, wherever and whenever the sweep continues.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from orchestrator.storage.documents import read_json, write_atomic
from orchestrator.storage.folder import SweepFolder

FILE = "calibration.json"


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The calibration of one arm."""

    grad_evals: float
    """Per trial."""
    error: float
    """Relative error of the predicted duration of a trial."""
    seconds_per_grad_eval: tuple[float, ...]
    """For each timed configuration, without evaluations of the model."""


def read(folder: SweepFolder) -> dict[str, Calibrated]:
    """Arm -> its calibration; empty for a sweep that was not calibrated."""
    found = (read_json(folder.path / FILE) or {}).get("arms", {})
    return {
        arm: Calibrated(**{**row, "seconds_per_grad_eval": tuple(row["seconds_per_grad_eval"])})
        for arm, row in found.items()
    }


def grad_evals(folder: SweepFolder) -> dict[str, float]:
    """Arm -> gradient evaluations per trial."""
    return {arm: found.grad_evals for arm, found in read(folder).items()}


def write(folder: SweepFolder, seconds: float, arms: Mapping[str, Calibrated]) -> None:
    """Store it for all runs of the sweep."""
    document = {
        "schema": "geosweep/calibration/1",
        "sweep_id": folder.sweep_id,
        "seconds": seconds,
        "arms": {arm: asdict(found) for arm, found in arms.items()},
    }
    write_atomic(folder.path / FILE, json.dumps(document, indent=1))
