"""A configuration taken apart: what goes to the optimizer, its groups of parameters, the task and the recipe.

A configuration is flat, one value per dotted name, so that searches, conditions, constraints and tables treat all
of it alike:

    lr                   an argument of the optimizer
    sam_radius.end       a field of a schedule that takes the place of an argument (`trainables.ramp`)
    groups.embed.lr      an argument for one group of the model's parameters
    task.width           a parameter of the task
    training.warmup      a field of the recipe
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

TASK, TRAINING, GROUPS = "task", "training", "groups"
SECTIONS = (TASK, TRAINING, GROUPS)
"""First parts of dotted names that are not arguments of an optimizer."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which part of a configuration goes where. Names are those of the receiver, without their section."""

    optimizer: dict[str, Any] = field(default_factory=dict)
    """Constructor arguments, without those that follow a schedule."""
    ramps: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Constructor argument -> the fields of the schedule that it follows during a trial."""
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Group of parameters -> its own arguments."""
    task: dict[str, Any] = field(default_factory=dict)
    """Parameters of the task that override the file's."""
    training: dict[str, Any] = field(default_factory=dict)
    """Fields of the recipe that override the file's."""


def split(configuration: Mapping[str, Any]) -> Parts:
    """The parts of a configuration, in its order."""
    found = Parts()
    for name, value in configuration.items():
        section, rest = section_of(name)
        if section == TASK:
            found.task[rest] = value
        elif section == TRAINING:
            found.training[rest] = value
        elif section == GROUPS:
            group, _, argument = rest.partition(".")
            found.groups.setdefault(group, {})[argument] = value
        else:
            argument, _, scheduled = name.partition(".")
            if scheduled:
                found.ramps.setdefault(argument, {})[scheduled] = value
            else:
                found.optimizer[name] = value
    return found


def groups_of(patterns: Mapping[str, Iterable[str]], parts: Parts) -> dict[str, dict[str, Any]]:
    """Group -> its patterns under `match` and its own arguments, in the order in which groups are matched."""
    return {name: {"match": list(match), **parts.groups.get(name, {})} for name, match in patterns.items()}


def section_of(name: str) -> tuple[str, str]:
    """(`task`, `width`) of `task.width`; (``, `lr`) of an argument of the optimizer."""
    section, dot, rest = name.partition(".")
    return (section, rest) if dot and section in SECTIONS else ("", name)


def in_section(section: str, names: Iterable[str]) -> list[str]:
    """The dotted ones of these names that belong to a section."""
    return [name for name in names if section_of(name)[0] == section]
