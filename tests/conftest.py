"""What holds for all tests: one thread of arithmetic in each process, and registries as they were found."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY, ROOM = Path("/dev/shm"), 4 * 2**30

gc.disable()  # half the time of collecting seven thousand tests goes to looking for garbage among modules; see below

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # read by torch, NumPy and SciPy when they are imported, here and in subprocesses
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes would each compile the same files again
sys.dont_write_bytecode = False


def pytest_configure() -> None:
    """Folders of tests lie in memory where there is room: thousands of `fsync`s of a disk make nothing truer here."""
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests come first, so that no worker is left with one when the others have nothing to do.

    The name of a test is the same in every process: pytest's workers compare what each has collected.
    """
    rank: dict[Path, int] = {}
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid}: an address in the name of a test; give its parameters `ids`")
        slow = 0 if item.get_closest_marker("timeout") else 1 if item.get_closest_marker("slow") else 2
        rank[item.path] = min(slow, rank.get(item.path, 2))
    items.sort(key=lambda item: rank[item.path])


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: from here on garbage is looked for among what tests make, as anywhere."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """What a test registers, an example of the documentation for instance, no other test sees."""
    modules = [sys.modules.get(f"{package}.registry") for package in ("optim_core", "trainables")]
    before = [(module._REGISTRY, module._REGISTRY.loaded()) for module in modules if module is not None]
    yield
    for registry, things in before:
        ours = {name: thing for name, thing in registry.loaded().items() if name in registry._homes}
        registry._things = {**things, **ours}
