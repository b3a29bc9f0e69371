"""The confirm stage: which configuration of a study is trained on the fresh seeds, and on which of them when.

Without a race, every study runs all its seeds as soon as its search is over. In a race (see `race.py`) arms run up to
the next look and wait there for one another: over their confirm seeds if there is one study, otherwise over studies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from orchestrator.definition.model import Spec
from orchestrator.definition.states import ConfigurationState, Goal, State
from orchestrator.scheduling.arm_study import ArmStudy
from orchestrator.scheduling.race import Race
from orchestrator.storage import raced
from orchestrator.storage.folder import SweepFolder


class ConfirmStage:
    """The confirm seeds of all studies of a sweep; `arms` by study name."""

    def __init__(self, spec: Spec, folder: SweepFolder, arms: Mapping[str, ArmStudy]) -> None:
        self._folder, self._arms, self._goal = folder, arms, spec.metric.goal
        self._over_studies = spec.seeds.studies > 1
        self._confirmed: dict[str, dict[int, float | None]] = defaultdict(dict)
        self._race: Race | None = None
        if spec.racing is not None:
            self._units = range(1, spec.seeds.studies + 1) if self._over_studies else spec.seeds.confirm
            self._race = Race(
                spec.racing,
                arms=list(spec.arms),
                units=self._units,
                words="studies" if self._over_studies else "seeds",
                goal=self._goal,
                baseline=spec.analysis.baseline,
            )
            if self._over_studies:
                for arm in arms.values():
                    arm.open = False
                for name in spec.arms:
                    self._begin_studies(name, self._race.enter(name))

    def best_of(self, arm: ArmStudy) -> int | None:
        """The study's best configuration that was trained to the end and satisfies the constraints; ties go to the
        first.

        None if there is none.
        """
        ended = {n: o for n, o in arm.outcomes.items() if o.state is ConfigurationState.COMPLETE and o.obeys}
        complete = {n: o.values[0] for n, o in ended.items()}
        if arm.count(State.DIVERGED):
            complete = _of_trials(arm, complete, self._goal)
        return min(complete, key=lambda n: (self._goal.loss(complete[n]), n)) if complete else None

    def begin(self, arm: ArmStudy) -> list[int]:
        """The study's search is over; returns the seeds that it may run now."""
        arm.confirming = True
        if self._race is None or self._over_studies:
            return list(arm.confirm)
        return self._race.enter(arm.spec.name)

    def nothing(self, arm: ArmStudy) -> None:
        """The study has no configuration to confirm."""
        arm.confirming, arm.planned = True, len(arm.states)
        if self._race is not None and arm.index is not None:
            self._race.record(arm.spec.name, arm.index, None)
        elif self._race is not None:
            self._race.leave(arm.spec.name)

    def ended(self, arm: ArmStudy, seed: int, value: float | None) -> None:
        """Record the tuned metric of a confirm trial; None if it failed."""
        if self._race is None:
            return
        if arm.index is None:
            self._race.record(arm.spec.name, seed, value)
            return
        known = self._confirmed[arm.name]
        known[seed] = value
        if len(known) == len(arm.confirm):
            whole = [v for v in known.values() if v is not None]
            mean = sum(whole) / len(whole) if len(whole) == len(known) else None
            self._race.record(arm.spec.name, arm.index, mean)

    def look(self) -> Mapping[str, list[int]]:
        """Let the race decide what it can; returns the additional seeds of arms that stay in it."""
        if self._race is None:
            return {}
        lost, more = self._race.advance()
        for one in lost:
            if self._over_studies:
                for arm in self._studies_of(one.arm):
                    if arm.index is not None and arm.index > one.seeds:
                        arm.close()
            else:
                self._arms[one.arm].planned -= len(self._units) - one.seeds
        if lost or more:
            raced.write(self._folder, self._race.decided())
        if not self._over_studies:
            return more
        for name, indices in more.items():
            self._begin_studies(name, indices)
        return {}

    def reserve(self) -> float:
        """Gradient evaluations of the trials still to be queued, for the studies that may begin now."""
        waiting = sum(len(arm.confirm) * arm.each for arm in self._arms.values() if arm.open and not arm.confirming)
        if self._race is None or self._over_studies:
            return waiting
        return waiting + sum(self._race.held(n) * arm.each for n, arm in self._arms.items() if arm.confirming)

    @property
    def racing(self) -> bool:
        """Whether arms wait for one another."""
        return self._race is not None

    def _studies_of(self, name: str) -> list[ArmStudy]:
        return [arm for arm in self._arms.values() if arm.spec.name == name]

    def _begin_studies(self, name: str, indices: list[int]) -> None:
        for arm in self._studies_of(name):
            arm.open |= arm.index in indices


def _of_trials(arm: ArmStudy, complete: Mapping[int, float], goal: Goal) -> dict[int, float]:
    """Configuration -> mean over its tune seeds; trials that diverged never beat trials that trained."""
    rows = [(n, seed, found[0]) for n in complete for seed, found in arm.values.get(n, {}).items() if found is not None]
    gone = [arm.states.get(arm.trial_id(n, seed)) is State.DIVERGED for n, seed, _ in rows]
    values: dict[int, list[float]] = defaultdict(list)
    for (n, _, _), value in zip(rows, goal.demoted([value for _, _, value in rows], gone), strict=True):
        values[n].append(value)
    return {n: sum(values[n]) / len(values[n]) if values[n] else mean for n, mean in complete.items()}
