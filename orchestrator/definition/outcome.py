"""Constraints on what a trial measures: a configuration that violates one is never chosen, however good its metric.

A constraint compares one metric with a number, METRIC <= NUMBER or METRIC >= NUMBER; the number may carry a unit. It
holds for a configuration when the mean of the metric at the end of its trials, over its tune seeds, satisfies it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

UNITS = {
    **{"s": 1.0, "ms": 1e-3, "m": 60.0, "h": 3600.0, "%": 0.01},
    **{f"{prefix}B": 1000.0**i for i, prefix in enumerate(("", "k", "M", "G", "T"))},
    **{f"{prefix}iB": 1024.0 ** (i + 1) for i, prefix in enumerate("KMGT")},
}
PATTERN = re.compile(
    r"\s*(?P<metric>[A-Za-z_][\w./-]*?)\s*(?P<sign><=|>=|<|>|==|!=)\s*"
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>[A-Za-z%]*)\s*"
)


class OutcomeError(ValueError):
    """A text that is not such a constraint; says how to fix it."""


@dataclass(frozen=True, kw_only=True)
class OutcomeConstraint:
    """`metric` is at most, or at least, `limit`."""

    metric: str
    at_most: bool
    limit: float

    def __str__(self) -> str:
        """As written, without unit."""
        return f"{self.metric} {'<=' if self.at_most else '>='} {self.limit!r}"

    def broken_by(self, value: float | None) -> float:
        """By how much a value violates it; 0 or less: satisfied. A value that was never measured violates it."""
        if value is None or not math.isfinite(value):
            return max(1.0, abs(self.limit))
        return value - self.limit if self.at_most else self.limit - value


def parsed(text: str) -> OutcomeConstraint:
    """The constraint in `text`. Raises OutcomeError."""
    found = PATTERN.fullmatch(text)
    if found is None:
        raise OutcomeError(f"{text!r} does not compare a metric with a number; write, for instance: time/step_s <= 0.1")
    if found["sign"] not in ("<=", ">="):
        raise OutcomeError(f"{text!r}: write <= or >=; a measured value never equals a bound exactly")
    if found["unit"] and found["unit"] not in UNITS:
        raise OutcomeError(f"{text!r}: {found['unit']} is not a unit; available: {', '.join(UNITS)}")
    limit = float(found["number"]) * UNITS.get(found["unit"], 1.0)
    if not math.isfinite(limit):
        raise OutcomeError(f"{text!r}: {found['number']} is not a finite number")
    return OutcomeConstraint(metric=found["metric"], at_most=found["sign"] == "<=", limit=limit)


def broken(constraints: Sequence[OutcomeConstraint], seeds: Sequence[Mapping[str, float]]) -> tuple[float, ...]:
    """By how much a configuration violates each, by its trials' metrics; satisfied when none is above 0."""
    found = []
    for one in constraints:
        values = [metrics.get(one.metric) for metrics in seeds]
        known = [v for v in values if v is not None]
        found.append(one.broken_by(sum(known) / len(known) if known and len(known) == len(values) else None))
    return tuple(found)
