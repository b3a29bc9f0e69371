"""Optimizers that use the geometry of the loss. Public names only.

Names are loaded, and torch with them, on first use: `import optim_core` itself takes milliseconds.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optim_core import average_case as average_case
    from optim_core import diagnostics as diagnostics
    from optim_core import games as games
    from optim_core import packed as packed
    from optim_core import spectrum as spectrum
    from optim_core.base import Baseline, Counting
    from optim_core.compiled_closure import compiled_step
    from optim_core.declarations import CONTROLS, Control, HeatMap, Limit
    from optim_core.groups import assigned
    from optim_core.registry import (
        adopt,
        build,
        changeable,
        check,
        conflict,
        cost_of_start,
        cost_per_step,
        costs_alike,
        groupable,
        hyperparameters,
        in_limit,
        learning_rate,
        limits,
        lookup,
        name_of,
        names,
        needs_batches,
        needs_run_seed,
        references,
        register,
        registered,
        steps_within,
        try_out,
    )

HOMES = {
    "base": ("Baseline", "Counting"),
    "compiled_closure": ("compiled_step",),
    "declarations": ("CONTROLS", "Control", "HeatMap", "Limit"),
    "groups": ("assigned",),
}
"""Module -> its public names; names listed under no module belong to the registry."""
__all__ = [
    "CONTROLS",
    "Baseline",
    "Control",
    "Counting",
    "HeatMap",
    "Limit",
    "adopt",
    "assigned",
    "average_case",
    "build",
    "changeable",
    "check",
    "compiled_step",
    "conflict",
    "cost_of_start",
    "cost_per_step",
    "costs_alike",
    "diagnostics",
    "games",
    "groupable",
    "hyperparameters",
    "in_limit",
    "learning_rate",
    "limits",
    "lookup",
    "name_of",
    "names",
    "needs_batches",
    "needs_run_seed",
    "references",
    "register",
    "registered",
    "spectrum",
    "steps_within",
    "try_out",
]
PUBLIC = set(__all__) - {"average_case", "diagnostics", "games", "spectrum"}
"""Without the submodules."""


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        home = next((module for module, names in HOMES.items() if name in names), "registry")
        globals()[name] = found = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        return found
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
