"""How many trials are in which state: of a study, an arm, or a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

ASTRAY = ("pruned", "diverged", "failed")
"""Shown only where there are any."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Trials by state, as people and JSON see them."""

    done: int = 0
    """Trained to the budget."""
    running: int = 0
    waiting: int = 0
    """Not begun, or interrupted."""
    pruned: int = 0
    diverged: int = 0
    failed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(Counts)})

    @property
    def unended(self) -> int:
        """Those that run or wait."""
        return self.running + self.waiting

    @property
    def ended(self) -> int:
        """Those that do not."""
        return self.planned - self.unended

    @property
    def planned(self) -> int:
        """All."""
        return sum(asdict(self).values())

    @property
    def astray(self) -> list[str]:
        """`2 pruned`, `1 failed`: the states in which no trial should be, if some are."""
        return [f"{count} {state}" for state in ASTRAY if (count := getattr(self, state))]

    def cells(self, columns: Sequence[str]) -> list[str]:
        """The numbers of some states, for a table."""
        return [str(getattr(self, state)) for state in columns]


def total(counts: Iterable[Counts]) -> Counts:
    """The sum."""
    return sum(counts, Counts())


def columns(counts: Iterable[Counts]) -> tuple[str, ...]:
    """The states shown as columns of a table of arms: failures only if there are any."""
    found = total(counts)
    return "done", "running", "waiting", *(state for state in ASTRAY if getattr(found, state))
