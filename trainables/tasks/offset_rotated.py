"""Regression onto a teacher network whose inputs make one or many directions of the loss steep: controls for geometry.

2048 inputs x [32], targets [16] of a random teacher t, 32-64-16, a student of the same shape; the loss is half the
squared error, summed over outputs and averaged over samples. z is standard normal and v a fixed random unit vector.

    offset           x = z + 10 v       one steep direction, not along any axis (the uncentred mean): a structured
                                        preconditioner helps, a diagonal one cannot see it
    centred          x = z              control: the targets of `offset`, its inputs centered before training
    plain            x = z              control: targets t(z), no steep direction at all
    scaled           x = z, the first three inputs x 10             steep along axes
    graded           x = z x a ladder from 1 to 10^-1.5             many scales along axes
    graded_rotated   the same, rotated                              many scales off the axes

ReLU; tanh for the graded ones. The teacher's weights are He-normal without biases. Data and teacher are the same for
every seed; a seed draws the student's initial weights and the order of the batches.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainables.randomness import seed_torch
from trainables.registry import task
from trainables.task_class import Batch, Metric, Model, Task

SAMPLES, INPUTS, WIDTH, OUTPUTS, BATCH = 2048, 32, 64, 16, 64
DATA_SEED, ORDER_SEED = 20_240_201, 5_000_011
STEEP = 10.0
"""Length of the offset in standard deviations, and the factor of the scaled inputs."""


@task("offset_rotated")
class OffsetRotated(Task):
    """`inputs`: offset, centred, plain, scaled, graded or graded_rotated; `batch_size` in [1, 2048]."""

    FREE = frozenset({"batch_size"})
    METRICS: ClassVar = {"loss/full": Metric(goal="minimize", worst=1e4)}
    INPUTS: ClassVar = ("offset", "centred", "plain", "scaled", "graded", "graded_rotated")

    def __init__(self, *, inputs: str = "offset", batch_size: int = BATCH) -> None:
        if inputs not in self.INPUTS:
            raise ValueError(f"inputs is {inputs!r}; available: {', '.join(self.INPUTS)}")
        if not 1 <= batch_size <= SAMPLES:
            raise ValueError(f"batch_size is {batch_size}; it must lie in [1, {SAMPLES}]")
        self._activation = nn.Tanh if inputs.startswith("graded") else nn.ReLU
        self._size = batch_size
        self._x, self._y = self._data(inputs)

    def model(self, seed: int) -> Model:
        """The student, with torch's default initialization."""
        seed_torch(seed)
        return self._network()

    def batch(self, seed: int, index: int) -> Batch:
        """(inputs [batch, 32], targets [batch, 16]), drawn without replacement."""
        rows = self._rows(seed, index)
        return self._x[rows], self._y[rows]

    def batch_identity(self, seed: int, index: int) -> bytes:
        """Row numbers."""
        return bytes(self._rows(seed, index).numpy().tobytes())

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """Half the squared error, summed over outputs, mean over samples."""
        value: Tensor = 0.5 * (outputs - targets).square().sum(-1).mean()
        return value

    def evaluate(self, model: Model) -> dict[str, float]:
        """Training loss over all samples: the question is how fast it decreases."""
        assert isinstance(model, nn.Module)
        with torch.no_grad():
            return {"loss/full": float(self.loss(model(self._x), self._y))}

    def _network(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(INPUTS, WIDTH),
            self._activation(),
            nn.Linear(WIDTH, OUTPUTS),
        )

    def _data(self, inputs: str) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(DATA_SEED)
        z = torch.randn(SAMPLES, INPUTS, generator=generator)
        direction = torch.randn(INPUTS, generator=generator)
        basis, _ = torch.linalg.qr(torch.randn(INPUTS, INPUTS, generator=generator))
        teacher = self._network()
        with torch.no_grad():
            for p in teacher.parameters():
                drawn = torch.randn(p.shape, generator=generator) * (2 / p.shape[-1]) ** 0.5
                p.copy_(drawn if p.ndim > 1 else torch.zeros_like(p))
        shifted = z + STEEP * direction / direction.norm()
        ladder = z * torch.logspace(0, -1.5, INPUTS)
        seen = {
            "offset": shifted,
            "centred": shifted,
            "plain": z,
            "scaled": torch.cat([STEEP * z[:, :3], z[:, 3:]], 1),
            "graded": ladder,
            "graded_rotated": ladder @ basis,
        }[inputs]
        with torch.no_grad():
            targets = teacher(seen)
        return (z if inputs == "centred" else seen), targets

    def _rows(self, seed: int, index: int) -> Tensor:
        generator = torch.Generator().manual_seed((ORDER_SEED + seed) * 1_000_003 + index)
        return torch.randperm(SAMPLES, generator=generator)[: self._size]
