"""Quadratics with a chosen spectrum: an exact testbed for average-case methods.

Starts at squared distance 1, with the squared component along an eigenvector of eigenvalue lambda proportional to
weight x lambda^source: the expectation over isotropic starts for source 0. The best that any gradient method can do on
average is known for Beta and Gamma densities: with b = xi + source + 1 for the objective and tau at the other edge

    M(t)/M(0) = G(b+2) G(tau+b+2) / G(tau+1) G(t+1) G(t+tau+1) / (G(t+b+2) G(t+tau+b+2))  ~  t^(-2(b+1))

    objective/log10, distance/log10, gradient/log10   log10 of f - f*, |x - x*|^2, |grad f|^2 over their first values
    optimal/log10                                     what the best method reaches for the objective, on average
    gap/optimal                                       objective/log10 above it (Beta without deformation or gap, Gamma)

The diagnostic `average_case_rate` adds the rate that the optimizer should have, next to the measured one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainables.models import spectra
from trainables.models.quadratic import Quadratic, Recorded
from trainables.registry import task
from trainables.task_class import Batch, Metric, Model, Task

SPECTRA = ("beta", "uniform", "marchenko_pastur", "gamma", "points")
MODES = ("gauss", "random")
PROBLEM_SEED = 9_000_011


class Quadratics(Task):
    """Common part of quadratic tasks: no data, one iterate recorded per step."""

    SCHEDULE: ClassVar[str] = "constant"
    FIGURES: ClassVar[frozenset[str]] = frozenset({"spectrum", "suboptimality"})
    FREE = frozenset()
    METRICS: ClassVar = {
        "objective/log10": Metric(goal="minimize", worst=4.0),
        "distance/log10": Metric(goal="minimize", worst=4.0),
        "gradient/log10": Metric(goal="minimize", worst=4.0),
    }

    def closure(self, model: Model, batch: Batch, zero_grad: Callable[[], None]) -> Callable[[], Any]:
        """The usual closure, but the iterate is recorded first, so it counts once however often the closure is
        called.
        """
        assert isinstance(model, Recorded)
        model.record()
        return super().closure(model, batch, zero_grad)

    def evaluate(self, model: Model) -> dict[str, float]:
        """log10 of the three metrics over their values at the start."""
        assert isinstance(model, Recorded)
        return model.relative()


@task("quadratic")
class QuadraticTask(Quadratics):
    """`spectrum`: beta, uniform, marchenko_pastur, gamma or points; `mode`: gauss or random; `size` eigenvalues.

    beta: `left_exponent`, `right_exponent` > -1, on [`strong_convexity`, `smoothness`]; a left exponent given as a pair
    is drawn between the two by the seed. marchenko_pastur: `ratio` in (0, 1]. gamma: `left_exponent`, scale =
    smoothness. points: `points`, a list of eigenvalues. `deformation` (see `spectra.deform`) of the density; `source`:
    power of lambda in the start; `rotate`: eigenvectors away from the axes, so that optimizers of single coordinates
    gain nothing.
    """

    FIGURES = Quadratics.FIGURES | {"exponents"}
    METRICS: ClassVar = {
        **Quadratics.METRICS,
        "optimal/log10": Metric(goal="minimize", worst=0.0),
        "gap/optimal": Metric(goal="minimize", worst=300.0),
    }
    TABLE: ClassVar = ("geometry/rate_measured", "geometry/rate_theory", "geometry/rate_gap")

    def __init__(
        self,
        *,
        spectrum: str = "beta",
        mode: str = "gauss",
        size: int = 2000,
        left_exponent: float | list[float] = -0.5,
        right_exponent: float = 0.5,
        smoothness: float = 1.0,
        strong_convexity: float = 0.0,
        ratio: float = 1.0,
        points: list[float] | None = None,
        deformation: str = "none",
        source: float = 0.0,
        rotate: bool = False,
    ) -> None:
        for name, value, allowed in (
            ("spectrum", spectrum, SPECTRA), ("mode", mode, MODES), ("deformation", deformation, spectra.DEFORMATIONS)
        ):  # fmt: skip
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; available: {', '.join(allowed)}")
        low, high = left_exponent if isinstance(left_exponent, list) else (left_exponent, left_exponent)
        if not -1 < low <= high:
            raise ValueError(f"left_exponent is {left_exponent}; it must be above -1, or an ascending pair")
        if not right_exponent > -1:
            raise ValueError(f"right_exponent is {right_exponent}; it must be above -1")
        if not 0 <= strong_convexity < smoothness < math.inf:
            raise ValueError(f"strong_convexity is {strong_convexity}; it lies in [0, smoothness), here {smoothness}")
        if not low + source > -1:
            raise ValueError(f"source is {source}; it must be above -1 - left_exponent, here {-1 - low}")
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio is {ratio}; columns for each row, in (0, 1]")
        if size < 2:
            raise ValueError(f"size is {size}; it must be at least 2")
        if spectrum == "points" and not (points and all(0 < p <= smoothness for p in points)):
            raise ValueError(f"points is {points}; points needs a list of eigenvalues in (0, smoothness]")
        if spectrum in ("gamma", "points") and deformation != "none":
            raise ValueError(f"deformation is {deformation!r}; only densities with two edges are deformed")
        self._spectrum, self._mode, self._size, self._left, self._right = (
            spectrum,
            mode,
            size,
            (low, high),
            right_exponent,
        )
        self._upper, self._lower, self._ratio, self._points = smoothness, strong_convexity, ratio, points or []
        self._deformation, self._source, self._rotate = deformation, source, rotate
        if spectrum == "uniform":
            self._left, self._right = (0.0, 0.0), 0.0
        if spectrum == "marchenko_pastur":
            self._left, self._right = ((-0.5, -0.5) if ratio == 1 else (0.5, 0.5)), 0.5
            self._lower = smoothness * ((1 - math.sqrt(ratio)) / (1 + math.sqrt(ratio))) ** 2

    def model(self, seed: int) -> Model:
        """The quadratic at its start."""
        generator = torch.Generator().manual_seed(PROBLEM_SEED + seed)
        low, high = self._left
        xi = low + (high - low) * float(torch.rand(1, generator=generator, dtype=torch.float64))
        if self._mode == "gauss" and self._lower == 0 and self._spectrum != "points":
            eigenvalues, squares = self._eigenvalues(xi + self._source, generator)  # the same density, exactly
        else:
            eigenvalues, weights = self._eigenvalues(xi, generator)
            squares = weights * eigenvalues**self._source
        signs = (
            (torch.randint(0, 2, eigenvalues.shape, generator=generator) * 2.0 - 1).double() if self._rotate else None
        )
        return Quadratic(eigenvalues, (squares / squares.sum()).sqrt(), self._known(xi), signs)

    def batch(self, seed: int, index: int) -> Batch:
        """Empty: there is no data."""
        return torch.zeros(0), torch.zeros(0)

    def batch_identity(self, seed: int, index: int) -> bytes:
        """Nothing but the seed distinguishes problems."""
        return f"{seed}/{index}".encode()

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """The model's output is the loss."""
        return outputs

    def evaluate(self, model: Model) -> dict[str, float]:
        """The metrics, and the best possible value if known."""
        assert isinstance(model, Quadratic)
        found = super().evaluate(model)
        best = self.optimum(model)
        if best is not None:
            found["optimal/log10"] = best
            found["gap/optimal"] = found["objective/log10"] - best
        return found

    def optimum(self, model: Quadratic) -> float | None:
        """log10 of the best expected objective after as many steps as the model has recorded; None if unknown."""
        steps = len(model.history()) - 1
        b, tau = model.spectrum.get("left_exponent", math.nan) + 1, model.spectrum.get("right_exponent", math.nan)
        if self._deformation != "none" or self._mode == "random" or self._lower > 0 or self._spectrum == "points":
            return None
        if steps >= len(model.eigenvalues):
            return None
        g = math.lgamma
        logarithm = g(b + 2) + g(steps + 1) - g(steps + b + 2)
        if self._spectrum != "gamma":
            logarithm += g(tau + b + 2) - g(tau + 1) + g(steps + tau + 1) - g(steps + tau + b + 2)
        return logarithm / math.log(10)

    def _eigenvalues(self, xi: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Eigenvalues [n] and weights [n] that sum to 1."""
        even = torch.full((self._size,), 1 / self._size, dtype=torch.float64)
        gauss = self._mode == "gauss"
        if self._spectrum == "points":
            places = torch.tensor(self._points, dtype=torch.float64)
            return places, torch.full_like(places, 1 / len(places))
        if self._spectrum == "gamma":
            if gauss:
                places, weights = spectra.gauss_laguerre(self._size, xi)
                return places * self._upper, weights
            return spectra.chi_squares(2 * (xi + 1 + 0 * even), generator) / 2 * self._upper, even
        if self._spectrum == "marchenko_pastur" and not gauss:
            largest = (1 + math.sqrt(self._ratio)) ** 2
            values = spectra.wishart(self._size, self._ratio, generator) / largest
            span = 1 - self._lower / self._upper
            places, weights = (values - self._lower / self._upper) / span, even
        elif gauss:
            places, weights = spectra.gauss_jacobi(self._size, xi, self._right)
        else:
            places, weights = spectra.beta_draws(self._size, xi, self._right, generator), even
        places, weights = spectra.deform(self._deformation, places, weights, generator)
        eigenvalues = self._lower + (self._upper - self._lower) * places
        if self._spectrum == "marchenko_pastur" and gauss and self._ratio < 1:
            weights = weights / eigenvalues
        return eigenvalues, weights / weights.sum()

    def _known(self, xi: float) -> dict[str, float]:
        """What the model knows about its spectrum; exponents as seen from the start."""
        if self._spectrum == "points":
            return {"smoothness": max(self._points), "strong_convexity": min(self._points)}
        if self._spectrum == "gamma":
            return {"smoothness": math.inf, "eigenvalue_scale": self._upper, "left_exponent": xi + self._source}
        right = {"cut": math.inf, "edge_atom": -1.0}.get(self._deformation, self._right)
        return {
            "smoothness": self._upper,
            "strong_convexity": self._lower,
            "left_exponent": xi + (self._source if self._lower == 0 else 0.0),
            "right_exponent": right,
        }
