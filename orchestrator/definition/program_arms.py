"""The arms of a script: any parameters, all defined by the script, and optionally an optimizer that it requests."""

from __future__ import annotations

from orchestrator.definition import program
from orchestrator.definition.arms import Arms, check_conditions, check_name, check_shared_conditions
from orchestrator.definition.location import Where
from orchestrator.definition.model import ArmSpec
from orchestrator.definition.names import Names
from orchestrator.definition.parameter import parameters
from orchestrator.definition.parameter_models import RampModel
from orchestrator.definition.program_keys import NAME
from orchestrator.definition.schema import ArmModel, SweepModel
from orchestrator.definition.space import Parameter, SpaceError, order
from orchestrator.definition.yaml12 import Path


def resolved(model: SweepModel, where: Where) -> Arms:
    """All arms. Raises SpecError."""
    found = Arms(arms={}, names=Names({}, {}, NAME, {}, ()), places={})
    if model.groups:
        raise where.error(("groups",), "a script groups its model's parameters itself; remove it")
    for name, given in model.arms.items():
        arm = given or ArmModel(optimizer=None, parameters={}, groups={})
        check_name(name, found.arms, where)
        if arm.groups:
            raise where.error(("arms", name, "groups"), "a script groups its model's parameters itself; remove it")
        optimizer = program.arm_optimizer(arm, where, name)
        places: dict[str, Path] = {key: ("parameters", key) for key in model.parameters}
        places |= {key: ("arms", name, "parameters", key) for key in arm.parameters}
        both = {**model.parameters, **arm.parameters}
        every: list[Parameter] = []
        for key, value in both.items():
            if isinstance(value, RampModel):
                raise where.error((*places[key], "schedule"), "a script schedules its parameters itself; give a value")
            every += parameters(key, value, where, places[key])
        for p in every:
            program.check_value(optimizer, p, where, places[p.name])
        check_conditions(every, places, where, name)
        try:
            ordered = order(every)
        except SpaceError as error:
            key, words = str(error).split(": ", 1)
            raise where.error((*places[key], "when"), words) from None
        found.arms[name] = ArmSpec(name=name, optimizer=optimizer, parameters=ordered)
        found.places[name] = places
    check_shared_conditions(found.arms, found.places, where)
    return found
