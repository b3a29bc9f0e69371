"""Ranges of hyperparameters, checked by name in constructors and in the validation of sweep files."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any


def check_positive(**values: float) -> None:
    """Raise ValueError for the first value that is not a finite number above zero."""
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; it must be a number above 0")


def check_not_negative(**values: float) -> None:
    """Raise ValueError for the first value that is negative or not finite."""
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value}; it must be 0 or above")


def check_share(**values: float) -> None:
    """Raise ValueError for the first value outside [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} is {value}; it must lie in [0, 1)")


RANGES: Mapping[Callable[..., None], frozenset[str]] = {
    check_not_negative: frozenset({"lr", "weight_decay", "sam_radius", "adaptivity", "mean_weight", "fisher_weight"})
    | {"gap_weight", "reuse_weight", "warmup_steps", "average_power", "damping"},
    check_share: frozenset({"momentum", "beta1", "beta2", "mean_decay", "inner_momentum"}),
    check_positive: frozenset({"eps", "curvature_scale", "inner_lr", "inner_clip"}),
}
"""Hyperparameters that have the same range in every optimizer that calls `check_ranges`."""


def check_ranges(**values: Any) -> None:
    """Raise ValueError for the first value outside the range of its name; names without a common range pass."""
    for checked, names in RANGES.items():
        checked(**{k: v for k, v in values.items() if k in names and v is not None})


def choice(name: str, value: Any, choices: Any) -> None:
    """Raise ValueError if `value` is not one of `choices`, naming the nearest."""
    if value not in choices:
        close = difflib.get_close_matches(str(value), list(choices), n=1)
        hint = f"did you mean {close[0]}?" if close else f"it must be one of {', '.join(choices)}"
        raise ValueError(f"{name} is {value!r}; {hint}")
