"""How many trials of each arm wait, and why, as text for users."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.definition.model import ResourcesSpec
from orchestrator.scheduling.arm_study import ArmStudy
from orchestrator.storage.waiting import Waiting

SAID_S = 10.0
"""Seconds without a worker before it is reported: starting one takes a few."""
STOPPED = {
    "budget": "the sweep is stopped by its budget",
    "stop": "the sweep is being stopped",
    "wait": "no worker became available within resources.wait",
}


def waiting(
    arms: Iterable[ArmStudy], without_workers: float, *, stopped_by: str, racing: bool, running: int
) -> dict[str, Waiting]:
    """Arm -> what waits of all its studies, with the distinct reasons; `without_workers`: seconds since there was a
    worker.
    """
    found: dict[str, list[Waiting]] = {}
    for arm in arms:
        if trials := arm.counts().waiting:
            why = "" if stopped_by else without(without_workers)
            why = why or reason(arm, stopped_by=stopped_by, racing=racing, running=running)
            found.setdefault(arm.spec.name, []).append(Waiting(trials=trials, paused=arm.paused(), reason=why))
    return {
        name: Waiting(
            trials=sum(one.trials for one in each),
            paused=sum(one.paused for one in each),
            reason=", or ".join(dict.fromkeys(one.reason for one in each)),
        )
        for name, each in found.items()
    }


def reason(arm: ArmStudy, *, stopped_by: str, racing: bool, running: int) -> str:
    """Why no trial of the study starts now. `racing`: arms race in the confirm stage; `running`: number of running
    trials.
    """
    if stopped_by:
        return STOPPED[stopped_by]
    if not arm.queue and arm.held_by_order():
        return "strict replay waits for an earlier result of this arm"
    if not arm.queue and arm.paused() and arm.population is not None:
        paused = f"{arm.paused()} trials are paused at evaluation {arm.population.until}"
        return f"{paused}, waiting for the rest of their population"
    if not arm.open:
        return "the race waits for the other arms' studies before its next look"
    if not arm.queue and not arm.wants and not arm.confirming:
        return "confirm trials wait for the last trials of the search"
    if not arm.queue and arm.confirming and racing:
        return "the race of the confirm stage waits for the other arms to reach its next look"
    return f"no worker is free; {running} trials are running"


def without(seconds: float) -> str:
    """How long there has been no worker; empty for the first seconds."""
    return f"waiting for workers for {clock(seconds)}, not charged" if seconds >= SAID_S else ""


def gave_up(resources: ResourcesSpec, trials: int) -> str:
    """What to say where so many trials are left and no worker came within `resources.wait`."""
    gpu = f" and {resources.gpu:g} GPU" if resources.gpu else ""
    return (
        f"no worker was available for {clock(resources.wait)} (resources.wait; not charged to the budget); "
        f"{trials} trials are waiting, each for {resources.cpu * resources.processes} CPU{gpu}. Run it again once the "
        "cluster has capacity; it continues"
    )


def clock(seconds: float) -> str:
    """`75.2` -> `1:15`."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
