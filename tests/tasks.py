"""Small tasks for tests of the machinery: a noisy least-squares fit that can be slow, fail or diverge on demand."""

from __future__ import annotations

import ctypes
import time
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainables import Batch, Metric, Model, Task


class Fit(Task):
    """Fit a random linear map. `pause_s`: extra time for a loss; `fail_at`: raise at this batch (of `fail_seed` only).

    `hang_at`: never return from this batch (of `fail_seed` only), `hang` in python or in c.
    """

    METRICS: ClassVar = {"loss/val": Metric(goal="minimize", worst=1e4)}

    def __init__(
        self,
        *,
        width: int = 4,
        pause_s: float = 0.0,
        fail_at: int = -1,
        fail_seed: int = -1,
        hang_at: int = -1,
        hang: str = "python",
    ) -> None:
        self._pause, self._fail_at, self._fail_seed = pause_s, fail_at, fail_seed
        self._hang_at, self._hang = hang_at, hang
        generator = torch.Generator().manual_seed(7)
        self._truth = torch.randn(width, width, generator=generator)
        self._x = torch.randn(64, width, generator=generator)

    def model(self, seed: int) -> Model:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(len(self._truth), len(self._truth)), nn.Dropout(0.1))

    def _indices(self, seed: int, index: int) -> Tensor:
        return torch.randint(64, (16,), generator=torch.Generator().manual_seed(seed * 100_003 + index))

    def batch(self, seed: int, index: int) -> Batch:
        x = self._x[self._indices(seed, index)]
        if index == self._fail_at and self._fail_seed in (-1, seed):
            raise RuntimeError("the disk of this test is on fire")
        if index == self._hang_at and self._fail_seed in (-1, seed):
            (time.sleep if self._hang == "python" else ctypes.PyDLL(None).sleep)(600)  # PyDLL keeps the interpreter
        return x, x @ self._truth

    def batch_identity(self, seed: int, index: int) -> bytes:
        return bytes(self._indices(seed, index).tolist())

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        time.sleep(self._pause)
        return ((outputs - targets) ** 2).mean()

    def evaluate(self, model: Model) -> dict[str, float]:
        assert isinstance(model, nn.Module)
        with torch.no_grad():
            return {"loss/val": float(self.loss(model(self._x), self._x @ self._truth))}
