"""A script's output: stored in files of bounded size, and split into lines to search for metrics."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from orchestrator.trial import log_files
from orchestrator.trial.log_files import LIMIT

LONGEST_LINE = 65_536
TAIL = 4_000
COLOR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Terminal escape sequences for colors and cursor movement."""


class Printed:
    """One of the log files of a script's trial, as for any other (see `log_files`). Empty files are removed."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self._path, self._limit = path, limit
        self._out = path.open("ab", buffering=0)
        if self._out.tell():
            self.write(log_files.goes_on())

    def write(self, data: bytes) -> None:
        """Append these bytes. On a full disk they are lost, but not the trial."""
        with suppress(OSError):
            self._out.write(data)
            if self._out.tell() > self._limit:
                log_files.bound(self._path, self._limit)
                self._out.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            if not os.fstat(self._out.fileno()).st_size:
                self._path.unlink(missing_ok=True)
        self._out.close()


def tail(folder: Path, stream: str, most: int = TAIL) -> str:
    """The end of a trial's output on `stdout` or `stderr`."""
    shown = log_files.read(str(folder), log_files.file_name(stream))[-most:].decode("utf-8", "replace")
    return COLOR.sub("", re.sub(r"[^\n]*\r(?!\n)", "", shown))  # the last state of a progress bar


class Lines:
    """Splits a stream of bytes into lines; a carriage return also ends one. Lines above LONGEST_LINE are truncated.

    Colors are removed.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that are complete so far."""
        *whole, rest = re.split(rb"[\r\n]", self._rest + data)
        self._rest = rest[:LONGEST_LINE]
        for line in whole:
            if line:
                yield _plain(line[:LONGEST_LINE])

    def rest(self) -> str:
        """The final line without a line end."""
        rest, self._rest = self._rest, b""
        return _plain(rest)


def _plain(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return COLOR.sub("", text) if "\x1b" in text else text
