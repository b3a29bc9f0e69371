"""Optimizers, a task and models that keep state where no checkpoint finds it, and some that do not."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tests.tasks import Fit
from trainables.task_class import Batch, Model


class Kept(torch.optim.Optimizer):
    """Momentum where it belongs."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(self.velocity(p).mul_(0.9).add_(p.grad), alpha=group["lr"])
        return loss

    def velocity(self, p: Tensor) -> Tensor:
        """The running gradient of a parameter."""
        found: Tensor = self.state[p].setdefault("velocity", torch.zeros_like(p))
        return found


class Forgetful(Kept):
    """Momentum in an attribute."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1) -> None:
        super().__init__(params, lr)
        self._velocity: dict[int, Tensor] = {}

    def velocity(self, p: Tensor) -> Tensor:
        """The running gradient of a parameter."""
        return self._velocity.setdefault(id(p), torch.zeros_like(p))


class Counting(Fit):
    """A loss that is weighted by how often it was asked for."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self._asked = 0

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The next one."""
        self._asked += 1
        return super().loss(outputs, targets) * (1 + 0.1 * self._asked)


class Warm(nn.Linear):
    """A layer that counts its passes."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        """Scaled by how often."""
        self.passes += 1
        return super().forward(x) * (1 + 0.1 * self.passes)


class Warming(Fit):
    """A model with a counter in an attribute."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)

    def model(self, seed: int) -> Model:
        """Linear."""
        torch.manual_seed(seed)
        return Warm(4, 4)


EVER = itertools.count()


class Moody(Fit):
    """Other weights every time, so that nothing can be told."""

    def model(self, seed: int) -> Model:
        """Linear."""
        torch.manual_seed(seed + next(EVER))
        return nn.Linear(4, 4)


class Waiting(Fit):
    """Its third batch takes ten minutes."""

    def batch(self, seed: int, index: int) -> Batch:
        """A batch, sooner or later."""
        if index == 2:
            time.sleep(600)
        return super().batch(seed, index)
