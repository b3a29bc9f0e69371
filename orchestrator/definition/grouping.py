"""Groups of the model's parameters, by patterns of their names: `groups:` of a sweep file, for all arms or for one.

An arm's own groups come before the shared ones, and one of the same name replaces the shared one. A parameter
belongs to the first group with a pattern that matches it (`optim_core.groups`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import optim_core
from orchestrator.definition import built
from orchestrator.definition.errors import nearest
from orchestrator.definition.location import Where
from orchestrator.definition.model import ArmSpec, Spec
from orchestrator.definition.names import Names
from orchestrator.definition.parameter import check_value, parameter
from orchestrator.definition.parameter_models import GroupModel, RampModel
from orchestrator.definition.parts import GROUPS, groups_of, split
from orchestrator.definition.planned import GroupSize
from orchestrator.definition.schema import ArmModel, SweepModel
from orchestrator.definition.space import Parameter, corners, from_unit
from orchestrator.definition.yaml12 import Path

if TYPE_CHECKING:
    from trainables import Task

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
REST, MOST_NAMES = "the others", 40


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Of one arm."""

    patterns: dict[str, tuple[str, ...]]
    """Group -> its patterns, in order."""
    parameters: list[tuple[Parameter, Path]]
    """`groups.NAME.KEY`, each with its place."""


def resolved(model: SweepModel, own: ArmModel, arm: str, optimizer: str, names: Names, where: Where) -> Groups:
    """The groups of an arm. Raises SpecError for a key that its optimizer cannot take for each group."""
    base: Path = ("arms", arm, "groups")
    places: dict[str, tuple[GroupModel, Path]] = {name: (given, (*base, name)) for name, given in own.groups.items()}
    for name, given in model.groups.items():
        places.setdefault(name, (given, (GROUPS, name)))
    found = Groups(patterns={}, parameters=[])
    for name, (given, path) in places.items():
        if not NAME.fullmatch(name):
            raise where.error(path, "a group's name is made of letters, digits and underscores, as in no_decay")
        keys = _extra(given)
        if not keys:
            raise where.error(path, "has patterns but no hyperparameters; add one, or remove the group")
        if path[0] == GROUPS and not set(keys) & set(names.optimizers[arm]):
            if not any(set(keys) & set(known) for known in names.optimizers.values()):
                key = next(iter(keys))
                known = {one for arguments in names.optimizers.values() for one in arguments}
                raise where.error((*path, key), f"no arm's optimizer has it{nearest(key, known)}")
            continue
        for key, value in keys.items():
            if path[0] == GROUPS and key not in names.optimizers[arm]:
                continue
            found.parameters.append((_one(name, key, value, optimizer, where, (*path, key)), (*path, key)))
        found.patterns[name] = tuple(given.match)
    return found


def check_used(model: SweepModel, arms: Mapping[str, ArmSpec], where: Where) -> None:
    """Every key of a shared group is a hyperparameter of some arm's optimizer."""
    for name, given in model.groups.items():
        for key in _extra(given):
            full = f"{GROUPS}.{name}.{key}"
            if not any(p.name == full for arm in arms.values() for p in arm.parameters):
                known = {one for arm in arms.values() for one in optim_core.hyperparameters(arm.optimizer)}
                raise where.error((GROUPS, name, key), f"no arm's optimizer has it{nearest(key, known)}")


def _extra(given: GroupModel) -> dict[str, Any]:
    return dict(given.__pydantic_extra__ or {})


def _one(group: str, key: str, given: Any, optimizer: str, where: Where, path: Path) -> Parameter:
    known, able = optim_core.hyperparameters(optimizer), optim_core.groupable(optimizer)
    if key not in known:
        raise where.error(path, f"unknown to optimizer {optimizer}{nearest(key, known)}")
    if key not in able:
        there = f"these can: {', '.join(sorted(able))}" if able else "it has no hyperparameter that can"
        raise where.error(path, f"cannot differ between groups of parameters in {optimizer}; {there}")
    if isinstance(given, RampModel):
        raise where.error(
            (*path, "schedule"), "a group's value cannot change during a trial; schedule it for the whole arm"
        )
    made = parameter(f"{GROUPS}.{group}.{key}", given, where, path)
    check_value(optimizer, made, where, path, key)
    return made


def check_patterns(spec: Spec, arm: ArmSpec, where: Where) -> None:
    """Every pattern matches a parameter of the model, and every group has one, somewhere in the arm's space.

    The optimizer is built with its groups at the ends and in the middle of the space.
    """
    if not arm.groups:
        return
    models = [_names(spec, config) for config in _task_corners(arm)]
    for name, patterns in arm.groups.items():
        path = _place(arm, name, where)
        for i, pattern in enumerate(patterns):
            if not any(optim_core.assigned(names, {name: (pattern,)}) for names in models):
                there = ", ".join(models[0][:MOST_NAMES]) + (", ..." if len(models[0]) > MOST_NAMES else "")
                raise where.error(
                    (*path, "match", i), f"{pattern!r} matches no parameter of the model, which has {there}"
                )
        if not any(name in optim_core.assigned(names, arm.groups).values() for names in models):
            raise where.error(path, "gets no parameters: earlier groups take all that it matches; move it before them")
    for u in (0.0, 0.5, 1 - 1e-9):
        config = from_unit(arm.parameters, [u] * len(arm.parameters))
        (task, model), parts = _made(spec, config), split(config)
        begun = {name: fields["start"] for name, fields in parts.ramps.items()}
        given = groups_of(arm.groups, parts)
        try:
            build = built.optimizer_builder(arm.optimizer, {**parts.optimizer, **begun}, 0, given)
            build(model, task.loss, partial(task.refresh_batch, 0))
        except ValueError as error:
            group = next((one for one in given if str(error).startswith(f"groups: {one}: ")), next(iter(given)))
            words = str(error).removeprefix(f"groups: {group}: ")
            raise where.error(_place(arm, group, where), words) from None
        except TypeError as error:  # a value of the wrong kind
            raise where.error(("arms", arm.name), f"{arm.optimizer} cannot be built at {config}: {error}") from error


def _place(arm: ArmSpec, group: str, where: Where) -> Path:
    own: Path = ("arms", arm.name, GROUPS, group)
    return own if own in where.document.places else (GROUPS, group)


def counts(spec: Spec, arm: ArmSpec) -> dict[str, GroupSize]:
    """Group -> its size in the model at the first corner of the arm's space."""
    import torch

    model = _model(spec, _task_corners(arm)[0])
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    of = optim_core.assigned(list(named), arm.groups)
    sizes: dict[str, list[int]] = {name: [] for name in (*arm.groups, REST)}
    for name, p in named.items():
        sizes[of.get(name, REST)].append(int(torch.tensor(p.shape).prod()))
    return {name: GroupSize(tensors=len(each), weights=sum(each)) for name, each in sizes.items()}


def _task_corners(arm: ArmSpec) -> list[dict[str, Any]]:
    return corners(arm.parameters, [p.name for p in arm.parameters if p.name.startswith("task.")])[:16]


def _names(spec: Spec, config: Mapping[str, Any]) -> list[str]:
    return [name for name, p in _model(spec, config).named_parameters() if p.requires_grad]


def _model(spec: Spec, config: Mapping[str, Any]) -> Any:
    return _made(spec, config)[1]


def _made(spec: Spec, config: Mapping[str, Any]) -> tuple[Task, Any]:
    import torch

    task = built.build(spec.task.name, {**spec.task.parameters, **split(config).task})
    with torch.random.fork_rng(devices=[]):
        return task, task.model(0)
