"""Does training go on from a checkpoint as if it had never stopped? Tried before anything starts, for code of the user.

A checkpoint holds the model's and the optimizer's `state_dict` and torch's, numpy's and Python's generators. What a
class keeps elsewhere, such as a momentum in an attribute, is lost when a trial is interrupted, and nothing would tell.
So a training run takes a few steps, is written and read as a checkpoint is, and takes some more, here and in fresh
objects: the weights must be equal to the last bit. State that first matters later is not found.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import torch

import optim_core
import trainables
from trainables.gradient import modules_of
from trainables.loop import Diverged, Training
from trainables.task_class import Task

BEFORE, AFTER = 2, 2
"""Optimizer steps up to the checkpoint, and from it on."""

Begin = Callable[[Task | None], Training]
"""A training run at its beginning; of a new instance of the task, or of this one."""


def is_ours(optimizer: str, task: str) -> bool:
    """Whether both are bundled, so that the contract suites cover them."""
    return not (is_foreign(optimizer) or _is_foreign_task(task))


def is_foreign(optimizer: str) -> bool:
    """Whether the optimizer is somebody else's."""
    return "." in optimizer or not _in(optim_core.lookup(optimizer), optim_core)


def _is_foreign_task(task: str) -> bool:
    return not _in(trainables.lookup(task), trainables)


def _in(cls: type, package: object) -> bool:
    return cls.__module__.partition(".")[0] == getattr(package, "__name__", "")


def lost(begin: Begin, optimizer: str, task: str) -> str:
    """Who keeps state that a checkpoint does not hold, as a sentence; empty if all is well or cannot be told.

    It cannot be told of a run that diverges, whose checkpoint cannot be written, or that gives other weights each time.
    """
    whole = begin(None)
    try:
        _advance(whole, BEFORE)
        kept, beside = _kept(whole), _copy(whole.task)
        _advance(whole, BEFORE + AFTER)
        weights = _weights(whole)
        if _goes_on(begin(None), kept) == weights:
            return ""
        again = begin(None)
        _advance(again, BEFORE + AFTER)
        if _weights(again) != weights:
            return ""
        by_task = beside is not None and _goes_on(begin(beside), kept) == weights
    except (Diverged, _Unkept):
        return ""
    return _sentence(optimizer if is_foreign(optimizer) else "", task if _is_foreign_task(task) else "", by_task)


def _sentence(optimizer: str, task: str, by_task: bool) -> str:
    """`optimizer`, `task`: the names of those that are the user's; `by_task`: the task alone explains it."""
    of_task = f"task {task} or its model", "make batches functions of (seed, index), and keep the rest in buffers"
    of_optimizer = f"optimizer {optimizer}", "keep it in self.state and param_groups, or add it in state_dict()"
    if by_task or not optimizer:
        who, way = of_task
    elif not task:
        who, way = of_optimizer
    else:
        who, way = f"{of_optimizer[0]}, or {of_task[0]},", f"{of_optimizer[1]}; of a model, in buffers"
    return (
        f"{who} keeps state that no checkpoint holds: {AFTER} steps after one, the weights are not those of training "
        f"without a break, so trials that are interrupted will differ; {way}"
    )


class _Unkept(Exception):  # noqa: N818  not an error of the sweep
    """There is no checkpoint to continue from; a trial that is interrupted begins again, and says so."""


def _kept(training: Training) -> bytes:
    buffer = io.BytesIO()
    try:
        torch.save(training.state(), buffer)
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    except Exception as error:
        raise _Unkept from error
    return buffer.getvalue()


def _copy(task: Task) -> Task | None:
    try:
        return copy.deepcopy(task)
    except Exception:  # an open file, for instance
        return None


def _goes_on(training: Training, kept: bytes) -> list[bytes]:
    training.load(torch.load(io.BytesIO(kept), weights_only=True))
    _advance(training, BEFORE + AFTER)
    return _weights(training)


def _advance(training: Training, steps: int) -> None:
    while training.step < steps and not training.finished:
        training.advance(lambda: training.step >= steps)


def _weights(training: Training) -> list[bytes]:
    every = (p for module in modules_of(training.model) for p in module.parameters())
    return [p.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() for p in every]
