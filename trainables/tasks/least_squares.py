"""Linear least squares on scikit-learn's bundled tables: quadratics with a natural spectrum.

    f(w) = |X w - y|^2 / (2 n) + ridge |w|^2 / 2,   w = 0 at the start

Columns are standardized (population standard deviation, constant ones dropped), and so are targets; class labels are
used as numeric targets. The minimum and the spectrum come from a direct solve. `model.spectrum` sets smoothness = (1 +
margin) x the largest eigenvalue, because that eigenvalue is a point mass at the edge, where accelerated methods stall
(arXiv 2206.09901 needs a density that vanishes there). Everything is deterministic: seeds change nothing.

    objective/log10, distance/log10, gradient/log10   log10 of f - f*, |w - w*|^2, |grad f|^2 over their first values
    bound/log10                                       the best worst case after these steps, 1 / T_t(x0)^2: Chebyshev
    gap/bound                                         objective/log10 above it; negative where data are kinder
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainables import tables
from trainables.models.quadratic import Recorded
from trainables.registry import task
from trainables.task_class import Batch, Metric, Model
from trainables.tasks.quadratic import Quadratics

DATASETS = ("diabetes", "breast_cancer", "digits", "wine")


@lru_cache(maxsize=4)
def table(dataset: str) -> tuple[Tensor, Tensor]:
    """X [n, d] and y [n], standardized."""
    features, target = tables.table(dataset)
    x, y = torch.tensor(features, dtype=torch.float64), torch.tensor(target, dtype=torch.float64)
    x = x[:, x.std(0, correction=0) > 0]
    return (x - x.mean(0)) / x.std(0, correction=0), (y - y.mean()) / y.std(correction=0)


class Linear(Recorded):
    """Weights [d] of a linear map, with the minimum and the eigenvectors of its own least-squares problem."""

    hessian: Tensor
    minimum: Tensor

    def __init__(self, hessian: Tensor, moment: Tensor, margin: float) -> None:
        super().__init__()
        self.register_buffer("hessian", hessian)
        self.register_buffer("minimum", torch.linalg.solve(hessian, moment))
        self._eigen = torch.linalg.eigh(hessian)
        values = self._eigen.eigenvalues
        self.spectrum = {"smoothness": float(values[-1]) * (1 + margin), "strong_convexity": float(values[0])}
        self.at = torch.nn.Parameter(torch.zeros(len(hessian), dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        """Predictions [n] of X [n, d], followed by the weights [d] for the ridge."""
        return torch.cat([inputs @ self.at, self.at])

    def measures(self) -> Tensor:
        """M_0, M_1, M_2, [3]."""
        away = self.at - self.minimum
        gradient = self.hessian @ away
        return torch.stack([away.square().sum(), torch.dot(away, gradient), gradient.square().sum()])

    def modes(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues, and squared components of the minimum (the start is 0)."""
        return self._eigen.eigenvalues, (self._eigen.eigenvectors.T @ self.minimum).square()


@task("least_squares")
class LeastSquares(Quadratics):
    """`dataset`: diabetes, breast_cancer, digits or wine; `ridge` >= 0; `margin` >= 0 added to the reported
    smoothness.
    """

    FREE = frozenset()
    METRICS: ClassVar = {
        **Quadratics.METRICS,
        "bound/log10": Metric(goal="minimize", worst=0.0),
        "gap/bound": Metric(goal="minimize", worst=300.0),
    }
    TABLE: ClassVar = ("gap/bound", "geometry/objective_theory", "geometry/objective_gap")

    def __init__(self, *, dataset: str = "diabetes", ridge: float = 0.0, margin: float = 0.02) -> None:
        if dataset not in DATASETS:
            raise ValueError(f"dataset is {dataset!r}; available: {', '.join(DATASETS)}")
        for name, value in (("ridge", ridge), ("margin", margin)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; it must be 0 or above")
        self._dataset, self._ridge, self._margin = dataset, ridge, margin

    def model(self, seed: int) -> Model:
        """All weights 0."""
        x, y = table(self._dataset)
        hessian = x.T @ x / len(x) + self._ridge * torch.eye(x.shape[1], dtype=x.dtype)
        return Linear(hessian, x.T @ y / len(x), self._margin)

    def batch(self, seed: int, index: int) -> Batch:
        """The whole table."""
        return table(self._dataset)

    def batch_identity(self, seed: int, index: int) -> bytes:
        """The table's name, seed and index, although nothing depends on the last two."""
        return f"{self._dataset}/{seed}/{index}".encode()

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """Half the mean square, and the ridge."""
        n = len(targets)
        value: Tensor = 0.5 * (outputs[:n] - targets).square().mean() + 0.5 * self._ridge * outputs[n:].square().sum()
        return value

    def evaluate(self, model: Model) -> dict[str, float]:
        """The metrics, and Chebyshev's bound."""
        assert isinstance(model, Linear)
        found = super().evaluate(model)
        values, steps = model.modes()[0], len(model.history()) - 1
        x0 = float((values[-1] + values[0]) / (values[-1] - values[0]))
        angle = steps * math.acosh(x0)  # log T_t(x0) = log cosh(angle), without overflow
        found["bound/log10"] = -2 * (angle + math.log1p(math.exp(-2 * angle)) - math.log(2)) / math.log(10)
        found["gap/bound"] = found["objective/log10"] - found["bound/log10"]
        return found
