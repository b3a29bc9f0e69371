"""Detect and report a full disk, which is never counted as a trial's own failure."""

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
    """The disk is full. Everything written so far is intact: the same command continues once there is space."""


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or its cause, means that a disk is full or a quota is exhausted."""
    while error is not None:
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def described(place: Path) -> str:
    """Which disk is full: that of `place`, or the temporary one if only that has no space left."""
    places = [place, Path(tempfile.gettempdir())]
    full = next((p for p in places if _free(p) < SCARCE), place)
    return (
        f"no space left on {_mount(full)} (needed for {place}), {_free(full) / 2**20:.1f} MiB free; nothing that was "
        "written is lost. Free some space and run the same command again"
    )


@contextmanager
def named(place: Path) -> Iterator[None]:
    """Turn every disk-full error in this context into a DiskFull that names the disk of `place`."""
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
    """Suppress disk-full errors for files that can be regenerated."""
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
    """`place`, or its nearest existing parent folder."""
    found = place.absolute()
    while not found.exists():
        found = found.parent
    return found
