"""A generative adversarial network on a ring of Gaussians (Goodfellow et al. 2014, non-saturating logistic loss).

Generator: 16 latent variables to points of the plane; discriminator: points to a logit; both have two hidden layers of
128 tanh units (tanh, because `hamiltonian` and `consensus` differentiate twice). 8 modes on a circle of radius 2, each
with standard deviation 0.02. Seed noise is large at short budgets: compare medians over many seeds.

    energy/val       energy distance of 1000 generated to 2500 fresh points, 2 E|X-Y| - E|X-X'| - E|Y-Y'| >= 0
    energy/floor     the same between two fresh samples of those sizes: what a perfect generator gets
    modes/covered    modes with at least 1% of the generated points within 3 standard deviations
    quality/share    share of generated points within 3 standard deviations of a mode
    field/norm       |v| on a held-out batch
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.randomness import seed_torch
from trainables.registry import task
from trainables.task_class import Batch, Metric, Model, Task

RADIUS, LATENT, GENERATED, FRESH = 2.0, 16, 1000, 2500
DATA_SEED, VALIDATION_SEED = 17_000_023, 19_000_013


def ring(modes: int, spread: float, count: int, generator: torch.Generator) -> Tensor:
    """`count` points [count, 2] of the mixture."""
    chosen = torch.randint(modes, (count,), generator=generator)
    return centres(modes)[chosen] + spread * torch.randn(count, 2, generator=generator)


def centres(modes: int) -> Tensor:
    """The modes, [modes, 2]."""
    angle = 2 * math.pi * torch.arange(modes) / modes
    return RADIUS * torch.stack([angle.cos(), angle.sin()], 1)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """For two samples [m, 2] and [n, 2], excluding pairs of a point with itself."""
    m, n = len(x), len(y)
    within = torch.cdist(x, x).sum() / (m * (m - 1)) + torch.cdist(y, y).sum() / (n * (n - 1))
    return float(2 * torch.cdist(x, y).mean() - within)


@lru_cache(maxsize=4)
def _fresh(modes: int, spread: float) -> tuple[Tensor, float]:
    """Validation points [2500, 2], and the energy distance of 1000 others to them."""
    generator = torch.Generator().manual_seed(VALIDATION_SEED)
    points = ring(modes, spread, FRESH, generator)
    return points, energy_distance(ring(modes, spread, GENERATED, generator), points)


@task("gan_ring")
class GanRing(Task):
    """`modes` >= 2 on the ring, `spread` > 0 of each, `width` >= 1 of the hidden layers, `batch_size` >= 2 points."""

    GAME: ClassVar[bool] = True
    SCHEDULE: ClassVar[str] = "constant"
    FREE = frozenset({"width", "batch_size"})
    METRICS: ClassVar = {
        "energy/val": Metric(goal="minimize", worst=10.0),
        "energy/floor": Metric(goal="minimize", worst=0.0),
        "modes/covered": Metric(goal="maximize", worst=0.0),
        "quality/share": Metric(goal="maximize", worst=0.0, bounds=(0.0, 1.0)),
        "field/norm": Metric(goal="minimize", worst=1e4),
    }
    TABLE: ClassVar = ("energy/floor", "modes/covered", "quality/share", "field/norm")
    divergence_loss = 1e3

    def __init__(self, *, modes: int = 8, spread: float = 0.02, width: int = 128, batch_size: int = 256) -> None:
        for name, given, least in (("modes", modes, 2), ("width", width, 1), ("batch_size", batch_size, 2)):
            if given < least:
                raise ValueError(f"{name} is {given}; it must be at least {least}")
        if not 0 < spread < math.inf:
            raise ValueError(f"spread is {spread}; it must be above 0")
        self._modes, self._spread, self._width, self._size = modes, spread, width, batch_size

    def model(self, seed: int) -> Model:
        """Generator and discriminator with torch's default initialization."""
        seed_torch(seed)
        return [self._network(LATENT, 2), self._network(2, 1)]

    def batch(self, seed: int, index: int) -> Batch:
        """(points of the ring [batch, 2], latent variables [batch, 16])."""
        generator = torch.Generator().manual_seed((DATA_SEED + seed) * 100_003 + index)
        points = ring(self._modes, self._spread, self._size, generator)
        return points, torch.randn(self._size, LATENT, generator=generator)

    def batch_identity(self, seed: int, index: int) -> bytes:
        """The points and latent variables themselves."""
        return b"".join(part.numpy().tobytes() for part in self.batch(seed, index))

    def closure(self, model: Model, batch: Batch, zero_grad: Callable[[], None]) -> Callable[[], Any]:
        """Generator: log(1 + exp(-D(G(z)))); discriminator: log(1 + exp(-D(x))) + log(1 + exp(D(G(z))))."""
        assert isinstance(model, list)
        generator, discriminator = model
        points, latent = batch

        def evaluate() -> list[Tensor]:
            made = discriminator(generator(latent))
            return [F.softplus(-made).mean(), F.softplus(-discriminator(points)).mean() + F.softplus(made).mean()]

        return evaluate

    def evaluate(self, model: Model) -> dict[str, float]:
        """Of 1000 generated points."""
        assert isinstance(model, list)
        latent = torch.randn(GENERATED, LATENT, generator=torch.Generator().manual_seed(VALIDATION_SEED + 1))
        with torch.no_grad():
            made = model[0](latent)
        fresh, floor = _fresh(self._modes, self._spread)
        distance, nearest = torch.cdist(made, centres(self._modes)).min(1)
        good = distance <= 3 * self._spread
        share = torch.bincount(nearest[good], minlength=self._modes) / GENERATED
        return {
            "energy/val": energy_distance(made, fresh),
            "energy/floor": floor,
            "modes/covered": float((share >= 0.01).sum()),
            "quality/share": float(good.float().mean()),
            "field/norm": self._field_norm(model),
        }

    def _field_norm(self, model: list[nn.Module]) -> float:
        losses = self.closure(model, self.batch(VALIDATION_SEED, 0), lambda: None)()
        parts = [
            g
            for i, (loss, player) in enumerate(zip(losses, model, strict=True))
            for g in torch.autograd.grad(loss, list(player.parameters()), retain_graph=i == 0)
        ]
        return float(torch.linalg.vector_norm(torch.stack([g.norm() for g in parts])))

    def _network(self, inside: int, outside: int) -> nn.Module:
        w = self._width
        return nn.Sequential(nn.Linear(inside, w), nn.Tanh(), nn.Linear(w, w), nn.Tanh(), nn.Linear(w, outside))
