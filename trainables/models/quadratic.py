"""Quadratic models whose whole course is recorded, so that rates can be fitted and compared with theory.

f(x) = 1/2 (x - x*)' H (x - x*), with the metrics M_0 = |x - x*|^2, M_1 = 2 (f - f*), M_2 = |grad f|^2. `spectrum` says
what is known of H; average-case methods take `auto` values from it. Float64 throughout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Recorded(nn.Module):
    """Keeps M_0, M_1, M_2 of every iterate it is asked to record; they are part of its state."""

    spectrum: Mapping[str, float]
    """smoothness, strong_convexity, and the exponents of the density at its edges where they are known."""

    def __init__(self) -> None:
        super().__init__()
        self._history: list[list[float]] = []

    def measures(self) -> Tensor:
        """M_0, M_1, M_2 of the weights as they stand, [3]."""
        raise RuntimeError(f"{type(self).__name__} has no measures()")

    def modes(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues [n] of H, and squared components [n] of the start's distance to the minimum along them."""
        raise RuntimeError(f"{type(self).__name__} has no modes()")

    @torch.no_grad()
    def record(self) -> None:
        """Add the weights as they stand: call once for each iterate."""
        self._history.append(self.measures().tolist())

    @torch.no_grad()
    def history(self) -> Tensor:
        """M_0, M_1, M_2 of iterates 0 to t, [t + 1, 3]: what was recorded, and the weights as they stand."""
        return torch.tensor([*self._history, self.measures().tolist()], dtype=torch.float64)

    def get_extra_state(self) -> Tensor:
        """The history, for checkpoints."""
        return torch.tensor(self._history, dtype=torch.float64).reshape(-1, 3)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from a checkpoint."""
        self._history = state.tolist()

    def relative(self) -> dict[str, float]:
        """log10 of M_l now over M_l at the start, at least -300."""
        course = self.history()
        ratios = (course[-1] / course[0]).tolist()
        names = ("distance", "objective", "gradient")
        return {
            f"{n}/log10": math.log10(max(r, 1e-300)) if r == r else math.inf for n, r in zip(names, ratios, strict=True)
        }


class Quadratic(Recorded):
    """x* = 0, eigenvalues [n]; `components` [n] of the start along the eigenvectors.

    `signs` [n] of +-1 turn the eigenvectors away from the axes: Q = Hartley transform times signs, dense, orthogonal,
    O(n log n). Without, H is diagonal.
    """

    eigenvalues: Tensor
    components: Tensor
    signs: Tensor | None

    def __init__(
        self, eigenvalues: Tensor, components: Tensor, spectrum: Mapping[str, float], signs: Tensor | None = None
    ) -> None:
        super().__init__()
        self.spectrum = spectrum
        self.register_buffer("eigenvalues", eigenvalues)
        self.register_buffer("components", components)
        self.register_buffer("signs", signs)
        start = components.clone()
        self.at = nn.Parameter(start if signs is None else signs * hartley(start))

    def forward(self, inputs: Any) -> Tensor:
        """The value at the weights; there is no data."""
        along = self._along()
        return 0.5 * (self.eigenvalues * along * along).sum()

    def measures(self) -> Tensor:
        """M_0, M_1, M_2, [3]."""
        squares = self._along().square()
        weighted = self.eigenvalues * squares
        return torch.stack([squares.sum(), weighted.sum(), torch.dot(self.eigenvalues, weighted)])

    def modes(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and squared components of the start."""
        return self.eigenvalues, self.components.square()

    def _along(self) -> Tensor:
        return self.at if self.signs is None else hartley(self.signs * self.at)


def hartley(x: Tensor) -> Tensor:
    """Orthogonal, symmetric, its own inverse: sum_k x_k (cos + sin)(2 pi j k / n) / sqrt n."""
    found: Tensor = torch.fft.fft(x, norm="ortho")
    return found.real - found.imag
