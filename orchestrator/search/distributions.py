"""Our parameters as Optuna's distributions."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from orchestrator.definition.space import Parameter
from orchestrator.search.choices import choices, chosen, stored_as


def distribution(p: Parameter) -> BaseDistribution:
    """The distribution of a parameter that is searched."""
    if p.kind == "categorical":
        return CategoricalDistribution(choices(p))
    if p.kind == "int":
        return IntDistribution(int(p.low), int(p.high), step=1 if p.log else int(p.step or 1), log=p.log)
    if p.one_minus:
        return FloatDistribution(1 - p.high, 1 - p.low, log=True)
    return FloatDistribution(p.low, p.high, step=None if p.log else p.step, log=p.log)


def inner(p: Parameter, value: Any) -> Any:
    """What Optuna stores in place of a value; the inverse of what `suggest` makes of it."""
    if p.kind == "categorical":
        return stored_as(p, value)
    return 1 - value if p.one_minus else value


def suggest(trial: Trial, p: Parameter) -> Any:
    """The parameter's value in a trial that a sampler proposes."""
    if p.kind == "constant":
        return p.values[0]
    value: Any = trial._suggest(p.name, distribution(p))
    if p.kind == "categorical":
        return chosen(p, value)
    if p.one_minus:
        return 1 - value
    return min(p.high, max(p.low, round(value / p.step) * p.step)) if p.kind == "float" and p.log and p.step else value
