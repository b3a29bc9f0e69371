"""Structured approximations of a global Haar rotation: T rounds of permutation and a cheap block map.

    hadamard:       x -> H (s * x[order]),  H = blockdiag(H_n, ...) / sqrt(n), n a power of two, s random signs
    dct:            the same with the orthonormal DCT-II in blocks of any width
    block_product:  x -> blockdiag(Haar) x[order], a new order and a new Haar block in each round

One round of `hadamard` maps a unit vector to a perfectly flat one; two are close to Haar for single coordinates (not
for their joint distribution). Memory: d one-byte signs per round and one order of d, compared with n^2 + d for
`global`; block_product T (n^2 + d).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from optim_core.rotations.base import FlatMap, rotation, stretches
from optim_core.rotations.flat import Flat
from optim_core.rotations.haar import BlockRotation, Order, gathered, generator


def hadamard(x: Tensor) -> Tensor:
    """Orthonormal Walsh-Hadamard transform along the last axis, of length 2^k; its own inverse.

    H_(a b) = H_a kron H_b: two products with matrices of about sqrt(n) instead of k passes over memory.
    """
    n = x.shape[-1]
    a = 1 << (n.bit_length() - 1) // 2
    b = n // a
    left, right = (_in_a_graph(_hadamard_matrix)(size, x.dtype, x.device) for size in (a, b))
    product: Tensor = left @ (x.reshape(-1, b) @ right).view(-1, a, b)
    return product.view(x.shape)


def dct(x: Tensor) -> Tensor:
    """Orthonormal DCT-II along the last axis of length n, by one real FFT (Makhoul 1980), in the cheapest orders.

    Entries are expected as 0, 2, 4, .., 5, 3, 1, and coefficients are returned as 0 .. n // 2, n - 1, n - 2, ..: the
    random orders before and after make these orders as good as any. With X the spectrum, y_k - i y_(n - k) = X_k w_k
    for k <= n / 2.
    """
    n = x.shape[-1]
    turned = torch.fft.rfft(x, dim=-1).mul_(_in_a_graph(_twiddle)(n, x.dtype, x.device)[0])
    return torch.cat([turned.real, -turned.imag[..., 1 : (n + 1) // 2]], dim=-1)


def inverse_dct(y: Tensor) -> Tensor:
    """The inverse, and transpose, of `dct`."""
    n = y.shape[-1]
    half = n // 2 + 1
    spectrum = torch.complex(y[..., :half], F.pad(-y[..., half:], (1, 1 - n % 2)))
    if n % 2 == 0:
        spectrum.imag[..., -1] = -y[..., half - 1]
    found: Tensor = torch.fft.irfft(spectrum.mul_(_in_a_graph(_twiddle)(n, y.dtype, y.device)[1]), n=n, dim=-1)
    return found


def _in_a_graph(cached: Any) -> Any:
    """A cached function, without its cache while torch compiles, which would warn about it."""
    return cached.__wrapped__ if torch.compiler.is_compiling() else cached


@lru_cache(maxsize=32)
def _hadamard_matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    found = torch.ones(1, 1, dtype=torch.float64, device="cpu")
    step = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64, device="cpu") / math.sqrt(2)
    while len(found) < n:
        found = torch.kron(found, step)
    return found.to(device=device, dtype=dtype)


@lru_cache(maxsize=32)
def _twiddle(n: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """w_k = sqrt(2 / n) exp(-i pi k / 2n), complex [n // 2 + 1], the first one sqrt(1 / n); and 1 / w_k."""
    k = torch.arange(n // 2 + 1, dtype=torch.float64, device="cpu")
    size = torch.full_like(k, math.sqrt(2 / n))
    size[0] = math.sqrt(1 / n)
    w = torch.polar(size, -k * (math.pi / (2 * n)))
    return w.to(device=device, dtype=dtype.to_complex()), (1 / w).to(device=device, dtype=dtype.to_complex())


class SignedRounds(FlatMap):
    """Rounds of order, signs and an orthonormal transform in the blocks `widths` (which sum to d)."""

    def __init__(
        self,
        d: int,
        widths: list[tuple[int, int]],
        transforms: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]],
        *,
        rounds: int,
        key: str,
    ) -> None:
        """`widths`: (number of blocks, width) in the order of the coordinates."""
        super().__init__()
        self._widths, self._transforms = widths, transforms
        self._order = Order(d, "order", key, "rounds")
        coins = torch.randint(0, 2, (rounds, d), generator=generator("signs", key), dtype=torch.int8, device="cpu")
        self._signs = 2 * coins - 1

    def forward(self, x: Tensor) -> Tensor:
        """T rounds."""
        self.follow(x)
        self._order.to(x.device)
        for signs in self._signs:
            y = torch.empty_like(x)
            for where, width in self._stretches(x.device):
                mixed = gathered(x, self._order.there[where]).mul_(signs[where])
                y[where] = self._transforms[0](mixed.view(-1, width)).view(-1)
            x = y
        return x

    def backward(self, x: Tensor) -> Tensor:
        """The rounds in reverse."""
        self.follow(x)
        self._order.to(x.device)
        for signs in self._signs.flip(0):
            y = torch.empty_like(x)
            for where, width in self._stretches(x.device):
                torch.mul(self._transforms[1](x[where].view(-1, width)).view(-1), signs[where], out=y[where])
            x = gathered(y, self._order.back)
        return x

    def _stretches(self, device: torch.device) -> list[tuple[slice, int]]:
        found, first = [], 0
        for count, width in self._widths:
            parts = stretches(count * width, width, device)
            found += [(slice(first + part.start, first + part.stop), width) for part in parts]
            first += count * width
        return found


class BlockRounds(FlatMap):
    """Rounds of block-permuted Haar rotations."""

    def __init__(self, d: int, block: int, *, rounds: int, key: str) -> None:
        super().__init__()
        self._rounds = [BlockRotation(d, block, key=f"{key}/{t}", name=f"round {t}") for t in range(rounds)]

    def forward(self, x: Tensor) -> Tensor:
        """T rounds."""
        for turn in self._rounds:
            x = turn.forward(x)
        return x

    def backward(self, x: Tensor) -> Tensor:
        """The rounds in reverse."""
        for turn in reversed(self._rounds):
            x = turn.backward(x)
        return x


@rotation("hadamard")
class Hadamard(Flat):
    """Blocks of the largest power of two up to `rotation_block`, the rest in smaller powers of two."""

    def make(self, d: int) -> FlatMap:
        """`rotation_block` 768 gives blocks of 512."""
        width = 1 << self.options.block.bit_length() - 1
        widths = [(d // width, width)] if d >= width else []
        rest = d - sum(count * w for count, w in widths)
        widths += [(1, 1 << bit) for bit in reversed(range(rest.bit_length())) if rest >> bit & 1]
        return SignedRounds(d, widths, (hadamard, hadamard), rounds=self.options.rounds, key=self.options.key)


@rotation("dct")
class Dct(Flat):
    """Blocks of `rotation_block` and a shorter one at the end."""

    def make(self, d: int) -> FlatMap:
        """One more block if the width does not divide d."""
        width = min(self.options.block, d)
        widths = [(d // width, width)] + ([(1, d % width)] if d % width else [])
        return SignedRounds(d, widths, (dct, inverse_dct), rounds=self.options.rounds, key=self.options.key)


@rotation("block_product")
class BlockProduct(Flat):
    """Rounds of Haar blocks: with T >= 2, coordinates of different blocks mix."""

    def make(self, d: int) -> FlatMap:
        """`rotation_rounds` rotations as in `global`."""
        return BlockRounds(d, self.options.block, rounds=self.options.rounds, key=self.options.key)
