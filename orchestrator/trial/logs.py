"""Capture a trial's output in its folder (for the files see `log_files`).

In a worker, the file descriptors 1 and 2 themselves are redirected to the files while the trial is being advanced, so
output from C code and subprocesses is captured too, including the last output of a crashing process. If somebody may be
watching (`tee`: the trial runs in the driver's own process) everything is also shown; on a terminal or under a debugger
it is shown at once and the descriptors are left alone, so that prompts and line editing work.

A trial that continues after a crash appends to its earlier output.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO, cast

from orchestrator.storage.periodic import is_background, periodic
from orchestrator.trial.log_files import LIMIT, STREAMS, bound, file_name, goes_on

LINE_BUFFERED = 1
"""C's _IOLBF."""
LOOK_S = 0.5
"""Seconds between checks of the file sizes."""


class TrialLogs:
    """Captures output while the context `attached` lasts; the files are created on first use, and empty ones are
    removed.

    `tee`: also pass the output on to its original destination. One at a time per process.
    """

    def __init__(self, folder: Path, *, worker: int = 0, tee: bool = False, limit: int = LIMIT) -> None:
        self._streams = [_Stream(name, folder / file_name(name, worker), tee, limit) for name in STREAMS]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Within this context, what this process prints belongs to this trial."""
        with ExitStack() as stack:
            for stream in self._streams:
                stack.enter_context(stream.attached())
            stack.enter_context(_logged(self._streams[-1]))
            stack.enter_context(periodic(LOOK_S, self.bound, name="trial-logs"))
            yield

    def bound(self) -> None:
        """Remove the middle of files that are too long."""
        for stream in self._streams:
            stream.bound()

    def flush(self) -> None:
        """Make sure everything printed so far is in the files."""
        _flush()
        self.bound()

    def close(self) -> None:
        """The trial is over or continues elsewhere; all its output is in the files afterwards."""
        self.flush()
        for stream in self._streams:
            stream.close()


class _Stream:
    """One of the two streams."""

    def __init__(self, name: str, path: Path, tee: bool, limit: int) -> None:
        self._name, self._fd, self.path, self._tee, self._limit = name, STREAMS[name], path, tee, limit
        self._file = -1

    @contextmanager
    def attached(self) -> Iterator[None]:
        self._open()
        shown: TextIO | None = getattr(sys, self._name)
        where = shown if self._name == "stderr" or _is_terminal(shown) else sys.stderr  # standard output is for data
        if self._tee and _is_watched():
            with self._replaced(_Tee(shown, self.write, where, both=True)):
                yield
            return
        begun = os.fstat(self._file).st_size
        with self._redirected() as outside:
            if _leads_to(shown, self._fd) and not self._tee:
                yield
            else:
                inside = shown.write if shown is not None and _leads_to(shown, self._fd) else self.write
                beside = shown if shown is not None and not _leads_to(shown, self._fd) else outside
                with self._replaced(_Tee(shown, inside, beside, both=False)):
                    yield
        if self._tee and where is not None:
            self._show(where, begun)

    def write(self, text: str) -> object:
        """Append to the file."""
        return os.write(self._file, text.encode(errors="replace")) if self._file >= 0 else 0

    def bound(self) -> None:
        with suppress(FileNotFoundError):
            bound(self.path, self._limit)

    def close(self) -> None:
        if self._file < 0:
            return
        if os.fstat(self._file).st_size == 0:
            self.path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1

    def _open(self) -> None:
        if self._file >= 0:
            return
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if os.fstat(self._file).st_size:
            self.write(goes_on().decode())

    @contextmanager
    def _redirected(self) -> Iterator[TextIO | None]:
        """Redirects the descriptor to the file; yields a stream to its previous destination."""
        _flush()
        try:
            saved = os.dup(self._fd)
        except OSError:  # a process without this stream
            saved = -1
        os.dup2(self._file, self._fd)
        outside = open(os.dup(saved), "w", buffering=1, errors="replace") if self._tee and saved >= 0 else None  # noqa: SIM115
        try:
            with _line_by_line(getattr(sys, self._name)):
                yield outside
        finally:
            _flush()
            if outside is not None:
                outside.close()
            if saved >= 0:
                os.dup2(saved, self._fd)
                os.close(saved)
            else:
                os.close(self._fd)

    @contextmanager
    def _replaced(self, tee: _Tee) -> Iterator[None]:
        before = getattr(sys, self._name)
        setattr(sys, self._name, cast(TextIO, tee))
        try:
            yield
        finally:
            _flush()
            if getattr(sys, self._name) is tee:
                setattr(sys, self._name, before)
            tee.release()

    def _show(self, shown: TextIO, begun: int) -> None:
        """Pass on what was printed since the file had `begun` bytes."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(begun)
            if new := file.read():
                shown.write(new.decode(errors="replace"))
                shown.flush()


class _Tee:
    """A text stream that writes to `inside`, and also to `beside` (`both`); otherwise like the old stream.

    Output of the driver's own threads, such as its progress, bypasses it. Code that still holds it when the trial is
    over, such as a logging handler, writes to the old stream.
    """

    def __init__(
        self, old: TextIO | None, inside: Callable[[str], object], beside: TextIO | None, *, both: bool
    ) -> None:
        self._old, self._inside, self._beside, self._both = old, inside, beside, both
        self._released = False

    def write(self, text: str) -> int:
        past = self._released or is_background()
        stream = self._old if self._released or (past and self._both) else self._beside
        if not past:
            self._inside(text)
        if stream is not None and (past or self._both):
            stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def release(self) -> None:
        """Behave as the old stream from now on."""
        self._released = True

    def flush(self) -> None:
        if self._old is not None:
            self._old.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._old, name)


def _is_watched() -> bool:
    """Whether a user sits at a terminal, or a debugger is attached to this process."""
    if sys.gettrace() is not None:
        return True
    with suppress(OSError, ValueError):
        return any(os.isatty(fd) for fd in (0, 1, 2))
    return False


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _leads_to(stream: Any, fd: int) -> bool:
    try:
        return bool(stream.fileno() == fd)
    except (AttributeError, OSError, ValueError):
        return False


@contextmanager
def _line_by_line(stream: Any) -> Iterator[None]:
    """Keep output from waiting in a buffer, where a crash would lose it."""
    before = getattr(stream, "line_buffering", None)
    if before is None or not hasattr(stream, "reconfigure"):
        yield
        return
    stream.reconfigure(line_buffering=True)
    try:
        yield
    finally:
        with suppress(ValueError):
            stream.reconfigure(line_buffering=before)


def _flush() -> None:
    """Flush the buffers of Python and C."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            stream.flush()
    with suppress(OSError, AttributeError, TypeError):
        _c().fflush(None)


@lru_cache(maxsize=1)
def _c() -> ctypes.CDLL:
    """The C library of this process, with line-buffered standard output so that nothing is lost in a crash."""
    found = ctypes.CDLL(None)
    with suppress(ValueError, AttributeError):
        found.setvbuf(ctypes.c_void_p.in_dll(found, "stdout"), None, LINE_BUFFERED, ctypes.c_size_t(0))
    return found


@contextmanager
def _logged(stream: _Stream) -> Iterator[None]:
    """Let Python's log records reach the file even if the root logger's handlers write elsewhere.

    Warnings that were shown for one trial are shown for the next one too.
    """
    with suppress(Exception), warnings.catch_warnings():
        pass  # its exit makes Python forget which warnings were shown
    root = logging.getLogger()
    shown = any(getattr(h, "stream", None) in (sys.stdout, sys.stderr, sys.__stderr__) for h in root.handlers)
    if shown or not root.handlers:
        yield
        return
    handler = _Records(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class _Records(logging.Handler):
    """Writes records only to the file."""

    def __init__(self, stream: _Stream) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        if not is_background():
            self._stream.write(f"{self.format(record)}\n")
