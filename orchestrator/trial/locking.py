"""Ownership of a trial's folder."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout


def locked(path: Path, patience_s: float = 60.0) -> FileLock:
    """Own the trial's folder; a worker of a killed driver releases it when it dies."""
    lock = FileLock(path, timeout=patience_s, poll_interval=0.05, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise TimeoutError(f"{path.parent} is still held by another worker after {patience_s:.0f} s") from None
    return lock
