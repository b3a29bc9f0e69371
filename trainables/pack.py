"""A pack: several training runs of one model and optimizer, stepped together with `torch.vmap`.

Weights, buffers and the optimizer state of K runs are stored in rows, [K, ...] each, and the weights of each run's own
model are views of them. The model runs on [K, batch, ...]; one backward pass of the sum of the K losses gives each run
its own gradient, since no loss depends on another's weights. Linear layers become batched matrix products, convolutions
grouped ones. Runs with the same seed and progress share one batch. Learning rates, schedules and everything else that
the stepper (`optim_core.packed`) allows to differ are separate for each run, and so are evaluations, checkpoints and
ends.

A run in a pack takes the same steps as alone, up to rounding: batched kernels sum in another order. Its state is that
of a single run: it can continue alone or in another pack.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_map

from trainables.loop import Diverged, Point, Training, never
from trainables.packable import Unpackable, unpackable
from trainables.packed_loss import Together
from trainables.skeleton import Skeleton
from trainables.task_class import Task

AHEAD = 64
"""Steps for which learning rates are computed at once."""
MOST_ON_CPU, CACHED = 32, 1_500_000
"""Runs, and weights of all of them, that are stepped together on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Passed:
    """One gradient evaluation of every run."""

    losses: Tensor
    """[K]"""
    grads: list[list[Tensor]]
    """Per parameter group [K, n]: on a CPU in columns, one tensor for each parameter."""
    norms: Tensor
    """[K], over all groups, before clipping."""


class Stepped(Protocol):
    """The result of a step, for each run."""

    @property
    def losses(self) -> list[float]:
        """At the weights before the step."""

    @property
    def taken(self) -> list[bool]:
        """Whether the gradient was finite."""

    @property
    def cost(self) -> list[float]:
        """Gradient evaluations."""


class Stepper(Protocol):
    """Steps several optimizers at once (`optim_core.packed.PackedStep`)."""

    def values(self, trial: int) -> list[dict[str, float]]:
        """Current hyperparameters, per parameter group."""

    def prepare(self, plans: Sequence[Mapping[str, Tensor]]) -> None:
        """Set the hyperparameters of the coming steps: for each group name -> [steps, K]."""

    def step(self, number: int, evaluate: Callable[[bool], Any]) -> Stepped:
        """Take step `number` of the prepared ones."""

    def charge(self, trial: int, amount: float) -> None:
        """Add gradient evaluations to the trial's count."""

    def skip(self, trial: int) -> None:
        """Count a step that was not taken."""

    def settle(self, trial: int) -> None:
        """Give the optimizer its state."""


Make = Callable[[Sequence[Any], Sequence[Tensor]], Stepper]
"""Called with the optimizers and the rows of weights of each parameter group."""


def at_once(run: Training, count: int) -> int:
    """How many of `count` runs like this one are best stepped together on its device.

    On a GPU all; on a CPU as many as its cache holds, in equal parts: the gain ends at about sixteen.
    """
    weights = [p for group in run.optimizer.param_groups for p in group["params"]]
    if weights[0].device.type != "cpu":
        return count
    most: int = min(MOST_ON_CPU, max(4, CACHED // sum(p.numel() for p in weights)))
    return math.ceil(count / math.ceil(count / most))


class Pack:
    """Advances runs together; each remains a `Training` that returns its own points. Raises Unpackable.

    All must have tasks with equal parameters, and equal settings except those that the stepper allows to differ.
    """

    def __init__(self, runs: Sequence[Training], step: Make) -> None:
        self.runs = list(runs)
        first = self.runs[0]
        if why := unpackable(first.task, first.model, first.recipe):
            raise Unpackable(why)
        self._models = [run.model for run in self.runs if isinstance(run.model, nn.Module)]
        names = {p: name for name, p in self._models[0].named_parameters()}
        groups = [group["params"] for group in first.optimizer.param_groups]
        self._rows: list[Tensor] = []
        self._leaves: list[dict[str, Tensor]] = []
        self._views: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.runs]  # (parameter, its row)
        for index, params in enumerate(groups):
            rows = torch.stack([torch.cat([p.detach().reshape(-1) for p in self._params(run, index)]) for run in runs])
            self._rows.append(rows)
            at, leaves = 0, {}
            for i, p in enumerate(params):
                part = rows[:, at : at + p.numel()].view(len(runs), *p.shape)
                leaves[names[p]] = part.detach().requires_grad_()
                for k, run in enumerate(self.runs):
                    self._views[k].append((self._params(run, index)[i], part[k]))
                at += p.numel()
            self._leaves.append(leaves)
        self._step = step([run.optimizer for run in self.runs], self._rows)
        with torch.no_grad():
            self._rest = self._stacked()
        for views in self._views:
            for p, row in views:
                p.data = row
        self._skeleton = Skeleton(self._models[0])
        self._precision = first.gradients.precision
        norms = [(n, m) for n, m in self._models[0].named_modules() if isinstance(m, _NormBase)]
        self._averages = [f"{n}.{key}" if n else key for n, m in norms for key, _ in m.named_buffers(recurse=False)]
        self._perturbed = first.optimizer.param_groups[0].get("norm_statistics") == "perturbed"
        limits = [run.recipe.clip_norm or math.inf for run in self.runs]
        clipped = min(limits) < math.inf
        self._limits = torch.tensor(limits, device=self._rows[0].device)[:, None] if clipped else None
        self._seconds = [0.0] * len(self.runs)
        self._taken = [0] * len(self.runs)
        self._before: dict[str, Tensor] = {}
        self._scoring = True

    def advance(self, pause: Callable[[], bool] = never) -> dict[int, Diverged | None]:
        """Step all runs until some are due for evaluation (None) or have diverged; empty if `pause()` is true.

        Call `point` for each run that is due before the next call; a diverged run has left the pack.
        """
        for run in self.runs:
            run.turn()
        while True:
            due = [k for k, run in enumerate(self.runs) if run.due()]
            if due:
                return dict.fromkeys(due)
            began = time.perf_counter()
            asked, ended = self._stretch(pause)
            share = (time.perf_counter() - began) / len(self.runs)
            self._seconds = [s + share for s in self._seconds]
            if ended or asked:
                return dict(ended)

    def scores(self, due: Sequence[int]) -> dict[int, dict[str, float]]:
        """The task's metrics of those of these runs that can be evaluated together; any error leaves them all out."""
        task = type(self.runs[0].task)
        if task.evaluate is not Task.evaluate or task.scores is Task.scores or not self._scoring:
            return {}
        found: dict[int, dict[str, float]] = {}
        try:
            for seed in {self.runs[k].seed for k in due}:
                rows = [k for k in due if self.runs[k].seed == seed]
                if len(rows) > 1:
                    found |= dict(zip(rows, self._scored(rows), strict=True))
        except Exception:  # which each of them will raise itself, if it is its own
            self._scoring = False
            return {}
        return found

    def _scored(self, rows: list[int]) -> list[dict[str, float]]:
        task = self.runs[rows[0]].task
        values = {name: leaf for leaves in self._leaves for name, leaf in leaves.items()} | self._rest
        if len(rows) < len(self.runs):
            values = {name: value[rows] for name, value in values.items()}
        with torch.no_grad(), self._skeleton.evaluating(), Together():
            found = torch.vmap(lambda own: task.scores(self._skeleton.holding(own)))(values)
        columns = torch.stack([score.double() for score in found.values()], dim=1).tolist()
        return [dict(zip(found, row, strict=True)) for row in columns]

    def point(self, k: int, scores: Mapping[str, float] | None = None) -> Point:
        """The evaluation of run `k` that is due, with its share of the pack's seconds; `scores` as found for it."""
        run = self.runs[k]
        if scores is None:
            run.replay_noise()
        found = run.evaluate(self._seconds[k], self._taken[k], scores)
        found.metrics["cost/pack"] = float(len(self.runs))
        self._seconds[k], self._taken[k] = 0.0, 0
        return found

    def state(self, k: int) -> dict[str, Any]:
        """`Training.state` of run `k`, independent of the others'."""
        self._step.settle(k)
        found: dict[str, Any] = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, self.runs[k].state())
        return found

    def release(self) -> None:
        """Give every run its own weights and state; the pack is finished."""
        for k, model in enumerate(self._models):
            self._step.settle(k)
            for p, _ in self._views[k]:
                p.data = p.data.clone()
            for module in model.modules():
                for key, buffer in module._buffers.items():
                    module._buffers[key] = None if buffer is None else buffer.clone()

    @staticmethod
    def _params(run: Training, index: int) -> list[Tensor]:
        found: list[Tensor] = run.optimizer.param_groups[index]["params"]
        return found

    def _stacked(self) -> dict[str, Tensor]:
        """Buffers, and weights without an optimizer, in rows; each model's buffers become views."""
        trained = {name for leaves in self._leaves for name in leaves}
        found: dict[str, Tensor] = {}
        for name, _ in self._models[0].named_parameters():
            if name not in trained:
                found[name] = torch.stack([dict(m.named_parameters())[name].detach() for m in self._models])
        for name, _ in self._models[0].named_buffers():
            found[name] = rows = torch.stack([dict(m.named_buffers())[name] for m in self._models])
            place, _, key = name.rpartition(".")
            for k, model in enumerate(self._models):
                model.get_submodule(place)._buffers[key] = rows[k]
        return found

    def _stretch(self, pause: Callable[[], bool]) -> tuple[bool, dict[int, Diverged]]:
        """(whether a pause was requested, diverged runs), after the steps up to the next evaluation at most."""
        count = min(self._steps_to_go(run) for run in self.runs)
        self._step.prepare(self._plans(count))
        sums, steps, cost = [0.0] * len(self.runs), 0, [run.optimizer.next_cost() for run in self.runs]
        asked, ended = False, {}
        for number in range(count):
            asked = pause()
            if asked:
                break
            inputs, targets, shared = self._batch(steps)
            found = self._step.step(number, lambda ascending: self._passed(inputs, targets, shared, ascending))  # noqa: B023
            steps += 1
            out = [k for k, run in enumerate(self.runs) if not abs(found.losses[k]) <= run.task.divergence_loss]
            regular = all(found.taken) and found.cost == cost
            if not out and regular:
                sums = [s + loss for s, loss in zip(sums, found.losses, strict=True)]
                continue
            self._count(sums, steps - 1, cost)
            ended = self._last(found.losses, found.taken, found.cost)
            return False, ended
        self._count(sums, steps, cost)
        return asked, ended

    def _last(self, losses: list[float], taken: list[bool], cost: list[float]) -> dict[int, Diverged]:
        """Handle a step in which something unusual happened; returns the runs that diverged in it."""
        ended: dict[int, Diverged] = {}
        for k, run in enumerate(self.runs):
            self._step.charge(k, cost[k])
            run.step += 1
            self._taken[k] += 1
            if not taken[k]:
                for name, rows in self._before.items():
                    self._rest[name][k].copy_(rows[k])
                self._step.skip(k)
            try:
                run.check([losses[k]])
            except Diverged as diverged:
                ended[k] = diverged
            else:
                run.count(losses[k], 1)
        return ended

    def _count(self, sums: list[float], steps: int, cost: list[float]) -> None:
        for k, run in enumerate(self.runs):
            self._step.charge(k, steps * cost[k])
            run.step += steps
            run.count(sums[k], steps)
            self._taken[k] += steps

    def _steps_to_go(self, run: Training) -> int:
        """Steps until an evaluation of the run is due, at most AHEAD."""
        spent, cost = run.optimizer.grad_evals, run.optimizer.next_cost()
        steps = 1
        while steps < AHEAD and spent + steps * cost < run.next_evaluation and (steps + 1) * cost <= run.left:
            steps += 1
        return steps

    def _plans(self, count: int) -> list[dict[str, Tensor]]:
        """Hyperparameters of the next steps, [steps, K] for each group and name."""
        known: dict[tuple[Any, ...], list[float]] = {}
        columns: list[list[dict[str, list[float]]]] = []
        for k, run in enumerate(self.runs):
            spent, cost, r = run.optimizer.grad_evals, run.optimizer.next_cost(), run.recipe
            path = [spent + j * cost for j in range(count)]
            key = (spent / (spent + run.left), cost / run.left, r.schedule, r.warmup, r.final_lr)
            shares = known.get(key) or known.setdefault(key, [run.rate(at) for at in path])
            constant = self._step.values(k)
            own = [{name: [value] * count for name, value in values.items()} for values in constant]
            for j, at in enumerate(path if (ramps := run.ramped(spent)) else ()):
                run.optimizer.change(**run.ramped(at))
                for values, now in zip(own, self._step.values(k), strict=True):
                    for name in ramps:
                        values[name][j] = now[name]
            for values, group in zip(own, run.optimizer.param_groups, strict=True):
                if "initial_lr" in group:
                    values["lr"] = [group["initial_lr"] * share for share in shares]
                    group["lr"] = values["lr"][-1]
            columns.append(own)
        return [
            {name: torch.tensor([own[i][name] for own in columns], dtype=torch.float64).T for name in columns[0][i]}
            for i in range(len(self._rows))
        ]

    def _batch(self, ahead: int) -> tuple[Any, Any, bool]:
        """(inputs, targets, whether all runs share them); made once for runs with the same seed and progress."""
        made: dict[tuple[int, int], Any] = {}
        keys = [(run.seed, run.step + ahead) for run in self.runs]
        for run, key in zip(self.runs, keys, strict=True):
            if key not in made:
                made[key] = run.task.batch(*key)
        if len(made) == 1:
            inputs, targets = made[keys[0]]
            return inputs, targets, True
        inputs, targets = tree_map(lambda *parts: torch.stack(parts), *(tuple(made[key]) for key in keys))
        return inputs, targets, False

    def _passed(self, inputs: Any, targets: Any, shared: bool, ascending: bool) -> Passed:
        """Gradients at the current weights; BatchNorm's averages come from the pass that may update them."""
        clean: dict[str, Tensor] = {}
        if ascending:
            self._before = {name: self._rest[name].clone() for name in self._averages}
        elif self._before and self._perturbed:
            self._put(self._before)
        elif self._before:
            clean = {name: self._rest[name].clone() for name in self._averages}
        found = self._gradients(inputs, targets, shared)
        self._put(clean)
        if self._limits is not None and not ascending:
            scale = (self._limits / (found.norms[:, None] + 1e-6)).clamp(max=1.0)
            for g in (part for parts in found.grads for part in parts):
                g.mul_(scale)
        return found

    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._rest[name].copy_(value)

    def _gradients(self, inputs: Any, targets: Any, shared: bool) -> Passed:
        params = {name: leaf for leaves in self._leaves for name, leaf in leaves.items()}
        data = None if shared else 0
        with torch.enable_grad(), self._precision.passes():
            losses = torch.vmap(self._loss, in_dims=(0, 0, data, data))(params, self._rest, inputs, targets)
            found = torch.autograd.grad(losses.sum(), list(params.values()), allow_unused=True)
        if any(g is None for g in found):
            raise Unpackable("a weight without a gradient")
        each = iter(found)
        grads = [[next(each).reshape(len(self.runs), -1) for _ in leaves] for leaves in self._leaves]
        if self._rows[0].device.type != "cpu":  # few kernels; on a CPU a pass over the memory costs more
            grads = [[torch.cat(parts, 1)] for parts in grads]
        norms = [torch.linalg.vector_norm(g, dim=1) for parts in grads for g in parts]
        whole = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms), dim=0)
        return Passed(losses=losses.detach().to(whole.dtype), grads=grads, norms=whole)

    def _loss(self, params: dict[str, Tensor], rest: dict[str, Tensor], inputs: Any, targets: Any) -> Tensor:
        with self._precision.forward():
            outputs = self._skeleton({**params, **rest}, inputs)
        with Together():
            return self.runs[0].task.loss(tree_map(self._precision.widened, outputs), targets)
