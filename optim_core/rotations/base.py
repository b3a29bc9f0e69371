"""The interface of a rotation: an orthogonal map of the gradients of some parameters, and its inverse.

    h = R g,   u = R^T q,   R^T R = I                              (Zhang et al. 2024, arXiv 2410.19964, section 3.1)

Three verbs. `fit` learns a basis from gradients (a no-op for randomly drawn kinds), `forward` is R, `backward` is R^T.
A kind sees *pieces*: matrices [out, in] and vectors, as `layout.py` cuts them from a model. What it learns is kept in
the pieces' memory, tensors only, which the optimizer stores: a resumed run has the same basis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor

from optim_core.named import Named

_KINDS: Named[type[Rotation]] = Named("rotation")
T = TypeVar("T", bound="type[Rotation]")
PREFIX = "rotation/"
TRANSPORTS = ("carry", "mv")
UPDATES = ("auto", "before_step", "after_step")
WIDEST_BLOCK = 4096
CACHED = 1 << 16
"""Number of coordinates of which a CPU's second-level cache holds several copies."""
M_ALONE = (
    "transport 'm' alone is refused: singular vectors are reordered and change sign at a refresh, so m would be "
    "combined with a v of other coordinates and Adam's step would no longer be bounded (it diverges); use 'carry' or "
    "'mv'"
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """All options of a rotation that a sweep may choose, under the names given by `hyperparameter`. Checked on
    creation.
    """

    kind: str = "identity"
    """A registered kind."""
    block: int = 768
    """Width of random blocks, >= 1."""
    seed: int = 0
    """Seed of random rotations, >= 0, independent of the seed of data and weights."""
    run_seed: int = 0
    """Seed of the run, passed by a trial: another run, another rotation. Not a hyperparameter."""
    refresh: int = 0
    """Learned kinds: optimizer steps between refreshes of the basis, >= 1; 0: the published value of the kind."""
    update: str = "auto"
    """Learned kinds: whether a basis learns from a gradient before it rotates that gradient (before_step), or after the
    step, so that no gradient is rotated by a basis that it shaped and the first one is only used for the basis
    (after_step). auto: as published for the kind.
    """
    transport: str = "carry"
    """svd, galore: what happens to the moments at a refresh. carry: nothing; mv: both move into the new basis."""
    ema: float = 0.95
    """soap_eig: decay in [0, 1) of the running G G^T and G^T G; 0: only the current gradient."""
    rank: int = 128
    """galore: directions kept, >= 1."""
    rounds: int = 2
    """hadamard, dct, block_product: rounds, >= 1; one round of hadamard maps a unit vector to a flat one."""
    angle: float = math.pi / 4
    """givens: angle in [0, pi/4]; 0 is the identity."""
    samples: int = 32
    """egop: gradients sampled before the first step, each one gradient evaluation, >= 1."""
    max_dim: int = 4096
    """Learned kinds: the longest side of a matrix for a square basis."""
    include: str = "*"
    """Name patterns, or words such as embed, q, k, v, o, mlp_in, mlp_out, norm, bias, matrix; separated by commas."""
    exclude: str = ""
    """The same; what matches is not rotated."""
    embedding_transpose: bool = True
    """Embeddings (vocabulary, width) are stored as (in, out) and transposed first, unless tied to the head."""

    def __post_init__(self) -> None:
        lookup(self.kind)
        for name in ("block", "rank", "rounds", "samples", "max_dim"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 1):
                raise ValueError(f"{hyperparameter(name)} is {value!r}; it must be a whole number above 0")
        if not (isinstance(self.refresh, int) and self.refresh >= 0):
            raise ValueError(f"rotation_refresh is {self.refresh!r}; it must be a whole number, 1 or above (0: own)")
        if self.update not in UPDATES:
            raise ValueError(f"rotation_update is {self.update!r}; it must be one of {', '.join(UPDATES)}")
        if not (isinstance(self.seed, int) and self.seed >= 0):
            raise ValueError(f"rotation_seed is {self.seed!r}; it must be a whole number, 0 or above")
        if self.transport not in TRANSPORTS:
            why = M_ALONE if self.transport == "m" else f"it must be one of {', '.join(TRANSPORTS)}"
            raise ValueError(f"rotation_transport is {self.transport!r}; {why}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"rotation_ema is {self.ema}; it must lie in [0, 1)")
        if not 0 <= self.angle <= math.pi / 4 + 1e-9:
            raise ValueError(f"rotation_angle is {self.angle}; it must lie in [0, pi/4]")

    @property
    def key(self) -> str:
        """The key for drawing random rotations, in addition to names and sizes."""
        return f"{self.run_seed}/{self.seed}"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From hyperparameters by name; other keys are ignored, missing ones keep their defaults."""
        return cls(**{f.name: values[hyperparameter(f.name)] for f in fields(cls) if hyperparameter(f.name) in values})


def hyperparameter(option: str) -> str:
    """The hyperparameter for an option: `block` -> `rotation_block`; `kind` -> `rotation`."""
    own = {"kind": "rotation", "embedding_transpose": option, "run_seed": option}
    return own.get(option, f"rotation_{option}")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A matrix [out, in] or a vector that is rotated as a unit: a parameter, or a third of a fused query-key-value."""

    name: str
    """Name of the parameter, with the part of a fused one."""
    shape: tuple[int, ...]
    words: frozenset[str] = frozenset()
    """Words by which filters may refer to it."""
    memory: MutableMapping[str, Any] = field(default_factory=dict, repr=False)
    """Storage for learned tensors, shared by the pieces of a parameter."""
    part: str = ""

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Whether it has two sides."""
        return len(self.shape) == 2

    def get(self, key: str) -> Tensor | None:
        """A learned tensor, or None before there is one."""
        found: Tensor | None = self.memory.get(f"{PREFIX}{self.part}{key}")
        return found

    def put(self, key: str, value: Tensor) -> None:
        """Store a learned tensor."""
        self.memory[f"{PREFIX}{self.part}{key}"] = value.contiguous()


@dataclass(frozen=True, kw_only=True)
class Change:
    """How moments follow a matrix's change of basis; None on a side that does not change.

    m <- left m right;  v <- left_squared v right_squared.
    """

    left: Tensor | None
    right: Tensor | None
    left_squared: Tensor | None
    right_squared: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The result of a fit."""

    changes: list[Change | None] = field(default_factory=list)
    """For each piece how its moments move; empty if no moments move."""
    failures: int = 0
    """Bases that could not be computed; the previous one is kept (before the first: none, and the next step
    retries).
    """


class Rotation:
    """An orthogonal map over pieces. Random kinds depend only on names, shapes and seed, not on device, order or
    process.

    Rotated tensors keep the shapes of their pieces if COMPLETE.
    """

    MIXES: ClassVar[bool] = False
    """Mixes coordinates of different tensors, which then share their hyperparameters."""
    COMPLETE: ClassVar[bool] = True
    """R^T R = I. False: only R R^T = I, a projection onto a subspace."""
    VECTORS: ClassVar[bool] = True
    """Also rotates vectors; False: only matrices."""

    def __init__(self, pieces: Sequence[Piece], options: Options) -> None:
        self.pieces, self.options = list(pieces), options

    @classmethod
    def samples(cls, options: Options) -> int:
        """Gradients sampled once before the first step, each charged as a gradient evaluation."""
        return 0

    @property
    def fits_after(self) -> bool:
        """Whether `fit` comes after the step, with the gradient used by the step."""
        return False

    def lacks_basis(self, index: int) -> bool:
        """Whether a piece must learn a basis before it can be rotated."""
        return False

    def samples_due(self, step: int) -> int:
        """Gradients at sampled weights that `fit` needs at this step (counted from 1) instead of the current one."""
        return 0

    def refreshes(self, step: int) -> bool:
        """Whether `fit` computes a basis at this step (counted from 1)."""
        return self.samples_due(step) > 0

    def learns(self, step: int) -> bool:
        """Whether `fit` has anything to learn at this step."""
        return self.refreshes(step)

    def fit(self, samples: Sequence[Sequence[Tensor]], step: int, skipped: Tensor | None = None) -> Fitted:
        """Learn from one gradient (or the sampled ones) of all pieces. A no-op for a random kind.

        `skipped` tells the device not to learn anything; None whenever `refreshes`.
        """
        return Fitted()

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """R g, one tensor for each piece."""
        raise RuntimeError(f"{type(self).__name__} has no forward()")

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """R^T q, one tensor for each piece."""
        raise RuntimeError(f"{type(self).__name__} has no backward()")


class FlatMap:
    """An orthogonal map of a flat vector [d] by fixed tensors, which follow the vector's dtype and device."""

    def __init__(self) -> None:
        self._ready: tuple[torch.dtype, torch.device] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """R x."""
        raise RuntimeError(f"{type(self).__name__} has no forward()")

    def backward(self, x: Tensor) -> Tensor:
        """R^T x."""
        raise RuntimeError(f"{type(self).__name__} has no backward()")

    def follow(self, x: Tensor) -> None:
        """Move own tensors to the device of `x`, floating-point ones (except signs) to its dtype."""
        if self._ready != (x.dtype, x.device):
            for name, value in vars(self).items():
                if isinstance(value, Tensor):
                    setattr(self, name, value.to(x) if value.is_floating_point() else value.to(x.device))
            self._ready = (x.dtype, x.device)


def stretches(d: int, width: int, device: torch.device) -> list[slice]:
    """0..d cut at multiples of `width`: on a CPU so that a stretch and its temporaries stay in cache; otherwise one."""
    length = max(1, CACHED // width) * width if device.type == "cpu" else max(d, 1)
    return [slice(first, min(first + length, d)) for first in range(0, d, length)]


def rotation(name: str) -> Callable[[T], T]:
    """Class decorator that registers a kind as `name`."""
    return _KINDS.add(name)


def kinds() -> list[str]:
    """All registered kinds, sorted."""
    return _KINDS.names()


def lookup(name: str) -> type[Rotation]:
    """The kind `name`. Raises ValueError with the available ones."""
    return _KINDS.value(name)
