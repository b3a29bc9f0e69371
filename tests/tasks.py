"""Small tasks for tests of the machinery: a noisy least-squares fit that can be slow, fail or diverge on demand."""

from __future__ import annotations

import ctypes
import logging
import os
import random
import subprocess
import sys
import time
import warnings
from collections import deque
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from optim_core import Control, Limit
from optim_core.geometry import LearnedGeometry
from optim_core.sam import SAM
from trainables import Batch, Metric, Model, Task
from trainables.objectives import token_count, token_loss
from trainables.randomness import seed_torch


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
        dropout: float = 0.1,
    ) -> None:
        self._pause, self._fail_at, self._fail_seed = pause_s, fail_at, fail_seed
        self._hang_at, self._hang, self._dropout = hang_at, hang, dropout
        generator = torch.Generator().manual_seed(7)
        self._truth = torch.randn(width, width, generator=generator)
        self._x = torch.randn(64, width, generator=generator)

    def model(self, seed: int) -> Model:
        seed_torch(seed)
        return nn.Sequential(nn.Linear(len(self._truth), len(self._truth)), nn.Dropout(self._dropout))

    def facts(self) -> dict[str, str]:
        return {"rows": str(len(self._x))}

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
        if self._pause:
            time.sleep(self._pause)  # sleeping for 0 s takes a millisecond
        return ((outputs - targets) ** 2).mean()

    def scores(self, model: Model) -> dict[str, Tensor]:
        assert isinstance(model, nn.Module)
        with torch.no_grad():
            return {"loss/val": self.loss(model(self._x), self._x @ self._truth)}


class Precise(Fit):
    """Fit, with a parameter that the training recipe has too."""

    def __init__(self, *, precision: int = 1, width: int = 4) -> None:
        super().__init__(width=width)


class Large(Fit):
    """Fit, whose model runs out of a GPU's memory above `most` rows at once while it trains."""

    def __init__(self, *, most: int = 4) -> None:
        super().__init__()
        self._most = most

    def model(self, seed: int) -> Model:
        model = super().model(seed)
        assert isinstance(model, nn.Module)
        model.register_forward_hook(self._look)
        return model

    def _look(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if module.training and len(output) > self._most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Counted(Fit):
    """Fit, whose batches hold 16 examples."""

    COUNTS = "examples"

    def tokens_per_batch(self) -> int:
        return 16


class Troubled(Fit):
    """Fit, whose seeds meet troubles at their fifth batch: "SEED hog", "SEED hog once", "SEED hang", "SEED segfault".

    `note`: a file that remembers the trouble that happens once.
    """

    def __init__(self, *, troubles: list[str], note: str, pause_s: float = 0.0) -> None:
        super().__init__(pause_s=pause_s)
        self._troubles = {int(seed): trouble for seed, trouble in (t.split(" ", 1) for t in troubles)}
        self._note = Path(note)

    def batch(self, seed: int, index: int) -> Batch:
        trouble = self._troubles.get(seed, "") if index == 5 else ""
        if trouble == "hog" or (trouble == "hog once" and not self._note.exists()):
            if trouble == "hog once":
                self._note.touch()
            held = []
            while len(held) < 48:  # 12 GiB at most
                held.append(torch.ones(2**26))
                time.sleep(0.05)
            raise RuntimeError("nobody minded 12 GiB")
        if trouble == "hang":
            ctypes.PyDLL(None).sleep(600)
        if trouble == "segfault":
            ctypes.string_at(0)
        return super().batch(seed, index)


class Odd(Fit):
    """Names its metrics as people do."""

    def evaluate(self, model: Model) -> dict[str, float]:
        return {**super().evaluate(model), "recall@5": 0.5, "recall#5": 0.25, "mAP50(B)": 0.75, "../x": 1.0}


class Seeded(torch.optim.SGD):
    """Has hyperparameters that are called as facts of a trial are."""

    def __init__(self, params: Any, lr: float = 0.1, seed: int = 0, stage: str = "first") -> None:
        super().__init__(params, lr=lr)


class Remembering(torch.optim.SGD):
    """Has in its state what no checkpoint can give back."""

    def __init__(self, params: Any, *, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        for p in self.param_groups[0]["params"]:
            self.state[p]["losses"] = deque([1.0], maxlen=3)


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


class Signed(torch.optim.SGD):
    """SGD on g + sign_weight sign(g): a user's own optimizer, which declares its learning rate and its limit."""

    LEARNING_RATE = "rate"
    LIMITS = (
        Limit(
            equals="sgd",
            at={"sign_weight": 0.0},
            probe={"rate": 0.02},
            other={"lr": 0.02},
            control=Control(name="unsigned", says="sign_weight 0 is SGD", tolerance=1e-6),
        ),
    )

    def __init__(self, params: Any, *, rate: float = 0.1, sign_weight: float = 0.1, momentum: float = 0.9) -> None:
        super().__init__(params, lr=rate, momentum=momentum)
        self.sign_weight = sign_weight

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for p in self.param_groups[0]["params"]:
            p.grad.add_(p.grad.sign(), alpha=self.sign_weight)
        return super().step(closure)


class Slow(torch.optim.SGD):
    """An optimizer with the hyperparameters of a slow preconditioner, for reports."""

    HEAT_MAP = LearnedGeometry.HEAT_MAP
    BOUNDS: ClassVar = LearnedGeometry.BOUNDS

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


class Masked(Task):
    """Label positions in float64, with unequal numbers of masked targets in each row. `draws`: use global generators.

    `stop_in`: raise in the n-th call of the loss, -1 never.
    """

    METRICS: ClassVar = {"loss/val": Metric(goal="minimize", worst=1e4)}

    def __init__(self, *, draws: bool = False, stop_in: int = -1, rows: int = 12, pause_s: float = 0.0) -> None:
        self._pause = pause_s
        self._draws, self.stop_in, self._rows = draws, stop_in, rows

    def model(self, seed: int) -> Model:
        seed_torch(seed)
        return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)).double()

    def batch(self, seed: int, index: int) -> Batch:
        generator = torch.Generator().manual_seed(seed * 100_003 + index)
        x = torch.randn(self._rows, 3, 5, generator=generator, dtype=torch.float64)
        y = torch.randint(4, (self._rows, 3), generator=generator)
        y[torch.rand(self._rows, 3, generator=generator) < 0.4] = -1
        y[0, 0] = 1
        return x, y

    def batch_identity(self, seed: int, index: int) -> bytes:
        return bytes(self.batch(seed, index)[0].numpy().tobytes())

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        if self._pause:
            time.sleep(self._pause)  # sleeping for 0 s takes a millisecond
        self.stop_in -= 1
        if self.stop_in == 0:
            raise InterruptedError("stopped within a step")
        noise = random.random() + np.random.rand() + float(torch.rand(())) if self._draws else 1.0
        return token_loss(outputs, targets) * noise

    def terms(self, targets: Any) -> float:
        return float(token_count(targets))

    def evaluate(self, model: Model) -> dict[str, float]:
        assert isinstance(model, nn.Module)
        x, y = self.batch(10**6, 0)
        with torch.no_grad():
            return {"loss/val": float(token_loss(model(x), y))}


class Mute(Fit):
    """Returns no metric."""

    def __init__(self) -> None:
        super().__init__()

    def evaluate(self, model: Model) -> dict[str, float]:
        return {}


class Talks(Fit):
    """Fit that prints at its third batch in every way there is, and raises then for `fail_seed`."""

    def batch(self, seed: int, index: int) -> Batch:
        if index == 2:
            print(f"python {seed}")
            print(f"python to stderr {seed}", file=sys.stderr)
            os.write(1, f"descriptor {seed}\n".encode())
            subprocess.run(["sh", "-c", f"echo subprocess {seed}; echo subprocess to stderr {seed} >&2"], check=True)
            ctypes.CDLL(None).puts(f"C {seed}".encode())
            warnings.warn(f"warning {seed}", stacklevel=1)
            logging.getLogger("a.task").warning("record %d", seed)
            if seed == self._fail_seed:
                raise RuntimeError("the task is on fire")
        return super().batch(seed, index)
