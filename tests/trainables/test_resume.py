"""Interrupted and resumed training is the uninterrupted one, bit for bit, for every registered optimizer."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import optim_core
import trainables
from tests.pair import builder
from tests.tasks import Masked
from trainables import Task, checkpoint
from trainables.loop import Training
from trainables.randomness import random_state, restore_random_state, seed_all
from trainables.recipe import Recipe

pytestmark = pytest.mark.slow

RECIPE = Recipe(schedule="cosine", warmup=0.1, accumulate=2, clip_norm=0.5, weight_average=0.8)


def task_for(name: str) -> Task:
    """A game has a gradient of its own, which is not cut into pieces."""
    if getattr(optim_core.lookup(name), "PLAYS_GAMES", False):
        return trainables.build("bilinear", rows=3, columns=3)
    return Masked(draws=True)


def training(name: str) -> Training:
    task = task_for(name)
    budget, recipe = (40, RECIPE) if isinstance(task, Masked) else (60, replace(RECIPE, accumulate=1, clip_norm=0.0))
    return Training(task, builder(name), budget=budget, seed=3, evaluations=4, recipe=recipe)


def told(run: Training, points: list[Any]) -> Any:
    """Every metric but the clock's, and the final bits."""
    metrics = [(p.grad_evals, {k: v for k, v in p.metrics.items() if not k.startswith("time/")}) for p in points]
    state = run.state()
    return metrics, state["models"], state["averages"], state["optimizer"]["state"], run.optimizer.grad_evals


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("name", optim_core.names())
def test_resumed_is_uninterrupted(name: str, tmp_path: Path) -> None:
    """Stop at random steps, now and then within a step between two pieces of its batch; go on from the newest file.

    The task draws from the generators of Python, NumPy and torch in every loss. Refreshes come every five steps.
    """
    whole = training(name)
    expected = []
    while not whole.finished:
        expected.append(whole.advance())
    chance, run, points = random.Random(f"resume/{name}"), training(name), []
    checkpoint.save({"training": run.state(), "points": 0}, tmp_path)
    stops = 0
    while not run.finished:
        left = chance.randint(1, 6)

        def pause() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        task = run.task
        if isinstance(task, Masked):
            task.stop_in = chance.randint(1, 9) if chance.random() < 0.3 else -1
        try:
            point = run.advance(pause)
        except InterruptedError:
            point = None
        else:
            if point is None:
                checkpoint.save({"training": run.state(), "points": len(points)}, tmp_path)
            else:
                points.append(point)
                continue
        stops += 1
        seed_all(chance.randint(0, 10**6))
        saved = checkpoint.newest(tmp_path)
        assert saved is not None
        run, points = training(name), points[: saved["points"]]
        run.load(saved["training"])
    assert stops >= 3
    assert same(told(run, points), told(whole, expected))


def test_the_generators_are_put_back() -> None:
    seed_all(5)
    random.gauss(0, 1)
    np.random.randn()
    state = random_state()

    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.rand(()))]

    first = draw()
    seed_all(6)
    restore_random_state(state)
    assert draw() == first
    seed_all(5)
    assert draw() != first
