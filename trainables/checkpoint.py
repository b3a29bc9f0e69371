"""Checkpoints of a trial in its folder: atomic and checksummed; the newest intact one wins, within a quota for all
trials.

A checkpoint is `checkpoint-<number>-<first 16 hex of its SHA-256>.pt`; it appears under that name only when complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainables.whole import beside, fill

NAME = re.compile(r"checkpoint-(\d{6})-([0-9a-f]{16})\.pt")


@dataclass(frozen=True)
class Quota:
    """At most `limit` bytes for the checkpoints of all trials with folders in `trials`."""

    trials: Path
    limit: int

    def room(self, size: int, folder: Path) -> int:
        """How many checkpoints the trial in `folder` may have after writing one of `size` bytes: 0, 1 or 2.

        Makes room first: of each trial all but the newest checkpoint may be removed, the oldest first.
        """
        found: dict[Path, tuple[float, int]] = {}
        for path in self.trials.glob("*/checkpoint-*.pt"):
            with contextlib.suppress(FileNotFoundError):  # another trial made room, or ended
                status = path.stat()
                found[path] = status.st_mtime, status.st_size
        newest = {path.parent: path for path in sorted(found)}
        spare = sorted(set(found) - set(newest.values()), key=lambda path: found[path][0])
        free = self.limit - size - sum(bytes_ for _, bytes_ in found.values())
        for path in spare:
            if free >= 0:
                break
            path.unlink(missing_ok=True)
            free += found[path][1]
        mine = found[newest[folder]][1] if folder in newest else 0
        return 2 if free >= 0 else 1 if free + mine >= 0 else 0


class Unreadable(ValueError):  # noqa: N818
    """A checkpoint that could be written but not read back."""


def save(state: dict[str, Any], folder: Path, keep: int = 2, quota: Quota | None = None) -> Path | None:
    """Write `state` (tensors, numbers, text) and remove all but the `keep` newest checkpoints.

    None, with a warning, if the quota has no room: existing ones stay. Raises Unreadable if the first checkpoint would
    hold objects of other types, which `newest` could not read back.
    """
    buffer = io.BytesIO()
    try:
        torch.save(state, buffer)
        content = buffer.getvalue()
        if not _found(folder):
            _read(content)
    except (pickle.PickleError, TypeError, AttributeError) as error:
        raise Unreadable(f"a checkpoint holds tensors, numbers and text, {_foreign(error)}") from error
    if quota is not None:
        keep = min(keep, quota.room(len(content), folder))
        if not keep:
            warnings.warn(f"no room for a checkpoint of {folder} within {quota.limit:,} bytes", stacklevel=2)
            return None
    found = _found(folder)
    number = found[-1][0] + 1 if found else 0
    path = folder / f"checkpoint-{number:06d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    for torn in folder.glob(".checkpoint-*"):  # left by a process that died, or by a full disk
        torn.unlink()
    temporary = beside(path)
    try:
        fill(temporary, content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # a partial file only fills the disk further
        raise
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    for _, _, old in _found(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def newest(folder: Path) -> dict[str, Any] | None:
    """The newest intact checkpoint, or None. A damaged one is skipped with a warning."""
    for _, digest, path in reversed(_found(folder)):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:16] == digest:
            try:
                return _read(content)
            except pickle.PickleError as error:
                reason = f"cannot be read back, {_foreign(error)}"
        else:
            reason = "is damaged"
        warnings.warn(f"{path} {reason}; continuing from the previous one", stacklevel=2)
    return None


def _read(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    return found


def _foreign(error: Exception) -> str:
    """What else a checkpoint holds, from torch's message, which names it in its middle."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    return f"not {named[1]}" if named else f"nothing else: {(str(error).splitlines() or [''])[0]}"


def _found(folder: Path) -> list[tuple[int, str, Path]]:
    """(number, checksum, path) of all checkpoints, oldest first."""
    matches = [(NAME.fullmatch(p.name), p) for p in folder.glob("checkpoint-*.pt")]
    return sorted((int(m[1]), m[2], p) for m, p in matches if m)
