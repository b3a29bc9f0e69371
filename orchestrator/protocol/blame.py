"""Which value of a sweep file is to blame for a failed rehearsal, in one line with its place.

The one in which the corner that broke differs from one that did not; else the one that the message of the exception
mentions, by name or by value; else the arm or the task as a whole.
"""

from __future__ import annotations

import enum
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

import optim_core
import trainables
from orchestrator.definition.errors import SpecError, nearest
from orchestrator.definition.kinds import short
from orchestrator.definition.location import Where
from orchestrator.definition.model import ArmSpec, Spec
from orchestrator.definition.parts import GROUPS, TASK, TRAINING, section_of
from orchestrator.definition.yaml12 import Path
from trainables.task_class import Task

LONGEST = 300
METHODS = ("model", "batch", "batch_identity", "refresh_batch", "loss", "closure", "evaluate", "scores")
"""What a trial calls on a task."""
OURS = tuple(str(File(package.__file__ or "").parent) for package in (trainables, optim_core))
BUILT = (str(File(OURS[1]) / "registry.py"), "build")
"""File and function in which an optimizer is made."""
GRADIENT, LOOP = (str(File(OURS[0]) / name) for name in ("gradient.py", "loop.py"))


class Stage(enum.Enum):
    """How far a corner came."""

    BUILD = "building it"
    BEGIN = "beginning a trial"
    STEP = "the first step"
    EVALUATE = "evaluate()"
    AGAIN = "batch()"


@dataclass(frozen=True)
class Broken:
    """A corner that broke."""

    error: BaseException
    stage: Stage
    arm: ArmSpec
    config: Mapping[str, Any]
    task: type[Task] | None

    @property
    def frames(self) -> traceback.StackSummary:
        """The frames where it broke, the innermost call last."""
        return traceback.extract_tb(self.error.__traceback__)


class Blame:
    """Finds places in the file of a sweep."""

    def __init__(self, spec: Spec, where: Where) -> None:
        self._spec, self._where = spec, where

    def errors(self, broken: Sequence[Broken], well: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[SpecError]:
        """One for each value, or combination of values, that breaks. `well`: arm -> the corners that did not."""
        seen, known = set[Path](), set[tuple[str, str]]()
        for one in broken:
            if known & {(name, repr(value)) for name, value in one.config.items()}:
                continue
            of_task = _is_of_task(one)
            others = well[one.arm.name]
            culprit = _alone(one, others) or _spoken_of(one, of_task)
            beside = {}
            if any(config.get(culprit, one) == one.config.get(culprit) for config in others):
                beside = {name: value for name, value in one.config.items() if name != culprit}
            elif culprit:
                known.add((culprit, repr(one.config[culprit])))
            found = self._error(one, culprit, beside, of_task)
            if found.path not in seen:
                yield found
            seen.add(found.path)

    def missing(self, returned: Iterable[Mapping[str, float]]) -> Iterator[SpecError]:
        """Metrics that the sweep file names and a variant of the task does not return."""
        spec, wanted = self._spec, dict[str, Path]()
        declared = trainables.lookup(spec.task.name).METRICS
        wanted[spec.metric.name] = ("metric", "name")
        wanted.setdefault(spec.report_metric, ("metric", "report_metric"))
        for i, objective in enumerate(spec.objectives):
            wanted.setdefault(objective.name, ("objectives", i, "name"))
        for i, constraint in enumerate(spec.outcome_constraints):
            if constraint.metric in declared:
                wanted.setdefault(constraint.metric, ("outcome_constraints", i))
        for name, path in wanted.items():
            lacking = next((metrics for metrics in returned if name not in metrics), None)
            if lacking is not None:
                yield self._where.error(
                    path,
                    f"{name!r} is declared in METRICS, and evaluate of task {spec.task.name} returned "
                    f"{', '.join(sorted(lacking)) or 'nothing'}: return it, or name another metric"
                    f"{nearest(name, lacking) if lacking else ''}",
                )

    def overruns(self, over: Mapping[str, str]) -> Iterator[SpecError]:
        """Arms whose steps cost more than declared. `over`: arm -> how."""
        for arm, said in over.items():
            yield self._where.error(self._of_optimizer(arm), f"{self._spec.arms[arm].optimizer} {said}")

    def _of_optimizer(self, arm: str) -> Path:
        """Where the file names the optimizer of an arm."""
        path = ("arms", arm, "optimizer")
        return path if path in self._where.document.places else path[:2]

    def _error(self, one: Broken, culprit: str, beside: Mapping[str, Any], of_task: bool) -> SpecError:
        """`beside`: the other values with which the culprit's value fails, if it works with different ones."""
        doing = f"{_method(one) or one.stage.value} of task {self._spec.task.name}" if of_task else _doing(one)
        said = _said(one.error)
        words = f"{doing} ended in {said}{_line(one.frames)}"
        if culprit:
            path, value = self._path(one.arm, culprit), short(one.config[culprit])
            message = f"{value}: {words}; give it another value"
            if beside:
                message = f"{value} with {_listed(beside)}: {words}; use constraints: to exclude the combination"
        elif of_task:
            fixed = {k: v for k, v in self._spec.task.parameters.items() if v is not None}
            key = _named(said, fixed)
            path = ("task", key) if ("task", key) in self._where.document.places else ("task",)
            message = f"{short(fixed[key])}: {words}" if len(path) == 2 else words
            message += "; fix the value, or the task" if len(path) == 2 else "; fix the task"
        else:
            path = self._of_optimizer(one.arm.name)
            given = f", with {_listed(one.config)}" if one.config else ""
            message = f"{words}{given}; fix the arm, or remove it"
        found = self._where.error(path, message)
        found.__cause__ = one.error
        return found

    def _path(self, arm: ArmSpec, name: str) -> Path:
        """Where the file defines a hyperparameter of an arm."""
        section, rest = section_of(name)
        places = self._where.document.places
        if section == GROUPS:
            group, _, argument = rest.partition(".")
            tails: list[Path] = [("groups", group, argument)]
        else:
            short_name = rest if section in (TASK, TRAINING) else name.partition(".")[0]
            tails = [("parameters", name), ("parameters", short_name)]
        for tail in tails:
            for path in (("arms", arm.name, *tail), tail):
                if path in places:
                    return path
        return ("arms", arm.name)


def _alone(one: Broken, well: Sequence[Mapping[str, Any]]) -> str:
    """The only hyperparameter in which the corner differs from one that did not break; of the task where that broke."""
    free = one.stage in (Stage.BEGIN, Stage.STEP)
    for config in well:
        differing = [name for name in {**one.config, **config} if one.config.get(name, one) != config.get(name, one)]
        if len(differing) == 1 and differing[0] in one.config and (free or section_of(differing[0])[0] == TASK):
            return differing[0]
    return ""


def _spoken_of(one: Broken, of_task: bool) -> str:
    """The hyperparameter that the message mentions, the task's where that broke."""
    mine = {name: v for name, v in one.config.items() if (section_of(name)[0] == TASK) == of_task}
    return _named(_said(one.error), mine)


def _is_of_task(one: Broken) -> bool:
    """Whether the task broke, and not the optimizer that asked it for a gradient."""
    if one.stage in (Stage.BUILD, Stage.EVALUATE, Stage.AGAIN) or one.task is None:
        return True
    files, frames = _files(one.task), one.frames
    if any((frame.filename, frame.name) == BUILT for frame in frames):  # both may be written in one file
        return False
    if one.stage is Stage.BEGIN and frames[-1].filename == LOOP:  # which rejects what the task returned
        return True
    if not any(frame.name == "step" for frame in frames):
        return any(frame.filename in files for frame in frames)
    stepping = max(i for i, frame in enumerate(frames) if frame.name == "step")
    return any(frame.filename in files or frame.filename == GRADIENT for frame in frames[stepping + 1 :])


def _files(task: type[Task] | None) -> set[str]:
    """Where a task and its base classes are written."""
    modules = [sys.modules.get(cls.__module__) for cls in (task.__mro__ if task else ()) if cls is not object]
    return {str(file) for module in modules if (file := getattr(module, "__file__", None))}


def _method(one: Broken) -> str:
    """`model()`, for what broke in the task's method of this name, or below it."""
    files = _files(one.task)
    return next((f"{f.name}()" for f in one.frames if f.name in METHODS and f.filename in files), "")


def _listed(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {short(value)}" for name, value in config.items())


def _doing(one: Broken) -> str:
    return f"{'building' if one.stage is Stage.BEGIN else 'the first step of'} {one.arm.optimizer}"


def _said(broken: BaseException) -> str:
    """`ValueError: what it says`, in one line."""
    text = " ".join(str(broken).split())
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
    return f"{type(broken).__name__}: {text}" if text else type(broken).__name__


def _named(said: str, values: Mapping[str, Any]) -> str:
    """The one of these names mentioned in a message, by name or else by value only."""
    for name in values:
        if re.search(rf"\b{re.escape(name.rpartition('.')[2])}\b", said):
            return name
    mentioned = [n for n, v in values.items() if not isinstance(v, bool) and _mentions(said, str(v))]
    return mentioned[0] if len(mentioned) == 1 else ""


def _mentions(said: str, value: str) -> bool:
    return bool(value) and re.search(rf"(?<![\w.]){re.escape(value)}(?!\w|\.\d)", said) is not None


def _line(frames: Iterable[traceback.FrameSummary]) -> str:
    """` (file.py:12)`: the innermost line of the user's own code."""
    own = [f for f in frames if not f.filename.startswith((*OURS, "<")) and "site-packages" not in f.filename]
    own = [f for f in own if "/orchestrator/" not in f.filename and f"{sys.base_prefix}/" not in f.filename]
    return f" ({File(own[-1].filename).name}:{own[-1].lineno})" if own else ""
