"""The controls that a sweep file may name: limits that optimizers declare (`protocol.controls` runs them)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import optim_core
from optim_core import Limit


def limits(control: str, optimizer: str) -> list[Limit]:
    """The limits of an optimizer that the control proves; empty when it does not apply."""
    return [one for one in optim_core.limits(optimizer) if one.control is not None and one.control.name == control]


def known(optimizers: Iterable[str]) -> list[str]:
    """All controls: the usual ones, then those that only these optimizers declare."""
    found = [control.name for control in optim_core.CONTROLS]
    found += [one.control.name for name in optimizers for one in optim_core.limits(name) if one.control is not None]
    return list(dict.fromkeys(found))


def fitting(optimizers: Sequence[str]) -> tuple[str, ...]:
    """The controls that apply to at least one of the arms' optimizers."""
    return tuple(name for name in known(optimizers) if any(limits(name, optimizer) for optimizer in optimizers))


def owners(control: str) -> list[str]:
    """The registered optimizers that the control applies to."""
    return [name for name in optim_core.registered() if limits(control, name)]
