"""What arms get equal amounts of: gradient evaluations, optimizer steps, seconds, or tokens. One word for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WORDS = {
    "grad_evals": "gradient evaluations",
    "steps": "steps",
    "seconds": "seconds",
    "tokens": "tokens",
    "epochs": "epochs",
}
"""`budget.unit` -> its name in sentences and on axes."""
COUNTABLE = ("steps", "tokens")
"""Units counted in integers."""


def name_of(budget: Mapping[str, Any], counted: str = "") -> str:
    """The unit of a resolved budget in words; `counted`: what the task counts under `tokens` (see `Task.COUNTS`)."""
    unit = str(budget["unit"])
    return counted if unit == "tokens" and counted else WORDS.get(unit, unit)


def amount(budget: Mapping[str, Any], counted: str = "") -> str:
    """What one trial gets: `480 gradient evaluations`, `1,000,000 tokens`; empty where it is unknown."""
    if not budget["unit"]:
        return ""
    given = budget["per_trial"]
    figure = f"{given:,}" if isinstance(given, int) or float(given).is_integer() else f"{given:,g}"
    words = name_of(budget, counted)
    return f"{figure.removesuffix('.0')} {words.removesuffix('s') if given == 1 else words}"


def took(arm: str, given: float, error: float, seconds: float | None) -> str:
    """How well an arm's calibration met a budget in seconds: `sgd: 31.2 s per trial, 4% above the 30 s ...`."""
    stated = f"calibrated to within {error:.0%}"
    if seconds is None:
        return f"{arm}: no trial has timed its {given:g} s yet ({stated})."
    off = seconds / given - 1
    where = "above" if off > 0 else "below"
    return f"{arm}: {seconds:.3g} s per trial, {abs(off):.0%} {where} the {given:g} s given ({stated})."


def spoken(budget: Mapping[str, Any], counted: str = "") -> str:
    """The same for the verdict: `240 steps each`."""
    given = amount(budget, counted)
    return f"{given} each" if given else ""
