"""An end to what never ends by itself: a module that hangs when it is imported, a task that catches whatever is raised
in it, a call into C code that ignores signals. Another thread watches the clock and reports where the main one is.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path as File
from types import FrameType
from typing import NoReturn

from orchestrator.definition.errors import SpecError
from orchestrator.definition.location import Where
from orchestrator.definition.yaml12 import Path, YamlError, parse

OURS = tuple(str(File(__file__).parents[2] / name) for name in ("orchestrator", "trainables", "optim_core"))
Frames = list[FrameType]
"""Calls of the user's own code in which the thread is, the innermost last."""


@contextlib.contextmanager
def watched(seconds: float, overdue: Callable[[Frames], None]) -> Iterator[None]:
    """Call `overdue`, in another thread, if the context lasts longer than so many seconds."""
    watching = threading.get_ident()
    timer = threading.Timer(seconds, lambda: overdue(_own(sys._current_frames().get(watching))))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def endless_reading(text: str, file: str, frames: Frames, seconds: float) -> SpecError:
    """The error for a sweep file that is still being read: which module or task does not finish."""
    importing = next((frame for frame in frames if frame.f_code.co_name == "<module>"), None)
    path: Path = ()
    doing = "building the task" if frames else "reading the file"
    if importing is not None:
        module = str(importing.f_globals.get("__name__", ""))
        doing, path = f"importing {module}", _naming(text, module)
    elif frames:
        path = ("task",)
    return _error(
        text, file, path, f"{doing} has not ended after {seconds:g} s{line(frames)}; --skip-steps waits for it"
    )


def endless_step(text: str, file: str, task: str, frames: Frames, seconds: float) -> SpecError:
    """The error of a rehearsal that cannot be ended."""
    doing = f"{frames[0].f_code.co_name}() of task {task}" if frames else f"a step of task {task}"
    way_out = "code that catches everything, KeyboardInterrupt too, or never returns: fix it, or pass --skip-steps"
    message = f"{doing} has not ended after {seconds:g} s and cannot be interrupted{line(frames)}: {way_out}"
    return _error(text, file, ("task", "name"), message)


def line(frames: Frames) -> str:
    """` (file.py:12)`: the innermost line."""
    return f" ({File(frames[-1].f_code.co_filename).name}:{frames[-1].f_lineno})" if frames else ""


def _own(frame: FrameType | None) -> Frames:
    found: Frames = []
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((*OURS, "<", f"{sys.base_prefix}/")) and "site-packages" not in name:
            found.insert(0, frame)
        frame = frame.f_back
    return [one for one in found if one.f_globals.get("__name__") != "__main__"]


def _naming(text: str, module: str) -> Path:
    """The key in the file that names the module, or else the task."""

    def within(value: object, path: Path) -> Iterator[Path]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from within(inner, (*path, key))
        elif isinstance(value, str) and module in (value, value.partition(":")[0], value.rpartition(".")[0]):
            yield path

    return next(within(parse(text).value, ()), ("task",))


def _error(text: str, file: str, path: Path, message: str) -> SpecError:
    try:
        return Where(file, parse(text)).error(path, message)
    except YamlError:
        return SpecError(file, 1, 1, path, message)


def at_once(code: int, descriptor: int, said: str) -> NoReturn:
    """Write a line and end the process, without waiting for any of its threads."""
    os.write(descriptor, f"{said}\n".encode(errors="replace"))
    os._exit(code)
