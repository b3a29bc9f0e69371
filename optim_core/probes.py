"""Random numbers as functions of a seed and a place, so that resumed and sharded runs draw the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def normal(shape: Sequence[int], like: Tensor, *place: int) -> Tensor:
    """Standard normal numbers with the dtype and device of `like`, different for every `place` (seed, step, ..)."""
    return torch.randn(tuple(shape), generator=_at(like, place), dtype=like.dtype, device=like.device)


def bits(shape: Sequence[int], like: Tensor, *place: int) -> Tensor:
    """Uniform 16-bit integers, int32, on the device of `like`, different for every `place`."""
    return torch.randint(1 << 16, tuple(shape), generator=_at(like, place), dtype=torch.int32, device=like.device)


def _at(like: Tensor, place: tuple[int, ...]) -> torch.Generator:
    digest = hashlib.sha256(repr(place).encode()).digest()
    return torch.Generator(device=like.device).manual_seed(int.from_bytes(digest[:8], "big", signed=True))
