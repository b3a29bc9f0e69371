"""Potholes: a smooth bowl with narrow wells in its slope, which sharpness-aware methods escape and others do not.

    f(w) = h |w|^2 / 2 - A sum_i exp(-|w - c_i|^2 / (2 s^2)),   h = 0.5, s = 0.12, w in R^8, 60 centers c_i

The centers lie at uniform radii in [0.8, 3] in uniform directions; the run starts near one of them, offset by a normal
0.5 s in every coordinate (1.4 s in all), at a uniform radius in [1.6, 3], from where there is room to descend.
Gradients carry normal noise of standard deviation 0.02 in every coordinate, the same in both passes of a two-pass step.
Centers, start and noise are drawn by the seed.

Share of 40 runs that escape (lr 0.005, momentum 0.9, linear decay, 1500 steps), not monotone in the radius:
    A = 0.3    SGD 0.40    SAM at radius 0.1, 0.3, 0.5: 0.85, 0.75, 1.00
    A = 0.6    SGD 0.03    SAM at radius 0.1, 0.3, 0.5: 0.38, 0.07, 0.70
From a start 0.3 s off the center, deep in the well, SAM at radius 0.1 < s never leaves a well of depth 0.6.

    escape/share    1 if the run ends within 0.5 of the bowl's floor (the origin), else 0: its mean is the share of runs
    loss/smoothed   E f(w + n), n normal with standard deviation 0.3 in every coordinate, in closed form
    floor/smoothed  its value at the floor of the bowl without wells, h 8 0.3^2 / 2
    gap/smoothed    loss/smoothed above it
    loss/plain      f(w)
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainables.registry import task
from trainables.task_class import Batch, Metric, Model, Task

DIMENSION, CENTRES, CURVATURE, WIDTH = 8, 60, 0.5, 0.12
NEAREST, FARTHEST, START, OFFSET = 0.8, 3.0, 1.6, 0.5
NOISE, SMOOTHING, ESCAPED = 0.02, 0.3, 0.5
LANDSCAPE_SEED, NOISE_SEED = 4_000_037, 6_000_011


class Landscape(nn.Module):
    """Weights `at` [8] on the landscape with wells of `depth` at `centres` [60, 8]; float64."""

    centres: Tensor

    def __init__(self, centres: Tensor, depth: float, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("centres", centres)
        self._depth = depth
        self.at = nn.Parameter(start)

    def forward(self, noise: Tensor) -> Tensor:
        """The value plus <noise, w>, so that the gradient is that of f plus `noise` [8]."""
        return self.value(0.0) + self.at @ noise

    def value(self, smoothing: float) -> Tensor:
        """E f(w + n) for n with this standard deviation in every coordinate; 0 gives f itself."""
        wide = WIDTH**2 + smoothing**2
        bowl: Tensor = 0.5 * CURVATURE * (self.at.square().sum() + DIMENSION * smoothing**2)
        wells = torch.exp(-(self.at - self.centres).square().sum(1) / (2 * wide)).sum()
        value: Tensor = bowl - (self._depth * (WIDTH**2 / wide) ** (DIMENSION / 2)) * wells
        return value


@task("potholes")
class Potholes(Task):
    """`depth` A >= 0 of the wells: 0.3 lets SAM escape at every radius, 0.6 only at some."""

    FREE = frozenset()
    METRICS: ClassVar = {
        "escape/share": Metric(goal="maximize", worst=0.0, bounds=(0.0, 1.0)),
        "loss/smoothed": Metric(goal="minimize", worst=1e4),
        "floor/smoothed": Metric(goal="minimize", worst=1e4),
        "gap/smoothed": Metric(goal="minimize", worst=1e4),
        "loss/plain": Metric(goal="minimize", worst=1e4),
    }
    TABLE: ClassVar = ("escape/share", "loss/smoothed", "floor/smoothed")
    SCHEDULE: ClassVar[str] = "linear"

    def __init__(self, *, depth: float = 0.3) -> None:
        if not 0 <= depth < math.inf:
            raise ValueError(f"depth is {depth}; it must be 0 or above")
        self._depth = depth

    def model(self, seed: int) -> Model:
        """The landscape of this seed, starting in a well."""
        generator = torch.Generator().manual_seed(LANDSCAPE_SEED + seed)
        directions = torch.randn(CENTRES + 1, DIMENSION, generator=generator, dtype=torch.float64)
        beside = OFFSET * WIDTH * directions[CENTRES]
        directions = directions[:CENTRES] / directions[:CENTRES].norm(dim=1, keepdim=True)
        radii = torch.rand(CENTRES, 1, generator=generator, dtype=torch.float64)
        radii = FARTHEST - (FARTHEST - NEAREST) * radii
        radii[0] = START + (FARTHEST - START) * (radii[0] - NEAREST) / (FARTHEST - NEAREST)
        centres = radii * directions
        return Landscape(centres, self._depth, centres[0] + beside)

    def batch(self, seed: int, index: int) -> Batch:
        """The noise [8] of this step."""
        digest = hashlib.blake2b(f"{NOISE_SEED}/{seed}/{index}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        return NOISE * torch.randn(DIMENSION, generator=generator, dtype=torch.float64), torch.zeros(0)

    def batch_identity(self, seed: int, index: int) -> bytes:
        """The noise."""
        return bytes(self.batch(seed, index)[0].numpy().tobytes())

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """The model's output is the loss."""
        return outputs

    def evaluate(self, model: Model) -> dict[str, float]:
        """Metrics at the current weights."""
        assert isinstance(model, Landscape)
        floor = 0.5 * CURVATURE * DIMENSION * SMOOTHING**2
        with torch.no_grad():
            smoothed = float(model.value(SMOOTHING))
            return {
                "escape/share": float(model.at.norm() < ESCAPED),
                "loss/smoothed": smoothed,
                "floor/smoothed": floor,
                "gap/smoothed": smoothed - floor,
                "loss/plain": float(model.value(0.0)),
            }
