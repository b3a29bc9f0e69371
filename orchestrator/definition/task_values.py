"""The task of a sweep file: its fixed and searched parameters, checked by building it.

Searched values are checked one at a time, then at the corners of each arm's space (every listed value, both ends of
every range) while the time allowed for building lasts.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trainables
from orchestrator.definition.arms import Arms
from orchestrator.definition.built import placed
from orchestrator.definition.errors import nearest
from orchestrator.definition.kinds import misfit, short
from orchestrator.definition.location import Where
from orchestrator.definition.parameter import misfit_of
from orchestrator.definition.parts import TASK, in_section, section_of, split
from orchestrator.definition.places import hidden, near
from orchestrator.definition.schema import SweepModel
from orchestrator.definition.space import Parameter, SpaceError, corners, ends_of, from_unit, satisfied
from orchestrator.definition.yaml12 import Path

if TYPE_CHECKING:
    from trainables import Metric, Task

PATIENCE_S = 5.0
"""Seconds allowed for building the task at searched values."""
MOST = 256
"""Corners that are built."""


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """The task as all trials share it."""

    name: str
    parameters: dict[str, Any]
    """With defaults; without those that every arm searches under all conditions."""
    example: Task
    """As the first trial of the first arm may see it."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The task's."""
        return self.example.METRICS


def lookup(model: SweepModel, where: Where) -> str:
    """The task's name, which must exist."""
    name = model.task.get("name")
    if not isinstance(name, str):
        raise where.error(("task",), f"name: missing; name a task{nearest(str(name), trainables.names())}")
    if wrong := trainables.conflict(name):
        raise where.error(("task", "name"), wrong)
    try:
        trainables.lookup(name)
    except KeyError as error:
        said, meant = f"{error.args[0]}{hidden(name)}", near(name)
        if meant and ("did you mean" not in said or meant.endswith(f":{name}?")):
            said = f"no task {name!r}{meant}"
        raise where.error(("task", "name"), said) from error.__cause__
    if wrong := _no_metrics(trainables.lookup(name).__dict__.get("METRICS")):
        raise where.error(("task", "name"), f"METRICS of {name} {wrong}")
    if missing := _missing(trainables.lookup(name)):
        raise where.error(
            ("task", "name"), f"{name} has no {missing}, which every task needs: add it (CONTRIBUTING, A task)"
        )
    return name


def _no_metrics(declared: Any) -> str:
    """Why a class's own METRICS are invalid; empty where it declares none, or computes them."""
    if not declared or hasattr(declared, "__get__"):
        return ""
    example = 'METRICS = {"loss/val": Metric(goal="minimize")}'
    if not isinstance(declared, Mapping):
        return f"is a {type(declared).__name__}, but must give the direction of each metric: {example}"
    odd = next((key for key, one in declared.items() if not isinstance(one, trainables.Metric)), None)
    return "" if odd is None else f"has {short(declared[odd])} for {odd!r}; expected a Metric: {example}"


def _missing(cls: type[Task]) -> str:
    """What the class of a task lacks."""
    if not getattr(cls, "METRICS", None):
        return "METRICS"
    asked = [
        "model",
        "batch",
        "batch_identity",
        *(["evaluate"] if cls.scores is trainables.Task.scores else []),
        *(["loss"] if cls.closure is trainables.Task.closure else []),
    ]
    return next((f"{key}()" for key in asked if getattr(cls, key) is getattr(trainables.Task, key)), "")


def resolved(model: SweepModel, arms: Arms, where: Where) -> Fixed:
    """The task, built at every corner of its search space. Raises SpecError."""
    name = str(model.task["name"])
    cls, known = trainables.lookup(name), trainables.parameters(name)
    given = {key: value for key, value in model.task.items() if key != "name"}
    for key in given:
        if key not in known:
            raise where.error(("task", key), f"task {name} has no parameter {key!r}{nearest(key, known)}")
    for key, value in given.items():
        if found := misfit(key, known[key], value):
            raise where.error(("task", key), found)
    everywhere = _everywhere(arms)
    for key in given:
        if f"{TASK}.{key}" in everywhere:
            place = next(iter(arms.places.values()))[f"{TASK}.{key}"]
            raise where.error(place, f"is also fixed in task: {{{key}: {short(given[key])}}}; remove one of them")
    for key, argument in known.items():
        if argument.default is inspect.Parameter.empty and key not in given and f"{TASK}.{key}" not in everywhere:
            raise where.error(("task",), f"{key}: missing; task {name} needs it")
    values = {k: given.get(k, p.default) for k, p in known.items() if f"{TASK}.{k}" not in everywhere}
    values = {k: v for k, v in values.items() if k not in cls.LATER or v != cls.LATER[k]}
    if not any(in_section(TASK, places) for places in arms.places.values()):
        return Fixed(name=name, parameters=values, example=_build(cls, values, given, ("task",), where))
    for arm, spec in arms.arms.items():
        for p in spec.parameters:
            if section_of(p.name)[0] == TASK:
                _check_kind(p, known[p.name.partition(".")[2]], arms.places[arm][p.name], where)
    built = list(_at_corners(cls, model, arms, values, where))
    if not built:  # the constraints leave no corner
        arm, spec = next(iter(arms.arms.items()))
        config = from_unit(spec.parameters, [0.5] * len(spec.parameters))
        chosen = {**values, **split(config).task}
        built = [_built(cls, chosen, config, model, arms.places[arm], where)]
    recipe = built[0].recipe()
    if other := next((one for one in built if one.recipe() != recipe), None):
        raise where.error(
            ("parameters",),
            f"a searched parameter of the task changes its recipe ({other.recipe()}, not {recipe}), which all trials "
            "share; fix it in task: and search training.KEY",
        )
    return Fixed(name=name, parameters=values, example=built[0])


def _everywhere(arms: Arms) -> set[str]:
    """Names that every arm searches, or sets, under all conditions."""
    found = [{p.name for p in arm.parameters if not p.when} for arm in arms.arms.values()]
    return set.intersection(*found)


def _build(cls: type[Task], values: Mapping[str, Any], given: Mapping[str, Any], path: Path, where: Where) -> Task:
    try:
        return cls(**placed(trainables.name_of(cls), values))
    except Exception as error:
        said = " ".join(str(error).split())
        culprit = next((k for k in given if said.startswith(k)), None)
        if isinstance(error, ValueError) and said and (culprit or trainables.is_bundled(str(trainables.name_of(cls)))):
            raise where.error((*path, culprit) if culprit else path, said) from error
        culprit = culprit or next((k for k, v in given.items() if isinstance(v, str) and v and v in said), None)
        words = f"the task cannot be built: {type(error).__name__}{f': {said}' if said else ''}"
        if culprit and isinstance(error, FileNotFoundError) and error.filename == given[culprit]:
            near = "next to the sweep file, then in the current folder"
            words = f"no file {error.filename!r}{'' if os.path.isabs(error.filename) else f'; it is looked for {near}'}"
        raise where.error((*path, culprit) if culprit else path, words) from error


def _check_kind(p: Parameter, argument: inspect.Parameter, path: Path, where: Where) -> None:
    """Check that the values are of the kind that the task's constructor declares."""
    name = p.name.partition(".")[2]
    for value in ends_of(p):
        if found := misfit_of(p, name, argument, value):
            raise where.error(path, found)


def _at_corners(
    cls: type[Task], model: SweepModel, arms: Arms, fixed: Mapping[str, Any], where: Where
) -> Iterator[Task]:
    """The task at each corner of each arm's space, the first one in any case."""
    seen, began = set[str](), time.perf_counter()
    for arm, spec in arms.arms.items():
        names = in_section(TASK, [p.name for p in spec.parameters])
        for config in _one_by_one(corners(spec.parameters, names)):
            with contextlib.suppress(SpaceError, TypeError):  # reported for the constraint itself, with its place
                if not satisfied(model.constraints, config):
                    continue
            values = {**fixed, **split(config).task}
            key = json.dumps(values, sort_keys=True, default=str)
            if key in seen or (seen and (len(seen) > MOST or time.perf_counter() - began > PATIENCE_S)):
                continue
            seen.add(key)
            yield _built(cls, values, config, model, arms.places[arm], where)


def _one_by_one(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Corners in an order in which those that differ least from the first come first."""
    first = found[0]
    return sorted(found, key=lambda config: sum(first.get(k) != v for k, v in config.items()))


def _built(
    cls: type[Task],
    values: Mapping[str, Any],
    config: Mapping[str, Any],
    model: SweepModel,
    places: Mapping[str, Path],
    where: Where,
) -> Task:
    try:
        found = cls(**placed(trainables.name_of(cls), values))
    except Exception as error:
        own = {name: config[name] for name in in_section(TASK, config)}
        named = [name for name in own if str(error).startswith(name.partition(".")[2])] or list(own)
        words = ", ".join(f"{name} {short(value)}" for name, value in own.items())
        said = " ".join(str(error).split()) or type(error).__name__
        raise where.error(places[named[0]], f"the task rejects {words}: {said}") from error
    for metric in (model.metric.name, model.metric.report_metric):
        if metric is not None and metric not in found.METRICS and metric in cls.METRICS:
            raise where.error(("metric", "name"), f"{metric!r} is not a metric of the task with {dict(config)}")
    return found
