"""Valid means that it runs: before anything starts, each arm takes one step at the corners of its space.

Task, model, batch and optimizer are made as a trial makes them, with its first seed; the model is evaluated, and a
batch made a second time, once for each variant of the task. Whatever breaks has a place in the file (see `blame`). The
corners are all listed values and both ends of every range. Of each arm as many are tried as it takes to have every
value in one, for LIMIT_S in all. Where one breaks, those that differ from its arm's first in one value say which value
it was. Then come the others of these, and the other combinations, for SOME_S of computing, or MORE_S where something
broke. Each is tried once.

Where optimizer or task are not bundled and steps are quick, it is also tried whether they go on from a checkpoint as if
they had never stopped (see `resuming`), and whether steps cost no more than such an optimizer declares (see `charged`).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

import torch

from orchestrator.definition import built, plan
from orchestrator.definition.ambient import Ambient
from orchestrator.definition.errors import SpecError, SpecErrors
from orchestrator.definition.location import Where
from orchestrator.definition.model import ArmSpec, Spec
from orchestrator.definition.parts import groups_of, split
from orchestrator.definition.space import SpaceError, corners, satisfied
from orchestrator.definition.yaml12 import parse
from orchestrator.protocol import charged, resuming
from orchestrator.protocol.blame import Blame, Broken, Stage
from orchestrator.protocol.patience import Frames, endless_step, watched
from orchestrator.protocol.redrawn import redrawn
from trainables.loop import Diverged, Training
from trainables.metrics import replaced
from trainables.ramp import Ramp
from trainables.task_class import Task

LIMIT_S, AGAIN_S, GRACE_S, SOME_S, MORE_S, ENDLESS = 30.0, 0.5, 5.0, 0.05, 0.5, 1e9
QUICK_S, RESUME_S, WATCHED_S = 0.5, 3.0, 3.0
"""A first step that is quick enough to try more; the longest that this may take for an arm, and for all corners."""
WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": "", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""Environment in which torch sees no GPU, and starts nothing on one to find that out."""


class _TimeUp(BaseException):
    """The overall time limit is reached; not an `Exception`, which a task may catch."""


@dataclass(frozen=True)
class _Corner:
    arm: ArmSpec
    config: Mapping[str, Any]
    rank: int
    """0: has a value that those before it of its arm have not; 1: a value away from the first; 2: any other one."""


class Rehearsed(NamedTuple):
    """What is to be said of a sweep that is valid."""

    left_out: str = ""
    """What was skipped, and why, as a sentence; empty for nothing."""
    notes: tuple[str, ...] = ()
    """What trials will not do as promised, each with its place in the file."""

    @property
    def lines(self) -> tuple[str, ...]:
        """All of it."""
        return (self.left_out, *self.notes) if self.left_out else self.notes


def rehearse(
    spec: Spec, text: str, limit_s: float = LIMIT_S, give_up: Callable[[SpecError], NoReturn] | None = None
) -> Rehearsed:
    """Try the sweep that `text` defines.

    `give_up` is called from another thread, with what to say, where the task does not let itself be interrupted; it
    ends the process. Without it such a task keeps running.
    Raises SpecError with all that broke; the exception behind each one is its `__cause__`.
    """
    if spec.task.is_program:
        return Rehearsed()
    if spec.resources.gpu and not torch.cuda.is_available():
        return Rehearsed("no step was tried: trials need a GPU, and there is none here")
    tried = _Rehearsal(spec)
    with _unending(spec, text, limit_s, give_up), _quiet(spec), contextlib.suppress(_TimeUp), _alarm(limit_s):
        tried.all(time.monotonic() + limit_s)
    where = Where(spec.source, parse(text))
    blame = Blame(spec, where)
    found = [*blame.errors(tried.broken, tried.well), *blame.missing(tried.metrics), *blame.overruns(tried.over)]
    if found:
        found.sort(key=lambda one: (one.line, one.column))
        raise found[0] if len(found) == 1 else SpecErrors(found)
    notes = tuple(str(where.error(("arms", arm), said)) for arm, said in tried.lost.items())
    if tried.done < tried.of:
        corners_tried = f"{tried.done} of {tried.of} corners of the search spaces"
        left_out = f"{corners_tried} took a step within {limit_s:g} s; the others were not tried"
        return Rehearsed(left_out, notes)
    return Rehearsed(notes=notes)


def _unending(
    spec: Spec, text: str, limit_s: float, give_up: Callable[[SpecError], NoReturn] | None
) -> contextlib.AbstractContextManager[None]:
    if give_up is None:
        return contextlib.nullcontext()

    def overdue(frames: Frames) -> None:
        give_up(endless_step(text, spec.source, spec.task.name, frames, limit_s))

    return watched(limit_s + GRACE_S, overdue)


class _Rehearsal:
    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self.broken: list[Broken] = []
        self.well: dict[str, list[Mapping[str, Any]]] = {name: [] for name in spec.arms}
        """Arm -> the corners at which it took a step."""
        self.metrics: list[Mapping[str, float]] = []
        """What each variant of the task returned."""
        self.lost: dict[str, str] = {}
        """Arm -> who keeps state that no checkpoint holds."""
        self.over: dict[str, str] = {}
        """Arm -> how its optimizer spent more than it declares, at the first corner where it did."""
        self._quick: dict[str, _Corner] = {}
        """Arm -> its first corner that took a step, within QUICK_S."""
        self.done = self.of = 0
        self._evaluated: set[str] = set()
        self._watched_s = 0.0

    def all(self, until: float) -> None:
        """Try corner after corner; nothing is raised but _TimeUp."""
        every = sorted(_corners(self._spec), key=lambda corner: corner.rank)
        values = [corner for corner in every if corner.rank == 0]
        self._each(values, until)
        arms = {one.arm.name for one in self.broken}
        telling = [corner for corner in every if corner.rank == 1 and corner.arm.name in arms]
        self._each(telling, until)
        if not self.broken:
            self._resume(until)
        more = time.process_time() + (MORE_S if self.broken else SOME_S)
        for corner in every:
            if time.process_time() > more or time.monotonic() > until:
                return
            if corner.rank and corner not in telling:
                self._try(corner)

    def _resume(self, until: float) -> None:
        """Try whether the user's own optimizers, and task, go on from a checkpoint; one that all arms share, once."""
        task = self._spec.task.name
        if threading.current_thread() is not threading.main_thread():
            return  # where nothing could end a later step that hangs
        for name, corner in self._quick.items():
            arm = corner.arm
            alone = self.lost or name != next(iter(self._quick))
            if resuming.is_ours(arm.optimizer, task) or (alone and not resuming.is_foreign(arm.optimizer)):
                continue
            if time.monotonic() > until:
                return
            parameters = {**self._spec.task.parameters, **split(corner.config).task}

            def begin(task_: Task | None, corner: _Corner = corner, parameters: Any = parameters) -> Training:
                return _training(self._spec, corner, task_ or built.build(task, parameters))

            with contextlib.suppress(Exception, SystemExit, _TimeUp), _alarm(RESUME_S):  # a trial will tell of others
                if said := resuming.lost(begin, arm.optimizer, task):
                    self.lost[name] = said

    def _each(self, corners: Sequence[_Corner], until: float) -> None:
        """Try these, which count."""
        self.of += len(corners)
        for corner in corners:
            if time.monotonic() > until:
                return
            self._try(corner)
            self.done += 1

    def _try(self, corner: _Corner) -> None:
        parts, stage, began = split(corner.config), Stage.BUILD, time.monotonic()
        task: Task | None = None
        try:
            task = built.build(self._spec.task.name, {**self._spec.task.parameters, **parts.task})
            stage = Stage.BEGIN
            training = _training(self._spec, corner, task)
            stage = Stage.STEP
            charges = charged.Charges(training)
            with contextlib.suppress(Diverged):
                charges.advance(1)
            self.well[corner.arm.name].append(corner.config)
            if time.monotonic() - began < QUICK_S:
                self._quick.setdefault(corner.arm.name, corner)
            key = json.dumps(parts.task, sort_keys=True, default=str)
            if key not in self._evaluated:
                self._evaluated.add(key)
                stage = Stage.EVALUATE
                self.metrics.append(training.measure())
                if wrong := replaced(self.metrics[-1], task.METRICS, type(task).__name__):
                    raise TypeError(wrong)
                stage = Stage.AGAIN
                if wrong := redrawn(task, self._spec.seeds.tune[0]):
                    raise ValueError(wrong)
            if resuming.is_foreign(corner.arm.optimizer):
                self._go_on(charges, began + QUICK_S)
                if said := charges.over():
                    self.over.setdefault(corner.arm.name, said)
        except (Exception, SystemExit) as error:
            self.broken.append(Broken(error, stage, corner.arm, corner.config, type(task) if task else None))
            traceback.clear_frames(error.__traceback__)  # they hold models

    def _go_on(self, charges: charged.Charges, until: float) -> None:
        """Take more steps, whose cost is watched, until then; for WATCHED_S in all corners together."""
        began = time.monotonic()
        left = min(until - began, WATCHED_S - self._watched_s)
        if left <= 0 or threading.current_thread() is not threading.main_thread():
            return  # as in `_resume`
        with contextlib.suppress(Exception, SystemExit, _TimeUp), _alarm(left):  # a trial will tell of others
            charges.advance(charged.STEPS)
        self._watched_s += time.monotonic() - began


def _training(spec: Spec, corner: _Corner, task: Task) -> Training:
    """The training run of a trial at this corner, at its beginning."""
    arm, config, seed = corner.arm, corner.config, spec.seeds.tune[0]
    budget, parts = plan.grad_evals_of(spec, arm, config), split(config)
    ramps = {name: Ramp(**fields) for name, fields in parts.ramps.items()}
    begun = {**parts.optimizer, **{name: ramp.at(0.0) for name, ramp in ramps.items()}}
    return Training(
        task,
        built.optimizer_builder(arm.optimizer, begun, seed, groups_of(arm.groups, parts)),
        budget=budget if budget == budget else ENDLESS,
        seed=seed,
        evaluations=1,
        recipe=replace(spec.training.recipe, **{**parts.training, "compile": False}),
        ramps=ramps,
    )


def _corners(spec: Spec) -> Iterator[_Corner]:
    """The corners of every arm that satisfy the constraints, each once; for identical arms only the first's."""
    seen = set[str]()
    for arm in spec.arms.values():
        known = plan.facts(spec, arm)
        found = corners(arm.parameters, [p.name for p in arm.parameters])
        found = [config for config in found if _obeys(spec, config, known(config))]
        first = _with_every_value(found)
        for i, config in enumerate(found):
            away = sum(found[0].get(name, seen) != config.get(name, seen) for name in {*found[0], *config})
            key = json.dumps([arm.optimizer, arm.groups, config], sort_keys=True, default=str)
            if key not in seen:
                seen.add(key)
                yield _Corner(arm, config, 0 if i in first else min(away, 2))


def _with_every_value(configs: Sequence[Mapping[str, Any]]) -> set[int]:
    """Places of a few of them, the first among these, that have every value which any of them has."""
    values = [{(name, repr(value)) for name, value in config.items()} for config in configs]
    lacking = set[tuple[str, str]]().union(*values)
    found = set[int]()
    while configs and (lacking or not found):
        best = max(range(len(configs)), key=lambda i: (i == 0 and not found, len(values[i] & lacking)))
        found.add(best)
        lacking -= values[best]
    return found


def _obeys(spec: Spec, config: Mapping[str, Any], facts: Mapping[str, float]) -> bool:
    try:
        return satisfied(spec.constraints, config, **facts)
    except (SpaceError, TypeError):  # reported for the constraint itself, with its place
        return True


@contextlib.contextmanager
def _quiet(spec: Spec) -> Iterator[None]:
    """Print nothing, and restore torch, the generators, the environment and the folder."""
    threads = torch.get_num_threads()
    with Ambient(), _descriptors_away(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not spec.resources.gpu:
            os.environ.update(WITHOUT_GPU)
        torch.set_num_threads(spec.resources.cpu)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@contextlib.contextmanager
def _descriptors_away() -> Iterator[None]:
    """Standard input is empty and standard output goes nowhere, for C code and child processes of a task too."""
    with contextlib.suppress(AttributeError, ValueError):
        sys.stdout.flush()
    saved = dict[int, int]()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        with contextlib.suppress(OSError):  # a process without this stream
            saved[descriptor] = os.dup(descriptor)
            os.dup2(nowhere, descriptor)
    os.close(nowhere)
    try:
        yield
    finally:
        for descriptor, before in saved.items():
            os.dup2(before, descriptor)
            os.close(before)


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """_TimeUp after so many seconds, whatever the task is waiting for; in another thread than the main one no alarm."""
    others, again = signal.getitimer(signal.ITIMER_REAL)
    if threading.current_thread() is not threading.main_thread() or 0 < others < seconds:
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise _TimeUp

    began, before = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)  # again, for a task that catches whatever is raised
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if others:  # another timer keeps running
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, others - (time.monotonic() - began)), again)
