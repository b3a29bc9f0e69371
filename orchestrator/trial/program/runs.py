"""The runs of one trial's script: the first, and those after its worker was lost or the sweep was drained.

A run continues the previous one if `resume_arg` tells the script how, or if it saved its own checkpoint through
`trial.checkpoint`; otherwise it starts over, and the trial's result says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.storage.documents import read_json, write_atomic
from orchestrator.trial.program.proof import Shown
from orchestrator.trial.program.sources import matching


@dataclass(kw_only=True)
class Run:
    """One run at its start."""

    number: int
    up_to: float = -1.0
    """Points up to this step are kept."""
    resume: str | None = None
    """Appended to the command line."""
    checkpoint: str = ""
    """The newest of `checkpoints`."""
    seconds: float = 0.0
    """Of the runs that it continues."""
    counts: list[int] = field(default_factory=lambda: [0, 0])
    """Backward passes and steps of these."""
    shown: Shown = field(default_factory=Shown)
    """What they have shown."""
    fact: str = ""
    """How it began, if it is not the first."""


def next_run(place: Path, folder: Path, task: Mapping[str, Any]) -> Run:
    """The run that begins now. `place`: the folder, below the trial's `folder`, for communication with the script."""
    known = read_json(place / "runs.json")
    if known is None:
        return Run(number=1)
    run = Run(number=known["runs"] + 1)
    own = read_json(place / "checkpoint.json")
    found = matching(task["checkpoints"].replace("${trial_dir}", str(folder)), folder) if task["checkpoints"] else []
    if task["resume_arg"] and (found or not task["checkpoints"]):
        run.resume, run.up_to = task["resume_arg"], math.inf
        run.checkpoint = str(max(found, key=lambda path: path.stat().st_mtime)) if found else ""
        run.fact = f"{run.number}: it was told to resume where it had been ended ({run.resume})"
    elif own is not None:
        run.up_to, run.counts = float(own["step"]), own.get("counts", [0, 0])
        run.fact = f"{run.number}: it continued from its checkpoint at step {own['step']:g}"
    else:
        why = "it had no checkpoint yet" if task["resume_arg"] else "there is no resume_arg"
        run.fact = f"{run.number}: started over, since {why}"
        return run
    run.seconds = float(known["seconds"])
    run.shown = Shown(begun=True, whole=run.resume is None, **known.get("digests", {}))
    return run


def note(place: Path, run: Run, seconds: float, shown: Shown) -> None:
    """Store what the next run must know about this one."""
    document = {"runs": run.number, "seconds": round(run.seconds + seconds, 3), "digests": shown.digests()}
    write_atomic(place / "runs.json", json.dumps(document), durable=False)
