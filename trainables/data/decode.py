"""Encoded images (JPEG, PNG) to uint8 [C, side, side]: random resized crops for training, center crops for evaluation.

Training: a window of 8 to 100% of the area and aspect ratio 3/4 to 4/3, ten tries, otherwise the center (Szegedy et
al. 2015, sec. 6), and a flip. Evaluation: the shorter side scaled to 8/7 of `side` (256 for 224), then the center.
Bilinear, antialiased.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data import chance
from trainables.data.errors import DataError

TRIES = 10
UNKNOWN = "is not an image: unknown format"
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
Box = tuple[float, float, float, float]


def opened(content: Any, channels: int, place: str) -> Any:
    """The decoded Pillow image of 1 or 3 channels. Raises DataError naming `place`."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(content)).convert("RGB" if channels == 3 else "L")
    except UnidentifiedImageError:
        raise DataError(place, UNKNOWN, field="image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(place, f"cannot be decoded: {error}", field="image") from None


def header(content: Any, place: str) -> str:
    """The mode of an encoded image (`L`, `RGB`, ...) from its header. Raises DataError if it is not an image."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            return str(image.mode)
    except UnidentifiedImageError:
        raise DataError(place, UNKNOWN, field="image") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(place, f"is not an image: {error}", field="image") from None


def window(width: int, height: int, seed: int, epoch: int, row: int) -> Box:
    """The random window of an image, (left, top, right, bottom) in pixels."""
    tries = np.arange(TRIES)
    area = width * height * (AREA[0] + (AREA[1] - AREA[0]) * chance.uniform(seed, chance.AREA, epoch, row, tries))
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = np.exp(low + (high - low) * chance.uniform(seed, chance.RATIO, epoch, row, tries))
    widths, heights = np.round(np.sqrt(area * ratio)), np.round(np.sqrt(area / ratio))
    fits = np.flatnonzero((widths > 0) & (heights > 0) & (widths <= width) & (heights <= height))
    if len(fits):
        w, h = int(widths[fits[0]]), int(heights[fits[0]])
        x = int(chance.below(width - w + 1, seed, chance.CROP_X, epoch, row))
        y = int(chance.below(height - h + 1, seed, chance.CROP_Y, epoch, row))
    else:
        w = min(width, round(height * RATIO[1]))
        h = min(height, round(width / RATIO[0]))
        x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def middle(width: int, height: int) -> Box:
    """The center window of evaluation: 7/8 of the shorter side."""
    side = min(width, height) * 7 / 8
    x, y = (width - side) / 2, (height - side) / 2
    return x, y, x + side, y + side


def resized(image: Any, box: Box, side: int) -> NDArray[np.uint8]:
    """The window, scaled to [C, side, side]."""
    from PIL import Image

    pixels = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=box))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None])


def from_array(pixels: NDArray[np.uint8]) -> Any:
    """A Pillow image of uint8 [C, H, W] with 1 or 3 channels."""
    from PIL import Image

    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
