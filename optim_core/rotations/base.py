"""What a rotation is: an orthogonal map of the gradients of some parameters, and back.

    h = R g,   u = R^T q,   R^T R = I                              (Zhang et al. 2024, arXiv 2410.19964, section 3.1)

A kind works on the list of an optimizer's gradients, because a global rotation mixes tensors. Rotated tensors keep the
shapes of their parameters, so that an optimizer's state looks as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

_KINDS: dict[str, type[Rotation]] = {}
T = TypeVar("T", bound="type[Rotation]")


class Rotation:
    """A fixed orthogonal map over named parameters; `block` is the width of random blocks, `seed` their seed.

    Subclasses are drawn from the names, shapes and the seed alone: not from device, order or process.
    """

    def __init__(self, params: Sequence[tuple[str, Tensor]], *, block: int, seed: int) -> None:
        self.params, self.block, self.seed = list(params), block, seed

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """R g, one tensor for each parameter, same shapes."""
        raise RuntimeError(f"{type(self).__name__} has no forward()")

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """R^T q, one tensor for each parameter, same shapes."""
        raise RuntimeError(f"{type(self).__name__} has no backward()")


def rotation(name: str) -> Callable[[T], T]:
    """Class decorator that makes a kind reachable as `name`."""

    def add(cls: T) -> T:
        if name in _KINDS:
            raise ValueError(f"rotation {name!r} is registered twice")
        _KINDS[name] = cls
        return cls

    return add


def kinds() -> list[str]:
    """All registered kinds, sorted."""
    return sorted(_KINDS)


def lookup(name: str) -> type[Rotation]:
    """The kind behind `name`. Raises ValueError with what there is."""
    if name not in _KINDS:
        raise ValueError(f"rotation is {name!r}; it has to be one of {', '.join(kinds())}")
    return _KINDS[name]
