"""Schedules that a hyperparameter follows during a trial, checked before anything starts (`trainables.ramp`)."""

from __future__ import annotations

from collections.abc import Sequence

import optim_core
from orchestrator.definition.location import Where
from orchestrator.definition.parameter import check_value
from orchestrator.definition.parts import split
from orchestrator.definition.space import Parameter, corners
from orchestrator.definition.yaml12 import Path
from trainables.ramp import NAMES, Ramp


def check_ramp(optimizer: str, name: str, fields: Sequence[Parameter], where: Where, path: Path) -> None:
    """The optimizer rereads the hyperparameter at every step, and every schedule in the space is one."""
    rate = optim_core.learning_rate(optimizer)
    if name == rate:
        raise where.error(
            (*path, "schedule"), f"{name} is the learning rate and follows the recipe's schedule; set training.schedule"
        )
    able = optim_core.changeable(optimizer) - {rate}
    if name not in able:
        there = f"; these can: {', '.join(sorted(able))}" if able else ""
        raise where.error((*path, "schedule"), f"{name} of {optimizer} cannot change during a trial{there}")
    for p in fields:
        key = p.name.rpartition(".")[2]
        if key in ("start", "end"):
            check_value(optimizer, p, where, (*path, key), name)
    for corner in corners(fields, [p.name for p in fields]):
        given = split(corner).ramps.get(name, {})
        if not given:
            continue
        if given["schedule"] not in NAMES:
            raise where.error((*path, "schedule"), f"{given['schedule']!r} is not one of {', '.join(NAMES)}")
        try:
            Ramp(**given)
        except ValueError as error:
            culprit = next((key for key in given if str(error).startswith(key)), "schedule")
            raise where.error((*path, culprit), str(error)) from None
