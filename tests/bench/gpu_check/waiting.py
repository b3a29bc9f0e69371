"""How much of the time training waits for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import optim_core
from tests.bench.gpu_check.setting import Row, Setting
from trainables.gradient import Gradients
from trainables.recipe import Recipe
from trainables.workers import Workers

MOST = 3.0
"""Percent of waiting that is allowed, at RATE images a second or more."""
RATE = 5000


def waiting(setting: Setting) -> Iterator[Row]:
    """Training on made images (resnet18) and tokens (GPT) in bfloat16: share of time in which no batch is there.

    Every step waits for its loss, as a trial's does, so that a wait for data is one of the device.
    """
    names = [f"{kind}, {count} readers" for kind in ("images", "tokens") for count in setting.sizes.readers]

    def row(name: str) -> Row:
        kind, _, words = name.partition(", ")
        task = setting.task(kind)
        task.read_ahead(int(words.split()[0]))
        try:
            model: Any = task.model(0)
            optimizer = optim_core.build("adamw", model, lr=1e-4)
            gradients = Gradients(task, model, Recipe(precision="bf16"), Workers())
            waited = began = 0.0
            index = first = 0
            while not began or (time.perf_counter() - began < setting.sizes.seconds and setting.left > 0):
                if index == 3:
                    began, waited, first = time.perf_counter(), 0.0, index
                asked = time.perf_counter()
                batch = task.batch(0, index)
                waited += time.perf_counter() - asked
                float(optimizer.step(gradients.closure(batch, optimizer, index)).detach())
                index += 1
            seconds = time.perf_counter() - began
        finally:
            task.read_ahead(0)
        rate = (index - first) * task.tokens_per_batch() / seconds
        return {"per second": rate, "counted": task.COUNTS, "ms a step": 1e3 * seconds / (index - first),
                "waiting %": 100 * waited / seconds}  # fmt: skip

    return setting.each(names, row)
