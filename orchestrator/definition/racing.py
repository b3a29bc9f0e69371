"""How the confirm stage is raced, and at how many seeds its looks are (see `scheduling.race`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Racing:
    """How the confirm stage is raced."""

    level: float
    """Probability that any of several equal arms is stopped, in (0, 1)."""
    looks: int
    """How often arms are compared before the last seed."""


@dataclass(frozen=True, kw_only=True)
class Lost:
    """An arm that a race stopped."""

    arm: str
    seeds: int
    """Units that it ran: studies if there are several."""
    against: str
    """The best arm by then."""
    p: float
    below: float
    """The largest p that stops an arm."""
    reason: str
    studies: int | None = None
    """Units, in files of earlier versions in which `seeds` counts the seeds of several studies."""

    @property
    def units(self) -> int:
        """Studies or seeds that it ran."""
        return self.seeds if self.studies is None else self.studies


@dataclass(frozen=True, kw_only=True)
class Raced:
    """What a race has decided so far."""

    looks: Sequence[int]
    """Units after which arms are compared."""
    taken: int
    """How many looks there were."""
    stopped: Mapping[str, Lost]

    @property
    def tests(self) -> int:
        """How many times the comparison is tested, including the final look."""
        return len(self.looks) + 1

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Raced:
        """From JSON. Raises TypeError or KeyError for other content."""
        stopped = {arm: Lost(**one) for arm, one in document["stopped"].items()}
        return cls(looks=document["looks"], taken=document["taken"], stopped=stopped)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found = asdict(self)
        for one in found["stopped"].values():
            if one["studies"] is None:
                del one["studies"]
        return {**found, "looks": list(self.looks)}


def look_at(seeds: int, arms: int, racing: Racing) -> tuple[int, ...]:
    """Numbers of seeds after which arms are compared, ascending; empty with too few seeds to decide anything."""
    below = racing.level / (math.comb(arms, 2) * racing.looks)
    first = math.ceil(1 - math.log2(below) - 1e-12)
    if first >= seeds:
        return ()
    last = seeds - 1
    gaps = max(1, racing.looks - 1)
    return tuple(sorted({first + round(i * (last - first) / gaps) for i in range(racing.looks)}))
