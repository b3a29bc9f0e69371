"""SAM variants whose step combines both gradients, the one at w and the one at w + epsilon.

Under `DistributedDataParallel` all workers climb along the averaged gradient, because the same g is used in the step.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from optim_core.base import Params
from optim_core.sam import SAM


class Combined(SAM):
    """`combine` finds each parameter's gradient at w in `_first`."""

    SELECTS = True
    SETTLED: ClassVar = frozenset({"workers"})

    def __init__(self, params: Params, **of_sam: Any) -> None:
        super().__init__(params, workers="synchronised", **of_sam)
        self._first: dict[Tensor, Tensor] = {}

    def climb(self, params: list[list[Tensor]], home: list[list[Tensor]], grads: list[list[Tensor]]) -> bool:
        """As in SAM; the gradient is kept for the step."""
        self._first = {p: g for ps, gs in zip(params, grads, strict=True) for p, g in zip(ps, gs, strict=True)}
        return super().climb(params, home, grads)
