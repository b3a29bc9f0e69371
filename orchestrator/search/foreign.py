"""Third-party samplers in our studies.

A sampler is rebuilt for each suggestion, seeded by the study and the number, as ours are: it knows only what the study
holds, so a restarted driver continues as the killed one would have. One that keeps its own state in memory starts each
suggestion without it; a sequence (Optuna's QMC) keeps its seed, and its position is in the study.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import optuna

from orchestrator.definition import method as methods
from orchestrator.definition.location import Where
from orchestrator.definition.model import MethodSpec, Spec
from orchestrator.definition.space import Parameter, from_unit, is_active
from orchestrator.definition.states import Goal
from orchestrator.definition.yaml12 import parse
from orchestrator.search.distributions import distribution, inner, suggest

REHEARSED, SUGGESTED, MANY = 12, 3, 100
"""Results that a sampler gets before its trial suggestions, and how many it makes. A sampler that begins at random gets
as many results more as `n_startup_trials` says, up to MANY.
"""
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


def check(spec: Spec, text: str) -> None:
    """Let a third-party sampler propose configurations of every arm, in memory. Raises SpecError when it cannot.

    The place is the argument without which it can, if there is one; otherwise the sampler's name.
    """
    method, goals = spec.method, (spec.metric.goal, *(o.goal for o in spec.objectives))
    for arm in spec.arms.values():
        error = _failure(method, arm.parameters, goals)
        if error is None:
            continue
        said = f"{method.name} cannot propose a configuration of arm {arm.name}: {type(error).__name__}: {error}"
        place: tuple[str, ...] = ("method", "name")
        way_out = "change the space, or name another sampler or method"
        for key in method.arguments:
            rest = {name: value for name, value in method.arguments.items() if name != key}
            if _failure(replace(method, arguments=rest), arm.parameters, goals) is None:
                place = ("method", "arguments", key)
                way_out = f"without {key} it can, so change or remove it"
                break
        raise Where(spec.source, parse(text)).error(place, f"{said.rstrip('.')}; {way_out}") from error


def _failure(method: MethodSpec, parameters: Sequence[Parameter], goals: Sequence[Goal]) -> Exception | None:
    """What the sampler raises, if it does."""
    if (make := maker(method)) is None:
        return None
    begin, said = method.arguments.get("n_startup_trials"), optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it warns again in the sweep
    try:
        rehearse(make, parameters, goals, REHEARSED + (min(begin, MANY) if isinstance(begin, int) else 0))
    except Exception as error:
        return error
    finally:
        optuna.logging.set_verbosity(said)
    return None


def rehearse(make: Maker, parameters: Sequence[Parameter], goals: Sequence[Goal], results: int = REHEARSED) -> None:
    """A few suggestions after so many made-up results. Raises whatever the sampler raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(directions=[goal.value for goal in goals], sampler=optuna.samplers.RandomSampler())
        study.stop = lambda: None  # type: ignore[method-assign]
        for i in range(results):
            config = from_unit(parameters, [(i + 0.5) / results] * len(parameters))
            searched = [p for p in parameters if p.kind != "constant" and p.name in config]
            told = {p.name: inner(p, config[p.name]) for p in searched}
            of = {p.name: distribution(p) for p in searched}
            study.add_trial(optuna.trial.create_trial(params=told, distributions=of, values=[float(i)] * len(goals)))
        for i in range(SUGGESTED):
            study.sampler = make(0, i)
            asked, config = optuna.trial.Trial(study, study._storage.create_new_trial(study._study_id)), {}
            for p in parameters:
                if is_active(p, config):
                    config[p.name] = suggest(asked, p)
            study.tell(asked, [float(i)] * len(goals))
