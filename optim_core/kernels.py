"""Assumptions of torch's kernels: memory order of their arguments, dense gradients, float32 products.

Fused kernels traverse memory and ignore strides: a gradient or a moment stored in another order than its parameter
(`channels_last` weights, a transposed view) is paired with the wrong coordinates, without an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from optim_core.sharded import is_sharded


def stored_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor in the memory order of `like`, of the same shape; itself if it already is."""
    if tensor.shape != like.shape or tensor.stride() == like.stride():
        return tensor
    return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)


def all_stored_like(tensors: Sequence[Tensor], likes: Sequence[Tensor]) -> list[Tensor]:
    """`stored_like` for each pair."""
    return [stored_like(t, like) for t, like in zip(tensors, likes, strict=True)]


def has_gaps(p: Tensor) -> bool:
    """Whether its numbers have gaps between them in memory, as a column of a matrix has, or share it."""
    return not p.is_contiguous() and sum((n - 1) * s for n, s in zip(p.shape, p.stride(), strict=True)) + 1 != p.numel()


def is_plain(p: Tensor) -> bool:
    """Whether fused kernels accept it: real, dense, and without gaps or overlaps in memory."""
    return p.layout == torch.strided and p.is_floating_point() and not has_gaps(p)


@contextmanager
def without_gaps(params: Iterable[Tensor]) -> Iterator[None]:
    """Within this context, parameters with gaps in memory hold their numbers without; after it, where they were.

    A fused kernel would read and write what lies in the gaps.
    """
    apart = [(p, p.data) for p in params if p.layout == torch.strided and not is_sharded(p) and has_gaps(p)]
    for p, home in apart:
        p.data = home.contiguous()
    try:
        yield
    finally:
        for p, home in apart:
            home.copy_(p.data)
            p.data = home


def refuse_sparse(groups: Iterable[Mapping[str, Any]]) -> None:
    """Raise RuntimeError, naming the parameter, if any gradient of these parameter groups is sparse.

    To be called before the first parameter moves, so that a refused step changes nothing.
    """
    for group in groups:
        for i, p in enumerate(group["params"]):
            if p.grad is not None and p.grad.layout != torch.strided:
                name = group["param_names"][i] if "param_names" in group else f"a parameter {tuple(p.shape)}"
                raise RuntimeError(f"the gradient of {name} is sparse; a dense one is needed (sparse=False)")


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply float32 matrices in float32: no TF32, no bfloat16 passes, no autocast, whatever the user has set.

    Reduced precision destroys the orthogonality of a rotation (round trips are off by 1e-2) and of the input to QR.
    """
    with ExitStack() as undo:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                undo.enter_context(torch.autocast(device, enabled=False))
        _exact_products(undo)
        yield


def _exact_products(undo: ExitStack) -> None:
    """Switch both of torch's interfaces to full float32; the older one raises if they disagree."""
    switches: tuple[Any, Any] = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    try:
        older = torch.get_float32_matmul_precision()
    except RuntimeError:
        older = ""
    if older == "highest":
        return

    def restore() -> None:
        if older:
            torch.set_float32_matmul_precision(older)
        for switch, value in zip(switches, before, strict=True):
            if switch.fp32_precision != value:
                switch.fp32_precision = value

    undo.callback(restore)
    if older:
        torch.set_float32_matmul_precision("highest")
    else:
        for switch in switches:
            switch.fp32_precision = "ieee"
