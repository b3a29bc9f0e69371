"""Starts Ray for `run` before anything else: its processes take seconds to come up, during which torch is imported.

This covers the usual case, a new sweep on this machine. If the file is not a mapping, or there may be a sweep to
continue, nothing is started ahead; if the sweep is refused, Ray is shut down again without waiting.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from orchestrator.cli.app import Exit
from orchestrator.definition import yaml12
from orchestrator.storage import object_store

if TYPE_CHECKING:
    from orchestrator.executors.ray_cluster import RayCluster

end_process = os._exit
"""As it is before a command runs, in which code of the user's may call it (`termination.exits_raise`)."""
DECIDES = ("name", "resources")
"""Keys of a sweep file that decide whether, and how large, a cluster is started ahead."""


@contextmanager
def ahead(file: Path, words: Sequence[str], root: Path, max_concurrent: int) -> Iterator[RayCluster | None]:
    """A private cluster that is starting, if a new sweep is sure to need it; shut down on exit."""
    size = _size(file, words, root, max_concurrent)
    if size is None:
        yield None
        return
    from orchestrator.executors.ray_cluster import RayCluster

    cpu, most = size
    cluster = RayCluster(cpu=cpu, max_concurrent=most)
    cluster.until_settled.enter_context(_interrupted_at_once(cluster.scratch))
    try:
        yield cluster
    except BaseException:
        cluster.leave()
        raise
    finally:
        cluster.until_settled.close()
    cluster.close()


@contextmanager
def _interrupted_at_once(scratch: Path) -> Iterator[None]:
    """Meanwhile, Ctrl-C ends the process and Ray's processes immediately: there is nothing to keep yet.

    An exception in the middle of an import would leave an import lock held, for which Ray's thread would wait forever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> NoReturn:
        os.write(2, b"stopped; no trial had been started\n")
        shutil.rmtree(scratch, ignore_errors=True)
        end_process(Exit.INTERRUPTED)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _size(file: Path, words: Sequence[str], root: Path, max_concurrent: int) -> tuple[int, int | None] | None:
    """(CPUs per trial, concurrent trials or None for as many as fit); None if nothing is to be started."""
    if object_store.far(root) or any(word.partition("=")[0].split(".")[0] in DECIDES for word in words):
        return None
    try:
        found = yaml12.parse(file.read_text(encoding="utf-8")).value
        name = found["name"]
        started = root.is_dir() and any(path.name.startswith(f"{name}-") for path in root.iterdir())
    except (OSError, ValueError, TypeError, KeyError):  # reported by the actual reader of the file
        return None
    given = found.get("resources") or {}
    if started or not isinstance(given, Mapping) or given.get("gpu"):
        return None
    cpu, processes, pack, most = (given.get(key, default) for key, default in COUNTS.items())
    processes, most = 1 if processes == "auto" else processes, max_concurrent or most
    if not all(_is_count(value) for value in (cpu, processes, pack, most or 1)):
        return None
    return cpu * processes, max(1, most // min(most, pack)) if most else None


COUNTS = {"cpu": 1, "processes": "auto", "pack": 1, "max_concurrent": None}
"""Keys of `resources` that determine the cluster's size, and their defaults."""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
