"""The controls that a sweep file may name, and which optimizers each one fits (`protocol.controls` runs them)."""

from __future__ import annotations

from collections.abc import Mapping

import optim_core

NEEDS: Mapping[str, str] = {
    "sgd_under_rotation": "rotation",
    "identity_rotation": "rotation",
    "sam_radius_0": "sam_radius",
    "frozen_preconditioner": "ema_rate",
}
"""Control -> the hyperparameter that an arm's optimizer must have."""


def fits(name: str, optimizer: str) -> bool:
    """Whether an arm with this optimizer can be put to the control."""
    known = optim_core.hyperparameters(optimizer)
    return NEEDS[name] in known and not (name == "sam_radius_0" and "ema_rate" in known)


def fitting(optimizers: Mapping[str, str]) -> tuple[str, ...]:
    """The controls that at least one arm can be put to; `optimizers` maps arm -> optimizer."""
    return tuple(name for name in NEEDS if any(fits(name, o) for o in optimizers.values()))
