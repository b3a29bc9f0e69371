"""Find a script's metrics without its cooperation: in its output, or in a file that it writes.

    pattern        a regular expression with named groups, searched in every line of its standard output; a group
                   `loss__val` is the metric loss/val
    jsonl          one JSON object per line, in a file or in its output (`jsonl: stdout`)
    csv            a file with a header
    tensorboard    an event file, or a folder of them

A file may not exist yet, and may be rewritten as a whole; its content before the script began is ignored. A line that
is incomplete, for now or forever, gives no row.
"""

from __future__ import annotations

import csv
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

Row = Mapping[str, float]
GUARD = 64
NOT_FINITE = {f"{sign}{word}" for sign in ("", "+", "-") for word in ("nan", "inf", "infinity")}
"""Strings that strict JSON writers use for such numbers."""


class Source(Protocol):
    """Yields rows: field -> number."""

    def line(self, text: str) -> Iterator[Row]:
        """Rows in a line of standard output."""

    def poll(self, *, last: bool = False) -> Iterator[Row]:
        """New rows since the last call; `last`: nothing more will be written."""

    def trouble(self) -> str:
        """Why rows may be missing; empty if none are."""


def number(value: Any) -> float | None:
    """The number that a value is or spells; a percent sign is ignored."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(str(value).strip().rstrip(",;").removesuffix("%"))
    except ValueError:
        return None


def numbers(document: Mapping[str, Any], inside: str = "") -> dict[str, float]:
    """Every number in a JSON object, by name; nested ones as `outer/inner`."""
    found: dict[str, float] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{inside}{key}/")
        elif isinstance(value, str) and value.strip().lower() not in NOT_FINITE:
            continue
        elif (known := number(value)) is not None:
            found[f"{inside}{key}"] = known
    return found


class Pattern:
    """Rows from lines that match a regular expression; several per line if it matches more than once."""

    def __init__(self, pattern: str) -> None:
        self._pattern, self._odd = re.compile(pattern), ""

    def line(self, text: str) -> Iterator[Row]:
        """See Source."""
        for found in self._pattern.finditer(text):
            named = {name.replace("__", "/"): value for name, value in found.groupdict().items()}
            row = {name: known for name, value in named.items() if (known := number(value)) is not None}
            odd = next((name for name, value in named.items() if value and name not in row), "")
            self._odd = self._odd or (odd and f"{odd} matched {named[odd]!r}, which is not a number")
            if row:
                yield row

    def poll(self, *, last: bool = False) -> Iterator[Row]:
        """See Source."""
        yield from ()

    def trouble(self) -> str:
        """See Source."""
        return self._odd


class PrintedJson(Pattern):
    """Rows from output lines that are JSON objects."""

    def __init__(self) -> None:
        super().__init__("")

    def line(self, text: str) -> Iterator[Row]:
        """See Source."""
        if text.lstrip().startswith("{"):
            yield from _of_json(text)


def _of_json(text: str) -> Iterator[Row]:
    try:
        document = json.loads(text)
    except ValueError:
        return
    if isinstance(document, dict) and (row := numbers(document)):
        yield row


class _File:
    """The rows of one text file, complete lines only."""

    def __init__(self, path: Path) -> None:
        self.path, self._offset, self._guard, self._cut = path, 0, b"", b""
        self._lines: list[str] = []
        self._given, self._stale, self._whole = 0, False, b""

    def skip(self) -> None:
        """Skip the current content, which is from an earlier run."""
        self._given, self._stale = len(self.lines()), True

    def lines(self) -> list[str]:
        """All complete lines of the file as it is now."""
        try:
            with self.path.open("rb") as read:
                size = read.seek(0, 2)
                read.seek(max(0, self._offset - GUARD))
                if size < self._offset or read.read(min(GUARD, self._offset)) != self._guard:
                    self._offset, self._guard, self._lines = 0, b"", []  # rewritten
                    if self._stale:
                        self._given, self._stale = 0, False
                read.seek(self._offset)
                data = read.read()
        except OSError:
            return self._lines
        whole, newline, self._cut = data.rpartition(b"\n")
        if newline:
            self._lines += (whole + newline).decode("utf-8", "replace").splitlines()
            kept = whole + newline
            self._offset += len(kept)
            self._guard = (self._guard + kept)[-GUARD:] if self._offset >= GUARD else self._guard + kept
        return self._lines

    @property
    def cut(self) -> str:
        """The last line, if it has no line end."""
        return "" if self._cut == self._whole else self._cut.decode("utf-8", "replace")

    def forgive(self) -> None:
        """Accept the last line as complete although it has no line end."""
        self._whole = self._cut

    def new(self, *, header: int = 0) -> list[str]:
        """New lines since the last call, without the header's."""
        lines = self.lines()[header:]
        fresh = lines[self._given :]
        self._given = max(self._given, len(lines))
        return fresh


class _Files:
    """The files matching a path or a pattern."""

    def __init__(self, pattern: str, folder: Path) -> None:
        self._pattern, self._folder, self._files = pattern, folder, dict[Path, _File]()
        for file in self._found():
            file.skip()

    def _found(self) -> list[_File]:
        for path in matching(self._pattern, self._folder):
            if path.is_file() and path not in self._files:
                self._files[path] = _File(path)
        return list(self._files.values())

    def poll(self, *, last: bool = False) -> Iterator[Row]:
        """See Source."""
        for file in self._found():
            yield from self._rows(file, last)

    def _rows(self, file: _File, last: bool) -> Iterator[Row]:
        raise NotImplementedError

    def line(self, text: str) -> Iterator[Row]:
        """See Source."""
        yield from ()

    def trouble(self) -> str:
        """See Source."""
        if not self._files:
            return f"it wrote no {self._pattern}"
        cut = [file for file in self._files.values() if file.cut]
        return f"the last line of {cut[0].path.name} was cut off: {cut[0].cut[:80]!r}" if cut else ""


class JsonLines(_Files):
    """Rows of a file of JSON objects."""

    def _rows(self, file: _File, last: bool) -> Iterator[Row]:
        for text in file.new():
            yield from _of_json(text)
        if last and file.cut and (rows := list(_of_json(file.cut))):
            yield from rows
            file.forgive()


class Csv(_Files):
    """Rows of a file whose first line names the columns. A writer may add columns by rewriting it."""

    def _rows(self, file: _File, last: bool) -> Iterator[Row]:
        lines = file.lines()
        names = next(csv.reader(lines[:1]), None)
        for cells in csv.reader(file.new(header=1)) if names else ():
            row = {k: known for k, v in zip(names or (), cells, strict=False) if (known := number(v)) is not None}
            if row:
                yield row


class TensorBoard:
    """Scalars of TensorBoard event files, with their `step`."""

    def __init__(self, pattern: str, folder: Path) -> None:
        self._pattern, self._folder, self._offsets = pattern, folder, dict[Path, int]()
        for path in self._found():
            self._offsets[path] = path.stat().st_size

    def _found(self) -> list[Path]:
        found = list[Path]()
        for path in matching(self._pattern, self._folder):
            found += sorted(path.rglob("*tfevents*")) if path.is_dir() else [path]
        return found

    def line(self, text: str) -> Iterator[Row]:
        """See Source."""
        yield from ()

    def trouble(self) -> str:
        """See Source."""
        return "" if self._offsets else f"it wrote no event file in {self._pattern}"

    def poll(self, *, last: bool = False) -> Iterator[Row]:
        """See Source."""
        for path in self._found():
            with path.open("rb") as read:
                read.seek(self._offsets.get(path, 0))
                data, used = read.read(), 0
            for record, end in _records(data):
                yield from _scalars(record)
                used = end
            self._offsets[path] = self._offsets.get(path, 0) + used


def _records(data: bytes) -> Iterator[tuple[bytes, int]]:
    """(record, offset of the next one) for complete TFRecords: length (8), its checksum (4), content, checksum (4)."""
    at = 0
    while at + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        end = at + 12 + length + 4
        if end > len(data):
            return
        yield data[at + 12 : end - 4], end
        at = end


def _scalars(record: bytes) -> Iterator[Row]:
    from tensorboardX.proto.event_pb2 import Event  # comes with ray[tune]

    event = Event.FromString(record)
    for value in event.summary.value if event.HasField("summary") else ():
        if value.HasField("simple_value"):
            yield {"step": float(event.step), value.tag: float(value.simple_value)}
        elif value.HasField("tensor") and value.tensor.float_val:
            yield {"step": float(event.step), value.tag: float(value.tensor.float_val[0])}


def elsewhere(given: Sequence[Source], errors: str) -> str:
    """What to do if the metrics are in `errors`, what was printed to standard error; empty if they are not."""
    if not any(True for one in given for line in errors.splitlines() for _ in one.line(line)):
        return ""
    return "task.metrics matches what it printed to standard error, and only standard output is searched; send it there"


def matching(pattern: str, folder: Path) -> list[Path]:
    """The paths matching a path with or without *, below `folder` unless it is absolute."""
    if not any(sign in pattern for sign in "*?["):
        path = folder / pattern
        return [path] if path.exists() else []
    anchor = Path(pattern).anchor
    try:
        return sorted((Path(anchor) if anchor else folder).glob(pattern.removeprefix(anchor)))
    except (OSError, ValueError):
        return []


KINDS = ("pattern", "jsonl", "csv", "tensorboard")


def source(kind: str, given: str, folder: Path) -> Source:
    """The source for one entry of `metrics:`."""
    match kind:
        case "pattern":
            return Pattern(given)
        case "jsonl":
            return PrintedJson() if given == "stdout" else JsonLines(given, folder)
        case "csv":
            return Csv(given, folder)
        case "tensorboard":
            return TensorBoard(given, folder)
    raise ValueError(f"there is no metric source {kind!r}; available: {', '.join(KINDS)}")


def all_of(given: Sequence[Mapping[str, str]], folder: Path, fill: Mapping[str, str]) -> list[Source]:
    """The sources listed in a sweep file; `fill`: values of macros in their paths."""
    found = []
    for entry in given:
        for kind, value in entry.items():
            for macro, text in fill.items() if kind != "pattern" else ():
                value = value.replace(macro, text)
            found.append(source(kind, value, folder))
    return found
