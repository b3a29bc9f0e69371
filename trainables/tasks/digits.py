"""Handwritten digits (scikit-learn's bundled set) with label noise: the laptop's image task.

1797 images of 8 x 8, fixed split 1257 / 270 / 270, pixels / 16. A fraction `noise` of the training labels is replaced
by another class, redrawn for each seed; validation and test labels are clean. Batches are consecutive pieces of endless
concatenated epochs, so 320 batches of 64 are 16.3 epochs and every batch is full.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.device import chosen, together
from trainables.models.resnet import ResNet
from trainables.models.vit import ViT
from trainables.randomness import seed_torch
from trainables.registry import task
from trainables.tables import table
from trainables.task_class import Batch, Metric, Model, Task

TRAIN, VAL, CLASSES = 1257, 270, 10
HEADS = 4
DATA_SEED, NOISE_SEED, ORDER_SEED = 20_240_101, 7_000_003, 3_000_017


@lru_cache(maxsize=1)
def images_and_labels() -> tuple[Tensor, Tensor]:
    """Images [1797, 1, 8, 8] in [0, 1] and labels [1797], in the fixed order of the split."""
    pixels, digits = table("digits")
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(DATA_SEED))
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    return images[order], torch.tensor(digits, dtype=torch.int64)[order]


@task("digits")
class Digits(Task):
    """`model`: mlp, resnet8 or resnet16 (the number is the width), vit; `noise` in [0, 1); `batch_size` in images.

    `width`: units of an mlp's layers, channels of a resnet's first stage, a vit's embedding; default: 256, the number
    in the name, 32.
    """

    METRICS: ClassVar = {
        "accuracy/val": Metric(goal="maximize", worst=0.0, bounds=(0.0, 1.0)),
        "accuracy/test": Metric(goal="maximize", worst=0.0, bounds=(0.0, 1.0)),
        "loss/val": Metric(goal="minimize", worst=1e4),
        "loss/test": Metric(goal="minimize", worst=1e4),
    }
    COUNTS: ClassVar = "examples"
    FREE = frozenset({"model", "width", "batch_size"})
    LATER: ClassVar = {"width": None}
    MODELS: ClassVar = ("mlp", "resnet8", "resnet16", "vit")

    def __init__(
        self, *, model: str = "resnet8", noise: float = 0.0, batch_size: int = 64, width: int | None = None
    ) -> None:
        if model not in self.MODELS:
            raise ValueError(f"model is {model!r}; available: {', '.join(self.MODELS)}")
        if not 0 <= noise < 1:
            raise ValueError(f"noise is {noise}; it is the share of wrong training labels, in [0, 1)")
        if not 1 <= batch_size <= TRAIN:
            raise ValueError(f"batch_size is {batch_size}; it must lie in [1, {TRAIN}]")
        if width is not None and (width < 1 or (model == "vit" and width % HEADS)):
            what = f"a multiple of {HEADS}, the heads of vit" if model == "vit" else "1 or more"
            raise ValueError(f"width is {width}; it must be {what}")
        usual = {"mlp": 256, "vit": 32}.get(model) or int(model.removeprefix("resnet"))
        self._model, self._noise, self._size, self._width = model, noise, batch_size, width or usual
        self._epochs: dict[tuple[int, int], Tensor] = {}
        self._labels: dict[int, Tensor] = {}

    def model(self, seed: int) -> Model:
        """A network with torch's default initialization; vit has depth 2 and patches of 2 x 2."""
        seed_torch(seed)
        if self._model == "mlp":
            sizes = (64, self._width, self._width, CLASSES)
            layers: list[nn.Module] = [nn.Flatten()]
            for inside, outside in itertools.pairwise(sizes):
                layers += [nn.Linear(inside, outside), nn.ReLU()]
            return nn.Sequential(*layers[:-1]).to(chosen("auto"))
        if self._model == "vit":
            return ViT(CLASSES, side=8, channels=1, patch=2, width=self._width, depth=2, heads=HEADS).to(chosen("auto"))
        return ResNet(self._width).to(chosen("auto"))

    def tokens_per_batch(self) -> int:
        """Images."""
        return self._size

    def batch(self, seed: int, index: int) -> Batch:
        """(images [batch, 1, 8, 8], noisy labels [batch])."""
        return self._pick(seed, self._rows(seed, index))

    def refresh_batch(self, seed: int, index: int) -> Batch:
        """The same noisy images in a separate order."""
        return self._pick(seed, self._rows(seed + 1_000_003, index))

    def batch_identity(self, seed: int, index: int) -> bytes:
        """Row numbers and labels."""
        rows = self._rows(seed, index)
        return bytes(rows.numpy().tobytes() + self._noisy(seed)[rows].numpy().tobytes())

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """Mean cross-entropy in nats."""
        return F.cross_entropy(outputs, targets)

    def scores(self, model: Model) -> dict[str, Tensor]:
        """Accuracy and loss on clean validation and test images."""
        assert isinstance(model, nn.Module)
        images, labels = together(*images_and_labels())
        found: dict[str, Tensor] = {}
        with torch.no_grad():
            outputs, truth = model(images[TRAIN:]), labels[TRAIN:]
        for name, part in (("val", slice(0, VAL)), ("test", slice(VAL, None))):
            found[f"accuracy/{name}"] = (outputs[part].argmax(1) == truth[part]).float().mean()
            found[f"loss/{name}"] = F.cross_entropy(outputs[part], truth[part])
        return found

    def _pick(self, seed: int, rows: Tensor) -> Batch:
        images, labels = together(images_and_labels()[0][rows], self._noisy(seed)[rows])
        return images, labels

    def _noisy(self, seed: int) -> Tensor:
        """Training labels for this seed: exactly round(noise x 1257) of them are wrong."""
        if seed not in self._labels:
            labels = images_and_labels()[1][:TRAIN].clone()
            generator = torch.Generator().manual_seed(NOISE_SEED + seed)
            wrong = torch.randperm(TRAIN, generator=generator)[: round(self._noise * TRAIN)]
            shift = torch.randint(1, CLASSES, (len(wrong),), generator=generator)
            labels[wrong] = (labels[wrong] + shift) % CLASSES
            self._labels = {seed: labels}
        return self._labels[seed]

    def _rows(self, seed: int, index: int) -> Tensor:
        """Row numbers of batch `index`: a piece of the concatenated epochs."""
        first = index * self._size
        epoch, offset = divmod(first, TRAIN)
        piece = self._epoch(seed, epoch)[offset : offset + self._size]
        if len(piece) < self._size:
            piece = torch.cat([piece, self._epoch(seed, epoch + 1)[: self._size - len(piece)]])
        return piece

    def _epoch(self, seed: int, epoch: int) -> Tensor:
        if (seed, epoch) not in self._epochs:
            generator = torch.Generator().manual_seed((ORDER_SEED + seed) * 100_003 + epoch)
            while len(self._epochs) > 3:
                self._epochs.pop(next(iter(self._epochs)))
            self._epochs[seed, epoch] = torch.randperm(TRAIN, generator=generator)
        return self._epochs[seed, epoch]
