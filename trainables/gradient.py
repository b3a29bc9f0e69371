"""The closure of one training step: one gradient of one nominal batch, however it is computed.

With pieces B_i of the batch (cut by accumulation and by workers) and n_i the number of terms in the mean loss of each,

    g = sum_i n_i grad L(B_i) / sum_i n_i

is the gradient of the whole batch, even if a mask leaves unequal numbers of terms. So every optimizer works as in one
process on one batch: pieces, workers and precision are hidden from it. Only BatchNorm sees the pieces, as always.

With `accumulate: auto` a gradient that runs out of device memory is recomputed in twice as many pieces, with the same
dropout and buffers, and so are all later ones: for the optimizer it is one evaluation.

Only the gradient that moves the weights is clipped. One that only determines where to evaluate next, such as SAM's
first, is marked by the optimizer (`ascending`) and not clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from trainables.precision import Precision
from trainables.randomness import seed_torch
from trainables.recipe import AUTO, Recipe
from trainables.task_class import Batch, Model, Task
from trainables.workers import Workers


class Stepper(Protocol):
    """The closure's requirements for the optimizer."""

    @property
    def ascending(self) -> bool:
        """Whether the gradient now evaluated only perturbs the weights."""

    def zero_grad(self) -> None:
        """Clear the gradients."""


class Gradients:
    """Creates closures for one model.

    Raises ValueError if the task computes its gradient itself (games) and the recipe or workers would change it, and
    for `accumulate: auto` with several workers: one that ran out of memory would leave the others waiting.
    """

    def __init__(self, task: Task, model: Model, recipe: Recipe, workers: Workers) -> None:
        self._task, self._model, self._recipe, self._workers = task, model, recipe, workers
        self._own = type(task).closure is not Task.closure
        self.auto = recipe.accumulate == AUTO
        """Whether the number of pieces is determined during training."""
        self.count = 1 if self.auto else int(recipe.accumulate)
        """Pieces per batch, for each worker."""
        if self._own:
            task.check_recipe(recipe)
            if workers.size > 1:
                raise ValueError(f"{type(task).__name__} computes its gradient itself, in one process only")
            return
        if self.auto and workers.size > 1:
            raise ValueError(f"accumulate is auto with {workers.size} workers; it is found in one process only")
        assert isinstance(model, nn.Module)
        self._params = [p for p in model.parameters() if p.requires_grad]
        self._buffers = list(model.buffers()) if self.auto else []
        self.precision = Precision(recipe.precision, self._params)
        self._forward: Callable[[Any], Any] = workers.wrap(model)
        self._loss: Callable[[Any, Any], Tensor] = self._plain_loss
        if recipe.compile == "step":
            self._loss = torch.compile(self._plain_loss)
        elif recipe.compile:
            self._forward = torch.compile(self._forward)

    def state(self) -> dict[str, Any]:
        """State determined during training: the number of pieces, the scale of the loss."""
        return {} if self._own else {"pieces": self.count, "precision": self.precision.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Restore `state()`; an empty one, from an earlier version, means the initial state."""
        if state and not self._own:
            self.count = state["pieces"] if self.auto else self.count
            self.precision.load(state["precision"])

    def closure(self, batch: Batch, optimizer: Stepper, noise: int, pause: bool = False) -> Callable[[], Any]:
        """The closure for `batch`; each call draws the same dropout from `noise`, and so in every pass of a step.

        `pause` is this worker's request to stop after the step; workers exchange these with the loss.
        """
        if self._own:
            own = self._task.closure(self._model, batch, optimizer.zero_grad)

            def replay() -> Any:
                seed_torch(noise)
                return own()

            return replay

        def evaluate() -> Tensor:
            kept = [x.clone() for x in self._buffers]
            while (loss := self._tried(batch, optimizer, noise, pause)) is None:
                for buffer, before in zip(self._buffers, kept, strict=True):
                    buffer.copy_(before)
            self.precision.settle()
            if self._recipe.clip_norm and not optimizer.ascending:
                torch.nn.utils.clip_grad_norm_(self._params, self._recipe.clip_norm, foreach=True)
            return loss

        return evaluate

    def _tried(self, batch: Batch, optimizer: Stepper, noise: int, pause: bool) -> Tensor | None:
        """The loss, with its gradient in the parameters; None if memory ran out and another attempt is possible."""
        pieces = list(self._pieces(batch))
        seed_torch(noise)
        optimizer.zero_grad()
        try:
            with self.precision.passes():
                return self._whole(*pieces[0]) if self._alone(pieces) else self._parts(pieces, pause)
        except torch.OutOfMemoryError:
            rows = len(tree_leaves(batch[0])[0])
            if not self.auto or self.count >= rows:
                raise
            self.count = min(2 * self.count, rows)
        optimizer.zero_grad()  # done here, where no traceback holds the activations any longer
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
        return None

    def _alone(self, pieces: list[tuple[Any, Any]]) -> bool:
        return len(pieces) == 1 and self._workers.size == 1

    def _pieces(self, batch: Batch) -> Iterator[tuple[Any, Any]]:
        """Pieces of this worker's part of the batch, split again for accumulation."""
        inputs, targets = batch
        count, size = self.count, self._workers.size
        if count * size == 1:
            yield inputs, targets
            return
        rows = len(tree_leaves(inputs)[0])
        if self.auto:
            count = min(count, rows)
        if rows < count * size:
            raise ValueError(f"accumulate is {count} with {size} workers, but a batch has {rows} rows only")
        for i in range(self._workers.rank * count, (self._workers.rank + 1) * count):
            yield (
                tuple(tree_map(lambda x, i=i: x.tensor_split(count * size)[i], part) for part in (inputs, targets))  # type: ignore[misc]
            )

    def _plain_loss(self, inputs: Any, targets: Any) -> Tensor:
        with self.precision.forward():
            outputs = self._forward(inputs)
        return self._task.loss(tree_map(self.precision.widened, outputs), targets)

    def _whole(self, inputs: Any, targets: Any) -> Tensor:
        loss = self._loss(inputs, targets)
        self.precision.scaled(loss).backward()  # type: ignore[no-untyped-call]
        return loss

    def _parts(self, pieces: list[tuple[Any, Any]], pause: bool) -> Tensor:
        weights = [self._task.terms(targets) for _, targets in pieces]
        unit = sum(weights) / self._workers.size if self.precision.scales else 1.0  # a sum may overflow float16
        unit = unit or 1.0
        losses = []
        for i, (inputs, targets) in enumerate(pieces):
            with self._workers.exchange(when=i == len(pieces) - 1):
                loss = self._loss(inputs, targets) * (weights[i] / unit)
                self.precision.scaled(loss).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        summed, terms = self._workers.total(torch.stack(losses).sum() * unit, sum(weights), pause)
        terms = terms or 1.0  # everything is masked: the gradient is zero
        found = [p.grad for p in self._params if p.grad is not None]
        torch._foreach_mul_(found, self._workers.size * unit / terms)  # the workers exchange a mean
        return summed / terms


def modules_of(model: Model) -> list[nn.Module]:
    """The model, or its players, as a list."""
    return model if isinstance(model, list) else [model]
