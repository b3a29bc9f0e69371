"""Steps that are taken, or not, by a number that stays on the device: the host does not wait to learn which.

`skipped` is a float32 scalar beside the weights, 1 where the step is not taken, else 0. What follows it moves by the
kernels that torch made for its GradScaler: they look at `found_inf` themselves and write nothing where it is 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from optim_core.kernels import all_stored_like


def at_hand(t: Tensor) -> bool:
    """Whether the host sees the tensor without waiting for a device."""
    return t.device.type == "cpu"


def not_finite(gradients: Sequence[Tensor]) -> Tensor:
    """`skipped` for dense gradients on any devices: 1 where an entry is not finite; on the first one's device."""
    largest = torch._foreach_norm([g for g in gradients if g.numel()] or list(gradients), float("inf"))
    one = [x.to(largest[0].device, torch.float64 if x.dtype == torch.float64 else torch.float32) for x in largest]
    wide = torch.float64 if any(x.dtype == torch.float64 for x in one) else torch.float32
    return (~torch.stack([x.to(wide) for x in one]).isfinite().all()).to(torch.float32)


def alike(tensors: Sequence[Tensor]) -> Iterator[tuple[torch.device, torch.dtype, list[int]]]:
    """(device, dtype, places) of the tensors that a kernel may take together."""
    found: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
    for i, t in enumerate(tensors):
        found[t.device, t.dtype].append(i)
    for (device, dtype), places in found.items():
        yield device, dtype, places


def is_plain(p: Tensor) -> bool:
    """Whether fused kernels take it: real, dense, and without gaps or overlaps in memory."""
    if p.layout != torch.strided or not p.is_floating_point():
        return False
    return p.is_contiguous() or sum((n - 1) * s for n, s in zip(p.shape, p.stride(), strict=True)) + 1 == p.numel()


def sgd_unless(
    skipped: Tensor,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    buffers: Sequence[Tensor],
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> None:
    """A step of `torch.optim.SGD`, and its buffers as they were, unless `skipped`. No buffers without momentum."""
    grads = [g.to(p.dtype) for g, p in zip(all_stored_like(grads, params), params, strict=True)]
    for device, _, places in alike(params):
        torch._fused_sgd_(
            [params[i] for i in places],
            [grads[i] for i in places],
            [buffers[i] for i in places] if momentum else [],
            weight_decay=weight_decay,
            momentum=momentum,
            lr=lr,
            dampening=dampening,
            nesterov=nesterov,
            maximize=maximize,
            is_first_step=False,
            grad_scale=None,
            found_inf=skipped.to(device, non_blocking=True),
        )


def add_unless(
    skipped: Tensor | None, tensors: Sequence[Tensor], directions: Sequence[Tensor], scale: float | Tensor = 1.0
) -> None:
    """Tensor + scale * direction in place, unless `skipped`; None: in any case. A scale may be a number on a device."""
    if isinstance(scale, Tensor):
        scaled: list[Tensor] = list(directions)
        for device, dtype, places in alike(directions):
            own = torch._foreach_mul([directions[i] for i in places], scale.to(device, dtype))
            for i, x in zip(places, own, strict=True):
                scaled[i] = x
        directions, scale = scaled, 1.0
    if not tensors:
        return
    if skipped is None:
        torch._foreach_add_(list(tensors), list(directions), alpha=scale)
    else:
        sgd_unless(skipped, tensors, directions, [], lr=-scale)


def multiply_unless(skipped: Tensor | None, tensors: Sequence[Tensor], factor: float) -> None:
    """Factor * tensor in place, unless `skipped`; None: in any case."""
    if skipped is None:
        torch._foreach_mul_(list(tensors), factor)
        return
    for device, dtype, places in alike(tensors):
        own = torch.full((), factor, dtype=dtype, device=device)
        own.masked_fill_(skipped.to(device, non_blocking=True) > 0, 1.0)
        torch._foreach_mul_([tensors[i] for i in places], own)


class Late:
    """Counts of what was not taken, kept on the device until somebody asks, or until word of one has come."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, str], Tensor] = {}
        self._word: Tensor | None = None
        self._sent: Any = None

    def __reduce__(self) -> tuple[type[Late], tuple[()], dict[str, Any]]:
        """A copy has the counts; what is under way to the host is sent anew."""
        return Late, (), {"_counts": self._counts}

    def add(self, index: int, key: str, skipped: Tensor) -> None:
        """The counter `key` of the parameter group `index` was moved on, at most: by nothing where `skipped`."""
        if (index, key) in self._counts:
            self._counts[index, key].add_(skipped)
        else:
            self._counts[index, key] = skipped.clone()

    def of(self, index: int, key: str, like: Tensor) -> Tensor:
        """How much too high that counter is, beside a tensor."""
        found = self._counts.get((index, key))
        return torch.zeros((), device=like.device) if found is None else found.to(like.device, non_blocking=True)

    def take(self) -> dict[tuple[int, str], int]:
        """What was not taken, read from the device, and nothing from here on."""
        if not self._counts:
            return {}
        home = next(iter(self._counts.values())).device
        read = torch.stack([n.to(home) for n in self._counts.values()]).tolist()
        found = {key: int(n) for key, n in zip(self._counts, read, strict=True)}
        self._counts, self._word, self._sent = {}, None, None
        return found

    def send(self, index: int, key: str) -> None:
        """Let the host know of a counter some time; nothing waits for it."""
        count = self._counts[index, key]
        if count.device.type == "cuda" and (self._sent is None or self._sent.query()):
            if self._word is None:
                self._word = torch.zeros((), dtype=count.dtype, pin_memory=True)
            self._word.copy_(count, non_blocking=True)
            self._sent = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._sent.record()
        elif at_hand(count):
            self._word = count

    def word(self) -> bool:
        """Whether the host has heard of something that was not taken."""
        if self._word is None or (self._sent is not None and not self._sent.query()):
            return False
        count: Any = self._word.tolist()
        return bool(count > 0)
