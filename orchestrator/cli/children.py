"""Processes that code of the user has started in this one and left running."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def ended() -> Iterator[None]:
    """End, at the end of the context, the child processes that began in it, as Ray does where a worker ends.

    For a command, whose process is its own; only where the system lists children (Linux).
    """
    before = _children()
    try:
        yield
    finally:
        for child in _children() - before:
            with suppress(OSError):
                os.kill(child, signal.SIGTERM)


def _children() -> set[int]:
    found = set[int]()
    for listed in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            found.update(map(int, listed.read_text(encoding="ascii").split()))
    return found
