"""A full disk: told from other errors, named, and never a trial's own failure."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
SCARCE = 1 << 20
"""Bytes; a disk with less free space counts as full."""


class DiskFull(Exception):  # noqa: N818
    """Nothing more can be written. What was written is whole: the same command goes on once there is room."""


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that a disk is full or a quota is spent."""
    while error is not None:
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def described(place: Path) -> str:
    """Which disk is full: the one of `place`, or the temporary one when only that has no space left."""
    places = [place, Path(tempfile.gettempdir())]
    full = next((p for p in places if _free(p) < SCARCE), place)
    return (
        f"no space left on {_mount(full)} (needed for {place}), {_free(full) / 2**20:.1f} MiB are free; nothing that "
        "was written is lost. Make room and give the same command again"
    )


@contextmanager
def named(place: Path) -> Iterator[None]:
    """Raise DiskFull, which names the disk of `place`, for every error inside that comes from a full one."""
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        if not is_full(error):
            raise
        raise DiskFull(described(place)) from error


@contextmanager
def tolerated() -> Iterator[None]:
    """Go on when nothing more can be written: whatever was to be kept can be made again."""
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise


def _free(place: Path) -> int:
    return shutil.disk_usage(_there(place)).free


def _mount(place: Path) -> Path:
    found = _there(place).resolve()
    while not found.is_mount():
        found = found.parent
    return found


def _there(place: Path) -> Path:
    """`place`, or the nearest folder above it that exists."""
    found = place.absolute()
    while not found.exists():
        found = found.parent
    return found
