"""The confirm stage: which configuration of an arm goes on to the fresh seeds, and which of them it runs when.

Without a race every arm runs every seed as soon as its search is over. In a race (see `race.py`) arms run up to the
next look and wait there for one another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from orchestrator.definition.model import Spec
from orchestrator.definition.states import ConfigurationState
from orchestrator.scheduling.arm import Arm
from orchestrator.scheduling.race import Race
from orchestrator.storage.folder import SweepFolder, write_atomic


class ConfirmStage:
    """The confirm seeds of all arms of a sweep."""

    def __init__(self, spec: Spec, folder: SweepFolder, arms: Mapping[str, Arm]) -> None:
        self._seeds, self._folder, self._arms = spec.seeds.confirm, folder, arms
        self._goal = spec.metric.goal
        self._race: Race | None = None
        if spec.racing is not None:
            self._race = Race(
                spec.racing,
                arms=list(spec.arms),
                seeds=self._seeds,
                goal=self._goal,
                baseline=spec.analysis.baseline,
            )

    def best_of(self, arm: Arm) -> int | None:
        """The arm's best configuration trained to the end, the first of equal ones; None when there is none."""
        complete = {n: o for n, o in arm.outcomes.items() if o.state is ConfigurationState.COMPLETE}
        return min(complete, key=lambda n: (self._goal.loss(complete[n].values[0]), n)) if complete else None

    def begin(self, arm: Arm) -> list[int]:
        """The arm's search is over; the seeds that it may run now."""
        arm.confirming = True
        return list(self._seeds) if self._race is None else self._race.enter(arm.spec.name)

    def nothing(self, arm: Arm) -> None:
        """The arm has no configuration to confirm."""
        arm.confirming, arm.planned = True, len(arm.states)
        if self._race is not None:
            self._race.leave(arm.spec.name)

    def ended(self, arm: Arm, seed: int, value: float | None) -> None:
        """The tuned metric of a confirm trial; None: it failed."""
        if self._race is not None:
            self._race.record(arm.spec.name, seed, value)

    def look(self) -> Mapping[str, list[int]]:
        """Let the race decide what it can; returns the further seeds of arms that go on."""
        if self._race is None:
            return {}
        lost, more = self._race.advance()
        for one in lost:
            self._arms[one.arm].planned -= len(self._seeds) - one.seeds
        if lost or more:
            write_atomic(self._folder.race, json.dumps(self._race.document(), indent=1))
        return more

    def reserve(self) -> int:
        """Trials that this stage will still queue."""
        waiting = sum(len(self._seeds) for arm in self._arms.values() if not arm.confirming)
        if self._race is None:
            return waiting
        return waiting + sum(self._race.held(name) for name, arm in self._arms.items() if arm.confirming)

    @property
    def racing(self) -> bool:
        """Whether arms wait for one another."""
        return self._race is not None
