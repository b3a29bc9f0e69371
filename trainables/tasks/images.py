"""Image classification on a user's data set in the canonical layout (`geosweep data convert`).

Training batches are pieces of endless shuffled epochs; crop, flip and cutout are functions of (seed, epoch, row). A
fraction `noise` of the training labels is replaced by another class, redrawn for each seed; validation and test labels
are clean. If a data set has no split `val`, the fraction `held_out` of its training rows is set aside for it, the same
rows in every trial.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from trainables import data as datasets
from trainables import device as devices
from trainables.data import augment, chance
from trainables.data.pixels import Pixels, Rows
from trainables.data.prefetch import Prefetch
from trainables.models import catalogue
from trainables.presets import CROPS, PRESETS
from trainables.randomness import seed_torch
from trainables.registry import task
from trainables.task_class import Batch, Metric, Model, Task

EVALUATION_BATCH = 500
HOLD_OUT_SEED = 20_240_101
REFRESH = 1_000_003
Packed = tuple[Tensor, ...]
"""Pixels, labels, and for cutout the rows and columns of pixels [B, H + W]; each is one copy to the device."""


@task("images")
class Images(Task):
    """`data`: folder of the data set; `model`: a name in `models.catalogue`; `preset`: a name in `presets`.

    `batch_size`, `crop`, `flip`, `cutout` (pixels) and `label_smoothing` default to the preset's. `size`: side in
    pixels that images are scaled to (default: raw images keep theirs, encoded ones are scaled to 224). `noise` in [0,
    1). `workers`: threads that prefetch batches, instead of `resources.readers`. `device`: auto, cpu or cuda.
    """

    METRICS: ClassVar = {
        "accuracy/val": Metric(goal="maximize", worst=0.0, bounds=(0.0, 1.0)),
        "accuracy/test": Metric(goal="maximize", worst=0.0, bounds=(0.0, 1.0)),
        "loss/val": Metric(goal="minimize", worst=1e4),
        "loss/test": Metric(goal="minimize", worst=1e4),
    }
    COUNTS: ClassVar = "examples"
    FREE = frozenset(
        {"model", "preset", "batch_size", "crop", "flip", "cutout", "label_smoothing", "attention", "workers", "device"}
    )

    def __init__(
        self,
        *,
        data: str,
        model: str = "resnet18",
        preset: str = "cifar",
        batch_size: int | None = None,
        crop: str | None = None,
        flip: bool | None = None,
        cutout: int | None = None,
        label_smoothing: float | None = None,
        size: int | None = None,
        noise: float = 0.0,
        held_out: float = 0.1,
        attention: str = "plain",
        workers: int = 0,
        device: str = "auto",
    ) -> None:
        if model not in catalogue.IMAGES:
            raise ValueError(f"model is {model!r}; available: {', '.join(catalogue.IMAGES)}")
        if preset not in PRESETS:
            raise ValueError(f"preset is {preset!r}; available: {', '.join(PRESETS)}")
        devices.check(device)
        base = PRESETS[preset]
        self._size = base.batch_size if batch_size is None else batch_size
        self._crop = base.crop if crop is None else crop
        self._flip = base.flip if flip is None else flip
        self._cutout = base.cutout if cutout is None else cutout
        self._smoothing = base.label_smoothing if label_smoothing is None else label_smoothing
        self._model, self._noise, self._device, self._workers = model, noise, device, workers
        self._scales: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._set = _load(data)
        self._side = _side(self._set, size)
        splits = self._set.splits
        self._held_out = 0.0 if "val" in splits else held_out
        self._check()
        self.RECIPE = base.training  # type: ignore[misc]  # the preset's, where the class has a default
        self.METRICS = {  # type: ignore[misc]  # a data set may have no test images
            name: metric for name, metric in type(self).METRICS.items() if "test" in splits or "test" not in name
        }
        assert self._set.images
        inputs = {"classes": len(self._set.images.classes), "channels": self._set.images.shape[0], "side": self._side}
        self._inputs = catalogue.Inputs(**inputs, attention=attention)
        with torch.device("meta"):
            catalogue.IMAGES[model](self._inputs)
        held = round(self._held_out * splits["train"].rows)
        every = np.arange(splits["train"].rows)
        order = chance.permutation(len(every), HOLD_OUT_SEED, chance.HOLD_OUT) if held else every
        self._held, self._rows = np.sort(order[:held]), np.sort(order[held:])
        self._order = chance.Order(len(self._rows), self._size)
        self._labels: dict[int, NDArray[np.int64]] = {}
        self._train, self._refresh = Prefetch(self._pack, 0), Prefetch(self._pack_refresh, 0)
        if workers:
            self.read_ahead(workers)

    def model(self, seed: int) -> Model:
        """The network, initialized on the CPU."""
        seed_torch(seed)
        return catalogue.IMAGES[self._model](self._inputs).to(devices.chosen(self._device))

    def read_ahead(self, readers: int) -> None:
        """With threads; the task's own `workers` takes precedence."""
        self._train.close()
        self._refresh.close()
        self.readers = readers and (self._workers or readers)
        self._train = Prefetch(self._pack, self.readers)
        self._refresh = Prefetch(self._pack_refresh, self.readers)

    def facts(self) -> Mapping[str, str]:
        """The data set by its fingerprint."""
        return {"data_fingerprint": self._set.fingerprint}

    def tokens_per_batch(self) -> int:
        """Images."""
        return self._size

    def batch(self, seed: int, index: int) -> Batch:
        """(augmented images [batch, C, side, side], noisy labels [batch])."""
        return self._train.finished(self._unpack, seed, index)

    def refresh_batch(self, seed: int, index: int) -> Batch:
        """The same noisy labels with a separate order and separate crops."""
        return self._refresh.finished(self._unpack, seed, index)

    def batch_identity(self, seed: int, index: int) -> bytes:
        """The data set, row numbers, epochs (which determine the augmentation) and labels."""
        rows, epochs = self._where(seed, index)
        parts = (rows.tobytes(), epochs.tobytes(), self._noisy(seed)[rows].tobytes())
        return self._set.fingerprint.encode() + b"".join(parts)

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """Mean cross-entropy in nats, with the preset's label smoothing."""
        return F.cross_entropy(outputs, targets, label_smoothing=self._smoothing)

    def evaluate(self, model: Model) -> dict[str, float]:
        """Accuracy and (unsmoothed) loss on clean validation and test images, unaugmented."""
        assert isinstance(model, nn.Module)
        found: dict[str, float] = {}
        for name in ("val", "test") if "test" in self._set.splits else ("val",):
            right = loss = torch.zeros((), dtype=torch.float64)
            count = 0
            for images, labels in self._evaluation(name):
                with torch.no_grad():
                    outputs = model(images).float()
                right = right + (outputs.argmax(1) == labels).sum().cpu()
                loss = loss + F.cross_entropy(outputs, labels, reduction="sum").cpu()
                count += len(labels)
            found[f"accuracy/{name}"], found[f"loss/{name}"] = float(right) / count, float(loss) / count
        return found

    def _check(self) -> None:
        rows = self._set.splits["train"].rows
        if not 1 <= self._size <= rows:
            raise ValueError(f"batch_size is {self._size}; it must lie in [1, {rows}]")
        if self._crop not in CROPS:
            raise ValueError(f"crop is {self._crop!r}; available: {', '.join(CROPS)}")
        if not 0 <= self._cutout <= self._side:
            raise ValueError(f"cutout is {self._cutout}; it must lie in [0, {self._side}] pixels")
        if not 0 <= self._smoothing < 1:
            raise ValueError(f"label_smoothing is {self._smoothing}; it must lie in [0, 1)")
        if not 0 <= self._noise < 1:
            raise ValueError(f"noise is {self._noise}; it is the share of wrong training labels, in [0, 1)")
        if self._workers < 0:
            raise ValueError(f"workers is {self._workers}; it must be 0 or more")
        if "val" not in self._set.splits and not 1 <= round(self._held_out * rows) <= rows - self._size:
            raise ValueError(
                f"held_out is {self._held_out}; the data set has no split val, so a share of its {rows} training rows "
                f"in (0, 1) is set aside, and at least a batch of {self._size} must remain"
            )

    def _where(self, seed: int, index: int) -> tuple[Rows, Rows]:
        positions, epochs = self._order.batch(seed, index)
        return self._rows[positions], epochs

    def _pack(self, seed: int, index: int) -> Packed:
        return self._packed(seed, *self._where(seed, index), labels_of=seed)

    def _pack_refresh(self, seed: int, index: int) -> Packed:
        return self._packed(seed + REFRESH, *self._where(seed + REFRESH, index), labels_of=seed)

    def _packed(self, seed: int, rows: Rows, epochs: Rows, labels_of: int) -> Packed:
        """The part that a thread can prepare: pixels and labels on the CPU."""
        to = devices.chosen(self._device)
        images = self._pixels("train").train(rows, epochs, seed)
        found = [images, self._noisy(labels_of)[rows]]
        if self._cutout:
            found.append(np.concatenate(augment.squares(images.shape[2:], self._cutout, seed, epochs, rows), axis=1))
        return tuple(devices.pinned(torch.from_numpy(x), to) for x in found)

    def _unpack(self, packed: Packed) -> Batch:
        """The part done on the device: normalization, cutout. Nothing in it waits for the device."""
        to = devices.chosen(self._device)
        images, labels, *squares = (devices.moved(x, to) for x in packed)
        found = self._normalised(images)
        for square in squares:
            augment.cut(found, *torch.split(square, list(images.shape[2:]), 1))
        return found, labels

    def _normalised(self, images: Tensor) -> Tensor:
        described = self._set.images
        assert described
        if images.device not in self._scales:
            mean, std = (torch.tensor(v, device=images.device) for v in (described.mean, described.std))
            self._scales[images.device] = augment.scales(mean, std)
        return augment.normalise(images, *self._scales[images.device])

    def _pixels(self, split: str) -> Pixels:
        assert self._set.images
        columns = datasets.columns(self._set, split)
        return Pixels(columns, self._set.images, side=self._side, crop=self._crop, flip=self._flip)

    def _evaluation(self, name: str) -> Iterator[Batch]:
        split = name if name in self._set.splits else "train"
        rows = np.arange(self._set.splits[split].rows) if split == name else self._held
        pixels, labels = self._pixels(split), datasets.columns(self._set, split)["label"]
        to = devices.chosen(self._device)

        def make(_: int, index: int) -> tuple[Tensor, Tensor]:
            piece = rows[index * EVALUATION_BATCH : (index + 1) * EVALUATION_BATCH]
            if not len(piece):  # prefetched beyond the end
                return torch.empty(0), torch.empty(0)
            found = torch.from_numpy(pixels.evaluate(piece)), torch.from_numpy(labels[piece])
            return devices.pinned(found[0], to), devices.pinned(found[1], to)

        with closing(Prefetch(make, self.readers)) as ahead:
            for index in range(math.ceil(len(rows) / EVALUATION_BATCH)):
                images, truth = ahead.get(0, index)
                yield self._normalised(devices.moved(images, to)), devices.moved(truth, to)

    def _noisy(self, seed: int) -> NDArray[np.int64]:
        """Labels of all training rows for this seed: exactly round(noise x rows) of those trained on are wrong."""
        labels = datasets.columns(self._set, "train")["label"]
        if not self._noise:
            return labels
        known = self._labels.get(seed)
        if known is None:
            assert self._set.images
            classes, found = len(self._set.images.classes), labels.copy()
            order = chance.permutation(len(self._rows), seed, chance.NOISE)
            wrong = self._rows[order[: round(self._noise * len(self._rows))]]
            found[wrong] = (found[wrong] + 1 + chance.below(classes - 1, seed, chance.NOISE, wrong)) % classes
            self._labels = {seed: found}
            return found
        return known


def _load(data: str) -> datasets.DataSet:
    try:
        found = datasets.load(datasets.locate(data))
    except datasets.DataError as error:
        raise ValueError(f"data is {data!r}: {error}") from None
    if found.images is None:
        raise ValueError(f"data is {data!r}, a data set of {found.kind}; this task needs images")
    return found


def _side(dataset: datasets.DataSet, size: int | None) -> int:
    assert dataset.images
    _, height, width = dataset.images.shape
    if size is not None:
        if size < 1:
            raise ValueError(f"size is {size}; it is the side of an image in pixels")
        return size
    if dataset.images.encoding == "encoded":
        return 224
    if height != width:
        raise ValueError(f"size is missing: the images are {height} x {width}; set the side to scale them to")
    return height
