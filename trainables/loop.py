"""Training to a budget of gradient evaluations, in pieces that can be paused and resumed bit for bit.

The loop hands the optimizer a closure and counts nothing itself: it does not know how many gradients a step takes. The
learning rate follows the share of the budget that is spent, so every optimizer's schedule ends when its budget ends.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainables.task import Batch, Model, Task

DIGEST_BATCHES = 64
TOLERANCE = 1e-9


class Optimizer(Protocol):
    """What the loop needs of an optimizer."""

    param_groups: list[dict[str, Any]]

    @property
    def grad_evals(self) -> float:
        """Gradient evaluations spent."""

    def step(self, closure: Callable[[], Any]) -> Any:
        """Take a step, return the loss (games: one loss per player)."""

    def zero_grad(self) -> None:
        """Clear the gradients."""

    def next_cost(self) -> float:
        """Gradient evaluations of the next step."""

    def freeze(self) -> None:
        """Stop refreshing."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from them."""


Diagnose = Callable[[Model, Any], dict[str, float]]
Build = Callable[[Model, Callable[[Tensor, Any], Tensor], Callable[[int], Batch]], Optimizer]


class Diverged(Exception):  # noqa: N818  a result, not an error
    """The training loss is not finite or above the task's bound. A result, not a failure."""

    def __init__(self, grad_evals: float, loss: float) -> None:
        super().__init__(f"loss {loss} after {grad_evals:g} gradient evaluations")
        self.grad_evals, self.loss = grad_evals, loss


@dataclass(frozen=True, kw_only=True)
class Point:
    """One evaluation."""

    grad_evals: float
    metrics: dict[str, float]


def factor(schedule: str, progress: float, warmup: float) -> float:
    """Learning rate as a share of its peak, at `progress` in [0, 1] of the budget; linear warm-up over `warmup`."""
    if progress < warmup:
        return max(progress, 1e-3) / warmup
    rest = (progress - warmup) / (1 - warmup)
    shapes: dict[str, Callable[[float], float]] = {
        "constant": lambda x: 1.0,
        "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
        "linear": lambda x: 1 - x,
        "step": lambda x: 0.1 ** sum(x >= at for at in (0.3, 0.7, 0.9)),
        "inverse_sqrt": lambda x: math.sqrt(warmup / progress) if warmup else 1 / math.sqrt(1 + 99 * x),
    }
    return float(shapes[schedule](rest))


def never() -> bool:
    """Do not pause."""
    return False


class Training:
    """One training run, advanced from evaluation to evaluation.

    `budget` in gradient evaluations; `evaluations` are spread evenly over it, the last at its end. `build(model, loss,
    refresh)` makes the optimizer; `refresh(index)` gives batches of a stream that training does not touch.
    `diagnose(model, optimizer)` gives further metrics at every `diagnose_every`-th evaluation and at the last.
    """

    def __init__(
        self,
        task: Task,
        build: Build,
        *,
        budget: float,
        seed: int,
        evaluations: int = 8,
        schedule: str | None = None,
        warmup: float = 0.0,
        diagnose: Diagnose | None = None,
        diagnose_every: int = 1,
    ) -> None:
        self._task, self._budget, self._seed, self._evaluations = task, budget, seed, evaluations
        self._schedule, self._warmup = schedule or task.SCHEDULE, warmup
        self._diagnose, self._diagnose_every = diagnose, diagnose_every
        self.model = task.model(seed)
        self.init_digest = _digest_of_weights(self.model)
        self.data_digest = _digest_of_data(task, seed)
        self.optimizer = build(self.model, task.loss, lambda index: task.refresh_batch(seed, index))
        for group in self.optimizer.param_groups:
            if "lr" in group:
                group.setdefault("initial_lr", group["lr"])
        self.step, self.finished = 0, False
        self._evaluated, self._loss_sum, self._losses = 0, 0.0, 0

    def advance(self, pause: Callable[[], bool] = never) -> Point | None:
        """Train to the next evaluation and return it; None when `pause()` turned true between two steps.

        Raises Diverged.
        """
        began, first = time.perf_counter(), self.step
        while True:
            if not self._affordable():
                self.finished = True
                return self._evaluate(began, first)
            if self.optimizer.grad_evals >= (self._evaluated + 1) / self._evaluations * self._budget - TOLERANCE:
                return self._evaluate(began, first)
            if pause():
                return None
            self._train_step()

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs: tensors, numbers and text."""
        return {
            "models": [m.state_dict() for m in _modules(self.model)],
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "finished": self.finished,
            "evaluated": self._evaluated,
            "loss_sum": self._loss_sum,
            "losses": self._losses,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        for module, saved in zip(_modules(self.model), state["models"], strict=True):
            module.load_state_dict(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.finished = state["step"], state["finished"]
        self._evaluated, self._loss_sum, self._losses = state["evaluated"], state["loss_sum"], state["losses"]

    def _affordable(self) -> bool:
        left = self._budget - self.optimizer.grad_evals + TOLERANCE
        if self.optimizer.next_cost() > left:
            self.optimizer.freeze()
        return self.optimizer.next_cost() <= left

    def _train_step(self) -> None:
        share = factor(self._schedule, self.optimizer.grad_evals / self._budget, self._warmup)
        for group in self.optimizer.param_groups:
            if "initial_lr" in group:
                group["lr"] = group["initial_lr"] * share
        closure = self._task.closure(self.model, self._task.batch(self._seed, self.step), self.optimizer.zero_grad)
        noise = _mix(self._seed, self.step)

        def evaluate() -> Any:
            torch.manual_seed(noise)  # the same dropout in every pass of a step, and after a resume
            return closure()

        losses = self.optimizer.step(evaluate)
        values = [
            float(x.detach()) if isinstance(x, Tensor) else float(x)
            for x in (losses if isinstance(losses, list | tuple) else [losses])
        ]
        self.step += 1
        if not all(math.isfinite(v) and abs(v) <= self._task.divergence_loss for v in values):
            raise Diverged(self.optimizer.grad_evals, values[0])
        self._loss_sum += values[0]
        self._losses += 1

    def _evaluate(self, began: float, first: int) -> Point:
        seconds, steps = time.perf_counter() - began, self.step - first
        modules = _modules(self.model)
        modes = [m.training for m in modules]
        for m in modules:
            m.eval()
        metrics = self._task.evaluate(self.model)
        for m, mode in zip(modules, modes, strict=True):
            m.train(mode)
        self._evaluated += 1
        if self._diagnose and (self.finished or self._evaluated % self._diagnose_every == 0):
            metrics.update(self._diagnose(self.model, self.optimizer))
        if self._losses:
            metrics["loss/train"] = self._loss_sum / self._losses
        if steps:
            metrics["time/step_s"] = seconds / steps
        metrics["cost/grad_evals"] = self.optimizer.grad_evals
        self._loss_sum, self._losses = 0.0, 0
        return Point(grad_evals=self.optimizer.grad_evals, metrics=metrics)


def _modules(model: Model) -> list[nn.Module]:
    return model if isinstance(model, list) else [model]


def _mix(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=7).digest(), "big")


def _digest_of_weights(model: Model) -> str:
    digest = hashlib.sha256()
    for module in _modules(model):
        for name, tensor in module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _digest_of_data(task: Task, seed: int) -> str:
    digest = hashlib.sha256()
    for index in range(DIGEST_BATCHES):
        digest.update(task.batch_identity(seed, index))
    return digest.hexdigest()[:16]
