"""Batches of pixels, uint8 [B, C, side, side], from the cached columns of an image data set, raw or encoded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data import augment, decode
from trainables.data.cache import Columns
from trainables.data.description import Images

Rows = NDArray[np.int64]


class Pixels:
    """Rows of one split. `crop`: none, padded (by 1/8 of the side) or resized (see `decode.py`); `flip`: mirror half.

    Raw images of the requested side are copied unchanged; all others go through Pillow one by one.
    """

    def __init__(self, columns: Columns, images: Images, *, side: int, crop: str = "none", flip: bool = False) -> None:
        self._columns, self._images, self._side, self._crop, self._flip = columns, images, side, crop, flip
        self._raw = images.encoding == "raw"
        self._ready = self._raw and images.shape[1] == images.shape[2] == side

    def train(self, rows: Rows, epochs: Rows, seed: int) -> NDArray[np.uint8]:
        """Augmented images; each is a function of (seed, epoch, row)."""
        if self._crop == "resized":
            return np.stack([self._window(int(r), int(e), seed) for r, e in zip(rows, epochs, strict=True)])
        found = self.evaluate(rows)
        if self._crop == "padded":
            found = augment.crop(found, self._side // 8, seed, epochs, rows)
        return augment.flip(found, seed, epochs, rows) if self._flip else found

    def evaluate(self, rows: Rows) -> NDArray[np.uint8]:
        """Images without augmentation."""
        if self._ready:
            return np.asarray(self._columns["image"][rows])
        return np.stack([self._whole(int(row)) for row in rows])

    def _window(self, row: int, epoch: int, seed: int) -> NDArray[np.uint8]:
        image = self._image(row)
        width, height = image.size
        found = decode.resized(image, decode.window(width, height, seed, epoch, row), self._side)
        if self._flip and augment.flips(seed, np.asarray(epoch), np.asarray(row)):
            return np.ascontiguousarray(found[..., ::-1])
        return found

    def _whole(self, row: int) -> NDArray[np.uint8]:
        """A complete raw image, or the center of an encoded one."""
        image = self._image(row)
        width, height = image.size
        return decode.resized(image, (0, 0, width, height) if self._raw else decode.middle(width, height), self._side)

    def _image(self, row: int) -> Any:
        channels = self._images.shape[0]
        if self._raw:
            return decode.from_array(self._columns["image"][row])
        first, last = self._columns["image_offsets"][row : row + 2]
        return decode.opened(self._columns["image"][first:last].tobytes(), channels, f"row {row}")
