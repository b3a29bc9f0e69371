"""Random numbers that are a function of a seed and a place, so that a resumed or a sharded run draws the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def normal(shape: Sequence[int], like: Tensor, *place: int) -> Tensor:
    """Standard normal numbers, dtype and device of `like`, drawn anew for every `place` (seed, step, ..)."""
    digest = hashlib.sha256(repr(place).encode()).digest()
    generator = torch.Generator(device=like.device).manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    return torch.randn(tuple(shape), generator=generator, dtype=like.dtype, device=like.device)
