"""What a budget in seconds was found to be worth on the machine that began the sweep; `calibration.json`.

Each arm is timed once, before its first trial (see `protocol.pace`), and all its trials get the same number of gradient
evaluations from then on, wherever and whenever the sweep goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from orchestrator.storage.folder import SweepFolder, read_json, write_atomic

FILE = "calibration.json"


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """One arm."""

    grad_evals: float
    """Of each of its trials."""
    error: float
    """Relative, of the seconds that a trial will take."""
    seconds_per_grad_eval: tuple[float, ...]
    """Of each configuration that was timed, evaluations of the model not included."""


def read(folder: SweepFolder) -> dict[str, Calibrated]:
    """Arm -> what was found; empty for a sweep that was not calibrated."""
    found = (read_json(folder.path / FILE) or {}).get("arms", {})
    return {
        arm: Calibrated(**{**row, "seconds_per_grad_eval": tuple(row["seconds_per_grad_eval"])})
        for arm, row in found.items()
    }


def grad_evals(folder: SweepFolder) -> dict[str, float]:
    """Arm -> gradient evaluations of each of its trials."""
    return {arm: found.grad_evals for arm, found in read(folder).items()}


def write(folder: SweepFolder, seconds: float, arms: Mapping[str, Calibrated]) -> None:
    """Keep it for all runs of the sweep."""
    document = {
        "schema": "geosweep/calibration/1",
        "sweep_id": folder.sweep_id,
        "seconds": seconds,
        "arms": {arm: asdict(found) for arm, found in arms.items()},
    }
    write_atomic(folder.path / FILE, json.dumps(document, indent=1))
