"""Ensure that gradients come from one call of a closure only, and are finite.

What an earlier call of the closure left in `p.grad` is cleared before the next, so a closure that forgets to clear
still steps along its own gradient. What somebody else has put there since, such as a micro-batch accumulated outside
the step, is neither dropped nor mixed in: if the closure does not clear it, the step is refused.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from optim_core.sharded import is_sharded, locals_of, whole_sum


class NotFinite(Exception):  # noqa: N818  an outcome of a step, not an error
    """The gradient that was to move the weights is not finite: the step is not taken."""

    def __init__(self, loss: Any) -> None:
        super().__init__("the gradient is not finite")
        self.loss = loss


class Stamp:
    """Detects whether a gradient was written to since, without keeping its memory alive."""

    def __init__(self, gradient: Tensor | None) -> None:
        self._tensor = None if gradient is None else weakref.ref(gradient)
        self._version = 0 if gradient is None else gradient._version

    def unchanged(self, gradient: Tensor | None) -> bool:
        """Whether `gradient` is missing or unchanged."""
        if gradient is None:
            return True
        return self._tensor is not None and self._tensor() is gradient and gradient._version == self._version


class Foreign:
    """Watches a gradient that is not the optimizer's own, to see whether the closure clears it first.

    Only while a closure runs: zeroing in place and accumulating both count as one write, so the time of the first
    accumulation distinguishes them.
    """

    def __init__(self, p: Tensor) -> None:
        assert p.grad is not None
        self._gradient, self._stamp = p.grad, Stamp(p.grad)
        self._mixed: bool | None = None
        self._hook: RemovableHandle | None = None
        if p.requires_grad:
            self._hook = p.register_post_accumulate_grad_hook(self._look)  # type: ignore[no-untyped-call]

    def _look(self, p: Tensor) -> None:
        if self._mixed is None:
            self._mixed = p.grad is self._gradient and p.grad._version == self._stamp._version + 1

    def kept(self, p: Tensor) -> bool:
        """Whether it is still in `p.grad`, alone or with what was accumulated since."""
        return bool(self._mixed) if self._mixed is not None else p.grad is not None and self._stamp.unchanged(p.grad)

    def close(self) -> None:
        """Stop watching."""
        if self._hook is not None:
            self._hook.remove()


class Call:
    """One call of a closure over `params`; `stamps` (by id) mark what the optimizer left, None: everything is its
    own.
    """

    def __init__(self, params: Sequence[Tensor], stamps: dict[int, Stamp] | None) -> None:
        self._params, self._foreign = params, dict[int, Foreign]()
        for p in params:
            if p.grad is None:
                continue
            if stamps is None or (id(p) in stamps and stamps[id(p)].unchanged(p.grad)):
                p.grad = None
            else:
                self._foreign[id(p)] = Foreign(p)

    def close(self) -> None:
        """The closure has returned, or raised."""
        for seen in self._foreign.values():
            seen.close()

    def check(self, name: str) -> None:
        """Raise RuntimeError if there is no gradient from this call, or one that existed before it."""
        kept = [p for p in self._params if id(p) in self._foreign and self._foreign[id(p)].kept(p)]
        new = [p for p in self._params if p.grad is not None and not self._untouched(p)]
        if not new:
            raise RuntimeError(f"the closure given to {name}.step left no gradient; call loss.backward()")
        if kept:
            raise RuntimeError(
                f"the closure given to {name}.step did not clear gradients that were there before the step; call "
                "zero_grad() in it. To accumulate micro-batches, loop over all of them inside the closure"
            )

    def _untouched(self, p: Tensor) -> bool:
        seen = self._foreign.get(id(p))
        return seen is not None and seen._stamp.unchanged(p.grad)


def finite(gradients: Sequence[Tensor], *, look: bool = False) -> bool:
    """Whether every entry is finite. One pass over memory and one read-back, using norms, unless these overflow.

    `look`: read the numbers directly from memory, which on a CPU needs no torch operation and no wait.
    """
    dense = [g._values() if g.is_sparse else g for g in gradients if g.numel()]
    if not dense:
        return True
    norms = torch._foreach_norm(locals_of(dense))
    if look and all(n.is_cpu for n in norms) and not any(is_sharded(g) for g in dense):
        whole = sum(seen(n) for n in norms)
    else:
        wide = reduce(torch.promote_types, {n.dtype for n in norms})
        total = whole_sum([n.to(norms[0].device, wide) for n in norms], dense)
        whole = seen(total) if look else float(total)
    if math.isfinite(whole):
        return True
    return not bool(whole_sum([(~g.isfinite()).sum() for g in locals_of(dense)], dense))


def seen(scalar: Tensor) -> float:
    """The value of a scalar, read from host memory if it is there, otherwise from the device."""
    number: Any = (scalar.detach() if scalar.requires_grad else scalar).tolist()
    return float(number)


def gradients(params: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of parameters that have one."""
    return [p.grad for p in params if p.grad is not None]
