"""Which confirm trials count after a study was extended and chose again."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.definition.states import Stage
from orchestrator.trial.record import TrialRecord


def counted(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Leaves out confirm trials of configurations that a study chose before it was extended and continued its search.

    Of several confirmed configurations, the one with the best search result counts; ties go to the first.
    """
    confirmed: dict[tuple[str, int], set[int]] = {}
    for t in trials:
        if t.job.stage is Stage.CONFIRM:
            confirmed.setdefault((t.job.arm, t.job.study), set()).add(t.job.configuration)
    several = {key: numbers for key, numbers in confirmed.items() if len(numbers) > 1}
    if not several:
        return list(trials)
    tuned: dict[tuple[str, int, int], list[float]] = {}
    for t in trials:
        if t.job.stage is Stage.TUNE and t.result.value is not None:
            key = t.job.arm, t.job.study, t.job.configuration
            tuned.setdefault(key, []).append(t.job.goal.loss(t.result.value))

    def rank(arm: str, study: int, number: int) -> tuple[float, int]:
        found = tuned.get((arm, study, number))
        return (sum(found) / len(found) if found else float("inf")), number

    chosen = {key: min(numbers, key=lambda n: rank(*key, n)) for key, numbers in several.items()}
    return [
        t
        for t in trials
        if t.job.stage is not Stage.CONFIRM
        or chosen.get((t.job.arm, t.job.study), t.job.configuration) == t.job.configuration
    ]
