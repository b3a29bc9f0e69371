"""A small disk of its own that a test can fill."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.storage import disk


@contextmanager
def mounted(place: Path) -> Iterator[Path]:
    """A disk of 12 MiB at `place`; the test is skipped where none can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk to fill")
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no small disk could be mounted: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(filler: Path) -> None:
    """Take every free byte."""
    for size in (1 << 20, 1 << 12, 1):
        try:
            with filler.open("ab", buffering=0) as out:
                while True:
                    out.write(b"x" * size)
        except OSError as error:
            assert disk.is_full(error)
