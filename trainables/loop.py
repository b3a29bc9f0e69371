"""Training to a budget of gradient evaluations, in segments that can be paused and resumed bit for bit.

The loop hands the optimizer a closure and does not count gradients itself: it does not know how many a step takes. The
learning rate follows the share of the budget that is spent, so every optimizer's schedule ends with its budget. How a
gradient is computed (precision, pieces, workers, clipping) is up to the closure, see `trainables.gradient`.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from trainables.gradient import Gradients, modules_of
from trainables.metrics import MEAN_LOSS, numbers
from trainables.ramp import Ramp
from trainables.randomness import random_state, restore_random_state, seed_all, seed_torch
from trainables.recipe import Recipe
from trainables.schedule import factor
from trainables.task_class import Batch, Model, Task
from trainables.weight_average import WeightAverage
from trainables.workers import Workers

DIGEST_BATCHES = 64
TOLERANCE = 1e-9


class Optimizer(Protocol):
    """The loop's requirements for the optimizer."""

    param_groups: list[dict[str, Any]]

    @property
    def grad_evals(self) -> float:
        """Gradient evaluations spent."""

    @property
    def ascending(self) -> bool:
        """Whether the gradient now evaluated only perturbs the weights."""

    @property
    def skipped_steps(self) -> int:
        """Steps not taken because a gradient was not finite."""

    def judged_weights(self) -> AbstractContextManager[None]:
        """Within this context, the parameters hold the weights to be evaluated."""

    def step(self, closure: Callable[[], Any]) -> Any:
        """Take a step and return the loss (games: one loss per player)."""

    def zero_grad(self) -> None:
        """Clear the gradients."""

    def next_cost(self) -> float:
        """Gradient evaluations of the next step."""

    def change(self, **values: float) -> None:
        """Continue with other hyperparameters."""

    def freeze(self) -> None:
        """Stop refreshing."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a `state_dict`."""


Diagnose = Callable[[Model, Any], dict[str, float]]
Build = Callable[[Model, Callable[[Tensor, Any], Tensor], Callable[[int], Batch]], Optimizer]


class Diverged(Exception):  # noqa: N818  a result, not an error
    """The training loss is not finite or exceeds the task's bound. A result, not a failure."""

    def __init__(self, grad_evals: float, loss: float) -> None:
        super().__init__(f"loss {loss} after {grad_evals:g} gradient evaluations")
        self.grad_evals, self.loss = grad_evals, loss


@dataclass(frozen=True, kw_only=True)
class Point:
    """One evaluation."""

    grad_evals: float
    metrics: dict[str, float]


def never() -> bool:
    """Do not pause."""
    return False


class Training:
    """One training run, advanced from evaluation to evaluation.

    `budget` is in gradient evaluations; `evaluations` are spread evenly over it, the last at its end. `build(model,
    loss, refresh)` creates the optimizer; `refresh(index)` returns batches from a stream independent of training.
    `recipe` defaults to the task's. `diagnose(model, optimizer)` returns additional metrics at every
    `diagnose_every`-th evaluation and at the last. `switches`: evaluation -> hyperparameters that change right after
    it; `ramps`: those that follow the share of the budget that is spent. With several `workers` each advances its own
    Training; only worker 0's points carry metrics.
    """

    def __init__(
        self,
        task: Task,
        build: Build,
        *,
        budget: float,
        seed: int,
        evaluations: int = 8,
        recipe: Recipe | None = None,
        workers: Workers | None = None,
        diagnose: Diagnose | None = None,
        diagnose_every: int = 1,
        switches: Mapping[int, Mapping[str, Any]] | None = None,
        ramps: Mapping[str, Ramp] | None = None,
    ) -> None:
        self.task, self._budget, self.seed, self._evaluations = task, budget, seed, evaluations
        self.recipe, self._workers = recipe or task.recipe(), workers or Workers()
        self._diagnose, self._diagnose_every = diagnose, diagnose_every
        self._switches, self._ramps = switches or {}, ramps or {}
        seed_all(seed)
        self.model = _checked(task, task.model(seed))
        self.init_digest = _digest_of_weights(self.model)
        self.data_digest = _digest_of_data(task, seed)
        self.optimizer = build(self.model, task.loss, lambda index: task.refresh_batch(seed, index))
        for group in self.optimizer.param_groups:
            if "lr" in group:
                group.setdefault("initial_lr", group["lr"])
        self._follow_ramps()
        self.gradients = Gradients(task, self.model, self.recipe, self._workers)
        decay = self.recipe.weight_average
        self._averages = [WeightAverage(m, decay) for m in modules_of(self.model)] if decay else []
        self.step, self.finished = 0, False
        self._evaluated, self._loss_sum, self._losses = 0, 0.0, 0
        self._waited = 0.0

    def advance(self, pause: Callable[[], bool] = never) -> Point | None:
        """Train to the next evaluation and return it; None if `pause()` became true between two steps.

        Several workers pause together, after the following step. Raises Diverged.
        """
        began, first = time.perf_counter(), self.step
        self.turn()
        while True:
            if self.due():
                return self.evaluate(time.perf_counter() - began, self.step - first)
            asked = self._workers.pausing if self._workers.size > 1 else pause()
            if asked:
                self._workers.pausing = False
                return None
            self._train_step(pause() if self._workers.size > 1 else False)

    @property
    def pieces(self) -> int | None:
        """The number of pieces per batch if it is determined during training (`accumulate: auto`), otherwise None."""
        return self.gradients.count if self.gradients.auto else None

    def due(self) -> bool:
        """Whether an evaluation is due: at its point, or at the end of the budget."""
        self._follow_ramps()
        self.finished = not self._affordable()
        return self.finished or self.optimizer.grad_evals >= self.next_evaluation

    @property
    def next_evaluation(self) -> float:
        """Gradient evaluations at which the next evaluation is due, unless the budget ends earlier."""
        return (self._evaluated + 1) / self._evaluations * self._budget - TOLERANCE

    @property
    def left(self) -> float:
        """Gradient evaluations left in the budget."""
        return self._budget - self.optimizer.grad_evals + TOLERANCE

    def state(self) -> dict[str, Any]:
        """Everything needed to resume: tensors, numbers and text."""
        return {
            "models": [m.state_dict() for m in modules_of(self.model)],
            "averages": [a.state_dict() for a in self._averages],
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "finished": self.finished,
            "evaluated": self._evaluated,
            "loss_sum": self._loss_sum,
            "losses": self._losses,
            "random": random_state(),
            "gradients": self.gradients.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore `state()`."""
        for module, saved in zip(modules_of(self.model), state["models"], strict=True):
            module.load_state_dict(saved)
        for average, saved in zip(self._averages, state["averages"], strict=True):
            average.load_state_dict(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.finished = state["step"], state["finished"]
        self._evaluated, self._loss_sum, self._losses = state["evaluated"], state["loss_sum"], state["losses"]
        restore_random_state(state["random"])
        self.gradients.load(state.get("gradients", {}))

    def turn(self) -> None:
        """Apply the changes due after the last evaluation; idempotent, so before and after a resume counts once."""
        new = self._switches.get(self._evaluated, {})
        for group in self.optimizer.param_groups:
            if "lr" in new and "initial_lr" in group:  # a group with its own peak keeps it
                group["lr"] = group["initial_lr"]
        self.optimizer.change(**new)
        for group in self.optimizer.param_groups:
            if "lr" in new:
                group["initial_lr"] = group["lr"]

    def _follow_ramps(self) -> None:
        """Called before the cost of the next step is requested: a refresh interval may be among the ramps."""
        if self._ramps:
            self.optimizer.change(**self.ramped(self.optimizer.grad_evals))

    def ramped(self, grad_evals: float) -> dict[str, float]:
        """Values of the hyperparameters that follow the budget after `grad_evals`."""
        return {name: ramp.at(grad_evals / self._budget) for name, ramp in self._ramps.items()}

    def rate(self, grad_evals: float) -> float:
        """The learning rate after `grad_evals`, relative to its peak."""
        recipe = self.recipe
        return factor(recipe.schedule, grad_evals / self._budget, recipe.warmup, recipe.final_lr)

    def _affordable(self) -> bool:
        if self.optimizer.next_cost() <= self.left:
            return True
        self.optimizer.freeze()
        return self.optimizer.next_cost() <= self.left

    def _train_step(self, pause: bool = False) -> None:
        share = self.rate(self.optimizer.grad_evals)
        for group in self.optimizer.param_groups:
            if "initial_lr" in group:
                group["lr"] = group["initial_lr"] * share
        asked = time.perf_counter()
        batch, noise = self.task.batch(self.seed, self.step), _mix(self.seed, self.step, self._workers.rank)
        self._waited += time.perf_counter() - asked
        losses = self.optimizer.step(self.gradients.closure(batch, self.optimizer, noise, pause))
        values = [
            float(x.detach()) if isinstance(x, Tensor) else float(x)
            for x in (losses if isinstance(losses, list | tuple) else [losses])
        ]
        self.step += 1
        self.check(values)
        if self._averages:
            for average, module in zip(self._averages, modules_of(self.model), strict=True):
                average.update(module)
        self.count(values[0], 1)

    def check(self, losses: Sequence[float]) -> None:
        """Raises Diverged if the losses indicate it."""
        if not all(math.isfinite(v) and abs(v) <= self.task.divergence_loss for v in losses):
            raise Diverged(self.optimizer.grad_evals, losses[0])

    def count(self, losses: float, steps: int) -> None:
        """Add the losses of `steps` steps to the mean shown by the next evaluation."""
        self._loss_sum += losses
        self._losses += steps

    def replay_noise(self) -> None:
        """Set torch's generators to their state after the latest step, if a pack took it."""
        if self.step:
            seed_torch(_mix(self.seed, self.step - 1, self._workers.rank))

    def evaluate(self, seconds: float, steps: int, scores: Mapping[str, float] | None = None) -> Point:
        """The evaluation that is due, after this many steps in this many seconds. `scores`: the task's metrics, if
        they are known.
        """
        self._evaluated += 1
        for module in modules_of(self.model):
            self._workers.meet(module)
        if scores is None:
            metrics = self.measure() if self._workers.rank == 0 else {}
        else:
            metrics = numbers(scores, type(self.task).__name__)
        if self._losses:
            metrics[MEAN_LOSS] = self._loss_sum / self._losses
        if steps:
            metrics["time/step_s"] = seconds / steps
            if self.task.readers:
                metrics["time/data_s"] = self._waited / steps
        self._waited = 0.0
        metrics["cost/grad_evals"] = self.optimizer.grad_evals
        metrics["cost/steps"] = float(self.step)
        if self.pieces is not None:
            metrics["cost/pieces"] = float(self.pieces)
        if self.optimizer.skipped_steps:
            metrics["cost/skipped_steps"] = float(self.optimizer.skipped_steps)
        self._loss_sum, self._losses = 0.0, 0
        return Point(grad_evals=self.optimizer.grad_evals, metrics=metrics)

    def measure(self) -> dict[str, float]:
        """The task's metrics, of the averaged weights if there are any; diagnostics always see the weights being
        trained.
        """
        averaged = self._averages and self.step
        found = [a.model for a in self._averages] if averaged else modules_of(self.model)
        modes = [m.training for m in found]
        for m in found:
            m.eval()
        game = isinstance(self.model, list)
        judged = nullcontext() if averaged else self.optimizer.judged_weights()
        with judged, torch.set_grad_enabled(game):  # for games, distance from equilibrium is measured by gradients
            metrics = numbers(self.task.evaluate(found if game else found[0]), type(self.task).__name__)
        for m, mode in zip(found, modes, strict=True):
            m.train(mode)
        if self._diagnose and (self.finished or self._evaluated % self._diagnose_every == 0):
            metrics.update(self._diagnose(self.model, self.optimizer))
        return metrics


def _mix(seed: int, step: int, rank: int) -> int:
    """The seed of dropout in a step: the same in every pass and after a resume, different for each worker."""
    key = f"{seed}/{step}/{rank}" if rank else f"{seed}/{step}"
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "big")


def _checked(task: Task, model: Any) -> Model:
    """The result of `task.model`. Raises TypeError if it is not a module, ValueError if there is nothing to train."""
    for module in modules_of(model):
        if not isinstance(module, torch.nn.Module):
            given = "None" if module is None else f"a {type(module).__name__}"
            raise TypeError(f"model of task {type(task).__name__} returned {given}; return a torch.nn.Module")
    if not any(True for module in modules_of(model) for _ in module.parameters()):
        raise ValueError(f"model of task {type(task).__name__} has no parameters, so there is nothing to train")
    return cast(Model, model)


def _digest_of_weights(model: Model) -> str:
    digest = hashlib.sha256()
    for module in modules_of(model):
        for name, tensor in module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _digest_of_data(task: Task, seed: int) -> str:
    digest = hashlib.sha256()
    for index in range(DIGEST_BATCHES):
        identity = task.batch_identity(seed, index)
        try:
            digest.update(identity)
        except (TypeError, ValueError, BufferError):
            short = "None" if identity is None else f"a {type(identity).__name__}"
            said = f"batch_identity of task {type(task).__name__} returned {short}; return bytes"
            raise TypeError(said) from None
    return digest.hexdigest()[:16]
