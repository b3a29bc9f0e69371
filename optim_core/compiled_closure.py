"""`step(closure)` as one compiled graph, for loops with a closure instead of a function of inputs and targets.

    step = optim_core.compiled_step(optimizer, model)
    value = step(closure)  # a new closure for the next batch does not recompile

The closure is the one that `optimizer.step` takes: it clears gradients, computes the loss, calls `backward()` and
returns the loss. It is traced as it is, in both passes of SAM, so everything in it must be traceable: no `.item()`, no
printing, no GradScaler; otherwise `torch.compile` names the line. Values other than tensors that it reads from the
loop, such as a step number, are compiled in. Dropout masks come from the compiler. Everything else is as in `compiled`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from optim_core.base import Counting
from optim_core.compiled import CompiledStep, all_finite
from optim_core.sam import SAM
from optim_core.two_pass import norm_of

Closure = Callable[[], Tensor]


class CompiledClosure(CompiledStep):
    """The compiled `step(closure)` of `adamw`, `sam` or `rotated_adamw`; `options` go to `torch.compile`."""

    def __init__(self, optimizer: Counting, model: nn.Module, **options: Any) -> None:
        super().__init__(optimizer, model, _no_loss, **options)
        self._traced = torch.compile(self._with_closure, **{"fullgraph": True, **options})

    def __call__(self, closure: Closure) -> Tensor:  # type: ignore[override]
        """One step; the loss before it, detached."""
        step: Any = self.optimizer.step

        def graph(*given: Any) -> tuple[Tensor, Tensor]:
            self.optimizer._begins_cleared = True  # what it would check before clearing is not compiled in
            try:
                found: tuple[Tensor, Tensor] = self._traced(closure, *given)
            finally:
                self.optimizer._begins_cleared = False
            return found

        return self.taken(lambda: step(closure), graph)

    def _with_closure(
        self, closure: Closure, groups: list[list[Tensor]], numbers: list[dict[str, Any]]
    ) -> tuple[Tensor, Tensor]:
        """The graph: (loss, whether every gradient was finite)."""
        numbers = [{k: v if isinstance(v, list) else v.reshape(()) for k, v in own.items()} for own in numbers]
        params = [p for ps in groups for p in ps]
        buffers = [b for name, b in self.model.named_buffers() if name in self._norms]
        before = [b.clone() for b in buffers]
        loss, grads = _gradients(closure, params)
        good = all_finite(grads)
        if isinstance(self.optimizer, SAM):
            norm = norm_of(grads)
            good = norm.isfinite()
            clean = [b.clone() for b in buffers]
            home = [p.detach().clone() for p in params]
            perturbed = self.optimizer._statistics.keep == "perturbed"
            with torch.no_grad():
                left = iter(grads)
                for ps, own in zip(groups, numbers, strict=True):
                    scale = own["radius"] / norm.clamp_min(1e-12)
                    for p in ps:
                        p.copy_(torch.addcmul(p, next(left), scale.to(p)))
                for b, value in zip(buffers, before if perturbed else clean, strict=True):
                    b.copy_(value)
            _, grads = _gradients(closure, params)
            good = good & all_finite(grads)
            with torch.no_grad():
                for p, w in zip(params, home, strict=True):
                    p.copy_(w)
                for b, first, kept in zip(buffers, before, clean, strict=True):
                    b.copy_(torch.where(good, b if perturbed else kept, first))
        with torch.no_grad():
            first = 0
            for index, (ps, own) in enumerate(zip(groups, numbers, strict=True)):
                if ps:
                    self._update(index, ps, grads[first : first + len(ps)], good, own)
                first += len(ps)
        return loss.detach(), good


def compiled_step(
    optimizer: Counting, model: nn.Module, loss: Callable[[Any, Any], Tensor] | None = None, **options: Any
) -> CompiledStep:
    """The step of `optimizer` on `loss(model(inputs), targets)`, compiled as one graph; see `CompiledStep`.

    Without a `loss`: `step(closure)`, compiled in the same way, for traceable closures; see `CompiledClosure`.
    """
    if loss is not None:
        return CompiledStep(optimizer, model, loss, **options)
    return CompiledClosure(optimizer, model, **options)


def _gradients(closure: Closure, params: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """(loss, gradients) at the current weights; the gradients are removed from the parameters."""
    for p in params:
        p.grad = None
    with torch.enable_grad():
        loss = closure()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
    for p in params:
        p.grad = None
    return loss, grads


def _no_loss(outputs: Any, targets: Any) -> Tensor:
    raise TypeError("this compiled step takes a closure")
