"""Haar-distributed orthogonal matrices, whole and in permuted blocks (arXiv 2410.19964, appendix A).

    A = Q T (QR of iid normal entries),  R = Q diag(sign T_jj)                                   (Mezzadri 2007)

Without the sign fix Q is not Haar. Drawn on the CPU in float64, then cast, so R does not depend on the device.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Tensor

from optim_core.rotations.base import WIDEST_BLOCK, FlatMap, stretches


def generator(*key: object) -> torch.Generator:
    """A generator seeded by a stable 63-bit hash of the key."""
    digest = hashlib.blake2b("/".join(str(part) for part in key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def permutation(d: int, *key: object) -> Tensor:
    """A random order of d coordinates [d], int32 if it fits, the same for the same key."""
    order = torch.randperm(d, generator=generator(*key), device="cpu")
    return order.to(torch.int32) if d < 2**31 else order


def normal_matrix(n: int, *key: object) -> Tensor:
    """Independent standard normal entries [n, n] in float64, the same for the same key."""
    return torch.randn(n, n, generator=generator(*key), dtype=torch.float64, device="cpu")


def orthogonalized(normal: Tensor) -> Tensor:
    """The orthogonal factor of [n, n] with the sign fix: Haar if the entries are independent and normal."""
    q, t = torch.linalg.qr(normal)
    signs = torch.where(t.diagonal() < 0, -1.0, 1.0).to(q.dtype)
    found: Tensor = (q * signs).contiguous()
    return found


@lru_cache(maxsize=8)
def haar(n: int, *key: object) -> Tensor:
    """An orthogonal [n, n] float64 matrix, the same for the same key. Treat as read-only; costs O(n^3) once.

    Raises ValueError above 4096^2 numbers (128 MiB).
    """
    if n > WIDEST_BLOCK:
        raise ValueError(
            f"a random block of width {n} exceeds the limit of {WIDEST_BLOCK} (128 MiB and n^3 operations to draw); "
            "choose a smaller rotation_block (results stop changing well below 768)"
        )
    return orthogonalized(normal_matrix(n, "haar", n, *key))


@lru_cache(maxsize=32)
def haar_as(n: int, dtype: torch.dtype, device: torch.device, *key: object) -> Tensor:
    """`haar` cast and moved, one copy for all maps that share it."""
    return haar(n, *key).to(device=device, dtype=dtype)


class Order:
    """A random order of coordinates and its inverse: two gathers are faster than a gather and a scatter."""

    def __init__(self, d: int, *key: object) -> None:
        self.there = permutation(d, *key)
        self.back = torch.argsort(self.there).to(self.there.dtype)

    def to(self, device: torch.device) -> None:
        """Move to a device, in place."""
        self.there, self.back = self.there.to(device), self.back.to(device)


def gathered(x: Tensor, order: Tensor) -> Tensor:
    """x[order] of a vector; on a CPU in stretches with wide indices, which torch gathers faster than narrow ones."""
    if x.device.type != "cpu":
        return x.index_select(0, order)
    y = torch.empty(len(order), dtype=x.dtype, device=x.device)
    for where in stretches(len(order), 1, x.device):
        torch.index_select(x, 0, order[where].long(), out=y[where])
    return y


class BlockRotation(FlatMap):
    """Acts on one axis of length d: a permutation, then blocks of width n that share one Haar matrix, and a tail.

    The outer permutation of the exact formula is omitted in both directions: elementwise optimizers are invariant to
    it. Memory n^2 numbers, shared by all blocks and tensors with the same n, and an order of d; 2 n d operations per
    line.
    """

    def __init__(self, d: int, block: int, *, key: str, name: str) -> None:
        super().__init__()
        self._d, self._n = d, min(block, d)
        self._full = d // self._n * self._n
        self._key, self._shared = key, haar(self._n, key, "shared")
        self._tail = haar(d - self._full, key, "tail") if self._full < d else None
        self._order = Order(d, "order", key, name) if self._n < d else None

    def follow(self, x: Tensor) -> None:
        """Use the shared matrices in the dtype and on the device of `x`."""
        if self._ready != (x.dtype, x.device):
            self._shared = haar_as(self._n, x.dtype, x.device, self._key, "shared")
            if self._tail is not None:
                self._tail = haar_as(self._d - self._full, x.dtype, x.device, self._key, "tail")
            if self._order is not None:
                self._order.to(x.device)
            self._ready = (x.dtype, x.device)

    def forward(self, x: Tensor) -> Tensor:
        """R along the first axis of x [d] or [d, lines]."""
        self.follow(x)
        if self._order is not None:
            x = gathered(x, self._order.there) if x.ndim == 1 else x.index_select(0, self._order.there)
        return self._blocks(x, transpose=False)

    def backward(self, x: Tensor) -> Tensor:
        """R^T along the first axis of x [d] or [d, lines]."""
        self.follow(x)
        y = self._blocks(x, transpose=True)
        if self._order is None:
            return y
        return gathered(y, self._order.back) if y.ndim == 1 else y.index_select(0, self._order.back)

    def forward_rows(self, x: Tensor) -> Tensor:
        """R along the last axis of x [lines, d]."""
        self.follow(x)
        return self._row_blocks(x if self._order is None else x.index_select(1, self._order.there), transpose=False)

    def backward_rows(self, x: Tensor) -> Tensor:
        """R^T along the last axis of x [lines, d]."""
        self.follow(x)
        y = self._row_blocks(x, transpose=True)
        return y if self._order is None else y.index_select(1, self._order.back)

    def _blocks(self, x: Tensor, *, transpose: bool) -> Tensor:
        if x.ndim == 1:
            return self._row_blocks(x[None], transpose=transpose)[0]
        matrix = self._shared.T if transpose else self._shared
        if self._tail is None:
            return (matrix @ x.view(-1, self._n, x.shape[1])).view(x.shape)
        y = torch.empty_like(x)
        torch.matmul(
            matrix, x[: self._full].view(-1, self._n, x.shape[1]), out=y[: self._full].view(-1, self._n, x.shape[1])
        )
        torch.mm(self._tail.T if transpose else self._tail, x[self._full :], out=y[self._full :])
        return y

    def _row_blocks(self, x: Tensor, *, transpose: bool) -> Tensor:
        matrix = self._shared if transpose else self._shared.T
        head = (x[:, : self._full].reshape(-1, self._n) @ matrix).view(x.shape[0], self._full)
        if self._tail is None:
            return head
        return torch.cat([head, x[:, self._full :] @ (self._tail if transpose else self._tail.T)], dim=1)
