"""Failed trials that are trained again: what they left is kept, and the seal says that it happened.

A failed trial has no result, so retraining selects nothing as long as all failed trials are retrained. What it left,
logs included, moves to `failed-1` in its folder (`failed-2` the next time), and it restarts from its seed. A
configuration of the search that comes back may be chosen, which is stamped if results had been seen by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.definition.model import Spec
from orchestrator.definition.states import Stage, State, SweepState
from orchestrator.protocol import extensions
from orchestrator.protocol.amendments import amend, amendments
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.object_store import Far
from orchestrator.storage.outcome import SweepOutcome
from orchestrator.trial.job import Job
from orchestrator.trial.record import JOB, RESULT, read_job, read_result

ASIDE, KEPT = "failed-", (JOB, RESULT, "metrics.jsonl")
"""Where the remains of a failed trial go; which of them go to an object store."""


def failed(folder: SweepFolder) -> list[Job]:
    """The trials that have failed, by id."""
    found = []
    for path in sorted((folder.path / "trials").glob(f"*/{RESULT}")):
        job, result = read_job(path.parent), read_result(path.parent)
        if job is not None and result is not None and result.state is State.FAILED:
            found.append(job)
    return found


def check(spec: Spec, folder: SweepFolder, jobs: Sequence[Job]) -> None:
    """Raises ValueError if standing decisions were made without these trials."""
    if folder.race.exists():
        raise ValueError("its race was decided without the failed trials; give the sweep another name")
    if spec.early_terminate.type == "pbt" and any(job.stage is Stage.TUNE for job in jobs):
        raise ValueError("its populations continued without the failed trials; give the sweep another name")


def set_aside(folder: SweepFolder, jobs: Sequence[Job]) -> None:
    """Record the retry and make room for another attempt at each. The caller holds the folder."""
    told = {
        "retried": [job.trial_id for job in jobs],
        "of_search": sum(job.stage is Stage.TUNE for job in jobs),
        "seen": extensions.seen(folder),
    }
    SweepOutcome(state=SweepState.STOPPED).write(folder)
    amend(folder, told)
    for job in jobs:
        _move(folder, job.trial_id)


def waiting(folder: SweepFolder) -> set[str]:
    """The trials to be retrained that have not ended yet."""
    named = {trial for line in amendments(folder) for trial in line.get("retried", ())}
    return {trial for trial in named if not (folder.trial(trial) / RESULT).exists()}


def stamps(folder: SweepFolder) -> Iterator[str]:
    """A sentence for each time that the search changed after results had been seen."""
    for line in amendments(folder):
        if line.get("retried") and line["of_search"] and line["seen"]:
            n = line["of_search"]
            yield (
                f"{n} failed trial{'s' if n > 1 else ''} of the search retrained after results had been seen "
                f"({', '.join(line['seen'])}), on {line['at'][:10]}"
            )


def _move(folder: SweepFolder, trial_id: str) -> None:
    place = folder.trial(trial_id)
    left = [path for path in sorted(place.iterdir()) if not path.name.startswith(ASIDE)]
    aside = _free(place)
    aside.mkdir()
    for path in sorted(left, key=lambda p: p.name == RESULT):  # the result last: without it the trial has not ended
        path.rename(aside / path.name)
    if folder.far is None:
        return
    folder.far.push([f"trials/{trial_id}/{aside.name}/{name}" for name in KEPT if (aside / name).exists()])
    there = Far(folder.address(trial_id), place)
    there.remove(n for n in there.names() if not n.startswith(ASIDE) and not n.endswith(".log"))


def _free(place: Path) -> Path:
    return next(p for i in range(1, 10_000) if not (p := place / f"{ASIDE}{i}").exists())
