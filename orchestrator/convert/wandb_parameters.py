"""One parameter of a W&B sweep, converted.

The meaning of each W&B key follows its documentation (sweep configuration keys, distribution options).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.convert import ranges
from orchestrator.convert.draft import Draft, number
from orchestrator.definition.yaml12 import Path

NEEDS = {"min", "max", "mu", "sigma", "q", "a", "b"}
KNOWN = NEEDS | {"distribution", "value", "values", "probabilities", "parameters"}
DECADES = 100.0
"""A uniform range with ends this far apart gets a note."""


class UntranslatableError(ValueError):
    """A parameter without a counterpart; says why."""


def flattened(given: Mapping[str, Any], path: Path, draft: Draft, prefix: str = "") -> dict[str, tuple[Any, list[str]]]:
    """Name -> (converted, comments); nested parameters get names with dots."""
    found: dict[str, tuple[Any, list[str]]] = {}
    for key, one in given.items():
        at, name = (*path, key), f"{prefix}{key}"
        if isinstance(one, Mapping) and isinstance(one.get("parameters"), Mapping):
            inner = flattened(one["parameters"], (*at, "parameters"), draft, f"{name}.")
            if inner:
                why = f"{name} was a nested mapping; its parts have names with dots"
                inner[next(iter(inner))][1].append(draft.note("changed", at, why))
            found |= inner
            for other in one.keys() - {"parameters"}:
                draft.left_out((*at, other), "is next to nested parameters and does not apply to them")
            continue
        try:
            found[name] = translated(one, at, draft)
        except UntranslatableError as error:
            draft.left_out(at, str(error))
    return found


def translated(given: Any, path: Path, draft: Draft) -> tuple[Any, list[str]]:
    """(Converted, comments). Raises UntranslatableError."""
    if not isinstance(given, Mapping):
        return given, [draft.note("changed", path, "a bare value means {value: ...}")]
    comments: list[str] = []

    def changed(key: str, text: str) -> None:
        comments.append(draft.note("changed", (*path, key) if key else path, text))

    for key in given.keys() - KNOWN:
        draft.left_out((*path, key), "is not in W&B's parameter configuration")
    kind = str(given.get("distribution") or _usual(given))
    if kind in ("categorical", "categorical_w_probabilities") or (kind == "constant" and "values" in given):
        return _categorical(given, changed), comments
    if kind == "constant":
        if "value" not in given:
            raise UntranslatableError("constant without a value")
        return given["value"] if _plain(given["value"]) else {"value": given["value"]}, comments
    if kind not in RANGES:
        raise UntranslatableError(
            f"distribution {kind!r} is not one of W&B's" if given else "empty: has no values, value, or min and max"
        )
    one = {key: number(given[key]) for key in NEEDS & given.keys()}
    for key, value in one.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UntranslatableError(f"{key} is {given[key]!r}; expected a number")
        if isinstance(given[key], str):
            changed(key, f"{given[key]!r} was text; it is a number")
    try:
        return RANGES[kind](one, kind, changed), comments
    except KeyError as error:
        raise UntranslatableError(f"{error.args[0]} is missing; {kind} needs it") from None
    except OverflowError:
        raise UntranslatableError(
            f"{kind} takes exponents, and exp({one.get('max')}) overflows; were values meant?"
        ) from None


def _usual(given: Mapping[str, Any]) -> str:
    """The distribution where none is named."""
    if "values" in given:
        return "categorical"
    if "value" in given:
        return "constant"
    ends = [number(given.get(key)) for key in ("min", "max")]
    if None in ends:
        return "normal" if {"mu", "sigma"} <= given.keys() else ""
    return "int_uniform" if all(isinstance(one, int) for one in ends) else "uniform"


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


Changed = Callable[[str, str], None]


def _categorical(given: Mapping[str, Any], changed: Changed) -> dict[str, Any]:
    values = given.get("values")
    if not isinstance(values, list) or not values:
        raise UntranslatableError("categorical without values")
    kept: list[Any] = []
    for value in values:
        if repr(value) not in map(repr, kept):
            kept.append(value)
    weights = given.get("probabilities")
    if weights is not None and len(set(map(repr, weights if isinstance(weights, list) else [weights]))) > 1:
        changed("probabilities", f"were {weights}; here every value is equally likely to be tried first")
    if len(kept) < len(values):
        changed("values", "a value was given twice to make it likelier; each is listed once")
    return {"values": kept}


def _uniform(one: Mapping[str, Any], kind: str, changed: Changed) -> dict[str, Any]:
    low, high = one["min"], one["max"]
    if kind == "int_uniform":
        if low != int(low) or high != int(high):
            raise UntranslatableError(f"{low} to {high}: int_uniform needs whole numbers")
        low, high = int(low), int(high)
    elif isinstance(low, int) and isinstance(high, int):
        low, high = float(low), float(high)
    if low > high:
        raise UntranslatableError(f"min {low} is above max {high}")
    found = ranges.uniform(low, high)
    if kind == "uniform" and low > 0 and high / low >= DECADES and "q" not in one:
        changed("", "uniform over decades, as before: log_uniform_values would sample each decade equally")
    if "q" in one and kind == "q_uniform":
        return _rounded(found, one["q"], changed)
    return found


def _q_uniform(one: Mapping[str, Any], kind: str, changed: Changed) -> dict[str, Any]:
    low, high = one["min"], one["max"]
    if low > high:
        raise UntranslatableError(f"min {low} is above max {high}")
    return _rounded(ranges.uniform(low, high), one.get("q", 1), changed)


def _rounded(found: dict[str, Any], q: float, changed: Changed) -> dict[str, Any]:
    if q <= 0:
        raise UntranslatableError(f"q is {q}; a quantum must be above 0")
    new = ranges.quantized(found, q)
    for key in ("min", "max"):
        if key in new and new[key] != found[key]:
            changed(key, f"was {found[key]}; W&B rounded it to {new[key]}, a multiple of {q}")
    if "value" in new:
        changed("q", f"the whole range rounds to {new['value']}")
    return new


def _log(one: Mapping[str, Any], kind: str, changed: Changed) -> dict[str, Any]:
    low, high = one["min"], one["max"]
    if low > high:
        raise UntranslatableError(f"min {low} is above max {high}")
    if kind in ("log_uniform", "q_log_uniform"):
        found = ranges.exponents(low, high)
        changed("distribution", f"{kind} took exponents of e, {low} to {high}; these are the values")
    elif kind == "inv_log_uniform":
        found = ranges.exponents(-high, -low)
        changed("distribution", f"{kind} took exponents of 1/x, {low} to {high}; these are the values of x")
    else:
        if low <= 0:
            raise UntranslatableError(f"min is {low}: a logarithmic range starts above 0")
        found = ranges.log_uniform(low, high)
        if kind == "inv_log_uniform_values":
            changed("distribution", f"{kind}: log(1/x) is uniform exactly when log x is")
    return _rounded(found, one.get("q", 1), changed) if kind.startswith("q_") else found


def _normal(one: Mapping[str, Any], kind: str, changed: Changed) -> dict[str, Any]:
    mu, sigma = float(one.get("mu", 0.0)), float(one.get("sigma", 1.0))
    if sigma <= 0:
        raise UntranslatableError(f"sigma is {sigma}; it must be above 0")
    low, high = ranges.middle(mu, sigma)
    found = ranges.exponents(low, high) if "log" in kind else ranges.uniform(low, high)
    law = f"{kind} with mu {mu:g} and sigma {sigma:g}"
    changed("distribution", f"{law} has no bounds, which a search needs; its middle 95% replaces it")
    return _rounded(found, one.get("q", 1), changed) if kind.startswith("q_") else found


def _beta(one: Mapping[str, Any], kind: str, changed: Changed) -> dict[str, Any]:
    a, b = one["a"], one["b"]
    changed("distribution", f"{kind} with a {a} and b {b} is not supported; uniform over its whole range replaces it")
    found = ranges.uniform(0.0, 1.0)
    return _rounded(found, one.get("q", 1), changed) if kind.startswith("q_") else found


RANGES: Mapping[str, Callable[[Mapping[str, Any], str, Changed], dict[str, Any]]] = {
    "uniform": _uniform,
    "int_uniform": _uniform,
    "q_uniform": _q_uniform,
    "log_uniform": _log,
    "log_uniform_values": _log,
    "q_log_uniform": _log,
    "q_log_uniform_values": _log,
    "inv_log_uniform": _log,
    "inv_log_uniform_values": _log,
    "normal": _normal,
    "q_normal": _normal,
    "log_normal": _normal,
    "q_log_normal": _normal,
    "beta": _beta,
    "q_beta": _beta,
}
"""W&B's name of a distribution over numbers -> its translation."""
