"""Crop, flip, cutout and normalization of images. Draws are functions of (seed, epoch, row): see `chance.py`.

Images are uint8 [B, C, H, W] as stored in the cache; crop and flip copy them, normalization makes them float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.data import chance

Images = NDArray[np.uint8]
Numbers = NDArray[Any]


def crop(images: Images, padding: int, seed: int, epochs: Numbers, rows: Numbers) -> Images:
    """A window of the image's size at a random place in the image padded by `padding` black pixels on each side."""
    if not padding:
        return images
    height, width = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    y = chance.below(2 * padding + 1, seed, chance.CROP_Y, epochs, rows)
    x = chance.below(2 * padding + 1, seed, chance.CROP_X, epochs, rows)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    return np.asarray(windows[np.arange(len(images)), :, y, x])


def flip(images: Images, seed: int, epochs: Numbers, rows: Numbers) -> Images:
    """Mirror half of the images, left to right. The input is not modified."""
    mirrored = flips(seed, epochs, rows)
    return np.where(mirrored[:, None, None, None], images[..., ::-1], images)


def flips(seed: int, epochs: Numbers, rows: Numbers) -> NDArray[np.bool_]:
    """Which images are mirrored."""
    return np.asarray(chance.uniform(seed, chance.FLIP, epochs, rows) < 0.5)


def cutout(images: Tensor, side: int, seed: int, epochs: Numbers, rows: Numbers) -> Tensor:
    """Zero a square of `side` pixels around a random pixel, clipped at the border (DeVries & Taylor 2017, sec. 3.2).

    For normalized images [B, C, H, W], in which 0 is the mean. In place.
    """
    return cut(images, *squares(images.shape[2:], side, seed, epochs, rows)) if side else images


def squares(
    shape: Sequence[int], side: int, seed: int, epochs: Numbers, rows: Numbers
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The rows [B, H] and columns [B, W] of pixels in each image's square."""

    def near(limit: int, stream: int) -> NDArray[np.bool_]:
        first = (chance.below(limit, seed, stream, epochs, rows) - side // 2)[:, None]
        at = np.arange(limit)
        return np.asarray((at >= first) & (at < first + side))

    return near(shape[0], chance.CUTOUT_Y), near(shape[1], chance.CUTOUT_X)


def cut(images: Tensor, y: Any, x: Any) -> Tensor:
    """Zero the squares [B, H] and [B, W] of normalized images [B, C, H, W], in place."""
    y, x = torch.as_tensor(y, device=images.device), torch.as_tensor(x, device=images.device)
    return images.masked_fill_(y[:, None, :, None] & x[:, None, None, :], 0.0)


def scales(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """(factor, shift), each [C, 1, 1], of `normalise`; mean and std [C] of pixels scaled to [0, 1]."""
    return (1 / (255 * std))[:, None, None], (-mean / std)[:, None, None]


def normalise(images: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    """uint8 [B, C, H, W] -> float32 with mean 0 and deviation 1."""
    return torch.addcmul(shift, images.float(), factor)
