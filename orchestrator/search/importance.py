"""Importance of hyperparameters by PED-ANOVA (Watanabe et al. 2023), as Optuna computes it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from orchestrator.definition.space import Parameter
from orchestrator.definition.states import Goal

FEWEST = 8
optuna.logging.set_verbosity(optuna.logging.WARNING)


def ped_anova(
    parameters: Sequence[Parameter], configurations: Sequence[Mapping[str, Any]], values: Sequence[float], goal: Goal
) -> dict[str, float]:
    """Parameter -> share in [0, 1], largest first; empty with fewer than eight configurations.

    Parameters that not every configuration has (conditional ones) are judged among those that have them and do not
    enter the sum of the others.
    """
    if len(values) < FEWEST:
        return {}
    distributions = {p.name: _distribution(p) for p in parameters}
    study = optuna.create_study(direction=goal.value, sampler=optuna.samplers.RandomSampler(seed=0))
    for configuration, value in zip(configurations, values, strict=True):
        told = {p.name: _told(p, configuration[p.name]) for p in parameters if p.name in configuration}
        study.add_trial(
            optuna.trial.create_trial(params=told, distributions={k: distributions[k] for k in told}, value=value)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = evaluator.evaluate(study)
    total = sum(found.values())
    shares = {k: v / total if total else 0.0 for k, v in found.items()}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _distribution(p: Parameter) -> optuna.distributions.BaseDistribution:
    if p.kind == "categorical":
        return optuna.distributions.CategoricalDistribution(list(p.values))
    if p.kind == "int":
        return optuna.distributions.IntDistribution(int(p.low), int(p.high), log=p.log)
    low, high = (1 - p.high, 1 - p.low) if p.one_minus else (p.low, p.high)
    return optuna.distributions.FloatDistribution(low, high, log=p.log or p.one_minus)


def _told(p: Parameter, value: Any) -> Any:
    if p.kind == "int":
        return int(value)
    return 1 - value if p.one_minus else value
