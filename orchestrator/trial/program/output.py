"""What a script prints: kept in files of bounded size, and cut into lines for whoever looks for metrics in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

LIMIT = 5_000_000
"""Bytes of one file; there are two of each stream, the newer one and the one before it (`stdout.log.1`)."""
LONGEST_LINE = 65_536
TAIL = 4_000


class BoundedLog:
    """A log file that never grows above LIMIT: then it becomes `<name>.1`, and what was that is dropped."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self._path, self._limit = path, limit
        self._out = path.open("ab", buffering=0)
        self._size = path.stat().st_size
        self.dropped = False
        """Whether the beginning was dropped."""

    def write(self, data: bytes) -> None:
        """Add these bytes. A full disk loses them, not the trial."""
        try:
            while data:
                room = self._limit - self._size
                if room <= 0:
                    self._turn()
                    continue
                self._out.write(data[:room])
                self._size, data = self._size + len(data[:room]), data[room:]
        except OSError:
            return

    def _turn(self) -> None:
        self._out.close()
        older = self._path.with_name(f"{self._path.name}.1")
        self.dropped = self.dropped or older.exists()
        self._path.replace(older)
        self._out, self._size = self._path.open("ab", buffering=0), 0

    def close(self) -> None:
        """Close the file."""
        self._out.close()


def tail(path: Path, most: int = TAIL) -> str:
    """The end of a log, with that of the file before it where this one is short."""
    text = b""
    for file in (path.with_name(f"{path.name}.1"), path):
        if file.exists():
            with file.open("rb") as read:
                read.seek(max(0, file.stat().st_size - most))
                text += read.read()
    shown = text[-most:].decode("utf-8", "replace")
    return re.sub(r"[^\n]*\r(?!\n)", "", shown)  # of a progress bar what it showed last


class Lines:
    """Cuts a stream of bytes into lines; a carriage return ends one too. Of one above LONGEST_LINE the end is lost."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that are whole by now."""
        *whole, rest = re.split(rb"[\r\n]", self._rest + data)
        self._rest = rest[:LONGEST_LINE]
        for line in whole:
            if line:
                yield line[:LONGEST_LINE].decode("utf-8", "replace")

    def rest(self) -> str:
        """The line that nobody ended."""
        rest, self._rest = self._rest, b""
        return rest.decode("utf-8", "replace")
