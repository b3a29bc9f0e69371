"""The step of every method that treats one tensor at a time, with matrices for each.

A subclass says in `takes` which parameters it handles, and in `move` how one of them moves; AdamW moves the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from optim_core.base import Closure, Counting
from optim_core.descent import descend
from optim_core.fresh import gradients
from optim_core.kernels import full_precision, refuse_sparse
from optim_core.rotations.layout import widened
from optim_core.turned import FAILURES


class LayerWise(Counting):
    """An optimizer that moves each tensor by `move`, independently of the others."""

    WHOLE: ClassVar[Mapping[str, int]] = {}
    """Integer hyperparameters -> their minimum."""
    WIDENS: ClassVar[bool] = True
    """Whether `move` gets its gradient in float32 at least, or unchanged."""

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter in WHOLE that is not an integer or too small."""
        for name, least in cls.WHOLE.items():
            value = values.get(name, least)
            if not (isinstance(value, int) and value >= least):
                raise ValueError(f"{name} is {value!r}; it must be a whole number, {least} or above")

    @property
    def refresh_failures(self) -> int:
        """Decompositions that failed so far; the previous ones were kept."""
        return int(sum(group.get(FAILURES, 0) for group in self.param_groups))

    def takes(self, group: dict[str, Any], p: Tensor) -> bool:
        """Whether `move` handles the parameter; otherwise AdamW does."""
        return True

    def place_of(self, p: Tensor) -> int:
        """The number of the parameter among all groups, the same in every process."""
        return self.layers.place_of(p, self.param_groups)

    def begin(self) -> None:
        """Called once per step, after the gradient and before the first tensor moves."""

    def move(self, group: dict[str, Any], state: dict[str, Any], p: Tensor, gradient: Tensor) -> None:
        """Move `p` in place along `gradient`; persistent values go into `state`."""
        raise NotImplementedError(f"{type(self).__name__} has no move()")

    def settings_of_the_rest(self, group: dict[str, Any]) -> dict[str, Any]:
        """AdamW's settings for the parameters of a group that are not taken."""
        return {**group, "base": "adamw"}

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step; returns the loss before it."""
        loss = self.evaluate(closure)
        refuse_sparse(self.param_groups)
        self.begin()
        with self.layers.whole(self, self.takes):
            self._move_all()
        return loss

    def _move_all(self) -> None:
        for group in self.param_groups:
            rest: list[Tensor] = []
            with full_precision():
                for p in group["params"]:
                    if p.grad is None or p.numel() == 0:
                        continue
                    if self.takes(group, p):
                        self.move(group, self.state[p], p, widened(p.grad) if self.WIDENS else p.grad)
                    else:
                        rest.append(p)
            descend(self.settings_of_the_rest(group), rest, gradients(rest), self.state)
