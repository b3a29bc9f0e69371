"""A task whose trial burns a given number of CPU seconds: the load of the scheduling bench."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainables import Batch, Metric, Model, Task
from trainables.randomness import seed_torch


class Burn(Task):
    """One parameter, `steps` steps, each of `seconds` / `steps` of this thread's CPU."""

    METRICS: ClassVar = {"loss/val": Metric(goal="minimize", worst=1e4)}
    SCHEDULE = "constant"

    def __init__(self, *, seconds: float = 1.0, steps: int = 100) -> None:
        self._slice = seconds / steps
        self._batch = torch.ones(1, 1), torch.zeros(1, 1)

    def model(self, seed: int) -> Model:
        seed_torch(seed)
        return nn.Linear(1, 1)

    def batch(self, seed: int, index: int) -> Batch:
        return self._batch

    def batch_identity(self, seed: int, index: int) -> bytes:
        return str(index).encode()

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        return ((outputs - targets) ** 2).mean()

    def closure(self, model: Model, batch: Batch, zero_grad: Callable[[], None]) -> Callable[[], Any]:
        inner = super().closure(model, batch, zero_grad)

        def evaluate() -> Any:
            start = time.thread_time()
            loss = inner()
            while time.thread_time() - start < self._slice:
                pass
            return loss

        return evaluate

    def evaluate(self, model: Model) -> dict[str, float]:
        assert isinstance(model, nn.Module)
        with torch.no_grad():
            return {"loss/val": float((model(torch.ones(1, 1)) ** 2).mean())}


def burn(seconds: float, steps: int = 100) -> tuple[float, float]:
    """The same load in a bare loop of torch, for the other runners: (when it began, its loss).

    As in the task, the spinning of a step ends with its forward and backward; what the update takes comes on top.
    """
    began = time.time()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    inputs, targets = torch.ones(1, 1), torch.zeros(1, 1)
    for _ in range(steps):
        start = time.thread_time()
        optimizer.zero_grad()
        loss = ((model(inputs) - targets) ** 2).mean()
        loss.backward()
        while time.thread_time() - start < seconds / steps:
            pass
        optimizer.step()
    return began, float(loss)


def spin(seconds: float) -> tuple[float, float]:
    """The seconds alone, without a single step."""
    began, start = time.time(), time.thread_time()
    while time.thread_time() - start < seconds:
        pass
    return began, 1.0
