"""How a file gets its content whole or not at all: it is written beside its place, and then takes it."""

from __future__ import annotations

import os
from pathlib import Path


def beside(place: Path) -> Path:
    """Where the new content of a file is written first."""
    return place.with_name(f".{place.name}.{os.getpid()}")


def fill(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write the content; `durable`: return once it would survive a power failure."""
    with path.open("wb") as out:
        out.write(content)
        if durable:
            out.flush()
            os.fsync(out.fileno())
