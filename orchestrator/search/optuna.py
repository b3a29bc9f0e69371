"""Studies on Optuna's durable storage: a journal file, or a database by URL. The only place that imports Optuna.

Grid, random and Sobol points, and the random share of a model-based search, come from `designs.py` as functions of the
index. Optuna's sampler proposes the rest, reseeded at each number, so that a restarted driver draws what the old one
would have drawn.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from orchestrator.definition.space import Parameter, is_active, satisfied, size
from orchestrator.definition.states import ConfigurationState, Goal
from orchestrator.search.away import patiently
from orchestrator.search.base import Configuration
from orchestrator.search.distributions import distribution, inner, suggest
from orchestrator.search.foreign import Maker
from orchestrator.search.history import BoundedTPE, History

CONFIGURATION = "configuration"
CHOSEN = "confirm"
SOURCE = "warm start"
AGAIN = "again"
"""On a trial that replaces a configuration told FAIL: its number. Optuna cannot change an ended trial."""
CHILD, DECIDED = "heir", "decided"
REJECTIONS = 100

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Design(Protocol):
    """Index -> configuration (see `designs.py`)."""

    def configuration(self, index: int) -> dict[str, Any]:
        """The configuration at `index`."""


class OptunaStudy:
    """One arm's study. `design` proposes the first `design_size` configurations, the sampler the others."""

    def __init__(
        self,
        storage: BaseStorage,
        *,
        name: str,
        goals: Sequence[Goal],
        parameters: tuple[Parameter, ...],
        constraints: tuple[str, ...],
        facts: Any,
        design: Design,
        design_size: int,
        seed: int,
        sampler: str = "tpe",
        make: Maker | None = None,
    ) -> None:
        self._make = make
        self._parameters, self._constraints, self._facts = parameters, constraints, facts
        self._design, self._design_size = design, design_size
        self._seed, self._sampler, self._storage = seed, sampler, storage
        self._study: optuna.Study = patiently(
            lambda: optuna.create_study(
                storage=storage,
                study_name=name,
                directions=[goal.value for goal in goals],
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(),
            )
        )
        if make is not None:
            self._study.stop = lambda: None  # type: ignore[method-assign]  # we decide how many trials there are
        self._study_id = patiently(lambda: storage.get_study_id_from_name(name))
        found = patiently(lambda: self._study.get_trials(deepcopy=False))
        self._order = [_configuration(t) for t in found if CONFIGURATION in t.user_attrs]
        self._ready = {c.number: c for c in self._order}
        self._ids = {t.number: t._trial_id for t in found}
        self._reported = {t.number: dict(t.intermediate_values) for t in found if CONFIGURATION in t.user_attrs}
        for t in found:
            self._take(t)
        self._seen = {_key(c.parameters) for c in self._order}
        self._finite = size(parameters)
        self._history, self._kept = History(goals[0]), dict[int, FrozenTrial]()
        self._next: int | None = None  # the number of the next trial; None: to be counted
        for t in found:
            self._note(t)
        noted = patiently(lambda: self._study.user_attrs)
        self._chosen, self._decided = noted.get(CHOSEN), int(noted.get(DECIDED, 0))

    def configurations(self) -> Sequence[Configuration]:
        """All whole configurations, in the order of asking."""
        return self._order

    def ask(self) -> Configuration:
        """The next configuration; one that a killed driver had started to ask for comes first."""
        asked_before = False

        def attempt() -> Configuration:
            nonlocal asked_before
            forgotten = self._forgotten() if asked_before else None
            asked_before = True
            if forgotten is not None:
                return self._whole(forgotten._trial_id)
            if len(self._order) < self._design_size:
                return self._add(self._design.configuration(len(self._order)))
            return self._propose()

        return patiently(attempt)

    def add(
        self, parameters: Mapping[str, Any], lineage: Sequence[tuple[int, Mapping[str, Any]]], replaces: int
    ) -> Configuration:
        """Another configuration, for a child in a population; the one added earlier if there is one."""
        child = {CHILD: {"lineage": [[end, dict(held)] for end, held in lineage], "replaces": replaces}}

        def attempt() -> Configuration:
            if (forgotten := self._forgotten()) is not None:
                self._whole(forgotten._trial_id)
            known = next((c for c in self._order if c.replaces == replaces), None)
            return known or self._add(dict(parameters), child)

        return patiently(attempt)

    def decide(self, count: int) -> None:
        """Record how many decisions about the population are carried out."""
        patiently(lambda: self._study.set_user_attr(DECIDED, count))
        self._decided = count

    def decided(self) -> int:
        """How many decisions about the population are carried out."""
        return self._decided

    def _forgotten(self) -> FrozenTrial | None:
        """A configuration that the database stored before the connection broke, without our knowing."""
        found = self._study.get_trials(deepcopy=False)
        return next((t for t in found if t.number not in self._ids and CONFIGURATION in t.user_attrs), None)

    def report(self, number: int, step: int, value: float) -> None:
        """Store the metric at an evaluation; an already reported step is not changed."""
        if step not in self._reported[number] and self._ready[number].state is ConfigurationState.RUNNING:
            patiently(lambda: self._storage.set_trial_intermediate_value(self._ids[number], step, value))
            self._reported[number][step] = value

    def tell(
        self,
        number: int,
        state: ConfigurationState,
        values: Sequence[float] = (),
        broken: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Store the outcome; telling twice keeps the first, unless that was FAIL: such a trial may be trained again."""
        told = TrialState[state]
        if self._ready[number].state is ConfigurationState.FAIL and state is not ConfigurationState.FAIL:
            self._tell_again(number, told, values, broken)
            return
        if self._ready[number].state is ConfigurationState.RUNNING:
            for key, amount in _as_constraints(broken).items():
                patiently(functools.partial(self._storage.set_trial_system_attr, self._ids[number], key, amount))
        patiently(
            lambda: self._study.tell(
                number, list(values) if told == TrialState.COMPLETE else None, state=told, skip_if_finished=True
            )
        )
        self._ready[number].state, self._ready[number].value = state, values[0] if values else None
        self._note(patiently(lambda: self._storage.get_trial(self._ids[number])))

    def _tell_again(self, number: int, state: TrialState, values: Sequence[float], broken: Mapping[str, float]) -> None:
        """Store the outcome of a configuration that had failed, as a separate trial."""
        kept = self._ready[number].parameters
        frozen = self._frozen(kept, state, {AGAIN: number}, values, _as_constraints(broken))
        assert frozen is not None

        def there() -> FrozenTrial | None:
            return next((t for t in self._study.get_trials(deepcopy=False) if t.user_attrs.get(AGAIN) == number), None)

        def add() -> FrozenTrial:
            if there() is None:  # not stored by an attempt with a lost response
                self._study.add_trial(frozen)
            found = there()
            assert found is not None
            return found

        stored = patiently(add)
        self._take(stored)
        self._note(stored)
        self._next = None

    def _take(self, trial: FrozenTrial) -> None:
        """A trial that replaces a configuration told FAIL earlier."""
        known = self._ready.get(trial.user_attrs.get(AGAIN, -1))
        if known is not None:
            known.state = ConfigurationState(trial.state.name)
            known.value = trial.values[0] if trial.state == TrialState.COMPLETE else None

    def _note(self, trial: FrozenTrial) -> None:
        """Keep a trial in the form that the sampler may see."""
        number, state = trial.number, trial.state
        self._kept[number] = trial
        if state == TrialState.RUNNING:
            self._history.began(number)
        elif state == TrialState.FAIL:
            self._history.failed(number)
        else:
            self._history.ended(number, trial.values[0] if trial.values else None)

    def choose(self, number: int) -> None:
        """Pin the configuration of the confirm stage."""
        patiently(lambda: self._study.set_user_attr(CHOSEN, number))
        self._chosen = number

    def reopen(self) -> None:
        """Forget which configuration is pinned."""
        patiently(lambda: self._study.set_user_attr(CHOSEN, None))
        self._chosen = None

    def chosen(self) -> int | None:
        """The pinned configuration, if any."""
        return None if self._chosen is None else int(self._chosen)

    def learn(
        self,
        source: str,
        told: Sequence[tuple[Mapping[str, Any], Sequence[float]]],
        broken: Sequence[Mapping[str, float]] = (),
    ) -> int:
        """Add configurations of an earlier sweep that lie in this space; returns how many. Once per source."""
        how_far = broken or [{}] * len(told)
        lessons = (
            self._frozen(p, TrialState.COMPLETE, {SOURCE: source}, values, _as_constraints(far))
            for (p, values), far in zip(told, how_far, strict=True)
        )
        usable = [frozen for frozen in lessons if frozen is not None]

        def taken() -> list[FrozenTrial]:
            found = self._study.get_trials(deepcopy=False)
            return [t for t in found if t.user_attrs.get(SOURCE) == source]

        def take() -> list[FrozenTrial]:
            for frozen in usable[len(taken()) :]:  # a driver killed halfway had added the first ones
                self._study.add_trial(frozen)
            return taken()

        for t in patiently(take):
            if t.number not in self._kept:
                self._note(t)
        return len(usable)

    def _add(self, parameters: dict[str, Any], more: Mapping[str, Any] = MappingProxyType({})) -> Configuration:
        """Store a configuration that no sampler proposed in one step: it is there whole, or not at all."""
        frozen = self._frozen(parameters, TrialState.RUNNING, {CONFIGURATION: parameters, **more})
        assert frozen is not None
        return self._whole(self._storage.create_new_trial(self._study_id, template_trial=frozen))

    def _whole(self, trial_id: int) -> Configuration:
        stored = self._storage.get_trial(trial_id)
        self._note(stored)  # first, so that it can be found if the response is lost
        kept, number = _configuration(stored), stored.number
        self._ids[number], self._reported[number], self._ready[number] = trial_id, {}, kept
        self._order.append(kept)
        self._seen.add(_key(kept.parameters))
        if self._next is not None:
            self._next = number + 1
        return kept

    def _propose(self) -> Configuration:
        """Ask the sampler until a configuration satisfies the constraints and is new, at most REJECTIONS times."""
        for _ in range(REJECTIONS):
            parameters, trial, following = self._draw()
            obeys = satisfied(self._constraints, parameters, **self._facts(parameters))
            new = self._finite is None or len(self._seen) >= self._finite or _key(parameters) not in self._seen
            if obeys and new:
                trial.set_user_attr(CONFIGURATION, parameters)
                self._next = following
                return self._whole(trial._trial_id)
            trial.set_user_attr("rejected", "breaks a constraint" if not obeys else "asked before")
            self._study.tell(trial, state=TrialState.FAIL)
            self._next = following
        return self._add(self._fresh())

    def _fresh(self) -> dict[str, Any]:
        """A point of the design that has not been asked yet, if there is one."""
        first = len(self._order)
        points = (self._design.configuration(first + i) for i in range(REJECTIONS * 10))
        found = next((p for p in points if _key(p) not in self._seen), None)
        return self._design.configuration(first) if found is None else found

    def _draw(self) -> tuple[dict[str, Any], Trial, int | None]:
        """(parameters, the trial that has them, the number of the next one or None)."""
        half, number, self._next = None, self._next, None
        if number is None:  # a driver, or an attempt, that failed may have left a trial half asked
            found = self._study.get_trials(deepcopy=False)
            half = next((t for t in found if t.state == TrialState.RUNNING and CONFIGURATION not in t.user_attrs), None)
            number = len(found) if half is None else half.number
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study.sampler = self._new_sampler(stable_seed(self._seed, number))
            trial_id = self._storage.create_new_trial(self._study_id) if half is None else half._trial_id
            trial = Trial(self._study, trial_id)
        parameters: dict[str, Any] = {}
        for parameter in self._parameters:
            if is_active(parameter, parameters):
                parameters[parameter.name] = suggest(trial, parameter)
        return parameters, trial, number + 1 if half is None else None

    def _new_sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        if self._make is not None:
            return self._make(self._seed, seed)
        if self._sampler == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=0, deterministic_objective=False)
        if self._sampler == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=1, warn_independent_sampling=False)
        shown = self._history.shown() if len(self._study.directions) == 1 else None
        return BoundedTPE(seed, None if shown is None else [self._kept[number] for number in shown])

    def _frozen(
        self,
        parameters: Mapping[str, Any],
        state: TrialState,
        attrs: dict[str, Any],
        values: Sequence[float] = (),
        constraints: Mapping[str, float] = MappingProxyType({}),
    ) -> FrozenTrial | None:
        """A trial with these parameters, or None when one lies outside the space."""
        stored: dict[str, Any] = {}
        distributions: dict[str, BaseDistribution] = {}
        for p in self._parameters:
            if not is_active(p, parameters):
                continue
            if p.name not in parameters:
                return None
            value = parameters[p.name]
            if p.kind == "constant":
                if value != p.values[0]:
                    return None
                continue
            kept = distribution(p)
            held = inner(p, value)
            try:
                inside = kept._contains(kept.to_internal_repr(held))
            except ValueError:
                inside = False
            if inside:
                stored[p.name], distributions[p.name] = held, kept
            elif state == TrialState.COMPLETE:
                return None
        return optuna.trial.create_trial(
            state=state,
            params=stored,
            distributions=distributions,
            user_attrs=attrs,
            system_attrs=dict(constraints),
            values=list(values) if state == TrialState.COMPLETE else None,
        )


def _as_constraints(broken: Mapping[str, float]) -> dict[str, float]:
    """The attributes in which Optuna's samplers look for them (`Trial.set_constraint`; our trials are stored ones)."""
    return {f"constraints:{name}": amount for name, amount in broken.items()}


def _configuration(trial: FrozenTrial) -> Configuration:
    value = trial.values[0] if trial.state == TrialState.COMPLETE else None
    return Configuration(
        number=trial.number,
        parameters=trial.user_attrs[CONFIGURATION],
        state=ConfigurationState(trial.state.name),
        value=value,
        **trial.user_attrs.get(CHILD, {}),
    )


def _key(parameters: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((k, repr(v)) for k, v in parameters.items()))


def stable_seed(*parts: Any) -> int:
    """A 32-bit seed that depends on the parts alone, not on Python's hash salt."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
