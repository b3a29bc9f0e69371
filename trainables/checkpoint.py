"""Checkpoints of one trial in its folder: atomic, checksummed, the newest whole one wins.

A checkpoint is `checkpoint-<number>-<first 16 hex of its SHA-256>.pt`; it appears under that name only when whole.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch

NAME = re.compile(r"checkpoint-(\d{6})-([0-9a-f]{16})\.pt")


def save(state: dict[str, Any], folder: Path, keep: int = 2) -> Path:
    """Write `state` (tensors, numbers, text) and remove all but the `keep` newest checkpoints."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    found = _found(folder)
    number = found[-1][0] + 1 if found else 0
    path = folder / f"checkpoint-{number:06d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    temporary = folder / f".{path.name}.{os.getpid()}"
    with temporary.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    for _, _, old in _found(folder)[:-keep]:
        old.unlink()
    return path


def newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, or None. A damaged one is passed over with a warning."""
    for _, digest, path in reversed(_found(folder)):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:16] == digest:
            state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
            return state
        warnings.warn(f"{path} is damaged; going on from the one before", stacklevel=2)
    return None


def _found(folder: Path) -> list[tuple[int, str, Path]]:
    """(number, checksum, path) of all checkpoints, oldest first."""
    matches = [(NAME.fullmatch(p.name), p) for p in folder.glob("checkpoint-*.pt")]
    return sorted((int(m[1]), m[2], p) for m, p in matches if m)
