"""What optimizers declare, as the sweep's folder keeps it: a finished sweep is read without them, or torch.

A folder of an earlier version has no such record; then the optimizer's class is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import optim_core
from optim_core import HeatMap
from orchestrator.definition.resolved import Resolved


@dataclass(frozen=True, kw_only=True)
class Declares:
    """The declarations of `optim_core.Counting` that results are read by; see there."""

    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    heat_map: HeatMap | None = None

    def document(self) -> dict[str, Any]:
        """As JSON; an end that is infinite is null."""
        bounds = {name: [end if math.isfinite(end) else None for end in ends] for name, ends in self.bounds.items()}
        return {"bounds": bounds, **({"heat_map": asdict(self.heat_map)} if self.heat_map else {})}


def of_class(name: str) -> Declares:
    """Of the named optimizer; one that is gone, and a script, declare nothing."""
    try:
        found = optim_core.lookup(name)
    except KeyError:
        return Declares()
    return Declares(bounds=dict(found.BOUNDS), heat_map=found.HEAT_MAP)


def documents(names: Iterable[str]) -> dict[str, Any]:
    """Name -> declarations, of the optimizers of a sweep that begins."""
    return {name: of_class(name).document() for name in dict.fromkeys(names) if name}


def of_sweep(resolved: Resolved, name: str) -> Declares:
    """Of one of the optimizers of a sweep's resolved.json."""
    if not name:
        return Declares()
    kept = (resolved.optimizers or {}).get(name)
    if kept is None:
        return of_class(name)
    ends = {
        key: (-math.inf if low is None else low, math.inf if high is None else high)
        for key, (low, high) in kept["bounds"].items()
    }
    return Declares(bounds=ends, heat_map=HeatMap(**kept["heat_map"]) if "heat_map" in kept else None)
