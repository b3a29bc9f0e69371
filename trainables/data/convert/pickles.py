"""Unpickling that cannot run code: only NumPy arrays and plain Python values.

A pickle is a program; `find_class` is its only access to code, and it allows only the names below.
"""

from __future__ import annotations

import _codecs
import pickle
from typing import Any, BinaryIO

import numpy as np

from trainables.data.errors import DataError


def _allowed() -> dict[tuple[str, str], Any]:
    reconstruct = np.empty(0).__reduce__()[0]  # NumPy's own name for it differs between versions
    found: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _codecs.encode,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        found[module, "_reconstruct"] = reconstruct
    return found


class _Unpickler(pickle.Unpickler):
    ALLOWED = _allowed()

    def __init__(self, file: BinaryIO, place: str) -> None:
        super().__init__(file, encoding="bytes")
        self._place = place

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise DataError(
                self._place, f"this pickle tries to load {module}.{name}; only NumPy arrays are allowed", field="pickle"
            ) from None


def load(file: BinaryIO, place: str) -> dict[bytes, Any]:
    """The dictionary in a pickle, Python 2 text as bytes. Raises DataError naming `place`."""
    try:
        found = _Unpickler(file, place).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise DataError(place, f"cannot be unpickled ({error}): truncated, or not a pickle", field="pickle") from None
    if not isinstance(found, dict):
        raise DataError(place, f"holds a {type(found).__name__}, not a dictionary", field="pickle")
    return {k.encode() if isinstance(k, str) else k: v for k, v in found.items()}
