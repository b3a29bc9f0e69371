"""Small tasks for tests of the machinery: a noisy least-squares fit that can be slow, fail or diverge on demand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from optim_core.sam import SAM
from trainables import Batch, Metric, Model, Task


class Fit(Task):
    """Fit a random linear map. `pause_s`: extra time a step; `fail_at`: raise at this batch (of `fail_seed` only)."""

    METRICS: ClassVar = {"loss/val": Metric(goal="minimize", worst=1e4)}

    def __init__(self, *, width: int = 4, pause_s: float = 0.0, fail_at: int = -1, fail_seed: int = -1) -> None:
        self._pause, self._fail_at, self._fail_seed = pause_s, fail_at, fail_seed
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
        return x, x @ self._truth

    def batch_identity(self, seed: int, index: int) -> bytes:
        return bytes(self._indices(seed, index).tolist())

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        return ((outputs - targets) ** 2).mean()

    def closure(self, model: Model, batch: Batch, zero_grad: Callable[[], None]) -> Callable[[], Any]:
        inner = super().closure(model, batch, zero_grad)

        def evaluate() -> Any:
            time.sleep(self._pause)
            return inner()

        return evaluate

    def evaluate(self, model: Model) -> dict[str, float]:
        assert isinstance(model, nn.Module)
        with torch.no_grad():
            return {"loss/val": float(self.loss(model(self._x), self._x @ self._truth))}


class Warm(torch.optim.SGD):
    """An optimizer with a schedule of its own, for the fairness rules."""

    def __init__(self, params: Any, *, lr: float = 0.1, warmup: float = 0.0) -> None:
        super().__init__(params, lr=lr)
        self.warmup = warmup


class StubbornSam(SAM):
    """SAM with a planted bug: it climbs even when told not to."""

    def __init__(
        self, params: Any, *, lr: float = 0.1, sam_radius: float = 0.05, model: nn.Module | None = None
    ) -> None:
        super().__init__(params, lr=lr, sam_radius=max(sam_radius, 0.05), model=model)


class Slow(torch.optim.SGD):
    """An optimizer with the hyperparameters of a slow preconditioner, for reports."""

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 0.1,
        refresh_interval: int = 10,
        ema_rate: float = 1.0,
        kind: str = "plain",
        rank: int = 1,
    ) -> None:
        super().__init__(params, lr=lr)
