"""NorMuon: Muon whose update is normalized neuron by neuron (Li et al. 2025, arXiv 2510.05491).

    O = NS(M) as in `muon`;   v_i <- normuon_beta2 v_i + (1 - normuon_beta2) mean_j O_ij^2   for every row i
    O~ = O / (sqrt(v) + 1e-10), row by row;   W <- (1 - lr weight_decay) W - lr s O~ |O|_F / |O~|_F

Rows of O differ in length although its singular values hardly do; v equalizes them over time while the Frobenius norm
is preserved. Agrees step by step with the authors' code (github.com/zichongli5/NorMuon) on matrices, see
tests/golden/agreement. A convolution filter is one row here, where that code averages only over the width of the
kernel. Memory, besides Muon's: one number per row.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from optim_core.base import Params
from optim_core.declarations import SHARE, Limit
from optim_core.muon import Muon
from optim_core.registry import register
from optim_core.rotations.layout import widened

FLOOR = 1e-10


@register("normuon")
class NorMuon(Muon):
    """As `muon`; normuon_beta2 in [0, 1], where 1 (rows are never averaged) is `muon` itself."""

    CHANGEABLE = Muon.CHANGEABLE | {"normuon_beta2"}
    BOUNDS: ClassVar = {**Muon.BOUNDS, "normuon_beta2": SHARE}
    LIMITS = (Limit(equals="muon", at={"normuon_beta2": 1.0}),)

    def __init__(self, params: Params, *, normuon_beta2: float = 0.95, **of_muon: Any) -> None:
        self.check_values(normuon_beta2=normuon_beta2)
        super().__init__(params, **of_muon)
        self.also(normuon_beta2=normuon_beta2)

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter outside its range."""
        super().check_values(**values)
        if not 0 <= values.get("normuon_beta2", 0) <= 1:
            raise ValueError(f"normuon_beta2 is {values['normuon_beta2']}; it must lie in [0, 1]")

    def direction(self, group: dict[str, Any], state: dict[str, Any], update: Tensor) -> Tensor:
        """Rows equalized by their running mean square."""
        if group["normuon_beta2"] == 1:
            return update
        wide = widened(update)
        lengths = wide.square().mean(dim=1, keepdim=True)
        squares = state.setdefault("neuron_square", torch.zeros_like(lengths))
        squares.lerp_(lengths, 1 - group["normuon_beta2"])
        even: Tensor = wide / (squares.sqrt() + FLOOR)
        scale: Tensor = torch.linalg.matrix_norm(wide) / (torch.linalg.matrix_norm(even) + FLOOR)
        return even * scale
