"""Tasks and an optimizer that break when they are first asked for something: what is refused before a run."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optim_core import Counting
from tests.tasks import Fit
from trainables import Batch, Model, Task


class Lost(Fit):
    """Fit that no longer says which batch it shows."""

    batch_identity = Task.batch_identity


class Fragile(Fit):
    """Fit that breaks where it is told to: in `model`, `batch`, `loss`, `evaluate`, at a `width` of 3; or `waits`.

    `data`: a file that the constructor reads; `later`: one that each batch reads. `silent`: without its metric.
    """

    def __init__(
        self, *, breaks: str = "", data: str = "", later: str = "", width: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__(width=width, dropout=dropout)
        self._breaks, self._later, self._width = breaks, later, width
        if data:
            Path(data).read_text()

    def _break(self, here: str) -> None:
        if self._breaks == here:
            raise RuntimeError("nothing\ngoes any more")
        if self._breaks == f"{here} waits":
            time.sleep(600)

    def model(self, seed: int) -> Model:
        self._break("model")
        if self._breaks == "model missing":
            return None  # type: ignore[return-value]
        if self._width == 3:
            raise ArithmeticError("odd")
        print("a model")
        return super().model(seed)

    def batch(self, seed: int, index: int) -> Batch:
        self._break("batch")
        if self._breaks == "batch tries again":
            with suppress(BaseException):
                time.sleep(600)
            time.sleep(600)
        if self._later:
            Path(self._later).read_text()
        if self._breaks == "batch drawn anew":
            return super().batch(int(torch.randint(1_000, ())), index)
        return super().batch(seed, index)

    def batch_identity(self, seed: int, index: int) -> bytes:
        if self._breaks == "identity as text":
            return "abc"  # type: ignore[return-value]
        return super().batch_identity(seed, index)

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        self._break("loss")
        return super().loss(outputs, targets)

    def evaluate(self, model: Model) -> dict[str, float]:
        self._break("evaluate")
        if self._breaks == "shadows":
            return {**super().evaluate(model), "loss/train": 1.0}
        return {"loss/vall": 1.0} if self._breaks == "silent" else super().evaluate(model)


class Picky(torch.optim.SGD):
    """Takes no step of the kind `bad`, and none of the kind `odd` with a beta above 0.5."""

    def __init__(self, params: Any, *, lr: float = 0.1, beta: float = 0.1, kind: str = "good") -> None:
        super().__init__(params, lr=lr)
        self.beta, self.kind = beta, kind

    def step(self, closure: Any = None) -> Any:
        if self.kind == "bad" or (self.kind == "odd" and self.beta > 0.5):
            raise RuntimeError(f"no step of this {'kind' if self.kind == 'bad' else 'sort'}")
        return super().step(closure)


class Whole(torch.optim.SGD):
    """Counts its steps, in integers only."""

    def __init__(self, params: Any, lr: float = 0.1, every: int = 3) -> None:
        super().__init__(params, lr=lr)
        range(every)


class Undeclared(torch.optim.SGD):
    """The same, without saying so."""

    def __init__(self, params: Any, lr: float = 0.1, every: Any = 3) -> None:
        super().__init__(params, lr=lr)
        range(every)


class Search(Counting):
    """Gradient descent that takes further gradients at some steps: `at` (from 0), `passes` in all."""

    def __init__(self, params: Any, *, lr: float = 0.01, at: int = 3, passes: int = 3) -> None:
        super().__init__(params, {"lr": lr})
        self.also(at=at, passes=passes, taken=0)

    def step(self, closure: Any = None) -> Any:
        loss = self.evaluate(closure)
        group = self.param_groups[0]
        for _ in range(group["passes"] - 1 if group["taken"] == group["at"] else 0):
            loss = self.evaluate(closure)
        group["taken"] += 1
        with torch.no_grad():
            for p in group["params"]:
                p.sub_(p.grad, alpha=group["lr"])
        return loss


class Declared(Search):
    """The same, with the most that a step can take."""

    GRAD_EVALS = 3.0


class Wrong(Search):
    """The same, with a declaration of its own that is too low."""

    def next_cost(self) -> float:
        return 2.0
