"""Training in two processes for tests: the same runs on both sides; `python -m tests.pair FILE` is worker 1."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist

import optim_core
from tests.tasks import Masked
from trainables.loop import Build, Training
from trainables.recipe import Recipe
from trainables.workers import Drifted, Workers, connect

RECIPES = {
    "plain": Recipe(schedule="cosine"),
    "pieces": Recipe(schedule="cosine", accumulate=2, clip_norm=0.3, weight_average=0.5),
}
BUDGET = 24.0
HYPERPARAMETERS = {
    "refresh_interval": 5,
    "rotation_refresh": 5,
    "smoothness": 4.0,
    "strong_convexity": 0.1,
    "inner_steps": 2,
    "on_mismatch": "restart",
    "precondition_frequency": 3,
    "max_precond_dim": 5,
}
"""Frequent refreshes, the edges of a spectrum, and no axis whose Gram matrix is singular, which rounding would give a
basis; each optimizer takes those that it has."""
OWN = {"splus": {"max_precond_dim": 2}}
"""Of single optimizers. splus without bases: where a gradient is zero but for rounding, it takes rounding's sign."""


def builder(name: str) -> Build:
    """Makes the named optimizer."""

    def build(model: Any, loss: Any, refresh: Any) -> Any:
        extra = {"loss": loss, "refresh_batches": refresh} if optim_core.needs_batches(name) else {}
        known = {k: v for k, v in HYPERPARAMETERS.items() if k in optim_core.hyperparameters(name)}
        return optim_core.build(name, model, **{**known, **OWN.get(name, {})}, **extra)

    return build


def training(name: str, recipe: str, workers: Workers | None) -> Training:
    """A short run; refreshes come every five steps."""
    task = Masked(rows=13)
    return Training(task, builder(name), budget=BUDGET, seed=2, evaluations=2, recipe=RECIPES[recipe], workers=workers)


def finish(run: Training) -> list[Any]:
    points = []
    while not run.finished:
        points.append(run.advance())
    return points


def drift(workers: Workers) -> bool:
    """Whether a worker whose weights were moved by a billionth is found out at the next evaluation."""
    run = training("sgd", "plain", workers)
    if workers.rank == 1:
        next(run.model.parameters()).data[0, 0] += 1e-9  # type: ignore[union-attr]
    try:
        finish(run)
    except Drifted:
        return True
    return False


def main() -> None:
    """Worker 1: the cases are in a file, worker 0's store is at an address."""
    store = connect(sys.argv[2])
    for number, case in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        workers = Workers(rank=1, size=2, store=dist.PrefixStore(str(number), store))
        if case["recipe"] == "drift":
            assert drift(workers)
        else:
            finish(training(case["name"], case["recipe"], workers))
        workers.close()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads now and then end an interpreter that shuts down with SIGABRT, when all is done
