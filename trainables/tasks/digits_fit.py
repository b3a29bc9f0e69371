"""How fast can a small network fit handwritten digits? All 1797 images, training loss only: a test bed for optimizers.

MLP 64-64-64-10, ReLU, torch's default initialization, cross-entropy, batches drawn with replacement, pixels / 16.
`loss/train` is the mean over the training steps since the previous evaluation; with 6 evaluations and a budget of 300,
that is the last 50 steps. Its recipe: 20 of 300 steps of warm-up, then cosine to a tenth.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.device import chosen, together
from trainables.randomness import seed_torch
from trainables.recipe import Recipe
from trainables.registry import task
from trainables.task_class import Batch, Metric, Model, Task
from trainables.tasks.digits import images_and_labels

SIZES = (64, 64, 64, 10)
BATCHES = 9_000_011


@task("digits_fit")
class DigitsFit(Task):
    """`batch_size` in images."""

    METRICS: ClassVar = {"loss/train": Metric(goal="minimize", worst=1e4)}
    COUNTS: ClassVar = "examples"
    FREE = frozenset({"batch_size"})
    RECIPE: ClassVar[Recipe] = Recipe(warmup=20 / 300, final_lr=0.1)

    def __init__(self, *, batch_size: int = 128) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")
        self._size = batch_size

    def model(self, seed: int) -> Model:
        """The network of this seed."""
        seed_torch(seed)
        layers: list[nn.Module] = [nn.Flatten()]
        for inside, outside in itertools.pairwise(SIZES):
            layers += [nn.Linear(inside, outside), nn.ReLU()]
        return nn.Sequential(*layers[:-1]).to(chosen("auto"))

    def tokens_per_batch(self) -> int:
        """Images."""
        return self._size

    def batch(self, seed: int, index: int) -> Batch:
        """(images [batch, 1, 8, 8], labels [batch])."""
        images, labels = images_and_labels()
        rows = self._rows(seed, index)
        images, labels = together(images[rows], labels[rows])
        return images, labels

    def batch_identity(self, seed: int, index: int) -> bytes:
        """Row numbers."""
        return bytes(self._rows(seed, index).numpy().tobytes())

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """Mean cross-entropy in nats."""
        return F.cross_entropy(outputs, targets)

    def scores(self, model: Model) -> dict[str, Tensor]:
        """Loss on all images, for an untrained model; the loop replaces it by the mean over steps."""
        assert isinstance(model, nn.Module)
        images, labels = together(*images_and_labels())
        with torch.no_grad():
            return {"loss/train": F.cross_entropy(model(images), labels)}

    def _rows(self, seed: int, index: int) -> Tensor:
        generator = torch.Generator().manual_seed((BATCHES + seed) * 100_003 + index)
        return torch.randint(len(images_and_labels()[1]), (self._size,), generator=generator)
