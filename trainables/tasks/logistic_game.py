"""Logistic regression against an adversary that shifts the features: a strongly monotone game on bundled data.

scikit-learn's breast_cancer, 569 samples x_i of 30 standardized features, labels y_i = +-1. The learner has weights w
[30] and a bias, the adversary one shift delta [30] of all samples:

    f = mean_i log(1 + exp(-y_i (w'(x_i + delta) + bias))) + ridge/2 |w, bias|^2 - penalty/2 |delta|^2

The learner minimizes f, the adversary maximizes it. Both players' own curvatures are definite near the solution if
`penalty` exceeds the curvature |w|^2/4 that the loss has in delta. The solution is computed once by Newton's method.

    field/log10      log10 |v| over all samples
    distance/log10   log10 |w - w*| / |w_0 - w*|, over both players
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.registry import task
from trainables.tables import table
from trainables.task_class import Batch, Metric, Model, Task

SAMPLES, FEATURES = 569, 30
ORDER_SEED, START_SEED = 11_000_027, 13_000_027
FLOOR = -300.0


@lru_cache(maxsize=1)
def _samples() -> tuple[Tensor, Tensor]:
    """Standardized features [569, 30] and labels [569] in {-1, 1}, float64."""
    features, labels = table("breast_cancer")
    x = torch.tensor(features, dtype=torch.float64)
    return (x - x.mean(0)) / x.std(0), 2.0 * torch.tensor(labels, dtype=torch.float64) - 1


class Vector(nn.Module):
    """A player that is one vector."""

    start: Tensor

    def __init__(self, at: Tensor) -> None:
        super().__init__()
        self.at = nn.Parameter(at)
        self.register_buffer("start", at.clone())


def value(learner: Tensor, shift: Tensor, x: Tensor, y: Tensor, ridge: float, penalty: float) -> Tensor:
    """The learner's loss f; learner [31] holds the weights and the bias."""
    margins = y * ((x + shift) @ learner[:-1] + learner[-1])
    return F.softplus(-margins).mean() + ridge / 2 * learner.dot(learner) - penalty / 2 * shift.dot(shift)


@lru_cache(maxsize=8)
def solution(ridge: float, penalty: float) -> tuple[Tensor, Tensor]:
    """The learner [31] and the shift [30] at which the field vanishes, by Newton's method from 0.

    Raises ValueError if Newton's method does not converge: raise ridge or penalty.
    """
    x, y = _samples()

    def field(point: Tensor) -> Tensor:
        learner, shift = point[: FEATURES + 1], point[FEATURES + 1 :]
        g = torch.func.grad(value, (0, 1))(learner, shift, x, y, ridge, penalty)
        return torch.cat([g[0], -g[1]])

    point = torch.zeros(2 * FEATURES + 1, dtype=torch.float64)
    jacobian = torch.func.jacrev(field)
    for _ in range(60):
        v = field(point)
        if float(v.norm()) < 1e-13:
            return point[: FEATURES + 1], point[FEATURES + 1 :]
        move = torch.linalg.solve(jacobian(point), v)
        size = 1.0
        while size > 1e-3 and float(field(point - size * move).norm()) > float(v.norm()):
            size /= 2
        point = point - size * move
    raise ValueError(f"no solution found for ridge {ridge} and penalty {penalty}; raise one of them")


@task("logistic_game")
class LogisticGame(Task):
    """`ridge` > 0, `penalty` > 0, `batch_size` in samples (569: all of them, no noise)."""

    GAME: ClassVar[bool] = True
    SCHEDULE: ClassVar[str] = "constant"
    FREE = frozenset({"batch_size"})
    METRICS: ClassVar = {
        "distance/log10": Metric(goal="minimize", worst=10.0),
        "field/log10": Metric(goal="minimize", worst=10.0),
    }
    TABLE: ClassVar = ("geometry/rate_measured", "geometry/rate_theory", "geometry/rate_gap")

    def __init__(self, *, ridge: float = 0.1, penalty: float = 0.2, batch_size: int = SAMPLES) -> None:
        for name, given in (("ridge", ridge), ("penalty", penalty)):
            if not 0 < given < math.inf:
                raise ValueError(f"{name} is {given}; it must be above 0")
        if not 1 <= batch_size <= SAMPLES:
            raise ValueError(f"batch_size is {batch_size}; it must lie in [1, {SAMPLES}]")
        self._ridge, self._penalty, self._size = ridge, penalty, batch_size

    def model(self, seed: int) -> Model:
        """Learner and adversary, standard normal times 0.1."""
        generator = torch.Generator().manual_seed(START_SEED + seed)
        starts = [0.1 * torch.randn(n, generator=generator, dtype=torch.float64) for n in (FEATURES + 1, FEATURES)]
        return [Vector(at) for at in starts]

    def batch(self, seed: int, index: int) -> Batch:
        """(features [batch, 30], labels [batch])."""
        x, y = _samples()
        rows = self._rows(seed, index)
        return x[rows], y[rows]

    def batch_identity(self, seed: int, index: int) -> bytes:
        """Row numbers in their order."""
        return bytes(self._rows(seed, index).numpy().tobytes())

    def closure(self, model: Model, batch: Batch, zero_grad: Callable[[], None]) -> Callable[[], Any]:
        """The learner's loss f, and -f for the adversary."""
        learner, adversary = _points(model)
        x, y = batch

        def evaluate() -> list[Tensor]:
            f = value(learner.at, adversary.at, x, y, self._ridge, self._penalty)
            return [f, -f]

        return evaluate

    def evaluate(self, model: Model) -> dict[str, float]:
        """Distance to the solution, and the field, over all samples."""
        players = _points(model)
        learner, shift = (p.at.detach() for p in players)
        x, y = _samples()
        g = torch.func.grad(value, (0, 1))(learner, shift, x, y, self._ridge, self._penalty)
        there = solution(self._ridge, self._penalty)
        far, began = (
            math.hypot(*(float((at - to).norm()) for at, to in zip(points, there, strict=True)))
            for points in ((learner, shift), [p.start for p in players])
        )
        return {"distance/log10": _log10(far / began), "field/log10": _log10(math.hypot(*(float(v.norm()) for v in g)))}

    def _rows(self, seed: int, index: int) -> Tensor:
        generator = torch.Generator().manual_seed((ORDER_SEED + seed) * 100_003 + index)
        return torch.randperm(SAMPLES, generator=generator)[: self._size]


def _points(model: Model) -> list[Vector]:
    assert isinstance(model, list)
    return [player for player in model if isinstance(player, Vector)]


def _log10(x: float) -> float:
    return min(math.log10(x), 10.0) if x > 0 else FLOOR
