"""Importance of hyperparameters by PED-ANOVA (Watanabe et al. 2023), as Optuna computes it, compared with no effect.

Shares always sum to one, so even in a small search on pure noise the largest looks important: 0.66 with four parameters
and 12 configurations. The same is therefore computed with the values randomly permuted among the configurations. With
I the sum of importances before it is normalized,

    p = (1 + #{permutations with I at or above the one seen}) / (1 + permutations)

and at p > 0.05 the search does not tell its parameters apart from noise: nothing is returned.

Good are the best tenth of the configurations, but at least five, as Optuna advises.
"""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from orchestrator.definition.space import Parameter
from orchestrator.definition.states import Goal
from orchestrator.search.choices import choices, stored_as

FEWEST, PERMUTATIONS, LEVEL = 8, 59, 0.05
GOOD, GOOD_SHARE = 5, 0.1
optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Of one parameter."""

    share: float
    """In [0, 1]; the shares of all parameters sum to one."""
    by_chance: float
    """Its mean share when the values are permuted."""


def importances(
    parameters: Sequence[Parameter], configurations: Sequence[Mapping[str, Any]], values: Sequence[float], goal: Goal
) -> dict[str, Importance]:
    """Parameter -> importance, largest first; empty with fewer than eight configurations, or when it may be chance.

    Parameters that not every configuration has (conditional ones) are judged among those that have them and do not
    enter the sum of the others.
    """
    if len(values) < FEWEST:
        return {}
    study, lower = _study(parameters, configurations), np.array(values) * -goal.sign
    rng, found = np.random.default_rng(0), _ped_anova(study, lower)
    chance, reached, total = list[dict[str, float]](), 0, sum(found.values())
    while total and len(chance) < PERMUTATIONS:
        chance.append(_ped_anova(study, rng.permutation(lower)))
        reached += sum(chance[-1].values()) >= total
        if (1 + reached) / (1 + PERMUTATIONS) > LEVEL:  # whatever the others say
            return {}
    if not total:
        return {}
    by_chance = [_shares(one) for one in chance]
    return {
        name: Importance(share=share, by_chance=float(np.mean([one[name] for one in by_chance])))
        for name, share in sorted(_shares(found).items(), key=lambda item: -item[1])
    }


def _shares(found: Mapping[str, float]) -> dict[str, float]:
    total = sum(found.values())
    return {k: v / total if total else 0.0 for k, v in found.items()}


def _study(parameters: Sequence[Parameter], configurations: Sequence[Mapping[str, Any]]) -> optuna.Study:
    distributions = {p.name: _distribution(p) for p in parameters}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for configuration in configurations:
        told = {p.name: _told(p, configuration[p.name]) for p in parameters if p.name in configuration}
        of = {name: distributions[name] for name in told}
        study.add_trial(optuna.trial.create_trial(params=told, distributions=of, value=0.0))
    return study


def _ped_anova(study: optuna.Study, lower: NDArray[np.float64]) -> dict[str, float]:
    """Parameter -> divergence of the good configurations' marginal from that of all; the i-th trial has lower[i]."""
    good = max(GOOD_SHARE, min(0.5, GOOD / len(lower)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = _ped_anova_of_optuna()(target_quantile=good)
        return dict(evaluator.evaluate(study, target=lambda trial: float(lower[trial.number])))


@cache
def _ped_anova_of_optuna() -> Any:
    """Optuna's class, without the package around it, whose other evaluators import scikit-learn: 0.5 s of CPU.

    The partial import is removed again: a later import of the whole package gets all of it.
    """
    name = "optuna.importance"
    if name not in sys.modules:
        hollow = types.ModuleType(name)
        hollow.__path__ = [f"{place}/importance" for place in optuna.__path__]
        sys.modules[name] = hollow
        try:
            return importlib.import_module(f"{name}._ped_anova.evaluator").PedAnovaImportanceEvaluator
        except (ImportError, AttributeError):  # another version of Optuna
            pass
        finally:
            for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
                del sys.modules[module]
    return optuna.importance.PedAnovaImportanceEvaluator


def _distribution(p: Parameter) -> optuna.distributions.BaseDistribution:
    if p.kind == "categorical":
        return optuna.distributions.CategoricalDistribution(choices(p))
    if p.kind == "int":
        return optuna.distributions.IntDistribution(int(p.low), int(p.high), log=p.log)
    low, high = (1 - p.high, 1 - p.low) if p.one_minus else (p.low, p.high)
    return optuna.distributions.FloatDistribution(low, high, log=p.log or p.one_minus)


def _told(p: Parameter, value: Any) -> Any:
    if p.kind == "int":
        return int(value)
    if p.kind == "categorical":
        return stored_as(p, value)
    return 1 - value if p.one_minus else value
