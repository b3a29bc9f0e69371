"""Haar-distributed orthogonal matrices, whole and in permuted blocks (arXiv 2410.19964, appendix A).

    A = Q T (QR of iid normal entries),  R = Q diag(sign T_jj)                                   (Mezzadri 2007)

Without the sign fix Q is not Haar. Drawn on the CPU in float64, then cast, so that R does not depend on the device.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Tensor


def generator(*key: object) -> torch.Generator:
    """A generator seeded by a stable 63-bit hash of the key."""
    digest = hashlib.blake2b("/".join(str(part) for part in key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@lru_cache(maxsize=64)
def haar(n: int, *key: object) -> Tensor:
    """An orthogonal [n, n] float64 matrix, the same for the same key. Treat as read-only; cost O(n^3), once."""
    normal = torch.randn(n, n, generator=generator("haar", n, *key), dtype=torch.float64)
    q, t = torch.linalg.qr(normal)
    signs = torch.where(t.diagonal() < 0, -1.0, 1.0).to(q.dtype)
    rotation: Tensor = (q * signs).contiguous()
    return rotation


class BlockRotation:
    """Acts on the last axis [.., d]: a permutation, then blocks of width n that share one Haar matrix, and a tail.

    The outer permutation of the exact formula is left out in both directions: elementwise optimizers do not see it.
    Memory n^2 + d; 2 n d multiplications for each row.
    """

    def __init__(self, d: int, block: int, *, seed: int, name: str) -> None:
        self._d, self._n = d, min(block, d)
        self._full = d // self._n * self._n
        self._shared = haar(self._n, seed, "shared")
        self._tail = haar(d - self._full, seed, "tail") if self._full < d else None
        self._order = torch.randperm(d, generator=generator("order", seed, name)) if self._n < d else None
        self._inverse = torch.argsort(self._order) if self._order is not None else None
        self._ready: tuple[torch.dtype, torch.device] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """R x along the last axis."""
        self._cast(x)
        return self._blocks(x if self._order is None else x[..., self._order], transpose=False)

    def backward(self, x: Tensor) -> Tensor:
        """R^T x along the last axis."""
        self._cast(x)
        y = self._blocks(x, transpose=True)
        return y if self._inverse is None else y[..., self._inverse]

    def _blocks(self, x: Tensor, *, transpose: bool) -> Tensor:
        matrix = self._shared if transpose else self._shared.T
        head = x[..., : self._full].reshape(*x.shape[:-1], -1, self._n) @ matrix
        head = head.reshape(*x.shape[:-1], self._full)
        if self._tail is None:
            return head
        return torch.cat([head, x[..., self._full :] @ (self._tail if transpose else self._tail.T)], dim=-1)

    def _cast(self, x: Tensor) -> None:
        if self._ready == (x.dtype, x.device):
            return
        self._shared = self._shared.to(x)
        self._tail = None if self._tail is None else self._tail.to(x)
        if self._order is not None and self._inverse is not None:
            self._order, self._inverse = self._order.to(x.device), self._inverse.to(x.device)
        self._ready = (x.dtype, x.device)
