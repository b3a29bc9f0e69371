"""waiting.json: how many trials of each arm wait, and why, as of the driver's last update."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from orchestrator.storage.documents import read_json, reading, write_atomic
from orchestrator.storage.folder import SweepFolder


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Trials of an arm that wait."""

    trials: int = 0
    paused: int = 0
    """How many of them have begun."""
    reason: str = ""


def read(folder: SweepFolder) -> dict[str, Waiting] | None:
    """Arm -> what waits, for the arms of which something does; None: no driver has said. Raises Damaged."""
    found = read_json(folder.waiting)
    if found is None:
        return None
    with reading(folder.waiting):
        return {
            arm: Waiting(trials=row["trials"], paused=row.get("paused", 0), reason=row["reason"])
            for arm, row in found.items()
        }


def write(folder: SweepFolder, arms: Mapping[str, Waiting]) -> None:
    """Write what waits now."""
    write_atomic(folder.waiting, json.dumps({arm: asdict(one) for arm, one in arms.items()}), durable=False)
