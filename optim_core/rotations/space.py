"""The rotated space of one parameter group: layout, kind and learned state, in terms of whole parameters.

rotated = space.forward(gradients);   updates = space.backward(steps);   moments = space.moved(moments, power)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from optim_core.kernels import full_precision
from optim_core.rotations.base import PREFIX, Change, Options, lookup
from optim_core.rotations.layout import Layout, widened

Sample = Callable[[int], list[list[Tensor]]]


class Space:
    """A rotation over named parameters; `state` is the optimizer's, from which learned tensors are restored."""

    def __init__(
        self,
        named: Sequence[tuple[str, Tensor]],
        options: Options,
        words: Mapping[str, frozenset[str]],
        state: Mapping[Tensor, Mapping[str, Any]],
    ) -> None:
        kind = lookup(options.kind)
        self.names, self.params = tuple(name for name, _ in named), [p for _, p in named]
        self.memory = {p: {k: v for k, v in state.get(p, {}).items() if k.startswith(PREFIX)} for p in self.params}
        self.layout = Layout(named, options, words, self.memory, vectors=kind.VECTORS)
        self.rotation = kind(self.layout.pieces, options)
        self.is_identity = options.kind == "identity"
        self._changes: list[Change | None] = []
        self._shapes: list[tuple[int, ...]] | None = None

    def samples_due(self, step: int) -> int:
        """Gradients at sampled weights that step number `step` (from 1) takes first."""
        return self.rotation.samples_due(step)

    @property
    def fits_after(self) -> bool:
        """Whether the kind learns after the step."""
        return self.rotation.fits_after

    def without_basis(self) -> list[Tensor]:
        """Parameters with a piece that must learn a basis before it can be rotated."""
        missing = {id(p.memory) for i, p in enumerate(self.layout.pieces) if self.rotation.lacks_basis(i)}
        return [p for p in self.params if id(self.memory[p]) in missing]

    def is_rotated(self, p: Tensor) -> bool:
        """Whether the parameter has a piece that rotates."""
        return any(piece.memory is self.memory[p] for piece in self.layout.pieces)

    @full_precision()
    def fit(self, gradients: Sequence[Sequence[Tensor]], step: int, skipped: Tensor | None = None) -> int:
        """Let the kind learn from gradients of the parameters; returns the number of bases that could not be
        computed.
        """
        fitted = self.rotation.fit([self.layout.split(g) for g in gradients], step, skipped)
        self._changes = fitted.changes
        return fitted.failures

    def learns(self, step: int) -> bool:
        """Whether `fit` learns anything at step number `step` (from 1)."""
        return self.rotation.learns(step)

    def refreshes(self, step: int) -> bool:
        """Whether `fit` computes a basis at that step."""
        return self.rotation.refreshes(step)

    @full_precision()
    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """R g in the parameters' shapes (flat or smaller if a kind keeps only part of the space).

        In float32 at least, also for unrotated parameters: optimizers' moments are not kept in bfloat16.
        """
        return self.turn(tensors)

    @full_precision()
    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """R^T q in the parameters' shapes and dtypes; after a `forward`, whose shapes it undoes."""
        return self.turn_back(tensors)

    def turn(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """`forward` at the current precision setting."""
        pieces = self.rotation.forward(self.layout.split(tensors))
        self._shapes = [tuple(p.shape) for p in pieces]
        return self.layout.join([widened(t) for t in tensors], pieces)

    def turn_back(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """`backward` at the current precision setting."""
        pieces, originals = self.layout.split_rotated(tensors, self.shapes)
        joined = self.layout.join(originals, self.rotation.backward(pieces))
        return [u.view_as(p).to(p.dtype) for u, p in zip(joined, self.params, strict=True)]

    @property
    def has_changed(self) -> bool:
        """Whether moments must move, because the last `fit` changed a basis and `settle` has not been called since."""
        return any(c is not None for c in self._changes)

    def settle(self) -> None:
        """All moments have moved."""
        self._changes = []

    @full_precision()
    def moved(self, moments: Sequence[Tensor], *, squared: bool) -> list[Tensor]:
        """First moments (or second ones: `squared`) in the basis of the last `fit`, from the previous one."""
        pieces, originals = self.layout.split_rotated(moments, self.shapes)
        moving = [p if c is None else _moved(p, c, squared) for p, c in zip(pieces, self._changes, strict=True)]
        return self.layout.join(originals, moving)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the rotated pieces."""
        if self._shapes is None:
            self.forward(self.params)
        assert self._shapes is not None
        return self._shapes


def _moved(t: Tensor, change: Change, squared: bool) -> Tensor:
    left = change.left_squared if squared else change.left
    right = change.right_squared if squared else change.right
    t = t if left is None else left.to(t) @ t
    return t if right is None else t @ right.to(t)
