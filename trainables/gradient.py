"""The closure of one training step: one gradient of one nominal batch, however it is computed.

With pieces B_i of the batch (cut by accumulation and by workers) and n_i the number of terms in the mean loss of each,

    g = sum_i n_i grad L(B_i) / sum_i n_i

is the gradient of the whole batch, also where a mask leaves unequal numbers of terms. Every optimizer then works as in
one process on one batch: it never learns of pieces, workers or precision. BatchNorm alone sees the pieces, as always.

Only the gradient that moves the weights is clipped. One that merely says where to look next, SAM's first, is marked by
the optimizer (`ascending`) and left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from trainables.randomness import seed_torch
from trainables.recipe import Recipe
from trainables.task_class import Batch, Model, Task
from trainables.workers import Workers


class Stepper(Protocol):
    """What the closure asks of the optimizer."""

    @property
    def ascending(self) -> bool:
        """Whether the gradient now evaluated only perturbs the weights."""

    def zero_grad(self) -> None:
        """Clear the gradients."""


class Gradients:
    """Makes closures for one model.

    Raises ValueError when the task computes its gradient itself (games) and the recipe or workers want a say in it.
    """

    def __init__(self, task: Task, model: Model, recipe: Recipe, workers: Workers) -> None:
        self._task, self._model, self._recipe, self._workers = task, model, recipe, workers
        self._own = type(task).closure is not Task.closure
        if self._own:
            task.check_recipe(recipe)
            if workers.size > 1:
                raise ValueError(f"{type(task).__name__} computes its gradient itself, in one process only")
            return
        assert isinstance(model, nn.Module)
        self._params = [p for p in model.parameters() if p.requires_grad]
        self._device = self._params[0].device.type
        wrapped = workers.wrap(model)
        self._forward: Callable[[Any], Any] = torch.compile(wrapped) if recipe.compile else wrapped

    def closure(self, batch: Batch, optimizer: Stepper, noise: int, pause: bool = False) -> Callable[[], Any]:
        """The closure for `batch`; each call draws the same dropout, from `noise`, so in every pass of a step.

        `pause` is this worker's wish to stop after the step; the workers learn of each other's with the loss.
        """
        if self._own:
            own = self._task.closure(self._model, batch, optimizer.zero_grad)

            def replay() -> Any:
                seed_torch(noise)
                return own()

            return replay
        pieces = list(self._pieces(batch))

        def evaluate() -> Tensor:
            seed_torch(noise)
            optimizer.zero_grad()
            loss = self._whole(*pieces[0]) if self._alone(pieces) else self._parts(pieces, pause)
            if self._recipe.clip_norm and not optimizer.ascending:
                torch.nn.utils.clip_grad_norm_(self._params, self._recipe.clip_norm, foreach=True)
            return loss

        return evaluate

    def _alone(self, pieces: list[tuple[Any, Any]]) -> bool:
        return len(pieces) == 1 and self._workers.size == 1

    def _pieces(self, batch: Batch) -> Iterator[tuple[Any, Any]]:
        """The part of this worker of the batch, cut once more for accumulation."""
        inputs, targets = batch
        count, size = self._recipe.accumulate, self._workers.size
        if count * size == 1:
            yield inputs, targets
            return
        rows = len(tree_leaves(inputs)[0])
        if rows < count * size:
            raise ValueError(f"accumulate is {count} with {size} workers, but a batch has {rows} rows only")
        for i in range(self._workers.rank * count, (self._workers.rank + 1) * count):
            yield tuple(tree_map(lambda x, i=i: x.tensor_split(count * size)[i], part) for part in (inputs, targets))  # type: ignore[misc]

    def _loss(self, inputs: Any, targets: Any) -> Tensor:
        if self._recipe.precision == "fp32":
            return self._task.loss(self._forward(inputs), targets)
        with torch.autocast(self._device, dtype=torch.bfloat16):
            outputs = self._forward(inputs)
        return self._task.loss(tree_map(_widen, outputs), targets)

    def _whole(self, inputs: Any, targets: Any) -> Tensor:
        loss = self._loss(inputs, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def _parts(self, pieces: list[tuple[Any, Any]], pause: bool) -> Tensor:
        losses, weights = [], []
        for i, (inputs, targets) in enumerate(pieces):
            weights.append(self._task.terms(targets))
            with self._workers.exchange(when=i == len(pieces) - 1):
                loss = self._loss(inputs, targets) * weights[i]
                loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        summed, terms = self._workers.total(torch.stack(losses).sum(), sum(weights), pause)
        terms = terms or 1.0  # everything is masked: a gradient of zero
        found = [p.grad for p in self._params if p.grad is not None]
        torch._foreach_mul_(found, self._workers.size / terms)  # what the workers exchange is a mean
        return summed / terms


def _widen(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x


def modules_of(model: Model) -> list[nn.Module]:
    """The model, or its players, as a list."""
    return model if isinstance(model, list) else [model]
