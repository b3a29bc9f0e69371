"""Stateless randomness: uniform draws that are functions of their keys, and the order of an endless training run.

    draw(keys) = mix(... mix(mix(k_1) + k_2) ... + k_n),   mix: the finalizer of SplitMix64 (Steele et al. 2014, Fig.
    16)

Keys are (seed, stream, epoch, row): each image gets its own crop in each epoch, whichever worker prepares it, whatever
the batch size, before and after a resume. No generator is used, so there is no state to save, and the numbers do not
depend on a library's version.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[Any] | int
ORDER, NOISE, CROP_Y, CROP_X, FLIP, CUTOUT_Y, CUTOUT_X, AREA, RATIO, WINDOW, HOLD_OUT = range(1, 12)
"""Streams: draws of different streams are independent."""


def draw(*keys: Keys) -> NDArray[np.uint64]:
    """64 random bits for each combination of keys (integers in [0, 2^63), broadcast against each other)."""
    with np.errstate(over="ignore"):
        state = np.asarray(np.uint64(0x9E3779B97F4A7C15))
        for key in keys:
            state = state + np.asarray(key, dtype=np.uint64)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = (state ^ (state >> np.uint64(31))) + np.uint64(0x9E3779B97F4A7C15)
    return np.asarray(state)


def uniform(*keys: Keys) -> NDArray[np.float64]:
    """Uniform in [0, 1)."""
    return np.asarray((draw(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def below(limit: int, *keys: Keys) -> NDArray[np.int64]:
    """Uniform integers in [0, limit)."""
    return np.asarray((uniform(*keys) * limit).astype(np.int64))


def permutation(size: int, *keys: int) -> NDArray[np.int64]:
    """A random order of 0 ... size - 1. O(size log size)."""
    return np.argsort(draw(*keys, np.arange(size)), kind="stable")


class Order:
    """Batches as consecutive pieces of endless concatenated epochs, each a fresh order of all rows.

    Every batch is full; each row occurs once per epoch. The last four orders are cached, only for speed.
    """

    def __init__(self, rows: int, batch_size: int) -> None:
        self._rows, self._size = rows, batch_size
        self._kept: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._lock = threading.Lock()

    def batch(self, seed: int, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(row numbers [batch], epoch of each [batch])."""
        first = index * self._size
        rows, epochs = [], []
        left = self._size
        while left:
            epoch, offset = divmod(first, self._rows)
            piece = self._epoch(seed, epoch)[offset : offset + left]
            rows.append(piece)
            epochs.append(np.full(len(piece), epoch))
            first, left = first + len(piece), left - len(piece)
        return np.concatenate(rows), np.concatenate(epochs)

    def _epoch(self, seed: int, epoch: int) -> NDArray[np.int64]:
        with self._lock:
            if (seed, epoch) not in self._kept:
                while len(self._kept) > 3:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[seed, epoch] = permutation(self._rows, seed, ORDER, epoch)
            return self._kept[seed, epoch]
