"""A hyperparameter that changes during a trial: `{schedule: linear, start: 0, end: 0.1}` instead of a number.

With x the share of the budget that is spent, running from 0 at `begin` to 1 at `until` and constant outside,

    linear   start + (end - start) x
    cosine   end + (start - end) (1 + cos(pi x)) / 2
    step     start before `until`, end from there on

If start and end are integers, the value is rounded to one (a refresh interval). For hyperparameters that an optimizer
reads at every step: sam_radius, ema_rate, refresh_interval, weight_decay and others in its `changeable`; the learning
rate has the recipe's schedule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

NAMES = ("linear", "cosine", "step")


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """Checked on construction: ValueError names the field."""

    schedule: str
    """linear, cosine or step."""
    start: float
    """The value at the beginning."""
    end: float
    """The value at the end."""
    begin: float = 0.0
    """Share of the budget at which it starts to change, in [0, 1)."""
    until: float = 1.0
    """Share of the budget at which it reaches its end, above `begin` and at most 1."""

    def __post_init__(self) -> None:
        if self.schedule not in NAMES:
            raise ValueError(f"schedule is {self.schedule!r}; available: {', '.join(NAMES)}")
        for name in ("start", "end", "begin", "until"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name} is {value!r}; it must be a number")
        if not 0 <= self.begin < self.until <= 1:
            raise ValueError(f"begin is {self.begin} and until {self.until}; 0 <= begin < until <= 1")

    def at(self, progress: float) -> float:
        """The value when the share `progress` in [0, 1] of the budget is spent."""
        x = min(1.0, max(0.0, (progress - self.begin) / (self.until - self.begin)))
        if x in (0, 1) or self.schedule == "step":
            return self.end if x == 1 else self.start
        moved = x if self.schedule == "linear" else (1 - math.cos(math.pi * x)) / 2
        value = self.start + (self.end - self.start) * moved
        return round(value) if isinstance(self.start, int) and isinstance(self.end, int) else value


def split(hyperparameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Ramp]]:
    """The values to build an optimizer with, and those that change afterwards.

    Raises ValueError naming the hyperparameter and the field for a mapping that is not a ramp.
    """
    values: dict[str, Any] = {}
    ramps: dict[str, Ramp] = {}
    known = [f.name for f in fields(Ramp)]
    for name, given in hyperparameters.items():
        if not isinstance(given, Mapping):
            values[name] = given
            continue
        wrong = [key for key in given if key not in known] + [key for key in known[:3] if key not in given]
        if wrong:
            raise ValueError(f"{name}.{wrong[0]}: a ramp has schedule, start and end, and may have begin and until")
        if name == "lr":
            raise ValueError("lr: the learning rate follows the recipe's schedule and cannot have its own")
        try:
            ramps[name] = Ramp(**given)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        values[name] = ramps[name].at(0.0)
    return values, ramps
