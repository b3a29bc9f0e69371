"""The interface of a structure of the learned preconditioner U: parameters at identity, action on a gradient, clamp.

Each weight has its own block, U = blockdiag(U_0, U_1, ...). A weight is viewed as a matrix [rows, columns]: a
convolution kernel [out, in, ...] as out x rest, other weights with more than two axes as rest x last. Vectors (biases)
and the scales and shifts of normalization layers are always diagonal. In an embedding table the vocabulary side is
diagonal, and so is every side longer than `factor_limit`: a dense factor for it would cost side^2 numbers.

U is the learned inverse curvature: nothing is ever inverted (Dufort-Labbe et al. 2026, arXiv 2605.04230).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from optim_core.named import Named

_STRUCTURES: Named[type[Structure]] = Named("structure")
T = TypeVar("T", bound="type[Structure]")
Factors = dict[str, Tensor]
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True, kw_only=True)
class View:
    """A weight viewed as a matrix."""

    rows: int
    columns: int
    dense_rows: bool
    """Whether the rows' factor may be a dense matrix."""
    dense_columns: bool
    vector: bool
    """A bias, or the scale or shift of a normalization layer: elementwise only."""


class Structure:
    """U of one weight. Factors are tensors on the weight's device, in float32 or wider."""

    VECTOR: ClassVar[str] = "diagonal"
    """The structure used instead of this one for vectors."""
    ELEMENTWISE: ClassVar[bool] = False
    """Whether U g is the single factor times g, elementwise."""
    ALWAYS_POSITIVE: ClassVar[bool] = False
    """Whether U is symmetric and positive semidefinite for any values of its factors."""
    POSITIVE_IF_CLAMPED: ClassVar[bool] = False
    """Whether U is symmetric and positive semidefinite after `clamp` with `spectrum`."""

    def __init__(self, view: View) -> None:
        self.view = view

    def identity(self, like: Tensor) -> Factors:
        """Factors of U = I, on the device and in the dtype of `like`."""
        raise RuntimeError(f"{type(self).__name__} has no identity()")

    def act(self, factors: Factors, gradient: Tensor) -> Tensor:
        """U g, shaped like the gradient; differentiable in both."""
        raise RuntimeError(f"{type(self).__name__} has no act()")

    def clamp(self, factors: Factors, low: float, high: float, spectrum: bool) -> None:
        """Clamp the entries of a diagonal or scalar U to [low, high], in place, and with `spectrum` also those of the
        diagonal inside a structured U.
        """

    def matrix(self, gradient: Tensor) -> Tensor:
        """The gradient as [rows, columns]."""
        return gradient.reshape(self.view.rows, self.view.columns)


def structure(name: str) -> Callable[[T], T]:
    """Class decorator that registers a structure as `name`."""
    return _STRUCTURES.add(name)


def structures() -> list[str]:
    """All registered structures, sorted."""
    return _STRUCTURES.names()


def lookup(name: str) -> type[Structure]:
    """The structure `name`. Raises ValueError with the available ones."""
    return _STRUCTURES.value(name)


def view(weight: Tensor, owner: nn.Module, factor_limit: int) -> View:
    """The view of a weight in the module `owner`. `factor_limit` >= 1 is the longest side with a dense factor."""
    if weight.ndim < 2 or isinstance(owner, NORMS):
        return View(rows=weight.numel(), columns=1, dense_rows=False, dense_columns=False, vector=True)
    rows = weight.shape[0] if isinstance(owner, _ConvNd) else weight.numel() // max(weight.shape[-1], 1)
    columns = weight.numel() // max(rows, 1)
    table = isinstance(owner, nn.Embedding | nn.EmbeddingBag)
    return View(
        rows=rows,
        columns=columns,
        dense_rows=rows <= factor_limit and not table,
        dense_columns=columns <= factor_limit,
        vector=False,
    )


def block(name: str, weight: Tensor, owner: nn.Module, factor_limit: int) -> Structure:
    """The block of one weight with the structure `name`."""
    kind, seen = lookup(name), view(weight, owner, factor_limit)
    return lookup(kind.VECTOR)(seen) if seen.vector else kind(seen)


def ones(like: Tensor, *shape: int) -> Tensor:
    """A tensor of ones with the dtype and device of `like`."""
    return torch.ones(shape, device=like.device, dtype=like.dtype)


def eye(like: Tensor, size: int) -> Tensor:
    """The identity matrix with the dtype and device of `like`."""
    return torch.eye(size, device=like.device, dtype=like.dtype)
