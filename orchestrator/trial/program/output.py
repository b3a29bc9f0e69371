"""What a script prints: kept in files of bounded size, and cut into lines for whoever looks for metrics in them."""

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
"""What makes a terminal write in color, or move."""


class Printed:
    """One of the log files of a trial that is a script, as of any other (see `log_files`). None stays empty."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self._path, self._limit = path, limit
        self._out = path.open("ab", buffering=0)
        if self._out.tell():
            self.write(log_files.goes_on())

    def write(self, data: bytes) -> None:
        """Add these bytes. A full disk loses them, not the trial."""
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
    """The end of what a trial printed on `stdout` or `stderr`."""
    shown = log_files.read(str(folder), log_files.file_name(stream))[-most:].decode("utf-8", "replace")
    return COLOR.sub("", re.sub(r"[^\n]*\r(?!\n)", "", shown))  # of a progress bar what it showed last


class Lines:
    """Cuts a stream of bytes into lines; a carriage return ends one too. Of one above LONGEST_LINE the end is lost.

    Colors are left out.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that are whole by now."""
        *whole, rest = re.split(rb"[\r\n]", self._rest + data)
        self._rest = rest[:LONGEST_LINE]
        for line in whole:
            if line:
                yield _plain(line[:LONGEST_LINE])

    def rest(self) -> str:
        """The line that nobody ended."""
        rest, self._rest = self._rest, b""
        return _plain(rest)


def _plain(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return COLOR.sub("", text) if "\x1b" in text else text
