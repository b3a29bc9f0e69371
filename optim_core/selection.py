"""Steps that are taken or skipped by a flag on the device, without the host waiting for it.

`skipped` is a float32 scalar on the device of the weights, 1 if the step is not taken, otherwise 0. Updates use the
kernels that torch made for its GradScaler: they check `found_inf` themselves and write nothing if it is 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from optim_core.kernels import all_stored_like


def at_hand(t: Tensor) -> bool:
    """Whether the host can read the tensor without waiting for a device."""
    return t.is_cpu


def not_finite(gradients: Sequence[Tensor]) -> Tensor:
    """`skipped` for dense gradients on any devices: 1 if an entry is not finite; on the first one's device."""
    largest = torch._foreach_norm([g for g in gradients if g.numel()] or list(gradients), float("inf"))
    one = [x.to(largest[0].device, torch.float64 if x.dtype == torch.float64 else torch.float32) for x in largest]
    wide = torch.float64 if any(x.dtype == torch.float64 for x in one) else torch.float32
    return (~torch.stack([x.to(wide) for x in one]).isfinite().all()).to(torch.float32)


def alike(tensors: Sequence[Tensor]) -> Iterator[tuple[torch.device, torch.dtype, list[int]]]:
    """(device, dtype, indices) of the tensors that a kernel may process together."""
    found: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
    for i, t in enumerate(tensors):
        found[t.device, t.dtype].append(i)
    for (device, dtype), places in found.items():
        yield device, dtype, places


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
    """A step of `torch.optim.SGD` with its buffers, unless `skipped`. No buffers without momentum."""
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
    """Tensor + scale * direction in place, unless `skipped`; None: always. A scale may be a number on a device."""
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
    """Factor * tensor in place, unless `skipped`; None: always."""
    if skipped is None:
        torch._foreach_mul_(list(tensors), factor)
        return
    for device, dtype, places in alike(tensors):
        own = torch.full((), factor, dtype=dtype, device=device)
        own.masked_fill_(skipped.to(device, non_blocking=True) > 0, 1.0)
        torch._foreach_mul_([tensors[i] for i in places], own)


class Late:
    """Counts of skipped steps, kept on the device until requested, or until word of one has arrived."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, str], Tensor] = {}
        self._word: Tensor | None = None
        self._sent: Any = None

    def __reduce__(self) -> tuple[type[Late], tuple[()], dict[str, Any]]:
        """A copy has the counts; pending transfers to the host are restarted."""
        return Late, (), {"_counts": self._counts}

    def add(self, index: int, key: str, skipped: Tensor) -> None:
        """Record that the counter `key` of the parameter group `index` was incremented, but not if `skipped`."""
        if (index, key) in self._counts:
            self._counts[index, key].add_(skipped)
        else:
            self._counts[index, key] = skipped.clone()

    def of(self, index: int, key: str, like: Tensor) -> Tensor:
        """How much too high that counter is, on the device of a tensor."""
        found = self._counts.get((index, key))
        return torch.zeros((), device=like.device) if found is None else found.to(like.device, non_blocking=True)

    def take(self) -> dict[tuple[int, str], int]:
        """The skipped counts, read from the device and reset."""
        if not self._counts:
            return {}
        home = next(iter(self._counts.values())).device
        read = torch.stack([n.to(home) for n in self._counts.values()]).tolist()
        found = {key: int(n) for key, n in zip(self._counts, read, strict=True)}
        self._counts, self._word, self._sent = {}, None, None
        return found

    def send(self, index: int, key: str) -> None:
        """Send a counter to the host eventually; nothing waits for it."""
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
        """Whether the host has learned of a skipped step."""
        if self._word is None or (self._sent is not None and not self._sent.query()):
            return False
        count: Any = self._word.tolist()
        return bool(count > 0)
