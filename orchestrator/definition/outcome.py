"""Constraints on what a trial measures: a configuration that breaks one is never chosen, however good its metric.

A constraint compares one metric with a number, METRIC <= NUMBER or METRIC >= NUMBER; the number may carry a unit. It
holds for a configuration when the mean of the metric at the end of its trials, over its tune seeds, obeys it.
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
    """A text that is no such constraint; says the way out."""


@dataclass(frozen=True, kw_only=True)
class OutcomeConstraint:
    """`metric` is at most, or at least, `limit`."""

    metric: str
    at_most: bool
    limit: float

    def __str__(self) -> str:
        """As it is written, without unit."""
        return f"{self.metric} {'<=' if self.at_most else '>='} {self.limit!r}"

    def broken_by(self, value: float | None) -> float:
        """How far a value is on the wrong side; 0 or less: it obeys. One that was never measured does not."""
        if value is None or not math.isfinite(value):
            return max(1.0, abs(self.limit))
        return value - self.limit if self.at_most else self.limit - value


def parsed(text: str) -> OutcomeConstraint:
    """The constraint in `text`. Raises OutcomeError."""
    found = PATTERN.fullmatch(text)
    if found is None:
        raise OutcomeError(f"{text!r} compares no metric with a number; write for instance: time/step_s <= 0.1")
    if found["sign"] not in ("<=", ">="):
        raise OutcomeError(f"{text!r}: write <= or >=; what is measured is never met exactly")
    if found["unit"] and found["unit"] not in UNITS:
        raise OutcomeError(f"{text!r}: {found['unit']} is no unit; there is: {', '.join(UNITS)}")
    limit = float(found["number"]) * UNITS.get(found["unit"], 1.0)
    if not math.isfinite(limit):
        raise OutcomeError(f"{text!r}: {found['number']} is no number that one can reckon with")
    return OutcomeConstraint(metric=found["metric"], at_most=found["sign"] == "<=", limit=limit)


def broken(constraints: Sequence[OutcomeConstraint], seeds: Sequence[Mapping[str, float]]) -> tuple[float, ...]:
    """How far a configuration is on the wrong side of each, by its trials' metrics; obeyed when none is above 0."""
    found = []
    for one in constraints:
        values = [metrics.get(one.metric) for metrics in seeds]
        known = [v for v in values if v is not None]
        found.append(one.broken_by(sum(known) / len(known) if known and len(known) == len(values) else None))
    return tuple(found)
