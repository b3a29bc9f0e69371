"""One study of one arm in a running sweep: what was asked, the outcomes, and the order in which its search is told
them.

With `lag`, results are told in the order of asking: suggestion n is drawn when exactly the results 0 .. n - lag have
been told, whatever the number and speed of workers. Without it, a result is told as soon as it is known.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.definition.counts import Counts
from orchestrator.definition.model import ArmSpec, Spec
from orchestrator.definition.outcome import OutcomeConstraint, broken
from orchestrator.definition.states import ConfigurationState, State
from orchestrator.scheduling.population import Population
from orchestrator.scheduling.stopping import Stop, Stopper
from orchestrator.search.base import Configuration, Study
from orchestrator.trial.job import Job
from orchestrator.trial.trial_id import TrialId


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a configuration: COMPLETE with its values, PRUNED, or FAIL."""

    state: ConfigurationState
    values: tuple[float, ...] = ()
    broken: Mapping[str, float] = field(default_factory=dict)
    """Outcome constraint -> violation; satisfied at 0 and below."""
    rungs: Mapping[int, float] = field(default_factory=dict)
    """The tuned metric at the intermediate evaluations that were judged, and at the last one."""

    @property
    def obeys(self) -> bool:
        """Whether it satisfies all outcome constraints."""
        return all(amount <= 0 for amount in self.broken.values())


@dataclass(kw_only=True)
class ArmStudy:
    """The state of one study of one arm."""

    spec: ArmSpec
    study: Study
    trials: int
    """Configurations to try."""
    each: float
    """Maximum gradient evaluations of one trial."""
    tune: tuple[int, ...]
    """The study's own seeds, like `confirm`."""
    confirm: tuple[int, ...]
    index: int | None = None
    """Number of the study within its arm, from 1; None if there is only one."""
    open: bool = True
    """Whether its search may begin: later studies of an arm in a race wait for the looks."""
    planned: int
    """Total trials: configurations x tune seeds + confirm seeds."""
    lag: int | None = None
    """Strict replay: the number of configurations that may be asked and not yet told."""
    stopper: Stopper | None = None
    population: Population | None = None
    states: dict[str, State] = field(default_factory=dict)
    """By trial id."""
    values: dict[int, dict[int, tuple[float, ...] | None]] = field(default_factory=dict)
    """Configuration -> tune seed -> objectives (None: failed)."""
    metrics: dict[int, dict[int, Mapping[str, float]]] = field(default_factory=dict)
    """Configuration -> tune seed -> metrics at its end."""
    spent: dict[str, float] = field(default_factory=dict)
    """Trial id -> gradient evaluations."""
    grad_evals: float = 0.0
    """The sum over trials."""
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    stopped: dict[int, Stop] = field(default_factory=dict)
    """Configurations stopped by the stopping rule."""
    best: float | None = None
    queue: deque[Job] = field(default_factory=deque)
    confirming: bool = False
    capped: bool = False
    """No more configurations: the search budget is spent."""
    _counts: Counter[State] = field(default_factory=Counter)
    _told: int = 0

    @property
    def name(self) -> str:
        """`sgd`, or `sgd@2` for the second of several studies."""
        return study_name(self.spec.name, self.index)

    @property
    def asked(self) -> int:
        """Configurations asked so far."""
        return len(self.study.configurations())

    def move(self, trial_id: str, state: State) -> None:
        """Record a trial's new state."""
        old = self.states.get(trial_id)
        if old is not None:
            self._counts[old] -= 1
        self.states[trial_id] = state
        self._counts[state] += 1

    def configuration(self, number: int) -> Configuration:
        """The configuration with this number; fast for one that was asked recently."""
        return next(c for c in reversed(self.study.configurations()) if c.number == number)

    def trial_id(self, number: int, seed: int) -> str:
        """The id of the trial of a configuration and seed."""
        return str(TrialId(self.spec.name, number, seed, self.index))

    def welcome(self, number: int) -> None:
        """Add a child to the population: its trial is an additional one."""
        if number not in self.values:
            self.values[number] = {}
            self.trials, self.planned = self.trials + 1, self.planned + 1

    def count(self, state: State) -> int:
        """The number of its trials in this state."""
        return self._counts[state]

    def paused(self) -> int:
        """Trials that wait for the rest of their population."""
        return self._counts[State.PAUSED]

    def all_paused(self) -> bool:
        """Whether every configuration that has not ended waits for the population, and at least one does."""
        if self.population is None or not self.population.paused:
            return False
        left = (c for c in self.study.configurations() if c.number not in self.outcomes)
        return all(c.number in self.population.paused or self.is_fresh(c) for c in left)

    def is_fresh(self, configuration: Configuration) -> bool:
        """Whether it is a child from a decision that has not been carried out yet."""
        until = self.population.until if self.population is not None else 0
        return bool(configuration.lineage) and configuration.lineage[-1][0] == until

    def diverged(self, seed: int) -> list[int]:
        """Configurations that diverged and have not been replaced."""
        taken = {c.replaces for c in self.study.configurations() if not self.is_fresh(c)}
        return [n for n in self.outcomes if self.states[self.trial_id(n, seed)] is State.DIVERGED and n not in taken]

    def spend(self, trial_id: str, grad_evals: float) -> None:
        """Record a trial's gradient evaluations so far."""
        self.grad_evals += grad_evals - self.spent.get(trial_id, 0.0)
        self.spent[trial_id] = grad_evals

    def counts(self) -> Counts:
        """Trials by outcome, as shown by `geosweep status`."""
        found = self._counts
        begun = Counts(
            done=found[State.COMPLETE],
            running=found[State.RUNNING],
            pruned=found[State.PRUNED],
            diverged=found[State.DIVERGED],
            failed=found[State.FAILED],
        )
        return replace(begun, waiting=max(0, self.planned - begun.planned))

    def to_spend(self) -> float:
        """Gradient evaluations that its trials will still spend, as far as is known."""
        unended = self.counts().unended
        if not unended:
            return 0.0
        if self.population is not None:
            left = self.at_most() - self.grad_evals
        else:
            begun = sum(self.spent.get(t, 0.0) for t, state in self.states.items() if state is State.RUNNING)
            left = unended * self.each - begun
        return max(0.0, left)

    def at_most(self) -> float:
        """Gradient evaluations of all its trials if none ends early; a child shares the budget of the member it
        replaces.
        """
        children = self.study.configurations() if self.population is not None else ()
        return (self.planned - sum(c.replaces is not None for c in children)) * self.each

    @property
    def wants(self) -> bool:
        """Whether its search would ask for another configuration."""
        return self.open and not self.confirming and not self.capped and self.asked < self.trials

    def cap(self) -> None:
        """Ask for no more configurations."""
        self.planned -= (self.trials - self.asked) * len(self.tune)
        self.trials, self.capped = self.asked, True

    def close(self) -> None:
        """Its arm lost the race before this study began."""
        self.open, self.confirming = False, True
        self.trials = self.planned = 0

    def held_by_order(self) -> bool:
        """Whether the next suggestion must wait for a result because strict replay fixes what it may know."""
        if self.lag is None:
            return False
        need = self.asked + 1 - self.lag
        return any(c.number not in self.outcomes for c in self.study.configurations()[self._told : max(0, need)])

    def ask(self) -> Configuration:
        """The next configuration; with `lag`, after telling exactly what it may know."""
        if self.lag is not None:
            self._tell_up_to(self.asked + 1 - self.lag)
        configuration = self.study.ask()
        if self.stopper is not None:
            self.stopper.begin(configuration.number)
        return configuration

    def settle(self, number: int, outcome: Outcome) -> None:
        """Record the outcome of a configuration."""
        if number in self.outcomes:
            return
        self.outcomes[number] = outcome
        if self.lag is None:
            self._tell(number, outcome)

    def average(self, number: int, passed: Mapping[int, float], spec: Spec, broken: Mapping[str, float]) -> None:
        """All tune seeds of a configuration have ended: its outcome is the mean, or a failure if one failed.

        `passed`: values at the intermediate rungs.
        """
        told = list(self.values[number].values())
        if any(v is None for v in told):
            self.settle(number, Outcome(state=ConfigurationState.FAIL))
            return
        means = tuple(sum(column) / len(told) for column in zip(*(v for v in told if v is not None), strict=True))
        rungs = {**passed, spec.evaluations: means[0]} if len(means) == 1 else {}
        self.settle(number, Outcome(state=ConfigurationState.COMPLETE, values=means, rungs=rungs, broken=broken))
        if all(amount <= 0 for amount in broken.values()):
            self.best = means[0] if self.best is None else spec.metric.goal.best((self.best, means[0]))

    def measured(
        self, number: int, seed: int, metrics: Mapping[str, float], constraints: Sequence[OutcomeConstraint]
    ) -> dict[str, float]:
        """Store a tune trial's metrics; returns the current violation of each constraint by its configuration."""
        seeds = self.metrics.setdefault(number, {})
        seeds[seed] = metrics
        return {
            str(c): amount for c, amount in zip(constraints, broken(constraints, list(seeds.values())), strict=True)
        }

    def flush(self) -> None:
        """Tell everything that is known; the search is over."""
        for configuration in self.study.configurations():
            found = self.outcomes.get(configuration.number)
            if found is not None and configuration.state is ConfigurationState.RUNNING:
                self._tell(configuration.number, found)

    def _tell(self, number: int, outcome: Outcome) -> None:
        for rung, value in sorted(outcome.rungs.items()):
            self.study.report(number, rung, value)
        self.study.tell(number, outcome.state, outcome.values, outcome.broken)

    def _tell_up_to(self, count: int) -> None:
        configurations: Sequence[Configuration] = self.study.configurations()
        while self._told < count:
            configuration = configurations[self._told]
            if configuration.state is ConfigurationState.RUNNING:
                self._tell(configuration.number, self.outcomes[configuration.number])
            self._told += 1


def study_name(arm: str, index: int | None) -> str:
    """The name of an arm's study in Optuna's storage, in messages and in trial ids."""
    return arm if index is None else f"{arm}@{index}"
