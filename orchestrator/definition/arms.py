"""The arms of a sweep file: optimizers looked up, names understood, shared and own parameters merged and checked."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import optim_core
import trainables
from orchestrator.definition import grouping
from orchestrator.definition.isolated import imported
from orchestrator.definition.kinds import short
from orchestrator.definition.location import Where
from orchestrator.definition.model import ArmSpec
from orchestrator.definition.names import Names
from orchestrator.definition.parameter import check_value, parameters
from orchestrator.definition.parameter_models import Given, RampModel, as_share
from orchestrator.definition.parts import TRAINING, section_of, split
from orchestrator.definition.places import hidden
from orchestrator.definition.ramps import check_ramp
from orchestrator.definition.schema import ArmModel, SweepModel
from orchestrator.definition.space import Parameter, SpaceError, corners, from_unit, is_number, order, satisfied
from orchestrator.definition.training_values import converted, value_of
from orchestrator.definition.yaml12 import Path

LONGEST_NAME = 100


@dataclass(frozen=True, kw_only=True)
class Read:
    """What the file says under one name."""

    name: str
    """The full name of the whole: `sam_radius` where its fields are parameters."""
    path: Path
    parameters: tuple[Parameter, ...]
    is_ramp: bool


@dataclass(frozen=True, kw_only=True)
class Arms:
    """The arms, and the place of each of their parameters."""

    arms: dict[str, ArmSpec]
    names: Names
    places: dict[str, dict[str, Path]]
    """Arm -> name of a parameter -> its place in the file."""


def resolved(model: SweepModel, processes: int, where: Where) -> Arms:
    """All arms. Raises SpecError."""
    optimizers = _optimizers(model, where)
    names = Names.of(model, optimizers)
    shared = _read(model.parameters, names, None, model, where, ("parameters",))
    found = Arms(arms={}, names=names, places={})
    for arm, optimizer in optimizers.items():
        given = model.arms[arm] or ArmModel(optimizer=None, parameters={}, groups={})
        own = _read(given.parameters, names, arm, model, where, ("arms", arm, "parameters"))
        theirs = [one for one in shared if section_of(one.name)[0] or one.name in names.optimizers[arm]]
        reads = {one.name: one for one in (*theirs, *own)}
        for one in reads.values():
            _check(optimizer, one, processes, where)
        groups = grouping.resolved(model, given, arm, optimizer, names, where)
        every = [p for one in reads.values() for p in one.parameters] + [p for p, _ in groups.parameters]
        places = {p.name: one.path for one in reads.values() for p in one.parameters}
        places |= {p.name: path for p, path in groups.parameters}
        every = _renamed_conditions(every, names, model, places, where)
        check_conditions(every, places, where, arm)
        try:
            ordered = order(every)
        except SpaceError as error:
            name, words = str(error).split(": ", 1)
            raise where.error((*places[name], "when"), words) from None
        _try_out(optimizer, ordered, model.constraints, places, where)
        found.arms[arm] = ArmSpec(name=arm, optimizer=optimizer, parameters=ordered, groups=groups.patterns)
        found.places[arm] = places
    grouping.check_used(model, found.arms, where)
    check_shared_conditions(found.arms, found.places, where)
    return found


def _optimizers(model: SweepModel, where: Where) -> dict[str, str]:
    """Arm -> its optimizer, which exists and fits the task."""
    found: dict[str, str] = {}
    for name, given in model.arms.items():
        optimizer = (given.optimizer if given else None) or name
        path: Path = ("arms", name, "optimizer") if given and given.optimizer else ("arms", name)
        check_name(name, found, where)
        if wrong := optim_core.conflict(optimizer):
            raise where.error(path, wrong)
        try:
            imported(optimizer, partial(optim_core.lookup, optimizer))
        except KeyError as error:
            raise where.error(path, f"{error.args[0]}{hidden(optimizer)}") from None
        _check_players(model, optimizer, where, path)
        found[name] = optimizer
    return found


def check_name(name: str, others: Iterable[str], where: Where) -> None:
    """Raises SpecError for the name of an arm that folders and trial ids could not hold, or that reads like another."""
    if not name or "@" in name or "/" in name:
        raise where.error(("arms", name), "an arm's name must not be empty or contain @ or /")
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise where.error(("arms", name), f"an arm's name is at most {LONGEST_NAME} printable characters")
    twin = next((other for other in others if _alike(other) == _alike(name)), None)
    if twin is not None:
        raise where.error(("arms", name), f"reads like arm {twin}; names must differ by more than case")


def _alike(name: str) -> str:
    """Equal for names that a reader, or a file system, may confuse."""
    return unicodedata.normalize("NFC", name).casefold()


def _check_players(model: SweepModel, optimizer: str, where: Where, path: Path) -> None:
    """Game optimizers are for games, and only for games."""
    task = str(model.task["name"])
    if optim_core.lookup(optimizer).PLAYS_GAMES == trainables.lookup(task).GAME:
        return
    games = [name for name in optim_core.registered() if optim_core.lookup(name).PLAYS_GAMES]
    if trainables.lookup(task).GAME:
        raise where.error(path, f"{optimizer} trains a single model, but task {task} is a game; use {', '.join(games)}")
    tasks = [name for name in trainables.registered() if trainables.lookup(name).GAME]
    raise where.error(path, f"{optimizer} is for games, and task {task} is not one; use one of {', '.join(tasks)}")


def _read(
    given: Mapping[str, Given], names: Names, arm: str | None, model: SweepModel, where: Where, base: Path
) -> list[Read]:
    """The contents of a block of parameters, under full names."""
    found: dict[str, Read] = {}
    for key, value in given.items():
        path = (*base, key)
        name = names.meant(key, arm, where, path)
        if name in found:
            raise where.error(path, f"duplicates {name}, given above; remove one of them")
        section, rest = section_of(name)
        if section and isinstance(value, RampModel):
            raise where.error((*path, "schedule"), f"{rest} belongs to {section} and cannot change during a trial")
        if section == TRAINING:
            value = converted(rest, value, model, where, path)
        made = tuple(parameters(name, value, where, path))
        found[name] = Read(name=name, path=path, parameters=made, is_ramp=isinstance(value, RampModel))
    return list(found.values())


def _check(optimizer: str, one: Read, processes: int, where: Where) -> None:
    """The optimizer accepts the values; those of the task and of training are checked where these are built."""
    if section_of(one.name)[0]:
        return
    if one.is_ramp:
        check_ramp(optimizer, one.name, one.parameters, where, one.path)
        return
    (p,) = one.parameters
    check_value(optimizer, p, where, one.path)
    if p.name == "workers" and "independent" in p.values and processes > 1:
        raise where.error(
            one.path,
            "independent: the processes of a trial always ascend along the whole batch's gradient, so the "
            "result does not depend on how many there are; remove it",
        )


def _try_out(
    optimizer: str, space: Sequence[Parameter], constraints: Sequence[str], places: Mapping[str, Path], where: Where
) -> None:
    """A third-party optimizer accepts every value, with all others in the middle of their ranges."""
    middle = split(from_unit(space, [0.5] * len(space)))
    try:
        optim_core.try_out(optimizer, **middle.optimizer)
    except ValueError:
        return  # the fault may lie in their combination
    for p in space:
        for corner in corners(space, [p.name]) if not section_of(p.name)[0] and "." not in p.name else ():
            given = {**middle.optimizer, **split(corner).optimizer}
            with contextlib.suppress(SpaceError, TypeError):  # reported for the constraint itself, with its place
                if p.name not in corner or not satisfied(constraints, given):
                    continue
            try:
                optim_core.try_out(optimizer, **given)
            except ValueError as error:
                words = f"{short(corner[p.name])} is rejected by {optimizer}: {error}"
                raise where.error(places[p.name], words) from None


def _renamed_conditions(
    parameters: Iterable[Parameter], names: Names, model: SweepModel, places: Mapping[str, Path], where: Where
) -> list[Parameter]:
    """Conditions with bare names of the task and of training spelled out, and percentages as shares."""
    there, found = [*parameters], []
    known = {p.name for p in there}
    for p in there:
        when = dict[str, tuple[Any, ...]]()
        for parent, wanted in p.when.items():
            full = parent if parent in known else names.alias(parent)
            section, rest = section_of(full)
            if section == TRAINING and full in known:
                at = (*places[p.name], "when", parent)
                wanted = tuple(value_of(rest, value, model, where, at) for value in wanted)
            elif not section and full.rpartition(".")[2] in ("begin", "until"):
                wanted = tuple(map(as_share, wanted))
            when[full] = wanted
        found.append(p if when == p.when else replace(p, when=when))
    return found


def check_conditions(every: Iterable[Parameter], places: Mapping[str, Path], where: Where, arm: str) -> None:
    """An arm's own parameter can become active: its conditions name only values that their parents can have.

    For shared parameters, which may have different parents in different arms, see `check_shared_conditions`.
    """
    known = {p.name: p for p in every}
    for p in known.values():
        for parent, wanted in p.when.items():
            at = (*places[p.name], "when", parent)
            if not wanted:
                raise where.error(at, f"names no value, so {p.name} would never be active; name one, or remove it")
            if places[p.name][0] == "arms" and parent in known:
                _check_condition(p, parent, [known[parent]], at, where)


def check_shared_conditions(
    arms: Mapping[str, ArmSpec], places: Mapping[str, Mapping[str, Path]], where: Where
) -> None:
    """A shared parameter can become active: every value that its conditions name is one of the parent's in some arm."""
    found: dict[tuple[Path, str], tuple[Parameter, list[Parameter]]] = {}
    for arm in arms.values():
        known = {p.name: p for p in arm.parameters}
        for p in arm.parameters:
            path = places[arm.name][p.name]
            for parent in p.when if path[0] != "arms" else ():
                found.setdefault(((*path, "when", parent), p.name), (p, []))[1].append(known[parent])
    for (at, _), (p, parents) in found.items():
        _check_condition(p, str(at[-1]), parents, at, where)


def _check_condition(p: Parameter, parent: str, parents: Sequence[Parameter], at: Path, where: Where) -> None:
    """Raises SpecError for values of a condition that none of these, the parent in different arms, can have."""
    wanted = p.when[parents[0].name]
    never = [value for value in wanted if not any(_can_have(one, value) for one in parents)]
    if not never:
        return
    has = "; ".join(dict.fromkeys(map(_all_of, parents)))
    said = f"{', '.join(map(str, never))} is not a value of {parent} here (it has {has})"
    if len(never) == len(wanted):
        raise where.error(at, f"{said}, so {p.name} would never be active; fix or remove it")
    raise where.error(at, f"{said}; remove it")


def _can_have(p: Parameter, value: Any) -> bool:
    """Whether a value is one of a parameter's, as conditions compare them; a continuous range hits no given number."""
    if p.values:
        return value in p.values
    return is_number(value) and p.low <= value <= p.high and (p.kind == "int" or p.step is not None)


def _all_of(p: Parameter) -> str:
    if p.values:
        return ", ".join(map(str, p.values))
    return f"{'' if p.kind == 'int' or p.step else 'any number from '}{p.low} to {p.high}"
