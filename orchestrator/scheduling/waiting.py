"""Why trials of an arm wait, in words for the person who asks."""

from __future__ import annotations

from orchestrator.scheduling.arm import Arm


def reason(arm: Arm, *, stopped_by: str, wants: bool, racing: bool, running: int) -> str:
    """Why no further trial of the arm starts now.

    `wants`: its search would ask a further configuration; `racing`: arms race in the confirm stage; `running` trials.
    """
    if stopped_by:
        return f"the sweep is {'stopped by its budget' if stopped_by == 'budget' else 'being stopped'}"
    if not arm.queue and arm.held_by_order():
        return "strict replay waits for an earlier result of this arm"
    if not arm.queue and arm.paused() and arm.population is not None:
        return f"{arm.paused()} trials wait at evaluation {arm.population.until} for the rest of their population"
    if not arm.queue and not wants and not arm.confirming:
        return "confirm trials wait for the last trials of the search"
    if not arm.queue and arm.confirming and racing:
        return "the race of the confirm stage waits for the other arms to come to its next look"
    return f"no worker is free; {running} trials are running"
