"""Third-party samplers in our studies.

A sampler is rebuilt for each suggestion, seeded by the study and the number, as ours are: it knows only what the study
holds, so a restarted driver continues as the killed one would have. One that keeps its own state in memory starts each
suggestion without it; a sequence (Optuna's QMC) keeps its seed, and its position is in the study.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import optuna

from orchestrator.definition import method as methods
from orchestrator.definition.errors import CannotSearch
from orchestrator.definition.model import MethodSpec
from orchestrator.definition.space import Parameter, from_unit, is_active
from orchestrator.definition.states import Goal
from orchestrator.search.distributions import distribution, inner, suggest

REHEARSED = 6
"""Results that a sampler gets before its trial suggestion."""
Maker = Callable[[int, int], optuna.samplers.BaseSampler]
"""(seed of the study, seed of the suggestion) -> sampler."""


def maker(method: MethodSpec) -> Maker | None:
    """How samplers of this method are made; None for a built-in method."""
    if not methods.is_foreign(method.name):
        return None
    keeps = issubclass(methods.load(method.name, method.ref, method.registry), optuna.samplers.QMCSampler)

    def make(study: int, suggestion: int) -> optuna.samplers.BaseSampler:
        found: optuna.samplers.BaseSampler = methods.build(method, study if keeps else suggestion)
        return found

    return make


def rehearse(make: Maker, name: str, parameters: Sequence[Parameter], goals: Sequence[Goal]) -> None:
    """One suggestion after a few made-up results. Raises CannotSearch when the sampler raises an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(directions=[goal.value for goal in goals], sampler=optuna.samplers.RandomSampler())
        study.stop = lambda: None  # type: ignore[method-assign]
        try:
            for i in range(REHEARSED):
                config = from_unit(parameters, [(i + 0.5) / REHEARSED] * len(parameters))
                searched = [p for p in parameters if p.kind != "constant" and p.name in config]
                told = {p.name: inner(p, config[p.name]) for p in searched}
                of = {p.name: distribution(p) for p in searched}
                trial = optuna.trial.create_trial(params=told, distributions=of, values=[float(i)] * len(goals))
                study.add_trial(trial)
            study.sampler = make(0, 0)
            trial_id = study._storage.create_new_trial(study._study_id)
            asked, config = optuna.trial.Trial(study, trial_id), {}
            for p in parameters:
                if is_active(p, config):
                    config[p.name] = suggest(asked, p)
            study.tell(asked, [0.0] * len(goals))
        except Exception as error:
            raise CannotSearch(f"method.name: {name} cannot search here: {type(error).__name__}: {error}") from error
