"""How the confirm stage is raced, and at how many seeds its looks are (see `scheduling.race`)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Racing:
    """How the confirm stage is raced."""

    level: float
    """Probability that any of several equal arms is stopped, in (0, 1)."""
    looks: int
    """How often arms are compared before the last seed."""


def look_at(seeds: int, arms: int, racing: Racing) -> tuple[int, ...]:
    """Numbers of seeds after which arms are compared, ascending; empty with too few seeds to decide anything."""
    below = racing.level / (math.comb(arms, 2) * racing.looks)
    first = math.ceil(1 - math.log2(below) - 1e-12)
    if first >= seeds:
        return ()
    last = seeds - 1
    gaps = max(1, racing.looks - 1)
    return tuple(sorted({first + round(i * (last - first) / gaps) for i in range(racing.looks)}))
