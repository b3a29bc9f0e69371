"""The step of every method that takes its gradient at a perturbed point: leave, evaluate, return, descend.

A subclass says in `climb` where the second gradient is taken. Compared with the base optimizer a step costs one more
gradient and one copy of the weights, which is not part of the state. The weights are restored from that copy bit for
bit, even if the second pass raises; the step itself uses the copy as scratch.

If a loop cannot pass a closure, it takes the same step in two halves, which clear the gradients they have used:

    loss(model(x), y).backward()
    if optimizer.first_step():  # at w + epsilon now
        loss(model(x), y).backward()
        optimizer.second_step()
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
from optim_core.fresh import NotFinite, seen
from optim_core.ranges import check_ranges
from optim_core.sharded import is_sharded, locals_of, whole_sum


def norm_of(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm over all tensors together, accumulated in float32 at least; a scalar on the device."""
    norms = list(torch._foreach_norm(locals_of(tensors)))
    wide = torch.promote_types(norms[0].dtype, torch.float32)
    norms = [n.to(norms[0].device, wide) for n in norms]
    if any(is_sharded(t) for t in tensors):
        return whole_sum([n.square() for n in norms], tensors).sqrt()
    whole: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return whole


def global_norm(tensors: Sequence[Tensor]) -> float:
    """`norm_of`, read back: whether the step may be taken depends on the value."""
    return float(norm_of(tensors))


def place(params: list[list[Tensor]], home: list[list[Tensor]], radii: Sequence[float], norm: float | Tensor) -> bool:
    """Turn directions d held in `params` into w + radius d / norm. Does nothing and returns False for a norm that is
    not finite.

    A norm on the device is not checked.
    """
    if isinstance(norm, Tensor):
        for ps, ws, radius in zip(params, home, radii, strict=True):
            for p, w in zip(locals_of(ps), locals_of(ws), strict=True):
                torch.addcmul(w, p, scale_of(radius, norm).to(p), out=p)
        return True
    if not math.isfinite(norm):
        return False
    for ps, ws, radius in zip(params, home, radii, strict=True):
        for p, w in zip(locals_of(ps), locals_of(ws), strict=True):  # `out` saves a pass over memory
            torch.add(w, p, alpha=radius / max(norm, 1e-12), out=p)
    return True


def scale_of(radius: float, norm: Tensor) -> Tensor:
    """Radius / norm for a norm on the device, as computed for numbers: in float64 if the device supports it."""
    wide = norm if norm.device.type == "mps" else norm.to(torch.float64)
    return radius / wide.clamp_min(1e-12)


class Excursion:
    """Leaves a point in weight space and returns to it bit for bit, with one stored copy of the weights."""

    def __init__(self) -> None:
        self._buffers: dict[Tensor, Tensor] = {}
        self.params: list[Tensor] = []
        self.home: list[Tensor] = []

    def __reduce__(self) -> tuple[type[Excursion], tuple[()]]:
        """Copied and pickled at home, where nothing needs to be kept."""
        return Excursion, ()

    def leave(self, params: list[Tensor]) -> None:
        """Store the current weights `params`; `home` holds the copies in the same order."""
        self.params, self.home = params, self.scratch(params)
        if params:
            torch._foreach_copy_(locals_of(self.home), locals_of(self.params))

    def back(self) -> None:
        """Restore the stored weights in place."""
        if self.params:
            torch._foreach_copy_(locals_of(self.params), locals_of(self.home))

    def scratch(self, params: list[Tensor]) -> list[Tensor]:
        """The buffers of `params`, free for any use once the weights are restored."""
        for p in params:
            if p not in self._buffers or self._buffers[p].dtype != p.dtype or self._buffers[p].device != p.device:
                self._buffers[p] = torch.empty_like(p)
        return [self._buffers[p] for p in params]


class NormStatistics:
    """Which of two passes may update the running statistics of normalization layers.

    `clean`: the first, at w (the usual choice). `perturbed`: the second, at w + epsilon, starting from the statistics
    before the step (as in the code of LLQR+SAM's authors). A skipped step leaves them unchanged.
    """

    def __init__(self, model: nn.Module | None, keep: str) -> None:
        if keep not in ("clean", "perturbed"):
            raise ValueError(f"norm_statistics is {keep!r}; it must be clean or perturbed")
        norms = [m for m in model.modules() if isinstance(m, _NormBase)] if model is not None else []
        self.keep, self._norms = keep, norms
        self._before: list[Tensor] = []
        self._clean: list[Tensor] = []

    def before_first(self) -> None:
        """Call before the pass at w."""
        self._before = [b.clone() for b in self._buffers()]

    def between(self) -> None:
        """Call between the two passes."""
        if self.keep == "perturbed":
            self._set(self._before)
        else:
            self._clean = [b.clone() for b in self._buffers()]

    def after_second(self) -> None:
        """Call after the pass at w + epsilon, even if it raised."""
        if self.keep == "clean":
            self._set(self._clean)

    def forget(self) -> None:
        """Call instead if the step is not taken: a batch that is not finite must not remain in the averages."""
        if self._before:
            self._set(self._before)

    def forget_if(self, skipped: Tensor | None) -> None:
        """`forget` if the device has skipped the step."""
        if skipped is not None:
            for buffer, value in zip(self._buffers(), self._before, strict=False):
                buffer.copy_(torch.where(skipped.to(buffer.device) > 0, value, buffer))

    @property
    def needs_the_first_pass(self) -> bool:
        """Whether it must be told before the first pass begins."""
        return self.keep == "perturbed" and bool(self._norms)

    def _buffers(self) -> list[Tensor]:
        return [b for m in self._norms for b in m.buffers(recurse=False)]

    def _set(self, saved: list[Tensor]) -> None:
        for buffer, value in zip(self._buffers(), saved, strict=True):
            buffer.copy_(value)


class Workers:
    """Whose gradient climbs when several workers train one model under `DistributedDataParallel`.

    `independent`: each climbs along the gradient of its own samples and only the second gradients are averaged
    (m-sharpness with m samples per worker, Foret et al. 2021, section 4.1). `synchronised`: all climb along the
    averaged gradient, as one process with the whole batch would. Both are the same for a model that is not wrapped.
    """

    def __init__(self, model: nn.Module | None, workers: str) -> None:
        if workers not in ("independent", "synchronised"):
            raise ValueError(f"workers is {workers!r}; it must be independent or synchronised")
        self._apart = model if isinstance(model, DistributedDataParallel) and workers == "independent" else None

    def first_pass(self) -> AbstractContextManager[Any]:
        """Context for the pass at w."""
        if self._apart is None:
            return contextlib.nullcontext()
        return cast(AbstractContextManager[Any], self._apart.no_sync())

    def agree(self, fine: bool, *, look: bool = True) -> bool:
        """Whether `fine` holds on every worker: a step is skipped by all or by none, otherwise the others would wait
        forever.
        """
        if self._apart is None or not look:
            return fine
        flag = torch.tensor(float(fine), device=next(self._apart.parameters()).device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MIN, group=self._apart.process_group)
        return bool(flag)

    def agree_on(self, skipped: Tensor) -> None:
        """The same on the device, in place."""
        if self._apart is not None:
            torch.distributed.all_reduce(skipped, torch.distributed.ReduceOp.MAX, group=self._apart.process_group)


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
    check_values = staticmethod(check_ranges)
    _halfway = False
    """Whether the weights are at w + epsilon, between `first_step` and `second_step`."""
    _excursion: Excursion
    _statistics: NormStatistics
    _workers: Workers

    @classmethod
    def from_model(cls, model: nn.Module | list[nn.Module], **hyperparameters: Any) -> Self:
        """Over the parameters of `model`, whose normalization layers keep the statistics of one pass only."""
        if isinstance(model, list):
            raise TypeError(f"{cls.__name__} trains one model; a list of players needs an optimizer for games")
        params = [p for p in model.parameters() if p.requires_grad]
        return cls(params, **{"model": model, **hyperparameters})

    def climb(self, params: list[list[Tensor]], home: list[list[Tensor]], grads: list[list[Tensor]]) -> bool:
        """Move `params` in place from the copies `home` to the point of the second gradient.

        Each argument has one list per parameter group. Returns False if the direction is not finite.
        """
        raise RuntimeError(f"{type(self).__name__} has no climb()")

    def descend(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """Step of the base optimizer from the unperturbed weights along the second gradient."""
        descend(group, params, grads, self.state, scratch=self._excursion.scratch(params), skipped=self._skipped)

    def measured(self, value: Tensor) -> float | Tensor:
        """A number that determines how far to climb; on the device if gradients are not checked or the device decides.

        The step is skipped if it is not finite.
        """
        if not self.checks_gradients:
            return value
        if self.on_device():
            self.doubt((~value.isfinite()).to(torch.float32))
            return value
        return seen(value)

    def combine(self, params: list[list[Tensor]], grads: list[list[Tensor]]) -> list[list[Tensor]]:
        """The direction for the base's descent, from the second gradients; one list per parameter group."""
        return grads

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step; calls the closure twice and returns the loss at the unperturbed weights.

        A gradient that is not finite skips the step, after one call if it is the first.
        """
        self._statistics.before_first()
        with self._workers.first_pass():
            loss = self.evaluate_ascent(closure)
        if not self._leave():
            self._statistics.forget()
            raise NotFinite(loss)
        try:
            try:
                self.evaluate(closure)
            finally:
                self._statistics.after_second()
                self._excursion.back()
        except NotFinite:
            self._statistics.forget()
            raise NotFinite(loss) from None
        self._descend()
        self._statistics.forget_if(self._skipped)
        return loss

    @torch.no_grad()
    def first_step(self) -> bool:
        """The first half of a step for loops without a closure: climb along the gradient in `p.grad`, then clear it.

        Returns whether a second gradient is needed, to be followed by `second_step`; False if this one was not finite
        and the step is skipped (True if the device decides: `second_step` then moves nothing). Under
        `DistributedDataParallel` with independent workers the loop runs its first backward pass inside
        `model.no_sync()`. Raises RuntimeError if there is no gradient, ValueError for norm_statistics perturbed.
        """
        if self._halfway:
            raise RuntimeError("first_step was called twice; take the second gradient, then call second_step")
        if self._late.word():
            self._settled()
        self._skipped = self._decides = None
        if self._statistics.needs_the_first_pass:
            raise ValueError("norm_statistics perturbed needs step(closure): here the first pass is already over")
        self._taken("first_step")
        if not self._leave():
            self._statistics.forget()
            self._clear()
            self.skip()
            self.end_step()
            return False
        self._clear()
        self._halfway = True
        return True

    @torch.no_grad()
    def second_step(self) -> None:
        """The second half: from w along the gradient in `p.grad`, taken at w + epsilon, then clear it.

        Only clears after a first half that returned False. Raises RuntimeError if there is no gradient.
        """
        if not self._halfway:
            return self._clear()
        self._taken("second_step")
        self._statistics.after_second()
        self._excursion.back()
        self._halfway, self._opt_called = False, True  # torch's schedulers check the latter
        if self.takes_step():
            self._descend()
            self._statistics.forget_if(self._skipped)
        else:
            self._statistics.forget()
            self.skip()
        self.end_step()
        self._statistics.before_first()
        self._clear()

    def take_at_once(self) -> None:
        """The whole step along the gradient in `p.grad`, then clear it; for steps that need no second gradient."""
        self._taken("first_step")
        self._opt_called = True
        if self.takes_step():
            self._descend()
        else:
            self.skip()
        self.end_step()
        self._clear()

    def _leave(self) -> bool:
        """Move to the point of the second gradient; return at once, with False, if the first is not finite."""
        params = [with_gradient(g) for g in self.param_groups]
        self._excursion.leave([p for ps in params for p in ps])
        try:
            homes = iter(self._excursion.home)
            home = [[next(homes) for _ in ps] for ps in params]
            fine = self.climb(params, home, [[_grad(p) for p in ps] for ps in params])
            if self._skipped is not None:
                self._workers.agree_on(self._skipped)
            else:
                fine = self._workers.agree(fine, look=self.checks_gradients)
        except BaseException:
            self._excursion.back()
            raise
        if fine:
            self._statistics.between()
        else:
            self._excursion.back()
        return fine

    def _descend(self) -> None:
        params = [with_gradient(g) for g in self.param_groups]
        grads = self.combine(params, [[_grad(p) for p in ps] for ps in params])
        for group, ps, gs in zip(self.param_groups, params, grads, strict=True):
            self.descend(group, ps, gs)

    def _taken(self, half: str) -> None:
        """Charge the gradient that the loop has evaluated."""
        if all(p.grad is None for g in self.param_groups for p in g["params"]):
            raise RuntimeError(f"{type(self).__name__}.{half} finds no gradient; call loss.backward() before it")
        self.charge(1.0)

    def _clear(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None


def _grad(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad
