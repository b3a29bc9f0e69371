"""Flat token files: `train.bin`, `val.bin`, concatenated ids, no header, little endian (nanoGPT's layout).

Some writers prepend a header of 256 int32 (the first a magic number, 20240520 or 20240801); read as tokens it would be
noise, so it is detected and refused.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.errors import DataError

DTYPES = ("uint16", "int32", "uint32")
HEADER_BYTES = 1024
MAGIC = (20240520, 20240801)
NUMPY_MAGIC = b"\x93NUMPY"
NAMES = {"train": ("train.bin",), "val": ("val.bin", "validation.bin", "valid.bin"), "test": ("test.bin",)}


def find(folder: Path) -> dict[str, Path]:
    """The file of each split, for those that exist."""
    found = {split: [folder / n for n in names if (folder / n).is_file()] for split, names in NAMES.items()}
    return {split: paths[0] for split, paths in found.items() if paths}


def tokens(path: Path, dtype: str) -> NDArray[Any]:
    """The ids of a file, memory-mapped, read-only. Raises DataError for a header, a truncated file, an empty one."""
    if dtype not in DTYPES:
        raise DataError(path, f"is {dtype!r}; available: {', '.join(DTYPES)}", field="dtype")
    size, width = path.stat().st_size, np.dtype(dtype).itemsize
    if not size:
        raise DataError(path, "the file is empty", field="tokens")
    if size % width:
        raise DataError(
            path, f"{size} bytes are not a whole number of {dtype}: truncated, or another dtype", field="tokens"
        )
    if has_header(path):
        raise DataError(
            path,
            f"starts with a header, not with tokens; cut it off (256 int32: tail -c +{HEADER_BYTES + 1} {path.name}; "
            ".npy: numpy.load(...).tofile(...)) and convert the rest",
            field="tokens",
        )
    return np.memmap(path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r")


def has_header(path: Path) -> bool:
    """Whether the file starts with a known magic number (including NumPy's), or with 256 int32 that are nearly all
    zero.
    """
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    words = np.frombuffer(head[: len(head) // 4 * 4], "<i4")
    if head.startswith(NUMPY_MAGIC) or (len(words) and int(words[0]) in MAGIC):
        return True
    return len(words) == HEADER_BYTES // 4 and bool(words[0]) and not words[8:].any()


def fingerprint(files: dict[str, Path], dtype: str, vocabulary: int) -> str:
    """32 hex digits from sizes and 64 evenly spaced pages of each file, since hashing everything would take minutes."""
    digest = hashlib.sha256(f"{dtype}/{vocabulary}".encode())
    for split, path in sorted(files.items()):
        size = path.stat().st_size
        digest.update(f"{split}/{size}".encode())
        with path.open("rb") as file:
            for at in np.linspace(0, max(0, size - 4096), 64, dtype=np.int64):
                file.seek(int(at))
                digest.update(file.read(4096))
    return digest.hexdigest()[:32]
