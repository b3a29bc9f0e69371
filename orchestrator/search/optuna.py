"""Studies on Optuna's durable storage: a journal file, or a database by URL. The only place that imports Optuna.

Grid, random and Sobol points, and the random share of a model-based search, come from `designs.py` as functions of the
index and are enqueued, so that they do not depend on who asked when. Optuna's sampler proposes the rest.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any, Literal, Protocol

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from orchestrator.search.base import Configuration
from orchestrator.space import Parameter, is_active, satisfied

CONFIGURATION = "configuration"
CHOSEN = "confirm"
REJECTIONS = 100

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Design(Protocol):
    """Index -> configuration (see `designs.py`)."""

    def configuration(self, index: int) -> dict[str, Any]:
        """The configuration at `index`."""


def storage(journal: Path, url: str | None = None) -> BaseStorage:
    """The storage of a sweep: its journal file, or the database at `url`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RDBStorage(url) if url else JournalStorage(JournalFileBackend(str(journal)))


class OptunaStudy:
    """One arm's study. `design` proposes the first `design_share` configurations, the sampler the others."""

    def __init__(
        self,
        storage: BaseStorage,
        *,
        name: str,
        goal: Literal["minimize", "maximize"],
        parameters: tuple[Parameter, ...],
        constraints: tuple[str, ...],
        facts: Any,
        design: Design,
        design_size: int,
        seed: int,
    ) -> None:
        self._parameters, self._constraints, self._facts = parameters, constraints, facts
        self._design, self._design_size = design, design_size
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction=goal,
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(),
        )
        found = self._study.get_trials(deepcopy=False)
        self._ready = {t.number: _configuration(t) for t in found if CONFIGURATION in t.user_attrs}
        self._half_asked = [t for t in found if t.state == TrialState.RUNNING and CONFIGURATION not in t.user_attrs]
        self._waiting = sum(t.state == TrialState.WAITING for t in found)
        self._ids = {t.number: t._trial_id for t in found}
        self._chosen = self._study.user_attrs.get(CHOSEN)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study.sampler = optuna.samplers.TPESampler(
                seed=stable_seed(seed, name, len(found)), n_startup_trials=0, multivariate=True, group=True
            )

    def configurations(self) -> list[Configuration]:
        """All whole configurations, in the order of asking."""
        return [self._ready[n] for n in sorted(self._ready)]

    def ask(self) -> Configuration:
        """The next configuration; one that a killed driver had begun to ask comes first, with what it had drawn."""
        for _ in range(REJECTIONS):
            parameters, trial = self._draw()
            if satisfied(self._constraints, parameters, **self._facts(parameters)):
                return self._keep(trial, parameters)
            trial.set_user_attr("rejected", list(self._constraints))
            self._study.tell(trial, state=TrialState.FAIL)
        self._enqueue(self._design.configuration(len(self._ready)))
        parameters, trial = self._draw()
        return self._keep(trial, parameters)

    def tell(self, number: int, value: float | None) -> None:
        """Store the outcome; telling twice keeps the first."""
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        self._study.tell(number, value, state=state, skip_if_finished=True)
        self._ready[number].state, self._ready[number].value = state.name, value

    def choose(self, number: int) -> None:
        """Pin the configuration of the confirm stage."""
        self._study.set_user_attr(CHOSEN, number)
        self._chosen = number

    def chosen(self) -> int | None:
        """The pinned configuration, if any."""
        return None if self._chosen is None else int(self._chosen)

    def _keep(self, trial: Trial, parameters: dict[str, Any]) -> Configuration:
        trial.set_user_attr(CONFIGURATION, parameters)
        kept = Configuration(number=trial.number, parameters=parameters, state="RUNNING")
        self._ready[trial.number] = kept
        return kept

    def _draw(self) -> tuple[dict[str, Any], Trial]:
        if self._half_asked:
            half = self._half_asked.pop(0)
            trial = Trial(self._study, half._trial_id)
        else:
            if not self._waiting and len(self._ready) < self._design_size:
                self._enqueue(self._design.configuration(len(self._ready)))
            self._waiting = max(0, self._waiting - 1)
            trial = self._study.ask()
        parameters: dict[str, Any] = {}
        for parameter in self._parameters:
            if is_active(parameter, parameters):
                parameters[parameter.name] = _suggest(trial, parameter)
        return parameters, trial

    def _enqueue(self, configuration: dict[str, Any]) -> None:
        one_minus = {p.name for p in self._parameters if p.one_minus}
        fixed = {p.name for p in self._parameters if p.kind == "constant"}
        self._study.enqueue_trial(
            {k: 1 - v if k in one_minus else v for k, v in configuration.items() if k not in fixed},
            user_attrs={},
        )
        self._waiting += 1


def _configuration(trial: FrozenTrial) -> Configuration:
    value = trial.value if trial.state == TrialState.COMPLETE else None
    return Configuration(
        number=trial.number, parameters=trial.user_attrs[CONFIGURATION], state=trial.state.name, value=value
    )


def _suggest(trial: Trial, p: Parameter) -> Any:
    if p.kind == "constant":
        return p.values[0]
    if p.kind == "categorical":
        return trial.suggest_categorical(p.name, list(p.values))
    if p.kind == "int":
        step = 1 if p.log else int(p.step or 1)
        return trial.suggest_int(p.name, int(p.low), int(p.high), step=step, log=p.log)
    if p.one_minus:
        return 1 - trial.suggest_float(p.name, 1 - p.high, 1 - p.low, log=True)
    value = trial.suggest_float(p.name, p.low, p.high, step=None if p.log else p.step, log=p.log)
    return min(p.high, max(p.low, round(value / p.step) * p.step)) if p.log and p.step else value


def stable_seed(*parts: Any) -> int:
    """A 32-bit seed that depends on the parts alone, not on Python's hash salt."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
