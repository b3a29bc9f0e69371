"""One hyperparameter of a sweep file, in the words of W&B sweeps, as a `Parameter` of the search space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import optim_core
from orchestrator.definition.errors import nearest
from orchestrator.definition.location import Where
from orchestrator.definition.schema import ParameterModel
from orchestrator.definition.space import Parameter
from orchestrator.definition.yaml12 import Path

DISTRIBUTIONS = (
    "uniform",
    "int_uniform",
    "log_uniform_values",
    "q_uniform",
    "q_log_uniform_values",
    "one_minus_log_uniform_values",
    "categorical",
    "constant",
)


def parameter(name: str, given: Any, where: Where, path: Path) -> Parameter:
    """The parameter at `path`. Raises SpecError for a range or a list that cannot be."""
    if not isinstance(given, ParameterModel):
        return Parameter(name=name, kind="constant", values=(given,))
    if given.distribution is not None and given.distribution not in DISTRIBUTIONS:
        raise where.error((*path, "distribution"), _no_distribution(given.distribution))
    when = {k: tuple(v) if isinstance(v, list) else (v,) for k, v in (given.when or {}).items()}
    present = given.model_fields_set
    if given.values is not None:
        _alone(present, {"values"}, {"categorical"}, given, where, path)
        if len({repr(v) for v in given.values}) < len(given.values):
            raise where.error((*path, "values"), f"{given.values} has a value twice")
        return Parameter(name=name, kind="categorical", values=tuple(given.values), when=when)
    if "value" in present:
        _alone(present, {"value"}, {"constant"}, given, where, path)
        return Parameter(name=name, kind="constant", values=(given.value,), when=when)
    if given.min is None or given.max is None:
        missing = (
            "max" if given.min is not None else "min" if given.max is not None else "values, value, or min and max"
        )
        raise where.error(path, f"{missing}: missing; a parameter has values, a value, or min and max")
    return _range(name, given, when, where, path)


def check_value(optimizer: str, p: Parameter, where: Where, path: Path) -> None:
    """Every listed value, and both ends of a range, are such that the optimizer does not refuse them."""
    known = optim_core.hyperparameters(optimizer)[p.name]
    default, words = known.default, "str" in str(known.annotation)
    for value in p.values or (p.low, p.high):
        if isinstance(value, str) and isinstance(default, int | float) and not words:
            kind = "true or false" if isinstance(default, bool) else "a number"
            raise where.error(path, f"{value!r} is text, and {p.name} is {kind}; write it without quotes")
        number = isinstance(default, int | float) and not isinstance(default, bool)
        if number and isinstance(value, bool):
            raise where.error(path, f"{str(value).lower()} is no number, and {p.name} is one")
        if isinstance(value, float) and not math.isfinite(value):
            raise where.error(path, f"{value} is no number that one can train with")
        try:
            optim_core.check(optimizer, **{p.name: int(value) if p.kind == "int" else value})
        except (TypeError, ValueError) as error:
            raise where.error(path, f"{value!r} is refused by {optimizer}: {error}") from None


def _range(name: str, given: ParameterModel, when: Mapping[str, Any], where: Where, path: Path) -> Parameter:
    low, high = given.min, given.max
    assert low is not None
    assert high is not None
    whole = isinstance(low, int) and isinstance(high, int) and given.q in (None, int(given.q or 0))
    kind = given.distribution or ("int_uniform" if whole else "uniform")
    if not low < high:
        raise where.error((*path, "min"), f"{low} is not below max {high}")
    if kind in ("categorical", "constant"):
        raise where.error((*path, "distribution"), f"{kind} goes with {'values' if kind == 'categorical' else 'value'}")
    if kind == "int_uniform" and not whole:
        by = f" by {given.q}" if given.q is not None else ""
        raise where.error((*path, "min"), f"{low} to {high}{by}: int_uniform needs whole numbers")
    if kind in ("log_uniform_values", "q_log_uniform_values") and low <= 0:
        raise where.error((*path, "min"), f"{low}: a logarithmic range starts above 0")
    if kind == "one_minus_log_uniform_values" and not 0 <= low < high < 1:
        raise where.error((*path, "max"), f"{low} to {high}: one_minus_log_uniform_values lies in [0, 1), 1 left out")
    if kind.startswith("q_") and given.q is None:
        raise where.error(path, f"q: missing; {kind} needs its quantum")
    if given.q is not None and given.q > high - low:
        raise where.error((*path, "q"), f"{given.q} is wider than the range {low} to {high}")
    return Parameter(
        name=name,
        kind="int" if kind == "int_uniform" else "float",
        low=low,
        high=high,
        log="log_uniform" in kind and not kind.startswith("one_minus"),
        step=given.q,
        one_minus=kind.startswith("one_minus"),
        when=when,
    )


def _alone(present: set[str], key: set[str], words: set[str], given: ParameterModel, where: Where, path: Path) -> None:
    others = sorted(present - key - {"when", "distribution"})
    if others:
        raise where.error((*path, others[0]), f"does not go with {next(iter(key))}; remove one of them")
    if given.distribution not in (None, *words):
        raise where.error((*path, "distribution"), f"{given.distribution} needs min and max, not {next(iter(key))}")


def _no_distribution(word: str) -> str:
    if word == "log_uniform":
        return "'log_uniform' takes exponents elsewhere and is refused; use log_uniform_values with plain values"
    return f"{word!r} is unknown{nearest(word, DISTRIBUTIONS)}"
