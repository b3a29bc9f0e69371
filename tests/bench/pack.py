"""Trials for the benches of packs: the same in our own loop, and stepped together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import optim_core
from optim_core.packed import PackedStep
from trainables.loop import Training
from trainables.pack import Pack
from trainables.task_class import Task

COST = {"sgd": 1, "adamw": 1, "sam": 2}
"""Gradient evaluations of a step, for each optimizer that can be packed."""


def apart(task: Task, optimizer: str, lr: float, seed: int, steps: int) -> Training:
    """A trial, evaluated once, at its end."""
    return Training(
        task,
        lambda model, loss, refresh: optim_core.build(optimizer, model, lr=lr),
        budget=steps * COST[optimizer],
        seed=seed,
        evaluations=1,
    )


def together(make: Callable[[], Task], optimizer: str, lrs: Sequence[float], seeds: Sequence[int], steps: int) -> Pack:
    """The same trials as a pack; a task object for each, as in a sweep."""
    runs = [apart(make(), optimizer, lr, seed, steps) for lr, seed in zip(lrs, seeds, strict=True)]
    return Pack(runs, PackedStep)


def trained(pack: Pack) -> None:
    """To the end, with the evaluation."""
    due = list(pack.advance())
    scores = pack.scores(due)
    for k in due:
        pack.point(k, scores.get(k))
