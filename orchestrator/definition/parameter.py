"""One hyperparameter of a sweep file, in W&B's terms, as parameters of the search space."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import optim_core
from orchestrator.definition import foreign
from orchestrator.definition.errors import nearest
from orchestrator.definition.kinds import finite, misfit
from orchestrator.definition.location import Where
from orchestrator.definition.parameter_models import ParameterModel, RampModel, as_share
from orchestrator.definition.space import Parameter, ends_of, is_number
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


def parameters(name: str, given: Any, where: Where, path: Path) -> list[Parameter]:
    """What is given at `path`: one parameter, or those of a schedule's fields. Raises SpecError for invalid ones."""
    if not isinstance(given, RampModel):
        return [parameter(name, given, where, path)]
    when = _conditions(given.when)
    found = []
    for key in RampModel.model_fields:
        if key == "when" or key not in given.model_fields_set:
            continue
        field = getattr(given, key)
        if key in ("begin", "until"):
            field = _in_shares(field)
        one = parameter(f"{name}.{key}", field, where, (*path, key))
        found.append(Parameter(**{**vars(one), "when": {**when, **one.when}}))
    return found


def parameter(name: str, given: Any, where: Where, path: Path) -> Parameter:
    """The parameter at `path`. Raises SpecError for an invalid range or list."""
    if not isinstance(given, ParameterModel):
        return Parameter(name=name, kind="constant", values=(given,))
    if given.distribution is not None and given.distribution not in DISTRIBUTIONS:
        raise where.error((*path, "distribution"), _no_distribution(given.distribution))
    _check_prior(given, where, path)
    if isinstance(given.q, str):
        raise where.error((*path, "q"), f"{given.q!r} is text, but a quantum is a number{_share(given.q)}")
    if given.q is not None and not given.q > 0:
        raise where.error((*path, "q"), f"{given.q} should be greater than 0")
    when = _conditions(given.when)
    present = given.model_fields_set
    if given.values is not None:
        _alone(present, {"values"}, {"categorical"}, given, where, path)
        if len({json.dumps(v, sort_keys=True) for v in given.values}) < len(given.values):
            raise where.error((*path, "values"), f"{given.values} lists a value twice")
        if same := next(((a, b) for a, b in itertools.combinations(given.values, 2) if a == b), None):
            one, other = map(json.dumps, same)
            raise where.error((*path, "values"), f"{one} and {other} are the same value; remove one of them")
        for i, value in enumerate(given.values):
            _check_finite(value, where, (*path, "values", i))
        return _guessed(
            Parameter(name=name, kind="categorical", values=tuple(given.values), when=when), given, where, path
        )
    if "value" in present:
        _alone(present, {"value"}, {"constant"}, given, where, path)
        _check_finite(given.value, where, (*path, "value"))
        return Parameter(name=name, kind="constant", values=(given.value,), when=when)
    if given.min is None or given.max is None:
        missing = (
            "max" if given.min is not None else "min" if given.max is not None else "values, value, or min and max"
        )
        raise where.error(path, f"{missing}: missing; a parameter needs values, a value, or min and max")
    return _guessed(_range(name, given, when, where, path), given, where, path)


def _check_prior(given: ParameterModel, where: Where, path: Path) -> None:
    guessed = "prior" in given.model_fields_set
    if given.prior_confidence is not None and not guessed:
        raise where.error((*path, "prior_confidence"), "needs a prior; add one, or remove it")
    if guessed and "value" in given.model_fields_set:
        raise where.error((*path, "prior"), "cannot be combined with value, which is not searched; remove one of them")


def _guessed(p: Parameter, given: ParameterModel, where: Where, path: Path) -> Parameter:
    """The parameter with its prior, which is one of its values."""
    guess = given.prior
    if "prior" not in given.model_fields_set:
        return p
    at = (*path, "prior")
    if p.kind == "categorical":
        same = [v for v in p.values if _alike(v, guess)]
        if not same:
            raise where.error(at, f"{guess!r} is not one of the values {', '.join(map(str, p.values))}")
        guess = same[0]
    elif isinstance(guess, str) or not is_number(guess):
        raise where.error(at, f"{guess!r} is not a number; {p.name} must be one")
    elif not p.low <= guess <= p.high:
        raise where.error(at, f"{guess} is outside {p.low} to {p.high}; widen the range, or change the guess")
    elif p.kind == "int" and guess != int(guess):
        raise where.error(at, f"{guess} is not a whole number; {p.name} must be one")
    return replace(p, prior=guess, prior_confidence=given.prior_confidence or "medium")


def _alike(value: Any, guess: Any) -> bool:
    """Whether a guess means this value: 1.0 is 1, and the order of a mapping's keys does not matter."""
    if is_number(value) and is_number(guess):
        return bool(value == guess)
    return json.dumps(value, sort_keys=True) == json.dumps(guess, sort_keys=True)


def check_value(optimizer: str, p: Parameter, where: Where, path: Path, name: str = "") -> None:
    """Every listed value, and both ends of a range, are accepted by the optimizer.

    `name`: the optimizer's argument, where the parameter has another name.
    """
    name = name or p.name
    known = optim_core.hyperparameters(optimizer)[name]
    for value in ends_of(p):
        if found := misfit_of(p, name, known, value):
            raise where.error(path, found)
        if not finite(value):
            raise where.error(path, f"{value} is not finite")
        try:
            optim_core.check(optimizer, **{name: value})
        except TypeError:
            raise where.error(
                path,
                f"{name} of {optimizer} cannot be {_written(value)}; give it a value, or leave it out for the default",
            ) from None
        except ValueError as error:
            raise where.error(path, f"{value!r} is rejected by {optimizer}: {error}") from None


def misfit_of(p: Parameter, name: str, known: inspect.Parameter, value: Any) -> str:
    """Why a value that the parameter can have does not fit the declared argument; empty if it does."""
    found = misfit(name, known, value)
    if not found or p.values or p.step or misfit(name, known, int(value)) or not isinstance(p.low, int):
        return found
    way = "q_log_uniform_values with q: 1" if p.log else "int_uniform"
    return f"the range has fractions in it, but {name} is a whole number; use distribution: {way}"


def _share(text: str) -> str:
    share = as_share(text)
    return "" if isinstance(share, str) else f"; write {share:g}"


def _written(value: Any) -> str:
    """As a sweep file has it."""
    return json.dumps(value, default=str)


def _in_shares(given: Any) -> Any:
    """Percentages of the budget as shares of it."""
    if not isinstance(given, ParameterModel):
        return as_share(given)
    changed: dict[str, Any] = {}
    for key in given.model_fields_set & {"value", "values", "min", "max", "prior"}:
        field = getattr(given, key)
        changed[key] = [as_share(value) for value in field] if isinstance(field, list) else as_share(field)
    return given.model_copy(update=changed)


def _check_finite(value: Any, where: Where, path: Path) -> None:
    if not finite(value):
        raise where.error(path, f"{value} is not finite")


def _conditions(when: Mapping[str, Any] | None) -> dict[str, tuple[Any, ...]]:
    return {k: tuple(v) if isinstance(v, list) else (v,) for k, v in (when or {}).items()}


def _range(name: str, given: ParameterModel, when: Mapping[str, Any], where: Where, path: Path) -> Parameter:
    low, high = given.min, given.max
    for key, bound in (("min", low), ("max", high)):
        if isinstance(bound, str):
            raise where.error((*path, key), f"{bound!r} is text, but the end of a range is a number")
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    assert not isinstance(given.q, str)
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
        raise where.error(
            (*path, "max"), f"{low} to {high}: one_minus_log_uniform_values must lie in [0, 1), which excludes 1"
        )
    if kind.startswith("q_") and given.q is None:
        raise where.error(path, f"q: missing; {kind} needs a quantum")
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
    others = sorted(present - key - {"when", "distribution", "prior", "prior_confidence"})
    if others:
        raise where.error((*path, others[0]), f"cannot be combined with {next(iter(key))}; remove one of them")
    if given.distribution not in (None, *words):
        raise where.error((*path, "distribution"), f"{given.distribution} needs min and max, not {next(iter(key))}")


def _no_distribution(word: str) -> str:
    if word in foreign.DISTRIBUTIONS:
        return f"{word!r} {foreign.DISTRIBUTIONS[word]}"
    return f"{word!r} is unknown{nearest(word, DISTRIBUTIONS)}"
