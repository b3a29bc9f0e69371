"""The files that this process has read for a task: what a result may depend on besides code and parameters.

An audit hook sees what Python opens: `open`, `os.open`, pathlib, NumPy, csv, mmap, sqlite3, and listings of folders.
Questions whether a file exists raise no event; the functions in ASKS are wrapped to hear them. What libraries open in C
(HDF5, Arrow, OpenCV), environment variables and the network are not seen. Files that a trial writes before it reads
them are its own output.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache, wraps
from multiprocessing import process
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.definition import places

Stamp = tuple[int, ...]
ABSENT: Stamp = ()
CLOCK_NS = 2 * 10**9
"""The coarsest clock of a file system, FAT's."""
FORKS = frozenset({"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"})
MACHINE = re.compile("/(proc|sys|dev(?!/shm))/")
ASKS = ((os.path, ("exists", "lexists", "isfile", "isdir")), (Path, ("exists", "is_file", "is_dir")))
THERE = "there"
"""In place of the digest of what a task only asked for, and found."""
OTHERS, TRANSPARENT = ("geosweep", "orchestrator"), ("optim_core", "trainables")
"""Our packages that read files for themselves, and those that read them for a task."""


class _Caller(NamedTuple):
    first: str
    """The innermost code outside the standard library: of a `task`, or a `library`; empty: this program."""
    task: bool
    """Whether a task's code called it."""
    imports: bool
    """Whether something is being imported."""
    inside: bool
    """Whether this program called that."""

    @property
    def counts(self) -> bool:
        """Whether it may be a trial, and not a script or notebook for itself."""
        return self.inside or self.imports or threading.current_thread() is not threading.main_thread()


_seen: dict[str, Stamp | None] = {}
"""Path -> its stamp when it was first read; None: it has changed in between."""
_asked: set[str] = set()
"""Paths that a task found to exist; those that did not are in `_seen`."""
_written: set[str] = set()
_away: list[str] = []
"""What else may have read files: children of this process, started by a task."""
_watching: list[bool] = []


def watch() -> None:
    """Record from now on. May be called again."""
    if not _watching:
        _watching.append(True)
        sys.addaudithook(_heard)
        for owner, names in ASKS:
            for name in names:
                setattr(owner, name, _asking(getattr(owner, name)))


def _asking(asked: Callable[..., bool]) -> Callable[..., bool]:
    """The function, which notes what a task asks it for."""

    @wraps(asked)
    def ask(path: Any, *args: Any, **given: Any) -> bool:
        found = asked(path, *args, **given)
        with suppress(Exception):  # a broken path is the caller's business
            _note(path, asks=True)
        return found

    return ask


@contextmanager
def forks() -> Iterator[None]:
    """Notice the processes that multiprocessing starts in the context; some ways of starting one raise no event."""
    before = repr(process._process_counter)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if repr(process._process_counter) != before:  # type: ignore[attr-defined]
            _away.append("multiprocessing")


def read(without: Path) -> dict[str, str] | None:
    """Path -> sha256 of the content of everything that was read so far, except libraries' files in the folder
    `without`; an empty one for what was not there.

    None if that is not known: a file has changed since it was read, or a child process may have read some.
    """
    if not _watching or _away:
        return None
    found: dict[str, str] = {}
    for path, stamp in list(_seen.items()):
        if path.startswith(f"{without}{os.sep}"):
            continue
        if stamp is None or _stamp(path) != stamp or (now := digest(path)) is None:
            return None
        found[path] = now
    for path in _asked - _seen.keys():
        if not path.startswith(f"{without}{os.sep}") and path != str(without):
            found[path] = THERE if os.path.lexists(path) else ""
    return found


def unchanged(recorded: Mapping[str, str]) -> bool:
    """Whether everything recorded by `read` has that content now."""
    return all(os.path.lexists(path) if was == THERE else digest(path) == was for path, was in recorded.items())


def digest(path: str) -> str | None:
    """sha256 of a file's content or of the names in a folder; empty if there is neither, None if it cannot be read."""
    stamp = _stamp(path)
    if stamp is ABSENT:
        return ""
    just_written = time.time_ns() - max(stamp[-2:]) < CLOCK_NS  # the next change might have the same stamp
    try:
        return _digest.__wrapped__(path, stamp) if just_written else _digest(path, stamp)
    except OSError:
        return None


@lru_cache(maxsize=100_000)  # every trial asks for the same files
def _digest(path: str, stamp: Stamp) -> str:
    if os.path.isdir(path):
        names = sorted(name for name in os.listdir(path) if name != "__pycache__")
        return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()
    if not os.path.isfile(path):
        raise OSError(f"{path} is not a file")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ABSENT
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _heard(event: str, args: tuple[Any, ...]) -> None:
    """The hook. It must not raise: that would make the event itself fail."""
    if event == "open":
        path, _, flags = args
        if not isinstance(path, int):
            _note(path, writes=bool(flags) and flags & os.O_ACCMODE == os.O_WRONLY)
    elif event in ("os.listdir", "os.scandir"):
        if "importlib" not in sys._getframe(1).f_code.co_filename:  # which looks for modules and packages
            _note(args[0] or ".")
    elif event == "sqlite3.connect":
        _note(args[0])
    elif event in FORKS:
        caller = _caller(sys._getframe(1))
        if caller.first and caller.counts and (caller.first == "task" or not caller.imports):
            _away.append(event)


def _note(given: Any, *, writes: bool = False, asks: bool = False) -> None:
    try:
        path = os.path.abspath(os.fsdecode(given))
    except (TypeError, ValueError, OSError):
        return
    if MACHINE.match(path) or f"{os.sep}.git{os.sep}" in path or _is_installed(path):
        return
    caller = _caller(sys._getframe(2))
    if writes:
        if caller.first and caller.inside and path not in _seen:
            _written.add(path)
        else:
            _written.discard(path)
        return
    if path in _written or not (caller.task or (caller.first and path.startswith(tuple(_folders())))):
        return
    if not caller.counts:
        return
    if path.endswith(".pyc"):
        try:
            path = importlib.util.source_from_cache(path)
        except ValueError:
            return
    stamp = _stamp(path)
    if asks and stamp is not ABSENT:
        _asked.add(path)
        return
    _seen[path] = None if _seen.setdefault(path, stamp) != stamp else stamp


def _caller(frame: Any) -> _Caller:
    first, task, imports = "", False, False
    while frame is not None:
        kind = _kind(frame.f_code.co_filename, frame.f_globals.get("__name__") == "__main__")
        if kind == "ours":
            return _Caller(first, task, imports, inside=True)
        task |= kind == "task"
        first = first or kind
        imports |= frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    return _Caller(first or "library", task, imports, inside=False)


@lru_cache(maxsize=100_000)
def _kind(file: str, main: bool) -> str:
    if file.startswith("<"):
        return "task" if main else ""
    if any(file.startswith(f"{places.INSTALLED}{os.sep}{name}{os.sep}") for name in OTHERS):
        return "ours"
    if any(file.startswith(f"{places.INSTALLED}{os.sep}{name}{os.sep}") for name in TRANSPARENT):
        return "library"
    if _is_installed(file):
        return "library" if f"{os.sep}site-packages{os.sep}" in file or "dist-packages" in file else ""
    return "task"


def _is_installed(path: str) -> bool:
    return f"{path}{os.sep}".startswith(_installed())


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    found = {sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    found |= {f"{places.INSTALLED}{os.sep}{name}" for name in (*OTHERS, *TRANSPARENT)}
    return tuple(f"{os.path.abspath(place)}{os.sep}" for place in {*found, *map(os.path.realpath, found)})


def _folders() -> Iterator[str]:
    """Where the files of sweeps are."""
    for place in (*os.environ.get(places.BESIDE, "").split(os.pathsep), *sys.path, os.getcwd()):
        if place and place != str(places.INSTALLED):
            yield f"{place.rstrip(os.sep)}{os.sep}"
