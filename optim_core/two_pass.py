"""The step of every method that takes its gradient at a point beside the weights: out, evaluate, back, descend.

A subclass says in `climb` where the second gradient is taken. Beyond the base optimizer a step costs one gradient and
one kept copy of the weights, which is not part of the state. The weights come back from that copy bit for bit, also
when the second pass raises; the step itself uses the copy as scratch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from optim_core.base import Closure, Counting
from optim_core.descent import descend

SKIPPED = "skipped_steps"


def global_norm(tensors: Sequence[Tensor]) -> float:
    """Euclidean norm over all tensors together, accumulated in float32 at least."""
    norms = torch._foreach_norm(list(tensors))
    wide = torch.promote_types(norms[0].dtype, torch.float32)
    # The one read-back of a step: whether it may be taken at all depends on the value.
    return float(torch.linalg.vector_norm(torch.stack([n.to(norms[0].device, wide) for n in norms])))


def place(params: list[list[Tensor]], home: list[list[Tensor]], radii: Sequence[float], norm: float) -> bool:
    """Turn directions d held in `params` into w + radius d / norm. False, and nothing done, for a norm not finite."""
    if not math.isfinite(norm):
        return False
    for ps, ws, radius in zip(params, home, radii, strict=True):
        for p, w in zip(ps, ws, strict=True):  # `out` saves a pass over memory that foreach would take
            torch.add(w, p, alpha=radius / max(norm, 1e-12), out=p)
    return True


class Excursion:
    """Leaves a point of weight space and comes back bit for bit, with one copy of the weights that is kept."""

    def __init__(self) -> None:
        self._buffers: dict[Tensor, Tensor] = {}
        self.params: list[Tensor] = []
        self.home: list[Tensor] = []

    def leave(self, params: list[Tensor]) -> None:
        """Remember the weights `params` as they stand; `home` holds the copies in the same order."""
        self.params, self.home = params, self.scratch(params)
        torch._foreach_copy_(self.home, self.params)

    def back(self) -> None:
        """Put the remembered weights back, in place."""
        if self.params:
            torch._foreach_copy_(self.params, self.home)

    def scratch(self, params: list[Tensor]) -> list[Tensor]:
        """The buffers of `params`, free for any use once the weights are back."""
        for p in params:
            if p not in self._buffers or self._buffers[p].dtype != p.dtype or self._buffers[p].device != p.device:
                self._buffers[p] = torch.empty_like(p)
        return [self._buffers[p] for p in params]


class NormStatistics:
    """Which of two passes may update the running statistics of normalisation layers.

    `clean`: the first, at w (the usual choice). `perturbed`: the second, at w + epsilon, starting from the statistics
    before the step (as the authors of LLQR+SAM do). A skipped step leaves them as before it.
    """

    def __init__(self, model: nn.Module | None, keep: str) -> None:
        if keep not in ("clean", "perturbed"):
            raise ValueError(f"norm_statistics is {keep!r}; it has to be clean or perturbed")
        norms = [m for m in model.modules() if isinstance(m, _NormBase)] if model is not None else []
        self._keep, self._norms = keep, norms
        self._before: list[Tensor] = []
        self._clean: list[Tensor] = []

    def before_first(self) -> None:
        """Call before the pass at w."""
        self._before = [b.clone() for b in self._buffers()]

    def between(self) -> None:
        """Call between the two passes."""
        if self._keep == "perturbed":
            self._set(self._before)
        else:
            self._clean = [b.clone() for b in self._buffers()]

    def after_second(self) -> None:
        """Call after the pass at w + epsilon, also when it raised."""
        if self._keep == "clean":
            self._set(self._clean)

    def forget(self) -> None:
        """Call instead when the step is not taken: a batch that is not finite must not stay in the averages."""
        self._set(self._before)

    def _buffers(self) -> list[Tensor]:
        return [b for m in self._norms for b in m.buffers(recurse=False)]

    def _set(self, saved: list[Tensor]) -> None:
        for buffer, value in zip(self._buffers(), saved, strict=True):
            buffer.copy_(value)


class Workers:
    """Whose gradient climbs when several workers train one model under `DistributedDataParallel`.

    `independent`: each climbs along the gradient of its own samples and only the second gradients are averaged
    (m-sharpness with m samples a worker, Foret et al. 2021, section 4.1). `synchronised`: all climb along the averaged
    gradient, as one process with the whole batch would. The same thing for a model that is not so wrapped.
    """

    def __init__(self, model: nn.Module | None, workers: str) -> None:
        if workers not in ("independent", "synchronised"):
            raise ValueError(f"workers is {workers!r}; it has to be independent or synchronised")
        self._apart = model if isinstance(model, DistributedDataParallel) and workers == "independent" else None

    def first_pass(self) -> AbstractContextManager[Any]:
        """Around the pass at w."""
        if self._apart is None:
            return contextlib.nullcontext()
        return cast(AbstractContextManager[Any], self._apart.no_sync())

    def agree(self, fine: bool) -> bool:
        """Whether it is fine on every worker: a step is skipped by all or by none, else the others wait for ever."""
        if self._apart is None:
            return fine
        flag = torch.tensor(float(fine), device=next(self._apart.parameters()).device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MIN, group=self._apart.process_group)
        return bool(flag)


def with_gradient(group: dict[str, Any]) -> list[Tensor]:
    """The parameters of a group that received a gradient. Raises RuntimeError for sparse or complex ones."""
    found = [p for p in group["params"] if p.grad is not None]
    for p in found:
        if p.grad.is_sparse or p.is_complex():
            raise RuntimeError(f"a parameter of shape {tuple(p.shape)} has a sparse or complex gradient; not supported")
    return found


class TwoPass(Counting):
    """The step of the SAM family; a subclass says in `climb` where the second gradient is taken."""

    GRAD_EVALS: ClassVar[float] = 2.0
    _excursion: Excursion
    _statistics: NormStatistics
    _workers: Workers

    @classmethod
    def from_model(cls, model: nn.Module | list[nn.Module], **hyperparameters: Any) -> Self:
        """Over the parameters of `model`, whose normalisation layers keep the statistics of one pass only."""
        if isinstance(model, list):
            raise TypeError(f"{cls.__name__} trains one model; a list of players needs an optimizer for games")
        params = [p for p in model.parameters() if p.requires_grad]
        return cls(params, **{"model": model, **hyperparameters})

    @property
    def skipped_steps(self) -> int:
        """Steps that were not taken because the first gradient was not finite."""
        return int(self.param_groups[0].get(SKIPPED, 0))

    def climb(self, params: list[list[Tensor]], home: list[list[Tensor]], grads: list[list[Tensor]]) -> bool:
        """Move `params` in place from the copies `home` to the point of the second gradient.

        Each argument has one list for each parameter group. Returns False when the direction is not finite.
        """
        raise RuntimeError(f"{type(self).__name__} has no climb()")

    def descend(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """Step of the base optimizer from the unperturbed weights along the second gradient."""
        descend(group, params, grads, self.state, scratch=self._excursion.scratch(params))

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step; calls the closure twice and returns the loss at the unperturbed weights.

        A first gradient that is not finite skips the step (one call, counted in `skipped_steps`).
        """
        self._statistics.before_first()
        with self._workers.first_pass():
            loss = self.evaluate_ascent(closure)
        params = [with_gradient(g) for g in self.param_groups]
        self._excursion.leave([p for ps in params for p in ps])
        try:
            homes = iter(self._excursion.home)
            home = [[next(homes) for _ in ps] for ps in params]
            if not self._workers.agree(self.climb(params, home, [[_grad(p) for p in ps] for ps in params])):
                self._statistics.forget()
                self.param_groups[0][SKIPPED] = self.skipped_steps + 1
                return loss
            self._statistics.between()
            try:
                self.evaluate(closure)
            finally:
                self._statistics.after_second()
        finally:
            self._excursion.back()
        for group in self.param_groups:
            moved = with_gradient(group)
            self.descend(group, moved, [_grad(p) for p in moved])
        return loss


def _grad(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad
