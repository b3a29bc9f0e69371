"""A pack: several trials of one arm, stepped at once. An experiment of the benches, no part of the package.

Weights, buffers and the optimizer's state of K trials are stacked, [K, ...] each; `torch.vmap` runs the model on
[K, batch, ...], and one backward pass of the sum of the K losses gives each trial its own gradient, because no loss
depends on another's weights. Linear layers become batched matrix products, convolutions grouped ones. The updates of
sgd, adamw and sam are written out here with a learning rate for each trial. Batches, schedule, clipping, the check for
divergence and the evaluation are those of `trainables.loop`, for each trial its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

import optim_core
from trainables.loop import Training
from trainables.schedule import factor
from trainables.task_class import Task

MOMENTUM, RADIUS = 0.9, 0.05
BETA1, BETA2, EPS, DECAY = 0.9, 0.999, 1e-8, 1e-2
COST = {"sgd": 1, "adamw": 1, "sam": 2}
"""Gradient evaluations of a step, for each optimizer that can be packed here."""


def apart(task: Task, optimizer: str, lr: float, seed: int, steps: int) -> Training:
    """The same trial in the package's own loop, evaluated once, at its end."""
    return Training(
        task,
        lambda model, loss, refresh: optim_core.build(optimizer, model, lr=lr),
        budget=steps * COST[optimizer],
        seed=seed,
        evaluations=1,
    )


class Pack:
    """K trials: a learning rate, a seed and a task object for each, of equal models and batch sizes.

    A task object for each, since tasks keep what belongs to the seed last asked for. Trials that all have one seed, as
    those that tune an arm have, share initial weights and every batch, which is then made once and not stacked.
    """

    def __init__(
        self, make: Callable[[], Task], optimizer: str, lrs: Sequence[float], seeds: Sequence[int], steps: int
    ) -> None:
        self._tasks, self._seeds = [make() for _ in seeds], seeds
        self._optimizer, self._steps, self._step = optimizer, steps, 0
        models: Any = [task.model(seed) for task, seed in zip(self._tasks, seeds, strict=True)]
        self.params, self._buffers = stack_module_state(models)
        self._leaves = [p.requires_grad_() for p in self.params.values()]
        self._skeleton = copy.deepcopy(models[0]).to("meta")
        self._single: nn.Module = models[0]
        self._lrs = torch.tensor(lrs, device=self._leaves[0].device)
        self._first = [torch.zeros_like(p) for p in self._leaves]
        self._second = [torch.zeros_like(p) for p in self._leaves] if optimizer == "adamw" else []
        self._shared = len(set(seeds)) == 1
        data = None if self._shared else 0
        self._losses = torch.vmap(self._loss, in_dims=(0, 0, data, data))
        self._recipe = self._tasks[0].recipe()
        self._summed = [0.0] * len(seeds)

    def run(self) -> list[dict[str, float]]:
        """Train to the end; each trial's metrics."""
        for _ in range(self._steps):
            self.step()
        return [self.evaluate(k) for k in range(len(self._seeds))]

    def step(self) -> None:
        """One step of every trial."""
        recipe = self._recipe
        share = factor(recipe.schedule, self._step / self._steps, recipe.warmup, recipe.final_lr)
        inputs, targets = self._batch()
        losses, grads = self._gradients(inputs, targets, self._buffers)
        with torch.no_grad():
            if self._optimizer == "sam":
                grads = self._uphill(inputs, targets, grads)
            if recipe.clip_norm:
                scales = (recipe.clip_norm / (_norms(grads) + 1e-6)).clamp(max=1.0)
                torch._foreach_mul_(grads, _shaped(scales, grads))
            (self._adamw if self._optimizer == "adamw" else self._sgd)(grads, self._lrs * share)
        self._step += 1
        for k, loss in enumerate(losses.tolist()):
            if not math.isfinite(loss) or abs(loss) > self._tasks[k].divergence_loss:
                raise ArithmeticError(f"trial {k} diverged at step {self._step}: loss {loss}")
            self._summed[k] += loss

    def evaluate(self, k: int) -> dict[str, float]:
        """The task's own evaluation of trial `k`."""
        self._single.load_state_dict(self.weights(k))
        self._single.eval()
        with torch.no_grad():
            return {**self._tasks[k].evaluate(self._single), "loss/train": self._summed[k] / self._step}

    def weights(self, k: int) -> dict[str, Tensor]:
        """The state of trial `k`'s model."""
        return {name: stack.detach()[k] for name, stack in (self.params | self._buffers).items()}

    def _batch(self) -> tuple[Tensor, Tensor]:
        if self._shared:
            inputs, targets = self._tasks[0].batch(self._seeds[0], self._step)
            return inputs, targets
        drawn = [task.batch(seed, self._step) for task, seed in zip(self._tasks, self._seeds, strict=True)]
        return torch.stack([inputs for inputs, _ in drawn]), torch.stack([targets for _, targets in drawn])

    def _loss(self, params: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return self._tasks[0].loss(functional_call(self._skeleton, (params, buffers), (inputs,)), targets)

    def _gradients(self, inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Losses [K] and the gradients of all, stacked as the weights are."""
        with torch.enable_grad():
            losses = self._losses(self.params, buffers, inputs, targets)
            return losses.detach(), list(torch.autograd.grad(losses.sum(), self._leaves))

    def _uphill(self, inputs: Tensor, targets: Tensor, grads: list[Tensor]) -> list[Tensor]:
        """SAM's second gradient; BatchNorm's statistics are the first pass's."""
        home = [p.detach().clone() for p in self._leaves]
        torch._foreach_add_(self._leaves, torch._foreach_mul(grads, _shaped(RADIUS / _norms(grads), grads)))
        found = self._gradients(inputs, targets, {name: b.clone() for name, b in self._buffers.items()})[1]
        torch._foreach_copy_(self._leaves, home)
        return found

    def _sgd(self, grads: list[Tensor], lrs: Tensor) -> None:
        torch._foreach_mul_(self._first, MOMENTUM)
        torch._foreach_add_(self._first, grads)
        torch._foreach_addcmul_(self._leaves, self._first, _shaped(-lrs, grads))

    def _adamw(self, grads: list[Tensor], lrs: Tensor) -> None:
        t = self._step + 1
        torch._foreach_mul_(self._leaves, _shaped(1 - lrs * DECAY, grads))
        torch._foreach_lerp_(self._first, grads, 1 - BETA1)
        torch._foreach_mul_(self._second, BETA2)
        torch._foreach_addcmul_(self._second, grads, grads, 1 - BETA2)
        roots = torch._foreach_sqrt(self._second)
        torch._foreach_div_(roots, math.sqrt(1 - BETA2**t))
        torch._foreach_add_(roots, EPS)
        steps = torch._foreach_div(self._first, roots)
        torch._foreach_addcmul_(self._leaves, steps, _shaped(-lrs / (1 - BETA1**t), grads))


def _shaped(values: Tensor, like: list[Tensor]) -> list[Tensor]:
    """Values [K] as [K, 1, ...] for each tensor."""
    return [values.view(-1, *(1,) * (x.dim() - 1)) for x in like]


def _norms(grads: list[Tensor]) -> Tensor:
    """[K]: each trial's norm over all its tensors."""
    return torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt().clamp_min(1e-12)
