"""Quadratic models that record their whole trajectory, so that rates can be fitted and compared with theory.

f(x) = 1/2 (x - x*)' H (x - x*), with the metrics M_0 = |x - x*|^2, M_1 = 2 (f - f*), M_2 = |grad f|^2. `spectrum` holds
what is known about H; average-case methods take `auto` values from it. Always float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Recorded(nn.Module):
    """Records M_0, M_1, M_2 of iterates on request; they are part of its state."""

    spectrum: Mapping[str, float]
    """smoothness, strong_convexity, and the exponents of the density at its edges if known."""

    def __init__(self) -> None:
        super().__init__()
        self._history: list[list[float]] = []

    def measures(self) -> Tensor:
        """M_0, M_1, M_2 of the current weights, [3]."""
        raise RuntimeError(f"{type(self).__name__} has no measures()")

    def modes(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues [n] of H, and squared components [n] of the start's distance to the minimum along the
        eigenvectors.
        """
        raise RuntimeError(f"{type(self).__name__} has no modes()")

    @torch.no_grad()
    def record(self) -> None:
        """Record the current weights: call once per iterate."""
        self._history.append(self.measures().tolist())

    @torch.no_grad()
    def history(self) -> Tensor:
        """M_0, M_1, M_2 of iterates 0 to t, [t + 1, 3]: the recorded ones and the current weights."""
        return torch.tensor([*self._history, self.measures().tolist()], dtype=torch.float64)

    def get_extra_state(self) -> Tensor:
        """The history, for checkpoints."""
        return torch.tensor(self._history, dtype=torch.float64).reshape(-1, 3)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore a checkpoint."""
        self._history = state.tolist()

    def relative(self) -> dict[str, float]:
        """log10 of the current M_l relative to the start, at least -300."""
        course = self.history()
        ratios = (course[-1] / course[0]).tolist()
        names = ("distance", "objective", "gradient")
        return {
            f"{n}/log10": math.log10(max(r, 1e-300)) if r == r else math.inf for n, r in zip(names, ratios, strict=True)
        }


class Quadratic(Recorded):
    """x* = 0, eigenvalues [n]; `components` [n] of the start along the eigenvectors.

    `signs` [n] of +-1 rotate the eigenvectors away from the axes: Q = Hartley transform times signs, dense, orthogonal,
    O(n log n). Without them H is diagonal.
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
